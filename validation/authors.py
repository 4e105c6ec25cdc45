"""Our code beside that of the authors and of FQL, executed: what is compared, and how far apart.

    python -m validation.authors --checkout ryanxhr/vgf=PATH --checkout seohongpark/fql=PATH
    python -m validation.authors ... --checkout Farama-Foundation/D4RL=PATH   # D4RL's own loader
    python -m validation.authors --redraw

Each agent's rows are kept in the folder that VGF_VALIDATION_RUNS names (runs/authors): a run that
was stopped goes on there.
Theirs runs from the checkouts, and nothing of it is here; it needs jax, flax, optax, distrax and
ml_collections. The random numbers that theirs draws are recorded while it runs and given to ours,
the specification in NumPy. Both compute in float64, from the same parameters.

Each row is one thing compared: the largest difference found, and what it may be at most. D4RL's
package, gym and wandb are replaced by stand-ins of a few lines where theirs imports them: they read
the same files. Without a checkout of D4RL the loading of its files is not compared.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import importlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import vgf.spec
from vgf.backends import get_backend
from vgf.benchmarks import read_raw
from vgf.benchmarks.ogbench_oracles import generate_ogbench
from vgf.benchmarks.tasks import Task, make_task, success
from vgf.data import to_dataset
from vgf.data.dataset import Dataset, check_dataset
from vgf.data.replay import ReplayBuffer
from vgf.runs.config import (
    BackendSettings,
    EvaluationSettings,
    OnlineSettings,
    RunConfig,
    TaskSettings,
    TrainSettings,
)
from vgf.runs.evaluation import episode_seed, evaluate
from vgf.runs.folder import git_revision
from vgf.runs.loop import train
from vgf.runs.presets import presets
from vgf.runs.resolve import resolve
from vgf.spec.methods.base import Draw
from vgf.spec.settings import Budget, Network, Settings, method_settings
from vgf.support.errors import VGFError
from vgf.support.extras import need
from vgf.support.settings_tree import short_hash, to_dict

from .experiment import (
    Data,
    Experiment,
    Verdict,
    add_arguments,
    command_line,
    exit_status,
    holds,
    run_one,
)
from .pages import Table
from .record import RUNS, write

VGF, FQL, D4RL = "ryanxhr/vgf", "seohongpark/fql", "Farama-Foundation/D4RL"
EXACT = 0.0
# What updates may differ by, relative to the largest number of each array: rounding, and for VGF
# the cancellation in their squared distances, which they take from a Gram matrix.
UPDATES = 1e-12
UNGUARDED = 1e-9  # ours without the 1e-6 in their kernel's denominator
STATES, ACTIONS = 4, 3  # sizes of what updates are compared on


@dataclass(frozen=True)
class Setup:
    """What is compared.

    Args:
        updates: of each agent.
        width, depth: of its networks.
        batch: rows of an update.
        steps: the largest test budget.
        episodes: of each generated data set.
        maze_episodes, maze_updates, maze_batch: of the agents whose evaluations are compared.
        maze_acted: episodes of each evaluation.
    """

    updates: int = 100
    width: int = 16
    depth: int = 2
    batch: int = 16
    steps: int = 5
    episodes: int = 2
    maze_episodes: int = 100
    maze_updates: int = 1500
    maze_batch: int = 128
    maze_acted: int = 5


# --- running theirs -----------------------------------------------------------------------------


@contextlib.contextmanager
def modules_of(root: str, stand_ins: Mapping[str, types.ModuleType] | None = None) -> Iterator[Any]:
    """Import from a checkout, and forget its modules afterwards.

    Args:
        root: the checkout.
        stand_ins: modules that it finds instead of those installed.
    """
    before = dict(sys.modules)
    sys.path.insert(0, root)
    sys.modules.update(stand_ins or {})
    try:
        yield importlib.import_module
    except ImportError as error:
        raise VGFError(f"{root} cannot be imported: {error}; install what it needs") from error
    finally:
        sys.path.remove(root)
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", "")).startswith(root) or name in (stand_ins or {}):
                del sys.modules[name]
                if name in before:
                    sys.modules[name] = before[name]


class Recorded:
    """What jax.random draws meanwhile, in the order of execution; a context manager."""

    def __init__(self) -> None:
        self._found: list[np.ndarray] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Recorded:
        jax = need("jax", "jax")
        for name in ("normal", "uniform"):
            real = getattr(jax.random, name)

            def draw(*args: Any, _real: Any = real, **named: Any) -> Any:
                value = _real(*args, **named)
                jax.debug.callback(lambda x: self._found.append(np.array(x)), value, ordered=True)
                return value

            self._stack.enter_context(mock.patch.object(jax.random, name, draw))
        return self

    def __exit__(self, *_: Any) -> None:
        self._stack.close()

    def take(self) -> list[np.ndarray]:
        """What was drawn since the last call."""
        need("jax", "jax").effects_barrier()
        found, self._found[:] = list(self._found), []
        return found


def config_of(settings: Any, given: Any) -> Any:
    """Their configuration of an agent with our settings; sizes of networks too."""
    losses = {"squared": "td", "expectile": "iql-q", "sparse": "sql-q"}
    actors = settings.actor_learning_rate
    alpha = settings.sparse_alpha if settings.critic_loss == "sparse" else None
    expectile = settings.expectile if alpha is None else alpha  # theirs has one number for both
    if settings.method == "fql":
        given.update(
            lr=settings.learning_rate,
            q_agg=settings.target_ensemble,
            alpha=settings.distillation,
            flow_steps=settings.sampling_steps,
            normalize_q_loss=settings.normalise_values,
        )
    else:
        given.update(
            value_lr=settings.learning_rate,
            actor_lr=settings.learning_rate if actors is None else actors,
            critic_loss=losses[settings.critic_loss],
            expectile=expectile,
            train_q_agg=settings.target_ensemble,
            vgf_q_agg=settings.value_ensemble,
            bc_policy_type={"flow": "flow", "gaussian": "gau"}[settings.reference_kind],
            bc_flow_steps=settings.sampling_steps,
            vgf_particles=settings.particles,
            train_particle_select=settings.target_particles,
            train_vgf_steps=settings.budget.steps,
            vgf_lr=settings.budget.step_size,
        )
        if settings.method == "avgf":
            given.update(q_grad_norm=settings.normalise_gradients)
        if settings.budget.temperature is not None:
            given.update(vgf_alpha=settings.budget.temperature)
    given.update(
        value_hidden_dims=settings.critic.hidden,
        actor_hidden_dims=settings.reference.hidden,
        discount=settings.discount,
        tau=settings.polyak,
    )
    return given


NAMES = {"actor_bc": "reference", "q_grad": "gradient_field", "critic": "critic"}
FQL_NAMES = {
    "modules_critic": "critic",
    "modules_target_critic": "target_critic",
    "modules_actor_bc_flow": "reference",
    "modules_actor_onestep_flow": "policy",
}


def layers_of(tree: Any) -> Any:
    """The dict of Dense and LayerNorm layers inside a network of theirs."""
    while "Dense_0" not in tree:
        (tree,) = (tree[key] for key in tree)
    return tree


def network_of(theirs: Any, network: Network) -> dict[str, Any]:
    """A network of theirs, or its optimiser's moments, under our names."""
    if "mean_net" in theirs:  # the Gaussian
        theirs = dict(theirs)
        inner = dict(layers_of(theirs["actor_net"]))
        inner[f"Dense_{len(network.hidden)}"] = theirs["mean_net"]
        given = {"log_std": np.array(theirs["log_stds"])}
        return network_of(inner, network) | given
    layers = layers_of(theirs)
    dense = sorted((n for n in layers if n.startswith("Dense_")), key=lambda n: int(n[6:]))
    norm = {"before": "norm", "after": "post"}.get(str(network.layer_norm))
    found: dict[str, Any] = {}
    for i, name in enumerate(dense):
        ours = "output" if name == dense[-1] else f"hidden_{i}"
        found[ours] = {key: np.array(layers[name][key]) for key in ("kernel", "bias")}
        if norm and ours != "output":
            scales = layers[f"LayerNorm_{i}"]
            found[ours] |= {
                f"{norm}_scale": np.array(scales["scale"]),
                f"{norm}_offset": np.array(scales["bias"]),
            }
    return found


