"""The command line's parser: argparse, with errors that name the nearest known flag."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from .errors import VGFError
from .suggestions import did_you_mean, meant


class Parser(argparse.ArgumentParser):
    """A parser that reports every error as a VGFError and accepts no abbreviated flags."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        raise VGFError(f"{self.prog}: {message}; --help lists the flags")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """As in argparse, but an unknown flag or word is named, with the nearest known one."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            word = next((word for word in unknown if word.startswith("-")), unknown[0])
            word = word.partition("=")[0]
            near = meant(word, _all_options(self)) if word.startswith("--") else None
            hint = did_you_mean(near, "--help lists the flags")
            raise VGFError(f"{self.prog}: {word} is unknown; {hint}")
        return parsed


def _all_options(parser: argparse.ArgumentParser) -> list[str]:
    options: list[str] = []
    for action in parser._actions:
        options += [option for option in action.option_strings if option.startswith("--")]
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                options += _all_options(child)
    return list(dict.fromkeys(options))
