"""A tree of settings: frozen dataclasses within one another, walked without knowing any of them.

A leaf has a dotted key, such as ``agent.budget.step_size``; its help comes from the ``Args:`` of
its dataclass's docstring. A branch is walked by the class of its value, which may have more
settings than the class in the tree's annotation.

In TOML and in flags, where there is no null, ``None`` is spelled "none".
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from types import NoneType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from .checks import check
from .errors import VGFError
from .suggestions import did_you_mean, meant_setting

NONE = "none"

T = TypeVar("T")


class Setting(NamedTuple):
    """One leaf of a tree: its dotted key, type, default and help."""

    key: str
    hint: Any
    default: Any
    help: str


@functools.cache
def types_of(cls: type) -> Mapping[str, Any]:
    """The type of every field of a dataclass, in order."""
    hints = get_type_hints(cls)
    return {entry.name: hints[entry.name] for entry in fields(cls)}


@functools.cache
def documented(cls: type) -> Mapping[str, str]:
    """What the ``Args:`` in the docstrings of a dataclass and its bases say about each field."""
    texts: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        texts |= _arguments(vars(one).get("__doc__") or "")
    return texts


def _arguments(docstring: str) -> dict[str, str]:
    """The ``Args:`` of a docstring, by name."""
    texts: dict[str, str] = {}
    names: list[str] = []
    # since 3.13 the compiler takes away the indentation that a docstring's lines share
    section = inspect.cleandoc(docstring).partition("Args:\n")[2].partition("\n\n")[0]
    for line in section.splitlines():
        text = line.strip()
        if len(line) - len(text) <= 4:
            head, _, text = text.partition(":")
            names = [name.strip() for name in head.split(",")]
        for name in names:
            texts[name] = f"{texts.get(name, '')} {text.strip()}".strip()
    return texts


def settings_of(tree: Any, prefix: str = "") -> Iterator[Setting]:
    """Every setting of a tree, in order; the defaults are the tree's values."""
    cls: Any = type(tree)
    texts = documented(cls)
    for name, hint in types_of(cls).items():
        value = getattr(tree, name)
        if is_dataclass(value):
            yield from settings_of(value, f"{prefix}{name}.")
        else:
            yield Setting(f"{prefix}{name}", hint, value, texts.get(name, ""))


def _unknown(key: str, source: str, root: Any) -> VGFError:
    keys = [setting.key for setting in settings_of(root)]
    tables = {key.rpartition(".")[0] for key in keys if "." in key}
    there = f"the {'tables' if tables else 'settings'} are {', '.join(sorted(tables) or keys)}"
    hint = did_you_mean(meant_setting(key, [*keys, *sorted(tables)]), there)
    return VGFError(f"{source}: unknown key {key}; {hint}")


def describe(hint: Any) -> str:
    """A type in words, to follow "it must be"."""
    if get_origin(hint) is tuple:
        return f"a list, each {describe(get_args(hint)[0])}"
    if NoneType in get_args(hint):
        return f'{" or ".join(map(describe, _without_none(hint)))}, or "{NONE}"'
    return {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}[
        hint
    ]


def _without_none(hint: Any) -> list[Any]:
    return [part for part in get_args(hint) if part is not NoneType]


def convert(value: Any, hint: Any) -> Any:
    """A value from TOML, a flag or Python, as the type `hint`.

    Raises:
        ValueError: it has another type; :func:`describe` says which one is expected.
    """
    if get_origin(hint) is tuple:
        check(isinstance(value, list | tuple), "not a list")
        return tuple(convert(part, get_args(hint)[0]) for part in value)
    if NoneType in get_args(hint):
        if value is None or (isinstance(value, str) and value.lower() == NONE):
            return None
        kinds = _without_none(hint)
        fits = [kind for kind in kinds if isinstance(kind, type) and type(value) is kind]
        return convert(value, (fits or kinds)[0])
    if hint in (int, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        check(number and math.isfinite(value), "not a finite number")
        check(hint is float or value == int(value), "not whole")
    else:
        check(isinstance(value, hint), "of another type")
        if hint is str:
            value.encode()  # a UnicodeEncodeError is a ValueError: text that no file can hold
            check("\0" not in value, "with a NUL character, which no path can have")
    return hint(value)


def override(config: T, values: Mapping[str, Any], source: str) -> T:
    """A copy of a tree of settings with some of them changed.

    Args:
        config: the tree.
        values: nested like the tree; settings it does not name stay as they are.
        source: where the values come from, for the messages.

    Raises:
        VGFError: an unknown key, a wrong type, or settings out of range or in contradiction.
    """
    return _override(config, values, source, "", config)


def _override(config: T, values: Mapping[str, Any], source: str, prefix: str, root: Any) -> T:
    """:func:`override` of the branch of `root` whose dotted key, with its dot, is `prefix`."""
    cls: Any = type(config)
    hints, changes = types_of(cls), {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in hints:
            raise _unknown(key, source, root)
        before = getattr(config, name)
        if is_dataclass(before):
            if not isinstance(value, Mapping):
                raise VGFError(f"{source}: {key} is {value!r}; it must be a table, [{key}]")
            changes[name] = _override(before, value, source, f"{key}.", root)
            continue
        try:
            changes[name] = convert(value, hints[name])
        except (ValueError, OverflowError) as error:
            message = f"{source}: {key} is {value!r}; it must be {describe(hints[name])}"
            if isinstance(value, str) and str in (hints[name], *get_args(hints[name])):
                message = f"{message}, in UTF-8 and without a NUL character"
            raise VGFError(message) from error
    try:
        return replace(config, **changes)  # type: ignore[type-var]
    except (ValueError, VGFError) as error:
        table = f"[{prefix[:-1]}] " if prefix else ""
        raise VGFError(f"{source}: {table}{error}") from error


def to_dict(config: Any) -> dict[str, Any]:
    """A tree of settings as nested dicts that TOML and JSON can hold.

    Raises:
        VGFError: a string that reads "none", which would come back as None.
    """
    values: dict[str, Any] = {}
    for entry in fields(config):
        value = getattr(config, entry.name)
        if isinstance(value, str) and value.lower() == NONE:
            raise VGFError(f'{entry.name} is {value!r}, which stands for "not set"; use another')
        if is_dataclass(value):
            values[entry.name] = to_dict(value)
        else:
            as_list = list(value) if isinstance(value, tuple) else value
            values[entry.name] = NONE if value is None else as_list
    return values


def short_hash(values: Any) -> str:
    """A short name for what JSON can hold."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
