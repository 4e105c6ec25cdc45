"""Parameters of somebody else's network under the specification's names, and the other way.

Ours is a network of dense layers, `hidden_0` to `output`, perhaps with LayerNorm (`norm_scale`,
`norm_offset` before the activation, `post_scale`, `post_offset` after it) or a `log_std`. Theirs is
a list of named arrays in the order in which they are declared, or natural order. Nothing is said
about names: matrices are taken for kernels in the order in which their shapes fit, vectors beside a
matrix for its bias, other vectors for LayerNorm's.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..support.errors import VGFError


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one array of ours, or one member of an ensemble's, is in theirs.

    Attributes:
        ours: the path, such as ("hidden_0", "kernel").
        theirs: the name.
        member: which member of an ensemble, or None for the whole array.
        transposed: theirs is [outputs, inputs], as torch's.
    """

    ours: tuple[str, ...]
    theirs: str
    member: int | None = None
    transposed: bool = False


def natural(name: str) -> list[Any]:
    """A key that sorts Dense_2 before Dense_10."""
    return [(1, int(w), "") if w.isdigit() else (0, 0, w) for w in re.split(r"(\d+)", name)]


def places_of(
    shapes: Mapping[tuple[str, ...], tuple[int, ...]],
    theirs: Sequence[tuple[str, tuple[int, ...]]],
    label: str = "the network",
) -> list[Place]:
    """Where each array of ours is in theirs.

    Args:
        shapes: of ours, by path.
        theirs: names and shapes, in order.
        label: what to call it in errors.

    Raises:
        VGFError: theirs has other layers.
    """
    kernel = next(path for path in shapes if path[-1] == "kernel")
    ensemble = len(shapes[kernel]) == 3
    members = shapes[kernel][0] if ensemble else 0
    stacked = not ensemble or any(len(shape) == 3 for _, shape in theirs)
    rest = list(theirs)
    found: list[Place] = []
    for member in (None,) if stacked else range(members):
        own = {
            path: (shape if member is None else shape[1:])
            for path, shape in sorted(shapes.items(), key=lambda item: _order(item[0]))
        }
        found += _one(own, rest, member, label)
    if rest:
        more = f"{rest[0][0]} [{', '.join(map(str, rest[0][1]))}]"
        raise VGFError(f"{label}: it has {len(rest)} arrays too many, such as {more}")
    return found


_NAMES = ("kernel", "bias", "norm_scale", "norm_offset", "post_scale", "post_offset")


def _order(path: tuple[str, ...]) -> tuple[Any, ...]:
    layer = path[0]
    number = int(layer[7:]) if layer.startswith("hidden_") else 10**6
    return (path == ("log_std",), number, _NAMES.index(path[-1]) if path[-1] in _NAMES else 9)


def _one(
    own: Mapping[tuple[str, ...], tuple[int, ...]],
    rest: list[tuple[str, tuple[int, ...]]],
    member: int | None,
    label: str,
) -> list[Place]:
    """The places of one network; what is found is taken out of the rest."""
    found: list[Place] = []

    def take(path: tuple[str, ...], fits: Any, turned: bool = False) -> tuple[str, ...] | None:
        for i, (name, shape) in enumerate(rest):
            if fits(name, shape):
                del rest[i]
                found.append(Place(path, name, member, turned))
                return (name.rpartition(".")[0], name.rpartition(".")[2])
        return None

    rank = 2 if member is not None or all(len(s) < 3 for s in own.values()) else 3
    beside: dict[str, str] = {}
    matrices = {name.rpartition(".")[0] for name, shape in rest if len(shape) == rank}
    for path, shape in own.items():
        if path[-1] != "kernel":
            continue
        turned = (*shape[:-2], shape[-1], shape[-2])

        def is_turned(name: str, given: tuple[int, ...], shape: Any = shape) -> bool:
            # a square matrix says nothing; torch calls its own "weight"
            return given != shape or name.rpartition(".")[2] == "weight"

        place = next((n for n, s in rest if s in (shape, turned)), None)
        if place is None:
            have = ", ".join(str(list(s)) for _, s in rest if len(s) == rank) or "none"
            raise VGFError(
                f"{label}: no array is the kernel of {path[0]}, {list(shape)} or its transpose; "
                f"those left are {have}"
            )
        given = dict(rest)[place]
        take(path, lambda n, s, place=place: n == place, is_turned(place, given))
        beside[path[0]] = place.rpartition(".")[0]
    for path, shape in own.items():
        if path[-1] == "kernel":
            continue
        if path[-1] == "bias":
            home = beside[path[0]]
            ok = take(
                path, lambda n, s, home=home, w=shape: n.rpartition(".")[0] == home and s == w
            )
        elif path == ("log_std",):
            ok = take(path, lambda n, s, w=shape: _same_size(s, w) and "std" in n.lower())
        else:
            last = {"scale": ("scale", "weight", "gamma"), "offset": ("bias", "beta", "offset")}
            words = last[path[-1].rpartition("_")[2]]
            ok = take(
                path,
                lambda n, s, w=shape, words=words: (
                    s == w
                    and n.rpartition(".")[0] not in matrices
                    and n.rpartition(".")[2] in words
                ),
            )
        if ok is None:
            raise VGFError(f"{label}: no array is {'.'.join(path)}, {list(shape)}")
    return found


def _same_size(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return int(np.prod(one)) == int(np.prod(other))


def read(places: Sequence[Place], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Our network from their arrays.

    Args:
        theirs: NumPy arrays by name.
    """
    found: dict[str, Any] = {}
    members: dict[tuple[str, ...], list[np.ndarray]] = {}
    for place in places:
        array = np.asarray(theirs[place.theirs])
        array = np.swapaxes(array, -1, -2) if place.transposed else array
        if place.member is None:
            _put(found, place.ours, array.ravel() if place.ours == ("log_std",) else array)
        else:
            members.setdefault(place.ours, []).append(array)
    for path, arrays in members.items():
        _put(found, path, np.stack(arrays))
    return found


def write(places: Sequence[Place], ours: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Their arrays from our network, by name."""
    found = {}
    for place in places:
        array: Any = ours
        for key in place.ours:
            array = array[key]
        array = np.asarray(array) if place.member is None else np.asarray(array)[place.member]
        found[place.theirs] = np.swapaxes(array, -1, -2) if place.transposed else array
    return found


def shapes_of(network: Mapping[str, Any]) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The shapes of one of our networks, by path."""
    found: dict[tuple[str, ...], tuple[int, ...]] = {}
    for key, value in network.items():
        if isinstance(value, Mapping):
            found |= {(key, *path): shape for path, shape in shapes_of(value).items()}
        else:
            found[(key,)] = np.shape(value)
    return found


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value
