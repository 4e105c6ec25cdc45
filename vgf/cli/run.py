"""`vgf run`: train and evaluate."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import VGFError
from . import COMMANDS
from .report import print_table

if TYPE_CHECKING:
    from ..config import TaskSettings


def main(words: list[str]) -> int:
    from ..files import check_writable
    from ..flags import Parser, add_flags, config_from_flags, given

    parser = Parser(prog="vgf run", description=COMMANDS["run"])
    add_flags(parser)
    parser.add_argument("--resume", metavar="RUN", type=Path, help="go on with a run folder")
    args = parser.parse_args(words)
    if args.resume is not None:
        changed = given(args)
        if changed or args.config is not None:
            raise VGFError(
                "vgf run: --resume goes on with the run's own settings; drop the other flags, "
                "or start a new run from its config.toml by --config"
            )
        return _resume(args.resume)
    config = config_from_flags(args)
    places = {name: getattr(config.task, name) for name in ("data_dir", "data")}
    absolute = {  # config.toml may be used from anywhere
        name: os.path.abspath(os.path.expanduser(place))
        for name, place in places.items() if place is not None
    }  # fmt: skip
    config = dataclasses.replace(config, task=dataclasses.replace(config.task, **absolute))
    folder = Path(config.out).expanduser() if config.out else _new_folder(config.task)
    if os.path.lexists(folder):
        raise VGFError(
            f"{folder} exists; go on with it by --resume {folder}, or choose another --out"
        )
    check_writable(folder)
    return _train_all(config, folder, resume=False)


def _new_folder(task: TaskSettings) -> Path:
    name = re.sub(r"[^\w.-]+", "-", task.env or Path(task.data or "data").stem)
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, number = Path("runs") / stem, 2
    while folder.exists():
        folder, number = Path("runs") / f"{stem}-{number}", number + 1
    return folder


def seed_folders(config: Any, folder: Path) -> dict[int, Path]:
    """The folder of each seed: the run folder itself for one, folders within it for several."""
    if config.seeds == 1:
        return {config.seed: folder}
    seeds = range(config.seed, config.seed + config.seeds)
    return {seed: folder / f"seed-{seed}" for seed in seeds}


def _train_all(config: Any, folder: Path, resume: bool) -> int:
    """Train every seed that is not finished, and report on all of them."""
    from ..report import report

    start = time.perf_counter()
    try:
        _train_seeds(config, folder, resume)
        page = report(folder)
    except KeyboardInterrupt:
        from ..train import Interrupted

        way_on = f"go on with: vgf run --resume {folder}"
        raise Interrupted(
            f"stopped; {way_on}" if folder.exists() else "stopped before any run folder was made"
        ) from None
    print_table(folder)
    print(f"{time.perf_counter() - start:.0f} s in all; figures and tables: {page}")
    print(f"run folder: {folder}")
    return 0


def _train_seeds(config: Any, folder: Path, resume: bool) -> None:
    from ..checkpoint import CONFIG, create_run_folder
    from ..train import Interrupted, finished, prepare, train

    folders = seed_folders(config, folder)
    pending = {
        seed: place for seed, place in folders.items() if not (resume and finished(config, place))
    }
    if not pending:
        print(f"{folder} is finished: {config.train.steps:,} updates; reporting again")
        return
    prepared = prepare(config)
    several = len(folders) > 1
    if several and not resume:
        # what --resume goes on from, and what names the seeds that are not begun yet
        create_run_folder(folder, dataclasses.replace(prepared[0], out=str(folder)))
    for seed, place in pending.items():
        going_on = resume and (place / CONFIG).is_file()
        single = dataclasses.replace(prepared[0], seed=seed, seeds=1, out=str(place))
        try:
            train(single, place, resume=going_on, prepared=prepared)
        except Interrupted as stop:
            if not several:
                raise
            at = f"seed {seed} {stop}".partition(";")[0]
            raise Interrupted(f"{at}; go on with: vgf run --resume {folder}") from None
        except VGFError:
            if several and not resume and not any(part.exists() for part in folders.values()):
                shutil.rmtree(folder)
            raise


def _resume(folder: Path) -> int:
    from ..checkpoint import open_run_folder

    return _train_all(open_run_folder(folder), folder, resume=True)
