"""Benchmarks: from a task's name to its data, its environments and its score.

    base.py        what a benchmark is: the protocol, and the request that it answers
    ogbench.py     one file a benchmark: OGBench
    d4rl.py        D4RL
    minari.py      Minari
    gymnasium.py   gymnasium's environments, with a file of data
    files.py       a file of data alone
    tasks.py       from a name to a task, over the protocol

(ogbench_environment.py and ogbench_oracles.py are OGBench's; d4rl_infos.py with its .json,
copy_d4rl_infos.py and stand_ins.py are D4RL's. No other module imports them.)

A name is looked up in the order of :data:`BENCHMARKS`, and after that among the benchmarks whose
names it resembles. A prefix, such as ``d4rl:``, forces one of them. No name, or "none", means a
file of data without a simulator.

The package imports vgf.environments, vgf.data and vgf.support, and nothing above it; runs and
recording build on it. Importing it imports no simulator.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.raw import RawData
from ..support.errors import VGFError
from ..support.suggestions import closest, did_you_mean
from .base import Benchmark, DataRequest, Making, NoDataError, Output, Scoring, check_given
from .d4rl import D4RL
from .files import Files
from .gymnasium import Gymnasium
from .minari import Minari
from .ogbench import OGBench

BENCHMARKS: list[Benchmark] = [OGBench(), D4RL(), Minari(), Gymnasium()]
FILES = Files()


def register(benchmark: Benchmark) -> None:
    """Add a benchmark after the existing ones; one of the same kind is replaced."""
    kinds = [known.kind for known in BENCHMARKS]
    if benchmark.kind in kinds:
        BENCHMARKS[kinds.index(benchmark.kind)] = benchmark
    else:
        BENCHMARKS.append(benchmark)


@dataclass(frozen=True)
class FoundTask:
    """What a task's name means.

    Args:
        benchmark: whose it is.
        name: without a prefix, as the benchmark spells it; "none" if there is none.
    """

    benchmark: Benchmark
    name: str

    @property
    def kind(self) -> str:
        """The benchmark in a word, such as "ogbench"; "none" for a file of data alone."""
        return self.benchmark.kind


def find_task(env: str | None, data_dir: str | Path | None = None) -> FoundTask:
    """What a task's name means; None, or "none", means a file of data alone.

    Args:
        env: the name, with or without a prefix.
        data_dir: a folder of data sets, whose names count too.

    Raises:
        VGFError: a name that no benchmark has; the message has the nearest ones.
    """
    if env is None or FILES.has(env):
        return FoundTask(FILES, FILES.kind)
    forced, name = split_prefix(env)
    if forced is not None:
        return FoundTask(forced, forced.spelled(name, data_dir))
    for benchmark in BENCHMARKS:
        try:
            known = benchmark.has(env, data_dir)
        except VGFError as error:
            if ":" not in env:
                raise
            forms = ", ".join(f"{known.kind}:NAME" for known in BENCHMARKS)
            raise VGFError(f"task {error}; a name's prefix may be {forms}, or MODULE:") from error
        if known:
            return FoundTask(benchmark, benchmark.spelled(env, data_dir))
    for benchmark in BENCHMARKS:
        if benchmark.may_have(env):
            return FoundTask(benchmark, env)
    raise VGFError(f"task {env!r} is unknown; {_hint(env, data_dir)}")


def split_prefix(name: str) -> tuple[Benchmark | None, str]:
    """The benchmark that a name's prefix forces, if it has one, and the rest of the name."""
    prefix, _, rest = name.partition(":")
    benchmark = next((known for known in BENCHMARKS if known.kind == prefix), None)
    return (benchmark, rest) if benchmark is not None and rest else (None, name)


def _hint(env: str, data_dir: str | Path | None) -> str:
    """What may have been meant, or what names look like."""
    names = [name for benchmark in BENCHMARKS for name in benchmark.names(data_dir)]
    *first, last = (
        f"{known.title}'s ({known.example}){'' if known.has_data else ' with --data FILE'}"
        for known in BENCHMARKS
    )
    forms = (
        f"names are {', '.join(first)}, or {last}; --env {FILES.kind} trains on --data FILE alone"
    )
    notes = "".join(benchmark.not_known() for benchmark in BENCHMARKS)
    return did_you_mean(closest(env, names), forms) + notes


def read_raw(
    env: str | None,
    data: str | Path | None = None,
    data_dir: str | Path | None = None,
    **options: Any,
) -> RawData:
    """The data of a task, not yet checked; :func:`vgf.data.to_dataset` does that.

    Args:
        env: a task's name; see :func:`find_task`.
        data: a file to use instead of the task's own; the task's conventions hold for it.
        data_dir: where data are looked for first, generated and downloaded.
        options: the other fields of :class:`DataRequest`.

    Raises:
        VGFError: an unknown name, no data (with the ways to get them), a damaged file, or one that
            is not what was downloaded.
    """
    found = find_task(env, data_dir)
    request = DataRequest(found.name, data, data_dir, **options)
    found.benchmark.check_request(request)
    check_given(request)
    return found.benchmark.read(request)
