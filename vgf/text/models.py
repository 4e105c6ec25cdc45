"""Loading a base model and a reward model, and checking that they fit together."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors
import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from ..backends import get_backend
from ..backends.base import Backend
from ..backends.torch import TorchBackend
from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import check_fetched, expanded, read_json
from .language import LanguageModel
from .prompts import Content, Prompt, Turns, turn_text, with_system
from .reading import Reader, texts_of_tokens
from .reward import RewardModel, from_settings
from .settings import AlignSettings
from .tokens import (
    added_text,
    chat_prompt,
    differences,
    encode,
    encode_plain,
    special_ids,
    stop_ids,
)

# transformers 5 has another name for it
_DTYPE = "dtype" if int(transformers.__version__.partition(".")[0]) >= 5 else "torch_dtype"
# With fewer of the base model's tokens known to the reward model's tokenizer, no bridge is built
LEAST_KNOWN = 0.5
ADAPTER = "adapter_config.json"  # of a PEFT adapter's folder


@dataclass(frozen=True)
class Query:
    """A prompt as the models read it.

    Attributes:
        content: the text or turns, after what was done to a prompt that is too long.
        tokens: the base model's.
    """

    content: Content
    tokens: list[int]


@dataclass(frozen=True)
class Models:
    """A base model and a reward model, checked; see :func:`pair`.

    Attributes:
        language, reward: the models.
        tokenizer: the base model's.
        rm_tokenizer: the reward model's.
        bridge: None with one vocabulary, otherwise as in :class:`vgf.text.AlignSettings`.
    """

    language: LanguageModel
    reward: RewardModel
    tokenizer: Any
    rm_tokenizer: Any
    bridge: str | None = None

    @cached_property
    def backend(self) -> Backend:
        """The backend that computes the flow, on the reward model's device."""
        device = str(self.reward.device).replace("cuda", "gpu")
        return get_backend(
            "torch", device=device, dtype=str(self.reward.dtype).removeprefix("torch.")
        )

    @cached_property
    def reader(self) -> Reader:
        """How the reward model reads responses."""
        return Reader(self.rm_tokenizer, self.tokenizer)

    @cached_property
    def fingerprint(self) -> str:
        """A short name for weights, tokens and chat templates, different for other models."""
        parts: list[Any] = [self.bridge, self.reward.label, self.language.ends]
        for tokenizer in (self.tokenizer, self.rm_tokenizer):
            parts += sorted(tokenizer.get_vocab().items())
            parts.append(getattr(tokenizer, "chat_template", None))
        for model in (self.language.model, self.reward.model):
            for name, weight in model.named_parameters():
                flat = weight.detach().flatten()
                some = torch.cat([flat[:8], flat[-8:]]).double().tolist()
                parts.append((name, [list(weight.shape), str(weight.dtype), some]))
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    @cached_property
    def table(self) -> Tensor:
        """What decoding compares with: an embedding of each of the base model's tokens ``[V, d]``.

        The reward model's own; with two vocabularies, the mean of the embeddings of the reward
        model's tokens of the token's text, zero where it has none.
        """
        return self.reward.table if self.bridge is None else self._spelled[0]

    @cached_property
    def allowed(self) -> Tensor:
        """Booleans ``[V]``: the tokens that may be decoded to."""
        allowed = self.language.allowed.to(self.table.device)
        return allowed if self.bridge is None else allowed & self._spelled[1]

    @cached_property
    def _spelled(self) -> tuple[Tensor, Tensor]:
        texts = texts_of_tokens(self.tokenizer, len(self.language.allowed))
        rows = self.rm_tokenizer(texts, add_special_tokens=False)["input_ids"]
        unknown = self.rm_tokenizer.unk_token_id
        known = [bool(row) and unknown not in row for row in rows]
        own = self.reward.embed(range(self.reward.vocabulary)).to(self.reward.dtype)
        index = torch.repeat_interleave(torch.tensor([len(row) for row in rows])).to(own.device)
        flat = torch.tensor([i for row in rows for i in row], device=own.device)
        total = own.new_zeros(len(rows), own.shape[1]).index_add_(0, index, own[flat])
        count = torch.tensor([max(len(row), 1) for row in rows], device=own.device)
        return total / count[:, None], torch.tensor(known, device=own.device)

    def check_bridge(self) -> None:
        """Check that the reward model's tokenizer can spell what the base model writes.

        Raises:
            VGFError: it cannot, or does not say where its tokens stand in a text.
        """
        if not self.rm_tokenizer.is_fast:
            raise VGFError(
                f"the reward model's tokenizer, {type(self.rm_tokenizer).__name__}, does not say "
                "where its tokens stand in a text; convert it to a fast one (tokenizer.json)"
            )
        if self.bridge == "spans":
            share = float(self.allowed.sum()) / max(int(self.language.allowed.sum()), 1)
            if share < LEAST_KNOWN:
                raise VGFError(
                    f"the reward model's tokenizer knows {100 * share:.0f} % of the base model's "
                    "tokens: a flow in its embeddings has nothing to move; use --bridge selection "
                    "--steps 0, or another reward model"
                )

    def encode(self, prompt: str, name: str, new_tokens: int) -> list[int]:
        """A plain prompt's tokens.

        Args:
            prompt: the text.
            name: of the prompt, for the messages.
            new_tokens: how many more must fit.

        Raises:
            VGFError: there are none, or too many for a model.
        """
        wanted = AlignSettings(max_new_tokens=max(new_tokens, 1), on_long="error")
        return self.query(Prompt(prompt), name, wanted).tokens

    def query(self, prompt: Prompt, name: str, settings: AlignSettings) -> Query:
        """A prompt as the models read it.

        Raises:
            VGFError: it is empty, too long, or a conversation that a chat template refuses.
        """
        content = prompt.content
        if settings.as_chat and isinstance(content, str):
            content = [{"role": "user", "content": content}]
        if settings.system_prompt is not None:
            content = with_system(Prompt(content), settings.system_prompt).content
        if not self._says(content):
            raise EmptyPromptError(f"{name} is empty: it has no token; every prompt needs one")
        tokens, problem = self._fits(content, name, settings.max_new_tokens)
        if problem is not None and settings.on_long == "truncate-left":
            content, tokens, problem = self._shortened(content, name, settings.max_new_tokens)
        if problem is not None:
            raise LongPromptError(problem)
        return Query(content, tokens)

    def _says(self, content: Content) -> bool:
        """Whether there is a token in what the user says."""
        if isinstance(content, str):
            return bool(encode(self.tokenizer, content))
        said = [turn_text(turn) for turn in content if turn["role"] != "system"]
        return any(encode(self.tokenizer, text) for text in said)

    def _tokens(self, content: Content, name: str) -> list[int]:
        if isinstance(content, str):
            return encode_plain(self.tokenizer, content)
        try:
            return encode(self.tokenizer, chat_prompt(self.tokenizer, content))
        except VGFError as error:
            raise VGFError(f"{name}, for the base model: {error}") from error

    def _fits(self, content: Content, name: str, new: int) -> tuple[list[int], str | None]:
        """The base model's tokens, and what is wrong with their number."""
        tokens = self._tokens(content, name)
        counts = [("--sft", self.language.limit, len(tokens))]
        if self.reward.limit is not None:
            try:
                if self.bridge is None:
                    read = self.reader.by_tokens(content, tokens, [([], [])])[0]
                else:
                    read = self.reader.by_text(content, "")
            except VGFError as error:
                raise VGFError(f"{name}, for the reward model: {error}") from error
            counts.append(("--rm", self.reward.limit, len(read.row)))
        for flag, most, count in counts:
            if most is not None and count + new > most:
                return tokens, (
                    f"{name} is too long: {count} tokens and {new} new ones are more than the "
                    f"{most} that the {flag} model takes; shorten it, lower --max-new-tokens, or "
                    "give --on-long truncate-left"
                )
        return tokens, None

    def _shortened(
        self, content: Content, name: str, new: int
    ) -> tuple[Content, list[int], str | None]:
        """A prompt without its beginning: the oldest turns, then the beginning of the first one."""
        while not isinstance(content, str) and (fewer := _without_oldest(content)) is not None:
            content = fewer
            tokens, problem = self._fits(content, name, new)
            if problem is None:
                return content, tokens, None
        first = 0 if isinstance(content, str) else len(content) - 1
        text = content if isinstance(content, str) else turn_text(content[first])
        words = encode(self.tokenizer, text)
        low, high = 0, len(words) - 1  # the most tokens of the text's end that fit
        best: tuple[Content, list[int]] | None = None
        while low < high:
            middle = (low + high + 1) // 2
            cut = len(words) - middle
            tail = added_text(self.tokenizer, words[:cut], words[cut:])
            shorter: Content = (
                tail
                if isinstance(content, str)
                else [*content[:first], {**content[first], "content": tail}]
            )
            tokens, problem = self._fits(shorter, name, new)
            if problem is None:
                low, best = middle, (shorter, tokens)
            else:
                high = middle - 1
        if best is None:
            return content, *self._fits(content, name, new)
        return *best, None

    def text(self, prompt: Sequence[int], response: Sequence[int]) -> str:
        """What a response adds to its prompt's text, without the token that ends it."""
        return added_text(self.tokenizer, prompt, self.language.movable(response))


