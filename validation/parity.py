"""The parity table: does every backend compute what the specification says, and how closely?

    python -m validation.parity                         # every backend installed here
    python -m validation.parity --backend jax --dtype float64 --examples 300

For each equation, backend, dtype and device: the examples tried, the worst absolute and relative
error, the worst error in units of the tolerance, and the input that gave it. Then the drift of
whole updates. Writes validation/results/parity-<device>.json and .md, and exits with status 1 if
anything disagrees.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vgf.backends import (
    BACKENDS,
    DTYPES,
    BackendError,
    add_backend_arguments,
    available_backends,
    get_backend,
)
from vgf.backends.base import Backend
from vgf.support.errors import VGFError
from vgf.testing import EQUATIONS, FACTOR, TRAININGS, Mismatch, check, measure_drift
from vgf.testing.training import DRIFT_BOUND

from .record import RESULTS, environment, markdown_table, write, write_json

ROUGH = ("tf32", "bf16")


def backends(args: argparse.Namespace) -> Iterator[Backend]:
    """The backends to try: the named one, or all that are installed, in both dtypes."""
    for name in [args.backend] if args.backend else available_backends():
        for device in devices(name, args.device):
            for dtype in [args.dtype] if args.dtype else DTYPES:
                yield get_backend(
                    name, device=device, dtype=dtype, matmul_precision=args.matmul_precision
                )


def devices(name: str, asked: str) -> list[str]:
    """Where to try a backend: on the requested device, or on the CPU and a GPU if there is one."""
    if name == "numpy":
        return ["cpu"]
    if asked != "auto":
        return [asked]
    try:
        get_backend(name, device="gpu")
    except BackendError:
        return ["cpu"]
    return ["cpu", "gpu"]


def rough_backends(args: argparse.Namespace) -> Iterator[Backend]:
    """The same in reduced matrix precisions: measured, not held to a tolerance."""
    for name in [args.backend] if args.backend else available_backends():
        for precision in ROUGH if name != "numpy" else ():
            try:
                yield get_backend(
                    name, device=args.device, dtype="float32", matmul_precision=precision
                )
            except BackendError as error:
                print(f"not measured: {name} {precision}: {error}")


def table_of_equations(
    backend: Backend, names: list[str], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row for each equation on one backend."""
    rows = []
    for name in names:
        row: dict[str, Any] = {
            "equation": name,
            "backend": backend.name,
            "dtype": backend.dtype,
            "device": backend.device,
            "matmul_precision": backend.matmul_precision,
        }
        try:
            report = check(backend, name, args.examples, args.seed)
        except Mismatch as mismatch:
            row |= {"agrees": False, "mismatch": str(mismatch)}
        else:
            row |= {
                "agrees": True,
                "examples": report.examples,
                "absolute": report.absolute,
                "relative": report.relative,
                "ratio": report.worst.ratio,
                "input": report.label,
            }
        rows.append(row)
        print(describe(row), flush=True)
        if backend.name == "jax":
            backend.forget_compilations()  # type: ignore[attr-defined]
    return rows


def table_of_drift(backend: Backend, updates: int) -> list[dict[str, Any]]:
    """A row for each training on one backend."""
    rows = []
    for name in TRAININGS:
        found = dataclasses.asdict(measure_drift(backend, name, updates))
        rows.append(
            {
                "training": name,
                "backend": backend.name,
                "dtype": backend.dtype,
                "device": backend.device,
                "matmul_precision": backend.matmul_precision,
                **found,
            }
        )
    worst = max(rows, key=lambda row: row["relative"])
    print(
        f"{backend.name:6} {backend.dtype} {backend.matmul_precision:8} {updates} updates, "
        f"{len(rows)} settings: worst {worst['relative']:.1e} ({worst['training']})",
        flush=True,
    )
    return rows


def describe(row: dict[str, Any]) -> str:
    """One line of the terminal, at most 80 columns where it agrees."""
    start = f"{row['equation']:27} {row['backend']:5} {row['dtype']} {row['device']:5}"
    if not row["agrees"]:
        return f"{start} DISAGREES\n    {row['mismatch']}"
    return (
        f"{start} {row['examples']:4} {row['absolute']:8.1e} {row['relative']:8.1e} "
        f"{row['ratio']:7.4f}"
    )