def moments_of(state: Any) -> Any:
    """Adam's state inside an optimiser of theirs."""
    if hasattr(state, "mu"):
        return state
    return (
        next(found for part in state if (found := moments_of(part)) is not None)
        if (isinstance(state, tuple) and state)
        else None
    )


def state_of(agent: Any, settings: Settings) -> dict[str, Any]:
    """The state of an agent of theirs, under our names."""
    networks = {name: getattr(settings, name) for name in settings.networks}
    found: dict[str, Any] = {"optimiser": {}}
    if settings.method == "fql":
        trees = agent.network.params
        for theirs, ours in FQL_NAMES.items():
            found[ours] = network_of(trees[theirs], networks.get(ours, settings.critic))
        adam = moments_of(agent.network.opt_state)
        parts = {ours: theirs for theirs, ours in FQL_NAMES.items() if ours in networks}
        moments = {ours: (adam.count, adam.mu[t], adam.nu[t]) for ours, t in parts.items()}
    else:
        held = {ours: getattr(agent, t) for t, ours in NAMES.items() if ours in networks}
        found |= {ours: network_of(t.params, networks[ours]) for ours, t in held.items()}
        found["target_critic"] = network_of(agent.target_critic.params, settings.critic)
        moments = {}
        for ours, theirs in held.items():
            adam = moments_of(theirs.opt_state)
            moments[ours] = (adam.count, adam.mu, adam.nu)
    for ours, (count, mean, square) in moments.items():
        found["optimiser"][ours] = {
            "count": np.array(count),
            "m": network_of(mean, networks[ours]),
            "v": network_of(square, networks[ours]),
        }
    return found


def noise_of(drawn: list[np.ndarray], settings: Settings, rows: int) -> dict[str, np.ndarray]:
    """The draws of one update of theirs, under our names: the particles' first, as they are drawn.

    FQL's last draw is for a number that it logs.
    """
    wanted: Mapping[str, Draw] = vgf.spec.update_draws(rows, ACTIONS, settings)
    order = [drawn[i].reshape(shape) for i, (_, shape) in enumerate(wanted.values())]
    return dict(zip(wanted, order, strict=True))


