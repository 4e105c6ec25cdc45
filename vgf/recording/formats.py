"""Where recorded data go: .npz, D4RL's layout of .hdf5, or a data set of a benchmark's own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..benchmarks import Output, split_prefix
from ..data.parts import Parts
from ..data.provenance import ATTRIBUTE, file_provenance, same_making
from ..spec.types import Array
from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import expanded, write_atomically

# Numbers are kept as D4RL has them; the parts keep the environment's own types.
_DTYPES = {"terminals": np.bool_, "timeouts": np.bool_}


def parse_output(text: str, data_dir: str | Path | None = None) -> Output:
    """A data set from a command's argument: FILE.npz, FILE.hdf5 or minari:NAME.

    Args:
        text: the argument.
        data_dir: the folder of Minari's data sets; None is Minari's own.

    Raises:
        VGFError: none of these.
    """
    benchmark, name = split_prefix(text)
    output = None if benchmark is None else benchmark.output(name, data_dir)
    if output is not None:
        return output
    if data_dir is not None:
        raise VGFError(f"--data-dir is for OGBench and minari:NAME; {text} names its own file")
    path = expanded(text)
    if path.is_dir():
        raise VGFError(f"{path} is a folder; name a file in it, such as {path / 'data.npz'}")
    if path.suffix == ".npz":
        return NpzOutput(path)
    if path.suffix in (".hdf5", ".h5"):
        need("h5py", "d4rl")
        return Hdf5Output(path)
    raise VGFError(f"--out {text} must end in .npz or .hdf5, or be minari:NAME, such as {path}.npz")


def _rows(parts: Parts, key: str) -> Iterator[Array]:
    for rows in parts.rows(key):
        yield rows.astype(_dtype(key))


def _dtype(key: str) -> np.dtype[Any]:
    return np.dtype(_DTYPES.get(key, np.float32))


@dataclass(frozen=True)
class NpzOutput:
    """One array for each key, and what they depend on in a ``.json`` beside the file."""

    place: Path

    def exists(self) -> bool:
        """Whether something already exists there."""
        return os.path.lexists(self.place)

    def flags(self, environment: str) -> list[str]:
        """The flags of `vgf run` that train on it."""
        return ["--env", f"gymnasium:{environment}", "--data", str(self.place)]

    def is_made(self, provenance: Mapping[str, Any]) -> bool:
        """Whether it already exists, with this provenance."""
        return self.place.exists() and same_making(file_provenance(self.place), provenance)

    def write(self, parts: Parts, provenance: Mapping[str, Any]) -> None:
        """Write the file, and what it depends on."""
        with parts.fresh(self.place) as fresh:
            parts.write_npz(fresh, dtype=_dtype)
            self.place.unlink(missing_ok=True)  # so that a file never has another's .json beside it
            write_atomically(
                self.place.with_suffix(".json"), json.dumps(provenance, indent=2) + "\n"
            )


@dataclass(frozen=True)
class Hdf5Output:
    """D4RL's layout: one data set for each key; what they depend on are attributes of the file."""

    place: Path

    def exists(self) -> bool:
        """Whether something already exists there."""
        return os.path.lexists(self.place)

    def flags(self, environment: str) -> list[str]:
        """The flags of `vgf run` that train on it."""
        return ["--env", f"gymnasium:{environment}", "--data", str(self.place)]

    def is_made(self, provenance: Mapping[str, Any]) -> bool:
        """Whether it already exists, with this provenance."""
        return same_making(file_provenance(self.place), provenance)

    def write(self, parts: Parts, provenance: Mapping[str, Any]) -> None:
        """Write the file."""
        h5py = need("h5py", "d4rl")
        total = sum(parts.lengths())
        with parts.fresh(self.place) as fresh, h5py.File(fresh, "w") as file:
            file.attrs[ATTRIBUTE] = json.dumps(provenance)
            for key, value in provenance.items():
                as_json = isinstance(value, dict) or value is None
                file.attrs[key] = json.dumps(value) if as_json else value
            for key in parts.names():
                shape, _ = parts.layout(key)
                data = file.create_dataset(
                    key, (total, *shape), _dtype(key), compression="gzip", chunks=True
                )
                row = 0
                for rows in _rows(parts, key):
                    data[row : row + len(rows)] = rows
                    row += len(rows)
