"""A user's own objects, by name: ``module:name`` or ``path/to/file.py:name``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from .errors import VGFError
from .suggestions import closest, did_you_mean


def absolute_name(name: str) -> str:
    """``path/to/file.py:object`` with its full path, so that it is found from anywhere."""
    place, colon, path = name.rpartition(":")
    if not colon or not place.endswith(".py") or not path.isidentifier():
        return name
    return f"{os.path.abspath(os.path.expanduser(place))}:{path}"


def short_names(names: Collection[str]) -> dict[str, str]:
    """Names that tell objects apart: of path/to/file.py:Class the class, or file.py:Class.

    Names without a colon, such as those of this package's methods, are short already.
    """
    for count in (1, 2):
        short = {name: ":".join(re.split("[:/]", name)[-count:]) for name in names}
        if len({*short.values()}) == len({*names}):
            return short
    return {name: name for name in names}


def load_function(target: str) -> Callable[..., Any]:
    """A function by its name; see :func:`load_object`.

    Raises:
        VGFError: as :func:`load_object`, or an object that cannot be called.
    """
    found = load_object(target)
    if not callable(found):
        raise VGFError(f"{target} is a {type(found).__name__}, not a function")
    function: Callable[..., Any] = found
    return function


def load_object(target: str) -> Any:
    """An object by ``module:name`` or ``path/to/file.py:name``; the name may contain dots.

    Raises:
        VGFError: what cannot be found or imported, with near names.
    """
    place, colon, path = target.rpartition(":")
    if not colon or not place or not path:
        raise VGFError(
            f"{target!r} names no function; write module:function or path/to/file.py:function"
        )
    module = load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            names = [name for name in dir(found) if not name.startswith("_")]
            near = closest(part, names)
            functions = [name for name in names if callable(getattr(found, name))]
            there = ", ".join(functions[:8]) or "no functions"
            raise VGFError(f"{place} has no {part}; {did_you_mean(near, f'it has {there}')}")
        found = getattr(found, part)
    return found


def load_file(path: Path) -> Any:
    """A module from a file, its folder and the working folder on the path.

    Raises:
        VGFError: it is not there, or cannot be imported.
    """
    if not path.is_file():
        raise VGFError(f"{path}: no such file")
    for folder in (str(Path.cwd()), str(path.resolve().parent)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    description = importlib.util.spec_from_file_location(f"checked_{path.stem}", path)
    assert description is not None
    assert description.loader is not None
    module = importlib.util.module_from_spec(description)
    sys.modules[description.name] = module
    _execute(lambda: description.loader.exec_module(module), str(path))  # type: ignore[union-attr]
    return module


def _load_module(name: str) -> Any:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        raise VGFError(f"no module {error.name!r} on the path (looking for {name})") from None
    except ValueError:
        found = None
    if found is None and name not in sys.modules:
        near = f"{name}.py:..." if Path(f"{name}.py").exists() else None
        hint = did_you_mean(near, "check its spelling, or write path/to/file.py:function")
        raise VGFError(f"no module {name!r} here or on the path; {hint}")
    return _execute(lambda: importlib.import_module(name), name)


def _execute(load: Callable[[], Any], name: str) -> Any:
    try:
        return load()
    except Exception as error:
        raise VGFError(f"{name} cannot be imported: {short_error(error)}") from error


def short_error(error: BaseException) -> str:
    """An exception in one line: its type, its message, and the line of theirs that raised it."""
    text = " ".join(str(error).split())
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "/vgf/" not in frame.filename and "importlib" not in frame.filename
    ]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text[:300]}{where}"
