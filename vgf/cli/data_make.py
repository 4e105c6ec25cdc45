"""`vgf data make`: record a data set."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..support.errors import VGFError
from ..support.files import expanded

if TYPE_CHECKING:
    from ..benchmarks import Making

# Flags that apply to only one way of making data.
_OF_ORACLES = ("action_repeat",)
_OF_POLICIES = (
    "policy",
    "noise",
    "max_episode_steps",
    "step_timeout",
    "checkpoint",
    "steps",
    "backend",
)


def main(words: list[str]) -> int:
    args = _make_parser().parse_args(words)
    try:
        return _make(args, _making(args))
    except KeyboardInterrupt:
        from ..support.interrupts import exit_status

        print("stopped", file=sys.stderr)
        return exit_status()


def _make(args: argparse.Namespace, making: Making) -> int:
    """Make a data set, unless it exists, and say how to train on it."""
    from ..support.progress import shown_progress

    if args.force or not making.is_made():
        if making.exists() and not args.force:
            raise VGFError(
                f"{making.place} exists already, and was made differently; --force replaces it, or "
                "choose another --out"
            )
        with shown_progress("episode") as show:
            making.make(show, _say)
        print(f"made {making.description}")
    else:
        print(f"{making.place} exists already, made with the same settings; --force makes it again")
    for line in making.summary():
        print(line)
    print("train on it: " + shlex.join(["vgf", "run", *_training_flags(making)]))
    return 0


def _training_flags(making: Making) -> list[str]:
    """The flags that train on a data set, including those that undo a default."""
    from ..runs.config import DEMO_ENV

    flags = making.flags()
    if DEMO_ENV in flags and "--action-repeat" not in flags:  # the default run holds its actions
        after = flags.index(DEMO_ENV) + 1
        flags[after:after] = ["--action-repeat", "1"]
    return flags


def _making(args: argparse.Namespace) -> Making:
    """The data set of a command: made by a benchmark's own oracles, or recorded with a policy.

    Raises:
        VGFError: a name for which nothing can be made, or flags that do not apply to it.
    """
    from ..benchmarks import BENCHMARKS, DataRequest, split_prefix

    forced, name = split_prefix(args.name)
    request = DataRequest(
        name,
        data_dir=args.data_dir,
        action_repeat=1 if args.action_repeat is None else args.action_repeat,
        episodes=args.episodes,
        seed=args.seed,
        workers=args.workers,
    )
    for benchmark in BENCHMARKS if forced is None else [forced]:
        out = None if args.out is None else expanded(args.out)
        making = benchmark.making(request, out)
        if making is not None:
            _refuse(args, _OF_POLICIES, "gymnasium:ID")
            if args.out is not None and args.data_dir is not None:
                raise VGFError(
                    "vgf data make: --out and --data-dir both say where; drop one of them"
                )
            return making
        if benchmark.recordable and (forced is not None or ":" in name or benchmark.has(name)):
            return _recording(name, args)
    raise VGFError(f"vgf data make: {args.name} is unknown; {_hint(name)}")


def _hint(name: str) -> str:
    """What may have been meant, or which names exist."""
    from ..benchmarks import BENCHMARKS
    from ..support.suggestions import did_you_mean, nearest

    near = nearest(name, [word for benchmark in BENCHMARKS for word in benchmark.makeable()])
    forms = "name one of OGBench's sets, such as cube-single-play-v0, or gymnasium:ID"
    return did_you_mean(near, forms) + "".join(known.not_known() for known in BENCHMARKS)


def _make_parser() -> argparse.ArgumentParser:
    from ..support.parser import Parser

    parser = Parser(
        prog="vgf data make",
        usage="vgf data make NAME [flags]",
        description="Record a data set. If stopped or killed, it continues when the same command "
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
    parser.add_argument("--seed", **whole, default=0, help="of all random numbers [0]")
    parser.add_argument("--workers", **whole, help="processes; default: one on each core")
    parser.add_argument(
        "--data-dir", metavar="DIR", type=Path, help="folder of OGBench's or Minari's data sets"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="FILE.npz; gymnasium also: FILE.hdf5, as D4RL's; minari:NAME"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing one")
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
        "--max-episode-steps", **whole, help="steps of an episode; default: the environment's limit"
    )
    group.add_argument(
        "--step-timeout",
        metavar="X",
        type=_number,
        help="seconds that a step or reset of the environment may take [300]",
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


def _refuse(args: argparse.Namespace, names: tuple[str, ...], wanted: str) -> None:
    """Refuse flags that do not apply to what is made."""
    for name in names:
        if getattr(args, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise VGFError(f"vgf data make {args.name}: {flag} is for {wanted}; drop it")


def _recording(name: str, args: argparse.Namespace) -> Making:
    """A recording of a gymnasium environment, with a policy."""
    from ..recording.collect import STEP_TIMEOUT, Collection, CollectionMaking
    from ..recording.formats import parse_output
    from ..recording.policies import parse_policy

    _refuse(args, _OF_ORACLES, "OGBench's pointmaze")
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
    timeout = STEP_TIMEOUT if args.step_timeout is None else args.step_timeout
    collection = Collection(
        name, policy, args.noise or 0.0, args.seed, args.max_episode_steps, timeout
    )
    episodes = 100 if args.episodes is None else args.episodes
    return CollectionMaking(collection, output, episodes, args.workers)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