class EmptyPromptError(VGFError):
    """A prompt without a token."""


class LongPromptError(VGFError):
    """A prompt with more tokens than a model takes."""


def _without_oldest(turns: Turns) -> Turns | None:
    """A conversation without its first exchange, its system prompt kept; None if one is left."""
    start = 1 if turns[0]["role"] == "system" else 0
    for i in range(start + 1, len(turns)):
        if turns[i]["role"] == "user":
            return turns[:start] + turns[i:]
    return None


def load_models(sft: str, rm: str, settings: AlignSettings | None = None) -> Models:
    """Load both models, from folders or by their names, and check them.

    A path that ends with .gguf is read through transformers, which needs the package `gguf`. A
    folder with an adapter_config.json is a PEFT adapter, which needs the package `peft`.

    Raises:
        VGFError: what cannot be loaded or lacks weights, and as :func:`pair`.
    """
    settings = AlignSettings() if settings is None else settings
    both = {}
    for name in ("sft", "rm"):
        both[name] = {
            "device": getattr(settings, f"{name}_device"),
            "dtype": getattr(settings, f"{name}_dtype"),
            "device_map": getattr(settings, f"{name}_device_map"),
            "quantisation": getattr(settings, f"{name}_quantisation"),
            "revision": getattr(settings, f"{name}_revision"),
        }
    language = load_model(AutoModelForCausalLM, sft, **both["sft"])
    reward = load_reward_model(rm, label=settings.rm_label, **both["rm"])
    tokenizer = load_tokenizer(sft, settings.pad_token, settings.sft_revision)
    rm_tokenizer = load_tokenizer(rm, None, settings.rm_revision, padded=False)
    return pair(language, reward, tokenizer, rm_tokenizer, settings)


