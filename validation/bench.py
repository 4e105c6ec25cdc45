"""How fast it is: compared with its peers and the machine's limit, and where the time goes.

    python -m validation.bench --peer ryanxhr/vgf=PATH --peer seohongpark/fql=PATH
    python -m validation.bench RECORD ...      # of records written by vgf bench --out

--peer-python names a Python that has what the peers need.

Every side is a separate process, and all of them stay alive throughout. Short blocks of each are
timed in turns, including bare matrix products, and every ratio is taken between the blocks of one
round; the tables give its median, lowest and highest. Each side trains as its users do, from the
same made-up
data: ours with the updates of `vgf run`, the peers with the loop of their own `main.py`. A claim
fails if the median ratio is below the claimed one.

Writes bench-cpu.md, bench-avx512.md on a CPU with AVX-512, bench-amx.md on one with matrix units,
or bench-gpu.md where training runs on a GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgf.backends.base import MATMUL_PRECISIONS
from vgf.bench import memory, profile, roofline, startup, training
from vgf.bench.machine import machine
from vgf.bench.profile import DISPATCH, WHOLE
from vgf.bench.startup import ALL_HELP, CHECKS, HELP, IMPORT, REPORT, imports_of
from vgf.bench.training import Peer, Plan, default_sides, spell_rate, spell_ratio
from vgf.bench.work import FULL, RECORDED, SMOKE
from vgf.support.errors import VGFError

from .experiment import (
    Data,
    Experiment,
    Verdict,
    add_arguments,
    command_line,
    exit_status,
    holds,
    run_one,
)
from .figures import PAGE, figure
from .pages import Table

_ABOUT = "Every side" + (__doc__ or "").partition("Every side")[2].rpartition("\n\nWrites")[0]
# What a command may take beside another row of the same round, in seconds.
BESIDE = {
    ALL_HELP: (imports_of(ALL_HELP), 0.3),
    REPORT: (imports_of(REPORT), 0.3),
    **{
        CHECKS[name]: (f"import {name}", most)
        for name, most in (("numpy", 1), ("torch", 1), ("jax", 3))
    },
}
# What vgf bench writes, and where its rows go.
KINDS = {
    "training": "rows",
    "profile": "profiles",
    "evaluation": "evaluations",
    "startup": "starts",
    "memory": "memory",
}
# The kinds of machine that have their own page.
KINDS_OF_MACHINE = {
    "cpu": "Speed on a CPU",
    "gpu": "Speed on a GPU",
    "avx512": "Speed on a CPU with AVX-512",
    "amx": "Speed on a CPU with matrix units (AMX)",
}
TOGETHER = 8
AUTHORS = "ryanxhr/vgf"
SMALL = "vgf-2x64-n5-l1-o28"
MIDDLE = "vgf-4x256-n5-l1-o28"


@dataclass(frozen=True)
class Setup:
    """What is measured.

    Args:
        works: names of sizes; the quick version has its own.
        profiled: those whose parts are timed too.
        rounds, block_seconds: as :class:`vgf.bench.training.Plan`.
    """

    works: tuple[str, ...] = tuple(work.name for work in RECORDED)
    profiled: tuple[str, ...] = (FULL.name, MIDDLE, SMALL)
    rounds: int = 7
    block_seconds: float = 1.0


@dataclass(frozen=True)
class Target:
    """A ratio that was set as a goal before anything was measured.

    Args:
        work: the name of its sizes.
        claim: in words.
        sides: whose best ratio counts; none for all of ours.
        least: the ratio.
        device: where it is claimed: a key of KINDS_OF_MACHINE.
        precision, peer_precision: of matrix products, ours and theirs.
        seeds: agents of ours side by side; their throughput counts.
    """

    work: str
    claim: str
    sides: tuple[str, ...]
    least: float
    device: str = "cpu"
    precision: str = "float32"
    peer_precision: str = "float32"
    seeds: int = 1


TARGETS = (
    Target(
        FULL.name,
        "JAX is at least 1.15 times as fast as the authors' code at the full size",
        ("jax",),
        1.15,
    ),
    Target(FULL.name, "the better of torch and JAX is at least 1.3 times as fast there", (), 1.3),
    Target(MIDDLE, "it is at least 1.5 times as fast at 4 x 256 (N 5, L 1)", (), 1.5),
    Target(SMALL, "it is at least twice as fast at 2 x 64 (N 5, L 1)", (), 2.0),
    *(
        Target(
            FULL.name,
            f"it is at least twice as fast at the full size, {name}",
            (),
            2.0,
            "gpu",
            name,
            name,
        )
        for name in MATMUL_PRECISIONS
    ),
    *(
        Target(
            size,
            f"{TOGETHER} agents side by side get through at least {TOGETHER} times the "
            f"updates of the authors' code, {size}, {name}",
            (),
            TOGETHER,
            "gpu",
            name,
            name,
            TOGETHER,
        )
        for size in (FULL.name, MIDDLE, SMALL)
        for name in MATMUL_PRECISIONS
    ),
    Target(
        FULL.name,
        "in bf16 it is at least 4 times as fast as the authors' code in float32 at the full size",
        (),
        4.0,
        "amx",
        "bf16",
    ),
)
# Agents side by side on a GPU, and how many times one agent's time they may take.
TOGETHER_AT_MOST = 2.0
# The same for evaluations, by how the task's name begins; and for `import vgf` and the help.
EVALUATION = {"pointmaze": 5.0, "cube": 2.5}
START_SECONDS = 0.3


# --- measuring -----------------------------------------------------------------------------------


def measure(setup: Setup, peers: Sequence[Peer], device: str) -> Data:
    """Run `vgf bench` on every work, its profile on some, and its startup."""
    known = {work.name: work for work in (*RECORDED, SMOKE)}
    plan = Plan(
        works=[known[name] for name in setup.works],
        sides=default_sides(),
        peers=peers,
        device=device,
        rounds=setup.rounds,
        block_seconds=setup.block_seconds,
    )
    parts = dataclasses.replace(plan, works=[known[name] for name in setup.profiled])
    small = dataclasses.replace(plan, works=[known[setup.profiled[-1]]], rounds=3)
    return join([training.measure(plan), profile.measure(parts), startup.measure(small)])


def join(records: Sequence[Data]) -> Data:
    """One set of data of several records of one machine.

    Raises:
        VGFError: records from different machines, devices or precisions, or none of training.
    """
    found: Data = {
        "rows": [],
        "profiles": [],
        "evaluations": [],
        "starts": [],
        "memory": [],
        "peers": {},
        "products": [],
        "bandwidth": {},
    }
    for record in records:
        kind, roofs = record["kind"], record.get("roofs", {"products": [], "bandwidth": {}})
        same = {
            "machine": record["machine"],
            "device": roofs.get("device"),
            "device_name": roofs.get("device_name"),
        }
        for key, value in same.items():
            if value is not None and found.setdefault(key, value) != value:
                raise VGFError(
                    f"the records have different {key}s: {found[key]} and {value}; "
                    "leave one of them out"
                )
        source = {
            "revision": record["environment"]["git_revision"],
            "versions": record["environment"]["versions"],
        }
        entries = record["profiles" if kind == "profile" else "rows"]
        found[KINDS[kind]] += [{**entry, **source} for entry in entries]
        for name, told in record.get("peers", {}).items():
            if told.get("versions") or name not in found["peers"]:
                found["peers"][name] = told
        found["products"] += roofs["products"]
        for name, rate in roofs["bandwidth"].items():
            found["bandwidth"][name] = max(rate, found["bandwidth"].get(name, 0.0))
    if not found["rows"]:
        raise VGFError("no record of training among them; vgf bench --out FILE writes one")
    order = [work.name for work in RECORDED]
    precisions = list(MATMUL_PRECISIONS)
    found["rows"].sort(
        key=lambda row: (
            order.index(row["name"]) if row["name"] in order else -1,
            precisions.index(row["matmul_precision"]),
            row["work"]["seeds"],
        )
    )
    best: dict[tuple[Any, ...], Data] = {}
    for product in found["products"]:
        what = tuple(product[name] for name in ("m", "k", "precision", "library"))
        if what not in best or best[what]["rate"] < product["rate"]:
            best[what] = product
    found["products"] = [best[what] for what in sorted(best)]
    return found


def read(paths: Sequence[Path]) -> Data:
    """The data of records written by `vgf bench --out`.

    Raises:
        VGFError: as :func:`vgf.bench.training.read_record` and :func:`join`.
    """
    return join([training.read_record(path) for path in paths])


# --- what follows --------------------------------------------------------------------------------


def judge(data: Data) -> list[Verdict]:
    """The goals, on the machine that was measured."""
    rows = {
        (
            row["name"],
            row["matmul_precision"],
            row["peer_matmul_precision"],
            row["work"]["seeds"],
        ): row
        for row in data["rows"]
    }
    kind = kind_of(data["device"], data["machine"])
    verdicts = []
    for target in TARGETS:
        of = target.work, target.precision, target.peer_precision, target.seeds
        # what is claimed for any CPU is also claimed for one with wide vectors or matrix units
        if of not in rows or target.device not in (kind, kind if kind == "gpu" else "cpu"):
            continue
        sides = rows[of]["sides"]
        found = {
            name: side["ratios"][AUTHORS]
            for name, side in sides.items()
            if side["ours"]
            and AUTHORS in side["ratios"]
            and side["ratios"][AUTHORS]["interleaved"]
            and name in (target.sides or sides)
        }
        if not found:
            continue
        best = max(found, key=lambda name: found[name]["median"])
        told = "; ".join(f"{name} {spell_ratio(ratio)}" for name, ratio in found.items())
        verdicts.append(Verdict(target.claim, found[best]["median"] >= target.least, told))
    return verdicts + judge_together(data) + judge_rest(data)


def kind_of(device: str, about: Data) -> str:
    """The page for a machine's numbers.

    Args:
        device: that trained.
        about: the machine, of :func:`vgf.bench.machine.machine`.
    """
    if device != "cpu":
        return "gpu"
    found = " ".join(about["instructions"])
    return next((kind for kind in ("amx", "avx512") if kind in found), "cpu")


def judge_together(data: Data) -> list[Verdict]:
    """On a GPU: the time that agents side by side take, compared with one alone."""
    verdicts = []
    for row in data["rows"] if data["device"] != "cpu" else ():
        alone = next(
            (
                other
                for other in data["rows"]
                if other["work"] == {**row["work"], "seeds": 1}
                and other["matmul_precision"] == row["matmul_precision"]
            ),
            None,
        )
        if row["work"]["seeds"] != TOGETHER or alone is None:
            continue
        for name, side in row["sides"].items():
            if not side["ours"] or name not in alone["sides"]:
                continue
            times = (
                TOGETHER
                * statistics.median(side["seconds"])
                / statistics.median(alone["sides"][name]["seconds"])
            )
            claim = (
                f"{TOGETHER} agents side by side take less than twice the time of one, "
                f"{row['name']}, {row['matmul_precision']}, {name}"
            )
            verdicts.append(Verdict(claim, times < TOGETHER_AT_MOST, f"{times:.2f} times"))
    return verdicts


def judge_rest(data: Data) -> list[Verdict]:
    """The goals of evaluation and of starting."""
    verdicts = []
    for row in data["evaluations"]:
        ratio = row["sides"]["ours"]["ratios"].get(AUTHORS)
        least = next((v for name, v in EVALUATION.items() if row["task"].startswith(name)), None)
        if ratio is None or least is None:
            continue
        claim = f"evaluation is at least {least} times as fast as the authors' on {row['title']}"
        verdicts.append(Verdict(claim, ratio["median"] >= least, spell_ratio(ratio)))
    for what in (IMPORT, HELP) if data["starts"] else ():
        worst = max(statistics.median(row["seconds"][what]) for row in data["starts"])
        claim = f"`{what}` takes less than {START_SECONDS} s"
        verdicts.append(Verdict(claim, worst < START_SECONDS, f"{worst:.3g} s"))
    for what, (beside, most) in BESIDE.items():
        rows = [row["seconds"] for row in data["starts"] if what in row["seconds"]]
        if rows:
            found = [a - b for row in rows for a, b in zip(row[what], row[beside], strict=True)]
            claim = f"`{what}` takes at most {most:g} s beside its imports, every time"
            spread = f"{statistics.median(found):.2g} s ({min(found):.2g} to {max(found):.2g})"
            verdicts.append(Verdict(claim, max(found) <= most, spread))
    return verdicts


def remarks(data: Data) -> list[str]:
    """What the machine cannot do, and what holds back the rest."""
    found = []
    rates = {
        name: max((p["rate"] for p in data["products"] if p["precision"] == name), default=0.0)
        for name in MATMUL_PRECISIONS
    }
    about, called = data["machine"], data.get("device_name")
    able = ", ".join(about["instructions"]) or "none known"
    found.append(
        f"The machine: {about['processor']}, {about['cores']} cores, "
        f"{about['memory'] / 2**30:.0f} GiB, instructions for matrices: {able}. Training ran on "
        f"{data['device']}{f', {called}' if called else ''}."
    )
    reached = ", ".join(f"{rate / 1e9:,.0f} in {name}" for name, rate in rates.items() if rate)
    found.append(f"A bare product reaches, in GFLOP/s, {reached}{verdict_on_bf16(rates)}.")
    if any(row["work"]["seeds"] > 1 for row in data["rows"]):
        found.append(
            "The time of agents side by side is that of one update of one of them. Their products "
            "are larger than the bare one of one agent's size, so they may pass its limit."
        )
    for row in data["rows"]:
        if row["peer_matmul_precision"] != row["matmul_precision"]:
            found.append(
                f"{row['title']}: the peers' products are in {row['peer_matmul_precision']}."
            )
    for name, told in data["peers"].items():
        used = ", ".join(f"{key} {value}" for key, value in (told.get("versions") or {}).items())
        revision = told["revision"] or "an unknown revision"
        found.append(f"{name} at {revision}{', with ' if used else ''}{used}.")
    for entry in data["profiles"]:
        found.append(in_the_way(entry))
    revisions = sorted({str(row["revision"]) for part in KINDS.values() for row in data[part]})
    found.append(f"Measured at revision {', '.join(revisions)}.")
    return found


def verdict_on_bf16(rates: Data) -> str:
    """What bf16 can gain, by the rates of bare products."""
    if not rates["bf16"] or not rates["float32"]:
        return ""
    if rates["bf16"] <= rates["float32"]:
        return ": bf16 gains nothing here"
    return ": bf16 may be faster here (--matmul-precision bf16)"


def in_the_way(entry: Data) -> str:
    """The parts of an update that cost most above their limit."""
    parts = {k: v for k, v in entry["parts"].items() if k not in (WHOLE, DISPATCH)}
    whole = statistics.median(entry["parts"][WHOLE]["seconds"])
    above = {
        name: statistics.median(part["seconds"]) - part["limit_seconds"]
        for name, part in parts.items()
    }
    worst = sorted(above, key=lambda name: -above[name])[:3]
    told = ", ".join(f"{name} {100 * above[name] / whole:.0f} %" for name in worst)
    reached = 100 * entry["parts"][WHOLE]["limit_seconds"] / whole
    return (
        f"{entry['name']} in {entry['side']} reaches {reached:.0f} % of its limit; of an update, "
        f"what the parts take above theirs, each timed alone: {told}."
    )


def tables(data: Data) -> list[Table]:
    """Every work and side, the machine's limits, and the profiles."""
    found = [sides_table(data), products_table(data)]
    for entry in data["profiles"]:
        rows = []
        for name, part in entry["parts"].items():
            median, least = statistics.median(part["seconds"]), part["limit_seconds"]
            rows.append(
                [
                    name if part["times"] == 1 else f"{name} x {part['times']}",
                    f"{1e3 * median:.4g}",
                    f"{100 * part['share']:.0f} %",
                    f"{part['flops'] / 1e9:.3g}" if part["flops"] else "",
                    f"{part['bytes'] / 1e6:.3g}" if part["bytes"] else "",
                    f"{100 * least / median:.0f} %" if least else "",
                ]
            )
        found.append(
            Table(
                f"Where the time of one update goes: {entry['title']}, {entry['side']}. Each part "
                "alone, through the backend's own functions",
                ("part", "ms", "share", "GFLOP", "MB moved", "of limit"),
                rows,
            )
        )
    if data["evaluations"]:
        found.append(evaluation_table(data["evaluations"]))
    for row in data["starts"]:
        lines = [list(line.values()) for line in startup.table_rows(row["seconds"])]
        header = ("until", "s", "lowest", "highest")
        found.append(Table(f"Starting: {row['title']}", header, lines))
    if data["memory"]:
        told = memory.table_rows(data["memory"])
        lines = [list(line.values()) for line in told]
        columns = tuple(told[0])
        found.append(Table("Peak memory against the size of the data", columns, lines))
    return found


