"""A run's settings from their layers: defaults, a preset, a TOML file, flags; later ones win.

The preset is one of vgf/runs/presets/; the defaults are those of the task and method that the other
layers name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..benchmarks import find_task
from ..methods import Declared, method_names, registry
from ..spec.settings import Settings, method_settings, settings_of_methods
from ..support.errors import VGFError
from ..support.objects import absolute_name
from ..support.settings_tree import NONE, override
from ..support.toml import read_toml
from .config import DEMO_ENV, DEMO_METHOD, FOLLOW, SCRATCH, RunConfig, default_config, shortened
from .presets import Preset, departures, find_preset, following, without_own


def load_config(path: Path | str) -> RunConfig:
    """Read a configuration; what the file does not name comes from :func:`default_config`.

    Raises:
        VGFError: as :func:`resolve`; the message names file and key.
    """
    return resolve({}, path)


def resolve(flags: Mapping[str, Any], path: Path | str | None = None) -> RunConfig:
    """Defaults, then the preset, then the TOML file `path`, then `flags` (nested like the tree).

    A quick run shortens the defaults and the preset; what file and flags say stays.

    A preset has the authors' settings; `follow` in the file or the flags sets those in which the
    authors depart from the equations, before what the same file or flags set one by one.

    The preset is the one named by the flags, or else by the file. The defaults are those of the
    task and method finally chosen; see :func:`default_config`. With a preset, the
    agent's defaults are the method's own, not the default run's. If another method than the
    preset's is chosen, the same task's preset for that method is used; a method without one gets
    what :meth:`vgf.runs.presets.Preset.settings_for` says. Likewise, a method that the flags name
    brings its own settings in place of those that the file has for another one. Methods are known
    in upper and lower case.

    Raises:
        VGFError: as :func:`vgf.support.toml.read_toml`, :func:`vgf.runs.presets.find_preset` and
            :func:`vgf.support.settings_tree.override`.
    """
    file = spelled(read_settings(path)) if path is not None else {}
    flags = spelled(flags)
    file = _for_method(file, flags)
    preset = _preset_asked_for(file, flags, str(path))
    layers = (preset.settings if preset else {}, file, flags)
    env = asked_for("task.env", layers, DEMO_ENV)
    method = known_method(asked_for("agent.method", layers, DEMO_METHOD))
    config = default_config(env, method)
    if preset is not None:
        preset = preset.of_method(method)
        config = replace(config, agent=method_settings(method))
        settings = of_method(preset.settings_for(method), config.agent)
        config = override(config, settings, f"preset {preset.name}")
    if flags.get("quick", file.get("quick")) is True:
        config = shortened(config)
    for layer, source in ((file, str(path)), (flags, "flags")):
        config = override(config, _followed(layer, layers, method, preset, env), source)
        config = override(config, of_method(layer, config.agent), source)
    return replace(config, preset=preset.name if preset else None)


def spelled(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """A layer with its method's name as the method spells it, whatever the case."""
    agent = layer.get("agent")
    name = agent.get("method") if isinstance(agent, Mapping) else None
    same = [known for known in method_names() if known == str(name).lower()]
    return {**layer, "agent": {**agent, "method": same[0]}} if agent and same else layer


def _for_method(file: Mapping[str, Any], flags: Mapping[str, Any]) -> Mapping[str, Any]:
    """A file without what it says for another method than the one that the flags name."""
    before, now = (asked_for("agent.method", (layer,), None) for layer in (file, flags))
    if before is None or now is None or before == now or known_method(now) != now:
        return file
    other, own = (vars(method_settings(known_method(name))) for name in (before, now))
    agent = {
        key: value
        for key, value in without_own(file["agent"], now).items()
        if key in own or key not in other
    }
    return {**file, "agent": agent}


def _followed(
    layer: Mapping[str, Any],
    layers: Sequence[Mapping[str, Any]],
    method: str,
    preset: Preset | None,
    env: str | None,
) -> dict[str, Any]:
    """What a layer's `follow` sets: the settings in which the authors and the equations differ."""
    which = layer.get("follow")
    if which not in FOLLOW:
        return {}
    try:
        benchmark = preset.benchmark if preset else find_task(env).kind
    except VGFError:  # a task that is refused when its data are sought
        benchmark = ""
    tables = [one["online"] for one in layers if isinstance(one.get("online"), Mapping)]
    online = [table["steps"] for table in tables if "steps" in table][-1:] not in ([], [0])
    scratch = online and asked_for("online.mixing", layers, None) == SCRATCH
    return following(which, departures(method, benchmark, online, scratch))


def read_settings(path: Path | str) -> dict[str, Any]:
    """A TOML file of settings, the files of code that its agent names with their full paths.

    Raises:
        VGFError: as :func:`vgf.support.toml.read_toml`.
    """

    def absolute(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: absolute(x) for key, x in value.items()}
        return absolute_name(value) if isinstance(value, str) else value

    values = read_toml(path)
    return {**values, "agent": absolute(values["agent"])} if "agent" in values else values


def known_method(name: Any) -> str:
    """The requested method, loaded; the default one if there is no such method.

    :func:`vgf.support.settings_tree.override` refuses that name afterwards, and says why.

    Raises:
        VGFError: your own method cannot be loaded here.
    """
    try:
        registry.find(Declared, str(name), "method")
    except ValueError as error:
        if ":" in str(name):
            raise VGFError(f"agent.method: {error}") from error
        return DEMO_METHOD
    return str(name)


def of_method(values: Mapping[str, Any], agent: Settings) -> Mapping[str, Any]:
    """A layer of settings without those that only methods other than the agent's have."""
    table = values.get("agent")
    if not isinstance(table, Mapping):
        return values
    own = {entry.name for entry in fields(agent)}
    others = {setting.name for setting in settings_of_methods()} - own
    return {**values, "agent": {key: x for key, x in table.items() if key not in others}}


def _preset_asked_for(
    file: Mapping[str, Any], flags: Mapping[str, Any], source: str
) -> Preset | None:
    """The preset named by the flags, or else by the file, or None."""
    name = (flags if "preset" in flags else file).get("preset")
    where = "--preset" if "preset" in flags else f"{source}: preset"
    if not isinstance(name, str) or name.lower() == NONE:
        return None
    return find_preset(name, where)


def asked_for(
    key: str, layers: Sequence[Mapping[str, Any]], default: str | None, choices: Sequence[str] = ()
) -> Any:
    """The value that the last of some nested layers gives a key that decides the defaults.

    It is a string, or None where they say "none". A wrong value (not a string, or not one of the
    choices) counts as absent here; :func:`vgf.support.settings_tree.override` refuses it.
    """
    *tables, last = key.split(".")
    found = default
    for layer in layers:
        table: Any = layer
        for name in tables:
            table = table.get(name) if isinstance(table, Mapping) else None
        if not isinstance(table, Mapping) or last not in table:
            continue
        value = table[last]
        if choices:
            found = value if value in choices else found
        elif value is None or (isinstance(value, str) and value.strip()):
            found = None if value is None or value.lower() == NONE else value
    return found
