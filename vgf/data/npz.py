"""Plain .npz files: one array for each field, by its own name."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import VGFError
from .raw import RAW_KEYS, RawData


def read_npz(path: str | Path) -> RawData:
    """Read a .npz file with observations, actions, rewards, and masks or terminals.

    timeouts and next_observations are optional; see :mod:`vgf.data.raw` for what `terminals` mean
    with `masks` and without. Other arrays are left alone.

    Raises:
        VGFError: no such file, or no whole .npz file.
    """
    path = Path(path)
    with readable(path), np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files if key in RAW_KEYS}
        found = tuple(file.files)
    return RawData(arrays, str(path), found)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what a missing, foreign or damaged .npz file raises into a VGFError."""
    try:
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                raise zipfile.BadZipFile("it is no zip archive, or was cut off")
        yield
    except FileNotFoundError as error:
        raise VGFError(f"{path}: no such file; name a file of data with --data") from error
    except IsADirectoryError as error:
        raise VGFError(f"{path} is a folder; name a file in it") from error
    except PermissionError as error:
        raise VGFError(f"{path} cannot be read: {error.strerror}") from error
    except (OSError, ValueError, EOFError, IndexError, TypeError, AttributeError,
            zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        raise VGFError(f"{path} is not a whole .npz file: {error}") from error
