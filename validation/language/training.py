"""The models of the mini benchmark: trained here, from the reviews alone.

A GPT-NeoX (Pythia's architecture) of a few million parameters as the base model, a gold judge from
the human labels, preference pairs that it labels, and a reward model with a Bradley-Terry loss on
them. DPO and RLOO (a policy gradient) are what VGF is compared with. The training loops are trl's.
"""

from __future__ import annotations

import copy
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgf.support.errors import VGFError
from vgf.support.extras import need
from vgf.support.files import write_atomically
from vgf.text.judging import Judge
from vgf.text.models import Models, language_model, pair
from vgf.text.settings import AlignSettings
from vgf.text.training import fit

from .corpus import Corpus, sentences

END, PAD = "<end>", "<pad>"
SHORTEST = 4  # tokens of a response
PAIRS = 7  # the purposes of random numbers


@dataclass(frozen=True)
class Recipe:
    """How the models are made.

    Args:
        vocabulary: tokens of the byte-pair encoding.
        width, layers, heads: of the base model; its MLP is four times as wide.
        longest: tokens of a text, the prompt included.
        prompt: tokens of a prompt.
        sentences: on which the base model is trained once.
        pairs: of responses, labelled by the gold judge.
        reward_epochs: over the pairs.
        dpo_epochs: over the pairs.
        dpo_beta: DPO's regularisation, its paper's 0.1.
        rloo_steps: of the policy gradient.
        rloo_beta: its KL penalty, trl's 0.05.
        batch: sequences of a training step.
    """

    vocabulary: int = 4096
    width: int = 192
    layers: int = 4
    heads: int = 6
    longest: int = 32
    prompt: int = 8
    sentences: int = 40_000
    pairs: int = 8_000
    reward_epochs: int = 2
    dpo_epochs: int = 1
    dpo_beta: float = 0.1
    rloo_steps: int = 60
    rloo_beta: float = 0.05
    batch: int = 64

    @property
    def response(self) -> int:
        """The most tokens of a response."""
        return self.longest - self.prompt


def make_gold(corpus: Corpus) -> tuple[Judge, dict[str, float]]:
    """The gold judge: how good a text says its film is, in log odds, and how often it is right.

    Logistic regression on words and pairs of words, fitted on the human labels.

    Returns:
        The judge, and its accuracy on held-out "reviews" and on "sentences": those of fewer than
        250 characters.
    """
    text = need("sklearn.feature_extraction.text", "baselines")
    linear = need("sklearn.linear_model", "baselines")
    words = text.TfidfVectorizer(ngram_range=(1, 2), min_df=3, sublinear_tf=True)
    model = linear.LogisticRegression(C=10, max_iter=300)
    model.fit(words.fit_transform(corpus.texts), corpus.labels)
    right = model.predict(words.transform(corpus.held_out)) == corpus.held_out_labels
    short = [len(found) < 250 for found in corpus.held_out]
    accuracy = {"reviews": float(right.mean()), "sentences": float(right[short].mean())}

    def judge(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        texts = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
        scores: list[float] = model.decision_function(words.transform(texts)).tolist()
        return scores

    return judge, accuracy


def make_tokenizer(texts: list[str], vocabulary: int) -> Any:
    """A byte-pair encoding of the texts, as Hugging Face loads it."""
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator(texts, vocabulary, special_tokens=[PAD, END], show_progress=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=made._tokenizer,
        pad_token=PAD,
        eos_token=END,
        clean_up_tokenization_spaces=False,
    )


@dataclass(frozen=True)
class Rows:
    """Token rows of sentences long enough to hold a prompt and a response.

    Attributes:
        train: rows for the base model, including the end if it comes before the cut.
        pairs, test: prompts for preference pairs, and from held-out reviews, none of them twice.
    """

    train: list[list[int]]
    pairs: list[list[int]]
    test: list[list[int]]


def make_rows(corpus: Corpus, tokenizer: Any, recipe: Recipe) -> Rows:
    """Cut the corpus's sentences into rows."""
    least = recipe.prompt + SHORTEST

    def rows(texts: list[str]) -> list[list[int]]:
        found = tokenizer(sentences(texts))["input_ids"]
        return [
            [*row, tokenizer.eos_token_id][: recipe.longest] for row in found if len(row) >= least
        ]

    train, held_out = rows(corpus.texts), rows(corpus.held_out)
    random.Random(1).shuffle(train)

    def prompts(found: list[list[int]]) -> list[list[int]]:
        seen = dict.fromkeys(tuple(row[: recipe.prompt]) for row in found)
        # only prompts that give the same tokens when read as text
        texts = [tokenizer.decode(row) for row in seen]
        again = tokenizer(texts)["input_ids"]
        return [list(row) for row, read in zip(seen, again, strict=True) if list(row) == read]

    own = prompts(train[: 4 * recipe.pairs])
    known = {tuple(row) for row in own}
    test = [row for row in prompts(held_out) if tuple(row) not in known]
    random.Random(2).shuffle(test)
    if len(own) < recipe.pairs:
        raise VGFError(f"the corpus has {len(own)} prompts for {recipe.pairs} pairs; ask for fewer")
    return Rows(train, own[: recipe.pairs], test)


def _config(tokenizer: Any, recipe: Recipe) -> Any:
    from transformers import GPTNeoXConfig

    return GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=4 * recipe.width,
        max_position_embeddings=2 * recipe.longest,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_dropout=0.0,
        attention_dropout=0.0,
    )


