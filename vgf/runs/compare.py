"""Run folders, as the comparison of :mod:`vgf.comparison` takes them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..benchmarks import BENCHMARKS
from ..comparison.groups import Record, combine
from ..comparison.reading import FLAGS, is_log, read_log
from ..comparison.results import Results
from ..support.errors import VGFError
from ..support.files import read_json
from ..support.settings_tree import NONE, to_dict
from .checkpoint import SIDECAR, checkpoint_path, latest_step
from .config import RunConfig
from .folder import CELLS, FAILED, RUNS
from .log import METRICS
from .reading import Run, find_places, read_run
from .resolve import load_config
from .scores import by_budget, mean, step_of

# Settings of a task that say where its data are, or how they are handed to the method.
_PLACES = (
    "env",
    "data",
    "data_dir",
    "data_memory",
    "trust_data_code",
    "mirror",
    "offline",
    "score",
)
_PREPARED = (
    "normalise_rewards",
    "standardise",
    "action_clip_eps",
    "qlearning_dataset",
    "n_step",
    "action_chunk",
)


def read_runs(
    folders: Sequence[Path | str], at: str | int = "last", allow: Collection[str] = ()
) -> Results:
    """The results of run folders, of folders of them, of sweeps, and of FQL's logs.

    Args:
        folders: each is searched for runs.
        at, allow: as :func:`vgf.comparison.combine`.

    Raises:
        VGFError: a folder without runs, or as :func:`vgf.comparison.combine`.
    """
    return combine([one for folder in folders for one in records(Path(folder))], at, allow)


def records(folder: Path) -> list[Record]:
    """All runs in a folder; of a sweep, those that did not start or failed as well.

    Raises:
        VGFError: no runs there, or a damaged file.
    """
    if not folder.is_dir():
        raise VGFError(f"{folder}: no such folder of runs; a table of results is read with --table")
    if (folder / CELLS).is_dir():
        return [*_of_sweep(folder)]
    logs = [path.parent for path in sorted(folder.rglob(FLAGS)) if is_log(path.parent)]
    found = [read_log(place) for place in logs]
    if not found or any(folder.rglob(f"{METRICS}.jsonl")):
        found += [_sound(place) for place in find_places(folder)]
    return found


def _sound(place: Path) -> Record:
    try:
        return record_of(read_run(place))
    except VGFError as error:
        raise VGFError(f"{error}; move that run elsewhere, or name the others") from error


def record_of(run: Run) -> Record:
    """One run folder.

    Raises:
        VGFError: a damaged config.toml or checkpoint.
    """
    config = run.resolved
    start: Mapping[str, Any] = run.starts[-1] if run.starts else {}
    rows = [
        {"step": step, "budget": budget, "score": mean(group, _column(group))}
        for step in sorted({step_of(row) for row in run.evaluations})
        for budget, group in by_budget(r for r in run.evaluations if step_of(r) == step).items()
    ]
    return _record(
        str(run.folder),
        config,
        rows=rows,
        trained=run.updates,
        kind=start.get("score"),
        transitions=_transitions(run.folder),
        versions=start.get("versions", {}),
    )


def _column(rows: Sequence[Mapping[str, Any]]) -> str:
    """Where an evaluation's score is, in old logs too."""
    if any(row.get("score") is not None for row in rows):
        return "score"
    return "success" if all(row.get("success") is not None for row in rows) else "return"


def _record(
    source: str,
    config: RunConfig,
    rows: Sequence[Mapping[str, Any]] = (),
    kind: str | None = None,
    transitions: int | None = None,
    versions: Mapping[str, str] | None = None,
    failure: str | None = None,
    trained: int = 0,
) -> Record:
    tree = to_dict(config)
    task, online = tree["task"], tree["online"]
    prepared = {f"task.{name}": task[name] for name in _PREPARED if name in task}
    budgets = {row["budget"] for row in rows}
    numbered = {budget for budget in budgets if not isinstance(budget, str)}
    training = config.agent.budget.steps if config.agent.budget.steps in numbered else None
    if training is None and budgets:  # trained without a flow: its one policy
        training = sorted(budgets, key=str)[0] if len(budgets) == 1 else None
    return Record(
        source=source,
        task=task["env"] if task["env"] != NONE else Path(task["data"]).name,
        method=config.agent.method,
        seed=config.seed,
        settings={
            **_flat({"agent": tree["agent"]}),
            **prepared,
            "train.batch_size": config.train.batch_size,
            **{f"backend.{k}": tree["backend"][k] for k in ("name", "dtype", "matmul_precision")},
            **({f"online.{k}": x for k, x in online.items()} if config.online.steps else {}),
            "start.run": config.start.run,
        },
        protocol={
            "updates": config.updates,
            "environment steps": config.online.steps,
            "data size": transitions,
            "data file": None if config.task.data is None else Path(config.task.data).name,
            "episodes": config.evaluation.episodes,
            "test particles": tree["evaluation"]["particles"],
            **_rules(task, versions or {}),
            **{
                key.replace("_", " "): x
                for key, x in task.items()
                if key not in (*_PLACES, *_PREPARED, "success_timing")
            },
        },
        kind=kind,
        rows=rows,
        training=training,
        end=config.updates,
        trained=trained,
        failure=failure,
    )


def _rules(task: Mapping[str, Any], versions: Mapping[str, str]) -> dict[str, str | None]:
    """What decides a score: when success is tested, by the settings or else by the benchmark."""
    found: dict[str, str | None] = {"success timing": None}
    for benchmark in BENCHMARKS:
        found.update(benchmark.protocol(task, versions))
    said = task.get("success_timing")
    return found if said in (None, NONE) else {**found, "success timing": str(said)}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _transitions(folder: Path) -> int | None:
    """The size of the data that a run was trained on, from its last checkpoint."""
    step = latest_step(folder)
    if step is None:
        return None
    extra = read_json(checkpoint_path(folder, step) / SIDECAR, dict).get("extra", {})
    return extra.get("transitions") or None


def _of_sweep(folder: Path) -> Iterator[Record]:
    for cell in sorted((folder / CELLS).glob("*.toml")):
        place, failed = folder / RUNS / cell.stem, folder / FAILED / f"{cell.stem}.txt"
        failure = failed.read_text(encoding="utf-8").strip() if failed.is_file() else None
        if (place / f"{METRICS}.jsonl").is_file() and failure is None:
            yield _sound(place)
        else:
            yield _record(str(place), load_config(cell), failure=failure)
