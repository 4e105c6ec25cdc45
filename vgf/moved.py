"""Modules and names as they were up to version 0.1: they still import, and say the new name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# The old name, and where its contents are now; the first of several that has a name wins.
MOVED: dict[str, tuple[str, ...]] = {
    "vgf.acting": ("vgf.runs.acting",),
    "vgf.checkpoint": ("vgf.runs.checkpoint",),
    "vgf.config": ("vgf.runs.config",),
    "vgf.data.collect": ("vgf.recording.collect", "vgf.environments.making"),
    "vgf.data.common": ("vgf.support.callbacks", "vgf.support.processes"),
    "vgf.data.d4rl": ("vgf.benchmarks.d4rl", "vgf.data.hdf5"),
    "vgf.data.environments": (
        "vgf.environments.making",
        "vgf.environments.fitting",
        "vgf.benchmarks.ogbench_environment",
    ),
    "vgf.data.formats": ("vgf.recording.formats", "vgf.benchmarks.gymnasium"),
    "vgf.data.minari": ("vgf.benchmarks.minari",),
    "vgf.data.ogbench": ("vgf.benchmarks.ogbench",),
    "vgf.data.policies": ("vgf.recording.policies",),
    "vgf.data.pool": ("vgf.environments.pool",),
    "vgf.data.record": ("vgf.benchmarks.ogbench_oracles",),
    "vgf.data.source": ("vgf.benchmarks", "vgf.benchmarks.files"),
    "vgf.data.stand_ins": ("vgf.benchmarks.stand_ins",),
    "vgf.errors": ("vgf.support.errors",),
    "vgf.evaluate": ("vgf.runs.evaluation",),
    "vgf.extras": ("vgf.support.extras",),
    "vgf.files": ("vgf.support.files",),
    "vgf.flags": ("vgf.runs.flags",),
    "vgf.functions": ("vgf.support.objects",),
    "vgf.metrics": ("vgf.runs.log",),
    "vgf.online": ("vgf.runs.online",),
    "vgf.presets": ("vgf.runs.presets",),
    "vgf.report": ("vgf.runs.report",),
    "vgf.scores": ("vgf.support.statistics",),
    "vgf.start": ("vgf.runs.start",),
    "vgf.tasks": (
        "vgf.benchmarks.tasks",
        "vgf.benchmarks.d4rl",
        "vgf.benchmarks.gymnasium",
        "vgf.benchmarks.minari",
        "vgf.benchmarks.ogbench",
        "vgf.environments.making",
    ),
    "vgf.testing.adapter": ("vgf.checker.adapter",),
    "vgf.testing.alternatives": ("vgf.checker.alternatives",),
    "vgf.testing.checking": ("vgf.checker.checking",),
    "vgf.testing.diagnosis": ("vgf.checker.diagnosis",),
    "vgf.testing.subjects": ("vgf.checker.subjects",),
    "vgf.testing.trial": ("vgf.checker.trial",),
    "vgf.train": ("vgf.runs.loop",),
    "vgf.updates": ("vgf.runs.updates",),
}


# Names of a module that are elsewhere now: MODULE, or MODULE:NAME where the name is another one.
MOVED_NAMES: dict[str, dict[str, str]] = {
    "vgf.data": {
        "Source": "vgf.benchmarks:FoundTask",
        "d4rl_table": "vgf.benchmarks.d4rl",
        "find_source": "vgf.benchmarks:find_task",
        "generate_ogbench": "vgf.benchmarks.ogbench_oracles",
        "load_ogbench": "vgf.benchmarks.ogbench",
        "normalised_score": "vgf.benchmarks.d4rl",
        "ogbench_tasks": "vgf.benchmarks.ogbench",
        "parse_task": "vgf.benchmarks.ogbench",
        "read_file": "vgf.benchmarks.files",
        "read_minari": "vgf.benchmarks.minari",
        "read_raw": "vgf.benchmarks",
    },
    "vgf.data.collect": {"Policy": "vgf.recording.policies:BehaviourPolicy"},
    "vgf.data.formats": {"read_record": "vgf.data.provenance:read_json"},
    "vgf.data.parts": {
        "differences": "vgf.data.provenance",
        "read_record": "vgf.data.provenance:read_json",
        "same_making": "vgf.data.provenance",
        "versions": "vgf.data.provenance",
    },
    "vgf.data.policies": {"Policy": "vgf.recording.policies:BehaviourPolicy"},
    "vgf.data.source": {
        "Source": "vgf.benchmarks:FoundTask",
        "find_source": "vgf.benchmarks:find_task",
    },
}


def old_names(module: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module in :data:`MOVED_NAMES`: its old names, from their homes."""

    def find(name: str) -> Any:
        if name not in MOVED_NAMES[module]:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, renamed = MOVED_NAMES[module][name].partition(":")
        now = renamed or name
        warnings.warn(f"{module}.{name} is now {home}.{now}", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(home), now)

    return find


class OldNames(MetaPathFinder, Loader):
    """Finds the modules of :data:`MOVED`; imports nothing before one of their names is used."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        homes = MOVED[name]
        warnings.warn(f"{name} is now {' and '.join(homes)}", DeprecationWarning, stacklevel=2)

        def find(attribute: str) -> Any:
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            if attribute in MOVED_NAMES.get(name, {}):
                return old_names(name)(attribute)
            for home in homes:
                found = importlib.import_module(home)
                if hasattr(found, attribute):
                    return getattr(found, attribute)
            raise AttributeError(f"{name}, now {' and '.join(homes)}, has no {attribute!r}")

        module.__getattr__ = find  # type: ignore[method-assign]


def keep_old_names() -> None:
    """Let the old names be imported."""
    sys.meta_path.append(OldNames())
