"""The offline updates of runs: many in one call of the backend, for one seed or several.

The training of a run (vgf/runs/loop.py) is a generator: it yields a :class:`Request` for updates,
and is sent the :class:`Reply`. :func:`drive` runs one such training to its end, or those of several
seeds side by side.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from ..backends.base import Backend, Tree
from ..data.dataset import Dataset, batch_rows, gather
from ..spec.settings import Settings
from ..support.errors import VGFError
from ..support.interrupts import Interrupted, StopRunError, repeatable

# One call makes at most this many updates and takes about this long: between two calls Ctrl-C is
# handled and the progress shown. A call costs a copy of the agent, in JAX about 20 ms at 4 x 512.
UPDATES_PER_CALL = 64
SECONDS_PER_CALL = 1.0
# The share of a device's free memory that data may take.
DEVICE_SHARE = 0.5


@dataclass(frozen=True)
class Request:
    """Offline updates that a run wants made.

    Args:
        state: of its agent.
        settings: of its agent.
        dataset: to take batches from, scaled.
        seed: of the run, which decides the batches.
        step: updates done.
        limit: the most updates before the run has something else to do.
        size: of a batch, B.
    """

    state: Tree
    settings: Settings
    dataset: Dataset
    seed: int
    step: int
    limit: int
    size: int


@dataclass(frozen=True)
class Reply:
    """The answer to a request: the new state, the last update's metrics, the number of updates."""

    state: Tree
    metrics: Tree
    count: int


Training = Generator[Request, Reply, None]


class Batches:
    """The batches of updates, and the updates on them.

    The data are put on the device if they fit, and batches are gathered there. Otherwise they
    stay in main memory, and the batches of a call are gathered into one block.

    Args:
        dataset: of M transitions.
        backend: of the run.
        rows: the most rows that a call takes.
    """

    def __init__(self, dataset: Dataset, backend: Backend, rows: int) -> None:
        self.dataset, self._backend = dataset, backend
        self._arrays = dataset.arrays()
        free = backend.free_memory()
        needed = sum(array.nbytes for array in self._arrays.values())
        self.on_device = free is not None and needed < free * DEVICE_SHARE
        self._data: Tree = backend.asarray(self._arrays) if self.on_device else None
        one = gather(self._arrays, np.zeros(1, np.int64))
        self._block = {
            name: np.zeros((0 if self.on_device else rows, *array.shape[1:]), array.dtype)
            for name, array in one.items()
        }

    def serves(self, dataset: Dataset) -> bool:
        """Whether these are a data set's batches."""
        own = self.dataset
        return dataset.states is own.states and all(
            np.array_equal(getattr(dataset, name), getattr(own, name)) for name in ("mean", "std")
        )

    def update(self, requests: Sequence[Request | None], count: int) -> list[Reply | None]:
        """`count` updates for each request.

        Args:
            requests: of the agents side by side, each in its place; they differ only in state,
                seed and step. None is an agent that asks for nothing.
            count: of updates.
        """
        asked = {place: r for place, r in enumerate(requests) if r is not None}
        some = next(iter(asked.values()))
        rows = np.zeros((len(requests), count, some.size), np.int64)
        for place, r in asked.items():
            for i in range(count):
                rows[place, i] = batch_rows(r.seed, r.step + i, len(self.dataset), r.size)
        states = [None if r is None else r.state for r in requests]
        if self.on_device:
            found = self._backend.updates_together(states, self._data, rows, some.settings, gather)
        else:
            picked = rows[list(asked)].ravel()
            for name, array in gather(self._arrays, picked).items():
                self._block[name][: picked.size] = array
            rows[list(asked)] = np.arange(picked.size).reshape(len(asked), count, some.size)
            data = self._backend.asarray(self._block)
            found = self._backend.updates_together(states, data, rows, some.settings)
        return [None if made is None else Reply(*made, count) for made in found]


