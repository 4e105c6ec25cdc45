"""HDF5 files: one array for each field, by its own name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import check_fetched
from ..support.memory import check_fits
from .raw import NAMES, RawData

# No filter makes an array more than this much larger than what is stored of it (deflate's limit).
_MOST_UNPACKED = 1032


def read_hdf5(path: str | Path) -> RawData:
    """Read an HDF5 file with one array for each field, by its own name.

    observations, actions, rewards and terminals; timeouts and next_observations are optional, and
    so are masks (see :mod:`vgf.data.raw` for what `terminals` mean with them and without).
    Everything else in the file is ignored.

    Raises:
        VGFError: no such file, not a complete HDF5 file, one whose contents are in other files
            (:func:`check_contained`), or arrays that do not fit into memory, or are not of numbers.
    """
    h5py = need("h5py", "d4rl")
    path = Path(path)
    with _readable(path), h5py.File(path, "r") as file:
        check_contained(file, path)
        is_array = {key: isinstance(file.get(key), h5py.Dataset) for key in file}
        wanted = [key for key in NAMES if is_array.get(key)]
        for key in wanted:  # whose elements may be of any size, however little is stored
            if file[key].dtype.hasobject:
                raise VGFError(f"{path}: {key} has elements of varying length, not numbers")
        check_fits(sum(file[key].nbytes for key in wanted), str(path))
        arrays = {key: np.asarray(file[key][()]) for key in wanted}
    found = tuple(key if there else f"{key} (no array)" for key, there in is_array.items())
    return RawData(arrays, str(path), found)


def check_hdf5(path: Path) -> None:
    """Check a whole HDF5 file: that it was not cut off, and that what is compressed unpacks.

    Raises:
        ValueError: it is damaged.
    """
    h5py = need("h5py", "d4rl")
    try:
        with h5py.File(path, "r") as file:
            for array in _arrays(file, path):
                for part in array.iter_chunks() if array.chunks and array.size else ():
                    array[part]
    except MemoryError:
        raise
    except Exception as error:  # whatever HDF5 finds wrong with it
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"it is not a complete HDF5 file ({reason})") from error


def check_contained(file: Any, path: Path) -> int:
    """Check that an HDF5 file holds all of its contents, and as much as it declares.

    HDF5 lets a file name other files: links to their objects, arrays stored in them as raw bytes,
    and virtual arrays made of theirs. Reading such a file would read whatever it names.

    Args:
        file: opened by h5py.
        path: for the messages.

    Returns:
        The bytes of all of its arrays.

    Raises:
        VGFError: something in another file, or an array larger than what is stored can be.
    """
    return sum(array.nbytes for array in _arrays(file, path) if array.shape is not None)


def _arrays(file: Any, path: Path) -> Iterator[Any]:
    """The arrays of an HDF5 file, as :func:`check_contained` checks them."""
    h5py = need("h5py", "d4rl")
    groups, seen = [file], set()
    while groups:
        group = groups.pop()
        for key in group:
            name = f"{path}: {group.name.rstrip('/')}/{key}"
            link = group.get(key, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise VGFError(f"{name} is a link to another file, {link.filename}; copy it in")
            if isinstance(link, h5py.SoftLink):
                continue  # to something that is looked at where it is, or to nothing
            item = group.get(key)
            place = h5py.h5o.get_info(item.id).addr
            if place in seen:
                continue
            seen.add(place)
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset):
                _check_stored(item, name)
                yield item


def _check_stored(array: Any, name: str) -> None:
    """Check that an array of an HDF5 file is in it, as far as its size tells."""
    if array.external or array.is_virtual:
        raise VGFError(f"{name} is stored in other files; copy its numbers into the file")
    if array.shape is None:  # an empty one, of no size
        return
    if array.nbytes > _MOST_UNPACKED * max(array.id.get_storage_size(), 64):
        raise VGFError(
            f"{name} declares {array.nbytes:,} bytes and {array.id.get_storage_size():,} are "
            "stored; the file is incomplete: fetch it again"
        )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what a missing, foreign or damaged HDF5 file raises into a VGFError."""
    if not path.exists():
        raise VGFError(f"{path}: no such file; name a file of data with --data")
    if path.is_dir():
        raise VGFError(f"{path} is a folder; name a file in it")
    check_fetched(path)
    try:
        yield
    except VGFError:
        raise
    except MemoryError as error:
        raise VGFError(f"{path} does not fit into memory; use a machine with more") from error
    except Exception as error:  # whatever HDF5 finds wrong with it
        reason = " ".join(str(error).split()) or type(error).__name__
        raise VGFError(
            f"{path} is not a complete HDF5 file ({reason}); delete it and fetch it again"
        ) from error
