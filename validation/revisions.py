"""This revision's training beside an earlier one's, timed in turns: what a change of plan costs.

    python -m validation.revisions --before PATH

PATH is a checkout of the earlier revision. Both run in this Python, each from its own folder, and
make the same updates of the same sizes. The ratio is how many times as fast this one is, round by
round; 1 is no change. What XLA made of an update of each method is counted as well, which no other
load of the machine changes: equal counts are the same work.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from vgf.bench import ours
from vgf.bench.interleave import Worker, calibrate, ratio, take_turns
from vgf.bench.work import Work

from .pages import Block, Heading, Table, Text, to_markdown
from .record import RESULTS, environment, write, write_json

NAME = "revisions"
AFTER = Path(__file__).parents[1]
SECONDS = 1.5  # of a block, about
# The worst ratio that a redrawing may cost.
GOAL = 0.98
WORKS = {
    "jax": (
        Work(depth=2, width=64),
        Work(depth=4, width=256),
        Work("avgf", depth=4, width=256, particles=5),
    ),
    "torch": (Work(depth=4, width=256),),
    "torch-eager": (Work(depth=4, width=256),),
}


def measure(before: Path, rounds: int) -> list[dict[str, Any]]:
    """A row for each backend and size."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for side, works in WORKS.items():
            for work in works:
                data = Path(folder) / "data.npz"
                arrays: Any = work.dataset()
                np.savez(data, **arrays)
                found = timed({"before": before, "after": AFTER}, side, work, data, rounds)
                rows.append({"side": side, "work": work.name, **found})
                print(f"{side:12} {work.name:28} {found['ratio']['median']:.3f}", flush=True)
    return rows


COUNTED = """
import json, re, sys
import jax, numpy as np, vgf
backend, counts = vgf.get_backend("jax"), {}
wide = vgf.Network((256,) * 4)
for method in sys.argv[1:]:
    same = {"critic": vgf.Network((256,) * 4, layer_norm=True), "reference": wide}
    if method == "fql":  # whose defaults have changed
        same |= {"policy": wide, "critic_loss": "squared", "target_update": "after"}
    settings = vgf.method_settings(method, **same)
    state = backend.init_state(0, 28, 5, settings)
    shapes = {"observations": (256, 28), "actions": (256, 5), "rewards": (256,), "masks": (256,)}
    batch = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    batch = backend.asarray({**batch, "next_observations": batch["observations"]})
    update = jax.jit(lambda state, batch: backend.update(state, batch, settings))
    program = update.lower(state, batch).compile()
    operations = re.findall(r"= \\S+ (\\w[\\w-]*)\\(", program.as_text())
    cost = program.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    counts[method] = {
        "operations": len(operations),
        "fusions": operations.count("fusion"),
        "products": operations.count("dot"),
        "flops": cost["flops"],
        "bytes": cost["bytes accessed"],
    }
print(json.dumps(counts))
"""


def programs(checkout: Path) -> dict[str, dict[str, float]]:
    """What XLA made of one update of each method: operations, fusions, products, flops, bytes."""
    variables = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    words = [sys.executable, "-c", COUNTED, "vgf", "avgf", "bc", "weighted_bc", "fql"]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, env=variables, cwd=checkout
    )
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def timed(
    checkouts: dict[str, Path], side: str, work: Work, data: Path, rounds: int
) -> dict[str, Any]:
    """One update of each checkout, in turns: milliseconds of every round, and their ratio."""
    options = {"device": "cpu", "dtype": "float32", "matmul_precision": "float32"}
    sizes = {**dataclasses.asdict(work), "particles": work.particles}
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, place in checkouts.items():
            variables = {"PYTHONPATH": str(place.resolve())}
            worker = stack.enter_context(Worker(name, variables=variables))
            worker.start(ours.__name__, side=side, work=sizes, data=str(data), **options)
            workers[name] = worker
        counts = {name: calibrate(worker.time, SECONDS) for name, worker in workers.items()}
        shared = min(counts.values())
        timers = {name: worker.time for name, worker in workers.items()}
        found = take_turns(timers, dict.fromkeys(timers, shared), rounds)
        memory = {name: worker.memory()["host"] for name, worker in workers.items()}
    return {
        "milliseconds": {name: [1000 * x for x in times] for name, times in found.items()},
        "ratio": ratio(found["after"], found["before"]),
        "memory": memory,
    }


def page(data: dict[str, Any]) -> list[Block]:
    """The page of a record."""
    rows = []
    for row in data["rows"]:
        median = {name: float(np.median(times)) for name, times in row["milliseconds"].items()}
        spread, memory = row["ratio"], row["memory"]
        rows.append(
            [
                row["side"],
                row["work"],
                f"{median['before']:.2f}",
                f"{median['after']:.2f}",
                f"{spread['median']:.3f} ({spread['low']:.3f}-{spread['high']:.3f})",
                f"{memory['before'] / 2**20:.0f} / {memory['after'] / 2**20:.0f}",
                "yes" if spread["median"] >= GOAL else "NO",
            ]
        )
    machine = data["environment"]
    about = (
        f"Revision {data['before'][:10]} before, {data['after'][:10]} after; "
        f"{data['rounds']} rounds in turns, on {machine['cores']} cores "
        f"({machine['processor']}), float32. Goal: a ratio of {GOAL} or more."
    )
    counted = [
        [method, *(f"{before[key]:,.0f} / {after[key]:,.0f}" for key in before)]
        for method, before in data["programs"]["before"].items()
        for after in (data["programs"]["after"][method],)
    ]
    same = data["programs"]["before"] == data["programs"]["after"]
    header = ["backend", "update", "before, ms", "after, ms", "times as fast", "peak MiB", "goal"]
    return [
        Heading("This revision beside an earlier one", 1),
        Text(about),
        Table("Medians of one update, the ratio's lowest and highest round", header, rows),
        Text(
            "What XLA made of one update at 4 x 256 in JAX, before and after, "
            f"{'is the same' if same else 'differs'}. The other work of this machine changes the "
            "times above; it does not change these."
        ),
        Table(
            "Before / after",
            ["method", "operations", "fusions", "products", "flops", "bytes"],
            counted,
        ),
    ]


def revision(checkout: Path) -> str:
    """The revision of a checkout."""
    words = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m validation.revisions", description=__doc__)
    parser.add_argument("--before", type=Path, help="a checkout; without it, the page again")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    if args.before is not None:
        write_json(
            RESULTS / f"{NAME}.json",
            {
                "environment": environment(),
                "before": revision(args.before),
                "after": revision(AFTER),
                "rounds": args.rounds,
                "programs": {"before": programs(args.before), "after": programs(AFTER)},
                "rows": measure(args.before, args.rounds),
            },
        )
    record = json.loads((RESULTS / f"{NAME}.json").read_text())
    write(RESULTS / f"{NAME}.md", to_markdown(page(record)))


if __name__ == "__main__":
    main()