def load_model(
    kind: Any,
    place: str,
    device: str = "auto",
    dtype: str | None = None,
    device_map: str | None = None,
    quantisation: str | None = None,
    revision: str | None = None,
    may_lack: tuple[str, ...] = (),
    **options: Any,
) -> Any:
    """A model of one of transformers' auto classes, with all its weights, frozen, on its device.

    Args:
        kind: the auto class.
        place: a folder, a name or a .gguf file.
        device, dtype, device_map, quantisation, revision: see :class:`vgf.text.AlignSettings`.
        may_lack: beginnings of the names of weights that may be missing, as they are set later.
        options: of `from_pretrained`.

    Raises:
        VGFError: it cannot be loaded or lacks a weight; the message names the place.
    """
    options[_DTYPE] = dtype or "auto"
    if revision is not None:
        options["revision"] = revision
    if device_map is not None:
        need("accelerate", "large")
        options["device_map"] = device_map
    if quantisation is not None:
        need("bitsandbytes", "large")
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_8bit=quantisation == "8bit", load_in_4bit=quantisation == "4bit"
        )
    adapter = expanded(place) / ADAPTER
    if adapter.is_file():
        model = _load_adapter(kind, place, options)
    else:
        model, report = _load(kind, place, output_loading_info=True, **options)
        missing = sorted(
            name for name in report["missing_keys"] if not name.startswith(may_lack or ("\0",))
        )
        if missing:
            _refuse(kind, place, missing, sorted(report["unexpected_keys"]))
    model.requires_grad_(False).eval()
    if device_map is None and quantisation is None and not getattr(model, "is_quantized", False):
        backend = get_backend("torch", device=device)
        assert isinstance(backend, TorchBackend)
        model.to(backend.torch_device)
    return model


