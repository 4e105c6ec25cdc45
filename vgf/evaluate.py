"""Evaluation: rollouts of a policy at several test budgets, from the same start states.

The protocol. Episode e of an evaluation with seed s has its own seed, made from (s, e), and its
own generator of the policy's noise, made from that seed; at each of its steps it draws standard
normal ``[N, d]`` and a uniform number. So an episode depends on (s, e) and on the policy alone,
not on which episodes run beside it nor on how many processes step them; and every budget starts
from the same states and is given the same noise, step by step.

The policy is called once for each step, with one row for each environment. The number of rows
never changes (rows whose episode is over are carried along, and what they are answered is
dropped), so that a compiled policy is compiled once and sums in the same order. Another
`num_envs` is another shape of matrix product, which may round differently.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict, TypeVar

import numpy as np

from .data.common import Progress
from .data.pool import EnvironmentPool, Step
from .errors import VGFError
from .scores import SUCCESS, interval
from .spec.theory import wasserstein2
from .spec.types import Array
from .tasks import Task

_DEFAULT_ENVIRONMENTS = 50

BudgetT = TypeVar("BudgetT")
BudgetT_contra = TypeVar("BudgetT_contra", contravariant=True)


class Policy(Protocol[BudgetT_contra]):
    """What is evaluated; a function of its arguments alone."""

    def __call__(
        self, observations: Array, budget: BudgetT_contra, noise: Mapping[str, Array]
    ) -> tuple[Array, Mapping[str, Any]]:
        """Pick actions.

        Args:
            observations: ``[B, o]`` float32, as the environment gives them.
            budget: one of the budgets under evaluation.
            noise: particles: standard normal ``[B, N, d]``; select: uniform ``[B]``, as
                :func:`vgf.spec.draw_act_noise` makes them and `act` takes them. A policy that
                wants fewer particles takes the first.

        Returns:
            Actions ``[B, d]`` and a dict. Where that has the particles before and after transport,
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
class Summary:
    """The episodes of one budget taken together.

    Args:
        budget: its label.
        episodes: how many there were.
        score: the mean score, by the name that the task has for it.
        low, high: its 95 % interval; see :func:`vgf.scores.interval`. None for one return.
        success_rate: the share that succeeded; None where the environment does not say.
        mean_return, mean_length: over episodes; lengths in decisions.
        displacement, w2: mean distance moved in a decision, averaged over episodes, in units of
            the action; None where it was not measured.
    """

    budget: str
    episodes: int
    score: float
    low: float | None
    high: float | None
    success_rate: float | None
    mean_return: float
    mean_length: float
    displacement: float | None
    w2: float | None


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found: every episode, and a summary for each budget, in order."""

    records: list[EpisodeRecord]
    summaries: list[Summary]


def evaluate(
    policy: Policy[BudgetT],
    task: Task,
    budgets: Mapping[str, BudgetT],
    *,
    particles: int,
    episodes: int = 50,
    seed: int = 0,
    num_envs: int | None = None,
    workers: int = 0,
    pool: EnvironmentPool | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Roll a policy out on a task at several test budgets.

    Args:
        policy: see :class:`Policy`.
        task: what to roll it out on.
        budgets: label -> budget; a budget is anything the policy understands.
        particles: N, of the noise that the policy is given; the most that any budget wants.
        episodes: for each budget.
        seed: of the episodes; equal seeds give equal start states and noise.
        num_envs: environments that run at once; None for one for each episode, 50 at most.
        workers: processes that step them; 0 to step them in this one.
        pool: environments to use instead of making some and closing them afterwards, from
            :func:`make_pool`; `num_envs` and `workers` are then the pool's.
        progress: called after each episode.

    Raises:
        VGFError: no budget, a number out of its range, or a policy that returns actions of a
            wrong shape or with NaN.
    """
    for name, value in {"episodes": episodes, "particles": particles}.items():
        if value < 1:
            raise VGFError(f"{name} is {value}; it must be 1 or more")
    if seed < 0:
        raise VGFError(f"seed is {seed}; it must be 0 or more")
    if not budgets:
        raise VGFError("no test budget to evaluate; name at least one")
    records: list[EpisodeRecord] = []
    with contextlib.ExitStack() as stack:
        if pool is None:
            size = min(environments_together(episodes, num_envs), episodes)
            pool = stack.enter_context(make_pool(task, size, workers))
        for label, budget in budgets.items():
            rollout = _Rollout(label, task, pool, particles, episodes, seed)
            while rollout.running:
                actions, info = policy(rollout.observations, budget, rollout.noise())
                rollout.step(np.asarray(actions), info)
                if progress is not None and rollout.news:
                    done = len(records) + len(rollout.records)
                    progress(f"evaluating {label}", done, episodes * len(budgets))
            records += sorted(rollout.records, key=lambda record: record["episode"])
    return Evaluation(records, summarise(records, task.score_name))


def environments_together(episodes: int, num_envs: int | None) -> int:
    """How many environments to step together: `num_envs`, or one for each episode, 50 at most."""
    return min(episodes, _DEFAULT_ENVIRONMENTS) if num_envs is None else num_envs


def make_pool(task: Task, num_envs: int, workers: int = 0) -> EnvironmentPool:
    """Environments of a task, for several evaluations; a context manager.

    Raises:
        VGFError: the task has none.
    """
    if task.make_env is None:
        raise VGFError(f"{task.name} has no environment, so there is nothing to evaluate in")
    return EnvironmentPool(task.make_env, task.success, num_envs, workers)


