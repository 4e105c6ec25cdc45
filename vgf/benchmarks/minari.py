"""Minari's datasets, through its own library: found, downloaded, read and written."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import os
import re
import shutil
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from ..data.hdf5 import check_contained
from ..data.npz import check_mappable
from ..data.parts import Parts
from ..data.provenance import ATTRIBUTE, read_json, same_making
from ..data.raw import RawData, with_box
from ..spec.types import Array
from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import expanded
from ..support.memory import check_fits
from ..support.statistics import NORMALISED
from ..support.suggestions import closest
from .base import Benchmark, DataRequest, NoDataError, Output, Scoring, reference_note

STORE_VARIABLE = "MINARI_DATASETS_PATH"
DEFAULT_STORE = Path("~/.minari/datasets")
_DOWNLOAD_TIMEOUT = 30.0
_NAME = re.compile(r"(?:[\w-]+/)*[\w-]+-v\d+")


@dataclass(frozen=True, eq=False)
class MinariData:
    """An opened dataset.

    Args:
        path: its folder in a store.
        dataset: Minari's own object.
        ref_min, ref_max: the returns of score 0 and 100, if the dataset has them.
        spec: the environment in which it says to evaluate, as its metadata describe it; None if
            they name none.
    """

    path: Path
    dataset: Any
    ref_min: float | None
    ref_max: float | None
    spec: Mapping[str, Any] | None

    @property
    def env_name(self) -> str | None:
        """The environment in which the dataset says to evaluate, or None if it names none."""
        return None if self.spec is None else self.spec["id"]


def stores(data_dir: str | Path | None) -> list[Path]:
    """Where datasets are looked for: `data_dir`, then Minari's own store."""
    own = Path(os.environ.get(STORE_VARIABLE) or DEFAULT_STORE)
    return [expanded(p) for p in ([] if data_dir is None else [Path(data_dir)]) + [own]]


def is_name(name: str) -> bool:
    """Whether a text can be the name of a dataset, such as "D4RL/door/human-v2"."""
    return _NAME.fullmatch(name) is not None


def local_path(name: str, data_dir: str | Path | None = None) -> Path | None:
    """The folder of a dataset in a store, or None."""
    if not is_name(name):
        return None
    places = (store / name for store in stores(data_dir))
    return next((place for place in places if is_dataset(place)), None)


def is_dataset(folder: Path) -> bool:
    """Whether a folder looks like one of Minari's datasets."""
    return (folder / "data" / "metadata.json").is_file() or (
        folder / "data" / "main_data.hdf5"
    ).is_file()


def local_names(data_dir: str | Path | None = None) -> list[str]:
    """The names of the datasets in the stores."""
    return sorted(
        {
            folder.parent.relative_to(store).as_posix()
            for store in stores(data_dir)
            for folder in store.glob("**/data")
            if is_dataset(folder.parent)
        }
    )


def find_minari(
    name: str, data_dir: str | Path | None = None, *, allow_download: bool = True
) -> Path:
    """The folder of a dataset, downloaded if it is in no store.

    Raises:
        VGFError: a wrong name, or no dataset and no download; the message names the ways out.
    """
    if not is_name(name):
        raise VGFError(
            f"{name!r} is not a name of a Minari dataset; names are such as D4RL/door/human-v2, "
            "with a version"
        )
    path = local_path(name, data_dir)
    if path is not None:
        return path
    minari = need("minari", "minari")
    store = stores(data_dir)[0]
    because = ""
    if allow_download:
        because = f" ({_download(minari, name, store)})"
        path = local_path(name, data_dir)
        if path is not None:
            return path
    near = closest(name, local_names(data_dir), most=1)
    hint = f"did you mean {near[0]}? Or, on" if near else "on"
    raise NoDataError(
        f"no data for {name}{because}; {hint} a machine with a network, `minari download {name}` "
        f"puts it into {DEFAULT_STORE}: copy it to {store}, or name its store with --data-dir"
    )


