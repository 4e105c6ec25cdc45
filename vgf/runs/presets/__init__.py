"""The paper's tasks as named settings, each with its source: :func:`find_preset`, by name.

The settings are those that the authors' code runs with, its departures from the equations too
(:func:`departures`); ``--follow equations`` takes these back. They are data, the TOML files beside
this module: common.toml says how they are read. A
preset's name combines its task, without the version, and its method: ``cube-single-task2-avgf``,
``hopper-medium-vgf``; an offline-to-online run's ends in ``-online``.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from ...methods import find_method
from ...spec.settings import Settings, method_settings
from ...support.errors import VGFError
from ...support.suggestions import did_you_mean, nearest
from ...support.toml import read_toml
from ..config import all_settings

FAMILIES = ("d4rl-vgf", "d4rl-avgf", "ogbench-avgf", "ogbench-vgf")
_TASKS = range(1, 6)  # of an environment of OGBench
# The published scores in the families' files, by their keys.
_FIGURE = "read off the paper's figure"
_PUBLISHED = {
    "table": "normalised score, the paper's table",
    "mean": "success in %, mean over the environment's five tasks, the paper's table",
    "offline": f"success in % after 1M updates, {_FIGURE}",
    "online": f"success in % after 1M updates and 1M online steps, {_FIGURE}",
    "by_budget": f"normalised score at L_test {{}}, {_FIGURE}",
}


class Origin(NamedTuple):
    """Where a setting comes from: a mark, such as "script" or "ours", and what it means here."""

    mark: str
    text: str


class Departure(NamedTuple):
    """A setting in which the authors' code departs from the equations, or from what is usual.

    Args:
        setting: its dotted key.
        authors, equations: its values.
        says: what the authors' code does.
    """

    setting: str
    authors: Any
    equations: Any
    says: str


class Published(NamedTuple):
    """A score from the paper, in percent or as D4RL normalises it, and what it measures."""

    score: float
    what: str


METHODS = ("vgf", "avgf")  # that the paper's runs use


@dataclass(frozen=True, eq=False)
class Preset:
    """A task of the paper, as a run's settings.

    Args:
        name: of the preset.
        benchmark: "D4RL" or "OGBench".
        script: the authors', from which most settings are.
        env: the task, as its benchmark spells it.
        method: "vgf" or "avgf".
        online: whether environment steps follow the updates on the data.
        aliases: other names of this preset: its task's names.
        settings: nested as :class:`vgf.runs.config.RunConfig` is.
        sources: of every setting, by its dotted key.
        marks: what each mark in the sources means.
        departures: what ``--follow equations`` sets instead.
        published: scores to compare a run with.
    """

    name: str
    benchmark: str
    script: str
    env: str
    method: str
    online: bool
    aliases: tuple[str, ...]
    settings: Mapping[str, Any]
    sources: Mapping[str, Origin]
    marks: Mapping[str, str]
    departures: tuple[Departure, ...]
    published: tuple[Published, ...]

    @property
    def description(self) -> str:
        """The preset in words."""
        kind = "offline, then online" if self.online else "offline"
        return f"{self.method_title} on {self.env}, {kind}"

    @property
    def method_title(self) -> str:
        """The method, as a table names it."""
        return find_method(self.method).title

    def of_method(self, method: str) -> Preset:
        """The same task's preset for another method if there is one, else this one."""
        name = self.name.replace(f"-{self.method}", f"-{method}")
        return presets().get(name, self)

    def settings_for(self, method: str) -> dict[str, Any]:
        """The settings, nested, for a run of `method`.

        Another method than the preset's keeps its task, networks, training and evaluation, but
        brings its own particles, budget and clipping, and everything else in its authors' form; see
        :func:`vgf.spec.settings.method_settings`.
        """
        values = {key: value for key, value in self.settings.items() if key != "agent"}
        agent = self.settings["agent"]
        if method != self.method:
            agent = without_own(agent, method)
        return {**values, "agent": dict(agent)}


def without_own(agent: Mapping[str, Any], method: str) -> dict[str, Any]:
    """An agent's settings, chosen for one method, without those that another method brings itself.

    These are its particles, budget and clipping, and whatever its authors' form sets.
    """
    authors, plain = method_settings(method), Settings()
    own = {
        entry.name
        for entry in fields(plain)
        if getattr(authors, entry.name) != getattr(plain, entry.name)
    }
    dropped = own | {"method", "particles", "budget", "clip_norm"}
    return {name: value for name, value in agent.items() if name not in dropped}


def preset_names() -> list[str]:
    """The names of all presets, in the order of their files."""
    return list(presets())


