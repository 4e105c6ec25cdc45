"""The time of a whole protocol: from the command to the report, ours and the authors' main.py.

    python -m validation.protocol --checkout ryanxhr/vgf=PATH         # both sizes
    python -m validation.protocol 2x64 --checkout ryanxhr/vgf=PATH    # one
    python -m validation.protocol --redraw

Every side is a process of its own, timed from its start to its end, in turns: `vgf run` with one
seed, their main.py with one seed, and `vgf run` with eight seeds side by side. The data are there;
each trains, evaluates at L = 0, 1, 2, 3 and writes what it writes (ours: tables, figures, a report;
theirs: its logs). Theirs is run as in validation.learning, without its evaluation after the first
update. A short run of ours before leaves its compiled programs, as a user's earlier runs do; theirs
keeps none. Data: VGF_VALIDATION_DATA. Nothing else may run meanwhile.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vgf.runs.folder import CONFIG
from vgf.runs.log import METRICS
from vgf.runs.resolve import load_config
from vgf.support.errors import VGFError
from vgf.support.rows import read_rows

from . import learning
from .authors import VGF, modules_of, revision, stand_ins
from .experiment import Data, Experiment, Verdict, spread
from .pages import Table
from .training import DATA, hidden

OURS, THEIRS, MANY = "ours, one seed", "theirs, one seed", "ours, many seeds"
_RUN = "import sys; from vgf.cli import main; sys.exit(main(sys.argv[1:]))"
_MAIN = "import sys; from validation.protocol import theirs; theirs(*sys.argv[1:])"
_PARTS = (
    "compiling",
    "updates",
    "evaluations but the last",
    "starting, the last evaluation and the report",
)


@dataclass(frozen=True)
class Setup:
    """How long, and how often.

    Args:
        name: of the sizes.
        widths: hidden layers of all networks.
        updates: of each training.
        evaluate_every: updates between evaluations.
        episodes: of an evaluation, for each test budget.
        times: how many times as fast as theirs is wanted.
        rounds: of all sides, in turns.
        seeds: of the run with many; 0 leaves it out.
        data_episodes: of the data.
        note: what a reader must know.
    """

    name: str
    widths: tuple[int, ...]
    updates: int
    evaluate_every: int
    episodes: int
    times: float
    rounds: int = 3
    seeds: int = 8
    data_episodes: int = 1000
    note: str = ""


# --- running ------------------------------------------------------------------------------------


def words_of(setup: Setup, seeds: int) -> list[str]:
    """The command of ours, without its folders."""
    return [
        *("run", "--env", "pointmaze-medium-navigate-singletask-task1-v0", "--action-repeat", "8"),
        *("--method", "vgf", "--follow", "authors", "--particles", "5", "--budget-steps", "1"),
        *("--sampling-steps", "10", "--batch-size", "256", "--no-standardise"),
        *hidden(*setup.widths),
        *("--data-episodes", str(setup.data_episodes), "--backend", "jax", "--log-every", "100"),
        *("--steps", str(setup.updates), "--evaluate-every", str(setup.evaluate_every)),
        *("--episodes", str(setup.episodes)),
        *("--evaluation-steps", *map(str, learning.BUDGETS)),
        *(("--seeds", str(seeds), "--together") if seeds > 1 else ()),
    ]


def theirs(root: str, config: str, updates: str, evaluate_every: str, episodes: str) -> None:
    """Their main.py, in this process."""
    setup = learning.Setup("", int(updates), int(evaluate_every), int(episodes), 0)
    with modules_of(root, stand_ins()) as load:
        load("main").FLAGS(["main.py", f"--agent={root}/agents/vgf.py"])
        learning.their_curve(load, load_config(config), setup, 0)


def _seconds(code: str, words: Sequence[str], **variables: str) -> float:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("JAX_")}, **variables},
        check=False,
    )
    if done.returncode:
        raise VGFError(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return time.perf_counter() - start


def parts(folder: Path, whole: float, setup: Setup) -> dict[str, float]:
    """What a run of ours was made of, in seconds, by its log."""
    rows = read_rows(folder / f"{METRICS}.jsonl")
    steps, clock = ([float(str(row[name])) for row in rows] for name in ("step", "seconds"))
    pairs = list(zip(steps, steps[1:], clock, clock[1:], strict=False))
    # between two rows there may be an evaluation, after the first
    update = statistics.median(
        (after - before) / (b - a) for a, b, before, after in pairs if a % setup.evaluate_every
    )
    updates = update * setup.updates
    evaluations = sum(
        after - before - update * (b - a)
        for a, b, before, after in pairs
        if not a % setup.evaluate_every
    )
    compiling = max(0.0, clock[0] - update * steps[0])
    rest = whole - compiling - updates - evaluations
    return dict(zip(_PARTS, (compiling, updates, evaluations, rest), strict=True))


def measure(setup: Setup, checkouts: Mapping[str, str]) -> Data:
    """All sides, in turns."""
    root = checkouts[VGF]
    data = os.environ.get(DATA)
    rounds: list[Data] = []
    made: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="vgf-protocol-") as scratch:
        place = Path(scratch)
        kept = {"VGF_CACHE_DIR": str(place / "cache")}

        def ours(seeds: int, name: str, length: Setup = setup) -> float:
            words = [*words_of(length, seeds), "--out", str(place / name)]
            words += ["--data-dir", data] if data else []
            return _seconds(_RUN, words, **kept)

        several = [1] + [setup.seeds] * (setup.seeds > 0)
        short = replace(setup, updates=200, evaluate_every=200, episodes=10)
        for seeds in several:
            ours(seeds, f"before-{seeds}", short)
        config = str(place / "before-1" / CONFIG)
        length = map(str, (setup.updates, setup.evaluate_every, setup.episodes))
        words = [root, config, *length]
        for i in range(setup.rounds):
            one = {OURS: ours(1, f"one-{i}"), THEIRS: _seconds(_MAIN, words)}
            made.setdefault(OURS, []).append(parts(place / f"one-{i}", one[OURS], setup))
            if setup.seeds:
                one[MANY] = ours(setup.seeds, f"many-{i}")
                first = place / f"many-{i}" / "seed-0"
                made.setdefault(MANY, []).append(parts(first, one[MANY], setup))
            rounds.append(one)
            print({key: round(value, 1) for key, value in one.items()}, flush=True)
    return {
        "revision": revision(root),
        "commands": {str(seeds): f"vgf {' '.join(words_of(setup, seeds))}" for seeds in several},
        "rounds": rounds,
        "parts": made,
        "times": setup.times,
        "seeds": setup.seeds,
        "note": setup.note,
    }


# --- reading the numbers ------------------------------------------------------------------------


def ratios(data: Data, one: str, other: str) -> list[float]:
    """The seconds of one side over those of another, round by round."""
    return [found[one] / found[other] for found in data["rounds"] if one in found]


def judge(data: Data) -> list[Verdict]:
    """Whether every round is as fast as wanted."""
    quick = ratios(data, THEIRS, OURS)
    found = [
        Verdict(
            f"the whole protocol takes theirs at least {data['times']:g} times as long, every time",
            min(quick) >= data["times"],
            spread(quick),
        )
    ]
    if data["seeds"]:
        more = ratios(data, MANY, OURS)
        found.append(
            Verdict(
                f"{data['seeds']} seeds take less than 4 times as long as one, every time",
                max(more) < 4,
                spread(more),
            )
        )
    return found


def tables(data: Data) -> list[Table]:
    """The seconds of every side, what ours are made of, and the commands."""
    sides = list(data["rounds"][0])
    rows = [[side, spread([one[side] for one in data["rounds"]])] for side in sides]
    made = [
        [part, *(spread([one[part] for one in rounds]) for rounds in data["parts"].values())]
        for part in _PARTS
    ]
    return [
        Table("Seconds from the command to the end, median (lowest to highest)", ("", "s"), rows),
        Table("What ours are made of, by their logs, in seconds", ("", *data["parts"]), made),
        Table(
            "Ours; theirs has the same settings",
            ("seeds", "command"),
            [[seeds, f"`{words}`"] for seeds, words in data["commands"].items()],
        ),
    ]


def remarks(data: Data) -> list[str]:
    """Whose code it was, and what a seed among many costs."""
    found = [f"Theirs: {VGF} {data['revision']}."]
    if data["seeds"]:
        share = [ratio / data["seeds"] for ratio in ratios(data, MANY, OURS)]
        found.append(
            f"A seed among {data['seeds']} takes {spread(share)} times what one takes alone, "
            "with all cores to itself."
        )
    return [*found, *filter(None, [data["note"]])]


def experiment(setup: Setup, checkouts: Mapping[str, str] | None = None) -> Experiment:
    """The comparison at one size."""
    return Experiment(
        name=f"protocol-{setup.name}",
        title=f"The time of a whole protocol beside the authors', {setup.name}",
        about=ABOUT,
        setup=setup,
        quick=replace(
            setup,
            updates=2_000,
            evaluate_every=1_000,
            episodes=1,
            rounds=1,
            seeds=2,
            data_episodes=2,
        ),
        measure=lambda setup: measure(setup, checkouts or {}),
        judge=judge,
        tables=tables,
        remarks=remarks,
    )


ABOUT = (
    "From the command to the report: training, evaluation at four test budgets, and what is "
    "written, each side a process of its own, in turns, with the data there. Both have the same "
    "settings and the authors' departures. A claim fails if one round does not meet it."
)
SETUPS = (
    Setup("2x64", (64, 64), 20_000, 10_000, 50, times=3.0, rounds=2),
    Setup(
        *("4x256", (256,) * 4, 1_000, 500, 10),
        times=2.0,
        rounds=2,
        seeds=0,
        note="1,000 updates and two evaluations of 10 episodes: what is paid once, such as "
        "compiling, weighs twenty times as much as with 20,000 updates and 200 episodes.",
    ),
)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    setups = {setup.name: setup for setup in SETUPS}
    return learning.beside_theirs("protocol", __doc__ or "", setups, experiment, argv)


if __name__ == "__main__":
    sys.exit(main())