def _download(minari: Any, name: str, store: Path) -> str:
    """Let Minari download a dataset into a store; returns the reason if it did not, in words."""
    timeout, before = socket.getdefaulttimeout(), os.environ.get(STORE_VARIABLE)
    # Minari prints, with bars; a log that is not a terminal gets neither.
    shown = sys.stderr if sys.stderr.isatty() else io.StringIO()
    try:
        socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)
        os.environ[STORE_VARIABLE] = str(store)
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown), _unwarned():
            minari.download_dataset(name)
    except Exception as error:  # from whatever it fetches with: no network, no such name
        return f"the download failed: {' '.join(str(error).split()) or type(error).__name__}"
    finally:
        socket.setdefaulttimeout(timeout)
        if before is None:
            del os.environ[STORE_VARIABLE]
        else:
            os.environ[STORE_VARIABLE] = before
    return "the download left nothing"


def open_minari(path: Path) -> MinariData:
    """Open the dataset in a folder; nothing of what it names is imported or called.

    Raises:
        VGFError: a folder that is not a complete dataset, or one of another version of Minari; one
            that does not describe its spaces, for which Minari would make its environment.
    """
    minari = need("minari", "minari")
    need("h5py", "minari")
    metadata = read_json(path / "data" / "metadata.json")
    with _whole(path), _unwarned():
        if not isinstance(metadata, dict):
            raise ValueError("its metadata.json is not a JSON object")
        missing = [key for key in ("observation_space", "action_space") if key not in metadata]
        if missing:
            raise VGFError(
                f"{path} does not describe its {missing[0]}; only the code that it names could, "
                "which is not called: fetch it again, as written by a newer Minari"
            )
        dataset = minari.MinariDataset(path / "data")
        low, high = (_number(metadata, f"{end}_score") for end in ("ref_min", "ref_max"))
        return MinariData(path, dataset, low, high, _spec(metadata))


def _number(metadata: Mapping[str, Any], key: str) -> float | None:
    value = metadata.get(key)
    if value is None:
        return None
    if not np.isfinite(float(value)):
        raise ValueError(f"{key} is {value}")
    return float(value)


