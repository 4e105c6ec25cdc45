"""Starting from another run's checkpoint: `vgf run --from RUN`.

The new run takes the task, the agent, the evaluation and the backend from that run, unless its own
file or flags say otherwise; its length (--steps, --online-steps) is always its own. The whole agent
is taken over, including its optimiser, onto any backend; transitions that the other run collected
online are not. The new run's config.toml records the run and the checkpoint that it started from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..spec.settings import Network, Settings, settings_of_methods
from ..support.errors import VGFError
from ..support.settings_tree import NONE, override, to_dict
from .checkpoint import load_checkpoint
from .config import BackendSettings, OnlineSettings, RunConfig, StartSettings
from .flags import flag_names
from .folder import open_run_folder, seed_folders
from .resolve import asked_for, of_method, read_settings, resolve, spelled

# What an agent is and what it was trained on: its checkpoint fits nothing else.
_KEPT = (
    "preset",
    "task.env",
    "task.action_repeat",
    "task.normalise_rewards",
    "task.standardise",
    "agent.method",
    "agent.ensemble",
    "agent.reference_kind",
    "agent.reference_tanh",
)


def configuration(flags: Mapping[str, Any], path: Path | str | None = None) -> RunConfig:
    """Defaults, or the run to start from; then the TOML file `path`, then `flags`.

    Raises:
        VGFError: as :func:`vgf.runs.resolve.resolve` and :func:`check_start`; or flags of an
            online phase without steps, or of another method.
    """
    config = _resolved(flags, path)
    of_online = [name for name in flags.get("online", {}) if name != "steps"]
    if of_online and not config.online.steps:
        raise VGFError(
            f"{flag_names()[f'online.{of_online[0]}']} belongs to the online phase, which has no "
            "steps; add --online-steps, or drop it"
        )
    _check_flags_of_methods(flags.get("agent", {}), config.agent)
    check_start(config)
    return config


def _check_flags_of_methods(flags: Mapping[str, Any], agent: Settings) -> None:
    """Refuse flags that only another method reads; sizes of its networks are ignored."""
    own = {entry.name for entry in fields(agent)}
    for setting in settings_of_methods():
        name, method = setting.name, setting.method
        if name in flags and name not in own and not isinstance(setting.default, Network):
            raise VGFError(
                f"{flag_names()[f'agent.{name}']} belongs to method {method}, and this run's is "
                f"{agent.method}; drop it, or add --method {method}"
            )


def _resolved(flags: Mapping[str, Any], path: Path | str | None) -> RunConfig:
    """The configuration; each setting is checked, its checkpoint not yet."""
    file = spelled(read_settings(path)) if path is not None else {}
    flags = spelled(flags)
    folder = asked_for("start.run", (file, flags), "")
    if not folder or folder.lower() == NONE:
        return resolve(flags, path)
    if flags.get("quick", file.get("quick")) is True:
        raise VGFError(
            "--quick shortens a new run; one that starts from another run's checkpoint has the "
            "length that --steps and --online-steps give it: drop --quick, or --from"
        )
    place = Path(os.path.abspath(os.path.expanduser(folder)))
    source = open_run_folder(place)
    _check_same("agent.method", asked_for("agent.method", (file, flags), None), source, folder)
    known = source.backend.name
    other = asked_for("backend.name", (file, flags), known or "") != known
    base = replace(
        source,
        quick=False,
        train=replace(source.train, steps=0),
        online=OnlineSettings(),
        start=StartSettings(),
        # another backend has its own dtype and device
        backend=BackendSettings() if other else source.backend,
        out=None,
    )
    config = override(base, of_method(file, base.agent), str(path))
    config = override(config, of_method(flags, base.agent), "flags")
    return replace(config, start=replace(config.start, run=str(place)))


def check_start(config: RunConfig) -> None:
    """Check that a run has something to do, and that its checkpoint fits it.

    Raises:
        VGFError: nothing to do; no checkpoint to start from; or settings that contradict it, each
            with the way out.
    """
    if not config.train.steps and not config.online.steps:
        hint = "more updates with --steps" if config.start.run else "updates with --steps"
        raise VGFError(f"nothing to do: ask for {hint}, or environment steps with --online-steps")
    if config.start.run is None:
        return
    source = open_run_folder(config.start.run)
    agent = config.agent
    networks = [e.name for e in fields(agent) if isinstance(getattr(agent, e.name), Network)]
    for key in (*_KEPT, *(f"agent.{name}" for name in networks)):
        _check_same(key, _value(config, key), source, config.start.run)
    for seed in range(config.seed, config.seed + config.seeds):
        starting_point(config, seed)


def _check_same(key: str, here: Any, source: RunConfig, folder: str) -> None:
    """Check that a setting, if it is given at all, is that of the run to start from."""
    there = _value(source, key)
    if here is None or here == there:
        return
    part = ""
    if isinstance(there, dict):
        part = next((name for name in there if there[name] != here[name]), "")
    full = f"{key}.{part}" if part else key
    here, there = (tree[part] if part else tree for tree in (here, there))
    flag = flag_names()[full]
    raise VGFError(f"{flag} is {here!r}, and the agent of {folder} has {there!r}; drop it")


def _value(config: RunConfig, key: str) -> Any:
    value: Any = to_dict(config)
    for name in key.split("."):
        value = value[name]
    return value


def starting_point(config: RunConfig, seed: int) -> StartSettings:
    """The checkpoint from which the run of one seed starts: a run of one seed, and a number.

    Of several runs, one for each seed, it is the one with the same seed.

    Raises:
        VGFError: no such run, or no such checkpoint.
    """
    if config.start.run is None:
        return config.start
    folder = Path(config.start.run)
    source = open_run_folder(folder)
    places = seed_folders(source, folder)
    if source.seeds > 1 and seed not in places:
        raise VGFError(
            f"{folder} holds seeds {min(places)} to {max(places)}, not {seed}; choose among them "
            "with --seed and --seeds, or start from one of its folders"
        )
    place = places[seed] if source.seeds > 1 else folder
    _, meta = load_checkpoint(place, config.start.checkpoint)
    return StartSettings(str(place), meta.step)
