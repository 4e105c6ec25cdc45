"""`vgf data make`: record a data set."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..support.errors import VGFError

if TYPE_CHECKING:
    from ..recording.record import Recipe

PREFIX = "gymnasium:"


def main(words: list[str]) -> int:
    args = _make_parser().parse_args(words)
    name = args.name.removeprefix("ogbench:")
    try:
        if name.startswith(PREFIX) or _ogbench_recipe(name) is None:
            return _make_gymnasium(name.removeprefix(PREFIX), args)
        return _make_ogbench(name, args)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _make_parser() -> argparse.ArgumentParser:
    from ..runs.flags import Parser

    parser = Parser(
        prog="vgf data make",
        usage="vgf data make NAME [flags]",
        description="Record a data set. What is stopped or killed goes on when the same command "
        "is given again; the data depend on the seed, not on the number of processes.",
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        help="OGBench's name of a data set or of a single task (pointmaze, cube, scene, puzzle), "
        "or gymnasium:ID, such as gymnasium:Hopper-v5",
    )
    whole: dict[str, Any] = {"type": _whole, "metavar": "N"}
    parser.add_argument("--episodes", **whole, help="OGBench: the benchmark's; gymnasium: 100")
    parser.add_argument("--seed", **whole, default=0, help="of everything that is random [0]")
    parser.add_argument("--workers", **whole, help="processes; default: one on each core")
    parser.add_argument(
        "--data-dir", metavar="DIR", type=Path, help="folder of OGBench's or Minari's data sets"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="FILE.npz; gymnasium also: FILE.hdf5, as D4RL's; minari:NAME"
    )
    parser.add_argument("--force", action="store_true", help="replace what is there")
    group = parser.add_argument_group("OGBench")
    group.add_argument(
        "--action-repeat", **whole, help="simulator steps for each decision, for pointmaze [1]"
    )
    group = parser.add_argument_group("gymnasium")
    group.add_argument(
        "--policy",
        metavar="POLICY",
        help="random; FILE.py:FUNCTION or MODULE:FUNCTION, from an observation (and a NumPy "
        "generator, if it takes two arguments) to an action; or a run folder",
    )
    group.add_argument(
        "--noise",
        metavar="X",
        type=_number,
        help="standard deviation of Gaussian noise on actions, 1 is half of their box [0]",
    )
    group.add_argument(
        "--max-episode-steps", **whole, help="where an episode is cut; default: the environment's"
    )
    group = parser.add_argument_group("a run folder as the policy")
    group.add_argument("--checkpoint", metavar="UPDATES", type=_whole, help="default: the last one")
    group.add_argument("--steps", **whole, help="test budget, L_test; default: L_train")
    group.add_argument("--backend", metavar="TEXT", help="numpy, torch or jax; default: the run's")
    return parser


def _whole(text: str) -> Any:
    from ..runs.flags import read_word

    return read_word(text, int)


def _number(text: str) -> Any:
    from ..runs.flags import read_word

    return read_word(text, float)


def _ogbench_recipe(name: str) -> Recipe | None:
    """The recipe of one of OGBench's names, or None for a name that is not of OGBench.

    Raises:
        VGFError: OGBench's, and without an oracle, or seen in pixels.
    """
    from ..benchmarks.ogbench import ogbench_tasks, parse_task
    from ..recording.record import recipe_for

    known = {parse_task(task).dataset: task for task in ogbench_tasks()}
    if name not in known:
        if "-singletask" not in name and not name.startswith("visual-"):
            return None
        name = parse_task(name).dataset
    recipe = recipe_for(name)
    if recipe is None:
        raise VGFError(
            f"{name} cannot be made: its ants and humanoids were moved by a trained policy that "
            "OGBench does not ship; the sets of pointmaze, cube, scene and puzzle can be"
        )
    return recipe


def _refuse(args: argparse.Namespace, names: tuple[str, ...], wanted: str) -> None:
    """Refuse flags that do not belong to what is made."""
    for name in names:
        if getattr(args, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise VGFError(f"vgf data make {args.name}: {flag} is for {wanted}; drop it")


def _make_ogbench(name: str, args: argparse.Namespace) -> int:
    from ..benchmarks.ogbench import DEFAULT_FOLDER, dataset_path, parse_task
    from ..recording.record import generate_ogbench, is_made, provenance
    from ..support.progress import shown_progress

    gymnasium_only = ("policy", "noise", "max_episode_steps", "checkpoint", "steps", "backend")
    _refuse(args, gymnasium_only, "gymnasium:ID")
    recipe = _ogbench_recipe(name)
    assert recipe is not None
    dataset, repeat = recipe.dataset, 1 if args.action_repeat is None else args.action_repeat
    task = name if name != dataset else f"{dataset.removesuffix('-v0')}-singletask-task1-v0"
    if args.out is not None and args.data_dir is not None:
        raise VGFError("vgf data make: --out and --data-dir both say where; drop one of them")
    if args.out is not None:
        path = Path(args.out).expanduser()
    else:
        folder = Path(args.data_dir or DEFAULT_FOLDER).expanduser()
        path = dataset_path(parse_task(task), folder, repeat, args.episodes, args.seed)
    episodes = recipe.episodes if args.episodes is None else args.episodes
    record = provenance(recipe, episodes, args.seed, repeat)
    if args.force or not is_made(path, record):
        _check_free(path, args.force)
        with shown_progress("episode") as show:
            generate_ogbench(
                dataset, path, args.episodes, args.seed, args.workers, repeat, show, _say
            )
        print(f"made {path}, and {path.stem}-val.npz for validation")
    else:
        print(f"{path} is there already, made with the same settings; --force makes it again")
    print(
        f"{_rows(path):,} rows in {episodes:,} episodes; the last row of each is not a transition"
    )
    print(_ogbench_way_on(task, path, repeat))
    return 0


def _ogbench_way_on(task: str, path: Path, repeat: int) -> str:
    """The command that trains on a set of OGBench's."""
    from ..runs.config import DEMO_ENV

    command = ["vgf", "run", "--env", task]
    if repeat > 1 or task == DEMO_ENV:  # the default run holds its actions
        command += ["--action-repeat", str(repeat)]
    return "train on it: " + shlex.join([*command, "--data", str(path)])


