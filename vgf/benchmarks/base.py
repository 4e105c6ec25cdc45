"""What a benchmark provides to the rest of the package, and the request that it answers.

To add a benchmark, derive a class from :class:`Benchmark` in a file of its own, and put an object
of it into ``BENCHMARKS`` (``vgf/benchmarks/__init__.py``), or hand one to
:func:`vgf.benchmarks.register`. It needs `kind`, `title` and `example`, and three methods: `names`,
`read` and `scoring`. The other methods have defaults.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..data.npz import MEMORY, slices
from ..data.parts import Parts
from ..data.raw import RawData, equal_returns, no_ends, outside_the_box
from ..environments.pool import MakeEnv
from ..spec.types import Array
from ..support.callbacks import Progress, Say
from ..support.download import check_known, is_offline
from ..support.errors import VGFError
from ..support.files import expanded
from ..support.statistics import RETURN
from ..support.suggestions import closest, did_you_mean

MIRRORS = "VGF_DATA_MIRRORS"  # the environment variable: addresses, separated by blanks or commas
# When OGBench tests success: in the state before a step, or after it.
SUCCESS_TIMINGS = ("pre", "post")


@dataclass(frozen=True)
class DataRequest:
    """Which data are requested, and how they may be obtained.

    Args:
        name: of the task, without a prefix, as its benchmark spells it.
        data: a file to use instead of the task's own; the task's conventions hold for it.
        data_dir: where data are looked for first, generated and downloaded.
        action_repeat: simulator steps for each decision.
        episodes: of generated data; None for the benchmark's number.
        seed: of generated data.
        normalise_rewards: scale rewards by the range of the data's returns.
        qlearning_dataset: load D4RL's files as its ``qlearning_dataset`` does.
        action_clip_eps: clip the data's actions to +-(1 - this); None for the benchmark's own.
        success_timing: when OGBench tests success, "pre" or "post"; None for its own.
        memory: where data are held, one of :data:`vgf.data.npz.DATA_MEMORY`.
        allow_generate, allow_download: whether missing data may be made or fetched.
        mirror: an address to fetch data from first; see :func:`addresses`.
        workers: processes that generate; None for one on each core.
        trust_data_code: whether an environment may be made by code that the data themselves name.
        action_box: the smallest and the largest actions of the environment ``[d]``, if there is
            one; they are known once it was made.
        progress: called while data are generated or downloaded.
        say: takes a line for the person at the terminal, while data are generated.
    """

    name: str
    data: str | Path | None = None
    data_dir: str | Path | None = None
    action_repeat: int = 1
    episodes: int | None = None
    seed: int = 0
    normalise_rewards: bool = False
    memory: str = MEMORY
    allow_generate: bool = True
    allow_download: bool = True
    workers: int | None = None
    trust_data_code: bool = False
    action_box: tuple[Array, Array] | None = None
    progress: Progress | None = None
    say: Say | None = None
    qlearning_dataset: bool = False
    action_clip_eps: float | None = None
    success_timing: str | None = None
    mirror: str | None = None

    @property
    def may_download(self) -> bool:
        """Whether missing data may be fetched, by the request and by the environment."""
        return self.allow_download and not is_offline()


def addresses(file: str, mirror: str | None, own: Sequence[str]) -> list[str]:
    """Where a file may be fetched from, in order: a mirror, those of VGF_DATA_MIRRORS, its own.

    Args:
        file: its name.
        mirror: an address, with ``{file}`` for the name or of the folder that it is in.
        own: the benchmark's, of the file, with ``{file}`` for the name.
    """
    named = [mirror] if mirror else []
    named += os.environ.get(MIRRORS, "").replace(",", " ").split()
    named = [p if "{file}" in p else f"{p.rstrip('/')}/{{file}}" for p in named]
    return list(dict.fromkeys(place.replace("{file}", file) for place in (*named, *own)))


def check_given(request: DataRequest) -> None:
    """Check that the file of a request, or each of a folder, is what was downloaded, if it was.

    Raises:
        VGFError: as :func:`vgf.support.download.check_known`.
    """
    if request.data is not None:
        path = expanded(request.data)
        for file in slices(path) or [path]:
            check_known(file, ours=False)


@dataclass(frozen=True)
class Scoring:
    """How a task is evaluated.

    Args:
        make_env: makes its environment from a seed, or None; picklable. Its actions lie in
            [-1, 1]. None if there is nothing to evaluate in.
        score_name: what an episode's score is: "success", "normalised score" or "return".
        reference: the returns of normalised score 0 and 100.
        notes: what a reader of the results should know; one line each.
        environments_together: the most that an evaluation makes at once by default.
    """

    make_env: MakeEnv | None
    score_name: str = RETURN
    reference: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    environments_together: int = 50


def reference_note(low: float, high: float, source: str) -> str:
    """A line that says how a score is normalised."""
    return f"normalised score: 0 is the return {low:g} and 100 is {high:g}, from {source}"


class NoDataError(VGFError):
    """The data of a task are not here, and could not be made or fetched."""


class Making(Protocol):
    """A data set that `vgf data make` makes."""

    @property
    def place(self) -> Path:
        """The file or folder."""

    @property
    def description(self) -> str:
        """What is made, in words."""

    def exists(self) -> bool:
        """Whether something already exists there."""

    def is_made(self) -> bool:
        """Whether this same data set already exists."""

    def make(self, progress: Progress, say: Say) -> None:
        """Make it, or continue one that was cut off."""

    def summary(self) -> tuple[str, ...]:
        """What it holds once it is made; one line each."""

    def flags(self) -> list[str]:
        """The flags of `vgf run` that train on it."""


class Output(Protocol):
    """A data set to which recorded episodes are written."""

    @property
    def place(self) -> Path:
        """The file or folder."""

    def exists(self) -> bool:
        """Whether something already exists there."""

    def is_made(self, provenance: Mapping[str, Any]) -> bool:
        """Whether it already exists, with this provenance."""

    def write(self, parts: Parts, provenance: Mapping[str, Any]) -> None:
        """Write the episodes, with what they depend on."""

    def flags(self, environment: str) -> list[str]:
        """The flags of `vgf run` that train on it."""


class Benchmark:
    """One benchmark; see the module's text for how to add another.

    Attributes:
        kind: one word; before a colon it forces this benchmark, as in "d4rl:hopper-medium-v2".
        title: its name in messages, such as "D4RL".
        example: one of its names.
        has_data: whether its tasks have data of their own; if not, every one needs a file.
        generates: whether it makes its own data, so that it uses `action_repeat` and `episodes` of
            a request.
        names_environments: whether its data sets, not its names, say which environment is theirs;
            looking at such data makes none.
        times_success: whether its environments can be told when to test success.
        has_qlearning_dataset: whether its files can be loaded as D4RL's ``qlearning_dataset`` does.
        recordable: whether its names are gymnasium's ids, in which `vgf data make` can record a
            policy.
    """

    kind: str
    title: str
    example: str
    has_data = True
    generates = False
    names_environments = False
    times_success = False
    has_qlearning_dataset = False
    recordable = False

    # --- find -----------------------------------------------------------------------------------

    def names(self, data_dir: str | Path | None = None) -> Sequence[str]:
        """The names known here, with which a mistyped one is compared."""
        raise NotImplementedError

    def has(self, name: str, data_dir: str | Path | None = None) -> bool:
        """Whether a name without a prefix is one of this benchmark's.

        Raises:
            VGFError: what the name names, such as a module, cannot be imported or read.
        """
        return name in self.names(data_dir)

    def may_have(self, name: str) -> bool:
        """Whether a name unknown to every benchmark looks like one of this benchmark's."""
        return False

    def spelled(self, name: str, data_dir: str | Path | None = None) -> str:
        """A name as the benchmark spells it.

        Raises:
            VGFError: it is not one of its names; the message has the nearest ones.
        """
        if self.has(name, data_dir):
            return name
        near = closest(name, self.names(data_dir))
        hint = did_you_mean(near, f"its names are such as {self.example}")
        raise VGFError(f"{self.title} has no task {name!r}; {hint}{self.not_known()}")

    def not_known(self) -> str:
        """What to add to a message if its names are not known here, and why; or ""."""
        return ""

    def task_name(self, request: DataRequest) -> str:
        """What a task is called in results."""
        return request.name

    def positions_first(self, name: str) -> bool:
        """Whether a name says that observations begin with a position in the plane."""
        return "maze" in name.lower()

    # --- read -----------------------------------------------------------------------------------

    def check_request(self, request: DataRequest) -> None:
        """Check that a request for data makes sense for this benchmark.

        Raises:
            VGFError: it does not; the message has the way out.
        """
        if not self.generates and request.action_repeat != 1:
            raise VGFError(
                f"action_repeat is {request.action_repeat}; with {request.name} it must be 1: only "
                "data that are generated can be recorded with held actions"
            )
        if not self.generates and request.episodes is not None:
            raise VGFError(
                f"data_episodes is {request.episodes}, of data to generate; those of "
                f"{request.name} are not: drop it"
            )

    def read(self, request: DataRequest) -> RawData:
        """The data of a task, not yet checked; :func:`vgf.data.to_dataset` does that.

        Raises:
            VGFError: no data, with the ways to get them (:class:`NoDataError`), or a damaged file.
        """
        raise NotImplementedError

    def data_notes(self, raw: RawData) -> tuple[str, ...]:
        """What a reader of the results should know about the data; one line each."""
        equal = equal_returns(raw)
        scaled = dataclasses.replace(raw, normalise_rewards=False) if equal else raw
        return (*scaled.conventions(), *equal, *outside_the_box(raw), *no_ends(raw))

    # --- make environments, and score -----------------------------------------------------------

    def scoring(self, request: DataRequest) -> Scoring:
        """How a task is evaluated: its environments, its score, and notes on both.

        Raises:
            VGFError: what is needed to tell is missing here.
        """
        raise NotImplementedError

    def protocol(
        self, task: Mapping[str, Any], versions: Mapping[str, str]
    ) -> Mapping[str, str | None]:
        """What decides a score and no setting says by itself, by name; nothing for other tasks.

        Args:
            task: a run's settings of the task, by name.
            versions: of the packages that the run used.
        """
        return {}

    # --- look at data, and make them ------------------------------------------------------------

    def task_of_data(self, name: str) -> tuple[str, str] | None:
        """For the name of a data set that several tasks share: one of them, and a remark.

        None for every other name.
        """
        return None

    def task_of_file(self, path: Path) -> tuple[str, str] | None:
        """For a file that says which task it belongs to: the task with its prefix, and a remark.

        None for every other file.
        """
        return None

    def way_on(self, request: DataRequest) -> str | None:
        """How to get data that are not here, in order to inspect them.

        None if the message of :meth:`read` says it.
        """
        return None

    def makeable(self) -> Sequence[str]:
        """The names that `vgf data make` takes, with which a mistyped one is compared."""
        return ()

    def making(self, request: DataRequest, out: Path | None = None) -> Making | None:
        """The data set with a name, if this benchmark can make it by itself.

        Args:
            request: its name, and how to make it.
            out: the file to write; None for the benchmark's default place.

        Returns:
            None if no data set of this benchmark has that name.

        Raises:
            VGFError: one has, and it cannot be made.
        """
        return None

    def output(self, name: str, data_dir: str | Path | None = None) -> Output | None:
        """A data set in this benchmark's own format, for a recording with a policy.

        Args:
            name: of the data set, without a prefix.
            data_dir: the folder of data sets; None for the benchmark's own.

        Returns:
            None if the benchmark has no format of its own.

        Raises:
            VGFError: a wrong name, or the benchmark's package is not installed.
        """
        return None
