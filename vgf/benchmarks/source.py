"""What a task's name means, and its data: one place for every source.

A name is looked up in this order: OGBench's single tasks; D4RL's names; Minari's ids, which are in
a local store or contain "/"; gymnasium's ids, which have no data of their own, and of which
``MODULE:ID`` imports the module that registers it. A prefix,
``ogbench:``, ``d4rl:``, ``minari:`` or ``gymnasium:``, forces one of them. No name at all is a file
of data without a simulator.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.common import Progress, Say
from ..data.npz import MAPPED, MEMORY, read_npz
from ..data.raw import RawData, with_box
from ..support.errors import VGFError
from ..support.extras import is_installed
from . import d4rl, minari
from .ogbench import is_ogbench, ogbench_tasks, parse_task, read_ogbench

OGBENCH, D4RL, MINARI, GYMNASIUM, NONE = "ogbench", "d4rl", "minari", "gymnasium", "none"
KINDS = (OGBENCH, D4RL, MINARI, GYMNASIUM)


@dataclass(frozen=True)
class Source:
    """What a name means.

    Args:
        kind: "ogbench", "d4rl", "minari", "gymnasium" or "none".
        name: without a prefix, as the source spells it; "none" where there is none.
    """

    kind: str
    name: str


def find_source(env: str | None, data_dir: str | Path | None = None) -> Source:
    """What a task's name means; None, or "none", is a file of data alone.

    Raises:
        VGFError: a name that no source has; the message has the nearest ones.
    """
    if env is None or env.lower() == NONE:
        return Source(NONE, NONE)
    prefix, _, rest = env.partition(":")
    if prefix in KINDS and rest:
        return _forced(prefix, rest)
    if is_ogbench(env):
        return Source(OGBENCH, parse_task(env).name)
    if env in d4rl.d4rl_table().tasks:
        return Source(D4RL, env)
    if minari.local_path(env, data_dir) is not None:
        return Source(MINARI, env)
    try:
        if _in_gymnasium(env):
            return Source(GYMNASIUM, env)
    except VGFError as error:
        forms = ", ".join(f"{kind}:NAME" for kind in KINDS)
        raise VGFError(f"task {error}; what may stand before a name is {forms}, or MODULE:") from (
            error
        )
    if "/" in env and minari.is_name(env):
        return Source(MINARI, env)
    raise VGFError(f"task {env!r} is unknown; {_hint(env, data_dir)}")


def _forced(kind: str, name: str) -> Source:
    if kind == OGBENCH:
        parse_task(name)
    elif kind == D4RL and name not in d4rl.d4rl_table().tasks:
        raise VGFError(f"D4RL has no task {name!r}; {_near(name, list(d4rl.d4rl_table().tasks))}")
    elif kind == GYMNASIUM and not _in_gymnasium(name):
        raise VGFError(f"gymnasium has no {name!r}; {_near(name, _gymnasium_names())}")
    return Source(kind, name)


def _in_gymnasium(name: str) -> bool:
    """Whether gymnasium has an environment, ID or MODULE:ID; False where it is not installed.

    Raises:
        VGFError: a module that cannot be imported.
    """
    if not is_installed("gymnasium"):
        return False
    from .environments import find_spec

    return find_spec(name) is not None


def _gymnasium_names() -> list[str]:
    """The names that gymnasium knows here; none where it is not installed."""
    if not is_installed("gymnasium"):
        return []
    from .environments import registered

    return list(registered())


def _hint(env: str, data_dir: str | Path | None) -> str:
    names = [
        *ogbench_tasks(),
        *d4rl.d4rl_table().tasks,
        *minari.local_names(data_dir),
        *_gymnasium_names(),
    ]
    absent = (
        ""
        if is_installed("gymnasium")
        else (
            "; gymnasium's names are not known here, where it is not installed: "
            "pip install 'vgf[envs]'"
        )
    )
    return _near(env, names) + absent


def _near(name: str, names: list[str]) -> str:
    """What may have been meant, letters' case aside; or how names look."""
    spelled = {known.lower(): known for known in reversed(names)}
    close = difflib.get_close_matches(name.lower(), spelled, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(spelled[match] for match in close)}?"
    return (
        "names are OGBench's (cube-single-play-singletask-task2-v0), D4RL's (hopper-medium-v2), "
        "Minari's (D4RL/door/human-v2), or gymnasium's (Hopper-v5) with --data FILE; "
        "--env none trains on --data FILE alone"
    )


