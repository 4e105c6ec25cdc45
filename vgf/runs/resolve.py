"""A run's settings from their layers: defaults, a preset, a TOML file, flags; the later wins.

The preset is one of vgf/runs/presets/; the defaults are those of the task and of the method that
the others ask for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..methods import Declared, registry
from ..spec.settings import Settings, method_settings, settings_of_methods
from ..support.errors import VGFError
from ..support.settings_tree import NONE, override
from ..support.toml import read_toml
from .config import DEMO_ENV, DEMO_METHOD, RunConfig, default_config
from .presets import Preset, find_preset


def load_config(path: Path | str) -> RunConfig:
    """Read a configuration; what the file does not name is as :func:`default_config` says.

    Raises:
        VGFError: as :func:`resolve`; the message names file and key.
    """
    return resolve({}, path)


def resolve(flags: Mapping[str, Any], path: Path | str | None = None) -> RunConfig:
    """Defaults, then the preset, then the TOML file `path`, then `flags` (nested as the tree is).

    The preset is the one that the flags name, or else the file. The defaults are those of the task
    and of the method that are asked for in the end; see :func:`default_config`. With a preset, the
    agent's defaults are the method's own, not the default run's. Where another method than the
    preset's is asked for, the same task's preset of that method is meant; a method that has none
    gets what :meth:`vgf.runs.presets.Preset.settings_for` says.

    Raises:
        VGFError: as :func:`vgf.support.toml.read_toml`, :func:`vgf.runs.presets.find_preset` and
            :func:`vgf.support.settings_tree.override`.
    """
    file = read_toml(path) if path is not None else {}
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
    config = override(config, of_method(file, config.agent), str(path))
    config = override(config, of_method(flags, config.agent), "flags")
    return replace(config, preset=preset.name if preset else None)


def known_method(name: Any) -> str:
    """A method by its name, loaded; the default one where the name is no method's.

    :func:`vgf.support.settings_tree.override` refuses that name afterwards, and says why.

    Raises:
        VGFError: a method of somebody's own that cannot be loaded here.
    """
    try:
        registry.find(Declared, str(name), "method")
    except ValueError as error:
        if ":" in str(name):
            raise VGFError(f"agent.method: {error}") from error
        return DEMO_METHOD
    return str(name)


def of_method(values: Mapping[str, Any], agent: Settings) -> Mapping[str, Any]:
    """A layer of settings without those that only other methods than the agent's have."""
    table = values.get("agent")
    if not isinstance(table, Mapping):
        return values
    own = {entry.name for entry in fields(agent)}
    others = {setting.name for setting in settings_of_methods()} - own
    return {**values, "agent": {key: x for key, x in table.items() if key not in others}}


def _preset_asked_for(
    file: Mapping[str, Any], flags: Mapping[str, Any], source: str
) -> Preset | None:
    """The preset that the flags name, or else the file, or None."""
    name = (flags if "preset" in flags else file).get("preset")
    where = "--preset" if "preset" in flags else f"{source}: preset"
    if not isinstance(name, str) or name.lower() == NONE:
        return None
    return find_preset(name, where)


def asked_for(
    key: str, layers: Sequence[Mapping[str, Any]], default: str | None, choices: Sequence[str] = ()
) -> Any:
    """What the last of some nested layers of settings says of a key that decides the defaults.

    It is a text, or None where they say "none". A wrong value (no text, or none of the choices)
    counts as absent here; :func:`vgf.support.settings_tree.override` refuses it.
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
