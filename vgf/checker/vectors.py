"""Test vectors: the specification as data, for implementations in any language.

A vector is one input of an equation, the result in float64, the error that rounding excuses, and
flags: the named mistakes with which the result would be another. Inputs are numbers that float32
holds exactly, so that both precisions compute the same question.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import spec
from ..backends.base import Backend
from ..backends.numpy import NumpyBackend
from ..spec.settings import Budget, Network, Settings
from ..support.errors import VGFError
from ..support.files import write_atomically
from ..testing.compare import FACTOR, MACHINE_EPSILON, SMALLEST_NORMAL, largest_in_set, named_leaves
from ..testing.equations import rounded
from ..testing.strategies import SHAPES
from ..testing.variants import Variant
from .alternatives import library, library_for
from .subjects import SUBJECTS, Sizes, Subject
from .trial import SPECIFICATION, Outcome, Trial, draw_many, planted

SIZES = Sizes((*SHAPES, (2, 10, 3), (3, 32, 2)), (2, 1, 3))
# Inputs drawn to choose from, and those kept at least; fewer of what is large.
DRAWN, KEPT = 300, 6
# Inputs in a row that expose no mistake that the others do not, before the search ends.
PATIENCE = 30
_LARGE = {"update": (40, 2), "act": (40, 2), "move": (40, 2)}
# Arrays of more numbers than this stand in the .npz file beside the JSON.
INLINE = 2000
FORMAT = 1


def slug(name: str) -> str:
    """A mistake's name as a flag: lower case, words joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@dataclasses.dataclass(frozen=True)
class Vector:
    """One input of an equation, with its result.

    Attributes:
        id: unique, such as "phi-3".
        arguments: as the equation draws them; `inputs` the same under names.
        result: NumPy arrays, nested as the specification returns them.
        tolerance: of each array of the result, by its path, in "float64" and "float32": the largest
            absolute error that rounding excuses.
        flags: the mistakes that it exposes.
    """

    id: str
    equation: str
    arguments: tuple[Any, ...]
    result: Any
    tolerance: Mapping[str, Mapping[str, float]]
    flags: tuple[str, ...] = ()

    def fails(self, result: Any, dtype: str = "float64") -> str:
        """What is wrong with somebody's result, or "" if it is within the tolerance."""
        mine, want = dict(named_leaves(result)), dict(named_leaves(self.result))
        for name, expected in want.items():
            if name not in mine or np.shape(mine[name]) != np.shape(expected):
                return f"{name or 'the result'}: missing, or of another shape"
            got = np.asarray(mine[name], float)
            with np.errstate(invalid="ignore"):
                error = np.where(got == expected, 0.0, np.abs(got - expected))
            if not np.all(error <= self.tolerance[dtype][name]):
                return f"{name or 'the result'}: off by {np.max(error):.3g}"
        return ""


# --- making --------------------------------------------------------------------------------------


def make_vectors(name: str, seed: int = 0) -> list[Vector]:
    """The vectors of one equation: few, small, and exposing every mistake that it can."""
    subject = SUBJECTS[name]
    drawn, kept = _LARGE.get(name, (DRAWN, KEPT))
    trial = Trial(None, _own_reading(subject), _adapter(), _arrays(), "strict", SIZES)
    candidates = []
    for arguments, chosen in draw_many(subject, drawn, seed, SIZES):
        exact = tuple(rounded(argument, "float32") for argument in arguments)
        vector = _vector(trial, exact, chosen)
        if vector is not None:
            candidates.append(vector)
    known = library_for(name)
    exposed: list[tuple[set[str], Vector]] = []
    seen: set[str] = set()
    stale = 0
    for vector in candidates:
        flags = _exposed(vector, trial, known)
        stale = 0 if flags - seen else stale + 1
        seen |= flags
        exposed.append((flags, vector))
        if len(exposed) >= 4 * kept and (stale >= PATIENCE or seen >= known.keys()):
            break
    chosen_ones = _cover(exposed, kept)
    # an implementation without the rarer settings is to have enough of its own
    usual = [pair for pair in exposed if _usual(pair[1])]
    again = _cover(usual, kept) if usual else []
    chosen_ones += [pair for pair in again if all(pair[1] is not one for _, one in chosen_ones)]
    return [
        dataclasses.replace(vector, id=f"{name}-{i}", flags=tuple(sorted(map(slug, flags))))
        for i, (flags, vector) in enumerate(chosen_ones, 1)
    ]


