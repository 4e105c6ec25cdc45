"""Loading a base model and a reward model, and checking that they fit together."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from ..backends import get_backend
from ..backends.base import Backend
from ..backends.torch import TorchBackend
from ..support.errors import VGFError
from .language import LanguageModel
from .reward import RewardModel
from .settings import AlignSettings

# transformers 5 has another name for it
_DTYPE = "dtype" if int(transformers.__version__.partition(".")[0]) >= 5 else "torch_dtype"


@dataclass(frozen=True)
class Models:
    """A base model and a reward model over the same tokens, checked; see :func:`pair`."""

    language: LanguageModel
    reward: RewardModel
    tokenizer: Any

    @cached_property
    def backend(self) -> Backend:
        """The backend that computes the flow, on the reward model's device."""
        device = str(self.reward.device).replace("cuda", "gpu")
        return get_backend(
            "torch", device=device, dtype=str(self.reward.dtype).removeprefix("torch.")
        )

    @cached_property
    def fingerprint(self) -> str:
        """A short name for the weights and tokens, different for other models."""
        parts = sorted(self.tokenizer.get_vocab().items())
        for model in (self.language.model, self.reward.model):
            for name, weight in model.named_parameters():
                flat = weight.detach().flatten()
                some = torch.cat([flat[:8], flat[-8:]]).double().tolist()
                parts.append((name, [list(weight.shape), str(weight.dtype), some]))
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def encode(self, prompt: str, name: str, new_tokens: int) -> list[int]:
        """A prompt's tokens.

        Args:
            prompt: the text.
            name: of the prompt, for the messages.
            new_tokens: how many more must fit.

        Raises:
            VGFError: there are none, or too many for a model.
        """
        tokens = list(self.tokenizer(prompt)["input_ids"])
        if not tokens:
            raise VGFError(f"{name} is empty: it has no token; every prompt needs one")
        for flag, model in (("--sft", self.language.model), ("--rm", self.reward.model)):
            most = getattr(model.config, "max_position_embeddings", None)
            if most is not None and len(tokens) + new_tokens > most:
                raise VGFError(
                    f"{name} is too long: {len(tokens)} tokens and {new_tokens} new ones are more "
                    f"than the {most} that the {flag} model takes; shorten it, or lower "
                    "--max-new-tokens"
                )
        return tokens

    def text(self, response: list[int]) -> str:
        """A response's text, without the end."""
        return str(self.tokenizer.decode(response, skip_special_tokens=True))


def load_models(sft: str, rm: str, settings: AlignSettings | None = None) -> Models:
    """Load both models, from folders or by their names, and check them.

    A path that ends with .gguf is read through transformers, which needs the package `gguf`.

    Raises:
        VGFError: what cannot be loaded, a reward model without a trained head of one output, and
            as :func:`pair`.
    """
    settings = AlignSettings() if settings is None else settings
    language = load_model(AutoModelForCausalLM, sft, settings.sft_device, settings.sft_dtype)
    reward = load_reward_model(rm, settings.rm_device, settings.rm_dtype)
    tokenizers = [load_tokenizer(place, settings.pad_token) for place in (sft, rm)]
    return pair(language, reward, tokenizers[0], tokenizers[1])


def load_model(kind: Any, place: str, device: str, dtype: str | None, **options: Any) -> Any:
    """A model of one of transformers' auto classes, frozen, on its device.

    Raises:
        VGFError: it cannot be loaded; the message names the place.
    """
    options[_DTYPE] = dtype or "auto"
    loaded = _load(kind, place, **options)
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    backend = get_backend("torch", device=device)
    assert isinstance(backend, TorchBackend)
    model.requires_grad_(False).eval().to(backend.torch_device)
    return loaded


def load_reward_model(place: str, device: str, dtype: str | None) -> Any:
    """A sequence classifier with one trained output.

    Raises:
        VGFError: it cannot be loaded, or its head is missing or has another number of outputs.
    """
    model, report = load_model(
        AutoModelForSequenceClassification, place, device, dtype, output_loading_info=True
    )
    fresh = [name for name in report["missing_keys"] if "score" in name or "classifier" in name]
    if fresh:
        raise VGFError(
            f"{place} is not a reward model: it lacks {fresh[0]}, the head that gives the reward; "
            "give a folder of a trained sequence classifier"
        )
    check_head(model, place)
    return model


