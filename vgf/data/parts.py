"""Recording in parallel, kept in parts, so that a recording that is cut off continues where it was.

While a data set is made, finished episodes are kept in a hidden folder beside it,
``.making-<name>``:

    making.json                    what every episode depends on, and how many there will be
    part-000000-000012.npz         episodes 0 to 11, one after the other, and their lengths

An episode depends only on its number and on what `making.json` says. So the data set is the same
whether recorded at once or in several runs, and with any number of processes. A damaged part is
recorded again; parts of a different recording are dropped. The data set itself appears under its
name once it is complete, and the folder is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, current_process, get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..moved import old_names
from ..spec.types import Array
from ..support.callbacks import Progress, Say
from ..support.errors import VGFError
from ..support.files import atomic_file, make_folder, sync_folder, write_atomically
from ..support.locks import LOCK, waited_for
from ..support.processes import end_with_parent, leave_warnings_to_parent, without_interrupts
from .npz import load_arrays, names_in, readable
from .provenance import differences, read_json

Episode = dict[str, Array]
__getattr__ = old_names(__name__)

FORMAT = 1  # of the parts; another version starts again
LENGTHS = "lengths"
MAKING = "making.json"
# A process that is killed loses what was finished in this many seconds, and what was under way.
PART_SECONDS = 5.0


class Recorder(Protocol):
    """What records episodes; it is sent to the processes."""

    def start(self) -> Callable[[int], Episode]:
        """Prepare a process: a function from an episode's number to its rows.

        What the function returns depends on the number alone.
        """


def make_in_parts(
    target: Path,
    provenance: Mapping[str, Any],
    episodes: int,
    recorder: Recorder,
    write: Callable[[Parts], None],
    is_made: Callable[[], bool],
    *,
    label: str,
    workers: int | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
) -> None:
    """Record episodes, or those that are missing, and write a data set of them.

    Args:
        target: of the data set; the parts are kept beside it.
        provenance: what the episodes depend on, in JSON's types.
        episodes: how many.
        recorder: of the episodes.
        write: writes the data set; it puts files in place with :meth:`Parts.fresh`.
        is_made: whether another process has made it meanwhile.
        label: for `progress`.
        workers: processes; None for one on each core, 1 to record in this one.
        progress: called at the start, and then after each episode.
        say: takes a line for the person at the terminal.

    Raises:
        VGFError: a worker that died, or a file that cannot be written.
    """
    # A starting process imports the main module. If that gets here again, it would wait for its own
    # parent; so it ends, and the parent is told.
    if getattr(current_process(), "_inheriting", False):
        raise VGFError("a script that makes data needs `if __name__ == '__main__':`")
    make_folder(target.parent)
    tell = say or (lambda line: None)
    folder = target.parent / f".making-{target.name}"
    line = f"another process is making {target.name}; waiting for it"
    with waited_for(folder, tell, line) as waited:
        kept = 0
        try:
            if not (waited and is_made()):
                parts = Parts(folder, provenance, episodes, tell)
                try:
                    parts.record(recorder, workers, label, progress)
                    write(parts)
                finally:
                    kept = parts.kept
        except BaseException:
            if kept:
                tell(
                    f"{kept:,} of {episodes:,} episodes are kept in {folder}; the same command "
                    "continues from them"
                )
            elif not any(folder.glob("part-*")):
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


class Parts:
    """The episodes of a recording, in the files of a folder.

    Args:
        folder: that holds them, locked by this process.
        provenance: what the episodes depend on, in JSON's types.
        episodes: how many there will be.
        say: takes a line for the person at the terminal.
    """

    def __init__(
        self, folder: Path, provenance: Mapping[str, Any], episodes: int, say: Say
    ) -> None:
        self.folder = folder
        self.episodes = episodes
        self._say = say
        self._parts: dict[int, _Part] = {}
        self._take_up(json.loads(json.dumps({"format": FORMAT, **provenance})))

    @property
    def kept(self) -> int:
        """How many episodes there are."""
        return sum(len(part.lengths) for part in self._parts.values())

    def _take_up(self, provenance: dict[str, Any]) -> None:
        """Find the parts of this recording; drop whatever else the folder holds."""
        before = read_json(self.folder / MAKING)
        others = {entry.name for entry in self.folder.iterdir()} - {MAKING, LOCK}
        names = sorted(others)
        if before != provenance:
            changed = differences(before, provenance)
            if before is not None and any(name.startswith("part-") for name in names):
                self._say(f"{self.folder} belongs to another recording: {changed}; starting again")
            for name in names:
                _remove(self.folder / name)
            write_atomically(self.folder / MAKING, json.dumps(provenance, indent=2) + "\n")
            return
        for name in names:
            part = _read_part(self.folder / name) if name.startswith("part-") else None
            fits = part is not None and part.stop <= self.episodes and self._fits(part)
            if part is not None and fits:
                self._parts[part.first] = part
                continue
            if name.startswith("part-"):
                self._say(f"{self.folder / name} is damaged; its episodes are recorded again")
            _remove(self.folder / name)
        if self.kept:
            self._say(f"continuing: {self.kept:,} of {self.episodes:,} episodes are kept")

    def _fits(self, part: _Part) -> bool:
        """Whether a part has the keys of those before, and none of their episodes."""
        others = self._parts.values()
        return all(
            other.layout == part.layout and (other.stop <= part.first or part.stop <= other.first)
            for other in others
        )

    def missing(self) -> list[int]:
        """The numbers of the episodes that are still to be recorded."""
        there = {number for part in self._parts.values() for number in range(part.first, part.stop)}
        return [number for number in range(self.episodes) if number not in there]

    def record(
        self, recorder: Recorder, workers: int | None, label: str, progress: Progress | None
    ) -> None:
        """Record the missing episodes; however this ends, finished ones are kept."""
        numbers = self.missing()
        show = progress or (lambda label, done, total: None)
        done = self.episodes - len(numbers)
        show(label, done, self.episodes)
        if not numbers:
            return
        waiting: dict[int, Episode] = {}
        since = time.monotonic()
        recorded = _record(recorder, numbers, workers)
        try:
            for number, episode in zip(numbers, recorded, strict=True):
                waiting[number] = episode
                if time.monotonic() - since >= PART_SECONDS:
                    self._keep(waiting)
                    since = time.monotonic()
                done += 1
                show(label, done, self.episodes)
        finally:
            try:
                self._keep(waiting)
            finally:
                recorded.close()

    def _keep(self, waiting: dict[int, Episode]) -> None:
        """Write finished episodes into parts, one for each run of consecutive numbers."""
        while waiting:
            first = stop = next(iter(waiting))
            episodes = []
            while stop in waiting:
                episodes.append(waiting[stop])
                stop += 1
            lengths = [_length(episode) for episode in episodes]
            rows = {key: np.concatenate([e[key] for e in episodes]) for key in episodes[0]}
            path = self.folder / f"part-{first:06d}-{stop:06d}.npz"
            with atomic_file(path) as file:
                np.savez(file, **dict[str, Any]({LENGTHS: np.array(lengths)} | rows))
            self._parts[first] = _Part(path, first, stop, lengths, _layout(rows))
            for number in range(first, stop):
                del waiting[number]

    def names(self) -> list[str]:
        """The keys of the rows."""
        return list(self._parts[0].layout)

    def layout(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """The shape of a key's row, and its dtype."""
        return self._parts[0].layout[key]

    def lengths(self, first: int = 0, stop: int | None = None) -> list[int]:
        """The rows of each of some episodes."""
        parts = [self._parts[start] for start in sorted(self._parts)]
        return [length for part in parts for length in part.lengths][first:stop]

    def rows(self, key: str, first: int = 0, stop: int | None = None) -> Iterator[Array]:
        """A key's rows of the episodes `first` to `stop`, a part at a time."""
        stop = self.episodes if stop is None else stop
        for start in sorted(self._parts):
            part = self._parts[start]
            begin, end = max(first, part.first), min(stop, part.stop)
            if begin < end:
                ends = np.cumsum([0, *part.lengths])
                with np.load(part.path, allow_pickle=False) as file:
                    yield file[key][ends[begin - start] : ends[end - start]]

    @contextlib.contextmanager
    def fresh(self, path: Path) -> Iterator[Path]:
        """A place to write a file, which is then moved to `path`, complete and on disk.

        Raises:
            VGFError: it cannot be written.
        """
        fresh = self.folder / f"fresh-{path.name}"
        try:
            yield fresh
            with open(fresh, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(fresh, path)
            sync_folder(path.parent)
        except OSError as error:
            raise VGFError(f"cannot write {path}: {error.strerror or error}") from error

    def write_npz(
        self,
        path: Path,
        first: int = 0,
        stop: int | None = None,
        dtype: Callable[[str], np.dtype[Any]] | None = None,
    ) -> None:
        """Write the rows of some episodes as NumPy's compressed .npz, a part at a time.

        Args:
            path: of a new file.
            first, stop: the episodes.
            dtype: of each key; None for the recorded ones.
        """
        rows = sum(self.lengths(first, stop))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for key in self.names():
                shape, recorded = self.layout(key)
                kind = dtype(key) if dtype is not None else recorded
                header = {
                    "descr": np.lib.format.dtype_to_descr(kind),
                    "fortran_order": False,
                    "shape": (rows, *shape),
                }
                with file.open(f"{key}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array_header_1_0(member, header)
                    for array in self.rows(key, first, stop):
                        member.write(array.astype(kind, copy=False).tobytes())


class _Part:
    """A file of consecutive episodes."""

    def __init__(
        self,
        path: Path,
        first: int,
        stop: int,
        lengths: Sequence[int],
        layout: dict[str, tuple[tuple[int, ...], np.dtype[Any]]],
    ) -> None:
        self.path, self.first, self.stop = path, first, stop
        self.lengths, self.layout = list(lengths), layout


def _layout(rows: Mapping[str, Array]) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    return {key: (array.shape[1:], array.dtype) for key, array in rows.items()}


def _length(episode: Episode) -> int:
    return len(next(iter(episode.values())))


def _read_part(path: Path) -> _Part | None:
    """A part, or None if it is not complete; reading checks the checksum of every array."""
    name = re.fullmatch(r"part-(\d+)-(\d+)\.npz", path.name)
    if name is None:
        return None
    first, stop = int(name[1]), int(name[2])
    try:
        with readable(path):
            rows = load_arrays(path, names_in(path))[0]
    except VGFError:
        return None
    lengths = rows.pop(LENGTHS, np.zeros(0, int)).tolist()
    whole = all(len(array) == sum(lengths) for array in rows.values())
    if not rows or not whole or len(lengths) != stop - first or not lengths:
        return None
    return _Part(path, first, stop, lengths, _layout(rows))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


# --- processes ----------------------------------------------------------------------------------


def _record(recorder: Recorder, numbers: Sequence[int], workers: int | None) -> Generator[Episode]:
    """Record the episodes with these numbers, and yield them in order."""
    workers = min((os.cpu_count() or 1) if workers is None else workers, len(numbers))
    if workers == 1:
        yield from map(recorder.start(), numbers)
        return
    others = {process.pid for process in active_children()}
    executor = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(recorder,)
    )
    try:
        with without_interrupts():
            recorded = executor.map(_work, numbers)
        yield from recorded
    except BaseException as error:
        for process in active_children():  # an episode under way may take long
            if process.pid not in others:
                process.kill()
        if isinstance(error, BrokenProcessPool):
            raise VGFError(
                "a process that recorded data ended early (out of memory, a crash or a hang in C, "
                "or a script that lacks `if __name__ == '__main__':`); try fewer workers"
            ) from error
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


_worker: Callable[[int], Episode] | VGFError


def _start_worker(recorder: Recorder) -> None:
    """Prepare a process for :func:`_work`."""
    global _worker
    end_with_parent()
    leave_warnings_to_parent()
    try:
        _worker = recorder.start()
    except VGFError as error:  # raised where it is reported, by the first episode
        _worker = error


def _work(number: int) -> Episode:
    if isinstance(_worker, VGFError):
        raise _worker
    return _worker(number)


@contextlib.contextmanager
def seeded(entropy: Sequence[int]) -> Iterator[int]:
    """Seed the global generators, NumPy's and Python's, and restore them afterwards.

    Oracles, environments and policies draw from them. Yields a further seed, for the rest of the
    episode.
    """
    seed, other = np.random.SeedSequence(entropy).generate_state(2)
    outside = np.random.get_state(), random.getstate()
    np.random.seed(other)
    random.seed(int(other))
    try:
        yield int(seed)
    finally:
        np.random.set_state(outside[0])
        random.setstate(outside[1])
