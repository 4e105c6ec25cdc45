"""Learning with less precise matrix products: curves compared with those of float32.

    python -m validation.precision                    # on a GPU TF32 too

One task, the same seeds, data and batches; only `--matmul-precision` differs.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vgf.backends import BackendError, get_backend
from vgf.backends.base import MATMUL_PRECISIONS
from vgf.runs.report import Run, find_runs

from .experiment import Data, Experiment, Verdict, estimate, main, percent
from .figures import PAGE, figure, line
from .online import curve, vgf
from .pages import Table

EXACT = MATMUL_PRECISIONS[0]
# By what share of episodes a mean may lie below that of float32.
MARGIN = 0.05


@dataclass(frozen=True)
class Setup:
    """How long, and how often.

    Args:
        updates: of each training.
        every: updates between evaluations.
        episodes: of an evaluation.
        seeds: of each precision.
        backend: of all runs.
    """

    updates: int = 8_000
    every: int = 1_000
    episodes: int = 50
    seeds: int = 4
    backend: str = "jax"


def precisions(backend: str) -> list[str]:
    """The precisions of the device in use."""
    found = []
    for name in MATMUL_PRECISIONS:
        try:
            get_backend(backend, dtype="float32", matmul_precision=name)
        except BackendError:
            continue
        found.append(name)
    return found


def measure(setup: Setup) -> Data:
    """Train in every precision."""
    curves = {}
    device = get_backend(setup.backend).device
    with tempfile.TemporaryDirectory() as scratch:
        for name in precisions(setup.backend):
            place = Path(scratch) / name
            vgf(
                "run",
                "--backend",
                setup.backend,
                "--matmul-precision",
                name,
                "--seeds",
                setup.seeds,
                "--steps",
                setup.updates,
                "--evaluate-every",
                setup.every,
                "--episodes",
                setup.episodes,
                "--evaluation-steps",
                1,
                "--out",
                place,
            )
            curves[name] = [curves_of(run) for run in find_runs(place)]
    return {"curves": curves, "device": device}


def curves_of(run: Run) -> dict[str, Any]:
    """Success at the training budget and the critic's loss, over the updates."""
    losses = {str(row["step"]): row["critic_loss"] for row in run.metrics}
    return {
        "seed": run.config["seed"],
        **curve(run, "step"),
        "loss_steps": [int(step) for step in losses],
        "critic_loss": list(losses.values()),
    }


def differences(data: Data, name: str) -> np.ndarray:
    """Success over the whole curve in a precision, less that in float32, seed by seed."""
    means = {
        which: np.array([np.mean(found["success"]) for found in data["curves"][which]])
        for which in (name, EXACT)
    }
    return means[name] - means[EXACT]


def judge(data: Data) -> list[Verdict]:
    """No precision learns worse than float32."""
    verdicts = []
    for name in data["curves"]:
        if name == EXACT:
            continue
        gaps = differences(data, name)
        shown = ", ".join(f"{100 * gap:+.1f}" for gap in gaps)
        verdicts.append(
            Verdict(
                f"{name}: success, mean of the curve, is at most {100 * MARGIN:.0f} % of episodes "
                "below float32's",
                bool(np.mean(gaps) >= -MARGIN),
                f"{100 * np.mean(gaps):+.1f} %; by seed: {shown}",
            )
        )
    return verdicts


def tables(data: Data) -> list[Table]:
    """Success at every evaluation, and the critic's loss at the end."""
    steps = data["curves"][EXACT][0]["steps"]
    rows = []
    for name, curves in data["curves"].items():
        loss = np.array([np.mean(found["critic_loss"][-3:]) for found in curves])
        rows.append(
            [
                name,
                *(
                    percent(estimate([found["success"][i] for found in curves]))
                    for i in range(len(steps))
                ),
                f"{loss.mean():.3g}",
            ]
        )
    header = ("products in", *(f"{count:,} updates" for count in steps), "critic loss at the end")
    return [Table("Success in %, mean over the seeds (95 % interval)", header, rows)]


def remarks(data: Data) -> list[str]:
    """What was not run."""
    absent = [name for name in MATMUL_PRECISIONS if name not in data["curves"]]
    found = [f"Trained on {data['device']}; evaluated in the same precision."]
    if absent:
        found.append(
            f"Not run: {', '.join(absent)}, which this device does not have. TF32 keeps 10 bits of "
            "an operand's fraction, bf16 7, float32 23."
        )
    return found


def draw(data: Data, stem: Path) -> None:
    """Success, then the critic's loss: a line for each precision, its seeds thin."""
    with figure(stem, PAGE, 2.4) as drawing:
        success, loss = drawing.subplots(1, 2)
        for number, (name, curves) in enumerate(data["curves"].items()):
            style = line(number)
            steps = curves[0]["steps"]
            for found in curves:
                success.plot(
                    steps,
                    100 * np.array(found["success"]),
                    linewidth=0.5,
                    alpha=0.5,
                    color=style["color"],
                )
            mean = 100 * np.mean([found["success"] for found in curves], axis=0)
            success.plot(steps, mean, label=name, **style)
            losses = np.mean([found["critic_loss"] for found in curves], axis=0)
            loss.plot(curves[0]["loss_steps"], losses, label=name, **{**style, "marker": None})
        success.set_ylabel("success in %")
        success.set_ylim(-3, 103)
        loss.set_ylabel("critic loss")
        loss.set_yscale("log")
        for axes in (success, loss):
            axes.set_xlabel("updates")
        success.legend(loc="lower right")


EXPERIMENT = Experiment(
    name="precision",
    title="Learning with less precise matrix products",
    about=(
        "pointmaze-medium, task 1, as in the default run, in JAX. Products of float32 numbers are "
        "as precise as float32, or their operands are rounded to TF32 or bf16 and the sums kept in "
        "float32; all else stays float32. What would refute that learning is no worse: a success, "
        f"averaged over the curve and the seeds, more than {100 * MARGIN:.0f} % of episodes "
        "below float32's."
    ),
    setup=Setup(),
    quick=Setup(updates=40, every=20, episodes=2, seeds=2),
    measure=measure,
    judge=judge,
    tables=tables,
    remarks=remarks,
    draw=draw,
    caption=(
        "Left: success at the training budget, thin lines single seeds. Right: the critic's loss, "
        "mean of the seeds."
    ),
)


if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], "precision", __doc__, None))
