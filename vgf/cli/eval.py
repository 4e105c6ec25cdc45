"""`vgf eval`: a checkpoint at other test budgets."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..support.errors import VGFError
from . import COMMANDS

EVAL = "eval"  # the folder of evaluations in the run folder


def main(words: list[str]) -> int:
    from ..runs.flags import add_flags, given, in_flags
    from ..support.parser import Parser

    parser = Parser(
        prog="vgf eval",
        usage="vgf eval RUN [flags]",
        description=COMMANDS["eval"],
        epilog="A setting that is not given is the run's; another backend has its own defaults.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder")
    parser.add_argument(
        "--checkpoint", metavar="UPDATES", type=int, help="which; default: the last one"
    )
    parser.add_argument("--evaluation-seed", metavar="N", type=int, help="default: the run's")
    parser.add_argument(
        "--operator",
        metavar="NAME[:SETTING=VALUE,...]",
        nargs="+",
        action="extend",
        help="ways of acting, evaluated side by side instead of test budgets: sample, best_of_n, "
        "vgf, gradient, qfql, qgf, bptt, langevin, or mine.py:Mine; "
        "vgf:steps=3,particles=8,best_of=4",
    )
    names = {"evaluation.steps": "--steps", "evaluation.particles": "--particles"}
    shown = {
        "evaluation.steps": "test budgets, L_test",
        "evaluation.particles": "particles N at test time",
        "evaluation.episodes": "for each test budget",
        "evaluation.workers": "processes of environments",
        "backend.name": "numpy, torch or jax",
        "backend.device": "auto, cpu, gpu or gpu:<index>",
        "backend.dtype": "float32 or float64",
    }
    flags = add_flags(
        parser, tables=("evaluation", "backend"), names=names, shown=shown, of_run=True
    )
    args = parser.parse_args(words)
    changes = given(args)
    if args.operator and "steps" in changes.get("evaluation", {}):
        raise VGFError("--steps are test budgets; with --operator, write vgf:steps=N")
    with in_flags(flags):
        return _evaluate(args.run, changes, args.checkpoint, args.evaluation_seed, args.operator)


def _evaluate(
    folder: Path,
    changes: dict[str, Any],
    step: int | None,
    seed: int | None,
    texts: list[str] | None,
) -> int:
    from ..runs.agent import evaluate_agent, load_agent, make_backend
    from ..runs.config import BackendSettings
    from ..runs.evaluation import make_pool
    from ..runs.folder import environment, open_run_folder, seed_folders
    from ..runs.operators import (
        evaluate_operators,
        operator_table,
        read_operators,
        save_operators,
        trial_rows,
    )
    from ..runs.report import save_scaling, score_table
    from ..runs.scores import scores
    from ..runs.task import load_task
    from ..support.files import check_writable
    from ..support.settings_tree import override, to_dict
    from ..support.tables import format_table

    trained = open_run_folder(folder)
    if trained.seeds > 1:
        names = ", ".join(place.name for place in seed_folders(trained, folder).values())
        raise VGFError(f"{folder} holds several runs; evaluate one of them: {names}")
    if seed is not None and seed < 0:
        raise VGFError(f"--evaluation-seed is {seed}; it must be 0 or more")
    other = changes.get("backend", {}).get("name", trained.backend.name) != trained.backend.name
    # another backend has its own dtype and device
    start = dataclasses.replace(trained, backend=BackendSettings()) if other else trained
    config = override(start, changes, "flags")
    check_writable(folder / EVAL)
    backend = make_backend(config.backend, training=False)
    state, scaling, trained, updates = load_agent(folder, backend, step)
    settings = config.evaluation
    agent = trained.agent
    if texts and settings.particles:
        agent = dataclasses.replace(agent, particles=settings.particles)
    operators = read_operators(texts or (), agent)
    task = load_task(trained, with_dataset=False)
    seed = trained.seed if seed is None else seed
    trials: list[Any] = []
    with make_pool(
        task, settings.episodes, settings.num_envs, settings.workers, settings.step_timeout
    ) as pool:
        if operators:
            found, trials = evaluate_operators(
                backend, state, agent, operators, task, scaling, settings, seed, pool
            )
        else:
            found = evaluate_agent(backend, state, agent, task, scaling, settings, seed, pool)
    facts = {
        **environment(),
        "checkpoint": updates,
        "seed": seed,
        "evaluation": to_dict(settings),
        "backend": {"name": backend.name, "device": backend.device, "dtype": backend.dtype},
        "score": task.score_name,
        "notes": list(task.notes),
    }
    rows = [{"step": updates, **record} for record in found.records]
    results = scores([rows], task.score_name)
    if trials:
        facts["operators"] = trial_rows(trials)
        draw, name = (lambda stem: save_operators(trials, stem)), "operators"
        tables = {"evaluations": rows, "operators": facts["operators"]}
    else:
        draw, name = (lambda stem: save_scaling(results, stem)), "scaling"
        tables = {"evaluations": rows}
    place = _write_evaluation(folder / EVAL, tables, facts, draw, name)
    print(f"\n{task.name} after {updates:,} updates, {backend.name} {backend.dtype}")
    if task.notes:
        print(task.described())
    print(format_table(operator_table(trials) if trials else score_table(results)))
    written = ", ".join([*(f"{table}.csv" for table in tables), f"{name}.png", f"{name}.svg"])
    print(f"\nwritten to {place}: {written}")
    return 0


def _write_evaluation(
    parent: Path,
    tables: dict[str, list[dict[str, Any]]],
    facts: dict[str, Any],
    draw: Callable[[Path], None],
    name: str,
) -> Path:
    """Write one evaluation into the next free folder of `parent`, complete or not at all."""
    import json
    import tempfile

    from ..runs.log import EVALUATION_COLUMNS
    from ..support.files import make_folder, write_durably
    from ..support.rows import RowLog

    make_folder(parent)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".writing-") as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        for table, rows in tables.items():
            columns = EVALUATION_COLUMNS if table == "evaluations" else tuple(rows[0])
            RowLog(fresh, table, columns).append(rows)
        write_durably(fresh / "environment.json", json.dumps(facts, indent=2) + "\n")
        draw(fresh / name)
        number = 1
        while (place := parent / f"{number:03d}").exists():
            number += 1
        os.replace(fresh, place)
    return place
