"""Checks of settings: each raises ValueError, with the setting's name and the way out; of names."""

from __future__ import annotations

from pathlib import Path

from .errors import VGFError
from .suggestions import did_you_mean, nearest


def check(condition: bool, message: str) -> None:
    """Raise ValueError with the message if a condition does not hold."""
    if not condition:
        raise ValueError(message)


def check_whole(name: str, value: int, low: int) -> None:
    """Raise ValueError if a setting is below its least value."""
    check(value >= low, f"{name} is {value}; it must be {low} or more")


def check_choice(name: str, value: str | None, choices: tuple[str, ...]) -> None:
    """Raise ValueError if a setting is not one of its choices, naming the nearest one."""
    if value is not None and value not in choices:
        near = nearest(value, choices)
        hint = did_you_mean(near and repr(near), f"choose one of {', '.join(choices)}")
        raise ValueError(f"{name} is {value!r}; {hint}")


def check_name(place: Path | str, name: str) -> None:
    """Check a name that is shown in messages and tables: it stands on one line.

    Raises:
        VGFError: it has a line break or another control character; the message has the place.
    """
    if not name.isprintable():
        raise VGFError(f"{place}: {name!r} has a control character in it; leave it out")
