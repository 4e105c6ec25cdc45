"""Many environments, stepped together, in this process or in a few others.

What each environment does depends on its seeds and its actions alone, so that results are the
same however many processes there are. Calls can be sent ahead: while the processes work on one,
the caller prepares the next for other environments.

What an environment returns is checked, and whatever is wrong with it is an
:class:`EnvironmentFault` that says what, and in which slot. A process that takes too long over a
step, or ends, is replaced; the environments that it had are :attr:`EnvironmentPool.lost`, for the
caller to start again.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from ..spec.types import Array
from ..support.errors import VGFError
from ..support.interrupts import StopRunError, end_command, repeatable
from ..support.processes import (
    Stops,
    end_with_parent,
    leave_warnings_to_parent,
    usable_cores,
    without_interrupts,
)

# From a seed of the first reset to a gymnasium environment; picklable for use in processes.
MakeEnv = Callable[[int | None], Any]
# From the info of a step to whether it is a success, 1 or 0, or None; picklable too.
Success = Callable[[Mapping[str, Any]], float | None]


# After which a step in C, that no exception reaches, ends the command.
_STUCK = 10.0
# How long a process may take to start, and to make an environment.
_STARTING = 120.0
# How often a process that steps is looked at.
_LOOK = 0.2
# How long processes may take to close their environments.
_CLOSING = 4.0
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


class EnvironmentFault(VGFError):  # noqa: N818  (whose error it is)
    """Something is wrong with what an environment did.

    Attributes:
        slot: of the environment.
        reason: what is wrong, to follow "step 3 of the episode".
    """

    def __init__(self, slot: int, reason: str, where: str = "") -> None:
        super().__init__(f"{where or f'the environment in slot {slot}'} {reason}")
        self.slot, self.reason = slot, reason


class EnvironmentLost(EnvironmentFault):
    """Its process was replaced; a reset makes it again."""


class Failure(NamedTuple):
    """What is wrong with the answer of an environment; `whole` is a message that needs no more."""

    reason: str
    whole: bool = False


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
        step_timeout: seconds that one step or reset may take; None is no limit. In this process
            (workers 0) it holds in the main thread, and not on Windows.

    Attributes:
        lost: slot -> reason, of environments whose process was replaced; the caller takes them out.

    Raises:
        VGFError: a size below 1 or workers below 0.
    """

    def __init__(
        self,
        make_env: MakeEnv,
        success: Success,
        size: int,
        workers: int = 0,
        step_timeout: float | None = None,
    ) -> None:
        if size < 1:
            raise VGFError(f"num_envs is {size}; it must be 1 or more")
        if workers < 0:
            raise VGFError(f"workers is {workers}; it must be 0 or more")
        self.size = size
        self.lost: dict[int, str] = {}
        self._here = _Slots(make_env, success) if workers == 0 else None
        way_out = "; step it in a process of its own: --workers 1"
        self._watch = Watch(step_timeout, way_out) if workers == 0 else None
        self._workers: list[_Worker] = []
        # of the calls without an answer: the answer if made here, else the processes that will give
        # it
        self._waiting: deque[Any] = deque()
        self._start = (make_env, success, min(workers, size), step_timeout)

    def _start_workers(self) -> None:
        """Start the processes, at the first call only, as they take time from other work."""
        make_env, success, workers, timeout = self._start
        self._workers = [_Worker(make_env, success, timeout) for _ in range(workers)]

    def reset(self, seeds: Mapping[int, int]) -> dict[int, Array]:
        """Start episodes: slot -> seed. Returns slot -> observation ``[o]`` float32.

        Raises:
            EnvironmentFault: as :meth:`receive`; EnvironmentLost: one whose process was replaced.
        """
        self.send_reset(seeds)
        return self._last(seeds)

    def step(self, actions: Mapping[int, Array]) -> dict[int, Step]:
        """Step environments: slot -> action ``[d]``. Returns slot -> :class:`Step`.

        Raises:
            EnvironmentFault, EnvironmentLost: as :meth:`reset`.
        """
        self.send_step(actions)
        return self._last(actions)

    def send_reset(self, seeds: Mapping[int, int]) -> None:
        """Start episodes: slot -> seed, as :meth:`reset`; the answer comes by :meth:`receive`."""
        self._send("reset", seeds)

    def send_step(self, actions: Mapping[int, Array]) -> None:
        """Step environments, as :meth:`step`; the answer comes by :meth:`receive`."""
        self._send("step", actions)

    def receive(self) -> dict[int, Any]:
        """The answer to the oldest call that has none yet, waiting for it.

        Slots whose process was replaced are left out; see :attr:`lost`.

        Raises:
            EnvironmentFault: an environment raised, or returned what it must not.
        """
        waiting = self._waiting.popleft()
        replies: dict[int, Any] = {}
        if self._here is not None:
            replies = waiting
        else:
            for worker, life in waiting:
                replies |= self._answer(worker, life)
        for slot, reply in replies.items():
            if isinstance(reply, Failure):
                if reply.whole:
                    raise VGFError(reply.reason)
                raise EnvironmentFault(slot, reply.reason)
        return replies

    def _answer(self, number: int, life: int) -> dict[int, Any]:
        """The answer of a process, or nothing if it was replaced since the call, or is now."""
        worker = self._workers[number]
        if life != worker.life:
            return {}
        try:
            with repeatable():
                return worker.receive()
        except _LostError as error:
            slots = range(number, self.size, len(self._workers))
            reason = dict.fromkeys(slots, f"was lost with the one in slot {error.slot}")
            self.lost |= reason | {slots.start if error.slot < 0 else error.slot: str(error)}
            worker.restart()
            return {}

    def drain(self) -> None:
        """Drop the answers that nothing waits for any more."""
        while self._waiting:
            with contextlib.suppress(EnvironmentFault):
                self.receive()
        self.lost = {}

    def _last(self, slots: Mapping[int, Any]) -> dict[int, Any]:
        while len(self._waiting) > 1:
            self.receive()
        answers = self.receive()
        lost, self.lost = self.lost, {}
        for slot in slots:
            if slot not in answers:
                raise EnvironmentLost(slot, lost.get(slot, "was lost"))
        return answers

    def _send(self, method: str, arguments: Mapping[int, Any]) -> None:
        if self._here is not None and self._watch is not None:
            with repeatable(), self._watch:
                self._waiting.append(self._here.call(method, arguments, self._watch.begin))
            return
        if not self._workers:
            self._start_workers()
        shares: dict[int, list[int]] = {}
        for slot in arguments:
            shares.setdefault(slot % len(self._workers), []).append(slot)
        for number, slots in shares.items():
            share = np.array([arguments[slot] for slot in slots])
            self._workers[number].send((method, slots, share))
        self._waiting.append([(number, self._workers[number].life) for number in shares])

    def close(self) -> None:
        """Close the environments and end the processes; says what goes wrong with that."""
        failures = self._here.close() if self._here is not None else []
        if self._watch is not None:
            self._watch.close()
        end = time.monotonic() + _CLOSING
        for worker in self._workers:
            worker.ask_to_close()
        for worker in self._workers:
            failures += worker.end(max(0.0, end - time.monotonic()))
        self._workers = []
        self._waiting.clear()
        for reason in dict.fromkeys(failures):
            print(f"warning: an environment {reason}", file=sys.stderr)

    def __enter__(self) -> EnvironmentPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _LostError(Exception):
    """A process that must be replaced; `slot` is what it was at, -1 if at none."""

    def __init__(self, slot: int, reason: str) -> None:
        super().__init__(reason)
        self.slot = slot


