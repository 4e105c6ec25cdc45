"""How much a ratio of `vgf bench training` moves from one time it is run to the next.

    python -m validation.repeats --checkout ryanxhr/vgf=PATH          # all sizes
    python -m validation.repeats avgf-l1 --checkout ryanxhr/vgf=PATH  # one
    python -m validation.repeats --redraw

The measurement of `vgf bench training` is made again and again, every time with new processes.
Each time a ratio is the median over the rounds; here are the medians of every time, and what they
may depend on: the length of a block, whose turn comes first, and whether a third side is alive and
holds memory. Nothing else may run meanwhile.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vgf.bench import training
from vgf.bench.interleave import ratio
from vgf.bench.work import SMOKE, Work

from .authors import VGF
from .experiment import Data, Experiment, Verdict, spread
from .learning import beside_theirs
from .pages import Table

OURS, BOTH = ("jax",), ("jax", "torch")


@dataclass(frozen=True)
class Way:
    """One way of running the command.

    Args:
        title: in the tables.
        sides: of ours.
        block_seconds: as :class:`vgf.bench.training.Plan`.
        repeats: how often.
    """

    title: str
    sides: tuple[str, ...] = OURS
    block_seconds: float = 1.0
    repeats: int = 5


@dataclass(frozen=True)
class Setup:
    """What is measured.

    Args:
        name: of the page.
        work: the sizes.
        ways: of running the command; the first is what the claims are about.
        rounds: as :class:`vgf.bench.training.Plan`.
        times: how many times as fast as theirs is wanted, in every repeat.
        of_limit: the share of what bare products allow that is wanted.
    """

    name: str
    work: Work
    ways: tuple[Way, ...]
    rounds: int = 6
    times: float = 1.1
    of_limit: float = 0.85


def measure(setup: Setup, checkouts: Mapping[str, str]) -> Data:
    """Every way, its repeats one after another."""
    peers = [training.Peer(VGF, Path(checkouts[VGF]), sys.executable)]
    found: Data = {"title": setup.work.title, "revision": peers[0].revision(), "ways": {}}
    for way in setup.ways:
        plan = training.Plan(
            works=[setup.work],
            sides=way.sides,
            peers=peers,
            device="cpu",
            rounds=setup.rounds,
            block_seconds=way.block_seconds,
            libraries=("numpy", "jax"),
        )
        rows = [training.measure(plan)["rows"][0] for _ in range(way.repeats)]
        found["ways"][way.title] = rows
    return {**found, "times": setup.times, "of_limit": setup.of_limit}


def ratios(rows: list[Data], side: str) -> list[float]:
    """How many times as fast as theirs a side is, in every repeat."""
    return [row["sides"][side]["ratios"][VGF]["median"] for row in rows]


def first(data: Data) -> list[Data]:
    """The rows that the claims are about."""
    return next(iter(data["ways"].values()))


def shares(rows: list[Data], side: str) -> list[float]:
    """How much of what bare products allow a side reaches, in every repeat."""
    return [row["sides"][side]["of_limit"]["median"] for row in rows]


def _spread(values: list[float]) -> str:
    """The median of repeats, with the lowest and the highest."""
    return spread(values, ".2f")


def judge(data: Data) -> list[Verdict]:
    """Whether every repeat is as fast as wanted."""
    rows = first(data)
    quick, near = ratios(rows, OURS[0]), shares(rows, OURS[0])
    return [
        Verdict(
            f"at least {data['times']:g} times as fast as theirs, in every repeat",
            min(quick) >= data["times"],
            _spread(quick),
        ),
        Verdict(
            f"at least {data['of_limit']:.0%} of what bare products allow, in every repeat",
            min(near) >= data["of_limit"],
            _spread(near),
        ),
    ]


def by_turn(row: Data, side: str) -> list[float]:
    """The ratio of a repeat where ours is timed first, and where theirs is."""
    mine, other = (row["sides"][name]["seconds"] for name in (side, VGF))
    return [ratio(mine[start::2], other[start::2])["median"] for start in (0, 1)]


def tables(data: Data) -> list[Table]:
    """Every way of running it; every repeat of the first; the turns."""
    ways = [
        [
            way,
            side,
            str(len(rows)),
            _spread(ratios(rows, side)),
            *(_spread([by_turn(row, side)[turn] for row in rows]) for turn in (0, 1)),
            _spread(shares(rows, side)),
            _spread(shares(rows, VGF)),
        ]
        for way, rows in data["ways"].items()
        for side in rows[0]["sides"]
        if side != VGF
    ]
    each = [
        [
            str(number),
            *(
                f"{1e3 * statistics.median(row['sides'][side]['seconds']):.4g}"
                for side in (*OURS, VGF)
            ),
            training.spell_ratio(row["sides"][OURS[0]]["ratios"][VGF]),
        ]
        for number, row in enumerate(first(data), start=1)
    ]
    return [
        Table(
            "Times as fast as theirs: median of the repeats (lowest to highest); shares of what "
            "bare products allow",
            (
                *("way", "side", "repeats", "ratio", "ours first", "theirs first"),
                *("ours of limit", "theirs of limit"),
            ),
            ways,
        ),
        Table(
            "Every repeat of the first way: ms of an update; the ratio, median (lowest to highest "
            "round)",
            ("repeat", f"ours ({OURS[0]})", "theirs", "ratio"),
            each,
        ),
    ]


def remarks(data: Data) -> list[str]:
    """Whose code it was, and what the wanted ratio would take."""
    reached = statistics.median(shares(first(data), VGF))
    return [
        f"Sizes: {data['title']}. Theirs: {VGF} {data['revision']}.",
        f"Theirs reaches {reached:.0%} of what bare products allow, so {data['times']:g} times as "
        f"fast would be {reached * data['times']:.0%}.",
    ]


def experiment(setup: Setup, checkouts: Mapping[str, str] | None = None) -> Experiment:
    """The repeats at one size."""
    short = tuple(replace(way, sides=OURS, block_seconds=0.02, repeats=1) for way in setup.ways)
    return Experiment(
        name=f"repeats-{setup.name}",
        title=f"How much a ratio moves from run to run, {setup.name}",
        about=ABOUT,
        setup=setup,
        quick=replace(
            setup, work=replace(SMOKE, method=setup.work.method), ways=short[:1], rounds=2
        ),
        measure=lambda setup: measure(setup, checkouts or {}),
        judge=judge,
        tables=tables,
        remarks=remarks,
    )


ABOUT = (__doc__ or "").partition("--redraw\n\n")[2].strip()
_WAYS = (
    Way("blocks of 1 s"),
    Way("blocks of 0.5 s", block_seconds=0.5, repeats=3),
    Way("blocks of one update", block_seconds=0.01, repeats=3),
    Way("torch alive and timed too", sides=BOTH, repeats=3),
)
SETUPS = (
    Setup("avgf-l1", Work("avgf", particles=5, steps=1), _WAYS),
    Setup("avgf-l5", Work("avgf", particles=5, steps=5), _WAYS[:1]),
)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    setups = {setup.name: setup for setup in SETUPS}
    return beside_theirs("repeats", __doc__ or "", setups, experiment, argv)


if __name__ == "__main__":
    sys.exit(main())
