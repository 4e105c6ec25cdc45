"""Where recorded data go: .npz, D4RL's layout of .hdf5, or a Minari data set."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import numpy as np

from ..benchmarks.minari import STORE_VARIABLE, stores
from ..data.parts import Parts
from ..data.provenance import ATTRIBUTE, file_provenance, read_json, same_making
from ..spec.types import Array
from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import write_atomically

# Numbers are kept as D4RL has them; the parts keep the environment's own types.
_DTYPES = {"terminals": np.bool_, "timeouts": np.bool_}


class Output(Protocol):
    """A data set to be written."""

    @property
    def place(self) -> Path:
        """The file, or for Minari the folder."""

    def exists(self) -> bool:
        """Whether there is something already."""

    def is_made(self, provenance: Mapping[str, Any]) -> bool:
        """Whether it is there already, of this provenance."""

    def write(self, parts: Parts, provenance: Mapping[str, Any]) -> None:
        """Write the episodes, with what they depend on."""

    def flags(self, environment: str) -> list[str]:
        """The flags of `vgf run` that train on it."""


def parse_output(text: str, data_dir: str | Path | None = None) -> Output:
    """A data set from the words of a command: FILE.npz, FILE.hdf5 or minari:NAME.

    Args:
        text: what was given.
        data_dir: the folder of Minari's data sets; None is Minari's own.

    Raises:
        VGFError: none of these.
    """
    if text.startswith("minari:"):
        return MinariOutput.of(text.removeprefix("minari:"), data_dir)
    if data_dir is not None:
        raise VGFError(f"--data-dir is for OGBench and minari:NAME; {text} is a file of its own")
    path = Path(text).expanduser()
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
        """Whether there is something already."""
        return os.path.lexists(self.place)

    def flags(self, environment: str) -> list[str]:
        """The flags of `vgf run` that train on it."""
        return ["--env", f"gymnasium:{environment}", "--data", str(self.place)]

    def is_made(self, provenance: Mapping[str, Any]) -> bool:
        """Whether it is there already, of this provenance."""
        return self.place.exists() and same_making(file_provenance(self.place), provenance)

    def write(self, parts: Parts, provenance: Mapping[str, Any]) -> None:
        """Write the file, and what it depends on."""
        with parts.fresh(self.place) as fresh:
            parts.write_npz(fresh, dtype=_dtype)
            self.place.unlink(missing_ok=True)  # so that never a file stands beside another's .json
            write_atomically(
                self.place.with_suffix(".json"), json.dumps(provenance, indent=2) + "\n"
            )


@dataclass(frozen=True)
class Hdf5Output:
    """D4RL's layout: one data set for each key; what they depend on are attributes of the file."""

    place: Path

    def exists(self) -> bool:
        """Whether there is something already."""
        return os.path.lexists(self.place)

    def flags(self, environment: str) -> list[str]:
        """The flags of `vgf run` that train on it."""
        return ["--env", f"gymnasium:{environment}", "--data", str(self.place)]

    def is_made(self, provenance: Mapping[str, Any]) -> bool:
        """Whether it is there already, of this provenance."""
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


@dataclass(frozen=True)
class MinariOutput:
    """A local Minari data set; made by :meth:`of`.

    Args:
        name: its id, such as "my/hopper-v0".
        root: the folder of Minari's data sets.
    """

    name: str
    root: Path

    @classmethod
    def of(cls, name: str, data_dir: str | Path | None = None) -> MinariOutput:
        """A data set by its id, in a folder or in Minari's own.

        Raises:
            VGFError: a wrong id, or Minari is not installed.
        """
        need("minari", "minari")
        try:
            _, _, version = need("minari.dataset.minari_dataset", "minari").parse_dataset_id(name)
        except ValueError as error:
            raise VGFError(f"minari:{name}: {error}") from error
        if version is None:
            raise VGFError(f"minari:{name} lacks a version; did you mean minari:{name}-v0?")
        return cls(name, stores(data_dir)[0])

    @property
    def place(self) -> Path:
        """The folder of the data set."""
        return self.root / self.name

    def exists(self) -> bool:
        """Whether there is something already."""
        return os.path.lexists(self.place)

    def flags(self, environment: str) -> list[str]:
        """The flags of `vgf run` that train on it."""
        own = MinariOutput.of(self.name).root == self.root
        return ["--env", f"minari:{self.name}"] + ([] if own else ["--data-dir", str(self.root)])

    def is_made(self, provenance: Mapping[str, Any]) -> bool:
        """Whether it is there already, of this provenance."""
        metadata = read_json(self.place / "data" / "metadata.json") or {}
        try:
            return same_making(json.loads(metadata[ATTRIBUTE]), provenance)
        except (KeyError, ValueError, TypeError):
            return False

    def write(self, parts: Parts, provenance: Mapping[str, Any]) -> None:
        """Write the data set with Minari's library, under its name when it is whole."""
        from ..environments.making import make_box_env

        scratch = parts.folder.absolute() / "fresh"  # Minari goes astray with relative ones
        minari = need("minari", "minari")
        spaces = need("gymnasium", "envs").spaces
        shape, kind = parts.layout("observations")
        env = make_box_env(provenance["environment"], provenance["max_episode_steps"])
        policy = provenance["policy"]
        try:
            with (
                contextlib.closing(env),
                mock.patch.dict(os.environ, {STORE_VARIABLE: str(scratch)}),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                made = minari.create_dataset_from_buffers(
                    self.name,
                    self._episodes(parts),
                    env=env,
                    observation_space=spaces.Box(-np.inf, np.inf, shape, kind.type),
                    algorithm_name=policy.get("name") or policy.get("folder") or policy["kind"],
                    description=f"recorded by vgf, seed {provenance['seed']}",
                )
                made.storage.update_metadata({ATTRIBUTE: json.dumps(provenance)})
            self._put(scratch)
        except OSError as error:
            raise VGFError(f"cannot write {self.place}: {error.strerror or error}") from error

    def _episodes(self, parts: Parts) -> Iterator[Any]:
        """The episodes as Minari takes them, each with the observation that follows its last."""
        buffer = need("minari.data_collector", "minari").EpisodeBuffer
        keys = parts.names()
        number = 0
        for part in zip(*(parts.rows(key) for key in keys), strict=True):
            rows = dict(zip(keys, part, strict=True))
            ends = np.flatnonzero(rows["terminals"] | rows["timeouts"]) + 1
            for first, stop in zip([0, *ends[:-1]], ends, strict=True):
                one = {key: array[first:stop] for key, array in rows.items()}
                yield buffer(
                    id=number,
                    observations=np.concatenate(
                        [one["observations"], one["next_observations"][-1:]]
                    ),
                    actions=one["actions"],
                    rewards=one["rewards"],
                    terminations=one["terminals"],
                    truncations=one["timeouts"],
                )
                number += 1

    def _put(self, scratch: Path) -> None:
        """Move a data set that is whole to its place, with the namespaces it is in."""
        for parent in reversed(Path(self.name).parents[:-1]):
            (self.root / parent).mkdir(parents=True, exist_ok=True)
            for file in (scratch / parent).iterdir():
                if file.is_file() and not (self.root / parent / file.name).exists():
                    shutil.copy2(file, self.root / parent / file.name)
        if self.place.exists():
            os.replace(self.place, scratch / "replaced")
        os.replace(scratch / self.name, self.place)
