"""What one update, or decision, has to do at the least: matrix products, and bytes moved.

The products are counted where a method calls its equations, see vgf/bench/trace.py. The count is of
the method, not of a program. Sums, activations, LayerNorm, the kernel's exponentials, the median
and random numbers are left out: against a product of 512 x 512 they are few, and a program may hide
them behind it.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from ..spec.update import init_state
from .trace import Product, UnknownLimitError, trace_decision, trace_update
from .work import Work

# The size of one number, in bytes.
SIZES = {"float32": 4, "float64": 8}

Products = list[Product]


@cache
def parts(work: Work) -> dict[str, Products]:
    """The matrix products that one update of one agent cannot do without, part by part.

    Args:
        work: its sizes.

    Returns:
        For each part of :mod:`vgf.bench.profile` that has any.

    Raises:
        UnknownLimitError: they cannot be counted.
    """
    found: dict[str, Products] = {}
    for call in trace_update(work):
        if call.products:
            found.setdefault(call.part, []).extend(call.products)
    if not found:
        raise UnknownLimitError(
            f"no limit is known for method {work.method}: it multiplies no matrices by way of the "
            "equations"
        )
    return found


def flops(work: Work) -> int:
    """Multiplications and additions of all :func:`parts`."""
    return sum(product.flops for products in parts(work).values() for product in products)


@cache
def decision_flops(work: Work) -> int:
    """Multiplications and additions of one decision: one state, N particles, L steps.

    Args:
        work: its sizes; the batch's does not count.

    Raises:
        UnknownLimitError: they cannot be counted.
    """
    return sum(product.flops for call in trace_decision(work) for product in call.products)


@cache
def parameters(work: Work) -> dict[str, int]:
    """How many numbers each network that is trained has, ensembles included."""
    settings = work.settings()
    state = init_state(0, work.observation_dim, work.action_dim, settings)
    return {name: _size(state[name]) for name in settings.networks}


def _size(tree: Any) -> int:
    """How many numbers a tree of arrays has."""
    return sum(map(_size, tree.values())) if isinstance(tree, dict) else int(tree.size)


def optimiser_bytes(work: Work, dtype: str = "float32") -> int:
    """Adam reads and writes the parameters and both moments of every network."""
    return 6 * SIZES[dtype] * sum(parameters(work).values())


def target_bytes(work: Work, dtype: str = "float32") -> int:
    """The target critic is read and written, where a critic is trained."""
    return 2 * SIZES[dtype] * parameters(work).get("critic", 0)


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
