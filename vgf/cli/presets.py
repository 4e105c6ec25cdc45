"""`vgf presets`: the paper's tasks as named settings."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from ..support.errors import VGFError
from . import COMMANDS

if TYPE_CHECKING:
    from ..runs.presets import Origin, Preset

# Beside a value in the list: whose choice it is, if not the authors'.
_SIGNS = {"ours": "*", "listed": "~", "carried": "+"}
_MEANINGS = {
    "ours": "ours: one of the values that the script tries",
    "listed": "the script lists this task in a comment and does not run it",
    "carried": "ours: the script has it for another task",
}
_BUDGET = {"L ": "steps", "epsilon ": "step_size", "alpha ": "temperature"}


def main(words: list[str]) -> int:
    from ..runs.presets import METHODS, dump_preset, find_preset, presets
    from ..support.parser import Parser

    parser = Parser(
        prog="vgf presets",
        usage="vgf presets [NAME | WORD ...] [flags]",
        description=COMMANDS["presets"],
        epilog="vgf run --preset NAME runs one. Its text is also a file for --config.",
    )
    parser.add_argument(
        "words", metavar="NAME", nargs="*", help="a preset to show, or parts of names to list"
    )
    parser.add_argument("--method", choices=METHODS, help="list the presets of this method")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--offline", action="store_true", help="list offline runs only")
    kind.add_argument("--online", action="store_true", help="list offline-to-online runs only")
    args = parser.parse_args(words)
    filtered = args.method or args.offline or args.online
    if len(args.words) == 1 and not filtered and args.words[0] in presets():
        print(dump_preset(presets()[args.words[0]]), end="")
        return 0
    found = [
        preset
        for preset in presets().values()
        if all(_says(preset, word) for word in args.words)
        and args.method in (None, preset.method)
        and not (args.offline and preset.online)
        and not (args.online and not preset.online)
    ]
    if found:
        _print_list(found)
    elif len(args.words) == 1 and not filtered:
        print(dump_preset(find_preset(args.words[0], parser.prog)), end="")
    else:
        raise VGFError(f"{parser.prog}: no preset matches {' '.join(words)}; drop a word")
    return 0


def _says(preset: Preset, word: str) -> bool:
    texts = (preset.name, preset.env, preset.benchmark)
    return any(word.lower() in text.lower() for text in texts)


def _print_list(found: list[Preset]) -> None:
    from ..runs.presets import revision
    from ..support.tables import format_table

    print(f"{len(found)} presets; settings from the authors' code, {revision()}")
    table = format_table([_row(preset) for preset in found]).splitlines()
    group = None
    for preset, line in zip(found, table[2:], strict=True):
        if group != (preset.benchmark, preset.method, preset.online):
            group = (preset.benchmark, preset.method, preset.online)
            print("\n" + _heading(preset))
            print("\n".join(table[:2]))
        print(line)
    print()
    marks = {source.mark for preset in found for source in _budget_sources(preset)}
    for mark, text in _MEANINGS.items():
        if mark in marks:
            print(f"{_SIGNS[mark]} {text}")
    print("vgf presets NAME shows one in full, with sources; vgf run --preset NAME runs it")


def _heading(preset: Preset) -> str:
    kind = "offline, then online" if preset.online else "offline"
    text = f"{preset.benchmark}, {preset.method_title}, {kind}: {preset.script}"
    return textwrap.fill(text, 79, break_on_hyphens=False)


def _budget_sources(preset: Preset) -> list[Origin]:
    return [preset.sources[f"agent.budget.{name}"] for name in _BUDGET.values()]


def _row(preset: Preset) -> dict[str, str]:
    budget = preset.settings["agent"]["budget"]
    sources = _budget_sources(preset)
    updates = _short(preset.settings["train"]["steps"])
    if preset.online:
        updates += f" + {_short(preset.settings['online']['steps'])}"
    return {
        "preset": preset.name,
        "method": preset.method_title,
        **{
            title: f"{budget[name]}{_SIGNS.get(source.mark, ' ')}"
            for (title, name), source in zip(_BUDGET.items(), sources, strict=True)
        },
        "updates": updates,
    }


def _short(number: int) -> str:
    return f"{number // 10**6}M" if number % 10**6 == 0 else f"{number // 10**3}k"
