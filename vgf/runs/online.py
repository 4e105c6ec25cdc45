"""The online phase of a run: an agent acts in the environment and learns from what it collects.

Every environment step adds one transition, first to a file, then to the replay buffer. Everything
random is a pure function of the seed and of the number of the environment step or of the episode.
A run resumed from a checkpoint takes what was collected after it from the file, and makes the same
updates on the same buffer as before; it steps the environment only where the file ends. So nothing
collected is lost, and a run that was stopped, or killed, equals one that never stopped.

Where the file ends, the episode under way is restored by resetting the environment with the
episode's seed and repeating its recorded actions. If the simulator then shows observations other
than the recorded ones, the trajectory ends with its last recorded transition, with mask 1, and a
new episode starts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..backends.base import Backend, Tree
from ..benchmarks.tasks import Task
from ..data.dataset import KEYS, Dataset, batch_at
from ..data.replay import ReplayBuffer, TransitionFile
from ..data.scaling import Scaling
from ..environments.pool import EnvironmentFault, EnvironmentLost, EnvironmentPool, Step
from ..spec.types import Array
from ..support.errors import VGFError
from .agent import agent_policy
from .config import OnlineSettings, RunConfig
from .evaluation import make_pool
from .log import RunLog

TRANSITIONS = "transitions.bin"  # in the run folder
# Separate the random numbers of acting and of starting episodes from those of updates.
ACTING, EPISODES = 5, 6
_CHUNK = 65_536


def check_online(settings: OnlineSettings, task: Task) -> None:
    """Check that a task can be trained on online.

    Raises:
        VGFError: no environment.
    """
    if not settings.steps:
        return
    if task.make_env is None:
        raise VGFError(
            f"{task.name} has no environment to take {settings.steps:,} steps in; drop "
            "--online-steps"
        )


def buffer_sizes(settings: OnlineSettings, dataset: Dataset | None) -> tuple[int, int]:
    """The transitions that the replay buffer of a run holds at most, and that it is ever given.

    Source:
        The authors' main.py: data that fill the buffer have one more place.
    """
    offline = 0 if dataset is None or settings.mixing != "iql" else len(dataset)
    size = max(settings.buffer_size, offline + 1) if offline else settings.buffer_size
    added = offline + settings.steps
    return min(size, added), added


def collection_seed(seed: int, episode: int) -> int:
    """The seed of a collected episode, below 2^32; different from those of evaluation."""
    return int(np.random.SeedSequence([seed, EPISODES, episode, 1]).generate_state(1)[0])


class Collector:
    """Takes environment steps, and makes batches of the transitions; a context manager.

    Args:
        config: of the run.
        folder: of the run.
        backend: computes the agent's actions.
        task: to collect on.
        dataset: the offline data, scaled; None for mixing "scratch", and "wsrl" without them.
        scaling: of the environment's observations and rewards.
        log: of the run; every collected episode is a row in it.
        taken: environment steps of the checkpoint from which the run resumes.
        say: takes a line for the person at the terminal.

    Raises:
        VGFError: a file of transitions that is damaged, or belongs to another run; a replay buffer
        that does not fit into memory.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        backend: Backend,
        task: Task,
        dataset: Dataset | None,
        scaling: Scaling,
        log: RunLog,
        taken: int,
        say: Callable[[str], None],
    ) -> None:
        self.taken = taken
        self._config, self._backend, self._task = config, backend, task
        self._dataset, self._scaling, self._log, self._say = dataset, scaling, log, say
        agent, steps = config.agent, config.online.collect_steps
        self._budget = agent.budget
        if steps is not None:
            self._budget = dataclasses.replace(agent.budget, steps=steps)
        self._particles = agent.particles if agent.transports else 1
        sizes = task.observation_dim, task.action_dim
        starts_with = dataset if config.online.mixing == "iql" else None
        self._buffer = ReplayBuffer(buffer_sizes(config.online, dataset)[0], *sizes)
        if starts_with is not None:
            self._buffer.add({key: getattr(starts_with, key) for key in KEYS})
        self._file = TransitionFile(folder / TRANSITIONS, *sizes, at_least=taken)
        self._episode = 0
        self._rows: list[Array] = []  # of the episode under way
        for start in range(0, taken, _CHUNK):
            self._restore(self._file.read(start, min(start + _CHUNK, taken)))
        ahead = len(self._file) - taken
        if ahead:
            say(f"{ahead:,} transitions collected after that checkpoint are kept")
        evaluation = config.evaluation
        workers = min(1, evaluation.workers or 0)
        self._retries = evaluation.retries
        self._pool: EnvironmentPool = make_pool(task, 1, 1, workers, evaluation.step_timeout)
        self._observation: Array | None = None  # None where the environment must be reset

    def _restore(self, rows: Array) -> None:
        """Take the rows from before the checkpoint."""
        self._buffer.add(self._scaled(rows))
        ends = np.flatnonzero(rows["terminals"])
        if len(ends):
            self._rows, rows = [], rows[ends[-1] + 1 :]
        self._episode += len(ends)
        self._rows += list(rows)

    def step(self, state: Tree, step: int) -> None:
        """One environment step: the recorded one, or a new one.

        Args:
            state: of the agent that acts.
            step: its updates.

        Raises:
            VGFError: actions that are not finite, or a file that cannot be written.
        """
        if self.taken < len(self._file):
            row = self._file.read(self.taken, self.taken + 1)[0]
        else:
            row = self._collect(state, step)
        self.taken += 1
        self._buffer.add(self._scaled(row[None]))
        self._rows.append(row)
        if row["terminals"]:
            self._end(step)

    def batch(self, step: int, size: int) -> dict[str, Array]:
        """The batch of one update: a pure function of the seed, its number and the buffer.

        Args:
            step: of the update.
            size: B.
        """
        seed = self._config.seed
        if self._config.online.mixing != "rlpd" or self._dataset is None:
            return self._buffer.batch(seed, step, size)
        offline = batch_at(self._dataset, seed, step, size // 2)
        online = self._buffer.batch(seed, step, size - size // 2)
        return {key: np.concatenate([offline[key], online[key]]) for key in online}

    def sync(self) -> None:
        """Wait until everything collected is on disk."""
        self._file.sync()

    def _collect(self, state: Tree, step: int) -> Array:
        """A new transition; where the environment is lost, from a fresh one."""
        for tries in range(1, self._retries + 2):
            try:
                if self._observation is None:
                    self._observation = self._enter(step)
                return self._act(state, self._observation)
            except EnvironmentLost as lost:
                self._observation = None
                reason = f"{lost.reason}{f' in each of {tries} tries' if tries > 1 else ''}"
        raise EnvironmentFault(0, reason, self._where())

    def _asked(self, call: Callable[[], dict[int, Any]]) -> Any:
        """The environment's answer.

        Raises:
            EnvironmentFault: it raised, or returned what it must not.
            EnvironmentLost: its process was replaced.
        """
        try:
            return call()[0]
        except EnvironmentLost:
            raise
        except EnvironmentFault as fault:
            raise EnvironmentFault(0, fault.reason, self._where()) from fault

    def _stepped(self, action: Array) -> Step:
        answer: Step = self._asked(lambda: self._pool.step({0: action}))
        return answer

    def _where(self) -> str:
        """The step that is being taken, in words."""
        at = f"step {len(self._rows) + 1}" if self._observation is not None else "the start"
        return (
            f"{self._task.name}: {at} of collected episode {self._episode} (environment step "
            f"{self.taken + 1:,}, seed {self._seed()})"
        )

    def _enter(self, step: int) -> Array:
        """Reset the environment to where the record ends; returns its observation."""
        observation = self._reset()
        for row in self._rows:
            if not np.array_equal(observation, row["observations"]):
                break
            observation = self._stepped(row["actions"]).observation
        if not self._rows or np.array_equal(observation, self._rows[-1]["next_observations"]):
            return observation
        self._say(
            f"the simulator does not repeat episode {self._episode}: it ends with its "
            f"{len(self._rows):,} recorded transitions, and a new one starts"
        )
        self._file.end_trajectory()
        self._buffer.end_trajectory()
        self._end(step)
        return self._reset()

    def _reset(self) -> Array:
        return np.array(self._asked(lambda: self._pool.reset({0: self._seed()})))

    def _seed(self) -> int:
        return collection_seed(self._config.seed, self._episode)

    def _act(self, state: Tree, observation: Array) -> Array:
        """Take a step with the agent and record it; returns its row."""
        rng = np.random.default_rng([self._config.seed, ACTING, self.taken])
        online = self._config.online
        if online.acts_randomly and self.taken <= online.warmup_steps:
            return self._take(observation, rng.uniform(-1.0, 1.0, self._task.action_dim))
        noise = {
            "particles": rng.standard_normal((1, self._particles, self._task.action_dim)),
            "select": rng.random(1),
        }
        policy = agent_policy(
            self._backend, state, self._config.agent, self._scaling, self._particles
        )
        action = policy(observation[None], self._budget, noise)[0][0]
        if not np.isfinite(action).all():
            raise VGFError(
                f"the agent's action at environment step {self.taken + 1:,} has NaN or infinity: "
                "training has diverged; lower the learning rate or the step size"
            )
        return self._take(observation, action)

    def _take(self, observation: Array, action: Array) -> Array:
        """Take a step with an action and record it; returns its row."""
        action = np.clip(action, -1.0, 1.0).astype(np.float32)
        step = self._stepped(action)
        over = step.terminated or step.truncated
        self._observation = None if over else step.observation.copy()
        return self._file.append(
            {
                "observations": observation,
                "actions": action,
                "rewards": step.reward,
                "masks": not step.terminated,
                "terminals": over,
                "next_observations": step.observation,
                "success": np.nan if step.success is None else step.success,
            }
        )

    def _scaled(self, rows: Array) -> dict[str, Any]:
        """Rows of the file as the networks see them."""
        fields = {key: rows[key] for key in KEYS}
        return fields | {
            "observations": self._scaling(fields["observations"]),
            "next_observations": self._scaling(fields["next_observations"]),
            "rewards": self._scaling.rewards(fields["rewards"]),
        }

    def _end(self, step: int) -> None:
        """Log the episode whose last transition was taken."""
        successes = [float(row["success"]) for row in self._rows]
        success = None if np.isnan(successes).all() else float(np.nanmax(successes))
        total = sum(float(row["rewards"]) for row in self._rows)
        self._log.episode(
            step,
            {
                "environment_steps": self.taken,
                "episode": self._episode,
                "seed": self._seed(),
                "return": total,
                "success": success,
                "score": self._task.score(total, success),
                "length": len(self._rows),
            },
        )
        self._episode += 1
        self._rows = []

    def close(self) -> None:
        """Close the file and the environment."""
        self._pool.close()
        self._file.close()

    def __enter__(self) -> Collector:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
