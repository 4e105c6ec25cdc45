"""Plain .npz files: one array for each field, by its own name; in memory, or mapped into it.

A .npz file is a zip archive, which cannot be mapped. So its arrays are unpacked once, into a folder
of the cache (:func:`vgf.support.files.cache_folder`) whose name depends on the file's path, size
and time; it may be deleted whenever no run uses it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from ..spec.types import Array
from ..support.errors import VGFError
from ..support.files import cache_folder, make_folder
from .dataset import mapped_array
from .raw import RAW_KEYS, RawData

AUTO, MEMORY, MAPPED = "auto", "memory", "mapped"
# Where the arrays of a file are held; "auto" maps those that do not fit into memory.
DATA_MEMORY = (AUTO, MEMORY, MAPPED)
# The share of the free memory that a file's arrays may take before they are mapped: reading
# briefly holds them together with what is made from them.
_SHARE = 0.5
_OBSERVED = ("observations", "next_observations")


def read_npz(path: str | Path, memory: str = MEMORY) -> RawData:
    """Read a .npz file with observations, actions, rewards, and masks or terminals.

    timeouts and next_observations are optional; see :mod:`vgf.data.raw` for what `terminals` mean
    with `masks` and without. Other arrays are ignored.

    Args:
        path: of the file.
        memory: one of :data:`DATA_MEMORY`.

    Raises:
        VGFError: no such file, not a complete .npz file, or no room to unpack it.
    """
    path = Path(path)
    with readable(path):
        arrays, found, folder = load_arrays(path, RAW_KEYS, memory)
    return RawData(arrays, str(path), found, folder=folder)


def check_mappable(path: Path, memory: str) -> None:
    """Check that a file can be held where requested.

    Raises:
        VGFError: it should be mapped, and is not a .npz file.
    """
    if memory == MAPPED and path.suffix != ".npz":
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
    with np.load(path, allow_pickle=False) as file:
        found = tuple(file.files)
        wanted = [key for key in found if key in keys]
        mapped = memory == MAPPED or (memory == AUTO and not _fits(file.zip, wanted))
        if not mapped:
            return {key: file[key] for key in wanted}, found, None
    folder = _unpacked(path, wanted)
    arrays = {key: np.asarray(np.load(folder / f"{key}.npy", mmap_mode="r")) for key in wanted}
    return arrays, found, folder


def _fits(archive: zipfile.ZipFile, keys: Collection[str]) -> bool:
    """Whether some arrays of a file fit into memory."""
    names = {f"{key}.npy" for key in keys}
    size = sum(entry.file_size for entry in archive.infolist() if entry.filename in names)
    free = free_memory()
    return free is None or size <= _SHARE * free


def free_memory() -> int | None:
    """Bytes of memory that a program could still take; None if the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if free is None else int(free) * 1024


def _unpacked(path: Path, keys: Collection[str]) -> Path:
    """The folder with a file's arrays as .npy files, unpacked if missing."""
    about = path.stat()
    words = [str(path.resolve()), str(about.st_size), str(about.st_mtime_ns), *sorted(keys)]
    digest = hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
    folder = cache_folder() / "data" / f"{path.stem}-{digest}"
    if folder.is_dir():
        return folder
    make_folder(folder.parent)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as scratch:
        fresh = Path(scratch) / folder.name
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
    with zipfile.ZipFile(path) as archive:
        for key in keys:
            place = folder / f"{key}.npy"
            with archive.open(f"{key}.npy") as packed, open(place, "xb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
            array = np.load(place, mmap_mode="r")
            plain = array.dtype == np.float32 and array.flags.c_contiguous
            if key in _OBSERVED and array.ndim == 2 and array.dtype.kind in "fiub" and not plain:
                _rewrite(array, place)


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
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                raise zipfile.BadZipFile("it is not a zip archive, or was cut off")
        yield
    except VGFError:
        raise
    except FileNotFoundError as error:
        raise VGFError(f"{path}: no such file; name a file of data with --data") from error
    except IsADirectoryError as error:
        raise VGFError(f"{path} is a folder; name a file in it") from error
    except PermissionError as error:
        raise VGFError(f"{path} cannot be read: {error.strerror}") from error
    except (
        OSError,
        ValueError,
        EOFError,
        IndexError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise VGFError(f"{path} is not a complete .npz file: {error}") from error