def evaluation_table(rows: Sequence[Data]) -> Table:
    """Every task and side."""
    peers = list(dict.fromkeys(name for row in rows for name in row["sides"]["ours"]["ratios"]))
    lines = []
    for row in rows:
        for name, side in row["sides"].items():
            ratios, median = side.get("ratios", {}), statistics.median(side["seconds"])
            lines.append(
                [
                    row["title"],
                    "vgf" if side["ours"] else name,
                    f"{1 / median:,.4g}",
                    *(spell_ratio(ratios[peer]) if peer in ratios else "" for peer in peers),
                    f"{1 / statistics.median(row['limit_seconds']):,.4g}",
                    f"{100 * side['of_limit']['median']:.0f} %",
                ]
            )
    return Table(
        "Evaluation of a new agent; the limit is the bare simulator on all cores and the policy's "
        "bare products after it",
        ("task", "side", "steps/s", *(f"x {peer}" for peer in peers), "limit, steps/s", "of limit"),
        lines,
    )


def sides_table(data: Data) -> Table:
    """Every work and side."""
    peers = list(
        dict.fromkeys(
            name
            for row in data["rows"]
            for side in row["sides"].values()
            for name in side.get("ratios", {})
        )
    )
    rows = []
    for row in data["rows"]:
        for name, side in row["sides"].items():
            median = statistics.median(side["seconds"])
            ratios = side.get("ratios", {})
            memory = side["memory"]["device"] or side["memory"]["host"]
            rows.append(
                [
                    row["title"],
                    name,
                    f"{1e3 * median:.4g}",
                    f"{1 / median:.4g}",
                    *(spell_ratio(ratios[peer]) if peer in ratios else "" for peer in peers),
                    f"{row['flops'] / 1e9:.4g}",
                    f"{row['intensity']:.0f}",
                    f"{100 * side['of_limit']['median']:.0f} %",
                    f"{memory / 1e6:,.0f}",
                ]
            )
    star = any("*" in cell for line in rows for cell in line)
    return Table(
        "One update; how many times as fast as each peer, median (lowest to highest round); FLOPs "
        "it needs, and per byte of its products; the fraction of the limit that "
        "is reached; peak memory of the process, or of the device on a GPU"
        + ("; * against a recorded time, not in turns" if star else ""),
        (
            "sizes",
            "side",
            "ms",
            "updates/s",
            *(f"x {peer}" for peer in peers),
            "GFLOP",
            "FLOP/B",
            "of limit",
            "MB",
        ),
        rows,
    )


