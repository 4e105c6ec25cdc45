"""`vgf data`: make data sets, and look at them."""

from __future__ import annotations

import argparse
import importlib

from ..support.errors import VGFError
from . import COMMANDS

SUBCOMMANDS = {
    "make": "record one: OGBench's own, or of any gymnasium environment",
    "inspect": "what one holds, what is wrong with it, and a picture of it",
}


def main(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        _top().print_help()
        return 0
    if words[0] not in SUBCOMMANDS:
        from ..support.suggestions import did_you_mean, nearest

        near = nearest(words[0], SUBCOMMANDS)
        hint = did_you_mean(near, f"choose {' or '.join(SUBCOMMANDS)}")
        raise VGFError(f"vgf data: {words[0]} is not a command; {hint}")
    module = importlib.import_module(f".data_{words[0]}", __package__)
    status: int = module.main(words[1:])
    return status


def _top() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vgf data",
        usage="vgf data COMMAND NAME [flags]",
        description=COMMANDS["data"],
        epilog="vgf data COMMAND --help says more.",
    )
    group = parser.add_argument_group("commands")
    for name, text in SUBCOMMANDS.items():
        group.add_argument(name, help=text, nargs="?")
    return parser
