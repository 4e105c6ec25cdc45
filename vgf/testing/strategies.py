"""hypothesis strategies for the inputs of the method, with values that hurt.

Shapes and settings can be kept to a few combinations, so that a compiled backend compiles a few
times and not a few hundred; the numbers are free.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ..spec.settings import LAYER_NORMS

# (B, N, d): ones, odd and even numbers of particles
SHAPES = ((1, 1, 1), (3, 1, 2), (1, 2, 1), (2, 2, 3), (3, 3, 1), (1, 3, 3), (2, 4, 2), (4, 5, 3))
PARTICLES = (
    "random",
    "identical",
    "some identical",
    "nearly identical",
    "far",
    "edge",
    "grid",
    "two clumps",
    "elements",
)
SCORES = ("random", "zero", "huge", "tiny", "constant", "elements")
TEMPERATURES = (None, 1e-4, 0.1, 1.0, 1e3)
ELEMENTS = st.floats(-2, 2, width=32, allow_subnormal=False)


class Maker:
    """Draws arrays and choices for one example, and keeps a label that says what it drew.

    Args:
        draw: of hypothesis.
        programs: how many combinations of shapes and settings there are in all, each a program
            that a framework compiles; None for no limit. Numbers are free in any case.
        seed: decides which combinations those are.
    """

    def __init__(self, draw: st.DrawFn, programs: int | None = None, seed: int = 0) -> None:
        self.draw = draw
        self.words: list[str] = []
        self.pool_seed, self.picked = seed, Counter[str]()
        self.program = None if programs is None else draw(st.integers(0, programs - 1))
        seed = draw(st.integers(0, 2**32 - 1))
        self.words.append(f"seed={seed}")
        self.rng = np.random.default_rng(seed)

    @property
    def label(self) -> str:
        return " ".join(self.words)

    def pick(self, name: str, options: Any, compiled: bool = True) -> Any:
        """One of some options: a shape or a setting, or what decides numbers alone."""
        value = self._one_of(name, list(options), compiled)
        self.words.append(f"{name}={value}".replace(" ", "-"))
        return value

    def sizes(self) -> tuple[int, int, int]:
        """B, N and d."""
        b, n, d = self._one_of("sizes", SHAPES)
        self.words.append(f"B={b} N={n} d={d}")
        return b, n, d

    def _one_of(self, name: str, options: Sequence[Any], compiled: bool = True) -> Any:
        """Programs one after another go through the options in an order of their own."""
        if self.program is None or not compiled:
            return self.draw(st.sampled_from(options))
        self.picked[name] += 1
        time, place = divmod(self.program, len(options))
        key = f"{self.pool_seed} {name} {self.picked[name]} {time}"
        order = np.random.default_rng(list(key.encode())).permutation(len(options))
        return options[order[place]]

    def members(self) -> int:
        """E, the size of an ensemble of critics."""
        return 2

    def elements(self, shape: tuple[int, ...]) -> np.ndarray:
        """Numbers that hypothesis chooses one by one, and shrinks."""
        array = np.asarray(self.draw(hnp.arrays(np.float64, shape, elements=ELEMENTS)))
        self.words.append(f"({array.ravel().tolist()})".replace(" ", ""))
        return array

    def particles(self, lead: tuple[int, ...], n: int, d: int, name: str = "a") -> np.ndarray:
        """Sets of particles ``[*, N, d]``: identical, nearly so, 1e3 apart, on the box's edge..."""
        kind = self.pick(name, PARTICLES, compiled=False)
        shape, rng = (*lead, n, d), self.rng
        one = rng.uniform(-1, 1, (*lead, 1, d))
        if kind == "identical":
            return np.repeat(one, n, axis=-2)
        if kind == "some identical":
            a = np.repeat(one, n, axis=-2)
            a[..., 0, :] = rng.uniform(-1, 1, (*lead, d))
            return a
        if kind == "nearly identical":
            return one + 1e-6 * rng.standard_normal(shape)
        if kind == "far":
            return 1e3 * rng.standard_normal(shape)
        if kind == "edge":
            return rng.choice([-1.0, 1.0], shape)
        if kind == "grid":
            return rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], shape)
        if kind == "two clumps":
            return one * rng.choice([-1.0, 1.0], (*lead, n, 1)) + 1e-3 * rng.standard_normal(shape)
        if kind == "elements":
            return self.elements(shape)
        return rng.uniform(-1, 1, shape)

    def scores(self, shape: tuple[int, ...], name: str = "g") -> np.ndarray:
        """Gradients or values: zero, 1e6, tiny, the same for all."""
        kind = self.pick(name, SCORES, compiled=False)
        if kind == "zero":
            return np.zeros(shape)
        if kind == "constant":
            return np.broadcast_to(self.rng.standard_normal(shape[-1:]), shape).copy()
        if kind == "elements":
            return self.elements(shape)
        return {"random": 1.0, "huge": 1e6, "tiny": 1e-6}[kind] * self.rng.standard_normal(shape)

    def normal(self, *shape: int) -> np.ndarray:
        """Standard normal numbers."""
        return self.rng.standard_normal(shape)

    def actions(self, *shape: int, name: str = "actions") -> np.ndarray:
        """Actions in the box, or on its edge."""
        if self.pick(name, ("inside", "edge"), compiled=False) == "edge":
            return self.rng.choice([-1.0, 1.0], shape)
        return self.rng.uniform(-1, 1, shape)

    def hidden(self, where: str | None) -> tuple[int, ...]:
        """The widths of a network's hidden layers, with LayerNorm at a place."""
        # LayerNorm after a ReLU of which one feature alone is active does not depend on it: its
        # gradient is rounding, which is not tested on
        return (8, 4) if where in (None, "before") else (16, 16)

    def network(
        self,
        inputs: int,
        outputs: int,
        members: int | None = None,
        layer_norm: bool | None = None,
        activation: str = "",
    ) -> dict[str, Any]:
        """Parameters of a network of two hidden layers (or of :meth:`hidden`), or of an ensemble.

        LayerNorm, unless it is given, is picked: none, before or after the activation. Widths are
        powers of two, so that the mean of equal features is exact and LayerNorm's epsilon, which
        multiplies the rounding of a constant layer, is not tested on noise.
        Known deviation, kept out: for large inputs both frameworks lose the slope of "gelu_tanh",
        which they compute as 1 - tanh^2.
        """
        where = "before" if layer_norm else None
        if layer_norm is None:
            where = self.pick("layer_norm", (None, *LAYER_NORMS))
        kinds = ("random", "small", "large", "zero")
        fit = [k for k in kinds if (k, activation) != ("large", "gelu_tanh")]
        kind = self.pick("weights", fit, compiled=False)
        scale = {"random": 1.0, "small": 1e-3, "large": 3.0, "zero": 0.0}[kind]
        lead = () if members is None else (members,)
        hidden = self.hidden(where)
        widths = (inputs, *hidden, outputs)
        params: dict[str, Any] = {}
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
            layer = {
                "kernel": scale * self.normal(*lead, fan_in, fan_out) / np.sqrt(fan_in),
                "bias": scale * self.normal(*lead, fan_out),
            }
            if where is not None and i < len(hidden) - (where == "inner"):
                norm = "norm" if where == "before" else "post"
                layer[f"{norm}_scale"] = 1 + 0.5 * self.normal(*lead, fan_out)
                layer[f"{norm}_offset"] = 0.5 * self.normal(*lead, fan_out)
            params["output" if i == len(hidden) else f"hidden_{i}"] = layer
        return params
