"""Many environments, stepped together, in this process or in a few others.

What each environment does depends on its seeds and its actions alone, so that results are the
same however many processes there are. Calls can be sent ahead: while the processes work on one,
the caller prepares the next for other environments.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from ..spec.types import Array
from ..support.errors import VGFError
from ..support.processes import usable_cores, without_interrupts

# From a seed of the first reset to a gymnasium environment; picklable for use in processes.
MakeEnv = Callable[[int | None], Any]
# From the info of a step to whether it is a success, 1 or 0, or None; picklable too.
Success = Callable[[Mapping[str, Any]], float | None]


# The most processes of a pool whose number is not given.
_MOST_WORKERS = 16


def default_workers(size: int) -> int:
    """Processes for `size` environments: one on each core that this process may use, at most 16.

    Each has at least two environments, as it takes a second to start. 0, to step in this process,
    if there would be only one.
    """
    workers = min(usable_cores(), size // 2, _MOST_WORKERS)
    return workers if workers > 1 else 0


class Step(NamedTuple):
    """The result of one step: the next observation ``[o]`` float32, and scalars.

    `success` is None if the environment does not say.
    """

    observation: Array
    reward: float
    terminated: bool
    truncated: bool
    success: float | None


class EnvironmentPool:
    """Environments in numbered slots; use it as a context manager, or call :meth:`close`.

    An environment is made when its slot is first reset. :meth:`reset` and :meth:`step` wait for
    their answer. :meth:`send_reset` and :meth:`send_step` do not: :meth:`receive` gives the
    answers later, in the order of the calls. A slot with an outstanding answer must not be called
    again.

    Args:
        make_env: makes an environment.
        success: whether a step is a success.
        size: number of slots.
        workers: processes that share the slots; 0 to step in this one.

    Raises:
        VGFError: a size below 1 or workers below 0.
    """

    def __init__(self, make_env: MakeEnv, success: Success, size: int, workers: int = 0) -> None:
        if size < 1:
            raise VGFError(f"num_envs is {size}; it must be 1 or more")
        if workers < 0:
            raise VGFError(f"workers is {workers}; it must be 0 or more")
        self.size = size
        self._here = _Slots(make_env, success) if workers == 0 else None
        self._workers: list[tuple[BaseProcess, Connection]] = []
        # of the calls without an answer: the answer if made here, else the processes that will give
        # it
        self._waiting: deque[Any] = deque()
        self._start = (make_env, success, min(workers, size))

    def _start_workers(self) -> None:
        """Start the processes, at the first call only, as they take time from other work."""
        make_env, success, workers = self._start
        context = multiprocessing.get_context("spawn")
        for _ in range(workers):
            connection, other_end = context.Pipe()
            process = context.Process(
                target=_serve, args=(other_end, make_env, success), daemon=True
            )
            with without_interrupts():
                process.start()
            other_end.close()
            self._workers.append((process, connection))

    def reset(self, seeds: Mapping[int, int]) -> dict[int, Array]:
        """Start episodes: slot -> seed. Returns slot -> observation ``[o]`` float32."""
        self.send_reset(seeds)
        return self._last()

    def step(self, actions: Mapping[int, Array]) -> dict[int, Step]:
        """Step environments: slot -> action ``[d]``. Returns slot -> :class:`Step`."""
        self.send_step(actions)
        return self._last()

    def send_reset(self, seeds: Mapping[int, int]) -> None:
        """Start episodes: slot -> seed, as :meth:`reset`; the answer comes by :meth:`receive`."""
        self._send("reset", seeds)

    def send_step(self, actions: Mapping[int, Array]) -> None:
        """Step environments, as :meth:`step`; the answer comes by :meth:`receive`."""
        self._send("step", actions)

    def receive(self) -> dict[int, Any]:
        """The answer to the oldest call that has none yet, waiting for it.

        Raises:
            VGFError: a process ended early.
            RuntimeError: an environment failed in its process.
        """
        waiting = self._waiting.popleft()
        if self._here is not None:
            return waiting
        replies: dict[int, Any] = {}
        failures = []
        with _alive():
            for worker in waiting:
                failure, reply = self._workers[worker][1].recv()
                replies |= _unpacked(reply)
                failures += [failure] if failure else []
        if failures:
            raise RuntimeError(f"an environment failed in its process:\n{failures[0]}")
        return replies

    def drain(self) -> None:
        """Drop the answers that nothing waits for any more."""
        while self._waiting:
            self.receive()

    def _last(self) -> dict[int, Any]:
        while len(self._waiting) > 1:
            self.receive()
        return self.receive()

    def _send(self, method: str, arguments: Mapping[int, Any]) -> None:
        if self._here is not None:
            self._waiting.append(self._here.call(method, arguments))
            return
        if not self._workers:
            self._start_workers()
        shares: dict[int, list[int]] = {}
        for slot in arguments:
            shares.setdefault(slot % len(self._workers), []).append(slot)
        with _alive():
            for worker, slots in shares.items():
                share = np.array([arguments[slot] for slot in slots])
                self._workers[worker][1].send((method, slots, share))
        self._waiting.append(tuple(shares))

    def close(self) -> None:
        """Close the environments and end the processes."""
        if self._here is not None:
            self._here.close()
        for process, connection in self._workers:
            connection.close()
            process.join(timeout=5)
            if process.is_alive():
                process.terminate()
                process.join()
        self._workers = []

    def __enter__(self) -> EnvironmentPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@contextlib.contextmanager
def _alive() -> Iterator[None]:
    """Turn the calls that an ended process leaves unanswered into a VGFError."""
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionError) as error:
        raise VGFError(
            "a process that steps environments ended early (out of memory, or a script that "
            "lacks `if __name__ == '__main__':`); use workers = 0"
        ) from error


def _packed(replies: Mapping[int, Any]) -> tuple[list[int], Array, Array | None] | None:
    """Answers in a few arrays, for a pipe: slots, observations, and for steps the scalars."""
    if not replies:
        return None
    slots, values = list(replies), list(replies.values())
    if not isinstance(values[0], Step):
        return slots, np.stack(values), None
    scalars = [
        (s.reward, s.terminated, s.truncated, np.nan if s.success is None else s.success)
        for s in values
    ]
    return slots, np.stack([step.observation for step in values]), np.array(scalars, np.float64)


def _unpacked(packed: tuple[list[int], Array, Array | None] | None) -> dict[int, Any]:
    """The answers that :func:`_packed` packed."""
    if packed is None:
        return {}
    slots, observations, scalars = packed
    if scalars is None:
        return dict(zip(slots, observations, strict=True))
    return {
        slot: Step(seen, reward, bool(over), bool(cut), None if np.isnan(success) else success)
        for slot, seen, (reward, over, cut, success) in zip(
            slots, observations, scalars.tolist(), strict=True
        )
    }


class _Slots:
    """The environments of one process."""

    def __init__(self, make_env: MakeEnv, success: Success) -> None:
        self._make_env = make_env
        self._success = success
        self._envs: dict[int, Any] = {}

    def call(self, method: str, arguments: Mapping[int, Any]) -> dict[int, Any]:
        run = self._reset if method == "reset" else self._step
        return {slot: run(slot, argument) for slot, argument in arguments.items()}

    def _reset(self, slot: int, seed: int) -> Array:
        if slot not in self._envs:
            self._envs[slot] = self._make_env(None)
        observation, _ = self._envs[slot].reset(seed=int(seed))
        return np.asarray(observation, np.float32)

    def _step(self, slot: int, action: Array) -> Step:
        ob, reward, terminated, truncated, info = self._envs[slot].step(action)
        return Step(
            np.asarray(ob, np.float32),
            float(reward),
            bool(terminated),
            bool(truncated),
            self._success(info),
        )

    def close(self) -> None:
        for env in self._envs.values():
            env.close()
        self._envs = {}


def _serve(connection: Connection, make_env: MakeEnv, success: Success) -> None:
    """The life of a worker: answer calls until the pool closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one.
    slots = _Slots(make_env, success)
    while True:
        try:
            method, numbers, arguments = connection.recv()
        except EOFError:
            slots.close()
            return
        try:
            answer = slots.call(method, dict(zip(numbers, arguments, strict=True)))
            connection.send(("", _packed(answer)))
        except Exception:
            connection.send((traceback.format_exc(), None))