def batch_of(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Made-up transitions, some of them at the end of a task."""
    return {
        "observations": rng.standard_normal((rows, STATES)),
        "actions": rng.uniform(-1, 1, (rows, ACTIONS)),
        "rewards": rng.standard_normal(rows),
        "masks": (rng.random(rows) > 0.2).astype(float),
        "next_observations": rng.standard_normal((rows, STATES)),
    }


def largest(ours: Any, theirs: Any) -> float:
    """The largest difference between two trees, relative to the largest number of each array."""
    if isinstance(theirs, Mapping):
        if set(theirs) - set(ours):
            raise VGFError(f"ours lacks {sorted(set(theirs) - set(ours))}")
        return max(largest(ours[key], theirs[key]) for key in theirs)
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape or not np.isfinite(theirs).all():
        return float("inf")
    scale = float(np.abs(theirs).max(initial=0.0))
    return float(np.abs(ours - theirs).max(initial=0.0)) / (scale or 1.0)


def small(settings: Any, setup: Setup) -> Settings:
    """An agent's settings with small networks."""
    sizes = {
        entry.name: replace(getattr(settings, entry.name), hidden=(setup.width,) * setup.depth)
        for entry in dataclasses.fields(settings)
        if isinstance(getattr(settings, entry.name), Network)
    }
    found: Settings = replace(settings, **sizes)
    return found


def made(
    root: str, settings: Settings, recorded: Recorded, sizes: tuple[int, int] = (STATES, ACTIONS)
) -> Any:
    """An agent of theirs with our settings, in float64."""
    jax = need("jax", "jax")
    module, name = {
        "vgf": ("agents.vgf", "VGFAgent"),
        "avgf": ("agents.a_vgf", "AVGFAgent"),
        "fql": ("agents.fql", "FQLAgent"),
    }[settings.method]
    with modules_of(root) as load:
        theirs = load(module)
    config = config_of(settings, theirs.get_config())
    agent = getattr(theirs, name).create(0, *(np.zeros((1, n)) for n in sizes), config)
    recorded.take()

    def wide(x: Any) -> Any:
        return x.astype(np.float64) if hasattr(x, "dtype") and x.dtype == np.float32 else x

    return jax.tree_util.tree_map(wide, agent)


def kernel_from_differences(x: Any, y: Any) -> Any:
    """Their `rbf_kernel`, but that squared distances are sums of squared differences, as in ours.

    Theirs takes them from a Gram matrix, ||x||^2 + ||y||^2 - 2 x.y, which rounds otherwise. Where
    two particles were clipped to the same point, two pairs tie for the median; which of them is
    differentiated is then a matter of that rounding, and the particles move differently.
    """
    jnp = need("jax", "jax").numpy
    distances = jnp.sum((x[:, :, None] - y[:, None]) ** 2, axis=-1)
    median = jnp.median(distances, axis=(1, 2), keepdims=True)
    sigma_squared = jnp.maximum(median / (2 * jnp.log(x.shape[1] + 1.0)), 1e-12)
    gamma = 1 / (1e-6 + 2 * sigma_squared)
    return jnp.exp(-gamma * distances), distances, 2 * gamma


def compare_updates(
    root: str, settings: Settings, setup: Setup, from_differences: bool = False
) -> tuple[float, float, Any, Any]:
    """Updates of theirs and of ours: the largest difference of the states, and at the start.

    Args:
        root: their checkout.
        settings: of the agent.
        setup: how many.
        from_differences: theirs with :func:`kernel_from_differences`.
    """
    settings = small(settings, setup)
    with Recorded() as recorded, contextlib.ExitStack() as stack:
        agent = made(root, settings, recorded)
        if from_differences:
            scope = type(agent).update.__wrapped__.__globals__
            stack.enter_context(mock.patch.dict(scope, {"rbf_kernel": kernel_from_differences}))
        state = vgf.spec.init_state(0, STATES, ACTIONS, settings)
        start = state_of(agent, settings)
        state = {**state, **start}
        rng = np.random.default_rng(0)
        for _ in range(setup.updates):
            batch = batch_of(rng, setup.batch)
            agent, _ = agent.update(batch)
            noise = noise_of(recorded.take(), settings, setup.batch)
            state, _ = vgf.spec.update(state, batch, settings, noise)
        end = state_of(agent, settings)
        moved = largest(start["critic"], end["critic"])
        actions = compare_actions(agent, {**state, **end}, settings, setup, recorded)
    return largest(state, end), moved, actions, settings


def compare_actions(
    agent: Any, state: Any, settings: Settings, setup: Setup, recorded: Recorded
) -> list[float]:
    """Actions at L = 0, 1, ... in a few states, from the same parameters: their differences.

    A pick between two particles of nearly the same value may differ.
    """
    jax = need("jax", "jax")
    rng = np.random.default_rng(1)
    found = []
    budgets = range(setup.steps + 1) if settings.transports else [0]
    for steps in budgets:
        worst = 0.0
        for i in range(4):
            s = rng.standard_normal(STATES)
            options = {"eval_vgf_steps": steps} if settings.transports else {}
            with jax.disable_jit():  # each L would be compiled
                theirs = np.asarray(agent.sample_actions(s, seed=jax.random.PRNGKey(i), **options))
            drawn = recorded.take()[0].reshape(1, -1, ACTIONS)
            budget = replace(settings.budget, steps=steps)
            noise = {"particles": drawn, "select": np.zeros(1)}
            ours, _ = vgf.spec.act(state, s[None], budget, settings, noise=noise)
            worst = max(worst, float(np.abs(ours[0] - theirs).max()))
        found.append(worst)
    return found


# --- rows ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One thing compared.

    Args:
        kind: "updates", "distances", "actions", "episodes", "data" or "online".
        what: in words.
        difference: the largest; None where it could not be compared, and `note` says why.
        bound: what it may be at most.
        note: what else there is to say.
    """

    kind: str
    what: str
    difference: float | None
    bound: float
    note: str = ""


def update_rows(setup: Setup, checkouts: Mapping[str, str]) -> Iterator[Row]:
    """Updates and actions of every distinct agent among the presets, of variants, and of FQL."""
    if VGF in checkouts:
        for what, settings in agents().items():
            yield from rows_of(checkouts[VGF], what, settings, setup)
    if FQL in checkouts:
        for what, change in (
            ("FQL", {}),
            ("FQL, min, normalised values", {"target_ensemble": "min", "normalise_values": True}),
        ):
            yield from rows_of(checkouts[FQL], what, method_settings("fql", **change), setup)


def rows_of(root: str, what: str, settings: Settings, setup: Setup) -> list[Row]:
    """The rows of one agent; those of a run that was stopped, at these revisions, are kept."""
    of = [what, to_dict(settings), dataclasses.asdict(setup), revision(root), git_revision()]
    folder = Path(os.environ.get(RUNS, Path("runs") / "authors"))
    place = folder / f"{short_hash(dict(enumerate(of)))}.json"
    if not place.exists():
        rows = [dataclasses.asdict(row) for row in compared(root, what, settings, setup)]
        write(place, json.dumps(rows))
    return [Row(**row) for row in json.loads(place.read_text(encoding="utf-8"))]


def compared(root: str, what: str, settings: Settings, setup: Setup) -> Iterator[Row]:
    """The rows of one agent, run."""
    found, moved, actions, settings = compare_updates(root, settings, setup)
    note = f"the critic's parameters changed by {moved:.2g} of their size"
    guarded = settings.method != "vgf" or settings.budget.kernel_guard > 0
    yield Row("updates", what, found, UPDATES if guarded else UNGUARDED, note)
    if settings.method == "vgf" and guarded and found > UPDATES:
        again, *_ = compare_updates(root, settings, setup, from_differences=True)
        yield Row("distances", what, again, UPDATES, f"with their Gram matrix {found:.2g}")
    shown = ", ".join(f"L = {i}: {worst:.1e}" for i, worst in enumerate(actions))
    yield Row("actions", what, max(actions), ACTION_BOUND, shown)


ACTION_BOUND = 1e-9


def agents() -> dict[str, Settings]:
    """The distinct agents of the presets, and what their code can do besides, in words."""
    found: dict[str, Settings] = {}
    counts: dict[Settings, int] = {}
    for name in presets():
        agent = resolve({"preset": name}).agent
        counts[agent] = counts.get(agent, 0) + 1
    for agent, count in counts.items():
        budget = agent.budget
        alpha = "" if budget.temperature is None else f", alpha {budget.temperature:g}"
        words = (
            f"{agent.method}, L {budget.steps}, epsilon {budget.step_size:g}{alpha}, N "
            f"{agent.particles}, {agent.target_ensemble}, discount {agent.discount:g} "
            f"({count} presets)"
        )
        found[words] = agent
    vgf_agent = next(agent for agent in counts if agent.method == "vgf")
    avgf = next(agent for agent in counts if agent.method == "avgf")
    variants: dict[str, tuple[Settings, dict[str, Any]]] = {
        "vgf, Gaussian reference": (vgf_agent, {"reference_kind": "gaussian"}),
        "vgf, expectile loss": (vgf_agent, {"critic_loss": "expectile", "expectile": 0.7}),
        "vgf, sparse loss, alpha_S above 1": (
            vgf_agent,
            {"critic_loss": "sparse", "sparse_alpha": 2.0},
        ),
        "vgf, ours without the kernel's guard": (
            vgf_agent,
            {"budget": replace(vgf_agent.budget, kernel_guard=0.0)},
        ),
        "vgf, min over critics in the flow": (vgf_agent, {"value_ensemble": "min"}),
        "vgf, learning rates apart, max over particles": (
            vgf_agent,
            {"actor_learning_rate": 1e-3, "target_particles": "max"},
        ),
        "avgf, normalised gradients": (avgf, {"normalise_gradients": True}),
    }
    return found | {what: replace(base, **change) for what, (base, change) in variants.items()}


# --- episodes -----------------------------------------------------------------------------------

MAZE = "pointmaze-medium-navigate-singletask-task1-v0"


class SameEpisodes:
    """An environment for their evaluation: every reset has the seed of the next of our episodes.

    It takes actions and gives observations in float32, as ours does.
    """

    def __init__(self, env: Any, seed: int) -> None:
        self.env, self.numbers, self.seed = env, itertools.count(), seed

    def reset(self) -> Any:
        """Theirs gives no seed."""
        s, info = self.env.reset(seed=episode_seed(self.seed, next(self.numbers)))
        return np.float32(s), info

    def step(self, action: Any) -> Any:
        """One step."""
        s, *rest = self.env.step(np.float32(action))
        return np.float32(s), *rest


def learners(setup: Setup) -> dict[str, Settings]:
    """The agents of both methods that learn the maze in a few updates."""
    found = {}
    for agent in agents().values():
        if agent.method not in found:
            found[agent.method] = replace(
                small(agent, setup),
                critic=replace(agent.critic, hidden=(64, 64)),
                reference=replace(agent.reference, hidden=(64, 64)),
                budget=replace(agent.budget, steps=1, step_size=0.3),
                particles=5,
                discount=0.98,
                polyak=0.01,
                learning_rate=1e-3,
                actor_learning_rate=1e-3,
            )
    return found


def episode_rows(setup: Setup, root: str) -> Iterator[Row]:
    """Their evaluation and ours, of agents that their code trained, on the same episodes."""
    with tempfile.TemporaryDirectory() as scratch, Recorded() as recorded:
        task = make_task(
            MAZE,
            8,
            scratch,
            setup.maze_episodes,
            workers=1,
            success_timing="post",
            action_clip_eps=1e-5,
        )
        for method, settings in learners(setup).items():
            agent = trained(root, settings, task, setup, recorded)
            for steps in (0, 1, 3):
                found, note = same_episodes(root, agent, settings, task, steps, setup, recorded)
                yield Row("episodes", f"{method}, L = {steps}", found, ACTION_BOUND, note)


def trained(root: str, settings: Settings, task: Task, setup: Setup, recorded: Recorded) -> Any:
    """An agent of theirs after updates by their code on a task's data."""
    assert task.dataset is not None
    agent = made(root, settings, recorded, (task.observation_dim, task.action_dim))
    rng = np.random.default_rng(0)
    fields = {name: np.asarray(array) for name, array in fields_of(task.dataset).items()}
    for _ in range(setup.maze_updates):
        rows = rng.integers(0, len(fields["rewards"]), setup.maze_batch)
        batch = {name: array[rows].astype(np.float64) for name, array in fields.items()}
        agent, _ = agent.update(batch)
    recorded.take()
    return agent


def same_episodes(
    root: str,
    agent: Any,
    settings: Settings,
    task: Task,
    steps: int,
    setup: Setup,
    recorded: Recorded,
) -> tuple[float, str]:
    """Theirs and ours at one test budget: the largest difference of an action, and the scores.

    Infinite where a success, a return or a length differs.
    """
    assert task.make_env is not None
    with modules_of(root, stand_ins()) as load, contextlib.closing(task.make_env(None)) as env:
        monitor = load("envs.env_utils").EpisodeMonitor
        evaluation = load("utils.evaluation")
        with mock.patch.object(evaluation, "trange", range):  # without its progress bar
            stats, played, _ = evaluation.evaluate_vgf_single(
                agent, SameEpisodes(monitor(env), 0), steps, num_eval_episodes=setup.maze_acted
            )
    drawn = [noise.reshape(1, -1, task.action_dim) for noise in recorded.take()]
    theirs = [np.array(episode["action"]) for episode in played]
    returns = [float(np.sum(episode["reward"])) for episode in played]
    successes = [float(episode["info"][-1]["success"]) for episode in played]
    assert np.mean(successes) == stats["success"]
    state, budget = state_of(agent, settings), replace(settings.budget, steps=steps)
    noises, acted = iter(drawn), []

    def policy(observations: Any, budget: Budget, noise: Any) -> Any:
        particles = next(noises, noise["particles"])
        given = {"particles": particles, "select": noise["select"]}
        a, _ = vgf.spec.act(state, observations.astype(float), budget, settings, noise=given)
        acted.append(a[0])
        return a, {}

    ours = evaluate(
        policy,
        task,
        {"": budget},
        particles=settings.particles,
        episodes=setup.maze_acted,
        num_envs=1,
    ).records
    same = (
        [len(actions) for actions in theirs] == [record["length"] for record in ours]
        and returns == [record["return"] for record in ours]
        and successes == [record["success"] for record in ours]
    )
    apart = np.abs(np.array(acted) - np.concatenate(theirs)).max() if same else np.inf
    note = (
        f"{len(theirs)} episodes, {len(np.concatenate(theirs))} actions: success "
        f"{100 * np.mean(successes):.0f} %, mean return {np.mean(returns):.1f}"
    )
    if not same:
        found = [np.mean([record[key] for record in ours]) for key in ("success", "return")]
        note += f"; ours {100 * found[0]:.0f} % and {found[1]:.1f}"
    return float(apart), note


# --- data ---------------------------------------------------------------------------------------

FIELDS = ("observations", "actions", "rewards", "masks", "terminals", "next_observations")
GENERATED = (
    "pointmaze-medium-navigate-singletask-task1-v0",
    "cube-single-noisy-singletask-task2-v0",
    "scene-play-singletask-task1-v0",
    "puzzle-3x3-play-singletask-task1-v0",
)


def stand_ins() -> dict[str, types.ModuleType]:
    """What their loaders and their main.py import, and is not installed or needs MuJoCo 2.1."""
    names = ("d4rl", "gym", "gym.envs", "wandb", "matplotlib.animation")
    found = {name: types.ModuleType(name) for name in names[:4]}
    found["gym"].envs = found["gym.envs"]  # type: ignore[attr-defined]
    found["gym.envs"].registry = types.SimpleNamespace(all=list)  # type: ignore[attr-defined]
    for name in ("Image", "Video", "Histogram"):
        setattr(found["wandb"], name, type(name, (), {}))
    found["wandb"].log = lambda *_, **__: None  # type: ignore[attr-defined]
    found["wandb"].run = types.SimpleNamespace(project="here")  # type: ignore[attr-defined]
    return found


def apart(ours: Mapping[str, Any], theirs: Mapping[str, Any], names: Sequence[str]) -> float:
    """The largest difference of some arrays, infinite where their shapes differ."""
    worst = 0.0
    for name in names:
        one, other = np.asarray(ours[name]), np.asarray(theirs[name])
        if one.shape != other.shape:
            return float("inf")
        worst = max(worst, float(np.abs(one.astype(float) - other.astype(float)).max(initial=0)))
    return worst


def fields_of(dataset: Dataset) -> dict[str, Any]:
    """Our data by the names of theirs."""
    return {name: getattr(dataset, name) for name in FIELDS}


def ogbench_rows(setup: Setup, root: str) -> Iterator[Row]:
    """Their loader of OGBench's files and ours, on generated files of each family."""
    ogbench = need("ogbench", "envs")
    with tempfile.TemporaryDirectory() as scratch, modules_of(root, stand_ins()) as load:
        theirs = load("envs.env_utils")
        for name in GENERATED:
            dataset = "-".join(part for part in name.split("-") if "task" not in part)
            path = Path(scratch) / f"{dataset}.npz"
            generate_ogbench(dataset, path, setup.episodes, workers=1)

            def make(name: str, path: Path = path, **options: Any) -> Any:
                return ogbench.make_env_and_datasets(name, dataset_path=str(path), **options)

            with mock.patch.object(
                theirs, "ogbench", types.SimpleNamespace(make_env_and_datasets=make)
            ):
                env, other, found, _, scale = theirs.make_env_and_datasets(name, normalize_r=True)
            env.close()
            other.close()
            task = make_task(name, data=path, action_clip_eps=1e-5)
            assert task.dataset is not None
            ours = {**fields_of(task.dataset), "scale": task.dataset.reward_scale}
            worst = apart(ours, {**found, "scale": scale}, (*FIELDS, "scale"))
            yield Row("data", name, worst, EXACT, f"{len(task.dataset):,} transitions")


def d4rl_files() -> dict[str, tuple[str, dict[str, Any]]]:
    """Files shaped like each kind of D4RL's: in words, the task and the arrays."""
    rng = np.random.default_rng(0)

    def file(rows: int, o: int, d: int, ends: Any, cuts: Any = None) -> dict[str, Any]:
        arrays = {
            "observations": rng.standard_normal((rows, o)).astype(np.float32),
            "actions": rng.uniform(-1, 1, (rows, d)).astype(np.float32),
            "rewards": rng.standard_normal(rows).astype(np.float32),
            "terminals": ends,
        }
        arrays["actions"][::7] = np.sign(arrays["actions"][::7])
        return arrays if cuts is None else arrays | {"timeouts": cuts}

    def every(rows: int, step: int) -> Any:
        return np.arange(rows) % step == step - 1

    def some(rows: int, share: float) -> Any:
        return rng.random(rows) < share

    maze = file(2500, 29, 8, some(2500, 0.01), every(2500, 700))
    maze["rewards"] = maze["terminals"].astype(np.float32)
    replay = file(5000, 11, 3, some(5000, 0.005))
    replay["timeouts"] = some(5000, 0.002)
    return {
        "medium: timeouts after 1,000 rows": (
            "hopper-medium-v2",
            file(4500, 11, 3, some(4500, 0.002), every(4500, 1000)),
        ),
        "medium-replay: episodes of every length": (
            "walker2d-medium-replay-v2",
            file(4000, 17, 6, some(4000, 0.01), some(4000, 0.002)),
        ),
        "medium-expert": ("hopper-medium-expert-v2", replay),
        "halfcheetah: no terminals": (
            "halfcheetah-medium-v2",
            file(3500, 17, 6, np.zeros(3500, bool), every(3500, 1000)),
        ),
        "human: cut by timeouts alone": (
            "pen-human-v1",
            file(2600, 45, 24, np.zeros(2600, bool), every(2600, 200)),
        ),
        "cloned": ("pen-cloned-v1", file(3000, 45, 24, some(3000, 0.004), some(3000, 0.01))),
        "antmaze": ("antmaze-umaze-v2", maze),
        "before timeouts were kept": ("hopper-medium-v0", file(4500, 11, 3, some(4500, 0.002))),
    }


def loader_of_d4rl(root: str) -> Callable[..., Any]:
    """D4RL's qlearning_dataset, without the package around it."""
    path = Path(root) / "d4rl" / "__init__.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [
        part
        for part in tree.body
        if isinstance(part, ast.FunctionDef) and part.name == "qlearning_dataset"
    ]
    scope: dict[str, Any] = {"np": np}
    exec(compile(tree, str(path), "exec"), scope)
    found: Callable[..., Any] = scope["qlearning_dataset"]
    return found


