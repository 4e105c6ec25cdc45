"""What one update, or decision, has to do at the least: matrix products, and bytes moved.

The count is of the method, not of a program. What one and the same product gives is counted once:
the state's part of the first layer once for each state, not for each particle or step, and a
gradient with respect to actions stops at the actions. Sums, activations, LayerNorm, the kernel's
exponentials, the median and random numbers are left out: against a product of 512 x 512 they are
few, and a program may hide them behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .work import Work

# The size of one number, in bytes.
SIZES = {"float32": 4, "float64": 8}


class Product(NamedTuple):
    """`times` matrix products ``[m, k] @ [k, n]``."""

    m: int
    k: int
    n: int
    times: int = 1

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.m * self.k * self.n * self.times

    @property
    def numbers(self) -> int:
        """Numbers read and written, if each product reads both factors and writes its result."""
        return (self.m * self.k + self.k * self.n + self.m * self.n) * self.times


Products = list[Product]


@dataclass(frozen=True)
class _Network:
    """E networks on (s, x): `extra` inputs besides the state."""

    work: Work
    extra: int
    out: int
    members: int = 1

    def states(self, rows: int) -> Iterator[Product]:
        """The state's part of the first layer."""
        yield Product(rows, self.work.observation_dim, self.work.width, self.members)

    def beyond(self, rows: int, times: int = 1, columns: int | None = None) -> Iterator[Product]:
        """All but the state's part, forward; or backward, to the last `columns` of the input."""
        h, times = self.work.width, times * self.members
        yield Product(rows, self.extra if columns is None else columns, h, times)
        yield Product(rows, h, h, times * (self.work.depth - 1))
        yield Product(rows, h, self.out, times)

    def gradient(self, rows: int) -> Products:
        """Forward, backward through all layers but the first, and the gradient of the kernels."""
        forward = [*self.states(rows), *self.beyond(rows)]
        kernels = [Product(k, m, n, times) for m, k, n, times in forward]
        return [*forward, *self.beyond(rows, columns=0), *kernels]


def parts(work: Work) -> dict[str, Products]:
    """The matrix products that one update of one agent cannot do without, part by part.

    Args:
        work: its sizes.

    Returns:
        For each part of :mod:`vgf.bench.profile` that has any.
    """
    b, d, n, steps = work.batch_size, work.action_dim, work.particles, work.steps
    rows, k = b * n, work.sampling_steps
    critic = _Network(work, d, 1, members=2)
    reference = _Network(work, d, d)  # its time adds one row of the kernel to every state
    own = _Network(work, d, d)  # A-VGF's field, and FQL's policy

    def sample(rows: int) -> Products:
        return [*reference.states(b), *reference.beyond(rows, times=k)]

    found: dict[str, Products] = {}
    if work.method == "fql":
        found["propose"] = [*own.states(b), *own.beyond(rows)]
    else:
        found["propose"] = sample(rows)
    if steps and work.method == "avgf":
        found["field"] = [*own.states(b), *own.beyond(rows, times=steps)]
    elif steps:
        there, back = critic.beyond(rows, steps), critic.beyond(rows, steps, columns=d)
        found["score"] = [*critic.states(b), *there, *back]
        found["kernel"] = [Product(n, n, d, b * steps)]
    found["target"] = [*critic.states(b), *critic.beyond(rows)]
    found["critic gradient"] = critic.gradient(b)
    found["reference gradient"] = _Network(work, d + 1, d).gradient(b)
    if work.method == "avgf":
        # the critic's forward pass at (s, a) is that of its own gradient
        found["field gradient"] = [*critic.beyond(b, columns=d), *own.gradient(b)]
    if work.method == "fql":
        through = [*critic.states(b), *critic.beyond(b), *critic.beyond(b, columns=d)]
        found["policy gradient"] = [*sample(b), *own.gradient(b), *through]
    return {name: [p for p in products if p.flops] for name, products in found.items()}


def flops(work: Work) -> int:
    """Multiplications and additions of all :func:`parts`."""
    return sum(product.flops for products in parts(work).values() for product in products)


def decision_flops(work: Work) -> int:
    """Multiplications and additions of one decision of "vgf": one state, N particles, L steps.

    Args:
        work: its sizes; the batch's does not count.
    """
    d, n, steps = work.action_dim, work.particles, work.steps
    critic, reference = _Network(work, d, 1, members=2), _Network(work, d, d)
    products = [
        *reference.states(1),
        *reference.beyond(n, times=work.sampling_steps),
        *critic.states(1),
        *critic.beyond(n, times=steps + 1),
        *critic.beyond(n, times=steps, columns=d),
        Product(n, n, d, steps),
    ]
    return sum(product.flops for product in products)


def parameters(work: Work) -> dict[str, int]:
    """How many numbers each network that is trained has, ensembles included."""
    o, d, h = work.observation_dim, work.action_dim, work.width

    def count(inputs: int, out: int, norm: bool) -> int:
        layers = [(inputs, h), *[(h, h)] * (work.depth - 1), (h, out)]
        return sum(i * j + j for i, j in layers) + norm * 2 * h * work.depth

    own = {
        "avgf": {"gradient_field": count(o + d, d, True)},
        "fql": {"policy": count(o + d, d, False)},
    }
    return {
        "critic": 2 * count(o + d, 1, True),
        "reference": count(o + d + 1, d, False),
        **own.get(work.method, {}),
    }


def optimiser_bytes(work: Work, dtype: str = "float32") -> int:
    """Adam reads and writes the parameters and both moments of every network."""
    return 6 * SIZES[dtype] * sum(parameters(work).values())


def target_bytes(work: Work, dtype: str = "float32") -> int:
    """The target critic is read and written."""
    return 2 * SIZES[dtype] * parameters(work)["critic"]


def batch_bytes(work: Work, dtype: str = "float32") -> int:
    """The batch is read."""
    row = 2 * work.observation_dim + work.action_dim + 2
    return SIZES[dtype] * work.batch_size * row


def state_bytes(work: Work, dtype: str = "float32") -> int:
    """What has to come from memory and go back: the agent's state, and the batch."""
    return optimiser_bytes(work, dtype) + target_bytes(work, dtype) + batch_bytes(work, dtype)


def intensity(work: Work, dtype: str = "float32") -> float:
    """FLOPs for each byte, if every product reads its factors and writes its result once."""
    products = [product for found in parts(work).values() for product in found]
    moved = SIZES[dtype] * sum(product.numbers for product in products) + state_bytes(work, dtype)
    return flops(work) / moved


def limit(operations: float, moved: float, rate: float, bandwidth: float) -> float:
    """The seconds that nothing can be faster than.

    Args:
        operations: FLOPs.
        moved: bytes.
        rate: FLOP/s of matrix products on this machine.
        bandwidth: bytes/s to and from its memory.
    """
    return max(operations / rate, moved / bandwidth if math.isfinite(bandwidth) else 0.0)
