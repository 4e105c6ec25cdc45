"""`vgf data inspect`: look at a data set."""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..support.errors import VGFError
from ..support.files import expanded

if TYPE_CHECKING:
    from ..data.inspect import Inspection, Spread
    from ..data.raw import RawData

SUFFIXES = (".npz", ".hdf5", ".h5")


def main(words: list[str]) -> int:
    args = _parser().parse_args(words)
    from ..data.inspect import inspect

    raw, more, changed, refusal = _open(args)
    found = inspect(raw)
    faults = (*changed, *(found.faults or refusal))
    found = dataclasses.replace(found, faults=faults, remarks=(*found.remarks, *more))
    picture = None
    if args.picture:
        picture = _picture_path(args.out, args.what)
        from ..data.picture import save_picture

        save_picture(raw, found, picture, maze=_positions_first(args))
    if args.json:
        print(json.dumps(_as_json(found, picture), indent=2))
    else:
        _print(found, picture)
    return 2 if found.faults else 0


def _parser() -> argparse.ArgumentParser:
    from ..support.parser import Parser

    parser = Parser(
        prog="vgf data inspect",
        usage="vgf data inspect NAME|FILE [flags]",
        description="What a data set holds, what is wrong with it, and a picture of it. Exits with "
        "status 2 where vgf run would refuse it.",
    )
    parser.add_argument(
        "what",
        metavar="NAME|FILE",
        help="an OGBench, D4RL or Minari name whose data are here, or a .npz or .hdf5 file",
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


# --- finding the data --------------------------------------------------------------------------


def _open(
    args: argparse.Namespace,
) -> tuple[RawData, tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The data, remarks on how they were read, whether they are not what was downloaded, and other
    reasons why a run would refuse them.
    """
    from ..benchmarks import DataRequest, NoDataError, check_given, find_task
    from ..benchmarks.tasks import check_sizes, measure
    from ..data.raw import to_dataset

    what, remarks = args.what, []
    file = expanded(what)
    is_file = file.exists() or file.suffix in SUFFIXES
    if is_file and not file.exists():
        raise VGFError(f"{what}: no such file; vgf data make records one")
    if not is_file and args.env is not None:
        raise VGFError(f"{what}: no such file; --env goes with a file, and {what} is not one")
    env = args.env
    if env is None:
        env, remark = _task_of_file(file) if is_file else _task_of_data(what)
        remarks += [remark] if remark else []
    found = find_task(env, args.data_dir)
    if not is_file and not found.benchmark.has_data:
        raise VGFError(f"{what} has no data of its own; name a file, and --env {what}")
    request = DataRequest(
        found.name,
        file if is_file else None,
        args.data_dir,
        allow_generate=False,
        allow_download=False,
    )
    found.benchmark.check_request(request)
    task = None
    try:
        if not found.benchmark.names_environments:
            task, box = measure(found.benchmark, request)
            request = dataclasses.replace(request, action_box=box)
    except VGFError as error:
        remarks.append(f"not compared with the environment: {error}")
    try:
        raw = found.benchmark.read(request)
    except NoDataError as error:
        raise VGFError(found.benchmark.way_on(request) or str(error)) from error
    changed = _refusal(raw, lambda: check_given(request))
    unfit: tuple[str, ...] = ()
    if task is not None and task.make_env is not None:
        unfit = _refusal(raw, lambda: check_sizes(task, to_dataset(raw)))
    return raw.spread(), tuple(remarks), changed, unfit


def _task_of_data(name: str) -> tuple[str, str | None]:
    """A task for a name, which may name a data set that several tasks share."""
    from ..benchmarks import BENCHMARKS, split_prefix

    forced, bare = split_prefix(name)
    for benchmark in BENCHMARKS if forced is None else [forced]:
        found = benchmark.task_of_data(bare)
        if found is not None:
            return found
    return name, None


def _task_of_file(file: Path) -> tuple[str | None, str | None]:
    """The task that a file says it belongs to, if any."""
    from ..benchmarks import BENCHMARKS

    found = (benchmark.task_of_file(file) for benchmark in BENCHMARKS)
    return next((task for task in found if task is not None), (None, None))


def _refusal(raw: RawData, check: Callable[[], None]) -> tuple[str, ...]:
    """What a check says of data, if it refuses them."""
    try:
        check()
    except VGFError as error:
        return (str(error).removeprefix(f"{raw.source}: "),)
    return ()


def _picture_path(out: Path | None, what: str) -> Path:
    name = Path(what).name if Path(what).suffix in SUFFIXES else what
    stem = name.removesuffix(Path(name).suffix) if Path(name).suffix in SUFFIXES else name
    default = f"inspect-{stem.replace('/', '-').replace(':', '-')}.png"
    if out is None:
        return Path(default)
    out = expanded(out)
    if out.suffix == ".png":
        return out
    if out.suffix and not out.is_dir():
        raise VGFError(f"--out {out} must end in .png, or be a folder")
    return out / default


def _positions_first(args: argparse.Namespace) -> bool:
    """Whether observations begin with a position in the plane, judging by the data's name."""
    from ..benchmarks import BENCHMARKS

    words = f"{args.what} {args.env or ''}"
    return any(benchmark.positions_first(words) for benchmark in BENCHMARKS)


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
    used = {*found.fields, *found.renamed}
    unused = [name for name in found.found if name not in used]
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