def d4rl_rows(root: str, d4rl: str) -> Iterator[Row]:
    """Their loader of D4RL's files and ours, on files of each kind."""
    loader = loader_of_d4rl(d4rl)
    with tempfile.TemporaryDirectory() as scratch, modules_of(root, stand_ins()) as load:
        theirs, clipping = load("envs.d4rl_utils"), load("envs.env_utils")
        for what, (name, arrays) in d4rl_files().items():
            path = Path(scratch) / "file.npz"
            np.savez(path, **arrays)
            task = read_raw(name, path)
            env = types.SimpleNamespace(
                get_dataset=lambda arrays=arrays: arrays,
                _max_episode_steps=task.max_episode_steps,
                reset=lambda: None,
            )
            scaled = "antmaze" not in name
            ids = types.SimpleNamespace(all=lambda name=name: [types.SimpleNamespace(id=name)])
            with (
                mock.patch.object(theirs, "d4rl", types.SimpleNamespace(qlearning_dataset=loader)),
                mock.patch.object(theirs, "make_env", lambda _, env=env: env),
                mock.patch.object(clipping.gym.envs, "registry", ids),
                contextlib.redirect_stdout(None),
            ):
                found = clipping.make_env_and_datasets(name, normalize_r=True)
            raw = read_raw(name, path, qlearning_dataset=True, normalise_rewards=scaled)
            dataset = to_dataset(raw)
            ours = {**fields_of(dataset), "scale": dataset.reward_scale}
            worst = apart(ours, {**found[2], "scale": found[4]}, (*FIELDS, "scale"))
            note = f"{len(dataset):,} of {len(arrays['rewards']):,} rows, scale {found[4]:.6g}"
            yield Row("data", f"{name}, {what}", worst, EXACT, note)