class _Worker:
    """A process that steps environments, and its replacements.

    Attributes:
        life: how often it was replaced.
    """

    def __init__(self, make_env: MakeEnv, success: Success, timeout: float | None) -> None:
        self._what = (make_env, success)
        self._timeout = timeout
        self.life = 0
        self._begin()

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other_end = context.Pipe()
        # the slot, a count of what was begun, and whether that is the making of an environment
        self._at = context.RawArray("q", [-1, 0, 1])
        self._process = context.Process(
            target=_serve, args=(other_end, *self._what, self._at), daemon=True
        )
        with without_interrupts():
            self._process.start()
        other_end.close()

    def send(self, call: tuple[str, list[int], Array]) -> None:
        """Send a call; one that cannot be sent is found out when its answer is received."""
        with contextlib.suppress(OSError):
            self._connection.send(call)

    def receive(self) -> dict[int, Any]:
        """The answer to the oldest call.

        Raises:
            _LostError: the process ended, or takes too long over a step.
        """
        stops = Stops(_LOOK)
        began, since, stopped = self._at[1], time.monotonic(), 0.0
        try:
            while not self._connection.poll(_LOOK):
                stopped += stops.look()
                now = time.monotonic()
                if self._at[1] != began:
                    began, since, stopped = self._at[1], now, 0.0
                elif self._timeout is not None:
                    limit = max(_STARTING, self._timeout) if self._at[2] else self._timeout
                    if now - since - stopped > limit:
                        raise _LostError(self._at[0], f"took more than {limit:g} s")
            return _unpacked(self._connection.recv())
        except (EOFError, OSError) as error:
            self._process.join(timeout=1)
            raise _LostError(self._at[0], _ended(self._process.exitcode)) from error

    def restart(self) -> None:
        """Replace the process by a fresh one."""
        self._kill()
        self.life += 1
        self._begin()

    def ask_to_close(self) -> None:
        """Let it close its environments and end."""
        self.send(("close", [], np.zeros(0)))

    def end(self, wait: float) -> list[str]:
        """Wait until it has closed its environments, end it, and return what went wrong."""
        failures: list[str] = []
        with contextlib.suppress(EOFError, OSError):
            until = time.monotonic() + wait
            while self._connection.poll(max(0.0, until - time.monotonic())):
                reply = self._connection.recv()
                if isinstance(reply, list):
                    failures = reply
                    break
        self._kill()
        return failures

    def _kill(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.join()


def _ended(status: int | None) -> str:
    """How a process ended, in words."""
    if status is None or status >= 0:
        return f"ended its process with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    why = {"SIGKILL": ", as the system does when memory runs out", "SIGSEGV": ", a crash in C"}
    return f"ended its process by {name}{why.get(name, '')}"


class Watch:
    """Ends a step in this process that takes too long, where that can be done: in Python.

    Elsewhere it ends the command.

    Args:
        timeout: seconds that a step or reset may take; None is no limit.
        way_out: what to do about a step that does not let itself be stopped, in words.
    """

    def __init__(self, timeout: float | None, way_out: str = "") -> None:
        self._timeout, self._way_out = timeout, way_out
        self._at: tuple[float, float] | None = None  # when it began, and what it may take
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    def begin(self, slot: int, making: bool = False) -> None:
        """A step or reset of the environment in a slot begins, or its making."""
        if self._timeout is not None:
            limit = max(_STARTING, self._timeout) if making else self._timeout
            self._at = time.monotonic(), limit

    def __enter__(self) -> None:
        usable = hasattr(signal, "pthread_kill") and hasattr(signal, "SIGVTALRM")
        main = threading.current_thread() is threading.main_thread()
        if self._timeout is None or not usable or not main or self._thread is not None:
            return
        if signal.getsignal(signal.SIGVTALRM) not in (signal.SIG_DFL, _too_long):
            return
        signal.signal(signal.SIGVTALRM, _too_long)
        ident = threading.main_thread().ident
        self._thread = threading.Thread(target=self._look, args=(ident,), daemon=True)
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._at = None

    def close(self) -> None:
        """Stop looking."""
        self._over.set()

    def _look(self, main: int) -> None:
        assert self._timeout is not None
        tick = min(_LOOK, self._timeout / 4)
        stops, stopped = Stops(tick), 0.0
        at = told = None  # what goes on, and what took too long
        while not self._over.wait(tick):
            stop, now = stops.look(), time.monotonic()
            if at is not self._at:
                at, stopped = self._at, 0.0
            if at is None:
                continue
            began, limit = at
            stopped += max(0.0, min(stop, now - began - tick))  # it may have begun afterwards
            late = now - began - stopped - limit
            if late < 0:
                continue
            if told is not at:
                told = at
                signal.pthread_kill(main, signal.SIGVTALRM)
            elif late > _STUCK:  # in C, where no exception reaches
                end_command(
                    f"error: a step of an environment took more than {self._timeout:g} s and does "
                    f"not let itself be stopped{self._way_out}",
                    2,
                )


class _TooLongError(BaseException):
    """Raised in a step that takes too long; no environment's `except Exception` holds it back."""


def _too_long(number: int, frame: Any) -> None:
    raise _TooLongError


def _packed(replies: Mapping[int, Any]) -> tuple[Any, ...]:
    """Answers in a few arrays, for a pipe: failures, slots, observations, and steps' scalars."""
    failures = {slot: reply for slot, reply in replies.items() if isinstance(reply, Failure)}
    sound = {slot: reply for slot, reply in replies.items() if slot not in failures}
    if not sound:
        return failures, [], None, None
    slots, values = list(sound), list(sound.values())
    if not isinstance(values[0], Step):
        return failures, slots, np.stack(values), None
    scalars = [
        (s.reward, s.terminated, s.truncated, np.nan if s.success is None else s.success)
        for s in values
    ]
    seen = np.stack([step.observation for step in values])
    return failures, slots, seen, np.array(scalars, np.float64)


def _unpacked(packed: tuple[Any, ...]) -> dict[int, Any]:
    """The answers that :func:`_packed` packed."""
    failures, slots, observations, scalars = packed
    replies: dict[int, Any] = dict(failures)
    if scalars is None:
        return replies | dict(zip(slots, () if observations is None else observations, strict=True))
    return replies | {
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
        self._sizes: dict[int, tuple[int, ...]] = {}

    def call(
        self, method: str, arguments: Mapping[int, Any], begin: Callable[..., None]
    ) -> dict[int, Any]:
        """Reset or step environments; what one raises, or returns wrongly, is a Failure."""
        run = self._reset if method == "reset" else self._step
        replies: dict[int, Any] = {}
        for slot, argument in arguments.items():
            if slot not in self._envs:
                begin(slot, making=True)
                made = tried(self._make, slot)
                if isinstance(made, Failure):
                    replies[slot] = made
                    continue
            begin(slot)
            replies[slot] = tried(run, slot, argument)
        return replies

    def _make(self, slot: int) -> None:
        self._envs[slot] = self._make_env(None)
        space = getattr(self._envs[slot], "observation_space", None)
        if space is not None:
            self._sizes[slot] = tuple(space.shape)

    def _reset(self, slot: int, seed: int) -> Array:
        return self._observation(slot, checked_reset(self._envs[slot].reset(seed=int(seed))))

    def _step(self, slot: int, action: Array) -> Step:
        seen, reward, terminated, truncated, info = checked_step(self._envs[slot].step(action))
        success = self._success(info)
        if success is not None and not np.isfinite(success):
            raise _WrongError(f"returned the success {success}")
        return Step(self._observation(slot, seen), reward, terminated, truncated, success)

    def _observation(self, slot: int, value: Any) -> Array:
        """An observation, checked, ``[o]`` float32; a copy."""
        shape = self._sizes.setdefault(slot, np.shape(value))
        return checked_observation(value, shape, np.float32)

    def close(self) -> list[str]:
        """Close all; returns what went wrong."""
        failures = [tried(lambda env=env: env.close()) for env in self._envs.values()]
        self._envs = {}
        return [f"{one.reason} when closed" for one in failures if isinstance(one, Failure)]


@contextlib.contextmanager
def closing(env: Any) -> Iterator[Any]:
    """An environment, closed afterwards; one that fails then is a warning, and costs nothing."""
    try:
        yield env
    finally:
        failure = tried(env.close)
        if isinstance(failure, Failure):
            print(f"warning: an environment {failure.reason} when closed", file=sys.stderr)


# --- what environments return --------------------------------------------------------------------


class _WrongError(Exception):
    """What an environment returned, in words."""


def checked_reset(answer: Any) -> Any:
    """The observation in what `reset` returned; to be called by :func:`tried`."""
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise _WrongError(f"returned {_kind(answer)}, not the pair of an observation and a dict")
    return answer[0]


def checked_step(answer: Any) -> tuple[Any, float, bool, bool, Mapping[str, Any]]:
    """What `step` returned, its scalars checked; to be called by :func:`tried`."""
    if not isinstance(answer, tuple) or len(answer) != 5:
        raise _WrongError(
            f"returned {_kind(answer)}, not an observation, reward, terminated, truncated, info"
        )
    seen, reward, terminated, truncated, info = answer
    over, cut = (
        bool(_number(name, value, "biu"))
        for name, value in (("terminated", terminated), ("truncated", truncated))
    )
    if not isinstance(info, Mapping):
        raise _WrongError(f"returned as info {_kind(info)}, not a dict")
    return seen, _number("the reward", reward, "biuf"), over, cut, info


def checked_observation(value: Any, shape: tuple[int, ...], dtype: Any = None) -> Array:
    """A copy of an observation, of this shape and finite; to be called by :func:`tried`.

    Args:
        value: the observation.
        shape: of its space.
        dtype: of the copy; None is its own.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise _WrongError(f"returned an observation of {_kind(value)}, not of numbers")
    if array.shape != shape:
        raise _WrongError(
            f"returned an observation of shape {list(array.shape)}, and its space has {list(shape)}"
        )
    with np.errstate(over="ignore"):
        seen = np.array(array, dtype)
    if not np.isfinite(seen).all():
        where = int(np.argmin(np.isfinite(seen)))
        raise _WrongError(f"returned an observation with {array.ravel()[where]} in place {where}")
    return seen


def tried(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns, or a Failure that says what it raised, or what is wrong with it."""
    try:
        return call(*arguments)
    except _WrongError as error:
        return Failure(str(error))
    except _TooLongError:
        return Failure("took longer than --step-timeout allows")
    except VGFError as error:
        return Failure(str(error), whole=True)
    except StopRunError:
        raise
    except BaseException as error:
        # in a process of its own, which hears no signals, nobody else can have raised it
        if isinstance(error, KeyboardInterrupt) and multiprocessing.parent_process() is None:
            raise
        at = traceback.extract_tb(error.__traceback__)[-1]
        try:
            text = " ".join(str(error).split())[:300]
        except Exception:
            text = "its message cannot be read"
        place = f"{os.path.basename(at.filename)}, line {at.lineno}"
        return Failure(f"raised {type(error).__name__}{f': {text}' if text else ''} ({place})")


def _number(name: str, value: Any, kinds: str) -> float:
    """A scalar that an environment returned.

    Raises:
        _WrongError: it is something else, or not finite.
    """
    array = np.asarray(value)
    if array.dtype.kind not in kinds or array.size != 1:
        raise _WrongError(f"returned as {name} {_kind(value)}, not a number")
    number = float(array.reshape(()))
    if not np.isfinite(number):
        raise _WrongError(f"returned {name} {number}")
    return number


def _kind(value: Any) -> str:
    """What something is, in a few words."""
    if value is None:
        return "None"
    if isinstance(value, tuple):
        return f"{len(value)} values"
    shape = np.shape(value) if isinstance(value, np.ndarray | list) else ()
    return f"a {type(value).__name__}" + (f" of shape {list(shape)}" if shape else "")


def _serve(connection: Connection, make_env: MakeEnv, success: Success, at: Any) -> None:
    """The life of a worker: answer calls until the pool closes its end."""
    end_with_parent()
    leave_warnings_to_parent()
    slots = _Slots(make_env, success)

    def note(slot: int, making: bool = False) -> None:
        at[0], at[2], at[1] = slot, making, at[1] + 1

    while True:
        try:
            method, numbers, arguments = connection.recv()
            if method == "close":
                connection.send(slots.close())
                return
            answer = slots.call(method, dict(zip(numbers, arguments, strict=True)), note)
            connection.send(_packed(answer))
        except (EOFError, OSError):  # nobody is there any more
            return
