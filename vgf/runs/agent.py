"""An agent that acts: on any backend, out of a run folder, evaluated; it needs no trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import default_backend, get_backend
from ..backends.base import Backend, Tree
from ..benchmarks.tasks import Task
from ..data.scaling import Scaling
from ..environments.pool import EnvironmentPool
from ..spec.settings import Budget, Settings
from ..spec.types import Array
from ..support.errors import VGFError
from ..support.processes import usable_cores
from ..support.progress import progress
from .checkpoint import (
    CheckpointMeta,
    check_checkpoint,
    check_settings,
    checkpoint_path,
    load_checkpoint,
)
from .config import BackendSettings, EvaluationSettings, RunConfig
from .evaluation import Evaluation, Policy, evaluate
from .folder import CONFIG, open_run_folder

BEHAVIOUR_CLONING = "bc"
# What a checkpoint stores besides the agent.
_EXTRA = {
    "scaling": dict,
    "transitions": int,
    "environment_steps": int,
    "evaluation_due": bool,
    "observation_dim": int,
    "action_dim": int,
}
_MOST = 1_000_000  # numbers of an observation or action


def make_backend(settings: BackendSettings, training: bool = True) -> Backend:
    """The backend that a run requests; in training, compiled unless `eager`.

    Raises:
        BackendError: as :func:`vgf.backends.get_backend`.
    """
    name = settings.name or default_backend()
    options: dict[str, Any] = {}
    if name == "torch":
        options["compile"] = training and not settings.eager
    elif name == "jax":
        options["jit"] = not settings.eager
        options["cores"] = usable_cores() if training else 1
    return get_backend(
        settings.name,
        device=settings.device,
        dtype=settings.dtype,
        matmul_precision=settings.matmul_precision,
        **options,
    )


def load_agent(
    folder: Path, backend: Backend, step: int | None = None
) -> tuple[Tree, Scaling, RunConfig, int]:
    """An agent out of a run folder, on any backend.

    Returns:
        Its state, the scaling of its observations, the run's configuration, and its updates.

    Raises:
        VGFError: as :func:`vgf.runs.checkpoint.load_checkpoint`, or a checkpoint that does not fit
            the folder's configuration.
    """
    config = open_run_folder(folder)
    tree, meta = load_checkpoint(folder, step)
    check_agent_checkpoint(folder, meta)
    sizes = meta.extra["observation_dim"], meta.extra["action_dim"]
    try:
        expected = backend.to_numpy(backend.init_state(0, *sizes, config.agent))
    except (MemoryError, ValueError) as error:
        raise VGFError(
            f"{folder / CONFIG}: an agent of these settings cannot be made: {error}"
        ) from error
    check_checkpoint(meta, tree, expected, config.task.env)
    check_settings(folder, config, meta)
    return backend.asarray(tree), Scaling.from_json(meta.extra["scaling"]), config, meta.step


def check_agent_checkpoint(folder: Path, meta: CheckpointMeta) -> None:
    """Check that a checkpoint is an agent's.

    Raises:
        VGFError: what is stored besides an agent is missing or damaged.
    """
    place, extra = checkpoint_path(folder, meta.step), meta.extra
    missing = [key for key in _EXTRA if key not in extra]
    if missing:
        raise VGFError(f"{place} is not the checkpoint of an agent: it lacks {', '.join(missing)}")
    for key, kind in _EXTRA.items():
        if type(extra[key]) is not kind or (kind is int and extra[key] < 0):
            raise VGFError(f"{place}: its {key} is {extra[key]!r}; it is damaged")
    try:
        scaling = Scaling.from_json(extra["scaling"])
    except ValueError as error:
        raise VGFError(f"{place}: {error}") from error
    if not 0 < extra["observation_dim"] < _MOST or not 0 < extra["action_dim"] < _MOST:
        raise VGFError(f"{place}: its sizes are out of range; it is damaged")
    if scaling.mean is not None and len(scaling.mean) != extra["observation_dim"]:
        raise VGFError(f"{place}: its scaling is of other observations; it is damaged")


def agent_policy(
    backend: Backend, state: Tree, agent: Settings, scaling: Scaling, particles: int
) -> Policy[Budget]:
    """An agent as a policy for :func:`vgf.runs.evaluation.evaluate`.

    Args:
        backend, state: the agent.
        agent: its settings.
        scaling: of its observations.
        particles: N; the policy uses this many rows of the noise it is given.
    """
    answer = backend.policy(state, agent)

    def policy(
        observations: Array, budget: Budget, noise: Mapping[str, Array]
    ) -> tuple[Array, Mapping[str, Any]]:
        chosen = {"particles": noise["particles"][:, :particles], "select": noise["select"]}
        return answer(scaling(observations), budget, chosen)

    return policy


def test_budgets(agent: Settings, steps: tuple[int, ...]) -> dict[str, Budget]:
    """The budgets at which an agent is evaluated, by their labels.

    One sample of behaviour cloning ("bc") comes first, then each L_test with the training
    budget's other settings; L_test = 0 is best-of-N. A method that moves no particles has one
    sample of its policy alone, under the method's name.
    """
    if not agent.transports:
        return {agent.method: agent.budget}
    budgets = {BEHAVIOUR_CLONING: dataclasses.replace(agent.budget, steps=0)}
    return budgets | {str(n): dataclasses.replace(agent.budget, steps=n) for n in steps}


def evaluate_agent(
    backend: Backend,
    state: Tree,
    agent: Settings,
    task: Task,
    scaling: Scaling,
    settings: EvaluationSettings,
    seed: int,
    pool: EnvironmentPool,
    before_step: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Evaluate an agent at its test budgets: the same start states and noise for each.

    Args:
        backend, state: the agent.
        agent: its settings.
        task: whose environments `pool` holds.
        scaling: of its observations.
        settings: budgets, episodes and particles.
        seed: of the episodes.
        pool: of environments of the task.
        before_step: called before every step; an exception ends the evaluation.
    """
    particles = settings.particles or agent.particles
    budgets = test_budgets(agent, settings.steps)
    several = agent_policy(backend, state, agent, scaling, particles)
    single = agent_policy(backend, state, agent, scaling, 1)

    def policy(
        observations: np.ndarray, budget: str, noise: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, Mapping[str, Any]]:
        before_step()
        return (several if budget.isdigit() else single)(observations, budgets[budget], noise)

    shown = 0
    with progress(settings.episodes * len(budgets), "evaluating", "episode") as bar:

        def advance(_: str, done: int, __: int) -> None:
            nonlocal shown
            bar.update(done - shown)
            shown = done

        found = evaluate(
            policy,
            task,
            {label: label for label in budgets},
            particles=particles,
            episodes=settings.episodes,
            seed=seed,
            retries=settings.retries,
            pool=pool,
            progress=advance,
        )
    for record in found.records:
        if record["budget"].isdigit():
            record["budget"] = int(record["budget"])  # type: ignore[typeddict-item]
    return found
