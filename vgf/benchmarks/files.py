"""Plain files of data, without a benchmark and without a simulator; and the formats of files."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from ..data.hdf5 import read_hdf5
from ..data.npz import MEMORY, check_mappable, read_npz, slices
from ..data.raw import RawData, with_box
from ..support.errors import VGFError
from ..support.files import expanded
from . import minari
from .base import Benchmark, DataRequest, Scoring


class Files(Benchmark):
    """A file of data alone, as in ``--env none --data FILE``."""

    kind, title, example = "none", "a file of data", "none"
    has_data = False

    def names(self, data_dir: str | Path | None = None) -> Sequence[str]:
        return (self.kind,)

    def has(self, name: str, data_dir: str | Path | None = None) -> bool:
        return name.lower() == self.kind

    def task_name(self, request: DataRequest) -> str:
        return request.name if request.data is None else Path(request.data).name

    def check_request(self, request: DataRequest) -> None:
        if request.data is None:
            raise VGFError("no task and no data; name a file with --data, or a task with --env")
        super().check_request(dataclasses.replace(request, name=self.title))

    def read(self, request: DataRequest) -> RawData:
        return read_own(request)

    def scoring(self, request: DataRequest) -> Scoring:
        note = "no evaluation: a file of data, without an environment"
        return Scoring(None, notes=(note,))


def read_own(request: DataRequest) -> RawData:
    """The file that a request names, with actions in the request's box."""
    raw = read_file(str(request.data), request.memory)
    if request.action_box is not None:
        raw = with_box(raw, *request.action_box)
    return dataclasses.replace(raw, normalise_rewards=request.normalise_rewards)


def read_file(path: str | Path, memory: str = MEMORY) -> RawData:
    """Read a file of data by what it is: .npz, .hdf5 or .h5, or the folder of a Minari dataset.

    Args:
        path: of the file or folder.
        memory: one of :data:`vgf.data.npz.DATA_MEMORY`; only .npz files can be mapped.

    Raises:
        VGFError: no such file, another format, an incomplete file, or one that cannot be mapped.
    """
    path = expanded(path)
    if not path.exists():
        raise VGFError(f"{path}: no such file; name a file of data with --data")
    check_mappable(path, memory)
    if path.is_dir():
        if minari.is_dataset(path):
            return minari.read_minari(path)
        if slices(path):
            return read_npz(path, memory)
        raise VGFError(
            f"{path} is a folder, not of .npz files nor a Minari dataset; name a file in it"
        )
    readers: dict[str, Callable[[Path], RawData]] = {
        ".npz": functools.partial(read_npz, memory=memory),
        ".hdf5": _read_hdf5,
        ".h5": _read_hdf5,
    }
    if not path.is_file():
        raise VGFError(f"{path} is not a file, but a device or a pipe; name a file of data")
    if path.suffix not in readers:
        raise VGFError(f"{path}: its name must end in one of {', '.join(readers)}")
    return readers[path.suffix](path)


def _read_hdf5(path: Path) -> RawData:
    raw = read_hdf5(path)
    minari.check_no_part(raw, path)
    return raw
