"""Files that appear completely or not at all; JSON files; the cache."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from .errors import VGFError


def write_durably(path: Path, data: bytes | str) -> None:
    """Write a new file, text as UTF-8, and wait until it is on disk."""
    with open(path, "xb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())


def append_durably(path: Path, text: str, wait: bool = True) -> None:
    """Add text to a file, all of it or, as far as the system lets go, nothing.

    Args:
        path: of the file, made if missing.
        text: is written as UTF-8.
        wait: until it is on disk.

    Raises:
        VGFError: it cannot be written, for example as the disk is full.
    """
    try:
        with open(path, "ab", buffering=0) as file:
            before = file.tell()
            data = memoryview(text.encode())
            try:
                while data:
                    data = data[file.write(data) :]
                if wait:
                    os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(before)
                raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        way_out = "; make room" if full else ""
        raise VGFError(f"cannot write {path}: {error.strerror or error}{way_out}") from error


def check_fetched(path: Path | str) -> None:
    """Check that a file is not the pointer that Git LFS or git-annex leaves in its place.

    Raises:
        VGFError: it is one.
    """
    with suppress(OSError), open(path, "rb") as file:
        if file.read(32).startswith((b"version https://git-lfs.", b"/annex/objects/")):
            raise VGFError(
                f"{path} is only a pointer to the file (Git LFS, git-annex); fetch the file "
                "itself, as by git lfs pull"
            )


def is_text(text: str) -> bool:
    """Whether UTF-8 can hold a text; it cannot if there is half of a surrogate pair in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Wait until the folder's list of names is on disk, where the system allows it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def expanded(path: Path | str) -> Path:
    """A path with ~ as the home folder; ~somebody without one stays as it is."""
    return Path(os.path.expanduser(path))


def cache_folder() -> Path:
    """The folder for what can be computed again, kept from run to run; it may not exist yet.

    The environment variable VGF_CACHE_DIR, or else the folder vgf in the user's cache:
    XDG_CACHE_HOME, or ~/.cache.
    """
    own = os.environ.get("VGF_CACHE_DIR")
    if own:
        return expanded(own).absolute()
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vgf"


def programs_folder(framework: str) -> Path | None:
    """The folder for what a framework compiles, for this processor; it may not exist yet.

    None with VGF_COMPILATION_CACHE=0 in the environment: nothing is kept then.
    """
    if os.environ.get("VGF_COMPILATION_CACHE") == "0":
        return None
    return cache_folder() / framework / _processor()


def _processor() -> str:
    """A name for this processor's abilities: programs compiled for another may not run here."""
    able = platform.processor()
    with suppress(OSError), open("/proc/cpuinfo") as file:
        able = next((line for line in file if line.startswith(("flags", "Features"))), able)
    return f"{platform.machine()}-{hashlib.sha256(able.encode()).hexdigest()[:8]}"


_PREFIX = ".writing-"


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """A hidden folder for what is being written, gone afterwards.

    Its name says which process it is of, so that those of processes that were killed are told
    apart, and removed.
    """
    remove_left_behind(beside)
    prefix = f"{_PREFIX}{os.getpid()}@{platform.node()}-"
    with tempfile.TemporaryDirectory(dir=beside, prefix=prefix, ignore_cleanup_errors=True) as made:
        yield Path(made)


def remove_left_behind(folder: Path, alone: bool = False) -> None:
    """Remove what processes left in a folder when they were killed.

    Args:
        folder: that may not be there.
        alone: nobody else writes there. Otherwise what may be another's work stays: that of other
            machines, and of numbers of processes that run, which may be new ones.
    """
    for place in folder.glob(f"{_PREFIX}*"):
        if alone:
            shutil.rmtree(place, ignore_errors=True)
            continue
        owner, _, rest = place.name.removeprefix(_PREFIX).partition("@")
        if not (owner.isdigit() and rest.startswith(f"{platform.node()}-")):
            if not rest:  # of version 0.1, which did not say whose it is
                shutil.rmtree(place, ignore_errors=True)
        elif not _is_running(int(owner)):
            shutil.rmtree(place, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


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
        with scratch_folder(path.parent) as scratch:
            fresh = scratch / path.name
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


def parse_json(text: bytes | str) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path: Path, kind: type) -> Any:
    """Read a JSON file that holds a `kind`.

    Raises:
        VGFError: a file that is missing, cut off, or holds something else.
    """
    try:
        value = parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise VGFError(f"{path}: no such file") from error
    except OSError as error:
        raise VGFError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise VGFError(f"{path}: not JSON, or cut off: {error}") from error
    if not isinstance(value, kind):
        raise VGFError(f"{path}: holds a {type(value).__name__}, not a {kind.__name__}")
    return value