def read_file(path: str | Path, memory: str = MEMORY) -> RawData:
    """Read a file of data by what it is: .npz, .hdf5 or .h5, or the folder of a Minari dataset.

    Args:
        path: of the file or folder.
        memory: one of :data:`vgf.data.npz.DATA_MEMORY`; only .npz files can be mapped.

    Raises:
        VGFError: no such file, another format, not a whole file, or one that cannot be mapped.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise VGFError(f"{path}: no such file; name a file of data with --data")
    if memory == MAPPED and path.suffix != ".npz":
        raise VGFError(
            f"{path} cannot be mapped into memory, only .npz files can; use --data-memory memory"
        )
    if path.is_dir():
        if minari.is_dataset(path):
            return minari.read_minari(path)
        raise VGFError(f"{path} is a folder and no Minari dataset; name a file in it")
    readers: dict[str, Callable[[Path], RawData]] = {
        ".npz": functools.partial(read_npz, memory=memory),
        ".hdf5": d4rl.read_hdf5,
        ".h5": d4rl.read_hdf5,
    }
    if path.suffix not in readers:
        raise VGFError(f"{path}: its name ends in none of {', '.join(readers)}; data are in these")
    return readers[path.suffix](path)


def read_raw(
    env: str | None,
    data: str | Path | None = None,
    data_dir: str | Path | None = None,
    *,
    normalise_rewards: bool = False,
    action_box: tuple[Any, Any] | None = None,
    action_repeat: int = 1,
    episodes: int | None = None,
    seed: int = 0,
    allow_generate: bool = True,
    allow_download: bool = True,
    workers: int | None = None,
    memory: str = MEMORY,
    progress: Progress | None = None,
    say: Say | None = None,
) -> RawData:
    """The data of a task, not yet checked; :func:`vgf.data.to_dataset` does that.

    Args:
        env: a task's name; see :func:`find_source`.
        data: a file to use instead of the task's own; the task's conventions hold for it.
        data_dir: where data are looked for first, generated and downloaded.
        normalise_rewards: scale rewards by the range of returns.
        action_box: the bounds of the environment's actions, for gymnasium's and Minari's.
        action_repeat, episodes, seed, workers: of data that OGBench's oracles generate.
        allow_generate, allow_download: whether data that are not there may be made or fetched.
        memory: one of :data:`vgf.data.npz.DATA_MEMORY`; only .npz files can be mapped.
        progress: called while data are generated or downloaded.
        say: takes a line for the person at the terminal, while data are generated.

    Raises:
        VGFError: an unknown name, no data (with the ways to them), or a file that is no whole one.
    """
    source = find_source(env, data_dir)
    check_request(source, data, action_repeat, episodes)
    if source.kind == OGBENCH:
        own = None if data is None else Path(data).expanduser()
        raw = None if own is None else read_file(own, memory)
        # a file with rewards is used as it is; OGBench's have none and are relabelled
        if raw is None or "rewards" not in raw.arrays:
            raw = None  # so that it is not held meanwhile
            raw = read_ogbench(
                source.name,
                data_dir,
                data=own,
                action_repeat=action_repeat,
                episodes=episodes,
                seed=seed,
                allow_generate=allow_generate,
                allow_download=allow_download,
                workers=workers,
                memory=memory,
                progress=progress,
                say=say,
            )
        return dataclasses.replace(raw, normalise_rewards=normalise_rewards)
    if source.kind == D4RL:
        task = d4rl.d4rl_table().tasks[source.name]
        path = data or d4rl.find_d4rl(
            task, data_dir, allow_download=allow_download, progress=progress
        )
        return d4rl.with_conventions(read_file(path, memory), task, normalise_rewards)
    if source.kind == MINARI:
        found = minari.find_minari(source.name, data_dir, allow_download=allow_download)
        raw = read_file(found, memory)
    else:
        raw = read_file(str(data), memory)
    if action_box is not None:
        raw = with_box(raw, *action_box)
    return dataclasses.replace(raw, normalise_rewards=normalise_rewards)


def check_request(
    source: Source, data: str | Path | None, action_repeat: int = 1, episodes: int | None = None
) -> None:
    """Check that a source has data, and that what is asked for means something to it.

    Raises:
        VGFError: no file of data where one is needed, or one where the name has its own; held
            actions or a number of episodes to generate, which only OGBench's sources have.
    """
    what = "a file of data" if source.kind == NONE else source.name
    if source.kind == NONE and data is None:
        raise VGFError("no task and no data; name a file with --data, or a task with --env")
    if source.kind == GYMNASIUM and data is None:
        raise VGFError(
            f"{what} is one of gymnasium's environments, which have no data of their own; name a "
            "file with --data"
        )
    if source.kind == MINARI and data is not None:
        raise VGFError(f"{what} names its own data; drop --data, or use --env none")
    if source.kind != OGBENCH and action_repeat != 1:
        raise VGFError(
            f"action_repeat is {action_repeat}; with {what} it must be 1: only OGBench's pointmaze "
            "data can be recorded with held actions"
        )
    if source.kind != OGBENCH and episodes is not None:
        raise VGFError(
            f"data_episodes is {episodes}, of data to generate; those of {what} are not: drop it"
        )
