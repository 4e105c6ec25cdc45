"""Data in other benchmarks' formats, made here, trained on and scored end to end.

    python -m validation.sources

Noisy episodes of a walking policy on gymnasium's Hopper (validation/hopper.py) are recorded twice
by `vgf data make`: as an HDF5 file in D4RL's layout, trained on under the name of a D4RL task and
scored by its reference scores, and as a Minari data set, scored by its return.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vgf.benchmarks.files import read_file
from vgf.cli import main as vgf_main
from vgf.data.inspect import inspect
from vgf.runs.report import find_runs, last_scores
from vgf.support.errors import VGFError

from .experiment import Data, Experiment, Verdict, main
from .pages import Table

D4RL, MINARI = "hopper-medium-v2", "vgf/hopper-v0"
POLICY = "validation.hopper:policy"


@dataclass(frozen=True)
class Setup:
    """How much is recorded and trained.

    Args:
        episodes: recorded in each format.
        noise: standard deviation of the noise on the policy's actions.
        updates: of each training.
        evaluation: episodes for each test budget.
        seeds: of each training.
    """

    episodes: int = 50
    noise: float = 0.3
    updates: int = 2_000
    evaluation: int = 10
    seeds: int = 2


def vgf(*words: Any) -> None:
    """Run a command of `vgf`.

    Raises:
        VGFError: it failed.
    """
    if vgf_main([str(word) for word in words]):
        raise VGFError(f"vgf {' '.join(map(str, words))} failed; see above")


def measure(setup: Setup) -> Data:
    """Record, train and score in both formats."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        file, store = place / "hopper.hdf5", place / "minari"
        record = (
            "data",
            "make",
            "gymnasium:Hopper-v5",
            "--policy",
            POLICY,
            "--noise",
            setup.noise,
            "--episodes",
            setup.episodes,
        )
        vgf(*record, "--out", file)
        vgf(*record, "--out", f"minari:{MINARI}", "--data-dir", store)
        d4rl = train(setup, place / "d4rl", "--env", D4RL, "--data", file)
        minari = train(setup, place / "minari-run", "--env", MINARI, "--data-dir", store)
        found = inspect(read_file(file))
        data = {
            "rows": found.rows,
            "returns": None if found.returns is None else asdict(found.returns),
        }
    return {"recorded": data, "runs": {"D4RL": d4rl, "Minari": minari}}


def train(setup: Setup, folder: Path, *source: Any) -> dict[str, Any]:
    """Train on a source, and what its last evaluation says."""
    vgf(
        "run",
        *source,
        "--steps",
        setup.updates,
        "--evaluate-every",
        setup.updates,
        "--episodes",
        setup.evaluation,
        "--evaluation-steps",
        0,
        1,
        3,
        "--discount",
        0.99,
        "--step-size",
        0.1,
        "--seeds",
        setup.seeds,
        "--out",
        folder,
    )
    runs = find_runs(folder)
    start = runs[0].starts[-1]
    return {
        "task": runs[0].config["task"]["env"],
        "notes": start.get("notes", []),
        "scores": [
            {
                "budget": str(s.budget),
                "kind": s.kind,
                "value": s.value,
                "low": s.low,
                "high": s.high,
                "return": s.returns,
                "length": s.length,
            }
            for s in last_scores(runs)
        ],
    }


def judge(data: Data) -> list[Verdict]:
    """Both formats were scored as they should be, and alike where comparable."""
    verdicts = []
    for name, kind in (("D4RL", "normalised score"), ("Minari", "return")):
        kinds = {score["kind"] for score in data["runs"][name]["scores"]}
        verdicts.append(
            Verdict(f"{name}'s format is scored by its {kind}", kinds == {kind}, ", ".join(kinds))
        )
    best = {
        name: max(score["return"] for score in run["scores"] if score["budget"] != "bc")
        for name, run in data["runs"].items()
    }
    mean = data["recorded"]["returns"]["mean"]
    verdicts += [
        Verdict(
            f"some test budget reaches a higher return than the {name} data's mean",
            value > mean,
            f"{value:.0f} against {mean:.0f}",
        )
        for name, value in best.items()
    ]
    return verdicts


def tables(data: Data) -> list[Table]:
    """The scores, and where they were measured."""
    rows = [
        [
            name,
            score["budget"],
            score["kind"],
            f"{score['value']:.1f}",
            f"{score['low']:.1f} to {score['high']:.1f}",
            f"{score['return']:.0f}",
            f"{score['length']:.0f}",
        ]
        for name, run in data["runs"].items()
        for score in run["scores"]
    ]
    header = ("format", "budget", "score", "mean", "95 % interval", "return", "length")
    notes = [[name, note] for name, run in data["runs"].items() for note in run["notes"]]
    return [
        Table("Last evaluation", header, rows),
        Table("Notes of the runs", ("format", "note"), notes),
    ]


def remarks(data: Data) -> list[str]:
    """What the data were, and how the agents' own clones of them perform."""
    returns = data["recorded"]["returns"]
    clones = {
        name: next(score["return"] for score in run["scores"] if score["budget"] == "bc")
        for name, run in data["runs"].items()
    }
    shown = " and ".join(f"{value:.0f} ({name})" for name, value in clones.items())
    return [
        f"The file has {data['recorded']['rows']:,} transitions; returns from {returns['min']:.0f} "
        f"to {returns['max']:.0f}, mean {returns['mean']:.0f}.",
        f"One sample of the same agents' reference, behaviour cloning, returns {shown}. Where that "
        "is above the data's mean and every test budget below, the fault is not "
        "in the format but in the critic that picks the action.",
    ]


EXPERIMENT = Experiment(
    name="sources",
    title="D4RL's and Minari's formats, end to end",
    about=(
        "One walking policy's noisy episodes on Hopper, recorded in two formats, trained on with "
        "the default run's small networks and scored. What would refute that the formats work: a "
        "score of another kind, or no test budget above the mean return of the data."
    ),
    setup=Setup(),
    quick=Setup(episodes=5, updates=20, evaluation=2, seeds=2),
    measure=measure,
    judge=judge,
    tables=tables,
    remarks=remarks,
)


if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], "sources", __doc__, None))