def _refuse(kind: Any, place: str, missing: list[str], unexpected: list[str]) -> None:
    head = [name for name in missing if name.split(".")[0] in ("score", "classifier")]
    if kind is AutoModelForSequenceClassification and head:
        raise VGFError(
            f"{place} is not a reward model: it lacks {head[0]}, the head that gives the reward; "
            "give a folder of a trained sequence classifier"
        )
    other = f" (it has {unexpected[0]}, which the model does not)" if unexpected else ""
    raise VGFError(
        f"{place} lacks {len(missing)} weights of {kind.__name__.removeprefix('AutoModelFor')}, "
        f"such as {missing[0]}{other}: they would be random; give a complete checkpoint"
    )


def _load_adapter(kind: Any, place: str, options: dict[str, Any]) -> Any:
    """A PEFT adapter's folder, with the model that it adapts."""
    peft = need("peft", "large")
    _check_files(expanded(place))
    try:
        config = peft.PeftConfig.from_pretrained(place)
    except Exception as error:
        raise VGFError(f"{place}: its adapter_config.json cannot be read: {error}") from error
    own = dict(options)
    if kind is AutoModelForSequenceClassification:
        own.setdefault("num_labels", 1)
    base, report = _load(
        kind, config.base_model_name_or_path or "", output_loading_info=True, **own
    )
    try:
        adapted = peft.PeftModel.from_pretrained(base, place)
        saved = set(peft.utils.load_peft_weights(place))
    except Exception as error:
        message = " ".join(str(error).split())[:300]
        raise VGFError(f"{place} cannot be loaded by peft: {message}") from error
    missing = [
        name for name in report["missing_keys"] if not any(key.endswith(name) for key in saved)
    ]
    # what the adapter itself has, by the names that it is saved with
    missing += set(peft.get_peft_model_state_dict(adapted)) - saved
    if missing:
        _refuse(kind, place, sorted(missing), [])
    return unwrap(adapted)


def unwrap(model: Any) -> Any:
    """A PEFT object's model, its adapters inside; any other model as it is.

    Raises:
        VGFError: adapters that are a prompt of their own, which stands outside the model.
    """
    if not hasattr(model, "get_base_model") or not hasattr(model, "peft_config"):
        return model
    if any(config.is_prompt_learning for config in model.peft_config.values()):
        raise VGFError(
            "the PEFT adapter learns a prompt, which the flow cannot see; give a model with LoRA "
            "or another adapter inside its layers"
        )
    return model.get_base_model()


def load_reward_model(
    place: str,
    device: str = "auto",
    dtype: str | None = None,
    label: str | None = None,
    only: bool = True,
    **how: Any,
) -> Any:
    """A sequence classifier with a trained output, or several of which one is named.

    Args:
        only: as in :func:`check_head`.

    Raises:
        VGFError: as :func:`load_model` and :func:`check_head`.
    """
    model = load_model(AutoModelForSequenceClassification, place, device, dtype, **how)
    check_head(model, place, label, only)
    return model


def load_tokenizer(
    place: str, pad_token: str | None = None, revision: str | None = None, padded: bool = True
) -> Any:
    """A tokenizer, with the given padding token if it has none.

    Args:
        place: as for the model.
        pad_token: a token of its own.
        revision: of a name.
        padded: whether it must have a padding token.

    Raises:
        VGFError: it cannot be loaded, or lacks a padding token or the given one.
    """
    folder = expanded(place)
    if (folder / ADAPTER).is_file() and not (folder / "tokenizer_config.json").is_file():
        place = read_json(folder / ADAPTER, dict).get("base_model_name_or_path") or place
    tokenizer = _load(AutoTokenizer, place, **({} if revision is None else {"revision": revision}))
    if tokenizer.pad_token is None and pad_token is not None:
        if pad_token not in tokenizer.get_vocab():
            raise VGFError(f"--pad-token {pad_token!r} is not a token of {place}; name another")
        tokenizer.pad_token = pad_token
    if padded:
        check_padding(tokenizer, place)
    return tokenizer


def _load(kind: Any, place: str, **options: Any) -> Any:
    path = expanded(place)
    if path.suffix == ".gguf":
        place, options["gguf_file"] = str(path.parent), path.name
    elif path.exists():
        place = str(path)
    if kind is not AutoTokenizer:
        _check_files(path)
    if not os.path.isdir(place) and (path.is_absolute() or path.suffix == ".gguf"):
        raise VGFError(f"{place}: no such folder; give a model's folder, or its name")
    try:
        return kind.from_pretrained(place, **options)
    except Exception as error:  # damaged files raise whatever their readers do
        message = " ".join(str(error).split())[:300]
        for begins, meaning in _MEANINGS.items():
            message = meaning if message.startswith(begins) else message
        raise VGFError(f"{place} cannot be loaded by {kind.__name__}: {message}") from error


