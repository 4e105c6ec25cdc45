"""Complete runs of `vgf run`, summarised: the default run over ten seeds, and others.

    python -m validation.runs demo                   # trains, then writes the results
    python -m validation.runs demo --from RUN        # writes the results of a finished run folder
    python -m validation.runs flow                   # one seed, and the picture of its flow

Writes validation/results/run-NAME.md, .json and the test-time scaling figure (.png, .svg); for
`flow` also flow.json and its picture, what the first agent's flow does on the maze.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from vgf.cli import main as vgf_main
from vgf.runs.look import FLOW
from vgf.runs.picture import caption, save_flow
from vgf.runs.report import PICTURE, Run, find_runs, last_scores, save_scaling, score_table
from vgf.support.errors import VGFError
from vgf.support.files import read_json

from .record import RESULTS, markdown_table, write, write_json

EXPERIMENTS: dict[str, tuple[str, list[str]]] = {
    "demo": ("The default run, ten seeds", ["--seeds", "10"]),
    "flow": ("The default run, one seed, and what its flow does", []),
    "cube-single": (
        "cube-single-play, task 2, from 100 generated episodes",
        [
            *("--env", "cube-single-play-singletask-task2-v0", "--data-episodes", "100"),
            *("--critic-hidden", "128", "128", "128", "--reference-hidden", "128", "128", "128"),
            *("--step-size", "0.03", "--evaluate-every", "10000"),
        ],
    ),
}


def per_seed(runs: list[Run]) -> list[list[Any]]:
    """A row for each seed: its success at every test budget, in its last evaluation."""
    rows = []
    for run in runs:
        scores = {str(score.budget): score for score in last_scores([run])}
        seconds = run.metrics[-1]["seconds"]
        rows.append(
            [run.config["seed"], *(f"{s.value:.2f}" for s in scores.values()), f"{seconds:.0f}"]
        )
    return rows


def summarise(name: str, folder: Path, out: Path) -> str:
    """The Markdown summary of a run folder, and its files."""
    out.mkdir(parents=True, exist_ok=True)
    title, flags = EXPERIMENTS[name]
    runs = find_runs(folder)
    last = last_scores(runs)
    table = score_table(last)
    budgets = [str(score.budget) for score in last]
    start = runs[0].starts[-1]
    used = ", ".join(f"{package} {version}" for package, version in start["versions"].items())
    trained = runs[0].config["agent"]["budget"]["steps"]
    values = [{s.budget: s.value for s in last_scores([run])} for run in runs]
    wins = sum(value[trained] > value["bc"] + 0.5 for value in values)
    lines = [
        f"# {title}",
        "",
        f"Made by `python -m validation.runs {name}`, which is `vgf {' '.join(['run', *flags])}`.",
        f"{start['backend']} {start['dtype']} on {start['device']}, {start['cpu_count']} cores.",
        f"{used}.",
        f"Revision {start['git_revision'] or 'unknown'}. The last evaluation of each seed, after",
        f"{last[0].step:,} updates; nothing is chosen with hindsight.",
        "",
        markdown_table(list(table[0]), [list(row.values()) for row in table]),
        "",
        f"Success by seed. VGF at its training budget, L = {trained}, is above one sample of",
        f"behaviour cloning by more than 0.5 for {wins} of {len(runs)} seeds. Seconds are of",
        "training and evaluation, whatever else the machine was doing.",
        "",
        markdown_table(["seed", *budgets, "seconds"], per_seed(runs)),
        "",
        f"![success against the test budget](run-{name}.svg)",
        "",
    ]
    save_scaling(last, out / f"run-{name}")
    if name == "flow":
        found = read_json(runs[0].folder / FLOW, dict)
        write(out / FLOW, json.dumps(found, separators=(",", ":")) + "\n")
        save_flow(found, out / PICTURE)
        lines += [f"![{caption(found)}]({PICTURE}.svg)", "", f"*{caption(found)}*", ""]
    header = ["seed", *budgets, "seconds"]
    result = {
        "command": f"vgf {' '.join(['run', *flags])}",
        "versions": start["versions"],
        "revision": start["git_revision"],
        "last": table,
        "seeds": [dict(zip(header, row, strict=True)) for row in per_seed(runs)],
        "settings": {key: runs[0].config[key] for key in ("agent", "train", "evaluation")},
    }
    write_json(out / f"run-{name}.json", result)
    text = "\n".join(lines)
    write(out / f"run-{name}.md", text)
    return text


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m validation.runs", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("name", choices=sorted(EXPERIMENTS))
    parser.add_argument("--from", dest="source", type=Path, metavar="RUN", help="a finished run")
    parser.add_argument("--data-dir", help="folder of data sets")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args(argv)
    scratch = None
    folder = args.source
    if folder is None:
        scratch = Path(tempfile.mkdtemp())
        folder = scratch / args.name
        data = ["--data-dir", args.data_dir] if args.data_dir else []
        status = vgf_main(["run", *EXPERIMENTS[args.name][1], *data, "--out", str(folder)])
        if status:
            return status
    try:
        print(summarise(args.name, folder, args.out))
    except (VGFError, json.JSONDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if scratch is not None:
        shutil.rmtree(scratch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
