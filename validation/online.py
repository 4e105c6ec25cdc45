"""Offline to online: a curve that rises.

    python -m validation.online

An agent is trained on a few episodes of pointmaze by torch, too few for it; a run on JAX starts
from its checkpoint and continues online, in each of the three mixing styles.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vgf.cli import main as vgf_main
from vgf.runs.report import Run, find_runs
from vgf.runs.scores import by_budget
from vgf.support.errors import VGFError

from .experiment import Data, Experiment, Verdict, estimate, main, percent
from .figures import PAGE, figure, line
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
                "run",
                "--backend",
                "torch",
                "--eager",
                "--seed",
                seed,
                "--data-episodes",
                setup.data_episodes,
                "--steps",
                setup.offline,
                "--episodes",
                setup.episodes,
                "--evaluation-steps",
                0,
                1,
                "--evaluate-every",
                setup.offline,
                "--out",
                start,
            )
            for style in STYLES:
                place = Path(scratch) / f"{style}-{seed}"
                vgf(
                    "run",
                    "--from",
                    start,
                    "--backend",
                    "jax",
                    "--online-steps",
                    setup.online,
                    "--mixing",
                    style,
                    "--warmup",
                    setup.warmup,
                    "--evaluate-every",
                    setup.every,
                    "--out",
                    place,
                )
                curves[style].append(curve(find_runs(place)[0], "environment_steps"))
    return {"curves": curves}


def curve(run: Run, axis: str) -> dict[str, Any]:
    """The success of VGF at its training budget, over a column of the evaluations."""
    budget = run.config["agent"]["budget"]["steps"]
    rows = by_budget(run.evaluations)[budget]
    steps = sorted({int(row[axis] or 0) for row in rows})
    return {
        "steps": steps,
        "success": [
            float(np.mean([row["success"] for row in rows if int(row[axis] or 0) == step]))
            for step in steps
        ],
    }


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
    """Success at every evaluation."""
    steps = next(iter(data["curves"].values()))[0]["steps"]
    rows = [
        [
            style,
            *(
                percent(estimate([curve["success"][i] for curve in curves]))
                for i in range(len(steps))
            ),
        ]
        for style, curves in data["curves"].items()
    ]
    header = ("mixing", *(f"after {count:,} environment steps" for count in steps))
    return [Table("Success, mean over the seeds (95 % interval)", header, rows)]


def remarks(data: Data) -> list[str]:
    """Where the styles differ."""
    return [
        "wsrl learns from what it collects alone: where the offline agent does not reach the goal, "
        "a few thousand steps hold little to learn from. The other two have the offline data too."
    ]


def draw(data: Data, stem: Path) -> None:
    """A panel for each style: its seeds, and their mean."""
    with figure(stem, PAGE, 2.1) as drawing:
        panels = drawing.subplots(1, len(data["curves"]), sharey=True, squeeze=False)[0]
        for axes, (style, curves) in zip(panels, data["curves"].items(), strict=True):
            steps = curves[0]["steps"]
            for number, curve in enumerate(curves):
                label = "a seed" if number == 0 else None
                seed = [100 * value for value in curve["success"]]
                axes.plot(steps, seed, color="#777777", linewidth=0.8, label=label)
            mean = 100 * np.mean([curve["success"] for curve in curves], axis=0)
            axes.plot(steps, mean, label="mean", **line(0))
            axes.set_title(style, loc="left")
            axes.set_xlabel("environment steps")
            axes.set_xticks(steps[:: max(1, len(steps) // 3)])
            axes.set_ylim(-3, 103)
        panels[0].set_ylabel("success in %")
        panels[-1].legend(loc="upper left")


EXPERIMENT = Experiment(
    name="online",
    title="Offline to online",
    about=(
        "pointmaze-medium, task 1, as in the default run but with 5 episodes of data and 1,000 "
        "updates, in torch; from that checkpoint a run in JAX continues online with the offline "
        "data in the buffer (iql), half of each batch offline (rlpd), or online data alone (wsrl). "
        "What would refute that it works: a seed that ends no higher than it began."
    ),
    setup=Setup(),
    quick=Setup(offline=20, online=60, warmup=20, every=30, episodes=2, seeds=2),
    measure=measure,
    judge=judge,
    tables=tables,
    remarks=remarks,
    draw=draw,
    caption="Success of VGF at its training budget over the environment steps.",
)


if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], "online", __doc__, None))
