"""Evaluation, ours and other people's, as a worker starts it.

One run is a number of episodes at every test budget. Runs in the Python that the code to be timed
needs: imports the standard library and NumPy, and what is timed when it is started. Nothing
of other people's is here: their agent and their evaluation come from a checkout.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import os
import sys
from typing import Any

import numpy as np

STEPS = (0, 1, 2, 3)  # the test budgets, of the authors' main.py
OURS = "ours"


@dataclasses.dataclass(frozen=True)
class Cut:
    """Makes an environment whose episodes end after `decisions` decisions; picklable."""

    make_env: Any
    decisions: int | None

    def __call__(self, seed: int | None = None) -> Any:
        import gymnasium

        env = self.make_env(seed)
        if self.decisions is None:
            return env
        return gymnasium.wrappers.TimeLimit(env, self.decisions)


class Ours:
    """Our evaluation of a new agent.

    Args:
        task: the name of one of OGBench's single tasks.
        depth, width: of every network.
        particles: N.
        sampling_steps: K.
        decisions: after which an episode is cut; None for the benchmark's limit.
        backend: "numpy", "torch" or "jax".
        num_envs, workers: as :func:`vgf.runs.evaluation.make_pool` takes them; None for its
            defaults.
    """

    def __init__(
        self,
        task: str,
        depth: int = 4,
        width: int = 512,
        particles: int = 10,
        sampling_steps: int = 10,
        decisions: int | None = None,
        backend: str = "jax",
        num_envs: int | None = None,
        workers: int | None = None,
    ) -> None:
        from vgf.benchmarks.tasks import make_task
        from vgf.data.scaling import Scaling
        from vgf.runs.agent import agent_policy, make_backend
        from vgf.runs.config import BackendSettings
        from vgf.spec.settings import Network, Settings

        found = make_task(task, with_dataset=False)
        self.task = dataclasses.replace(found, make_env=Cut(found.make_env, decisions))
        hidden = (width,) * depth
        agent = Settings(
            critic=Network(hidden, layer_norm=True),
            reference=Network(hidden),
            particles=particles,
            sampling_steps=sampling_steps,
        )
        self.backend = make_backend(BackendSettings(backend), training=False)
        sizes = self.task.observation_dim, self.task.action_dim
        state = self.backend.init_state(0, *sizes, agent)
        self.budgets = {str(n): dataclasses.replace(agent.budget, steps=n) for n in STEPS}
        plain = Scaling(None, None)
        self.policy = agent_policy(self.backend, state, agent, plain, particles)
        self.particles = particles
        self.num_envs, self.workers = num_envs, workers
        self.pool: Any = None
        self.taken = 0

    def run(self, count: int) -> None:
        """Run `count` episodes at every test budget; the first run makes the environments."""
        from vgf.runs.evaluation import evaluate, make_pool

        if self.pool is None:
            self.pool = make_pool(self.task, count, self.num_envs, self.workers)
        found = evaluate(
            self.policy,
            self.task,
            self.budgets,
            particles=self.particles,
            episodes=count,
            pool=self.pool,
        )
        self.taken += sum(record["length"] for record in found.records)

    def describe(self) -> dict[str, Any]:
        """Where it runs, the sizes of its task, and the environment steps taken so far."""
        sizes = {"observation_dim": self.task.observation_dim, "action_dim": self.task.action_dim}
        return {"device": self.backend.device, "taken": self.taken, **sizes}

    def device_memory(self) -> None:
        """Not measured."""


class Theirs:
    """The evaluation of a checkout of ryanxhr/vgf or of seohongpark/fql, of a new agent.

    Args:
        checkout: where it lies.
        task, depth, width, particles, sampling_steps, decisions: as :class:`Ours`; FQL has no
            particles, and one test budget, whose episodes are as many as those of ours together.
    """

    def __init__(
        self,
        checkout: str,
        task: str,
        depth: int = 4,
        width: int = 512,
        particles: int = 10,
        sampling_steps: int = 10,
        decisions: int | None = None,
    ) -> None:
        import ogbench

        sys.path.insert(0, os.path.abspath(checkout))
        is_vgf = os.path.exists(os.path.join(checkout, "agents", "vgf.py"))
        theirs = importlib.import_module("agents.vgf" if is_vgf else "agents.fql")
        self.evaluation = importlib.import_module("utils.evaluation")
        config = theirs.get_config()
        hidden = (width,) * depth
        sizes: dict[str, Any] = {"value_hidden_dims": hidden, "actor_hidden_dims": hidden}
        if is_vgf:
            sizes |= {"bc_flow_steps": sampling_steps, "vgf_particles": particles}
        else:
            sizes |= {"flow_steps": sampling_steps}
        for name, value in sizes.items():
            if name not in config:
                raise KeyError(f"{checkout} has no setting {name}")
            config[name] = value
        self.env = Cut(lambda _: ogbench.make_env_and_datasets(task, env_only=True), decisions)()
        observation, _ = self.env.reset()
        examples = (
            np.zeros((1, *observation.shape), np.float32),
            np.zeros((1, *self.env.action_space.shape), np.float32),
        )
        agent = theirs.VGFAgent if is_vgf else theirs.FQLAgent
        self.agent = agent.create(0, *examples, config)
        self.is_vgf, self.taken = is_vgf, 0
        self.env = _Counted(self.env, self)

    def run(self, count: int) -> None:
        """Run `count` episodes at every test budget."""
        with contextlib.redirect_stderr(io.StringIO()):  # their progress bar
            if self.is_vgf:
                self.evaluation.evaluate_vgf_multiple(
                    self.agent, self.env, list(STEPS), num_eval_episodes=count
                )
            else:
                self.evaluation.evaluate(self.agent, self.env, num_eval_episodes=count * len(STEPS))

    def describe(self) -> dict[str, Any]:
        """Where it runs, and the environment steps taken so far."""
        return {"device": sys.modules["jax"].devices()[0].platform, "taken": self.taken}

    def device_memory(self) -> None:
        """Not measured."""


class _Counted:
    """An environment whose steps are counted."""

    def __init__(self, env: Any, owner: Theirs) -> None:
        self._env, self._owner = env, owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def step(self, action: Any) -> Any:
        """As the environment does."""
        self._owner.taken += 1
        return self._env.step(action)


def start(side: str, **options: Any) -> Ours | Theirs:
    """What a worker starts.

    Args:
        side: "ours", or the path of a checkout.
        options: of :class:`Ours` or :class:`Theirs`.
    """
    return Ours(**options) if side == OURS else Theirs(side, **options)