def products_table(data: Data) -> Table:
    """What a bare product reaches."""
    copies = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in data["bandwidth"].items())
    return Table(
        f"Bare matrix products, GFLOP/s, the best of each library; copying, GB/s: {copies}",
        ("product", "precision", "library", "GFLOP/s"),
        [
            [f"{p['m']} x {p['k']} x {p['k']}", p["precision"], p["library"], spell_rate(p["rate"])]
            for p in data["products"]
        ],
    )


def draw(data: Data, stem: Path) -> None:
    """The roofline."""
    with figure(stem, PAGE, 3.6) as drawing:
        roofs = {"products": data["products"], "bandwidth": data["bandwidth"]}
        roofline.draw(drawing.subplots(), {"roofs": roofs, "rows": data["rows"]})


def measured_where(data: Data) -> Data:
    """Where training was measured, as for any experiment."""
    row, about = data["rows"][-1], data["machine"]
    same = {name: about[name] for name in ("processor", "cores", "system")}
    return {**same, "versions": row["versions"], "revision": row["revision"]}


def experiment(
    kind: str = "cpu", records: Sequence[Path] = (), peers: Sequence[Peer] = (), device: str = "cpu"
) -> Experiment:
    """The benchmark of one kind of device, measured now or read from records."""
    quick = Setup((SMOKE.name,), (SMOKE.name,), rounds=2, block_seconds=0.02)
    return Experiment(
        name=f"bench-{kind}",
        title=KINDS_OF_MACHINE[kind],
        about=_ABOUT,
        setup=Setup(),
        quick=quick,
        measure=lambda setup: read(records) if records else measure(setup, peers, device),
        where=measured_where,
        judge=judge,
        tables=tables,
        draw=draw,
        remarks=remarks,
        caption=(
            "FLOP/s of an update, counting the FLOPs it needs, against its FLOPs for each "
            "byte of its matrix products. Grey: what bare products and copies reach on this "
            "machine."
        ),
    )


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m validation.bench", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "records",
        nargs="*",
        metavar="RECORD",
        type=Path,
        help="that vgf bench --out wrote; default: measure",
    )
    parser.add_argument("--peer", action="append", default=[], metavar="OWNER/NAME=PATH")
    parser.add_argument("--peer-python", default=sys.executable, metavar="FILE")
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu or gpu:<index>")
    add_arguments(parser)
    args = parser.parse_args(argv)

    def act() -> bool:
        peers = [training.peer_from_flag(text, args.peer_python) for text in args.peer]
        if args.records:
            data = read(args.records)
            device, about = data["device"], data["machine"]
        else:
            device, about = training.device_in_use(args.device), machine()
        words = ["RECORD ..."] if args.records else [f"--peer {peer.name}=PATH" for peer in peers]
        command = command_line("bench", words + ["--quick"] * args.quick)
        found = experiment(kind_of(device, about), args.records, peers, device)
        return holds(run_one(found, command, args))

    return exit_status(act)


if __name__ == "__main__":
    sys.exit(main())
