"""`vgf run`: train and evaluate."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ..support.errors import VGFError
from ..support.files import expanded
from ..support.interrupts import Interrupted
from . import COMMANDS, complain
from .report import print_table

if TYPE_CHECKING:
    from ..runs.config import RunConfig, TaskSettings


def main(words: list[str]) -> int:
    from ..runs.flags import add_flags, given, in_flags, load_methods
    from ..runs.start import configuration
    from ..support.files import check_writable
    from ..support.parser import Parser

    parser = Parser(prog="vgf run", description=COMMANDS["run"])
    load_methods(words)
    flags = add_flags(parser)
    parser.add_argument("--resume", metavar="RUN", type=Path, help="continue a run folder")
    args = parser.parse_args(words)
    if args.resume is not None:
        changed = given(args)
        if changed or args.config is not None:
            raise VGFError(
                "vgf run: --resume continues with the run's own settings; drop the other flags, "
                f"go on to more updates or other settings in a new run with --from {args.resume}, "
                "or start one afresh from its config.toml with --config"
            )
        return _resume(args.resume)
    with in_flags(flags):
        config = configuration(given(args), args.config)
    places = {name: getattr(config.task, name) for name in ("data_dir", "data")}
    absolute = {  # config.toml may be used from anywhere
        name: os.path.abspath(os.path.expanduser(place))
        for name, place in places.items()
        if place is not None
    }
    config = dataclasses.replace(config, task=dataclasses.replace(config.task, **absolute))
    folder = expanded(config.out) if config.out else _new_folder(config.task)
    if os.path.lexists(folder):
        raise VGFError(
            f"{folder} exists; continue it with --resume {folder}, or choose another --out"
        )
    check_writable(folder)
    with in_flags(flags):
        return _train_all(config, folder, resume=False)


def _new_folder(task: TaskSettings) -> Path:
    name = re.sub(r"[^\w.-]+", "-", task.env or Path(task.data or "data").stem)
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, number = Path("runs") / stem, 2
    while folder.exists():
        folder, number = Path("runs") / f"{stem}-{number}", number + 1
    return folder


def _train_all(config: RunConfig, folder: Path, resume: bool) -> int:
    """Train every unfinished seed, and report on all of them."""
    from ..runs.report import QUICK, report, sound_runs

    start = time.perf_counter()
    try:
        if config.quick:
            print(textwrap.fill(QUICK, 79))
        failed = _train_seeds(config, folder, resume)
        found = sound_runs(folder)
        page = report(folder, found)
    except KeyboardInterrupt:
        way_on = f"continue with: vgf run --resume {folder}"
        raise Interrupted(
            f"stopped; {way_on}" if folder.exists() else "stopped before any run folder was made"
        ) from None
    print_table(folder, found)
    print(f"{time.perf_counter() - start:.0f} s in all; figures and tables: {page}")
    print(f"run folder: {folder}")
    if failed:
        lines = "\n".join(f"  {place.name}: {error}" for place, error in failed.items())
        raise VGFError(
            f"{len(failed)} of {config.seeds} seeds failed; the others are finished. Once what "
            f"follows is mended: vgf run --resume {folder}\n{lines}"
        )
    return 0


def _train_seeds(config: RunConfig, folder: Path, resume: bool) -> dict[Path, VGFError]:
    """Train every unfinished seed, whatever becomes of the others; returns those that failed."""
    from ..runs.folder import CONFIG, create_run_folder, seed_folders
    from ..runs.look import record_flow
    from ..runs.loop import finished, prepare, train_together
    from ..runs.updates import FailedRuns
    from ..support.locks import only_writer

    folders = seed_folders(config, folder)
    runs = {place: _of_seed(config, seed, place) for seed, place in folders.items()}
    pending = {
        place: single for place, single in runs.items() if not (resume and finished(single, place))
    }
    if not pending:
        print(
            f"{folder} is finished: {next(iter(runs.values())).updates:,} updates; reporting again"
        )
        return {}
    prepared = prepare(config)
    several = len(folders) > 1
    failed: dict[Path, VGFError] = {}
    with ExitStack() as stack:
        if several and not resume:
            # for --resume: it names the seeds that have not begun
            create_run_folder(folder, dataclasses.replace(prepared[0], out=str(folder)))
        if several:
            stack.enter_context(only_writer(folder))
        going_on = {place for place in pending if resume and (place / CONFIG).is_file()}
        turns = [runs] if config.together else [{place: r} for place, r in pending.items()]
        for turn in turns:
            try:
                train_together(turn, going_on, prepared=prepared, over=runs.keys() - pending)
            except Interrupted as stop:
                if not several:
                    raise
                seeds = "all seeds" if len(turn) > 1 else f"seed {next(iter(turn.values())).seed}"
                at = f"{seeds} {stop}".partition(";")[0]
                raise Interrupted(f"{at}; continue with: vgf run --resume {folder}") from None
            except FailedRuns as faults:
                failed |= {list(turn)[number]: one for number, one in faults.errors.items()}
            except VGFError as fault:
                if not several:
                    raise
                failed[next(iter(turn))] = fault
            if several and not resume and not any(part.exists() for part in folders.values()):
                shutil.rmtree(folder)
                raise next(iter(failed.values()))
            for place, error in failed.items():
                if place in turn:
                    complain(f"{place.name} failed: {error}")
        if len(failed) == len(runs):
            raise VGFError(
                f"all {len(runs)} seeds failed; the first, {next(iter(failed)).name}: "
                f"{next(iter(failed.values()))}"
            )
    whole = next(place for place in folders.values() if place not in failed)
    try:
        record_flow(whole, prepared[2])
    except (Exception, SystemExit) as error:  # of a picture, once everything else is done
        reason = " ".join(str(error).split()) or type(error).__name__
        complain(f"warning: no picture of the flow: {reason}")
    return failed


def _of_seed(config: RunConfig, seed: int, place: Path) -> RunConfig:
    """The configuration of one seed; once begun, it keeps its starting point."""
    from ..runs.folder import CONFIG, open_run_folder

    begun = (place / CONFIG).is_file()
    start = open_run_folder(place).start if begun else config.start
    return dataclasses.replace(config, seed=seed, seeds=1, out=str(place), start=start)


def _resume(folder: Path) -> int:
    from ..runs.folder import open_run_folder

    return _train_all(open_run_folder(folder), folder, resume=True)
