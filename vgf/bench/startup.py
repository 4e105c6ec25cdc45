"""How long it takes until something happens: the help, the first update, a report, a check."""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..runs.config import RunConfig, TaskSettings, TrainSettings, save_config
from ..runs.folder import environment
from ..runs.log import METRICS
from ..support.errors import VGFError
from ..support.progress import progress
from .interleave import PAUSE, Timer, package_path, take_turns
from .machine import machine
from .ours import backend_settings
from .training import Case, Data, Plan, Say

_HELP = "import sys; from vgf.cli import main; sys.exit(main(['--help']))"
_RUN = "import sys; from vgf.cli import main; sys.exit(main(sys.argv[1:]))"
_LOOK = 0.005  # seconds between two looks at the log
BARE, IMPORT, HELP = "python alone", "import vgf", "vgf --help"
ALL_HELP, REPORT = "vgf run --help-all", "vgf report"
# What each of these imports, to be told from what it does.
IMPORTS = {ALL_HELP: "vgf.cli.run, vgf.runs.flags, vgf.runs.start", REPORT: "vgf.runs.report"}
CHECKS = {name: f"vgf check phi in {name}" for name in ("numpy", "torch", "jax")}
_LIBRARIES = {"numpy": "numpy as xp", "torch": "torch as xp", "jax": "jax.numpy as xp"}
# The equation as a user writes it; what torch calls the median is the lower one.
_PHI = """\
import math
import {library}

def phi(a, g, temperature):
    difference = a[..., :, None, :] - a[..., None, :, :]
    squared = (difference**2).sum(-1)
    n = a.shape[-2]
    middle = {median}[..., None, None]
    sigma_squared = xp.clip(middle / (2 * math.log(n + 1)), 1e-12, None)
    k = xp.exp(-squared / (2 * sigma_squared))
    repulsion = (k[..., None] * difference).sum(-2) / sigma_squared
    return (k @ (g / temperature) + repulsion) / n
"""
_MEDIANS = {
    "numpy": "xp.median(squared, axis=(-2, -1))",
    "torch": "xp.quantile(squared.flatten(-2), 0.5, dim=-1)",
    "jax": "xp.median(squared, axis=(-2, -1))",
}


def measure(plan: Plan, say: Say = lambda line: None) -> Data:
    """The seconds to `import vgf`, to the help, to the first update of a run, to its report, and
    until `vgf check` agrees with phi in each framework, by turns.

    The first update is over when its row is in the log of `vgf run`. "compiled anew" has an empty
    cache of compiled programs, "compiled before" the one that a run before it left. The report is
    of a run that has one, as after every `vgf run`.

    Args:
        plan: what is measured; its peers have no part in it.
        say: takes a table for each work.

    Returns:
        What JSON can hold.

    Raises:
        VGFError: what is wrong with the request, or cannot be run.
    """
    found: Data = {
        "kind": "startup",
        "environment": environment(),
        "machine": machine(),
        "rows": [],
    }
    for case in plan.cases():
        found["rows"].append(_measure(plan, case))
        say(startup_text(found["rows"][-1]))
    return found


def _measure(plan: Plan, case: Case) -> Data:
    work = case.work
    with tempfile.TemporaryDirectory(prefix="vgf-bench-") as folder:
        place = Path(folder)
        np.savez(place / "data.npz", **work.dataset())  # type: ignore[arg-type]
        timers = {BARE: _process("pass"), IMPORT: _process("import vgf"), HELP: _process(_HELP)}
        for name, modules in IMPORTS.items():
            timers[imports_of(name)] = _process(f"import {modules}")
        timers[ALL_HELP] = _process(_RUN, "run", "--help-all")
        sides = {
            side: backend_settings(side, plan.device, plan.dtype, case.precision)
            for side in plan.sides
        }
        used = {"numpy", *(settings.name for settings in sides.values())}
        for name, check in CHECKS.items():
            if name in used:
                timers[f"import {name}"] = _process(f"import {_LIBRARIES[name]}")
                own = place / f"phi_{name}.py"
                own.write_text(_PHI.format(library=_LIBRARIES[name], median=_MEDIANS[name]))
                timers[check] = _process(_RUN, "check", f"{own}:phi", "--as", "phi")
        for side, settings in sides.items():
            config = RunConfig(
                task=TaskSettings(env=None, data=str(place / "data.npz"), action_repeat=1),
                agent=work.settings(),
                train=TrainSettings(steps=1, batch_size=work.batch_size, log_every=1),
                backend=settings,
            )
            file = place / f"{side}.toml"
            save_config(config, file)
            kept = place / f"{side}-cache"
            timers[f"{side}, compiled anew"] = _first_update(file, place, None)
            timers[f"{side}, compiled before"] = _first_update(file, place, kept)
            timers[f"{side}, compiled before"](1)  # leaves the cache
        made = place / "run"
        _process(_RUN, "run", "--config", str(file), "--out", str(made))(1)
        timers[REPORT] = _process(_RUN, "report", str(made))
        with progress(len(timers) * plan.rounds, work.name, "start") as bar:
            times = take_turns(timers, dict.fromkeys(timers, 1), plan.rounds, bar.update, PAUSE)
    return {"work": dataclasses.asdict(work), "title": case.title, "seconds": times}


def imports_of(name: str) -> str:
    """The row of what a command imports."""
    return f"imports of {name}"


def _process(code: str, *words: str) -> Timer:
    """A timer of Python running a piece of code, with nothing printed."""

    def timer(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            done = subprocess.run(
                [sys.executable, "-c", code, *words],
                capture_output=True,
                text=True,
                env={**os.environ, **package_path()},
                check=False,
            )
            if done.returncode:
                raise VGFError(f"{code}: {done.stderr.strip()}")
        return time.perf_counter() - start

    return timer


def _first_update(config: Path, folder: Path, cache: Path | None) -> Timer:
    """A timer of `vgf run` until its first update is logged."""

    def timer(count: int) -> float:
        seconds = 0.0
        for _ in range(count):
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                out = Path(scratch) / "run"
                kept = str(cache or Path(scratch) / "cache")
                seconds += _until_logged(
                    config, out, {"VGF_CACHE_DIR": kept, "TORCHINDUCTOR_CACHE_DIR": f"{kept}/torch"}
                )
        return seconds

    return timer


def _until_logged(config: Path, out: Path, variables: Mapping[str, str]) -> float:
    words = ["run", "--config", str(config), "--out", str(out)]
    start = time.perf_counter()
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            [sys.executable, "-c", _RUN, *words],
            stdout=said,
            stderr=said,
            env={**os.environ, **package_path(), **variables},
        ) as process,
    ):
        log = out / f"{METRICS}.jsonl"
        seconds = None
        while process.poll() is None:
            if seconds is None and log.exists() and log.stat().st_size:
                seconds = time.perf_counter() - start
            time.sleep(_LOOK)
        if process.returncode or not log.exists():
            said.seek(0)
            raise VGFError(f"vgf run failed: {said.read().decode(errors='replace').strip()}")
    return time.perf_counter() - start if seconds is None else seconds


def startup_text(row: Data) -> str:
    """One work as a table, in 80 columns."""
    from ..support.tables import format_table

    return f"{row['title']}\n{format_table(table_rows(row['seconds']))}\n"


def table_rows(times: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """A line for each of what was timed."""
    return [
        {
            "until": name if ", " not in name else f"first update, {name}",
            "s": f"{statistics.median(seconds):.3g}",
            "lowest": f"{min(seconds):.3g}",
            "highest": f"{max(seconds):.3g}",
        }
        for name, seconds in times.items()
    ]
