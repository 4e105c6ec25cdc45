"""Plain .npz files: one array for each field, by its own name; in memory, or mapped into it.

A folder of .npz files, such as the slices of OGBench's sets of 100 million, is one data set: its
files one after the other in the order of their names, numbers counted as numbers; those that end in
"-val.npz" are left out. All arrays of a slice must have the same length, and all slices rows of the
same size; a slice with which something is wrong is named.

A .npz file is a zip archive, which cannot be mapped. So its arrays are unpacked once, into a folder
of the cache (:func:`vgf.support.files.cache_folder`) whose name depends on the path, and on every
file's name, size, time and checksums; it may be deleted whenever no run uses it.
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
from collections.abc import Collection, Iterable, Iterator
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
_AGAIN = "; make or fetch that file again"
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
        VGFError: no room to unpack it, or a file of a folder that is damaged or does not fit.
        OSError, ValueError, ...: what NumPy raises for a damaged file; see :func:`readable`.
    """
    found, files = names_in(path), slices(path) or [path]
    wanted = [key for key in found if key in keys]
    declared = _all_declared(path, files, wanted)
    size = sum(about[2] for one in declared.values() for about in one)
    free = free_memory()
    fits = free is None or size <= SHARE * free
    mapped = memory == MAPPED or (memory == AUTO and not fits)
    if not mapped:
        check_fits(size, str(path))
        arrays = {key: _joined([_one(file, key, path) for file in files]) for key in wanted}
        return arrays, found, None
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
        with _naming(file, path), np.load(file, allow_pickle=False) as arrays:
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


def _one(file: Path, key: str, path: Path) -> Array:
    """One array of a file of `path`."""
    with _naming(file, path), np.load(file, allow_pickle=False) as arrays:
        return np.asarray(arrays[key])


def _joined(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


_Declared = tuple[tuple[int, ...], np.dtype[Any], int]


def _all_declared(
    path: Path, files: list[Path], keys: Collection[str]
) -> dict[str, list[_Declared]]:
    """What :func:`_declared` says of some arrays, by name, for each file.

    Raises:
        VGFError: a file of a folder that is damaged, or whose arrays do not fit.
    """
    found: dict[str, list[_Declared]] = {key: [] for key in keys}
    for file in files:
        with _naming(file, path), zipfile.ZipFile(file) as archive:
            for key, declared in found.items():
                declared.append(_declared(archive, key))
            if file != path:
                _check_slice({key: (about[-1][0], about[0][0]) for key, about in found.items()})
    return found


def _check_slice(shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> None:
    """Check that the arrays of a file have one length, and rows as those of the first file.

    Raises:
        ValueError: they do not.
    """
    for key, (shape, first) in shapes.items():
        if not shape or shape[1:] != first[1:]:
            raise ValueError(f"{key} has shape {list(shape)}, and {list(first)} in the first file")
    if len({shape[0] for shape, _ in shapes.values()}) > 1:
        listed = ", ".join(f"{key} {shape[0]}" for key, (shape, _) in shapes.items())
        raise ValueError(f"its arrays differ in length: {listed}")


def _declared(archive: zipfile.ZipFile, key: str) -> _Declared:
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
        words += [file.name, str(about.st_size), str(about.st_mtime_ns)]
        with _naming(file, path), zipfile.ZipFile(file) as archive:
            words += [f"{key} {archive.getinfo(f'{key}.npy').CRC}" for key in sorted(keys)]
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
        for key, declared in _all_declared(path, files, keys).items():
            parts = (_one(file, key, path) for file in files)
            _unpack_slices(parts, declared, folder / f"{key}.npy", key in _OBSERVED)
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


def _unpack_slices(
    parts: Iterable[Array], declared: list[_Declared], place: Path, observed: bool
) -> None:
    """Unpack one array of several files into one, holding one file's at a time."""
    shapes, kinds = [about[0] for about in declared], [about[1] for about in declared]
    kind = np.dtype(np.float32) if observed else np.result_type(*kinds)
    rows = sum(shape[0] for shape in shapes)
    whole = np.lib.format.open_memmap(place, "w+", kind, (rows, *shapes[0][1:]))
    start = 0
    for part in parts:
        with np.errstate(over="ignore"):  # what float32 cannot hold is found by the checks
            whole[start : start + len(part)] = part
        start += len(part)
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
def readable(path: Path, way_out: str = "") -> Iterator[None]:
    """Turn what a missing, foreign or damaged .npz file raises into a VGFError.

    Args:
        path: of the file, or of a folder of them.
        way_out: what to do about a damaged file, to follow what is wrong with it.
    """
    try:
        files = slices(path)
        for file in files:
            with readable(file, _AGAIN):
                pass
        if not files:
            check_fetched(path)
            with open(path, "rb") as opened:
                if not zipfile.is_zipfile(opened):
                    raise zipfile.BadZipFile("it is not a zip archive, or was cut off")
        yield
    except VGFError:
        raise
    except FileNotFoundError as error:
        raise VGFError(f"{path}: no such file; name a file of data with --data") from error
    except IsADirectoryError as error:
        raise VGFError(f"{path} is a folder, not of .npz files; name a file in it") from error
    except PermissionError as error:
        raise VGFError(f"{path} cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise VGFError(
            f"{path} does not fit into memory; use --data-memory mapped, or a machine with more"
        ) from error
    except Exception as error:  # whatever zipfile and NumPy find wrong with it
        reason = " ".join(str(error).split()) or type(error).__name__
        raise VGFError(f"{path} is not a complete .npz file: {reason}{way_out}") from error


def _naming(file: Path, path: Path) -> contextlib.AbstractContextManager[None]:
    """Where `path` is a folder, name the file of it that cannot be read."""
    return contextlib.nullcontext() if file == path else readable(file, _AGAIN)