def _vector(trial: Trial, arguments: tuple[Any, ...], chosen: Mapping[str, Any]) -> Vector | None:
    tolerance = {}
    for dtype in MACHINE_EPSILON:
        outcome = Outcome(arguments, trial.subject.named(arguments), chosen, dtype)
        result = outcome.whole = outcome.got = trial.expect(arguments)
        if any(np.any(np.isnan(np.asarray(x, float))) for _, x in named_leaves(result)):
            return None
        moves = dict(named_leaves(trial.sensitivity(outcome)))
        tolerance[dtype] = {
            key: _allowed(np.asarray(x), np.asarray(moves[key]), dtype, trial.subject)
            for key, x in named_leaves(result)
        }
        size = max(
            (float(np.max(largest_in_set(np.asarray(x, float)), initial=0)))
            for _, x in named_leaves(result)
        )
        if max(tolerance[dtype].values(), default=0) > 1e-2 * (size + 1):
            return None  # the input does not determine the result in this precision
    vector = Vector("", trial.subject.name, arguments, result, tolerance)
    with np.errstate(all="ignore"):
        # a gradient that is rounding alone: what the specification in float32 fails is no test
        rounded_inside = run_vector(vector, NumpyBackend("cpu", "float32", "float32"))
    return None if vector.fails(rounded_inside, "float32") else vector


def _allowed(want: np.ndarray, moves: np.ndarray, dtype: str, subject: Subject) -> float:
    """The tolerance of `vgf.testing.compare`, the largest over an array's sets."""
    if want.dtype.kind in "iub":
        return 0.0
    u, floor = MACHINE_EPSILON[dtype], subject.equation.floor
    size, moved = largest_in_set(np.asarray(want, float)), largest_in_set(moves)
    allowed = FACTOR * (u * (size + floor) + moved + SMALLEST_NORMAL[dtype])
    return float(np.max(allowed, initial=0.0))


def _exposed(vector: Vector, trial: Trial, known: Mapping[str, Variant]) -> set[str]:
    """The mistakes with which the result would be another, in float64."""
    found = set()
    for name, variant in known.items():
        try:
            with np.errstate(all="ignore"):
                result = trial.expect(vector.arguments, (variant,))
        except Exception:  # a mistake that cannot even be computed here
            continue
        if vector.fails(result):
            found.add(name)
    return found


def _usual(vector: Vector) -> bool:
    """Whether every setting that is a word, a switch or a number has its default."""
    parameters = inspect.signature(getattr(spec, vector.equation)).parameters
    names = SUBJECTS[vector.equation].drawn_names
    for name, value in zip(names, vector.arguments, strict=True):
        default = parameters[name].default if name in parameters else inspect.Parameter.empty
        if default not in (inspect.Parameter.empty, None) and not isinstance(value, np.ndarray):
            if isinstance(default, float) and default:
                continue
            if value != default:
                return False
    return True


def _cover(exposed: Sequence[tuple[set[str], Vector]], least: int) -> list[tuple[set[str], Vector]]:
    """Greedily the vectors that expose most of what is left, small ones first."""

    def size(vector: Vector) -> int:
        return sum(np.size(x) for a in vector.arguments for _, x in _arrays_of(a))

    left = set().union(*(flags for flags, _ in exposed))
    rest = sorted(exposed, key=lambda pair: size(pair[1]))
    kept: list[tuple[set[str], Vector]] = []
    while rest and (left or len(kept) < least):
        best = max(rest, key=lambda pair: (len(pair[0] & left), len(pair[0]) / (1 + size(pair[1]))))
        rest = [pair for pair in rest if pair is not best]
        kept.append(best)
        left -= best[0]
    return kept


def _arrays_of(argument: Any) -> list[tuple[str, Any]]:
    if not isinstance(argument, (dict, np.ndarray)):
        return []
    return named_leaves(argument)


def _own_reading(subject: Subject) -> Any:
    from .adapter import Reading

    return Reading(subject, {}, frozenset(), {})


def _adapter() -> Any:
    from .adapter import Adapter

    return Adapter()


def _arrays() -> Any:
    from .adapter import Arrays

    return Arrays("numpy")


# --- writing -------------------------------------------------------------------------------------


