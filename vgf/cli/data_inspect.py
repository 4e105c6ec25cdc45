"""`vgf data inspect`: look at a data set."""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..support.errors import VGFError

if TYPE_CHECKING:
    from ..data.inspect import Inspection, Spread
    from ..data.raw import RawData

SUFFIXES = (".npz", ".hdf5", ".h5")


def main(words: list[str]) -> int:
    args = _parser().parse_args(words)
    from ..data.inspect import inspect

    raw, more, refusal = _open(args)
    found = inspect(raw)
    faults = found.faults or ((refusal,) if refusal else ())
    found = dataclasses.replace(found, faults=faults, remarks=(*found.remarks, *more))
    picture = None
    if args.picture:
        picture = _picture_path(args.out, args.what)
        from ..data.picture import save_picture

        save_picture(raw, found, picture, maze=_is_maze(args))
    if args.json:
        print(json.dumps(_as_json(found, picture), indent=2))
    else:
        _print(found, picture)
    return 2 if found.faults else 0


def _parser() -> argparse.ArgumentParser:
    from ..runs.flags import Parser

    parser = Parser(
        prog="vgf data inspect",
        usage="vgf data inspect NAME|FILE [flags]",
        description="What a data set holds, what is wrong with it, and a picture of it. Exits with "
        "status 2 where vgf run would refuse it.",
    )
    parser.add_argument(
        "what",
        metavar="NAME|FILE",
        help="a name of OGBench, D4RL or Minari whose data are here, or a .npz or .hdf5 file",
    )
    parser.add_argument(
        "--env", metavar="NAME", help="the task whose conventions hold for FILE, as in vgf run"
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", type=Path, help="folder of data sets, as in vgf run"
    )
    parser.add_argument(
        "--out",
        metavar="PNG",
        type=Path,
        help="picture to write, or a folder for it; default: inspect-<name>.png here",
    )
    parser.add_argument(
        "--picture", action=argparse.BooleanOptionalAction, default=True, help="make the picture"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser


# --- what is to be looked at --------------------------------------------------------------------


def _open(args: argparse.Namespace) -> tuple[RawData, tuple[str, ...], str | None]:
    """The data, remarks on how they were read, and why a run would refuse them all the same."""
    from ..benchmarks.source import GYMNASIUM, NONE, OGBENCH, find_source, read_file, read_raw

    what, env, remarks = args.what, args.env, []
    file = Path(what).expanduser()
    is_file = file.exists() or file.suffix in SUFFIXES
    if is_file and not file.exists():
        raise VGFError(f"{what}: no such file; vgf data make records one")
    if not is_file:
        if env is not None:
            raise VGFError(f"{what}: no such file; --env goes with a file, {what} is none")
        env, note = _task_of(what)
        remarks += note
    elif env is None and _is_ogbenchs(file):
        env, note = _task_of(_dataset_in(file.name))
        remarks += note
    elif env is None and (name := _recorded_in(file)) is not None:
        env = f"{GYMNASIUM}:{name}"
        remarks.append(f"actions are those of {env}, where they were recorded: train with --env")
    if env is None:
        return read_file(file), tuple(remarks), None
    source = find_source(env, args.data_dir)
    if not is_file and source.kind in (GYMNASIUM, NONE):
        raise VGFError(f"{what} has no data of its own; name a file, and --env {what}")
    task, box, why_not = _measure(source, args.data_dir)
    if why_not is not None:
        remarks.append(f"not compared with the environment: {why_not}")
    try:
        raw = read_raw(
            env,
            file if is_file else None,
            args.data_dir,
            action_box=box,
            allow_generate=False,
            allow_download=False,
        )
    except VGFError as error:
        if source.kind == OGBENCH and str(error).startswith("no data for"):
            raise VGFError(_no_ogbench_data(source.name, args.data_dir)) from error
        raise
    return raw.spread(), tuple(remarks), _does_not_fit(task, raw)


def _no_ogbench_data(name: str, data_dir: Path | None) -> str:
    from ..benchmarks.ogbench import parse_task
    from ..recording.record import recipe_for

    dataset = parse_task(name).dataset
    folder = f" --data-dir {data_dir}" if data_dir is not None else ""
    made = f"vgf data make {dataset}{folder} makes them, or " if recipe_for(dataset) else ""
    return (
        f"no data for {name}; {made}put {dataset}.npz into "
        f"{data_dir or '~/.ogbench/data'}; of a smaller set, name the file"
    )


def _task_of(name: str) -> tuple[str, list[str]]:
    """A task for a name, which may be that of one of OGBench's data sets."""
    from ..benchmarks.ogbench import ogbench_tasks, parse_task

    bare = name.removeprefix("ogbench:")
    task = f"{bare.removesuffix('-v0')}-singletask-task1-v0"
    if task in ogbench_tasks() and parse_task(task).dataset == bare:
        return task, [f"rewards and masks are those of {task}; --env names another task"]
    return name, []


def _dataset_in(file: str) -> str:
    """The name of OGBench's data set that a file's name begins with, or ""."""
    from ..benchmarks.ogbench import ogbench_tasks, parse_task

    names = {parse_task(task).dataset for task in ogbench_tasks()}
    return max((name for name in names if file.startswith(name)), key=len, default="")


def _is_ogbenchs(file: Path) -> bool:
    """Whether a file is of OGBench's by its name, and has no rewards of its own."""
    import zipfile

    if not _dataset_in(file.name) or file.suffix != ".npz":
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            return "rewards.npy" not in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _recorded_in(file: Path) -> str | None:
    """The environment of gymnasium that a file says it was recorded in, if it is here."""
    from ..recording.formats import recorded_environment
    from ..support.extras import is_installed

    name = recorded_environment(file)
    if name is None or not is_installed("gymnasium"):
        return None
    from ..benchmarks.environments import find_spec

    try:
        return None if find_spec(name) is None else name
    except VGFError:  # its module is not here
        return None


def _measure(source: Any, data_dir: Path | None) -> tuple[Any, Any, str | None]:
    """The sizes and the box of a task's environment, or why they are not known."""
    from ..benchmarks.tasks import measure

    try:
        return *measure(source, 1, data_dir, allow_download=False), None
    except VGFError as error:
        return None, None, str(error)


def _does_not_fit(task: Any, raw: RawData) -> str | None:
    """Why data that are right by themselves are not those of a task."""
    from ..benchmarks.tasks import check_sizes
    from ..data.raw import to_dataset

    if task is None:
        return None
    try:
        check_sizes(task, to_dataset(raw))
    except VGFError as error:
        return str(error).removeprefix(f"{raw.source}: ")
    return None


def _picture_path(out: Path | None, what: str) -> Path:
    name = Path(what).name if Path(what).suffix in SUFFIXES else what
    stem = name.removesuffix(Path(name).suffix) if Path(name).suffix in SUFFIXES else name
    default = f"inspect-{stem.replace('/', '-').replace(':', '-')}.png"
    if out is None:
        return Path(default)
    out = out.expanduser()
    if out.suffix == ".png":
        return out
    if out.suffix and not out.is_dir():
        raise VGFError(f"--out {out} must end in .png, or be a folder")
    return out / default


def _is_maze(args: argparse.Namespace) -> bool:
    words = f"{args.what} {args.env or ''}".lower()
    return any(name in words for name in ("maze", "antsoccer"))


# --- output -------------------------------------------------------------------------------------


def _as_json(found: Inspection, picture: Path | None) -> dict[str, Any]:
    values = dataclasses.asdict(found)
    del values["per_trajectory"]
    return {**values, "picture": None if picture is None else str(picture)}


def _print(found: Inspection, picture: Path | None) -> None:
    from ..support.tables import format_table

    print(_wrapped("source", found.source))
    for line in found.conventions:
        print(_wrapped("", line))
    unused = [name for name in found.found if name not in found.fields]
    if unused:
        print(_wrapped("not used", ", ".join(unused)))
    print("\n" + format_table([_field_row(key, field) for key, field in found.fields.items()]))
    print("NaN and inf count rows\n")
    print(format_table(_end_rows(found)))
    rows = [
        _spread_row(name, spread)
        for name, spread in (("return", found.returns), ("length", found.lengths))
    ]
    print("\n" + format_table(rows))
    print(f"\ntransitions         {_count(found.transitions)}")
    print(f"duplicates          {_count(found.duplicates)}")
    print(f"actions out of box  {_count(found.outside)}   {found.box}")
    for line in found.remarks:
        print(textwrap.fill(f"note: {line}", 79, subsequent_indent="      "))
    if found.faults:
        count = len(found.faults)
        print(f"\n{count} {'fault' if count == 1 else 'faults'}; vgf run refuses these data:")
        for line in found.faults:
            print(textwrap.fill(line, 79, initial_indent="  ", subsequent_indent="    "))
    else:
        print("\nno faults; vgf run takes these data")
    if picture is not None:
        print(f"picture: {picture}")


def _wrapped(head: str, text: str) -> str:
    return textwrap.fill(
        text,
        79,
        initial_indent=f"{head:<10}",
        subsequent_indent=" " * 10,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _field_row(key: str, field: Any) -> dict[str, str]:
    return {
        "array": key,
        "shape": str(list(field.shape)),
        "dtype": field.dtype,
        "min": _number(field.min),
        "mean": _number(field.mean),
        "max": _number(field.max),
        "NaN": f"{field.nan:,}",
        "inf": f"{field.infinite:,}",
    }


def _end_rows(found: Inspection) -> list[dict[str, str]]:
    def row(name: str, in_file: int | None, trained: str = "") -> dict[str, str]:
        return {
            "rows with": name,
            "in the file": "absent" if in_file is None else f"{in_file:,}",
            "in training": trained,
        }

    return [
        row("terminals = 1", found.terminals),
        row("timeouts = 1", found.timeouts),
        row("both of them", found.terminals_and_timeouts),
        row("masks = 0: done, no bootstrap", found.masks, _count(found.done)),
        {
            "rows with": "the end of a trajectory",
            "in the file": "",
            "in training": _count(found.trajectories),
        },
    ]


def _spread_row(name: str, spread: Spread | None) -> dict[str, str]:
    values = {} if spread is None else dataclasses.asdict(spread)
    columns = ("min", "median", "mean", "max")
    return {"trajectories": name, **{key: _number(values.get(key)) for key in columns}}


def _count(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
