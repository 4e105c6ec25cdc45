"""Many environments, stepped together, in this process or in a few others.

What each environment does depends on its seeds and its actions alone, so that results are the
same however many processes there are.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from ..errors import VGFError
from ..spec.types import Array
from .common import without_interrupts

# From a seed of the first reset to a gymnasium environment; picklable for use in processes.
MakeEnv = Callable[[int | None], Any]
# From the info of a step to whether it is a success, 1 or 0, or None; picklable too.
Success = Callable[[Mapping[str, Any]], float | None]


class Step(NamedTuple):
    """What came of one step: the next observation ``[o]`` float32, and scalars.

    `success` is None where the environment does not say.
    """

    observation: Array
    reward: float
    terminated: bool
    truncated: bool
    success: float | None


class EnvironmentPool:
    """Environments in numbered slots; use it as a context manager, or call :meth:`close`.

    An environment is made when its slot is first reset.

    Args:
        make_env: makes an environment.
        success: whether a step is one.
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
        context = multiprocessing.get_context("spawn")
        for _ in range(min(workers, size)):
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
        return self._call("reset", seeds)

    def step(self, actions: Mapping[int, Array]) -> dict[int, Step]:
        """Step environments: slot -> action ``[d]``. Returns slot -> :class:`Step`."""
        return self._call("step", actions)

    def _call(self, method: str, arguments: Mapping[int, Any]) -> dict[int, Any]:
        if self._here is not None:
            return self._here.call(method, arguments)
        shares: dict[int, dict[int, Any]] = {}
        for slot, argument in arguments.items():
            shares.setdefault(slot % len(self._workers), {})[slot] = argument
        replies: dict[int, Any] = {}
        try:
            for worker, share in shares.items():
                self._workers[worker][1].send((method, share))
            failures = []
            for worker in shares:
                failure, reply = self._workers[worker][1].recv()
                replies |= reply
                failures += [failure] if failure else []
        except (EOFError, BrokenPipeError, ConnectionError) as error:
            raise VGFError(
                "a process that steps environments ended early (out of memory, or a script that "
                "lacks `if __name__ == '__main__':`); use workers = 0"
            ) from error
        if failures:
            raise RuntimeError(f"an environment failed in its process:\n{failures[0]}")
        return replies

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
        observation, _ = self._envs[slot].reset(seed=seed)
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
            method, arguments = connection.recv()
        except EOFError:
            slots.close()
            return
        try:
            connection.send(("", slots.call(method, arguments)))
        except Exception:
            connection.send((traceback.format_exc(), {}))