def write_vectors(
    folder: Path, names: Sequence[str] | None = None, seed: int = 0
) -> dict[str, list[Vector]]:
    """Write the vectors of all equations, or of some: a JSON file each, index.json, schema.json.

    Raises:
        VGFError: an equation that is unknown.
    """
    for name in names or ():
        if name not in SUBJECTS:
            raise VGFError(f"no equation {name!r}; vgf check --list names them all")
    folder.mkdir(parents=True, exist_ok=True)
    made = {name: make_vectors(name, seed) for name in names or SUBJECTS}
    for name, vectors in made.items():
        large: dict[str, np.ndarray] = {}
        document = {
            "format": FORMAT,
            "specification": spec.__version__,
            "equation": name,
            "summary": SUBJECTS[name].summary,
            "axes": {key: list(axes) for key, axes in SUBJECTS[name].axes.items()},
            "vectors": [_as_json(vector, large) for vector in vectors],
        }
        write_atomically(str(folder / f"{name}.json"), json.dumps(document, indent=1) + "\n")
        if large:
            np.savez_compressed(folder / f"{name}.npz", **dict[str, Any](large))
    flags = {slug(v.name): v.says for v in library().values()}
    index = {
        "format": FORMAT,
        "specification": spec.__version__,
        "equations": {name: len(vectors) for name, vectors in made.items()},
        "flags": dict(sorted(flags.items())),
        "conventions": list(CONVENTIONS),
    }
    write_atomically(str(folder / "index.json"), json.dumps(index, indent=1) + "\n")
    write_atomically(str(folder / "schema.json"), json.dumps(SCHEMA, indent=1) + "\n")
    return made


CONVENTIONS = (
    "sigma^2 = median / (2 log(N + 1)), the median over all N * N pairs with the zero diagonal, an "
    "even count averaging its two middle values, and sigma^2 at least 1e-12",
    "sigma is constant wherever gradients are taken, unless bandwidth_gradient is true",
    "a temperature of null leaves the entropy term out: phi = (1/N) sum_j k g_j",
    "LayerNorm comes before the activation, with epsilon 1e-6 and the mean of squares",
    "gelu is exact, gelu_tanh its approximation",
    "a step of the flow ends with clip(a, low, high); 0 steps leave the particles alone",
    "score and velocity of transport and follow are linear: shift - slope * a",
    "the output layer of a network is 'output', the hidden ones 'hidden_0', 'hidden_1', ...; "
    "kernels are [inputs, outputs], an ensemble's parameters have E in front",
    'what JSON has no number for is a word: "inf", "-inf"',
)


def _as_json(vector: Vector, large: dict[str, np.ndarray]) -> dict[str, Any]:
    subject = SUBJECTS[vector.equation]

    def plain(value: Any, path: str) -> Any:
        if isinstance(value, (np.ndarray, np.generic)):
            value = np.asarray(value)
            if value.size > INLINE:
                large[path] = value
                return {"npz": path}
            return _finite(value.tolist())
        if isinstance(value, dict):
            return {key: plain(item, f"{path}.{key}") for key, item in value.items()}
        if isinstance(value, (tuple, list)):
            return [plain(item, f"{path}.{i}") for i, item in enumerate(value)]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            return {key: plain(item, f"{path}.{key}") for key, item in fields.items()}
        return value

    named = zip(subject.drawn_names, vector.arguments, strict=True)
    return {
        "id": vector.id,
        "inputs": {key: plain(value, f"{vector.id}.{key}") for key, value in named},
        "result": plain(vector.result, f"{vector.id}.result"),
        "tolerance": vector.tolerance,
        "flags": list(vector.flags),
    }


def _finite(value: Any) -> Any:
    """Numbers as JSON has them; what is infinite as a word."""
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


