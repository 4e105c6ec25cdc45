"""Modules under the names they had up to version 0.1: they still import, and say the new name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Sequence
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
    "vgf.data.collect": ("vgf.recording.collect",),
    "vgf.data.d4rl": ("vgf.benchmarks.d4rl",),
    "vgf.data.environments": ("vgf.benchmarks.environments",),
    "vgf.data.formats": ("vgf.recording.formats",),
    "vgf.data.minari": ("vgf.benchmarks.minari",),
    "vgf.data.ogbench": ("vgf.benchmarks.ogbench",),
    "vgf.data.policies": ("vgf.recording.policies",),
    "vgf.data.record": ("vgf.recording.record",),
    "vgf.data.source": ("vgf.benchmarks.source",),
    "vgf.data.stand_ins": ("vgf.benchmarks.stand_ins",),
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
    "vgf.start": ("vgf.runs.start",),
    "vgf.tasks": ("vgf.benchmarks.tasks",),
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
    ("vgf.evaluate", "Summary"): "Score",
    ("vgf.metrics", "Progress"): "ProgressBar",
    ("vgf.online", "episode_seed"): "collection_seed",
    ("vgf.presets", "Source"): "Origin",
    ("vgf.updates", "Run"): "Training",
}


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