def report(result: dict[str, Any]) -> str:
    """The Markdown form of the table."""
    where = result["environment"]
    machine = f"{where['processor']}, {where['cores']} cores, {where['system']}"
    used = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    rows = [
        (
            r["equation"],
            r["backend"],
            r["dtype"],
            r["device"],
            r["examples"],
            f"{r['absolute']:.1e}",
            f"{r['relative']:.1e}",
            f"{r['ratio']:.4f}",
            f"`{r['input'][:90]}`",
        )
        if r["agrees"]
        else (r["equation"], r["backend"], r["dtype"], r["device"], "", "", "", "", "DISAGREES")
        for r in result["equations"]
    ]
    drift = [
        (
            r["training"],
            r["backend"],
            r["dtype"],
            r["matmul_precision"],
            r["device"],
            r["updates"],
            f"{r['absolute']:.1e}",
            f"{r['relative']:.1e}",
            r["leaf"],
        )
        for r in result["drift"]
    ]
    return "\n".join(
        [
            "# Parity with the specification",
            "",
            f"Made by `{result['command']}`. {machine}. {used}.",
            f"Revision {where['revision'] or 'unknown'}.",
            "",
            "## Every equation",
            "",
            "Relative errors are to the largest number of the same set. The ratio is the worst",
            f"error over the tolerance, {FACTOR:g} * (u * (size + floor) + sensitivity), the same",
            "rule for every function and dtype (`vgf/testing/compare.py`): 1 would be a failure,",
            f"and 1 / {FACTOR:g} is one rounding. The input is the one that gave the worst ratio.",
            "",
            markdown_table(
                (
                    "equation",
                    "backend",
                    "dtype",
                    "device",
                    "examples",
                    "absolute",
                    "relative",
                    "ratio",
                    "input",
                ),
                rows,
            ),
            "",
            "## Whole updates",
            "",
            "All numbers of the agent's state (parameters, target, Adam's moments) after",
            "consecutive updates from the same start, batches and noise, against the specification",
            "in float64. Relative to the largest number of the same array. The matrix precisions",
            "tf32 and bf16 are measured, not held to a tolerance.",
            "",
            markdown_table(
                (
                    "training",
                    "backend",
                    "dtype",
                    "matmul",
                    "device",
                    "updates",
                    "absolute",
                    "relative",
                    "worst array",
                ),
                drift,
            ),
            "",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m validation.parity", description=(__doc__ or "").partition("\n")[0]
    )
    add_backend_arguments(parser)
    parser.add_argument("--examples", type=int, default=100, help="of each equation (default 100)")
    parser.add_argument("--updates", type=int, default=100, help="of each training (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the search for examples")
    parser.add_argument(
        "--equation", action="append", choices=sorted(EQUATIONS), metavar="NAME", help="only this"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args(argv)
    start = time.perf_counter()
    try:
        chosen = list(backends(args))
    except VGFError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    absent = [name for name in BACKENDS if name not in {b.name for b in chosen}]
    if absent and not args.backend:
        print(f"not installed, not tried: {', '.join(absent)}")
    print(f"{'equation':27} {'backend, dtype, device':20}  tried absolute relative   ratio")
    names = args.equation or list(EQUATIONS)
    equations = [row for backend in chosen for row in table_of_equations(backend, names, args)]
    drift: list[dict[str, Any]] = []
    if not args.equation:
        for backend in [*chosen, *rough_backends(args)]:
            drift += table_of_drift(backend, args.updates)
    words = sys.argv[1:] if argv is None else argv
    result = {
        "command": " ".join(["python -m validation.parity", *words]),
        "environment": environment(),
        "seconds": time.perf_counter() - start,
        "factor": FACTOR,
        "equations": equations,
        "drift": drift,
    }
    device = next((b.device for b in chosen if b.device != "cpu"), "cpu").partition(":")[0]
    write_json(args.out / f"parity-{device}.json", result)
    write(args.out / f"parity-{device}.md", report(result))
    wrong = [row for row in equations if not row["agrees"]]
    wrong_drift = [r for r in drift if r["dtype"] == "float64" and not r["relative"] <= DRIFT_BOUND]
    print(
        f"{len(equations) - len(wrong)} of {len(equations)} rows agree; "
        f"written to {args.out / f'parity-{device}.md'}"
    )
    return 1 if wrong or wrong_drift else 0


if __name__ == "__main__":
    sys.exit(main())