def summarise(records: Sequence[EpisodeRecord], score_name: str = SUCCESS) -> list[Summary]:
    """Summaries of the budgets in records, in the order of their first episodes."""
    labels = dict.fromkeys(record["budget"] for record in records)
    return [_summary([r for r in records if r["budget"] == label], score_name) for label in labels]


def _summary(records: Sequence[EpisodeRecord], score_name: str) -> Summary:
    scores = np.array([record["score"] for record in records])
    low, high = interval([scores], score_name)
    return Summary(
        budget=records[0]["budget"],
        episodes=len(records),
        score=float(np.mean(scores)),
        low=low,
        high=high,
        success_rate=_mean([record["success"] for record in records]),
        mean_return=float(np.mean([record["return"] for record in records])),
        mean_length=float(np.mean([record["length"] for record in records])),
        displacement=_mean([record["displacement"] for record in records]),
        w2=_mean([record["w2"] for record in records]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of what was measured, or None."""
    measured = [value for value in values if value is not None]
    return float(np.mean(measured)) if measured else None


def episode_seed(seed: int, episode: int) -> int:
    """The seed of an episode, below 2^32: of its environment and, with more, of its noise."""
    return int(np.random.SeedSequence([seed, episode]).generate_state(1)[0])


@dataclass
class _Episode:
    """An episode under way."""

    number: int
    seed: int
    generator: np.random.Generator
    total: float = 0.0
    success: float | None = None
    length: int = 0
    displacements: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)


class _Rollout:
    """The episodes of one budget, as many at once as the pool has environments."""

    def __init__(
        self,
        label: str,
        task: Task,
        pool: EnvironmentPool,
        particles: int,
        episodes: int,
        seed: int,
    ) -> None:
        self.records: list[EpisodeRecord] = []
        self.news = False
        self.running: dict[int, _Episode] = {}
        self.observations = np.zeros((pool.size, task.observation_dim), np.float32)
        self._label = label
        self._task = task
        self._pool = pool
        self._shape = (particles, task.action_dim)
        self._seed = seed
        self._waiting = iter(range(episodes))
        self._start(range(pool.size))

    def _start(self, slots: Sequence[int]) -> None:
        """Start waiting episodes in free slots."""
        started = {}
        for slot, number in zip(slots, self._waiting, strict=False):
            seed = episode_seed(self._seed, number)
            started[slot] = _Episode(number, seed, np.random.default_rng([seed, 1]))
        self.running |= started
        seeds = {slot: episode.seed for slot, episode in started.items()}
        for slot, observation in self._pool.reset(seeds).items():
            self.observations[slot] = observation

    def noise(self) -> dict[str, Array]:
        """The noise of the next step; rows without an episode have zeros."""
        drawn = np.zeros((self._pool.size, *self._shape))
        select = np.zeros(self._pool.size)
        for slot, episode in self.running.items():
            drawn[slot] = episode.generator.standard_normal(self._shape)
            select[slot] = episode.generator.random()
        return {"particles": drawn, "select": select}

    def step(self, actions: Array, info: Mapping[str, Any]) -> None:
        """Take one step in every episode under way."""
        expected = (self._pool.size, self._shape[1])
        if actions.shape != expected:
            raise VGFError(
                f"the policy returned actions of shape {list(actions.shape)}, "
                f"expected {list(expected)}"
            )
        slots = list(self.running)
        if not np.isfinite(actions[slots]).all():
            raise VGFError(
                f"the policy returned NaN or infinity at budget {self._label!r}: training has "
                "diverged; lower the learning rate or the step size"
            )
        self._measure(info)
        actions = np.clip(actions, -1.0, 1.0).astype(np.float32)
        over = []
        for slot, step in self._pool.step({slot: actions[slot] for slot in slots}).items():
            if self._advance(slot, step):
                over.append(slot)
        self.news = bool(over)
        self._start(over)

    def _measure(self, info: Mapping[str, Any]) -> None:
        """Measure how far the particles moved."""
        if "start" not in info or "moved" not in info:
            return
        start, moved = np.asarray(info["start"]), np.asarray(info["moved"])
        for slot, episode in self.running.items():
            before, after = start[slot].astype(np.float64), moved[slot].astype(np.float64)
            distance = float(np.mean(np.linalg.norm(after - before, axis=-1)))
            episode.displacements.append(distance)
            # Sets that did not move need no matching.
            episode.distances.append(wasserstein2(before, after) if distance > 0.0 else 0.0)

    def _advance(self, slot: int, step: Step) -> bool:
        """Book a step; whether the episode is over."""
        episode = self.running[slot]
        episode.total += step.reward
        if step.success is not None:
            episode.success = max(episode.success or 0.0, step.success)
        episode.length += 1
        self.observations[slot] = step.observation
        if not (step.terminated or step.truncated):
            return False
        del self.running[slot]
        self.records.append(
            {
                "budget": self._label,
                "episode": episode.number,
                "seed": episode.seed,
                "return": episode.total,
                "success": episode.success,
                "score": self._task.score(episode.total, episode.success),
                "length": episode.length,
                "displacement": _mean(episode.displacements),
                "w2": _mean(episode.distances),
            }
        )
        return True
