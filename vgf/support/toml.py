"""TOML files of settings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .checks import check_name
from .errors import VGFError
from .extras import need


def read_toml(path: Path | str) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        VGFError: a file that is missing, unreadable or not TOML, a text in it with a NUL
            character, which no path can have, or a key with a line break or the like; the message
            says where.
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
    for text, is_key in _texts(values):
        if "\0" in text:
            raise VGFError(f"{path}: {text!r} has a NUL character in it; leave it out")
        if is_key:
            check_name(path, text)
    return values


def _texts(values: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Every text in what a TOML file holds, and whether it is a key."""
    rest: list[Any] = [values]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            yield value, False
        elif isinstance(value, dict):
            yield from ((key, True) for key in value)
            rest += value.values()
        elif isinstance(value, list):
            rest += value
