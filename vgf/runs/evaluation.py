"""Evaluation: rollouts of a policy at several test budgets, from the same start states.

The protocol. Episode e of an evaluation with seed s has its own seed, made from (s, e), and its
own generator of the policy's noise, made from that seed; each of its steps draws standard normal
``[N, d]`` and a uniform number. So an episode depends only on (s, e) and on the policy, not on the
episodes that run beside it or on the number of processes; and every budget starts from the same
states and gets the same noise, step by step.

The episodes of all budgets wait in one queue, budget by budget, and a free environment takes the
next one. 16 environments or more form two groups that take turns: while processes step one group,
the policy answers the other. At each turn of a group the policy is called once for each budget of
its episodes, with one row for each of its environments. The number of rows never changes, so that a
compiled policy is compiled once and sums in the same order; answers to rows of another budget, or
of a finished episode, are dropped. A different `num_envs` gives matrix products of a different
shape, which may round differently.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypedDict, TypeVar

import numpy as np

from ..benchmarks.tasks import Task
from ..environments.pool import EnvironmentFault, EnvironmentPool, Step, default_workers
from ..spec.theory import wasserstein2
from ..spec.types import Array
from ..support.callbacks import Progress
from ..support.errors import VGFError
from ..support.statistics import SUCCESS, mean_measured
from .scores import Score, scores

# Steps after which an episode without a time limit is taken for one without an end.
LONGEST = 100_000
# The fewest environments in a group: fewer rows make slow matrix products.
_GROUP = 8

BudgetT = TypeVar("BudgetT")
BudgetT_contra = TypeVar("BudgetT_contra", contravariant=True)


class Policy(Protocol[BudgetT_contra]):
    """What is evaluated: a function of its arguments alone."""

    def __call__(
        self, observations: Array, budget: BudgetT_contra, noise: Mapping[str, Array]
    ) -> tuple[Array, Mapping[str, Any]]:
        """Pick actions.

        Args:
            observations: ``[B, o]`` float32, as the environment returns them.
            budget: one of the budgets under evaluation.
            noise: particles: standard normal ``[B, N, d]``; select: uniform ``[B]``, as
                :func:`vgf.spec.draw_act_noise` makes them and `act` takes them. A policy that
                needs fewer particles takes the first.

        Returns:
            Actions ``[B, d]`` and a dict. If it holds the particles before and after transport,
            start and moved ``[B, N, d]``, the distance moved is measured.
        """


# One finished episode: the label of its budget, its number, its seed, the sum of its rewards,
# whether it succeeded (1 or 0; None where the environment does not say), its score as the task
# names it, its length in decisions, and how far the particles moved in a decision, on average: the
# mean of |moved - start| over particles, and W2, in units of the action; None where the policy
# does not say.
EpisodeRecord = TypedDict(
    "EpisodeRecord",
    {
        "budget": str,
        "episode": int,
        "seed": int,
        "return": float,
        "success": float | None,
        "score": float,
        "length": int,
        "displacement": float | None,
        "w2": float | None,
    },
)


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found: every episode, and the score at each budget, in order."""

    records: list[EpisodeRecord]
    summaries: list[Score]