def find_preset(name: str, source: str = "preset") -> Preset:
    """The preset with a name; a task's name means its first preset.

    Args:
        name: ``cube-single-task2-avgf``, ``cube-single-task2``, or
            ``cube-single-play-singletask-task2-v0``; the latter two may end in ``-online``.
        source: where the name comes from, for the message.

    Raises:
        VGFError: there is no such preset; the message suggests similar ones.
    """
    known = presets()
    found = known.get(name) or _aliases().get(name)
    if found is not None:
        return found
    if any(name in word for word in known) and name:
        raise VGFError(
            f"{source}: {name!r} is part of several names; vgf presets {name} lists them"
        )
    words = {word: word for word in known} | {word: p.name for word, p in _aliases().items()}
    close = difflib.get_close_matches(name.lower(), words, n=3, cutoff=0.6)
    near = list(dict.fromkeys(words[word] for word in close))
    start = nearest(name.lower(), dict.fromkeys(word.partition("-")[0] for word in known))
    of_start = f"did you mean {start}? vgf presets {start} lists them"
    hint = did_you_mean(near, of_start if start else "vgf presets lists them")
    raise VGFError(f"{source}: there is no preset {name!r}; {hint}")


@functools.cache
def _aliases() -> Mapping[str, Preset]:
    aliases: dict[str, Preset] = {}
    for preset in presets().values():
        for alias in preset.aliases:
            aliases.setdefault(alias, preset)
    return aliases


@functools.cache
def presets() -> Mapping[str, Preset]:
    """All presets by name, in the order of their files."""
    common = _read("common")
    made = [preset for family in FAMILIES for preset in _family(common, _read(family))]
    return {preset.name: preset for preset in made}


def departures(
    method: str, benchmark: str = "", online: bool = False, scratch: bool = False
) -> tuple[Departure, ...]:
    """Where the authors' code departs from the equations in runs of a method.

    Args:
        method: by its name.
        benchmark: of the task, such as "ogbench", for what concerns its data and environments.
        online: whether environment steps follow.
        scratch: whether these are from scratch, without offline data.
    """
    return tuple(
        Departure(row["setting"], row["authors"], row["equations"], row["says"])
        for row in _read("common")["departures"]
        if method in row.get("methods", [method])
        and benchmark.lower() in row.get("benchmarks", [benchmark.lower()])
        and (online or not row.get("online"))
        and row.get("scratch", scratch) == scratch
    )


def following(which: str, found: tuple[Departure, ...]) -> dict[str, Any]:
    """The settings, nested, that follow the "authors" or the "equations" where they differ."""
    settings: dict[str, Any] = {}
    for departure in found:
        _put(settings, departure.setting, getattr(departure, which))
    return settings


def dump_preset(preset: Preset) -> str:
    """A preset as TOML with every setting's source beside it; a file for ``vgf run --config``."""
    head = [f"{preset.name}: {preset.description}"]
    head += [f"published: {score:g}, {what}" for score, what in preset.published]
    head += ["", f"Sources, in {revision()} unless they say otherwise:"]
    head += [f"{mark}: {text}" for mark, text in preset.marks.items()]
    lines = [line for text in head for line in _comment(text)]
    if preset.departures:
        lines += ["#", "# The authors' departures, and what --follow equations sets instead:"]
        lines += [
            f"# {d.setting.rpartition('.')[2]}: {json.dumps(d.authors)} -> "
            f"{json.dumps(d.equations)}; {d.says}"
            for d in preset.departures
        ]
    lines += ["", f'preset = "{preset.name}"']
    keys = [setting.key for setting in all_settings() if setting.key in preset.sources]
    for table in dict.fromkeys(key.rpartition(".")[0] for key in keys):
        lines += ["", f"[{table}]"]
        for key in keys:
            parent, _, name = key.rpartition(".")
            if parent == table:
                source = preset.sources[key]
                if source.text != preset.marks[source.mark]:
                    lines += _comment(f"{source.text}:")
                value = json.dumps(_get(preset.settings, key))
                lines.append(f"{name} = {value}  # {source.mark}")
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, 79, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False
    ) or ["#"]


def revision() -> str:
    """The revision of the authors' code from which the settings were taken."""
    common = _read("common")
    return f"{common['repository']} at {common['revision'][:7]}"


@functools.cache
def _read(name: str) -> dict[str, Any]:
    return read_toml(Path(__file__).parent / f"{name}.toml")


class _Row(NamedTuple):
    """A task in a family's file: its short and its full name, and its table there."""

    short: str
    env: str
    is_default: bool  # of its environment's tasks, or the only one
    table: Mapping[str, Any]


