"""Command line flags, made from the tree of settings.

One flag for one setting: the last part of its key, ``agent.budget.step_size`` -> ``--step-size``.
Where several settings share a last part, the table's name goes in front, ``--budget-steps``,
``--critic-hidden``; the few exceptions are in :data:`NAMES`.
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

from ..methods import find_method
from ..spec.settings import settings_of_methods
from ..support.errors import VGFError
from ..support.objects import absolute_name
from ..support.settings_tree import NONE, Setting, convert, describe
from ..support.toml import read_toml
from .config import RunConfig, all_settings
from .resolve import resolve

# The only flags that the rule does not name.
NAMES = {
    "train.steps": "steps",
    "agent.particles": "particles",
    "backend.name": "backend",
    "start.run": "from",
}
# What --help shows, one line each; --help-all shows everything, with the settings' own texts.
SHOWN = {
    "preset": "a task of the paper; vgf presets lists them",
    "quick": "a first look, at a tenth of the length; not a result",
    "follow": "authors or equations, where the two differ",
    "task.env": "task",
    "task.data": "file of data, .npz or .hdf5",
    "task.data_dir": "folder of data sets",
    "agent.method": "vgf, avgf, iql, td, fql, bc, weighted_bc, or mine.py:Mine",
    "agent.particles": "particles N",
    "agent.budget.steps": "flow steps in training, L_train",
    "agent.budget.step_size": "size of a flow step, epsilon",
    "agent.budget.temperature": "alpha; none drops the repulsion",
    "agent.discount": "gamma",
    "train.steps": "training updates",
    "train.batch_size": "transitions in an update",
    "train.evaluate_every": "updates between evaluations",
    "online.steps": "environment steps after the offline updates",
    "online.mixing": "iql, rlpd, wsrl or scratch: the batches' source",
    "start.run": "start from the checkpoint of this run folder",
    "evaluation.steps": "test budgets, L_test",
    "evaluation.episodes": "for each test budget",
    "evaluation.workers": "processes of environments",
    "backend.name": "numpy, torch or jax",
    "backend.device": "auto, cpu, gpu or gpu:<index>",
    "backend.dtype": "float32 or float64",
    "logging.tensorboard": "write TensorBoard files too",
    "seed": "the first seed",
    "seeds": "number of runs, one for each seed",
    "out": "run folder to make; default: a new one in runs/",
}
TABLES = ("task", "agent", "train", "online", "start", "evaluation", "backend", "logging", "")


def flag_names(config: Any = None, names: Mapping[str, str] = NAMES) -> dict[str, str]:
    """The flag of every setting, by its key: one each, all different.

    Args:
        config: the tree of settings; None is a run's.
        names: flags that the rule does not name.
    """
    keys = [setting.key for setting in all_settings(config)]
    lasts = Counter(key.rpartition(".")[2] for key in keys if key not in names)
    taken = set(names.values())
    # a user's method does not rename the flags of others
    added = {f"agent.{own.name}" for own in settings_of_methods() if ":" in own.method}
    lasts -= Counter(key.rpartition(".")[2] for key in keys if key in added)
    flags = {}
    for key in keys:
        *tables, last = key.split(".")
        alone = lasts[last] == (key not in added) and last not in taken
        name = names.get(key) or (last if alone else f"{tables[-1]}_{last}")
        flags[key] = "--" + name.replace("_", "-")
    return flags


def add_flags(
    parser: argparse.ArgumentParser,
    tables: Sequence[str] = TABLES,
    names: Mapping[str, str] | None = None,
    shown: Mapping[str, str] = SHOWN,
    of_run: bool = False,
    config: Any = None,
) -> dict[str, str]:
    """Add ``--config``, ``--help-all`` and a flag for every setting of some tables.

    Args:
        parser: of one command.
        tables: the top tables whose settings become flags; "" is for settings in no table.
        names: other flags for some keys, such as ``{"evaluation.steps": "--steps"}``.
        shown: one line for each key that ``--help`` shows.
        of_run: defaults come from a run folder; no --config.
        config: the tree of settings; None is a run's, with the flags of :data:`NAMES`.

    A flag that is not given is absent from the namespace; :func:`given` collects the others.

    Returns:
        The flag of every setting, by its key.
    """
    known = NAMES if config is None else {}
    flags = {**flag_names(config, known), **(names or {})}
    parser.usage = parser.usage or "%(prog)s [--config FILE] [flags]"
    full: dict[argparse.Action, str] = {}
    if not of_run:
        parser.add_argument(
            "--config", metavar="FILE", type=Path, help="TOML file of settings; flags win over it"
        )
    for setting in all_settings(config):
        if (setting.key.partition(".")[0] if "." in setting.key else "") not in tables:
            continue
        action = _add_flag(parser, flags[setting.key], setting)
        default = "the run's" if of_run else spell(setting.default)
        text = f"{setting.help.rstrip('.')} [{setting.key}; default {default}]"
        full[action] = text.replace("``None``", NONE).replace("%", "%%")
        action.help = argparse.SUPPRESS
        if setting.key in shown:
            quiet = of_run or setting.default is None or isinstance(setting.default, bool)
            action.help = shown[setting.key] + ("" if quiet else f" [{default}]")
    parser.add_argument(
        "--help-all", action=_HelpAll, texts=full, help="show every flag, its TOML key and default"
    )
    return flags


def _add_flag(parser: argparse.ArgumentParser, flag: str, setting: Setting) -> argparse.Action:
    options: dict[str, Any] = {"dest": setting.key, "default": argparse.SUPPRESS}
    hint = setting.hint
    if hint is bool:
        return parser.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
    if get_origin(hint) is tuple:
        hint = get_args(hint)[0]
        options["nargs"] = "+"
    kinds = {*get_args(hint), hint}
    if bool in kinds:  # true and false without a word, --flag and --no-flag
        parser.add_argument(
            f"--no-{flag[2:]}", action="store_const", const=False, help=argparse.SUPPRESS, **options
        )
        options |= {"nargs": "?", "const": True}
    options["metavar"] = "N" if int in kinds else "X" if float in kinds else "TEXT"
    return parser.add_argument(flag, type=lambda text: read_word(text, hint), **options)


def load_methods(words: Sequence[str]) -> None:
    """Load the user's own method that flags, or the file of ``--config``, name.

    So its settings are flags too.

    Raises:
        VGFError: it cannot be loaded, or the file cannot be read.
    """
    pairs = [word.partition("=")[::2] for word in words if word.startswith("--")]
    asked = dict(itertools.pairwise(words)) | {k: v for k, v in pairs if v}
    name: Any = asked.get("--method")
    files = [Path(asked["--from"]) / "config.toml"] if "--from" in asked else []
    files += [Path(asked["--config"])] if "--config" in asked else []
    for file in files if name is None else ():
        agent = read_toml(file).get("agent") if file.is_file() else None
        name = agent.get("method", name) if isinstance(agent, Mapping) else name
    if isinstance(name, str) and ":" in name:
        try:
            find_method(absolute_name(name))
        except ValueError as error:
            raise VGFError(f"--method: {error}") from error


class _HelpAll(argparse.Action):
    def __init__(
        self,
        option_strings: Sequence[str],
        dest: str,
        texts: Mapping[argparse.Action, str],
        help: str | None = None,
    ) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)
        self.texts = texts

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        for action, text in self.texts.items():
            action.help = text
        parser.print_help()
        parser.exit()


def read_word(text: str, hint: Any) -> Any:
    """One word of the command line, as the type `hint`.

    Raises:
        argparse.ArgumentTypeError: it has another type.
    """
    kinds = {*get_args(hint), hint}
    value: Any = text
    try:
        value = absolute_name(text) if str in kinds else text
        if not (NoneType in kinds and text.lower() == NONE) and kinds & {int, float}:
            value = int(text) if re.fullmatch(r"[+-]?\d[\d_]*", text) else float(text)
        return convert(value, hint)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {describe(hint)}") from error


def spell(value: Any) -> str:
    """A setting's value as its flag takes it."""
    if value is None:
        return NONE
    if isinstance(value, tuple):
        return " ".join(map(spell, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def given(namespace: argparse.Namespace, config: Any = None) -> dict[str, Any]:
    """The settings for which flags were given, nested like the tree (None: a run's)."""
    keys = {setting.key for setting in all_settings(config)}
    values: dict[str, Any] = {}
    for key, value in vars(namespace).items():
        if key in keys:
            *tables, last = key.split(".")
            table = values
            for name in tables:
                table = table.setdefault(name, {})
            table[last] = value
    return values


@contextmanager
def in_flags(flags: Mapping[str, str]) -> Iterator[None]:
    """Say what is wrong with settings in the words of the command line, as :func:`reworded`.

    Args:
        flags: the flag of every setting, by its key.
    """
    try:
        yield
    except VGFError as error:
        error.args = (reworded(str(error), flags),)
        raise  # as what it was: a run that was stopped is no mistake


# Where a word is a setting's name: anywhere, if it is no word of English; else at the beginning,
# after advice, and before a value or a verb.
_ANYWHERE = r"(?<![\w./'-])()({})(?![\w./])"
_NAMED = (
    r"(^|\b(?:drop|give|lower|set) )({})(?=[ ,;]|$)",
    r"(?<![\w./'-])()({})(?= (?:[-\d'\[(]|(?:is|must|leaves|has|names|belongs|contradicts)\b))",
)


def reworded(message: str, flags: Mapping[str, str]) -> str:
    """A message about settings, in which flags stand for the settings' keys.

    A message about a file of settings stays as it is, as there keys are the words.

    Args:
        message: such as ``flags: [agent] budget.steps must be 0``.
        flags: the flag of every setting, by its key.
    """
    found = re.match(r"flags: (?:\[([\w.]+)\] )?", message)
    if found is None and re.match(r"\S+\.toml: ", message):
        return message
    table = (found and found[1]) or ""
    text = message[found.end() :] if found else message
    spelled: dict[str, str] = {}
    for key, flag in flags.items():
        *tables, last = key.split(".")
        inside = key.removeprefix(f"{table}.") if key.startswith(f"{table}.") else ""
        names = {key, inside, ".".join([*tables[-1:], last])}
        if inside == last:
            names.add(f"network.{last}")
        if not table and flag == "--" + last.replace("_", "-"):
            names.add(last)
        if found is None:  # a word of English may mean anything there
            names = {name for name in names if re.search("[._]", name)}
        spelled |= dict.fromkeys(names - {""}, flag)
    for name, flag in sorted(spelled.items(), key=lambda pair: -len(pair[0])):
        for pattern in (_ANYWHERE,) if re.search("[._]", name) else _NAMED:
            text = re.sub(pattern.format(re.escape(name)), rf"\1{flag}", text)
    return re.sub(r"set --([\w-]+) to false", r"use --no-\1", text)


def config_from_flags(namespace: argparse.Namespace) -> RunConfig:
    """Defaults, then the preset, then ``--config``, then the flags.

    Raises:
        VGFError: as :func:`vgf.runs.resolve.resolve`.
    """
    return resolve(given(namespace), namespace.config)