def evaluate(
    policy: Policy[BudgetT],
    task: Task,
    budgets: Mapping[str, BudgetT],
    *,
    particles: int,
    episodes: int = 50,
    seed: int = 0,
    num_envs: int | None = None,
    workers: int | None = 0,
    step_timeout: float | None = None,
    retries: int = 0,
    pool: EnvironmentPool | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Roll a policy out on a task at several test budgets.

    Args:
        policy: see :class:`Policy`.
        task: what to roll it out on.
        budgets: label -> budget; a budget is anything the policy understands.
        particles: N, of the noise passed to the policy; the most that any budget needs.
        episodes: for each budget.
        seed: of the episodes; equal seeds give equal start states and noise.
        num_envs, workers, step_timeout: environments and processes; see :func:`make_pool`.
        retries: how often an episode starts again whose environment ended its process, or took more
            than `step_timeout` seconds. It is the same episode, from the same seed.
        pool: environments to use instead of making and closing some, from
            :func:`make_pool`; `num_envs`, `workers` and `step_timeout` are then the pool's.
        progress: called after each episode, with the number finished and the total.

    Raises:
        VGFError: no budget, a number out of range, or a policy that returns actions of the wrong
        shape or with NaN. EnvironmentFault: an environment that raises, returns what it must not,
        or does not answer; the message names it, the episode and the step.
    """
    for name, value in {"episodes": episodes, "particles": particles}.items():
        if value < 1:
            raise VGFError(f"{name} is {value}; it must be 1 or more")
    if seed < 0:
        raise VGFError(f"seed is {seed}; it must be 0 or more")
    if not budgets:
        raise VGFError("no test budget to evaluate; name at least one")
    with contextlib.ExitStack() as stack:
        if pool is None:
            pool = stack.enter_context(make_pool(task, episodes, num_envs, workers, step_timeout))
        evaluation = _Evaluation(
            policy, task, budgets, pool, particles, episodes, seed, progress, retries
        )
        evaluation.run()
    order = list(budgets)
    records = sorted(evaluation.records, key=lambda r: (order.index(r["budget"]), r["episode"]))
    return Evaluation(records, summarise(records, task.score_name))


def make_pool(
    task: Task,
    episodes: int,
    num_envs: int | None = None,
    workers: int | None = 0,
    step_timeout: float | None = None,
) -> EnvironmentPool:
    """Environments of a task, for several evaluations; a context manager.

    Args:
        task: whose environments.
        episodes: for each test budget.
        num_envs: environments that run at once; None for one for each episode, up to the task's
            limit.
        workers: processes that step them; 0 for this process, None for one on each core.
        step_timeout: seconds that one step or reset may take; None is no limit.

    Raises:
        VGFError: the task has none.
    """
    if task.make_env is None:
        raise VGFError(f"{task.name} has no environment, so there is nothing to evaluate in")
    size = min(episodes, task.environments_together) if num_envs is None else num_envs
    if workers is None:
        workers = default_workers(size)
    return EnvironmentPool(task.make_env, task.success, size, workers, step_timeout)


def summarise(records: Sequence[EpisodeRecord], score_name: str = SUCCESS) -> list[Score]:
    """The score at each budget in records, in the order of their first episodes."""
    order = list(dict.fromkeys(record["budget"] for record in records))
    return sorted(scores([records], score_name), key=lambda score: order.index(str(score.budget)))


def episode_seed(seed: int, episode: int) -> int:
    """The seed of an episode, below 2^32: for its environment and, extended, its noise."""
    return int(np.random.SeedSequence([seed, episode]).generate_state(1)[0])


@dataclass
class _Episode:
    """An episode under way; its observation is None until the environment has answered."""

    budget: str
    number: int
    seed: int
    generator: np.random.Generator
    observation: Array | None = None
    total: float = 0.0
    success: float | None = None
    length: int = 0
    tries: int = 0
    begun: bool = False
    displacements: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)


class _Group:
    """Environments that step together, and the episodes in them by slot."""

    def __init__(self, slots: range) -> None:
        self.slots = slots
        self.episodes: dict[int, _Episode] = {}
        self.calls = 0  # to the pool, not yet answered

    def ready(self, budget: str) -> dict[int, _Episode]:
        """The episodes of a budget that wait for an action."""
        return {
            slot: episode
            for slot, episode in self.episodes.items()
            if episode.budget == budget and episode.observation is not None
        }


class _Evaluation(Generic[BudgetT]):
    """The episodes of all budgets, one at a time in each of the pool's environments."""

    def __init__(
        self,
        policy: Policy[BudgetT],
        task: Task,
        budgets: Mapping[str, BudgetT],
        pool: EnvironmentPool,
        particles: int,
        episodes: int,
        seed: int,
        progress: Progress | None,
        retries: int,
    ) -> None:
        self.records: list[EpisodeRecord] = []
        self._policy = policy
        self._task = task
        self._budgets = budgets
        self._pool = pool
        self._shape = (particles, task.action_dim)
        self._seed = seed
        self._progress = progress
        self._retries = retries
        self._total = episodes * len(budgets)
        self._waiting = ((label, number) for label in budgets for number in range(episodes))
        number = max(1, min(2, pool.size // _GROUP))
        # all of one size, so that the policy sees one shape; the last may have empty rows
        self._rows = -(-pool.size // number)
        self._groups = [
            _Group(range(first, min(first + self._rows, pool.size)))
            for first in range(0, pool.size, self._rows)
        ]

    def run(self) -> None:
        """Run all episodes to their ends."""
        self._pool.drain()  # left by an evaluation that was interrupted
        for group in self._groups:
            self._start(group)
        while any(group.episodes for group in self._groups):
            for group in self._groups:
                self._receive(group)
                self._act(group)

    def _start(self, group: _Group) -> None:
        """Start waiting episodes in free slots."""
        free = [slot for slot in group.slots if slot not in group.episodes]
        seeds = {}
        for slot, (label, number) in zip(free, self._waiting, strict=False):
            seeds[slot] = episode_seed(self._seed, number)
            generator = np.random.default_rng([seeds[slot], 1])
            group.episodes[slot] = _Episode(label, number, seeds[slot], generator)
        if seeds:
            self._pool.send_reset(seeds)
            group.calls += 1

    def _receive(self, group: _Group) -> None:
        """Take the environments' answers since the group's last turn."""
        over: dict[int, _Group] = {}
        while group.calls:
            group.calls -= 1
            try:
                answers = self._pool.receive()
            except EnvironmentFault as fault:
                raise self._fault(fault.slot, fault.reason) from fault
            for slot, answer in answers.items():
                owner = self._owner(slot)
                if isinstance(answer, Step):
                    if self._advance(owner, slot, answer):
                        over[owner.slots.start] = owner
                else:
                    owner.episodes[slot].observation = answer
                    owner.episodes[slot].begun = True
            self._start_again()
        for owner in over.values():
            self._start(owner)

    def _owner(self, slot: int) -> _Group:
        return self._groups[slot // self._rows]

    def _start_again(self) -> None:
        """Start the episodes again whose environments were lost with their process."""
        lost, self._pool.lost = self._pool.lost, {}
        for group in self._groups:
            seeds = {}
            for slot in lost.keys() & group.episodes.keys():
                before = group.episodes[slot]
                tries = before.tries + (not lost[slot].startswith("was lost with"))
                if tries > self._retries:
                    again = f" in each of {tries} tries" if tries > 1 else ""
                    raise self._fault(slot, lost[slot] + again)
                seeds[slot] = before.seed
                generator = np.random.default_rng([before.seed, 1])
                group.episodes[slot] = _Episode(
                    before.budget, before.number, before.seed, generator, tries=tries
                )
            if seeds:
                self._pool.send_reset(seeds)
                group.calls += 1

    def _fault(self, slot: int, reason: str) -> EnvironmentFault:
        """What went wrong with the environment in a slot, with the episode it was in."""
        episode = self._owner(slot).episodes.get(slot)
        if episode is None:
            return EnvironmentFault(slot, reason, f"{self._task.name}: an environment")
        at = f"step {episode.length + 1}" if episode.begun else "reset"
        where = (
            f"{self._task.name}: {at} of episode {episode.number} (budget {episode.budget}, seed "
            f"{episode.seed})"
        )
        return EnvironmentFault(slot, reason, where)

    def _act(self, group: _Group) -> None:
        """Take one step in every episode that has an observation."""
        moves: dict[int, Array] = {}
        infos: list[tuple[dict[int, _Episode], Mapping[str, Any]]] = []
        for label, budget in self._budgets.items():
            episodes = group.ready(label)
            if not episodes:
                continue
            observations, noise = self._inputs(group, episodes)
            actions, info = self._policy(observations, budget, noise)
            moves |= self._actions(group, label, np.asarray(actions), episodes)
            infos.append((episodes, info))
        if moves:
            self._pool.send_step(moves)
            group.calls += 1
            for slot in moves:
                group.episodes[slot].observation = None
        for episodes, info in infos:  # while the environments are working
            self._measure(group, episodes, info)

    def _inputs(
        self, group: _Group, episodes: Mapping[int, _Episode]
    ) -> tuple[Array, dict[str, Array]]:
        """Observations and noise of the next step; the other rows are zeros."""
        observations = np.zeros((self._rows, self._task.observation_dim), np.float32)
        drawn = np.zeros((self._rows, *self._shape))
        select = np.zeros(self._rows)
        for slot, episode in episodes.items():
            row = slot - group.slots.start
            observations[row] = episode.observation
            episode.generator.standard_normal(out=drawn[row])
            select[row] = episode.generator.random()
        return observations, {"particles": drawn, "select": select}

    def _actions(
        self, group: _Group, label: str, actions: Array, episodes: Mapping[int, _Episode]
    ) -> dict[int, Array]:
        """What a policy answered, checked and clipped, for the slots of a budget's episodes."""
        expected = (self._rows, self._shape[1])
        if actions.shape != expected:
            raise VGFError(
                f"the policy returned actions of shape {list(actions.shape)}, "
                f"expected {list(expected)}"
            )
        rows = [slot - group.slots.start for slot in episodes]
        if not np.isfinite(actions[rows]).all():
            raise VGFError(
                f"the policy returned NaN or infinity at budget {label!r}: training has "
                "diverged; lower the learning rate or the step size"
            )
        moves = np.clip(actions[rows], -1.0, 1.0).astype(np.float32)
        return dict(zip(episodes, moves, strict=True))

    def _measure(
        self, group: _Group, episodes: Mapping[int, _Episode], info: Mapping[str, Any]
    ) -> None:
        """Measure how far the particles moved."""
        if "start" not in info or "moved" not in info:
            return
        rows = [slot - group.slots.start for slot in episodes]
        start, moved = (
            np.asarray(info[key])[rows].astype(np.float64) for key in ("start", "moved")
        )
        distances = np.mean(np.linalg.norm(moved - start, axis=-1), axis=-1)
        # Sets that did not move need no matching.
        w2 = np.zeros(len(rows))
        went = distances > 0.0
        if went.any():
            w2[went] = wasserstein2(start[went], moved[went])
        for episode, distance, length in zip(episodes.values(), distances, w2, strict=True):
            episode.displacements.append(float(distance))
            episode.distances.append(float(length))

    def _advance(self, group: _Group, slot: int, step: Step) -> bool:
        """Record a step; returns whether the episode is over."""
        episode = group.episodes[slot]
        episode.total += step.reward
        if step.success is not None:
            episode.success = max(episode.success or 0.0, step.success)
        episode.length += 1
        episode.observation = step.observation
        if not (step.terminated or step.truncated):
            if self._task.max_episode_steps is None and episode.length >= LONGEST:
                raise self._fault(slot, "and the episode has no end; give it a time limit")
            return False
        del group.episodes[slot]
        self.records.append(
            {
                "budget": episode.budget,
                "episode": episode.number,
                "seed": episode.seed,
                "return": episode.total,
                "success": episode.success,
                "score": self._task.score(episode.total, episode.success),
                "length": episode.length,
                "displacement": mean_measured(episode.displacements),
                "w2": mean_measured(episode.distances),
            }
        )
        if self._progress is not None:
            self._progress(f"evaluating {episode.budget}", len(self.records), self._total)
        return True