def _rows(tasks: Mapping[str, Any]) -> Iterator[_Row]:
    for short, table in tasks.items():
        if "default" not in table:
            yield _Row(short, table["env"], True, table)
            continue
        for task in _TASKS:
            is_default = task == table["default"]
            yield _Row(f"{short}-task{task}", table["env"].format(task=task), is_default, table)


def _family(common: Mapping[str, Any], family: Mapping[str, Any]) -> Iterator[Preset]:
    """The presets of a file: each task offline, then each offline to online."""
    for online in (False, True):
        for row in _rows(family["tasks"]):
            yield _preset(common, family, row, online)


def _preset(
    common: Mapping[str, Any], family: Mapping[str, Any], row: _Row, online: bool
) -> Preset:
    marks = {**common["sources"], **family.get("sources", {})}
    said, script = _said(family["scripts"], row, online)
    of_task = {mark: row.table[mark] for mark in (*marks, "script") if mark in row.table}
    layers = [common["settings"], common[family["method"]], family["settings"], of_task]
    layers.append({"paper" if "paper" in marks else "script": {"task": {"env": row.env}}})
    if online:
        layers += [table.get("online", {}) for table in (common, family, row.table)]
    found = departures(family["method"], family["benchmark"], online)
    reasons = {departure.setting: departure.says for departure in found}
    layers.append({"code": following("authors", found)})
    settings: dict[str, Any] = {}
    sources: dict[str, Origin] = {}
    texts = {**marks, "carried": f"ours: as {script} has it for another task", said: _SAID[said]}
    texts[said] = texts[said].format(script)
    for layer in layers:
        for mark, table in layer.items():
            for key, value in _leaves(table):
                own = said if mark == "script" else mark
                reason = _reason(common, family, mark, key)
                if own == "code":
                    reason = reasons.get(key, reason)
                _put(settings, key, value)
                sources[key] = Origin(own, reason or texts[own])
    last = "-online" if online else ""
    words = (row.short, row.env, re.sub(r"-task\d", "", row.env) if row.is_default else row.env)
    return Preset(
        name=f"{row.short}-{family['method']}{last}",
        benchmark=family["benchmark"],
        script=script,
        env=row.env,
        method=family["method"],
        online=online,
        aliases=tuple(f"{word}{last}" for word in words),
        settings=settings,
        sources=sources,
        marks={
            mark: texts[mark] for mark in texts if any(s.mark == mark for s in sources.values())
        },
        departures=found,
        published=tuple(_published(row, online)),
    )


# What a script says of a task, and how that is said; see common.toml.
_SAID = {
    "script": "{}, which runs this task",
    "off2on": "{}, which runs this task",
    "listed": "{}, which lists this task in a comment",
    "carried": "ours: as {} has it for another task",
}


def _said(scripts: Mapping[str, Any], row: _Row, online: bool) -> tuple[str, str]:
    """How a preset knows what a script says: a key of :data:`_SAID`, and the script."""
    kind = "online" if online else "offline"
    runs = scripts[f"runs_{kind}"]
    if row.is_default if runs == "default" else row.short in runs:
        return ("off2on" if online else "script"), scripts[kind]
    lists = scripts.get("lists")
    listed = lists is None or any(row.short.endswith(f"-task{task}") for task in lists)
    return ("listed" if listed else "carried"), scripts[kind]


def _reason(
    common: Mapping[str, Any], family: Mapping[str, Any], mark: str, key: str
) -> str | None:
    """What is said about a setting's source beside the mark, if anything."""
    for file in (family, common):
        reason = file.get("reasons", {}).get(mark, {}).get(key)
        if reason is not None:
            return str(reason)
    return None


def _published(row: _Row, online: bool) -> Iterator[Published]:
    """The scores in a task's table to compare a preset of it with."""
    for name, scores in row.table.get("published", {}).items():
        of_this_task = row.is_default or name not in ("offline", "online")
        if of_this_task and online == (name == "online"):
            for steps, score in enumerate(scores if name == "by_budget" else [scores]):
                yield Published(float(score), _PUBLISHED[name].format(steps))


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of a nested table by their dotted keys."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _get(settings: Mapping[str, Any], key: str) -> Any:
    """The setting of a dotted key in a nested dict."""
    for name in key.split("."):
        settings = settings[name]
    return settings


def _put(settings: dict[str, Any], key: str, value: Any) -> None:
    """Set the setting of a dotted key in a nested dict."""
    *tables, last = key.split(".")
    for name in tables:
        settings = settings.setdefault(name, {})
    settings[last] = value
