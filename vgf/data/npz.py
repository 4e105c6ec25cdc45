"""Plain .npz files: one array for each field, by its own name; in memory, or mapped into it.

A folder of .npz files, such as the slices of OGBench's sets of 100 million, is one data set: its
files one after the other in the order of their names, numbers counted as numbers; those that end in
"-val.npz" are left out.

A .npz file is a zip archive, which cannot be mapped. So its arrays are unpacked once, into a folder
of the cache (:func:`vgf.support.files.cache_folder`) whose name depends on the file's path, size
and time; it may be deleted whenever no run uses it.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..spec.types import Array
from ..support.errors import VGFError
from ..support.files import cache_folder, check_fetched, make_folder, scratch_folder
from ..support.memory import SHARE, check_fits, free_memory
from .dataset import mapped_array
from .raw import NAMES, RawData

AUTO, MEMORY, MAPPED = "auto", "memory", "mapped"
# Where the arrays of a file are held; "auto" maps those that do not fit into memory.
DATA_MEMORY = (AUTO, MEMORY, MAPPED)
# Deflate makes nothing more than this much smaller.
_MOST_UNPACKED = 1032
_OBSERVED = ("observations", "next_observations")


def read_npz(path: str | Path, memory: str = MEMORY) -> RawData:
    """Read a .npz file with observations, actions, rewards, and masks or terminals.

    timeouts and next_observations are optional; see :mod:`vgf.data.raw` for what `terminals` mean
    with `masks` and without. Other arrays are ignored.

    Args:
        path: of the file, or of a folder of them.
        memory: one of :data:`DATA_MEMORY`.

    Raises:
        VGFError: no such file, not a complete .npz file, or no room to unpack it.
    """
    path = Path(path)
    with readable(path):
        arrays, found, folder = load_arrays(path, NAMES, memory)
    return RawData(arrays, str(path), found, folder=folder)


def check_mappable(path: Path, memory: str) -> None:
    """Check that a file can be held where requested.

    Raises:
        VGFError: it should be mapped, and is not a .npz file.
    """
    if memory == MAPPED and path.suffix != ".npz" and not slices(path):
        raise VGFError(
            f"{path} cannot be mapped into memory, only .npz files can; use --data-memory memory"
        )


def load_arrays(
    path: Path, keys: Collection[str], memory: str = MEMORY
) -> tuple[dict[str, Array], tuple[str, ...], Path | None]:
    """The arrays of a .npz file that are among `keys`.

    Returns:
        The arrays; the names of all arrays in the file; the folder they are mapped from, or None if
        they are in memory.

    Raises:
        VGFError: no room to unpack it.
        OSError, ValueError, ...: what NumPy raises for a damaged file; see :func:`readable`.
    """
    found, files = names_in(path), slices(path) or [path]
    wanted = [key for key in found if key in keys]
    size = 0
    for file in files:
        with zipfile.ZipFile(file) as archive:
            size += sum(_declared(archive, key)[2] for key in wanted)
    free = free_memory()
    fits = free is None or size <= SHARE * free
    mapped = memory == MAPPED or (memory == AUTO and not fits)
    if not mapped:
        check_fits(size, str(path))
        return {key: _joined([_one(file, key) for file in files]) for key in wanted}, found, None
    folder = _unpacked(path, wanted)
    try:
        return _mapped(folder, wanted), found, folder
    except (OSError, ValueError, EOFError):  # damaged in the cache
        shutil.rmtree(folder)
        return _mapped(_unpacked(path, wanted), wanted), found, folder


def _mapped(folder: Path, keys: Collection[str]) -> dict[str, Array]:
    return {key: np.asarray(np.load(folder / f"{key}.npy", mmap_mode="r")) for key in keys}


def slices(path: Path) -> list[Path]:
    """The .npz files of a folder in their order, without those for validation; [] for a file."""
    if not path.is_dir():
        return []
    found = [file for file in path.glob("*.npz") if not file.stem.endswith("-val")]
    return sorted(found, key=lambda file: _counted(file.name))


def _counted(name: str) -> list[tuple[int, str]]:
    """What puts part-2 before part-10."""
    words = re.split(r"(\d+)", name)
    return [(int(word), "") if word.isdigit() else (-1, word) for word in words]


def names_in(path: Path) -> tuple[str, ...]:
    """The names of the arrays of a .npz file, or of the files of a folder, which have the same.

    Raises:
        VGFError: files of a folder that hold different arrays.
        OSError, ValueError, ...: what NumPy raises for a damaged file; see :func:`readable`.
    """
    first: tuple[str, ...] = ()
    for file in slices(path) or [path]:
        with np.load(file, allow_pickle=False) as arrays:
            names = tuple(arrays.files)
        first = first or names
        if set(names) != set(first):
            raise VGFError(
                f"{file} has {', '.join(sorted(names))}, and the other files of its folder "
                f"{', '.join(sorted(first))}; a folder is read as one data set"
            )
    return first


def check_npz(path: Path) -> None:
    """Check every byte of a .npz file.

    Raises:
        ValueError: it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"it is not a complete .npz file ({error})") from error
    if damaged is not None:
        raise ValueError(f"it is not a complete .npz file ({damaged} is damaged)")


