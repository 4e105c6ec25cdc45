"""What a sweep runs: a TOML file, expanded into cells, each of them one run.

presets = "ogbench-avgf"        # a family of the paper's tasks, or a list of presets; or
tasks = ["cube-single-play-singletask-task2-v0"]
methods = ["vgf", "fql"]        # default: the presets' own, or vgf
seeds = 8                       # 0 to 7; or a list of seeds

[settings]                      # of every run, as in a file for `vgf run --config`
train = { steps = 100_000 }

[grid]                          # lists: every combination
"agent.budget.step_size" = [0.05, 0.1]
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..runs.config import DEMO_METHOD, RunConfig
from ..runs.presets import FAMILIES, find_preset, presets
from ..runs.resolve import known_method, read_settings
from ..runs.start import configuration
from ..support.checks import check_name
from ..support.errors import VGFError
from ..support.objects import absolute_name, short_names
from ..support.suggestions import did_you_mean, nearest

MOST = 10_000  # runs of a sweep
KEYS = ("presets", "tasks", "methods", "seeds", "settings", "grid")


def read_spec(path: Path | str) -> dict[str, RunConfig]:
    """The cells of a sweep: the configuration of each run, by the run's name.

    Raises:
        VGFError: a file that cannot be read, an unknown key, task, preset, method or setting, or
            two runs that are the same; the message names it.
    """
    path = Path(path)
    spec = read_settings(path)
    for key in spec:
        if key not in KEYS:
            hint = did_you_mean(nearest(key, KEYS), f"the keys are {', '.join(KEYS)}")
            raise VGFError(f"{path}: unknown key {key}; {hint}")
    cells: dict[str, RunConfig] = {}
    for name, flags, where in _expand(spec, path):
        try:
            config = configuration(flags)
        except VGFError as error:
            text = re.sub(r"^flags: ", "", str(error))
            raise VGFError(f"{path}: {where}: {text}") from error
        if name in cells:
            raise VGFError(f"{path}: {name} is there twice; name each task, method and seed once")
        cells[name] = replace(config, seeds=1, out=None)
    if not cells:
        raise VGFError(f"{path}: nothing to run; name tasks, methods and seeds")
    return cells


def _check_count(count: int, path: Path) -> None:
    if count > MOST:
        raise VGFError(f"{path}: more than {MOST:,} runs; make several sweeps")


def _expand(spec: Mapping[str, Any], path: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    settings = _table(spec, "settings", path)
    grid = _table(spec, "grid", path)
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise VGFError(f"{path}: grid: {key} is {values!r}; it must be a list of values")
    if ("presets" in spec) == ("tasks" in spec):
        raise VGFError(f"{path}: name either tasks or presets")
    starts = (
        [({"preset": name}, name) for name in _presets(spec["presets"], path)]
        if "presets" in spec
        else [({"task": {"env": name}}, name) for name in _list(spec, "tasks", str, path)]
    )
    named = _list(spec, "methods", str, path) if "methods" in spec else []
    named = [_method(name, path) for name in named]
    short, methods = short_names(named), named or [None]
    seeds = _seeds(spec, path)
    cells = math.prod(map(len, (starts, methods, seeds, *grid.values())))
    _check_count(cells, path)
    for (start, task), method in itertools.product(starts, methods):
        for values in itertools.product(*grid.values()):
            chosen = dict(zip(grid, values, strict=True))
            flags = _merged(settings, start)
            if method is not None:
                flags = _merged(flags, {"agent": {"method": method}})
            for key, value in chosen.items():
                *tables, last = key.split(".")
                change: Any = {last: value}
                for table in reversed(tables):
                    change = {table: change}
                flags = _merged(flags, change)
            parts = [f"{key.rpartition('.')[2]}={value}" for key, value in chosen.items()]
            usual = DEMO_METHOD
            if "preset" in start:
                usual = find_preset(start["preset"]).method
                task = re.sub(rf"-{usual}\b", "", task)
            title = short[method] if method else usual
            for seed in seeds:
                name = _slug("-".join([task, title, *parts, f"seed-{seed}"]))
                yield name, _merged(flags, {"seed": seed}), task


def _presets(value: Any, path: Path) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise VGFError(f"{path}: presets is {value!r}; it must be a name or a list of names")
    found: list[str] = []
    for name in names:
        if name in FAMILIES:
            benchmark, _, method = name.partition("-")
            found += [
                preset.name
                for preset in presets().values()
                if (preset.benchmark.lower(), preset.method) == (benchmark, method)
                and not preset.online
            ]
            continue
        try:
            found.append(find_preset(name, f"{path}: presets").name)
        except VGFError as error:
            near = nearest(name, FAMILIES)
            raise VGFError(
                f"{path}: presets: did you mean {near}?" if near else str(error)
            ) from error
    return found


def _method(name: str, path: Path) -> str:
    name = absolute_name(name)
    if ":" in name:
        try:
            known_method(name)
        except VGFError as error:
            raise VGFError(f"{path}: methods: {error}") from error
    return name


def _seeds(spec: Mapping[str, Any], path: Path) -> list[int]:
    seeds = spec.get("seeds", 1)
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        _check_count(seeds, path)
        seeds = list(range(seeds))
    whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not whole or not seeds:
        raise VGFError(
            f"{path}: seeds is {spec.get('seeds')!r}; it must be a number of seeds, or a list"
        )
    return list(seeds)


def _list(spec: Mapping[str, Any], key: str, kind: type, path: Path) -> list[Any]:
    value = spec[key]
    value = [value] if isinstance(value, kind) else value
    if not isinstance(value, list) or not value or not all(isinstance(x, kind) for x in value):
        raise VGFError(f"{path}: {key} is {spec[key]!r}; it must be a list of names")
    for name in value:
        check_name(f"{path}: {key}", str(name))
    return value


def _table(spec: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = spec.get(key, {})
    if not isinstance(value, dict):
        raise VGFError(f"{path}: {key} is {value!r}; it must be a table, [{key}]")
    for name in ("seed", "seeds", "out", "together"):
        if name in value:
            raise VGFError(f"{path}: {key}: {name} is the sweep's own; drop it")
    return value


def _merged(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(a)
    for key, value in b.items():
        nested = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = _merged(both[key], value) if nested else value
    return both


def _slug(name: str) -> str:
    return re.sub(r"[^\w.=+-]+", "-", name)
