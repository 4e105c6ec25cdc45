"""HDF5 files: one array for each field, by its own name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..support.errors import VGFError
from ..support.extras import need
from .raw import RAW_KEYS, RawData


def read_hdf5(path: str | Path) -> RawData:
    """Read an HDF5 file with one array for each field, by its own name.

    observations, actions, rewards and terminals; timeouts and next_observations are optional, and
    so are masks (see :mod:`vgf.data.raw` for what `terminals` mean with them and without). Rewards
    and flags may be columns ``[M, 1]``. Everything else in the file is ignored.

    Raises:
        VGFError: no such file, or not a complete HDF5 file.
    """
    h5py = need("h5py", "d4rl")
    path = Path(path)
    with _readable(path), h5py.File(path, "r") as file:
        is_array = {key: isinstance(file.get(key), h5py.Dataset) for key in file}
        arrays = {key: np.asarray(file[key][()]) for key in RAW_KEYS if is_array.get(key)}
    for key in ("rewards", "masks", "terminals", "timeouts"):
        if key in arrays and arrays[key].shape[1:] == (1,):
            arrays[key] = arrays[key][:, 0]
    found = tuple(key if there else f"{key} (no array)" for key, there in is_array.items())
    return RawData(arrays, str(path), found)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what a missing, foreign or damaged HDF5 file raises into a VGFError."""
    if not path.exists():
        raise VGFError(f"{path}: no such file; name a file of data with --data")
    if path.is_dir():
        raise VGFError(f"{path} is a folder; name a file in it")
    try:
        yield
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise VGFError(
            f"{path} is not a complete HDF5 file ({error}); delete it and fetch it again"
        ) from error
