"""Files that appear completely or not at all; JSON files; the cache."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .errors import VGFError


def write_durably(path: Path, data: bytes | str) -> None:
    """Write a new file, text as UTF-8, and wait until it is on disk."""
    with open(path, "xb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the folder's list of names is on disk, where the system allows it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_folder() -> Path:
    """The folder for what can be computed again, kept from run to run; it may not exist yet.

    The environment variable VGF_CACHE_DIR, or else the folder vgf in the user's cache:
    XDG_CACHE_HOME, or ~/.cache.
    """
    own = os.environ.get("VGF_CACHE_DIR")
    if own:
        return Path(own).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vgf"


@contextmanager
def atomic_file(path: Path | str) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears under its name only once it is complete.

    It is written into a temporary folder beside `path`, which is made if missing; when the block
    raises, nothing is left behind and the old file is unchanged.

    Raises:
        VGFError: the folder or the file cannot be written.
    """
    path = Path(path)
    make_folder(path.parent)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as scratch:
            fresh = Path(scratch) / path.name
            with open(fresh, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
        sync_folder(path.parent)
    except OSError as error:
        raise VGFError(f"cannot write {path}: {error.strerror or error}") from error


def write_atomically(path: Path | str, data: bytes | str) -> None:
    """Write or replace a file, so that no reader ever sees a part of it.

    Raises:
        VGFError: as :func:`atomic_file`.
    """
    with atomic_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def make_folder(folder: Path) -> None:
    """Make a folder that can be written to, unless it exists.

    Raises:
        VGFError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VGFError(f"cannot make {folder}: {error.strerror}; choose another folder") from error
    check_writable(folder)


def check_writable(folder: Path) -> None:
    """Check that a folder could be made and written to, without making it.

    Raises:
        VGFError: it, or the nearest existing folder above it, is a file or is read-only.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise VGFError(f"cannot write into {folder}: {there} is not a folder; choose another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise VGFError(f"cannot write into {folder}: {there} is read-only; choose another folder")


def read_json(path: Path, kind: type) -> Any:
    """Read a JSON file that holds a `kind`.

    Raises:
        VGFError: a file that is missing, cut off, or holds something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise VGFError(f"{path}: no such file") from error
    except OSError as error:
        raise VGFError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise VGFError(f"{path}: not JSON, or cut off: {error}") from error
    if not isinstance(value, kind):
        raise VGFError(f"{path}: holds a {type(value).__name__}, not a {kind.__name__}")
    return value