# --- the online phase ---------------------------------------------------------------------------


class Counting:
    """An environment whose reward is the number of its step; an episode lasts seven steps."""

    def __init__(self) -> None:
        gymnasium = need("gymnasium", "envs")
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,))
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2,))
        self.steps = 0

    def reset(self, **_: Any) -> Any:
        self.place = np.zeros(2, np.float32)
        return self.place.copy(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.place[0] += 1
        return self.place.copy(), float(self.steps), False, self.place[0] == 7, {"success": 0.0}

    def close(self) -> None:
        pass


def make_counting(seed: int | None = None) -> Counting:
    """A maker of environments."""
    return Counting()


def offline(rows: int) -> dict[str, Any]:
    """Offline transitions, known by their rewards."""
    return {
        "observations": np.zeros((rows, 2), np.float32),
        "actions": np.zeros((rows, 1), np.float32),
        "rewards": np.float32(-1.0 - np.arange(rows)),
        "masks": np.ones(rows, np.float32),
        "terminals": np.zeros(rows, np.float32),
        "next_observations": np.ones((rows, 2), np.float32),
    }


@dataclass(frozen=True)
class Phase:
    """An online phase: their flags, in small numbers."""

    mixing: str
    offline_steps: int = 10
    online_steps: int = 40
    start_training: int = 9
    buffer_size: int = 1000
    rows: int = 12


PHASES = {
    "iql": Phase("iql"),
    "rlpd": Phase("rlpd"),
    "wsrl": Phase("wsrl"),
    "from scratch, random warm-up": Phase("scratch", offline_steps=0),
    "iql, the buffer full": Phase("iql", buffer_size=20),
    "iql, data that fill the buffer": Phase("iql", buffer_size=10),
}


def their_phase(main: Any, phase: Phase, scratch: str) -> tuple[list[Any], list[bool]]:
    """Theirs: what each update draws from, and which actions were random."""
    seen: list[Any] = []
    chosen: list[bool] = []
    buffer = main.ReplayBuffer
    real = buffer.sample

    def sample(self: Any, *args: Any, **named: Any) -> Any:
        if isinstance(self, buffer) and online():
            seen.append(np.array(self["rewards"][: self.size]))
        return real(self, *args, **named)

    class Agent:
        created = updates = 0

        @classmethod
        def create(cls, *_: Any) -> Any:
            return cls()

        def update(self, batch: Any) -> Any:
            Agent.updates += 1
            return self, {}

        def sample_actions(self, **_: Any) -> Any:
            chosen.append(False)
            return np.zeros(1, np.float32)

    env = Counting()
    draw = env.action_space.sample

    def random() -> Any:
        chosen.append(True)
        return draw()

    env.action_space.sample = random
    flags = main.FLAGS
    values = dataclasses.asdict(phase)
    values.pop("rows")
    style = values.pop("mixing")
    for name, value in values.items():
        setattr(flags, name, value)
    flags.off2on_style = "wsrl" if style == "scratch" else style
    flags.env_name = "online:x" if style == "scratch" else "ogbench:x-singletask"
    flags.save_dir, flags.eval_interval = scratch, 0
    flags.log_interval = flags.save_interval = 10**9

    def online() -> bool:
        return Agent.updates >= phase.offline_steps

    data = main.Dataset.create(**offline(phase.rows))
    both = (env, Counting(), dict(data), None, 1.0)
    with (
        mock.patch.object(buffer, "sample", sample),
        mock.patch.object(main, "agents", {flags.agent["agent_name"]: Agent}),
        mock.patch.object(main, "setup_wandb"),
        mock.patch.object(main, "make_env_and_datasets", return_value=both),
        mock.patch.object(main, "make_env", return_value=env),
        mock.patch.object(main.tqdm, "tqdm", lambda items, **_: items),
    ):
        main.main(None)
    return seen, chosen


def our_phase(phase: Phase, scratch: str) -> tuple[list[Any], list[bool]]:
    """Ours, likewise; main.py's counter makes a phase of n steps n - 1 after offline updates."""
    seen: list[Any] = []
    chosen: list[bool] = []
    from_scratch = phase.mixing == "scratch"
    small = Network((4,))
    config = RunConfig(
        task=TaskSettings(env="counting", action_repeat=1, standardise=False),
        agent=Settings(
            critic=small, reference=small, particles=2, sampling_steps=1, budget=Budget(steps=0)
        ),
        train=TrainSettings(phase.offline_steps, 4, 10**9, 10**9, 10**9),
        online=OnlineSettings(
            steps=phase.online_steps - (0 if from_scratch else 1),
            mixing=phase.mixing,
            warmup=phase.start_training - (2 if from_scratch else 3),
            buffer_size=phase.buffer_size,
        ),
        evaluation=EvaluationSettings(steps=(0,), episodes=1),
        backend=BackendSettings("numpy"),
    )
    data = None if from_scratch else check_dataset(offline(phase.rows), "made up")
    task = Task("counting", 1, 2, 1, 7, make_counting, data, "success", success)
    backend = get_backend("numpy")
    real_batch, real_act = ReplayBuffer.batch, type(backend).act

    def batch(self: Any, *args: Any) -> Any:
        seen.append(self.rows["rewards"][: len(self)].copy())
        return real_batch(self, *args)

    def act(self: Any, *args: Any, **named: Any) -> Any:
        chosen.append(False)
        return real_act(self, *args, **named)

    with (
        mock.patch.object(ReplayBuffer, "batch", batch),
        mock.patch.object(type(backend), "act", act),
    ):
        train(config, Path(scratch) / "run", say=lambda _: None, prepared=(config, backend, task))
    return seen, chosen


def online_rows(root: str) -> Iterator[Row]:
    """Their online phase and ours: what every update draws from."""
    with modules_of(root, stand_ins()) as load:
        main = load("main")
        main.FLAGS(["main.py", f"--agent={root}/agents/vgf.py"])
        for what, phase in PHASES.items():
            with tempfile.TemporaryDirectory() as scratch:
                theirs, acted = their_phase(main, phase, scratch)
            with tempfile.TemporaryDirectory() as scratch:
                ours, _ = our_phase(phase, scratch)
            same = len(ours) == len(theirs) and all(
                np.array_equal(one[: len(other)], other)
                for one, other in zip(ours, theirs, strict=True)
            )
            unread = max((len(o) - len(t) for o, t in zip(ours, theirs, strict=False)), default=0)
            note = (
                f"{len(theirs)} updates, {sum(acted)} random actions; the first draws from "
                f"{len(theirs[0])} transitions, the last from {len(theirs[-1])}"
            )
            if unread:
                note += "; once it is full, theirs never draws the last place"
            yield Row("online", what, 0.0 if same else float("inf"), EXACT, note)


# --- the page -----------------------------------------------------------------------------------


def measure(setup: Setup, checkouts: Mapping[str, str]) -> Data:
    """Every row."""
    rows: list[Row] = []

    def add(found: Iterator[Row]) -> None:
        for row in found:
            rows.append(row)
            print(f"{row.kind}: {row.what}: {row.difference} (at most {row.bound:g})", flush=True)

    if VGF in checkouts:
        add(online_rows(checkouts[VGF]))
        add(ogbench_rows(setup, checkouts[VGF]))
        add(episode_rows(setup, checkouts[VGF]))
        if D4RL in checkouts:
            add(d4rl_rows(checkouts[VGF], checkouts[D4RL]))
    add(update_rows(setup, checkouts))
    found = [dataclasses.asdict(row) for row in rows]
    for row in found:
        if not np.isfinite(row["difference"]):
            row["difference"] = None
    return {"rows": found, "revisions": {name: revision(path) for name, path in checkouts.items()}}


def revision(path: str) -> str:
    """The revision of a checkout; "unknown" if it is none."""
    done = subprocess.run(
        ["git", "-C", path, "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def agrees(row: Data) -> bool:
    """Whether a row is within its bound."""
    return row["difference"] is not None and row["difference"] <= row["bound"]


def judge(data: Data) -> list[Verdict]:
    """A verdict for each kind of row."""
    verdicts = []
    for kind, claim in CLAIMS.items():
        rows = [row for row in data["rows"] if row["kind"] == kind]
        if rows:
            wrong = [row["what"] for row in rows if not agrees(row)]
            worst = max(float("inf") if r["difference"] is None else r["difference"] for r in rows)
            shown = f"{len(rows)} rows, largest difference {worst:.2g}"
            evidence = shown + (f"; not: {', '.join(wrong)}" if wrong else "")
            verdicts.append(Verdict(claim, not wrong, evidence))
    return verdicts


CLAIMS = {
    "updates": f"states after the updates are theirs within {UPDATES:g} of each array's size, or "
    f"{UNGUARDED:g} without the guard",
    "distances": f"where not, they are within {UPDATES:g} once theirs takes squared distances from "
    "differences, as ours, and not from a Gram matrix",
    "actions": f"actions at every budget are theirs within {ACTION_BOUND:g}",
    "episodes": f"episodes end alike, every action within {ACTION_BOUND:g}",
    "data": "data are theirs to the bit",
    "online": "every update online draws from the same transitions, in the same places",
}


def tables(data: Data) -> list[Table]:
    """Every row."""
    header = ("what", "largest difference", "at most", "")
    made = []
    for kind, claim in CLAIMS.items():
        rows = [
            [
                row["what"],
                "different" if row["difference"] is None else f"{row['difference']:.2g}",
                f"{row['bound']:g}",
                row["note"],
            ]
            for row in data["rows"]
            if row["kind"] == kind
        ]
        if rows:
            made.append(Table(claim[0].upper() + claim[1:], header, rows))
    return made


def remarks(data: Data) -> list[str]:
    """The revisions of theirs."""
    shown = ", ".join(f"{name} {rev}" for name, rev in data["revisions"].items())
    return [f"Theirs: {shown}."]


def experiment(checkouts: Mapping[str, str] | None = None) -> Experiment:
    """The comparison with these checkouts."""
    setup = Setup()
    return Experiment(
        name="authors",
        title="Our code beside the authors', executed",
        about=(
            "Theirs runs from its checkouts; what it draws at random is recorded and given to "
            "ours, the specification in NumPy, which starts from its parameters. Both compute in "
            f"float64. Updates: {setup.updates} on made-up batches of {setup.batch} rows, networks "
            f"of {setup.depth} x {setup.width}, for every distinct agent among the presets, for "
            "variants, and for FQL; all parameters, the target and Adam's moments are compared. "
            "Actions: of the trained agents, in four states. Episodes: agents that their code "
            f"trained for {setup.maze_updates:,} updates on pointmaze, each action held for 8 "
            "steps, act in the same environment from the same start states, theirs in their "
            "evaluation and ours in ours; every action, return, length and success is compared. "
            "Data: their loaders and ours on the same files. Online: their main.py and our loop, "
            "with an agent and an environment that count; what each update draws from is compared."
        ),
        setup=setup,
        quick=replace(setup, updates=3, steps=1, maze_episodes=2, maze_updates=3, maze_acted=1),
        measure=lambda setup: measure(setup, checkouts or {}),
        judge=judge,
        tables=tables,
        remarks=remarks,
    )


def checkouts_of(parser: argparse.ArgumentParser, texts: Sequence[str]) -> dict[str, str]:
    """The folder of each checkout that a command names; a wrong one ends the command."""
    checkouts = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not Path(path).is_dir():
            parser.error(f"--checkout {text}: write OWNER/NAME=PATH, with an existing folder")
        checkouts[name] = str(Path(path).resolve())
    return checkouts


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m validation.authors", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--checkout", action="append", default=[], metavar="OWNER/NAME=PATH")
    add_arguments(parser)
    args = parser.parse_args(argv)
    checkouts = checkouts_of(parser, args.checkout)
    if not checkouts and not args.redraw:
        parser.error(f"name a checkout, such as --checkout {VGF}=PATH")
    jax = need("jax", "jax")
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)  # compiling is most of the time
    words = [f"--checkout {name}=PATH" for name in checkouts] + ["--quick"] * args.quick
    command = command_line("authors", words)
    return exit_status(lambda: holds(run_one(experiment(checkouts), command, args)))


if __name__ == "__main__":
    sys.exit(main())