def load_tokenizer(place: str, pad_token: str | None = None) -> Any:
    """A tokenizer, with the given padding token if it has none.

    Raises:
        VGFError: it cannot be loaded, or lacks a padding token or the given one.
    """
    tokenizer = _load(AutoTokenizer, place)
    if tokenizer.pad_token is None and pad_token is not None:
        if pad_token not in tokenizer.get_vocab():
            raise VGFError(f"--pad-token {pad_token!r} is not a token of {place}; name another")
        tokenizer.pad_token = pad_token
    check_padding(tokenizer, place)
    return tokenizer


def _load(kind: Any, place: str, **options: Any) -> Any:
    path = Path(place).expanduser()
    if path.suffix == ".gguf":
        place, options["gguf_file"] = str(path.parent), path.name
    elif path.exists():
        place = str(path)
    if not os.path.isdir(place) and (path.is_absolute() or path.suffix == ".gguf"):
        raise VGFError(f"{place}: no such folder; give a model's folder, or its name")
    try:
        return kind.from_pretrained(place, **options)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        message = " ".join(str(error).split())[:300]
        raise VGFError(f"{place} cannot be loaded by {kind.__name__}: {message}") from error


# --- checks -------------------------------------------------------------------------------------


def check_head(model: Any, place: str = "the reward model") -> None:
    """Check that a model has one output.

    Raises:
        VGFError: it has another number.
    """
    outputs = getattr(model.config, "num_labels", None)
    if outputs != 1:
        raise VGFError(
            f"{place} has {outputs} outputs, and a reward is one number; give a sequence "
            "classifier with num_labels = 1"
        )


def check_padding(tokenizer: Any, place: str = "the tokenizer") -> None:
    """Check that a tokenizer has a padding token.

    Raises:
        VGFError: it has none.
    """
    if tokenizer.pad_token_id is None:
        end = tokenizer.eos_token
        hint = f", for example {end!r}" if end is not None else ""
        raise VGFError(f"{place} has no padding token; name a token with --pad-token{hint}")


def pair(sft: Any, rm: Any, tokenizer: Any, rm_tokenizer: Any = None) -> Models:
    """Put a base model and a reward model together.

    Both are set to evaluation mode; nothing else in them is changed.

    Args:
        sft: one of Hugging Face's causal language models.
        rm: a sequence classifier with one output.
        tokenizer: of the base model.
        rm_tokenizer: of the reward model; None if it is known to be the same.

    Raises:
        VGFError: tokenizers that differ, no padding token, a head without exactly one output, or a
        model with fewer embeddings than there are tokens.
    """
    check_head(rm)
    check_padding(tokenizer)
    if rm_tokenizer is not None:
        _check_same(tokenizer.get_vocab(), rm_tokenizer.get_vocab())
    vocabulary = len(tokenizer)
    for name, model in (("base", sft), ("reward", rm)):
        rows = model.get_input_embeddings().weight.shape[0]
        if rows < vocabulary:
            raise VGFError(
                f"the {name} model has {rows} token embeddings, and the tokenizer {vocabulary} "
                "tokens; they do not belong together"
            )
        model.eval()
    return Models(language_model(sft, tokenizer), RewardModel(rm, vocabulary), tokenizer)


def language_model(model: Any, tokenizer: Any) -> LanguageModel:
    """A causal language model with its tokenizer's facts about the tokens."""
    device = model.get_input_embeddings().weight.device
    allowed = torch.ones(len(tokenizer), dtype=torch.bool, device=device)
    allowed[list(tokenizer.all_special_ids)] = False
    return LanguageModel(model, tokenizer.eos_token_id, tokenizer.pad_token_id, allowed)


def _check_same(ours: dict[str, int], theirs: dict[str, int]) -> None:
    differing = [
        token for token in sorted({*ours, *theirs}) if ours.get(token) != theirs.get(token)
    ]
    if differing:
        token = differing[0]
        numbers = " and ".join(
            f"{vocabulary[token]} for the {name} model"
            if token in vocabulary
            else f"not known to the {name} model"
            for name, vocabulary in (("base", ours), ("reward", theirs))
        )
        raise VGFError(
            f"the two models have different tokenizers: {len(differing)} tokens differ, such as "
            f"{token!r}, which is {numbers}; the flow needs one vocabulary"
        )
