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
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vgf.bench.worker import process_memory
from vgf.text import AlignSettings, align, pair
from vgf.text.models import Models

from ..experiment import Data, Experiment, Verdict, main
from ..pages import Table

GIB = 2**30
WHOLE = 32  # layers of Pythia-2.8B


@dataclass(frozen=True)
class Shape:
    """Of both models: Pythia-2.8B's."""

    vocab_size: int = 50304
    hidden_size: int = 2560
    num_hidden_layers: int = WHOLE
    num_attention_heads: int = 32
    intermediate_size: int = 10240
    max_position_embeddings: int = 2048


@dataclass(frozen=True)
class Setup:
    """How much.

    Args:
        shape: of the models.
        layers: of the models that are measured. The line through the first two is checked by the
            last; the whole number is computed from the line through the last two.
        prompt: its tokens.
        tokens: of a response.
        particles: N.
        rows: how many responses go through a model at once, which --batch-tokens bounds.
        anew: the same, for a reward model that has to read the prompt with every response.
    """

    shape: Shape = field(default_factory=Shape)
    layers: tuple[int, ...] = (4, 8, 16)
    prompt: int = 352
    tokens: int = 8
    particles: int = 8
    rows: tuple[int, ...] = (2, 4, 8)
    anew: tuple[int, ...] = (2, 4)


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


def peak(models: Models, prompt: str, settings: AlignSettings) -> dict[str, float]:
    """GiB that the process has before aligning, and how many more at most meanwhile."""
    models.language.prefixes.clear()
    models.reward.prefixes.clear()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = process_memory("VmRSS")
    align(models, [prompt], settings)
    return {"before": before / GIB, "more": (process_memory("VmHWM") - before) / GIB}


def measure(setup: Setup) -> Data:
    """The peak for each number of layers and of responses at once."""
    found = []
    for layers in setup.layers:
        models = make_models(replace(setup.shape, num_hidden_layers=layers))
        found += [{"layers": layers, **row} for row in _peaks(models, setup)]
        weights = sum(x.numel() * x.element_size() for x in models.language.model.parameters())
        found[-1]["weights"] = weights / GIB
        del models
    return {
        "length": setup.prompt + setup.tokens,
        "tokens": setup.tokens,
        "whole": setup.shape.num_hidden_layers,
        "weights": {str(row["layers"]): row.pop("weights") for row in found if "weights" in row},
        "peaks": found,
    }


def _peaks(models: Models, setup: Setup) -> Iterator[dict[str, Any]]:
    prompt = " ".join(f"w{2 + i}" for i in range(setup.prompt))
    settings = AlignSettings(
        particles=setup.particles,
        steps=(1,),
        decoding_weight=0.2,
        step_size=0.2,
        max_new_tokens=setup.tokens,
        min_new_tokens=setup.tokens,
    )
    align(models, ["w2 w3"], replace(settings, max_new_tokens=2, min_new_tokens=1))  # the tables
    for anew, each in ((False, setup.rows), (True, setup.anew)):
        models.reward.__dict__["shares_prompts"] = not anew
        for rows in each:
            own = replace(settings, batch_tokens=rows * (setup.prompt + setup.tokens))
            yield {"rows": rows, "anew": anew, **peak(models, prompt, own)}


def at(values: dict[int, float], layers: int, fewest: bool = False) -> float:
    """A number of GiB for some layers, from the line through the most two, or the fewest two."""
    two = sorted(values.items())
    (first, low), (second, high) = two[:2] if fewest else two[-2:]
    return low + (high - low) * (layers - first) / max(second - first, 1)


def lines(data: Data) -> dict[tuple[bool, int], dict[int, float]]:
    """For a prompt read anew or not, and a number of responses at once: GiB by layers."""
    found: dict[tuple[bool, int], dict[int, float]] = {}
    for row in data["peaks"]:
        found.setdefault((row["anew"], row["rows"]), {})[row["layers"]] = row["more"]
    return found


def judge(data: Data) -> list[Verdict]:
    """The flag bounds the memory, and the arithmetic holds."""
    every = lines(data)
    most = max(int(layers) for layers in data["weights"])
    pairs = {key: (at(values, most, fewest=True), values[most]) for key, values in every.items()}
    found = [
        Verdict(
            f"the line through fewer layers gives the memory of {most} layers within a tenth",
            all(abs(guess / true - 1) <= 0.1 for guess, true in pairs.values()),
            ", ".join(f"{guess:.2f} for {true:.2f} GiB" for guess, true in pairs.values()),
        )
    ]
    for anew, claim in ((False, "with the prompt's cache"), (True, "with the prompt read anew")):
        own = {rows: values[most] for (other, rows), values in every.items() if other == anew}
        grown = itertools.pairwise(own.items())
        found.append(
            Verdict(
                f"{claim}, memory beyond the weights of {most} layers grows at most in proportion "
                "to --batch-tokens",
                all(high / low <= 1.1 * more / fewer for (fewer, low), (more, high) in grown),
                ", ".join(f"{n * data['length']} tokens: {x:.2f} GiB" for n, x in own.items()),
            )
        )
    return found


def tables(data: Data) -> list[Table]:
    """The peaks, and what they come to."""
    measured = sorted(map(int, data["weights"]))
    rows = [
        [
            str(rows * data["length"]),
            str(rows),
            "no" if anew else "yes",
            *(f"{values[layers]:.2f}" for layers in measured),
            f"{at(values, data['whole']):.2f}",
        ]
        for (anew, rows), values in lines(data).items()
    ]
    header: tuple[str, ...] = ("--batch-tokens", "responses at once", "prompt's cache")
    header += (*(f"{layers} layers" for layers in measured), f"{data['whole']} layers, computed")
    return [Table("GiB beyond what the process had before", header, rows)]


def remarks(data: Data) -> list[str]:
    """Weights, and what a response costs."""
    weights = at({int(layers): x for layers, x in data["weights"].items()}, data["whole"])
    every = lines(data)

    def more(anew: bool) -> float:
        own = sorted(rows for other, rows in every if other == anew)
        low, high = (at(every[anew, rows], data["whole"]) for rows in (own[0], own[-1]))
        return 1024 * (high - low) / max(own[-1] - own[0], 1)

    return [
        f"With {data['whole']} layers the weights of each model are {weights:.2f} GiB. One more "
        f"response at once takes {more(False):.0f} MiB; where its prompt is read anew "
        f"{more(True):.0f} MiB, {more(True) / data['length']:.2f} for each token."
    ]


EXPERIMENT = Experiment(
    name="language-memory",
    title="Memory at the shape of Pythia-2.8B",
    about=(
        "Two GPT-NeoX of Pythia-2.8B's width with random weights in bfloat16, on CPUs, of 4, 8 and "
        "16 of its 32 layers: one prompt of 352 tokens, 8 responses of 8, L = 1, sampled, moved, "
        "decoded and scored. Peak resident memory of the process (VmHWM), less what it had before; "
        "32 layers are computed from the line through 8 and 16. Refuted if the line through 4 and "
        "8 fails at 16, or if memory grows faster than --batch-tokens. (At first all was computed "
        "from the line through the two smallest, whose differences of 0.1 GiB are mostly noise.)"
    ),
    setup=Setup(),
    quick=Setup(Shape(512, 32, 4, 2, 64, 128), (1, 2, 3), 24, 4, 4, (1, 4), (1, 2)),
    measure=measure,
    judge=judge,
    tables=tables,
    remarks=remarks,
)


if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], "language.memory", __doc__, None))