def train_base(rows: Rows, tokenizer: Any, recipe: Recipe, seed: int) -> Any:
    """The base (SFT) model: next tokens of sentences, each seen once."""
    import torch
    import transformers

    torch.manual_seed(seed)
    model = transformers.GPTNeoXForCausalLM(_config(tokenizer, recipe))
    order = random.Random(seed).sample(rows.train, min(recipe.sentences, len(rows.train)))
    return _fit(
        "SFT",
        [model],
        [{"input_ids": row} for row in order],
        tokenizer,
        recipe,
        seed,
        learning_rate=2e-3,
        num_train_epochs=1,
        warmup_steps=50,
        max_length=recipe.longest,
        dataset_kwargs={"skip_prepare_dataset": True},
        loss_type="nll",
    )


def train_reward(
    base: Any, pairs: list[dict[str, list[int]]], tokenizer: Any, recipe: Recipe, seed: int
) -> Any:
    """The reward model: the base model with a new head, and a Bradley-Terry loss on the pairs."""
    import torch
    import transformers

    torch.manual_seed(seed + 1_000)
    config = _config(tokenizer, recipe)
    config.num_labels = 1
    model = transformers.GPTNeoXForSequenceClassification(config)
    model.base_model.load_state_dict(base.base_model.state_dict())
    joined = [
        {name: pair["prompt_ids"] + pair[name] for name in ("chosen_ids", "rejected_ids")}
        for pair in pairs
    ]
    return _fit(
        "Reward",
        [model],
        joined,
        tokenizer,
        recipe,
        seed,
        learning_rate=3e-4,
        num_train_epochs=recipe.reward_epochs,
        max_length=None,
        disable_dropout=True,
    )


def train_dpo(
    base: Any, pairs: list[dict[str, list[int]]], tokenizer: Any, recipe: Recipe, seed: int
) -> Any:
    """DPO (Rafailov et al., 2023) on the pairs that the reward model learns from."""
    model, reference = (copy.deepcopy(base).requires_grad_(True) for _ in range(2))
    texts = [
        {
            "prompt": tokenizer.decode(pair["prompt_ids"]),
            **{
                name: tokenizer.decode(pair[f"{name}_ids"], skip_special_tokens=True)
                for name in ("chosen", "rejected")
            },
        }
        for pair in pairs
    ]
    return _fit(
        "DPO",
        [model, reference],
        texts,
        tokenizer,
        recipe,
        seed,
        learning_rate=1e-4,
        num_train_epochs=recipe.dpo_epochs,
        beta=recipe.dpo_beta,
        max_length=None,
        disable_dropout=True,
    )


def train_rloo(models: Models, prompts: list[list[int]], recipe: Recipe, seed: int) -> Any:
    """RLOO (Ahmadian et al., 2024): a policy gradient on the reward, with a KL penalty."""
    texts = [{"prompt": models.tokenizer.decode(row)} for row in prompts]

    def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        found = [prompt + response for prompt, response in zip(prompts, completions, strict=True)]
        rewards: list[float] = models.reward.rewards(models.tokenizer(found)["input_ids"]).tolist()
        return rewards

    with tempfile.TemporaryDirectory() as place:  # trl loads its reference from there
        models.language.model.save_pretrained(place)
        return _fit(
            "RLOO",
            [place, reward],
            texts,
            models.tokenizer,
            recipe,
            seed,
            learning_rate=3e-5,
            max_steps=recipe.rloo_steps,
            num_generations=4,
            max_completion_length=recipe.response,
            beta=recipe.rloo_beta,
            disable_dropout=True,
        )


