"""TOML files of settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from .errors import VGFError
from .extras import need


def read_toml(path: Path | str) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        VGFError: a file that is missing, unreadable or not TOML; the message says where.
    """
    toml = need("tomllib", "run") if sys.version_info >= (3, 11) else need("tomli", "run")
    try:
        values: dict[str, Any] = toml.loads(Path(path).read_bytes().decode())
    except FileNotFoundError as error:
        raise VGFError(f"{path}: no such file; give a TOML file of settings") from error
    except OSError as error:
        raise VGFError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise VGFError(f"{path}: not valid TOML: not UTF-8 text") from error
    except RecursionError as error:
        raise VGFError(f"{path}: not valid TOML: it is nested too deeply") from error
    except ValueError as error:  # TOMLDecodeError, and numbers of too many digits
        raise VGFError(f"{path}: not valid TOML: {error}") from error
    return values
