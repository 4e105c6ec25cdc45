"""Modules under the names they had up to version 0.1: they still import, and say the new name."""

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
    "vgf.acting": ("vgf.runs.agent",),
    "vgf.checkpoint": ("vgf.runs.checkpoint", "vgf.runs.folder", "vgf.support.files"),
    "vgf.config": (
        "vgf.runs.config",
        "vgf.runs.resolve",
        "vgf.support.settings_tree",
        "vgf.support.toml",
        "vgf.support.checks",
        "vgf.support.suggestions",
    ),
    "vgf.data.collect": (
        "vgf.recording.collect",
        "vgf.recording.policies",
        "vgf.environments.making",
    ),
    "vgf.data.d4rl": (
        "vgf.benchmarks.d4rl",
        "vgf.benchmarks.d4rl_infos",
        "vgf.benchmarks.copy_d4rl_infos",
        "vgf.data.hdf5",
    ),
    "vgf.data.environments": (
        "vgf.environments.making",
        "vgf.environments.fitting",
        "vgf.benchmarks.ogbench_environment",
    ),
    "vgf.data.formats": (
        "vgf.recording.formats",
        "vgf.benchmarks.base",
        "vgf.benchmarks.gymnasium",
        "vgf.benchmarks.minari",
        "vgf.data.provenance",
    ),
    "vgf.data.minari": ("vgf.benchmarks.minari",),
    "vgf.data.ogbench": ("vgf.benchmarks.ogbench",),
    "vgf.data.policies": ("vgf.recording.policies",),
    "vgf.data.record": ("vgf.benchmarks.ogbench_oracles",),
    "vgf.data.source": ("vgf.benchmarks", "vgf.benchmarks.files"),
    "vgf.data.stand_ins": ("vgf.benchmarks.stand_ins",),
    "vgf.data.common": ("vgf.support.callbacks", "vgf.support.processes"),
    "vgf.data.pool": ("vgf.environments.pool",),
    "vgf.errors": ("vgf.support.errors",),
    "vgf.evaluate": ("vgf.runs.evaluation", "vgf.runs.scores"),
    "vgf.extras": ("vgf.support.extras",),
    "vgf.files": ("vgf.support.files",),
    "vgf.flags": ("vgf.runs.flags",),
    "vgf.functions": ("vgf.support.objects",),
    "vgf.metrics": ("vgf.runs.log", "vgf.runs.scores", "vgf.support.rows", "vgf.support.progress"),
    "vgf.online": ("vgf.runs.online",),
    "vgf.presets": ("vgf.runs.presets",),
    "vgf.report": (
        "vgf.runs.report",
        "vgf.runs.scores",
        "vgf.support.figures",
        "vgf.support.tables",
    ),
    "vgf.scores": ("vgf.support.statistics",),
    "vgf.spec.amortised": ("vgf.spec.methods.avgf",),
    "vgf.spec.baselines": ("vgf.spec.methods.fql", "vgf.spec.methods.weighted_bc"),
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
    "vgf.train": (
        "vgf.runs.loop",
        "vgf.runs.agent",
        "vgf.runs.task",
        "vgf.support.interrupts",
        "vgf.support.progress",
    ),
    "vgf.updates": ("vgf.runs.updates", "vgf.support.interrupts"),
}

# What has another name there.
RENAMED = {
    ("vgf.data.collect", "Policy"): "BehaviourPolicy",
    ("vgf.data.policies", "Policy"): "BehaviourPolicy",
    ("vgf.data.source", "Source"): "FoundTask",
    ("vgf.data.source", "find_source"): "find_task",
    ("vgf.evaluate", "Summary"): "Score",
    ("vgf.metrics", "Progress"): "ProgressBar",
    ("vgf.online", "episode_seed"): "collection_seed",
    ("vgf.presets", "Source"): "Origin",
    ("vgf.updates", "Run"): "Training",
}


# Names that a module had beside those it has, and where they are now: the module, and the name.
MOVED_NAMES: dict[str, dict[str, tuple[str, str]]] = {
    "vgf.data": {
        "Source": ("vgf.benchmarks", "FoundTask"),
        "d4rl_table": ("vgf.benchmarks.d4rl_infos", "d4rl_table"),
        "find_source": ("vgf.benchmarks", "find_task"),
        "generate_ogbench": ("vgf.benchmarks.ogbench_oracles", "generate_ogbench"),
        "load_ogbench": ("vgf.benchmarks.ogbench", "load_ogbench"),
        "normalised_score": ("vgf.benchmarks.d4rl_infos", "normalised_score"),
        "ogbench_tasks": ("vgf.benchmarks.ogbench", "ogbench_tasks"),
        "parse_task": ("vgf.benchmarks.ogbench", "parse_task"),
        "read_file": ("vgf.benchmarks.files", "read_file"),
        "read_minari": ("vgf.benchmarks.minari", "read_minari"),
        "read_raw": ("vgf.benchmarks", "read_raw"),
    },
    "vgf.data.parts": {
        "read_record": ("vgf.data.provenance", "read_json"),
        "same_making": ("vgf.data.provenance", "same_making"),
        "versions": ("vgf.data.provenance", "versions"),
    },
}


def old_names(module: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module in :data:`MOVED_NAMES`: its old names, from their homes."""

    def find(name: str) -> Any:
        if name not in MOVED_NAMES[module]:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, now = MOVED_NAMES[module][name]
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
            now = RENAMED.get((name, attribute), attribute)
            for home in homes:
                found = importlib.import_module(home)
                if hasattr(found, now):
                    return getattr(found, now)
            raise AttributeError(f"{name}, now {' and '.join(homes)}, has no {attribute!r}")

        module.__getattr__ = find  # type: ignore[method-assign]


def keep_old_names() -> None:
    """Let the old names be imported."""
    sys.meta_path.append(OldNames())