def _fit(
    kind: str,
    models: list[Any],
    rows: list[dict[str, Any]],
    tokenizer: Any,
    recipe: Recipe,
    seed: int,
    **options: Any,
) -> Any:
    """The model after one of trl's trainings, on CPUs; see :func:`vgf.text.training.fit`."""
    size = recipe.batch
    shared = {"per_device_train_batch_size": size, "use_cpu": True, "dataloader_pin_memory": False}
    return fit(kind, models, rows, tokenizer, seed, **{**shared, **options})


def make_pairs(
    base: Any, gold: Judge, rows: Rows, tokenizer: Any, recipe: Recipe, seed: int
) -> list[dict[str, list[int]]]:
    """Two responses of the base model to each prompt, with the one that the gold judge prefers."""
    language = language_model(base, tokenizer)
    settings = AlignSettings(max_new_tokens=recipe.response, min_new_tokens=SHORTEST)
    pairs = []
    for start in range(0, len(rows.pairs), 256):
        prompts = rows.pairs[start : start + 256]
        drawn = [
            language.sample(
                prompts, [(seed, PAIRS, start + i, k) for i in range(len(prompts))], settings
            ).rows
            for k in range(2)
        ]
        texts = [tokenizer.batch_decode(row, skip_special_tokens=True) for row in drawn]
        asked = tokenizer.batch_decode(prompts)
        scores = [gold(asked, found) for found in texts]
        for prompt, a, b, x, y in zip(prompts, *drawn, *scores, strict=True):
            if x != y:
                better, worse = (a, b) if x > y else (b, a)
                pairs.append({"prompt_ids": prompt, "chosen_ids": better, "rejected_ids": worse})
    return pairs


@dataclass(frozen=True)
class Trained:
    """The models of one seed.

    Attributes:
        models: the base and the reward model.
        dpo, rloo: the tuned base models.
        accuracy: how often the reward model agrees with the gold judge, on pairs it was not trained
            on.
    """

    models: Models
    dpo: Any
    rloo: Any
    accuracy: float


def train(
    folder: Path, rows: Rows, gold: Judge, tokenizer: Any, recipe: Recipe, seed: int
) -> Trained:
    """All models of one seed; those already in the folder are not trained again.

    Args:
        folder: of this seed and recipe.
        rows, gold, tokenizer, recipe: the same for all seeds.
        seed: it fixes the initial weights, the sentences, the pairs and their order.
    """
    from transformers import GPTNeoXForCausalLM, GPTNeoXForSequenceClassification

    def kept(name: str, kind: Any, make: Callable[[], Any]) -> Any:
        place = folder / name
        if not place.exists():
            writing = folder / f".{name}"
            make().save_pretrained(writing)
            writing.rename(place)
        return kind.from_pretrained(place).eval().requires_grad_(False)

    language = GPTNeoXForCausalLM
    base = kept("base", language, lambda: train_base(rows, tokenizer, recipe, seed))
    place = folder / "pairs.json"
    if not place.exists():
        made = make_pairs(base, gold, rows, tokenizer, recipe, seed)
        write_atomically(place, json.dumps(made))
    pairs = json.loads(place.read_text(encoding="utf-8"))
    held_out = len(pairs) // 10
    test, pairs = pairs[:held_out], pairs[held_out:]
    reward = kept(
        "reward",
        GPTNeoXForSequenceClassification,
        lambda: train_reward(base, pairs, tokenizer, recipe, seed),
    )
    models = pair(base, reward, tokenizer)
    dpo = kept("dpo", language, lambda: train_dpo(base, pairs, tokenizer, recipe, seed))
    rloo = kept("rloo", language, lambda: train_rloo(models, rows.pairs, recipe, seed))
    return Trained(models, dpo, rloo, accuracy(models, test))


def accuracy(models: Models, pairs: list[dict[str, list[int]]]) -> float:
    """How often the reward model agrees with the gold judge."""
    better, worse = (
        models.reward.rewards([pair["prompt_ids"] + pair[name] for pair in pairs])
        for name in ("chosen_ids", "rejected_ids")
    )
    return float((better > worse).double().mean())
