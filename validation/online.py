"""Offline to online: a curve that rises.

    python -m validation.online

An agent is trained on a few episodes of pointmaze by torch, too few for it; a run on JAX starts
from its checkpoint and goes on online, in each of the three mixing styles.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vgf.cli import main as vgf_main
from vgf.errors import VGFError
from vgf.metrics import by_budget
from vgf.report import Run, find_runs

from .experiment import Data, Experiment, Verdict, estimate, main, percent
from .figures import COLUMN, band, figure, line
from .pages import Table

STYLES = ("iql", "rlpd", "wsrl")


@dataclass(frozen=True)
class Setup:
    """How long.

    Args:
        data_episodes: of offline data.
        offline: updates.
        online: environment steps, one update each after the warm-up.
        warmup: environment steps before the first update.
        every: environment steps between evaluations.
        episodes: of an evaluation.
        seeds: of each.
    """

    data_episodes: int = 5
    offline: int = 1_000
    online: int = 2_000
    warmup: int = 500
    every: int = 500
    episodes: int = 15
    seeds: int = 3


def vgf(*words: Any) -> None:
    """Run a command of `vgf`.

    Raises:
        VGFError: it failed.
    """
    if vgf_main([str(word) for word in words]):
        raise VGFError(f"vgf {' '.join(map(str, words))} failed; see above")


def measure(setup: Setup) -> Data:
    """Train offline, then online in each style."""
    curves: dict[str, list[Any]] = {style: [] for style in STYLES}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(setup.seeds):
            start = Path(scratch) / f"offline-{seed}"
            vgf(
                "run", "--backend", "torch", "--eager", "--seed", seed, "--data-episodes",
                setup.data_episodes, "--steps", setup.offline, "--episodes", setup.episodes,
                "--evaluation-steps", 0, 1, "--evaluate-every", setup.offline, "--out", start,
            )  # fmt: skip
            for style in STYLES:
                place = Path(scratch) / f"{style}-{seed}"
                vgf(
                    "run", "--from", start, "--backend", "jax", "--online-steps", setup.online,
                    "--mixing", style, "--warmup", setup.warmup, "--evaluate-every", setup.every,
                    "--out", place,
                )  # fmt: skip
                curves[style].append(curve(find_runs(place)[0]))
    return {"curves": curves}


def curve(run: Run) -> dict[str, Any]:
    """The success of VGF at its training budget over the environment steps."""
    budget = run.config["agent"]["budget"]["steps"]
    rows = by_budget(run.evaluations)[budget]
    steps = sorted({int(row["environment_steps"] or 0) for row in rows})
    return {
        "steps": steps,
        "success": [
            float(np.mean([row["success"] for row in rows
                           if int(row["environment_steps"] or 0) == step]))
            for step in steps
        ],
    }  # fmt: skip


def judge(data: Data) -> list[Verdict]:
    """Each style ends above where it began, in every seed."""
    verdicts = []
    for style, curves in data["curves"].items():
        gains = [curve["success"][-1] - curve["success"][0] for curve in curves]
        shown = ", ".join(f"{100 * gain:+.0f}" for gain in gains)
        verdicts.append(
            Verdict(
                f"{style}: the last success is above the offline agent's for every seed",
                bool(np.all(np.array(gains) > 0)),
                f"gain in % of episodes, by seed: {shown}",
            )
        )
    return verdicts


def tables(data: Data) -> list[Table]:
    """Success before, half way and at the end."""
    rows = []
    for style, curves in data["curves"].items():
        steps = curves[0]["steps"]
        picked = (0, len(steps) // 2, len(steps) - 1)
        rows.append([style] + [
            percent(estimate([curve["success"][i] for curve in curves])) for i in picked
        ])  # fmt: skip
        header = ("mixing", *(f"after {steps[i]:,} environment steps" for i in picked))
    return [Table("Success, mean over the seeds (95 % interval)", header, rows)]


def draw(data: Data, stem: Path) -> None:
    """The curves."""
    with figure(stem, COLUMN, 2.4) as drawing:
        axes = drawing.subplots()
        for i, (style, curves) in enumerate(data["curves"].items()):
            steps = curves[0]["steps"]
            found = [estimate([c["success"][k] for c in curves]) for k in range(len(steps))]
            axes.plot(steps, [100 * f["mean"] for f in found], label=style, **line(i))
            low = [100 * max(f["low"], 0) for f in found]
            band(axes, steps, low, [100 * min(f["high"], 1) for f in found], i)
        axes.set_xlabel("environment steps")
        axes.set_ylabel("success in %")
        axes.set_ylim(-3, 103)
        axes.legend(loc="lower right")


EXPERIMENT = Experiment(
    name="online",
    title="Offline to online",
    about=(
        "pointmaze-medium, task 1, as in the default run but with 5 episodes of data and 1,000 "
        "updates, in torch; from that checkpoint a run in JAX goes on online with the offline data "
        "in the buffer (iql), half of each batch offline (rlpd), or online data alone (wsrl). "
        "What would refute that it works: a seed that ends no higher than it began."
    ),
    setup=Setup(),
    quick=Setup(offline=20, online=60, warmup=20, every=30, episodes=2, seeds=2),
    measure=measure,
    judge=judge,
    tables=tables,
    draw=draw,
    caption=(
        "Success of VGF at its training budget over the environment steps, mean over the seeds and "
        "95 % interval."
    ),
)


if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], "online", __doc__, None))