# What errors of transformers mean to somebody who did not call it
_MEANINGS = {
    "You set `ignore_mismatched_sizes`": (
        "its weights have other shapes than its config.json says; fetch both again"
    ),
    "Unrecognized configuration class": (
        "it is a model of another kind, such as an encoder-decoder; --sft is a causal language "
        "model, a decoder, and --rm a sequence classifier"
    ),
    "Weights only load failed": (
        "its .bin file is damaged, or holds code, which is not run; fetch it again, or give the "
        "weights as safetensors"
    ),
}


# What transformers reads besides weights; it passes over some of it in silence where it is damaged.
_JSON = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    ADAPTER,
)


def _check_files(place: Path) -> None:
    """Check that a model's files are whole, as far as can be seen without reading all of them.

    Raises:
        VGFError: one is damaged, cut off, or a pointer of Git LFS; the message names it.
    """
    for path in sorted(place.iterdir()) if place.is_dir() else [place]:
        check_fetched(path)
        if not path.is_file():
            continue
        wrong = ""
        if path.name in _JSON or path.name.endswith(".index.json"):
            read_json(path, dict)
        elif path.suffix == ".safetensors":
            try:
                with safetensors.safe_open(path, "pt"):
                    pass
            except Exception as error:  # whatever it finds wrong with the header
                wrong = f": {error}"
        elif path.name.endswith("_model.bin") or path.name.startswith("pytorch_model-"):
            with open(path, "rb") as file:
                old = file.read(1) == b"\x80"  # a pickle that is in no archive
            wrong = "" if old or zipfile.is_zipfile(path) else ": it is no archive of torch"
        if wrong:
            raise VGFError(f"{path} is damaged, or was cut off{wrong}; fetch it again")


# --- checks -------------------------------------------------------------------------------------