def drive(backend: Backend, runs: Sequence[Training | None]) -> None:
    """Run trainings to their ends, making their offline updates side by side.

    What becomes of an agent depends on its place and on the number of places, and not on the other
    agents: so it is the same to the last bit if those fail, or are ahead when it is continued.

    Args:
        backend: of all of them.
        runs: trainings of agents that differ only in their seeds and weights, each in its place.
            None is a place whose training has ended before.

    If one of them fails with a VGFError, the others go on. If one is stopped, or fails otherwise,
    the others stop where they are, so that they can be resumed.

    Raises:
        VGFError: of the only run.
        FailedRuns: of several, those that failed; after the others have ended.
    """
    failed: dict[Training, VGFError] = {}
    waiting: dict[Training, Reply | None] = {run: None for run in runs if run is not None}
    batches: list[Batches] = []
    pace, count = 1, 0
    metrics: list[Tree] = []
    since = time.perf_counter()
    while requests := _requests(waiting, failed):
        try:
            before, count = count, min(pace, *(request.limit for request in requests.values()))
            with repeatable():
                waiting = _made(backend, batches, requests, runs, count)
            # a device computes one call while the batches of the next are gathered, and no more
            backend.synchronise(metrics)
        except StopRunError:
            _stop_all(requests)
        except BaseException as error:
            _send_all(requests, error)
            raise
        metrics = [reply.metrics for reply in waiting.values() if reply is not None]
        now = time.perf_counter()
        within, since = SECONDS_PER_CALL / max(now - since, 1e-9) * before, now
        pace = int(min(max(within, 1), 2 * pace, UPDATES_PER_CALL))
    if len(runs) == 1:
        for only in failed.values():
            raise only
    if failed:
        raise FailedRuns({runs.index(run): error for run, error in failed.items()})


class FailedRuns(VGFError):  # noqa: N818  (what happened)
    """Some of several runs failed, and the others went on to their ends.

    Attributes:
        errors: by the number of the run among those that were started.
    """

    def __init__(self, errors: Mapping[int, VGFError]) -> None:
        self.errors = dict(errors)
        super().__init__("; ".join(f"run {i}: {error}" for i, error in self.errors.items()))


def _stop_all(runs: Iterable[Training]) -> None:
    """Stop runs where they wait for updates; each saves what it has.

    Raises:
        Interrupted: what the first says.
    """
    said: list[Interrupted] = []
    for run in runs:
        try:
            run.throw(StopRunError())
        except Interrupted as stop:
            said.append(stop)
        except (VGFError, StopIteration):
            continue
    raise said[0] if said else StopRunError()


def _send_all(runs: Iterable[Training], error: BaseException) -> None:
    """Raise an error in every run, at the point where it waits for updates."""
    for run in runs:
        with suppress(type(error), Interrupted):
            run.throw(error)


def _requests(
    waiting: dict[Training, Reply | None], failed: dict[Training, VGFError]
) -> dict[Training, Request]:
    """Every run advanced to its next request for updates; those that end are left out.

    Args:
        waiting: the runs, and what each gets.
        failed: gets the runs that fail with a VGFError.

    Raises:
        Exception: the first other one raised by a run, after every other run got its reply.
    """
    requests: dict[Training, Request] = {}
    errors: list[BaseException] = []
    for run, reply in waiting.items():
        try:
            requests[run] = next(run) if reply is None else run.send(reply)
        except StopIteration:
            continue
        except Interrupted as error:
            errors.append(error)
        except VGFError as error:
            failed[run] = error
        except (Exception, StopRunError) as error:
            errors.append(error)
    if errors:
        _send_all(requests, StopRunError())
        raise errors[0]
    return requests


def _made(
    backend: Backend,
    batches: list[Batches],
    requests: dict[Training, Request],
    runs: Sequence[Training | None],
    count: int,
) -> dict[Training, Reply | None]:
    """The replies to requests; those on the same data are computed together."""
    made: dict[Training, Reply | None] = {}
    groups: dict[int, set[Training]] = {}
    for run, request in requests.items():
        found = next((i for i, feed in enumerate(batches) if feed.serves(request.dataset)), None)
        if found is None:
            found = len(batches)
            rows = UPDATES_PER_CALL * request.size * len(runs)
            batches.append(Batches(request.dataset, backend, rows))
        groups.setdefault(found, set()).add(run)
    for found, group in groups.items():
        asked = [requests[run] if run is not None and run in group else None for run in runs]
        replies = batches[found].update(asked, count)
        made |= {r: reply for r, reply in zip(runs, replies, strict=True) if r and reply}
    return made
