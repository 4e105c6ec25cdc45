"""The memory that aligning takes at the shape of Pythia-2.8B, and what bounds it.

    pip install 'vgf[text]'
    python -m validation.language.memory

Two models of random weights in bfloat16, one prompt of the length of TL;DR's, on Linux.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vgf.text import AlignSettings, align, pair
from vgf.text.models import Models

from ..experiment import Data, Experiment, Verdict, main
from ..pages import Table

GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """Of both models: Pythia-2.8B's."""

    vocab_size: int = 50304
    hidden_size: int = 2560
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    intermediate_size: int = 10240
    max_position_embeddings: int = 2048


@dataclass(frozen=True)
class Setup:
    """How much.

    Args:
        shape: of the models.
        prompt: its tokens.
        tokens: of a response.
        particles: N.
        rows: how many responses go through a model at once, which --batch-tokens bounds.
        anew: the same, for a reward model that has to read the prompt with every response.
    """

    shape: Shape = field(default_factory=Shape)
    prompt: int = 352
    tokens: int = 16
    particles: int = 8
    rows: tuple[int, ...] = (1, 2, 4, 8)
    anew: tuple[int, ...] = (1, 2)


def make_models(shape: Shape) -> Models:
    """A base model and a reward model of random weights, in bfloat16."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import (
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
        GPTNeoXForSequenceClassification,
        PreTrainedTokenizerFast,
    )

    words = {"<pad>": 0, "<end>": 1} | {f"w{i}": i for i in range(2, shape.vocab_size)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    own = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")
    config: Any = {**asdict(shape), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        base = GPTNeoXForCausalLM(GPTNeoXConfig(**config))
        reward = GPTNeoXForSequenceClassification(GPTNeoXConfig(**config, num_labels=1))
    finally:
        torch.set_default_dtype(before)
    for model in (base, reward):
        model.requires_grad_(False)
    return pair(base, reward, own)


def resident(name: str) -> int:
    """Bytes of this process's memory by a name of /proc/self/status: VmRSS, or VmHWM, its peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if name in line)
    return 1024 * int(line.split()[1])


def peak(models: Models, prompt: str, settings: AlignSettings) -> dict[str, float]:
    """GiB that the process has before aligning, and how many more at most meanwhile."""
    models.language.prefixes.clear()
    models.reward.prefixes.clear()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    align(models, [prompt], settings)
    return {"before": before / GIB, "more": (resident("VmHWM") - before) / GIB}


def measure(setup: Setup) -> Data:
    """The peak for each number of responses at once."""
    models = make_models(setup.shape)
    weights = {
        name: sum(x.numel() * x.element_size() for x in model.parameters()) / GIB
        for name, model in (("base", models.language.model), ("reward", models.reward.model))
    }
    prompt = " ".join(f"w{2 + i}" for i in range(setup.prompt))
    settings = AlignSettings(
        particles=setup.particles,
        steps=(1,),
        decoding_weight=0.2,
        step_size=0.2,
        max_new_tokens=setup.tokens,
        min_new_tokens=setup.tokens,
    )
    length = setup.prompt + setup.tokens
    align(models, ["w2 w3"], replace(settings, max_new_tokens=2, min_new_tokens=1))  # the tables
    found = []
    for anew, each in ((False, setup.rows), (True, setup.anew)):
        models.reward.__dict__["shares_prompts"] = not anew
        for rows in each:
            own = replace(settings, batch_tokens=rows * length)
            found.append({"rows": rows, "anew": anew, **peak(models, prompt, own)})
    return {"weights": weights, "length": length, "tokens": setup.tokens, "peaks": found}


def per_row(data: Data, anew: bool) -> float:
    """GiB that one more response at once takes."""
    own = [peak for peak in data["peaks"] if peak["anew"] == anew]
    return (own[-1]["more"] - own[0]["more"]) / max(own[-1]["rows"] - own[0]["rows"], 1)


def judge(data: Data) -> list[Verdict]:
    """The flag bounds the memory."""
    found = []
    for anew, claim in ((False, "with the prompt's cache"), (True, "with the prompt read anew")):
        own = [peak for peak in data["peaks"] if peak["anew"] == anew]
        pairs = list(itertools.pairwise(own))
        found.append(
            Verdict(
                f"{claim}, memory beyond the weights grows at most in proportion to --batch-tokens",
                all(b["more"] / a["more"] <= 1.1 * b["rows"] / a["rows"] for a, b in pairs),
                ", ".join(f"{p['rows'] * data['length']} tokens: {p['more']:.2f} GiB" for p in own),
            )
        )
    return found


def tables(data: Data) -> list[Table]:
    """The peaks."""
    rows = [
        [
            str(peak["rows"] * data["length"]),
            str(peak["rows"]),
            "no" if peak["anew"] else "yes",
            f"{peak['before']:.2f}",
            f"{peak['more']:.2f}",
        ]
        for peak in data["peaks"]
    ]
    header = ("--batch-tokens", "responses at once", "prompt's cache", "before, GiB", "more, GiB")
    return [Table("Resident memory of the process", header, rows)]


def remarks(data: Data) -> list[str]:
    """Weights, and what a token costs."""
    shared, anew = (1024 * per_row(data, own) for own in (False, True))
    return [
        f"Weights: {data['weights']['base']:.2f} GiB of the base and "
        f"{data['weights']['reward']:.2f} GiB of the reward model. One more response at once takes "
        f"{shared:.0f} MiB, {shared / data['tokens']:.2f} for each of its tokens; where the prompt "
        f"is read anew {anew:.0f} MiB, {anew / data['length']:.2f} for each token of both."
    ]


EXPERIMENT = Experiment(
    name="language-memory",
    title="Memory at the shape of Pythia-2.8B",
    about=(
        "Two GPT-NeoX of Pythia-2.8B's shape with random weights in bfloat16, on CPUs: one prompt "
        "of 352 tokens, 8 responses of 16, L = 1, sampled, moved, decoded and scored. Peak "
        "resident memory of the process (VmHWM), less what it had before. Refuted if it grows "
        "faster than --batch-tokens."
    ),
    setup=Setup(),
    quick=Setup(Shape(512, 32, 2, 2, 64, 128), 24, 4, 4, (1, 4), (1, 2)),
    measure=measure,
    judge=judge,
    tables=tables,
    remarks=remarks,
)


if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], "language.memory", __doc__, None))
