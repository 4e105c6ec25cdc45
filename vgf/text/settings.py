"""The settings of aligning a language model at test time; `vgf align` makes its flags from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backends import parse_device
from ..spec.text import SEQUENCE_KERNELS
from ..support.checks import check, check_choice, check_whole
from ..support.settings_tree import short_hash, to_dict
from .prompts import shard

PARTICLE_STEPS = ("normalised", "plain", "adam")
DIRECTIONS = ("reward", "random", "negative")
DECODINGS = ("likelihood", "nearest")
DTYPES = ("float64", "float32", "bfloat16", "float16")
QUANTISATIONS = ("8bit", "4bit")
BRIDGES = ("spans", "selection")
REWARD_TOKENS = ("huggingface", "last")
ON_LONG = ("truncate-left", "skip", "error")
ON_EMPTY = ("skip", "error")

# Where, and in what portions, things are computed does not change the experiment.
_NO_PART = (
    "sft_device",
    "rm_device",
    "sft_device_map",
    "rm_device_map",
    "batch_tokens",
    "gradient_checkpointing",
    "recalibrate",
    "shard",
)
# On what, beside the models, the calibrated numbers do not depend
_NOT_CALIBRATED = ("seed", "on_long", "on_empty", "calibration_prompts")


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
        recalibrate: calibrate again, though the cache has the numbers for these models and
            settings.
        max_new_tokens: of a response.
        min_new_tokens: before a response may end.
        stop_strings: a response ends before the first of these texts, as at an end token.
        as_chat: a plain prompt is a user's turn, and goes through the chat template.
        system_prompt: of conversations without one.
        on_long: what becomes of a prompt that is too long for a model: "skip" writes a line that
            says so; "truncate-left" drops the oldest turns, then the beginning of the text; "error"
            ends the job.
        on_empty: what becomes of a prompt without a token: "skip" or "error".
        shard: of the prompts, written i/n: those with (index mod n) = i - 1; none is all.
        bridge: how a reward model with another tokenizer guides: "spans" lets the flow move its own
            embeddings of the text, and gives what the characters of a base token moved to that
            token; "selection" only picks among the samples, and needs steps 0.
        reward_token: which token a decoder's reward is read at: "huggingface" is the last one that
            is not the model's padding token, so that with pad = eos the end is left out; "last" is
            the last one.
        rm_label: of a classifier with several outputs, by its name or number; its log odds are the
            reward.
        sampling_temperature: of the base model's samples.
        top_k: sample among this number of likeliest tokens; none is all.
        top_p: sample among the likeliest tokens of this share; none is all.
        batch_tokens: tokens, including padding, that go through a model at once; it bounds the
            memory, and changes results only by rounding.
        sft_device, rm_device: of the base and of the reward model: auto, cpu, gpu or gpu:<index>.
        sft_dtype, rm_dtype: float32, bfloat16, float16 or float64; none is the model's
            stored dtype.
        sft_device_map, rm_device_map: as transformers takes it, such as "auto", to spread a model
            over devices (needs accelerate); none puts it on one.
        sft_quantisation, rm_quantisation: 8bit or 4bit, loaded by bitsandbytes; none is as stored.
        sft_revision, rm_revision: the branch, tag or commit of a model given by name.
        gradient_checkpointing: compute the reward model's layers again for the gradient, in place
            of keeping them: slower, with less memory.
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
    recalibrate: bool = False
    max_new_tokens: int = 48
    min_new_tokens: int = 1
    stop_strings: tuple[str, ...] = ()
    as_chat: bool = False
    system_prompt: str | None = None
    on_long: str = "skip"
    on_empty: str = "skip"
    shard: str | None = None
    bridge: str = "spans"
    reward_token: str = "huggingface"
    rm_label: str | None = None
    sampling_temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    batch_tokens: int = 4096
    sft_device: str = "auto"
    rm_device: str = "auto"
    sft_dtype: str | None = None
    rm_dtype: str | None = None
    sft_device_map: str | None = None
    rm_device_map: str | None = None
    sft_quantisation: str | None = None
    rm_quantisation: str | None = None
    sft_revision: str | None = None
    rm_revision: str | None = None
    gradient_checkpointing: bool = False
    pad_token: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        object.__setattr__(self, "stop_strings", tuple(self.stop_strings))
        check(all(self.stop_strings), "stop_strings holds an empty text; drop it")
        check(bool(self.system_prompt) or self.system_prompt is None, "system_prompt is empty")
        shard(0, self.shard)
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
            ("sft_quantisation", QUANTISATIONS),
            ("rm_quantisation", QUANTISATIONS),
            ("bridge", BRIDGES),
            ("reward_token", REWARD_TOKENS),
            ("on_long", ON_LONG),
            ("on_empty", ON_EMPTY),
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


def calibration_name(settings: AlignSettings, models: str) -> str:
    """A short name for what the calibrated numbers depend on: see :func:`identity`."""
    values = {
        name: value for name, value in comparable(settings).items() if name not in _NOT_CALIBRATED
    }
    # the largest budget is calibrated, and no other
    return short_hash([values | {"steps": max(settings.steps)}, models])


def comparable(settings: AlignSettings) -> dict[str, Any]:
    """The settings that results depend on."""
    return {name: value for name, value in to_dict(settings).items() if name not in _NO_PART}