def _spec(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The environment to evaluate in; its JSON is text within the JSON of the metadata."""
    text = next((t for t in map(metadata.get, ("eval_env_spec", "env_spec")) if t), None)
    if text is None:
        return None
    spec = json.loads(text)
    if not (isinstance(spec, dict) and isinstance(spec.get("id"), str)):
        raise ValueError("its environment has no id")
    return spec


@contextlib.contextmanager
def _unwarned() -> Iterator[None]:
    """Silences Minari's warnings about packages in other versions than the dataset's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Turn what a damaged dataset raises into a VGFError."""
    try:
        yield
    except VGFError:
        raise
    except Exception as error:  # from the storage's format: HDF5 and others
        reason = " ".join(str(error).split()) or type(error).__name__
        raise VGFError(
            f"{path} is not a complete Minari dataset ({reason}); delete it and fetch it again"
        ) from error


def read_minari(path: Path) -> RawData:
    """Read the dataset in a folder.

    An episode has one observation more than it has steps, so every s' is there. Observations that
    are dicts are flattened as the environment's are.

    Raises:
        VGFError: as :func:`open_minari`; observations or actions that are not vectors of numbers,
            or episodes whose parts differ in length.
    """
    from ..environments.fitting import check_spaces, flatten

    found = open_minari(path)
    _check_contained(path)
    observation_space, action_space = found.dataset.observation_space, found.dataset.action_space
    check_spaces(observation_space, action_space, str(path))
    parts: dict[str, list[Array]] = {}
    with _whole(path):
        for episode in found.dataset.iterate_episodes():
            rows = len(episode.rewards)
            seen = flatten(observation_space, episode.observations, (rows + 1,))
            _add(parts, episode, seen)
    arrays = {key: np.concatenate(pieces) for key, pieces in parts.items()}
    if not arrays:
        raise VGFError(f"{path} has no episodes")
    raw = RawData(arrays, str(path), tuple(arrays))
    return with_box(raw, action_space.low, action_space.high)


def _check_contained(path: Path) -> None:
    """Check that the dataset's HDF5 files hold all of their contents, which fit into memory.

    Raises:
        VGFError: as :func:`vgf.data.hdf5.check_contained`.
    """
    h5py = need("h5py", "minari")
    for place in sorted((path / "data").glob("*.hdf5")):
        with _whole(path), h5py.File(place, "r") as file:
            check_fits(check_contained(file, place), str(place))


def _add(parts: dict[str, list[Array]], episode: Any, seen: Array) -> None:
    """Add the rows of an episode; if it ends without being done, it was cut."""
    rows = {
        "observations": seen[:-1],
        "actions": np.asarray(episode.actions),
        "rewards": np.asarray(episode.rewards),
        "terminals": np.asarray(episode.terminations),
        "timeouts": np.asarray(episode.truncations).copy(),
        "next_observations": seen[1:],
    }
    if len(episode.rewards) == 0:
        return
    rows["timeouts"][-1] |= not rows["terminals"][-1]
    for key, array in rows.items():
        parts.setdefault(key, []).append(array)


def make_minari_env(path: Path, seed: int | None = None, trusted: bool = False) -> Any:
    """Make the environment in which a dataset says to evaluate, fitted.

    The dataset's word is taken for which environment it is, its arguments and its time limit. What
    is called is what an installed package has registered under that name.

    Args:
        path: of the dataset's folder.
        seed: of the first `reset` without its own seed.
        trusted: call what the dataset itself names, which may be in the working folder: its entry
            point, wrappers and arguments.

    Raises:
        VGFError: it names none, or one that cannot be made here; or, unless `trusted`, one that no
            package has registered, wrappers, or an argument that could be a path.
    """
    from ..environments.fitting import fit
    from ..environments.making import made, make_registered, registered, working_folder_too

    found = open_minari(path)
    if found.spec is None or found.env_name is None:
        raise VGFError(f"{path} does not say which environment it is for")
    registered()
    if trusted:
        working_folder_too()
        with _unwarned():
            make = functools.partial(
                found.dataset.recover_environment, eval_env=True, disable_env_checker=True
            )
            return fit(made(found.env_name, make), seed)
    way_out = (
        "; --trust-data-code calls the code that the data set names: use it only if you trust its "
        f"source; or name the environment yourself, --env MODULE:ID --data {path}"
    )
    if found.spec.get("additional_wrappers"):
        raise VGFError(f"{path} wraps its environment in code that it names itself{way_out}")
    options = found.spec.get("kwargs") or {}
    for name, value in options.items() if isinstance(options, dict) else [("kwargs", "/")]:
        if not _is_plain(value):
            raise VGFError(
                f"{path}: its environment's argument {name} is {value!r}, which could be a file "
                f"or code{way_out}"
            )
    limit = found.spec.get("max_episode_steps")
    if isinstance(limit, int) and limit > 0:
        options = {**options, "max_episode_steps": limit}
    with _unwarned():
        env = make_registered(found.env_name, options, f"{path} is for", way_out)
    return fit(env, seed)


def _is_plain(value: Any) -> bool:
    """Whether an argument is data alone: numbers, and words that are no path."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(x) for pair in value.items() for x in pair)
    if isinstance(value, str):
        return re.fullmatch(r"[\w .+-]*", value) is not None and not value.startswith(".")
    return value is None or isinstance(value, bool | int | float)


def check_no_part(raw: RawData, path: Path) -> None:
    """Check that an HDF5 file is not part of a dataset.

    Raises:
        VGFError: it is; the message names what to read instead.
    """
    if not raw.arrays and any(name.startswith("episode_0 ") for name in raw.found):
        raise VGFError(
            f"{path} is part of a Minari dataset; name the dataset's folder, which has data/"
        )


# --- writing a dataset ----------------------------------------------------------------------------


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
        if not is_name(name) and is_name(f"{name}-v0"):
            raise VGFError(f"minari:{name} lacks a version; did you mean minari:{name}-v0?")
        try:
            need("minari.dataset.minari_dataset", "minari").parse_dataset_id(name)
        except ValueError as error:
            raise VGFError(f"minari:{name}: {error}") from error
        return cls(name, stores(data_dir)[0])

    @property
    def place(self) -> Path:
        """The folder of the data set."""
        return self.root / self.name

    def exists(self) -> bool:
        """Whether something already exists there."""
        return os.path.lexists(self.place)

    def flags(self, environment: str) -> list[str]:
        """The flags of `vgf run` that train on it."""
        own = MinariOutput.of(self.name).root == self.root
        return [
            *("--env", f"minari:{self.name}"),
            *([] if own else ["--data-dir", str(self.root)]),
            # of a module that nothing imports but the data set's word
            *(["--trust-data-code"] if ":" in environment else []),
        ]

    def is_made(self, provenance: Mapping[str, Any]) -> bool:
        """Whether it already exists, with this provenance."""
        metadata = read_json(self.place / "data" / "metadata.json") or {}
        try:
            return same_making(json.loads(metadata[ATTRIBUTE]), provenance)
        except (KeyError, ValueError, TypeError):
            return False

    def write(self, parts: Parts, provenance: Mapping[str, Any]) -> None:
        """Write the data set with Minari's library; it appears under its name once complete."""
        from ..environments.making import make_box_env

        scratch = parts.folder.absolute() / "fresh"  # Minari fails with relative paths
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
        """The episodes as Minari takes them, each with the observation after its last step."""
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
        """Move a complete data set to its place, with its namespaces."""
        for parent in reversed(Path(self.name).parents[:-1]):
            (self.root / parent).mkdir(parents=True, exist_ok=True)
            for file in (scratch / parent).iterdir():
                if file.is_file() and not (self.root / parent / file.name).exists():
                    shutil.copy2(file, self.root / parent / file.name)
        if self.place.exists():
            os.replace(self.place, scratch / "replaced")
        os.replace(scratch / self.name, self.place)


# --- the benchmark ------------------------------------------------------------------------------


@dataclass(frozen=True)
class MinariMaker:
    """Makes the environment in which a dataset is evaluated; picklable."""

    path: Path
    trusted: bool = False

    def __call__(self, seed: int | None = None) -> Any:
        return make_minari_env(self.path, seed, self.trusted)


class Minari(Benchmark):
    """Minari's datasets; names in a local store take precedence over gymnasium's."""

    kind, title, example = "minari", "Minari", "D4RL/door/human-v2"
    names_environments = True

    def names(self, data_dir: str | Path | None = None) -> Sequence[str]:
        return local_names(data_dir)

    def has(self, name: str, data_dir: str | Path | None = None) -> bool:
        return local_path(name, data_dir) is not None

    def may_have(self, name: str) -> bool:
        return "/" in name and is_name(name)

    def spelled(self, name: str, data_dir: str | Path | None = None) -> str:
        return name  # it may be available for download

    def check_request(self, request: DataRequest) -> None:
        if request.data is not None:
            raise VGFError(f"{request.name} names its own data; drop --data, or use --env none")
        super().check_request(request)

    def read(self, request: DataRequest) -> RawData:
        path = self._find(request)
        check_mappable(path, request.memory)
        raw = read_minari(path)
        if request.action_box is not None:
            raw = with_box(raw, *request.action_box)
        return dataclasses.replace(raw, normalise_rewards=request.normalise_rewards)

    def _find(self, request: DataRequest) -> Path:
        return find_minari(request.name, request.data_dir, allow_download=request.may_download)

    def scoring(self, request: DataRequest) -> Scoring:
        from ..environments.making import simulator_versions

        name, path = request.name, self._find(request)
        found = open_minari(path)
        if found.env_name is None:
            note = f"no evaluation: {name} does not say which environment it is for"
            return Scoring(None, notes=(note,))
        env = found.env_name
        maker = MinariMaker(path, request.trust_data_code)
        notes = [f"evaluated in {env} ({simulator_versions(env)}), as {name} says"]
        low, high = found.ref_min, found.ref_max
        if low is None or high is None or low == high:
            notes.append(
                f"no normalised score: {name} has no reference scores; the return is reported"
            )
            return Scoring(maker, notes=tuple(notes))
        notes.append(reference_note(low, high, "the dataset"))
        return Scoring(maker, NORMALISED, (low, high), tuple(notes))

    def output(self, name: str, data_dir: str | Path | None = None) -> Output | None:
        return MinariOutput.of(name, data_dir)
