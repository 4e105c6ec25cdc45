"""The settings of aligning a language model at test time; `vgf align` makes its flags from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backends import parse_device
from ..spec.text import SEQUENCE_KERNELS
from ..support.checks import check, check_choice, check_whole
from ..support.settings_tree import short_hash, to_dict

PARTICLE_STEPS = ("normalised", "plain", "adam")
DIRECTIONS = ("reward", "random", "negative")
DECODINGS = ("likelihood", "nearest")
DTYPES = ("float64", "float32", "bfloat16", "float16")

# Where, and in what portions, things are computed does not change the experiment.
_NO_PART = ("sft_device", "rm_device", "batch_tokens")


@dataclass(frozen=True)
class AlignSettings:
    """How responses are sampled, moved, decoded and picked.

    Args:
        particles: N, the responses sampled from the base model for each prompt.
        steps: budgets L: responses are decoded after each of these numbers of steps of one flow; 0
            decodes the samples themselves, as a control.
        particle_step: "normalised" steps have the same length for every response; "plain" steps
            are epsilon phi; "adam" keeps moments for each response.
        step_size: epsilon, in units of the root mean square norm of the token embeddings; none is
            calibrated.
        kernel: "sequence" (over whole responses) or "position" (over the tokens at one position);
            none moves every response by itself.
        temperature: alpha, in units of the reward; none drops the repulsion.
        direction: "reward" climbs the reward; the controls are "random" (one direction for each
            response, of the gradient's length) and "negative".
        decoding: "likelihood" decodes from left to right, weighing nearness against the base
            model's likelihood; "nearest" takes the nearest token embedding.
        decoding_weight: lambda, the likelihood's weight; none is calibrated.
        decoding_top: the base model's likeliest tokens, which decoding chooses among, besides the
            original one.
        unmoved_change: the share of changed tokens at L = 0 to which lambda is calibrated.
        moved_change: the share of changed tokens at the largest L to which epsilon is calibrated.
        calibration_prompts: how many of the first prompts to calibrate on.
        max_new_tokens: of a response.
        min_new_tokens: before a response may end.
        sampling_temperature: of the base model's samples.
        top_k: sample among this number of likeliest tokens; none is all.
        top_p: sample among the likeliest tokens of this share; none is all.
        batch_tokens: tokens, including padding, that go through a model at once; it bounds the
            memory, and changes results only by rounding.
        sft_device, rm_device: of the base and of the reward model: auto, cpu, gpu or gpu:<index>.
        sft_dtype, rm_dtype: float32, bfloat16, float16 or float64; none is the model's
            stored dtype.
        pad_token: the padding token, if the tokenizer has none of its own.
        seed: it fixes every random number.

    Raises:
        ValueError: a setting out of its range, or a contradiction, named.
    """

    particles: int = 8
    steps: tuple[int, ...] = (0, 1, 2, 5)
    particle_step: str = "normalised"
    step_size: float | None = None
    kernel: str | None = None
    temperature: float | None = None
    direction: str = "reward"
    decoding: str = "likelihood"
    decoding_weight: float | None = None
    decoding_top: int = 50
    unmoved_change: float = 0.05
    moved_change: float = 0.3
    calibration_prompts: int = 8
    max_new_tokens: int = 48
    min_new_tokens: int = 1
    sampling_temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    batch_tokens: int = 4096
    sft_device: str = "auto"
    rm_device: str = "auto"
    sft_dtype: str | None = None
    rm_dtype: str | None = None
    pad_token: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        check(bool(self.steps), "steps is empty; give at least one budget")
        check(
            len(set(self.steps)) == len(self.steps),
            f"steps {list(self.steps)} names a budget twice; drop one",
        )
        for steps in self.steps:
            check_whole("steps", steps, 0)
        for name in (
            "particles",
            "decoding_top",
            "calibration_prompts",
            "max_new_tokens",
            "min_new_tokens",
            "top_k",
            "batch_tokens",
        ):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        check_whole("seed", self.seed, 0)
        check(
            self.min_new_tokens <= self.max_new_tokens,
            f"min_new_tokens {self.min_new_tokens} is more than max_new_tokens "
            f"{self.max_new_tokens}; lower it",
        )
        for name, choices in (
            ("particle_step", PARTICLE_STEPS),
            ("kernel", SEQUENCE_KERNELS),
            ("direction", DIRECTIONS),
            ("decoding", DECODINGS),
            ("sft_dtype", DTYPES),
            ("rm_dtype", DTYPES),
        ):
            check_choice(name, getattr(self, name), choices)
        for name in ("step_size", "temperature", "sampling_temperature", "top_p"):
            value = getattr(self, name)
            check(value is None or value > 0, f"{name} is {value}; it must be above 0")
        check(self.top_p is None or self.top_p <= 1, f"top_p is {self.top_p}; it must be 1 or less")
        weight = self.decoding_weight
        check(weight is None or weight >= 0, f"decoding_weight is {weight}; it must be 0 or more")
        for name in ("unmoved_change", "moved_change"):
            value = getattr(self, name)
            check(0 < value < 1, f"{name} is {value}; it must lie between 0 and 1")
        check(
            self.decoding == "likelihood" or weight is None,
            "decoding_weight belongs to decoding 'likelihood'; drop it",
        )
        for device in (self.sft_device, self.rm_device):
            parse_device(device)

    @property
    def calibrates(self) -> tuple[str, ...]:
        """The settings still to be calibrated."""
        weight = self.decoding == "likelihood" and self.decoding_weight is None
        size = max(self.steps) > 0 and self.step_size is None
        return ("decoding_weight",) * weight + ("step_size",) * size


def identity(settings: AlignSettings, models: str) -> str:
    """A short name for the settings and the models: all lines of a file must have the same.

    Args:
        settings: as requested, before calibration.
        models: what tells the models apart, see :attr:`vgf.text.models.Models.fingerprint`.
    """
    return short_hash([comparable(settings), models])


def comparable(settings: AlignSettings) -> dict[str, Any]:
    """The settings that results depend on."""
    return {name: value for name, value in to_dict(settings).items() if name not in _NO_PART}