_NUMBERS: dict[str, Any] = {
    "anyOf": [
        {"type": ["number", "boolean", "null", "string"]},
        {"type": "array", "items": {"$ref": "#/$defs/value"}},
        {"type": "object", "additionalProperties": {"$ref": "#/$defs/value"}},
    ]
}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Test vectors of one equation of Value Gradient Flow",
    "type": "object",
    "required": ["format", "specification", "equation", "summary", "axes", "vectors"],
    "additionalProperties": False,
    "properties": {
        "format": {"const": FORMAT, "description": "of these files"},
        "specification": {
            "type": "string",
            "pattern": r"^\d+\.\d+$",
            "description": "its version: the first number changes where a result does",
        },
        "equation": {"type": "string", "description": "the function of vgf.spec"},
        "summary": {"type": "string"},
        "axes": {
            "type": "object",
            "description": "the axes of each array input, and of the result",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
        },
        "vectors": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/vector"}},
    },
    "$defs": {
        "value": _NUMBERS,
        "tolerances": {
            "type": "object",
            "description": "the largest absolute error, by the path of the array in the result; "
            "the path is empty where the result is one array",
            "additionalProperties": {"type": "number", "minimum": 0},
        },
        "vector": {
            "type": "object",
            "required": ["id", "inputs", "result", "tolerance", "flags"],
            "additionalProperties": False,
            "properties": {
                "id": {"type": "string", "pattern": "^[a-z0-9_]+-[0-9]+$"},
                "inputs": {
                    "type": "object",
                    "description": "arrays as nested lists, networks as objects of them; "
                    '{"npz": name} where the numbers are in the .npz file beside this one',
                    "additionalProperties": {"$ref": "#/$defs/value"},
                },
                "result": {"$ref": "#/$defs/value"},
                "tolerance": {
                    "type": "object",
                    "required": ["float64", "float32"],
                    "additionalProperties": False,
                    "properties": {
                        "float64": {"$ref": "#/$defs/tolerances"},
                        "float32": {"$ref": "#/$defs/tolerances"},
                    },
                },
                "flags": {
                    "type": "array",
                    "uniqueItems": True,
                    "items": {"type": "string", "pattern": "^[a-z0-9-]+$"},
                    "description": "mistakes with which this result would be another in float64; "
                    "index.json says what each is",
                },
            },
        },
    },
}


# --- reading -------------------------------------------------------------------------------------


def read_vectors(folder: Path, names: Sequence[str] | None = None) -> Iterator[Vector]:
    """The vectors of a folder, as they were made.

    Raises:
        VGFError: a file that is not there or of another format.
    """
    for name in names or json.loads((folder / "index.json").read_text())["equations"]:
        file = folder / f"{name}.json"
        if not file.is_file():
            raise VGFError(f"{file}: no such file; vgf vectors writes it")
        document = json.loads(file.read_text())
        if document["format"] != FORMAT:
            raise VGFError(f"{file}: format {document['format']}, and this reads {FORMAT}")
        beside = folder / f"{name}.npz"
        large = dict(np.load(beside)) if beside.is_file() else {}
        subject = SUBJECTS[name]
        for one in document["vectors"]:
            arguments = tuple(
                _argument(key, one["inputs"][key], large) for key in subject.drawn_names
            )
            result = _result(one["result"], large)
            yield Vector(one["id"], name, arguments, result, one["tolerance"], tuple(one["flags"]))


def _argument(name: str, value: Any, large: Mapping[str, np.ndarray]) -> Any:
    if name == "budget":
        return Budget(**value)
    if name == "settings":
        return _settings(value)
    if name == "lengths":
        return tuple(value)
    return _result(value, large)


def _settings(value: Mapping[str, Any]) -> Settings:
    made: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            inner = {k: tuple(v) if isinstance(v, list) else v for k, v in item.items()}
            kind: Any = Budget if key == "budget" else Network
            made[key] = kind(**inner)
        else:
            made[key] = tuple(item) if isinstance(item, list) else item
    return spec.method_settings(made.pop("method", "vgf"), **made)


def _result(value: Any, large: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"npz"}:
            return large[value["npz"]]
        return {key: _result(item, large) for key, item in value.items()}
    if value in ("inf", "-inf"):
        return np.asarray(float(value))
    if isinstance(value, list):
        try:
            array = np.asarray(value)
            if array.dtype.kind == "U":  # numbers and "-inf"
                array = array.astype(float)
        except ValueError:
            array = np.asarray(None)
        if array.dtype.kind in "fiub":
            return array
        return tuple(_result(item, large) for item in value)
    return value


def run_vector(vector: Vector, backend: Backend | None = None, variants: Any = ()) -> Any:
    """The result of a backend on a vector, or of the specification with variants in it."""
    subject = SUBJECTS[vector.equation]
    if variants:
        return subject.equation.run(planted(tuple(variants)), *vector.arguments)
    if backend is None:
        return subject.equation.run(SPECIFICATION, *vector.arguments)
    own = [backend.asarray(x) if isinstance(x, (dict, np.ndarray)) else x for x in vector.arguments]
    result = subject.equation.run(backend, *own)
    return _numpy(backend, result)


def _numpy(backend: Backend, result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(_numpy(backend, item) for item in result)
    return None if result is None else backend.to_numpy(result)