def _make_gymnasium(name: str, args: argparse.Namespace) -> int:
    from ..recording.collect import Collection, collect
    from ..recording.formats import parse_output
    from ..recording.policies import parse_policy
    from ..support.progress import shown_progress

    _refuse(args, ("action_repeat",), "OGBench's pointmaze")
    _check_environment(name, args.name)
    if args.policy is None:
        raise VGFError(
            f"vgf data make {args.name}: --policy is missing: random, FILE.py:FUNCTION, or a run "
            "folder"
        )
    if args.out is None:
        raise VGFError(
            f"vgf data make {args.name}: --out is missing: FILE.npz, FILE.hdf5 or minari:NAME"
        )
    output = parse_output(args.out, args.data_dir)
    policy = parse_policy(args.policy, args.checkpoint, args.steps, args.backend)
    collection = Collection(name, policy, args.noise or 0.0, args.seed, args.max_episode_steps)
    episodes = 100 if args.episodes is None else args.episodes
    if args.force or not output.is_made(collection.record(episodes)):
        if output.exists():
            _check_free(output.place, args.force)
        with shown_progress("episode") as show:
            collect(collection, output, episodes, args.workers, show, _say)
        print(f"made {output.place}")
    else:
        print(
            f"{output.place} is there already, made with the same settings; --force makes it again"
        )
    print("train on it: " + shlex.join(["vgf", "run", *output.flags(name)]))
    return 0


def _check_environment(name: str, given: str) -> None:
    """Check that a bare word, without its prefix, is an environment of gymnasium.

    Raises:
        VGFError: it is not; the message says what comes near.
    """
    from ..benchmarks.d4rl import d4rl_table
    from ..benchmarks.ogbench import ogbench_tasks, parse_task
    from ..recording.record import recipe_for
    from ..support.extras import need
    from ..support.suggestions import nearest

    if given.startswith(PREFIX) or ":" in name:
        return
    registry = need("gymnasium", "envs").registry
    if name in registry:
        return
    if name in d4rl_table().tasks:
        raise VGFError(
            f"{name} is D4RL's, recorded with policies that it does not ship: it can be fetched "
            "and not made; gymnasium:ID records an environment with a policy of yours"
        )
    makeable = dict.fromkeys(parse_task(task).dataset for task in ogbench_tasks())
    near = nearest(name, [*filter(recipe_for, makeable), *registry])
    hint = (
        f"did you mean {near}?"
        if near
        else ("name one of OGBench's sets, such as cube-single-play-v0, or gymnasium:ID")
    )
    raise VGFError(f"vgf data make: {given} is unknown; {hint}")


def _check_free(path: Path, force: bool) -> None:
    """Check that nothing would be lost.

    Raises:
        VGFError: something else is there, and it is not to be replaced.
    """
    if path.exists() and not force:
        raise VGFError(
            f"{path} is there already, and was made otherwise; --force replaces it, or choose "
            "another --out"
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _rows(path: Path) -> int:
    """The rows of a .npz file, from the header of its terminals."""
    import numpy as np

    with np.load(path) as file:
        return len(file["terminals"])
