"""Particles converge to the Boltzmann target as L and N grow.

The value is R(a) = alpha log p(a) for a mixture p of three Gaussians in the plane, so that the
target exp(R / alpha) / Z is p itself, known exactly. Plain steps, the median bandwidth, no box; the
reference is one round Gaussian. The distance is MMD^2 under a kernel of fixed sigma, with the
target's integrals in closed form rather than samples from it; it is compared with the average MMD^2
of the same number of exact samples of the target.

What would refute the claim: an MMD^2 that does not fall from each L to the next at the largest N,
or that at any N does not end below the reference's (paired over seeds, 95 % intervals); one
that does not fall with N (the interval of the slope of log MMD^2 against log N is not below 0;
exact samples have slope -1); or one that is not below that of exact samples, as happens at N = 200
with a temperature that is wrong by a factor of two. With few particles the fall with L ends early,
at the best that few particles can do; the L at which it ends is reported.

The claim is judged on a target whose Gaussians overlap. A second one, whose Gaussians lie apart,
shows the limits of the claim: there particles cannot cross between modes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vgf import Budget, spec
from vgf.spec.types import Array

from ..experiment import Data, Experiment, Verdict, estimate, show
from ..figures import COLOURS, PAGE, band, figure, letter, line
from ..pages import Table
from ..problems import Mixture

MEANS, WEIGHTS = [[-0.6, -0.3], [0.6, -0.3], [0.0, 0.6]], [0.4, 0.3, 0.3]
TARGETS = {"overlapping": Mixture(MEANS, WEIGHTS, 0.3), "apart": Mixture(MEANS, WEIGHTS, 0.15)}

Transport = Callable[..., Array]


@dataclass(frozen=True)
class Setup:
    """The grid.

    Args:
        seeds: sets of particles.
        particles: N.
        steps: L, in rising order, 0 first.
        step_size: epsilon.
        temperature: alpha.
        sigma: of the kernel that measures, in units of the action.
        start_std: of the reference.
        samples: sets of exact samples.
    """

    seeds: int = 10
    particles: tuple[int, ...] = (10, 25, 50, 100, 200)
    steps: tuple[int, ...] = (0, 1, 3, 10, 30, 100, 300)
    step_size: float = 0.05
    temperature: float = 0.5
    sigma: float = 0.5
    start_std: float = 0.3
    samples: int = 200


def measure(setup: Setup, transport: Transport = spec.transport) -> Data:
    """MMD^2 for each target, N, L and seed, and that of exact samples."""
    alpha, sigma_squared = setup.temperature, setup.sigma**2
    rows = []
    for name, target in TARGETS.items():
        for n in setup.particles:
            rng = np.random.default_rng(n)
            a = setup.start_std * rng.standard_normal((setup.seeds, n, 2))
            found, done = [], 0
            for steps in setup.steps:
                budget = Budget(
                    steps=steps - done,
                    step_size=setup.step_size,
                    temperature=alpha,
                    optimiser="plain",
                    low=None,
                    high=None,
                )
                a = transport(lambda a, target=target: alpha * target.score(a), a, budget)
                found.append(target.mmd_squared(a, sigma_squared))
                done = steps
            exact = target.mmd_squared(target.sample(rng, (setup.samples, n)), sigma_squared)
            rows.append({"target": name, "particles": n, "mmd": found, "exact": exact.mean()})
    return {"rows": rows, "steps": setup.steps, "particles": setup.particles}


def rows_of(data: Data, target: str) -> list[dict[str, Any]]:
    """The rows of one target, N rising."""
    return [row for row in data["rows"] if row["target"] == target]


def slope(data: Data, target: str) -> dict[str, float]:
    """The slope of log MMD^2 at the last L against log N, seed by seed."""
    rows = rows_of(data, target)
    n = np.log([row["particles"] for row in rows])
    last = np.log(np.maximum([row["mmd"][-1] for row in rows], 1e-12))
    return estimate(np.polyfit(n, last, 1)[0])


def falls(row: dict[str, Any], earlier: int, later: int = -1) -> dict[str, float]:
    """How much MMD^2 fell from one L to another, paired over seeds."""
    return estimate(np.subtract(row["mmd"][earlier], row["mmd"][later]))


def floor(data: Data, row: dict[str, Any]) -> int:
    """The first L after which MMD^2 falls no further, as far as the seeds can tell."""
    still = [i for i in range(len(data["steps"]) - 1) if falls(row, i)["low"] > 0]
    return int(data["steps"][still[-1] + 1 if still else 0])


def judge(data: Data) -> list[Verdict]:
    """Falling with L and with N, below exact samples."""
    rows, steps = rows_of(data, "overlapping"), data["steps"]
    most = rows[-1]
    each = [falls(most, i, i + 1)["low"] > 0 for i in range(len(steps) - 1)]
    whole = [falls(row, 0)["low"] > 0 for row in rows]
    against = [estimate(row["mmd"][-1])["high"] / row["exact"] for row in rows]
    rate = slope(data, "overlapping")
    return [
        Verdict(
            "MMD^2 to the target falls with L",
            all(each) and all(whole),
            f"at N = {most['particles']} from {np.mean(most['mmd'][0]):.2g} to "
            f"{np.mean(most['mmd'][-1]):.2g} at L = {steps[-1]}, in {sum(each)} of {len(each)} "
            f"steps of the grid; below the reference's at {sum(whole)} of {len(whole)} N",
        ),
        Verdict(
            "and with N", rate["high"] < 0, f"as N to the power {show(rate)}; exact samples: -1"
        ),
        Verdict(
            "the particles represent the target better than the same number of exact samples",
            max(against) < 1,
            f"MMD^2 over that of exact samples: {min(against):.2g} to {max(against):.2g} "
            "(upper ends of the intervals)",
        ),
    ]


def remarks(data: Data) -> list[str]:
    """Where the fall ends."""
    last = rows_of(data, "apart")[-1]
    ratio = np.mean(last["mmd"][-1]) / last["exact"]
    ends = ", ".join(
        f"L = {floor(data, row)} (N = {row['particles']})" for row in rows_of(data, "overlapping")
    )
    return [
        f"After these L no further fall is seen: {ends}.",
        "Gaussians that lie apart, 8 standard deviations between their means: MMD^2 falls as N to "
        f"the power {show(slope(data, 'apart'))} only, and at N = {last['particles']} is "
        f"{ratio:.2g} times that of exact samples. Each mode keeps the number of "
        "particles that the first steps brought there.",
    ]


def tables(data: Data) -> list[Table]:
    """MMD^2 for every N and L."""
    header = ("target", "N", *(f"L = {steps}" for steps in data["steps"]), "exact samples")
    rows = [
        [
            row["target"],
            str(row["particles"]),
            *(f"{np.mean(found):.2e}" for found in row["mmd"]),
            f"{row['exact']:.2e}",
        ]
        for row in data["rows"]
    ]
    return [Table("MMD^2 to the target, mean over the seeds", header, rows)]


def draw(data: Data, stem: Path) -> None:
    """MMD^2 against L for each N, and against N at the last L."""
    with figure(stem, PAGE, 2.9) as drawing:
        left, right = drawing.subplots(1, 2, sharey=True)
        x = np.arange(len(data["steps"]))
        for i, row in enumerate(rows_of(data, "overlapping")):
            mean = np.exp(np.mean(np.log(row["mmd"]), axis=-1))
            left.plot(x, mean, label=f"N = {row['particles']}", **line(i))
            left.axhline(row["exact"], xmin=0.955, color=COLOURS[i], linewidth=1)
        left.set_xticks(x, [str(steps) for steps in data["steps"]])
        left.set_xlabel("flow steps L")
        left.set_ylabel(r"MMD$^2$ to the Boltzmann target")
        left.set_yscale("log")
        left.legend(loc="lower left", ncols=1)
        letter(left, "a", "Gaussians overlap")
        n = data["particles"]
        for i, name in enumerate(TARGETS):
            logs = [estimate(np.log(row["mmd"][-1])) for row in rows_of(data, name)]
            mean, low, high = (np.exp([f[key] for f in logs]) for key in ("mean", "low", "high"))
            right.plot(n, mean, label=f"flow, {name}", **line(i))
            band(right, n, low, high, i)
        exact = [row["exact"] for row in rows_of(data, "overlapping")]
        right.plot(n, exact, color="#777777", linestyle=":", label="exact samples, overlapping")
        right.set_xscale("log")
        right.set_xticks(n, [str(number) for number in n])
        right.minorticks_off()
        right.set_xlabel("particles N")
        right.legend(loc="lower left")
        letter(right, "b", f"L = {data['steps'][-1]}")


BOLTZMANN = Experiment(
    name="boltzmann",
    title="Particles converge to the Boltzmann target",
    about=(__doc__ or "").partition("\n")[2].strip(),
    setup=Setup(),
    quick=Setup(seeds=5, particles=(10, 25, 50), steps=(0, 10, 100), samples=100),
    measure=measure,
    judge=judge,
    tables=tables,
    draw=draw,
    remarks=remarks,
    caption=(
        "MMD^2 between the particles and the Boltzmann target. (a) Against the number of steps, "
        "for several N, geometric mean over the seeds; ticks at the right edge: the same "
        "number of exact samples of the target. (b) Against N at the last L, with its 95 % "
        "interval over the seeds."
    ),
)
