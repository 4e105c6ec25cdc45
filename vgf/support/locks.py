"""One writer at a time: locks between processes, which end with the process that holds them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from .callbacks import Say
from .errors import VGFError
from .extras import need

LOCK = ".lock"  # within a folder that is written to
_WAIT_SECONDS = 0.5


@contextlib.contextmanager
def only_writer(path: Path, lock: Path | None = None) -> Iterator[None]:
    """Keep other processes from writing to a file or folder meanwhile.

    Args:
        path: what is written to, for the message.
        lock: the lock's own file; None is :data:`LOCK` in the folder `path`.

    Raises:
        VGFError: another process writes to it.
    """
    held = _held(path / LOCK if lock is None else lock)
    if held is None:
        raise VGFError(
            f"{path} is being written to by another process; wait until it ends, or stop it"
        )
    with held:
        yield


@contextlib.contextmanager
def waited_for(folder: Path, say: Say, line: str) -> Iterator[bool]:
    """Make a folder, or take over an existing one, once no other process writes to it.

    Args:
        folder: may be removed by the process that has it, this one included.
        say: is told `line` if another process has it.
        line: says so.

    Yields:
        Whether another process had it first.
    """
    waited = False
    while True:
        folder.mkdir(exist_ok=True)
        held = _held(folder / LOCK)
        if held is not None:
            break
        if not waited:
            say(line)
        waited = True
        time.sleep(_WAIT_SECONDS)
    with held:
        yield waited


def _held(place: Path) -> contextlib.ExitStack | None:
    """A lock, to be released by closing it; None if another process has it.

    The lock's file is removed with it. That is sound, as a lock on a file that was removed
    meanwhile is not taken (filelock looks).
    """
    filelock = need("filelock", "run")
    lock = filelock.FileLock(place)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return None
    except FileNotFoundError:  # its folder was removed meanwhile
        return None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VGFError(f"cannot lock {place}: {reason}; choose another folder") from error
    stack = contextlib.ExitStack()
    stack.callback(lock.release)
    stack.callback(place.unlink, missing_ok=True)
    return stack