def check_head(
    model: Any, place: str = "the reward model", label: str | None = None, only: bool = True
) -> int | None:
    """Check that a model gives a reward: one output, or several of which one is named.

    Args:
        model, place: it, and its name.
        label: of the output.
        only: whether there is no other model that the label may be of; else one output needs none.

    Returns:
        The number of the output whose log odds are the reward; None if there is one output.

    Raises:
        VGFError: an encoder-decoder, no such label, or several outputs and none named.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        raise VGFError(
            f"{place} is an encoder-decoder ({model.config.model_type}), which reads the text "
            "twice; give a decoder or an encoder with a head"
        )
    outputs = getattr(model.config, "num_labels", None)
    if outputs == 1 and (label is None or not only):
        return None
    names = {i: str(name) for i, name in (getattr(model.config, "id2label", None) or {}).items()}
    there = ", ".join(names.values())
    if label is None:
        raise VGFError(
            f"{place} has {outputs} outputs, and a reward is one number; name one with --rm-label "
            f"({there}), or give a sequence classifier with num_labels = 1"
        )
    found = [int(i) for i, name in names.items() if label in (name, str(i))]
    if not found:
        raise VGFError(f"{place} has no label {label!r}; it has {there}")
    return found[0] if outputs != 1 else None


def check_padding(tokenizer: Any, place: str = "the tokenizer") -> None:
    """Check that a tokenizer has a padding token.

    Raises:
        VGFError: it has none.
    """
    if tokenizer.pad_token_id is None:
        end = tokenizer.eos_token
        hint = f", for example {end!r}" if end is not None else ""
        raise VGFError(f"{place} has no padding token; name a token with --pad-token{hint}")


@torch.no_grad()
def check_causal(model: Any, allowed: Tensor) -> None:
    """Check that a base model writes from left to right: what follows a token does not change it.

    Raises:
        VGFError: an encoder-decoder, or a model that looks ahead, such as BERT.
    """
    kind = getattr(model.config, "model_type", type(model).__name__)
    if getattr(model.config, "is_encoder_decoder", False):
        raise VGFError(
            f"the base model is an encoder-decoder ({kind}), which takes its prompt elsewhere; "
            "give a causal language model, a decoder"
        )
    some = allowed.nonzero()[:, 0].tolist()
    first, *others = (some * 3)[:3]
    ids = torch.tensor([[first, token] for token in others], device=allowed.device)
    logits = model(input_ids=ids).logits[:, 0].float()
    if not bool(logits[:, : len(allowed)][:, allowed].isfinite().all()):
        raise VGFError(
            f"the base model ({kind}) gives logits that are not finite: its weights are damaged, "
            "or need a wider --sft-dtype"
        )
    noise = 1e3 * torch.finfo(model.dtype).eps * float(logits.abs().max())
    if float((logits[0] - logits[1]).abs().max()) > min(noise, 0.1 * float(logits.abs().max())):
        raise VGFError(
            f"the base model ({kind}) is not causal: what it says of a token depends on those "
            "after it; give a decoder"
        )


def pair(
    sft: Any,
    rm: Any,
    tokenizer: Any,
    rm_tokenizer: Any = None,
    settings: AlignSettings | None = None,
) -> Models:
    """Put a base model and a reward model together.

    Both are set to evaluation mode; nothing else in them is changed. PEFT objects are taken for
    the models that they adapt. Vocabularies that differ in special and added tokens only are one.

    Args:
        sft: one of Hugging Face's causal language models.
        rm: a sequence classifier.
        tokenizer: of the base model.
        rm_tokenizer: of the reward model; None if it is known to be the same.
        settings: how the reward model is read; None is the defaults.

    Raises:
        VGFError: no padding token; a reward model without a clear output; models of another kind,
            or with fewer embeddings than there are tokens; tokenizers that no bridge joins.
    """
    settings = AlignSettings() if settings is None else settings
    sft, rm = unwrap(sft), unwrap(rm)
    label = check_head(rm, label=settings.rm_label)
    check_padding(tokenizer)
    for model in (sft, rm):
        model.eval()
    other = rm_tokenizer is not None and rm_tokenizer.get_vocab() != tokenizer.get_vocab()
    apart = differences(tokenizer, rm_tokenizer) if other else []
    rm_tokenizer = tokenizer if rm_tokenizer is None else rm_tokenizer
    if getattr(rm_tokenizer, "chat_template", None) == getattr(tokenizer, "chat_template", None):
        rm_tokenizer = rm_tokenizer if other else tokenizer
    shared = rm_tokenizer if other and not apart else None
    language = language_model(sft, tokenizer, shared, settings.stop_strings)
    for name, model, count in (
        ("base", sft, len(tokenizer) if other else len(language.allowed)),
        ("reward", rm, len(rm_tokenizer) if apart else len(language.allowed)),
    ):
        rows = model.get_input_embeddings().weight.shape[0]
        if rows < count:
            raise VGFError(
                f"the {name} model has {rows} token embeddings, and the tokenizer {count} "
                "tokens; they do not belong together"
            )
    check_causal(sft, language.allowed)
    size = len(rm_tokenizer) if apart else len(language.allowed)
    reward = from_settings(rm, size, label, settings)
    bridge = settings.bridge if apart else None
    models = Models(language, reward, tokenizer, rm_tokenizer, bridge)
    if bridge is not None:
        models.check_bridge()
    return models


def language_model(
    model: Any, tokenizer: Any, other: Any = None, stops: Sequence[str] = ()
) -> LanguageModel:
    """A causal language model with its tokenizer's facts about the tokens.

    Args:
        model, tokenizer: its own.
        other: a tokenizer with one vocabulary but for special and added tokens; a token must be
            ordinary in both to be used.
        stops: stop strings; special tokens among them, which no text holds, end a response too.
    """
    device = model.get_input_embeddings().weight.device
    vocabulary = tokenizer.get_vocab()
    special = special_ids(tokenizer)
    stopping = (vocabulary[text] for text in stops if vocabulary.get(text) in special)
    ends = tuple(dict.fromkeys([*stop_ids(model, tokenizer), *stopping]))
    banned = special | set(ends)
    if other is not None:
        theirs = other.get_vocab()
        banned |= special_ids(other)
        vocabulary = {token: i for token, i in vocabulary.items() if theirs.get(token) == i}
    size = 1 + max(vocabulary.values()) if other is not None else len(tokenizer)
    allowed = torch.zeros(size, dtype=torch.bool, device=device)
    allowed[[i for i in vocabulary.values() if i < size]] = True
    allowed[[i for i in banned if i < size]] = False
    return LanguageModel(model, tokenizer, ends, tokenizer.pad_token_id, allowed)