def _one(path: Path, key: str) -> Array:
    with np.load(path, allow_pickle=False) as file:
        return np.asarray(file[key])


def _joined(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _declared(archive: zipfile.ZipFile, key: str) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, type and bytes of an array of a .npz file, before it is read.

    Raises:
        ValueError: the array, its header and its place in the archive do not agree.
    """
    entry = archive.getinfo(f"{key}.npy")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{key} is compressed in another way than NumPy's")
    if entry.file_size > _MOST_UNPACKED * max(entry.compress_size, 64):
        raise ValueError(
            f"{key} declares {entry.file_size:,} bytes, and {entry.compress_size:,} are stored"
        )
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size != entry.file_size - member.tell():
            raise ValueError(f"{key} declares the shape {list(shape)}, and is of another size")
    return shape, dtype, size


def _unpacked(path: Path, keys: Collection[str]) -> Path:
    """The folder with a file's arrays as .npy files, unpacked if missing."""
    words = [str(path.resolve())]
    for file in slices(path) or [path]:
        about = file.stat()
        words += [str(about.st_size), str(about.st_mtime_ns)]
    words += sorted(keys)
    digest = hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
    folder = cache_folder() / "data" / f"{path.stem}-{digest}"
    if folder.is_dir():
        return folder
    make_folder(folder.parent)
    with scratch_folder(folder.parent) as scratch:
        fresh = scratch / folder.name
        try:
            fresh.mkdir()
            _unpack(path, keys, fresh)
            fresh.rename(folder)
        except OSError as error:
            if not folder.is_dir():  # another process was faster
                raise VGFError(
                    f"cannot unpack {path} into {folder}: {error.strerror or error}; make room, "
                    "name another folder with VGF_CACHE_DIR, or use --data-memory memory"
                ) from error
    return folder


def _unpack(path: Path, keys: Collection[str], folder: Path) -> None:
    """Unpack arrays, observations as float32, without holding a whole array in memory."""
    if files := slices(path):
        for key in keys:
            _unpack_slices(files, key, folder / f"{key}.npy")
        return
    with zipfile.ZipFile(path) as archive:
        for key in keys:
            place = folder / f"{key}.npy"
            with archive.open(f"{key}.npy") as packed, open(place, "xb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
            array = np.load(place, mmap_mode="r")
            plain = array.dtype == np.float32 and array.flags.c_contiguous
            if key in _OBSERVED and array.ndim == 2 and array.dtype.kind in "fiub" and not plain:
                _rewrite(array, place)


def _unpack_slices(files: list[Path], key: str, place: Path) -> None:
    """Unpack one array of several files into one, holding one file's at a time."""
    declared = []
    for file in files:
        with zipfile.ZipFile(file) as archive:
            declared.append(_declared(archive, key))
    shapes, kinds = [one[0] for one in declared], [one[1] for one in declared]
    if len({shape[1:] for shape in shapes}) > 1:
        raise ValueError(f"{key} has shapes {', '.join(str(list(shape)) for shape in shapes)}")
    kind = np.dtype(np.float32) if key in _OBSERVED else np.result_type(*kinds)
    rows = sum(shape[0] for shape in shapes)
    whole = np.lib.format.open_memmap(place, "w+", kind, (rows, *shapes[0][1:]))
    start = 0
    for file, shape in zip(files, shapes, strict=True):
        with np.errstate(over="ignore"):  # what float32 cannot hold is found by the checks
            whole[start : start + shape[0]] = _one(file, key)
        start += shape[0]
    whole.flush()


def _rewrite(array: Array, place: Path) -> None:
    """Rewrite an array's file as float32, row by row."""

    def fill(fresh: Array) -> None:
        for i in range(0, len(array), 1 << 16):
            with np.errstate(over="ignore"):  # what float32 cannot hold is found by the checks
                fresh[i : i + (1 << 16)] = array[i : i + (1 << 16)]

    fresh = place.with_suffix(".fresh.npy")
    mapped_array(fresh, (array.shape[0], array.shape[1]), fill)
    os.replace(fresh, place)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what a missing, foreign or damaged .npz file raises into a VGFError."""
    try:
        for part in slices(path) or [path]:
            check_fetched(part)
            with open(part, "rb") as file:
                if not zipfile.is_zipfile(file):
                    what = "it" if part == path else part.name
                    raise zipfile.BadZipFile(f"{what} is not a zip archive, or was cut off")
        yield
    except VGFError:
        raise
    except FileNotFoundError as error:
        raise VGFError(f"{path}: no such file; name a file of data with --data") from error
    except IsADirectoryError as error:
        raise VGFError(f"{path} is a folder without .npz files; name a file") from error
    except PermissionError as error:
        raise VGFError(f"{path} cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise VGFError(
            f"{path} does not fit into memory; use --data-memory mapped, or a machine with more"
        ) from error
    except Exception as error:  # whatever zipfile and NumPy find wrong with it
        reason = " ".join(str(error).split()) or type(error).__name__
        raise VGFError(f"{path} is not a complete .npz file: {reason}") from error
