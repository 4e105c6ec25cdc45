"""Policies to record data with: random, a Python function, or an agent from a run.

A policy is described by what it depends on, for the data's provenance, and is started in each
process that uses it. There it is a function from an observation ``[o]`` and a generator of
the episode to an action ``[d]`` in the environment's own units.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..spec.types import Array
from ..support.errors import VGFError
from ..support.objects import load_function, short_error

Act = Callable[[Array, np.random.Generator], Array]
RANDOM = "random"


class BehaviourPolicy(Protocol):
    """How to act; it is sent to the processes."""

    def provenance(self) -> dict[str, Any]:
        """What it depends on, in JSON's types."""

    def start(self, env: Any) -> Act:
        """Prepare it for a gymnasium environment with Box spaces."""


def parse_policy(
    text: str, checkpoint: int | None = None, steps: int | None = None, backend: str | None = None
) -> BehaviourPolicy:
    """A policy from a command's arguments.

    Args:
        text: "random", ``FILE.py:FUNCTION``, ``MODULE:FUNCTION``, or a run folder.
        checkpoint, steps, backend: of a run folder; see :class:`RunPolicy`.

    Raises:
        VGFError: none of these, or a file, function or run folder that does not exist.
    """
    if text != RANDOM and os.path.isdir(text):
        return RunPolicy.of(text, checkpoint, steps, backend)
    given = {"--checkpoint": checkpoint, "--steps": steps, "--backend": backend}
    wrong = [flag for flag, value in given.items() if value is not None]
    if wrong:
        raise VGFError(f"{wrong[0]} is for a run folder, and --policy {text} is not one; drop it")
    if text == RANDOM:
        return RandomPolicy()
    place, _, name = text.rpartition(":")
    if place and name and not name.endswith(".py"):
        policy = FunctionPolicy(text, _digest(text))
        policy.function()
        return policy
    if text.endswith(".py"):
        raise VGFError(f"--policy {text}: name a function in it, {text}:FUNCTION")
    raise VGFError(
        f'--policy {text} is neither "{RANDOM}", nor a function (FILE.py:FUNCTION or '
        "MODULE:FUNCTION), nor an existing run folder"
    )


@dataclass(frozen=True)
class RandomPolicy:
    """Every action of the box, equally likely."""

    def provenance(self) -> dict[str, Any]:
        """What it depends on: nothing."""
        return {"kind": RANDOM}

    def start(self, env: Any) -> Act:
        """Prepare it for an environment."""
        low, high = env.action_space.low, env.action_space.high
        return lambda observation, rng: rng.uniform(low, high)


@dataclass(frozen=True)
class FunctionPolicy:
    """A Python function: observation ``[o]`` -> action ``[d]``, in the environment's own units.

    A function of two arguments is given a NumPy generator too, which belongs to the episode. What
    it draws from NumPy's and Python's global generators is reproducible as well.

    Args:
        name: ``FILE.py:FUNCTION`` or ``MODULE:FUNCTION``.
        digest: of the file, so that a changed file is another policy.
    """

    name: str
    digest: str

    def provenance(self) -> dict[str, Any]:
        """Its name, and the digest of its file."""
        return {"kind": "function", "name": self.name, "sha256": self.digest}

    def function(self) -> Callable[..., Any]:
        """The function itself.

        Raises:
            VGFError: its file cannot be imported, or has no such function.
        """
        found = _load(self.name)
        _takes_generator(found, self.name)
        return found

    def start(self, env: Any) -> Act:
        """Prepare it for an environment."""
        function = self.function()
        both = _takes_generator(function, self.name)
        shape = env.action_space.shape

        def act(observation: Array, rng: np.random.Generator) -> Array:
            try:
                answer = function(observation, rng) if both else function(observation)
                action = np.asarray(answer, np.float64)
            except Exception as error:
                raise VGFError(f"--policy {self.name} failed: {short_error(error)}") from error
            if action.shape != shape:
                raise VGFError(
                    f"--policy {self.name} returned an action of shape {list(action.shape)}, "
                    f"expected {list(shape)}"
                )
            if not np.isfinite(action).all():
                raise VGFError(f"--policy {self.name} returned NaN or infinity: {action.tolist()}")
            return action

        return act


def _takes_generator(function: Callable[..., Any], name: str) -> bool:
    """Whether a function takes a generator after the observation.

    Raises:
        VGFError: it takes neither one argument nor two.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C
        return False
    for arguments in (2, 1):
        try:
            signature.bind(*range(arguments))
        except TypeError:
            continue
        return arguments == 2
    raise VGFError(f"--policy {name} takes {signature}; it must take an observation")


def _load(name: str) -> Callable[..., Any]:
    """The function with a name.

    Raises:
        VGFError: there is none; the message mentions --policy.
    """
    try:
        return load_function(name)
    except VGFError as error:
        raise VGFError(f"--policy {name}: {error}") from error


def _digest(name: str) -> str:
    """The checksum of the file that a function's name refers to, directly or as a module.

    Raises:
        VGFError: there is none.
    """
    place = name.rpartition(":")[0]
    if not place.endswith(".py"):
        _load(name)
        place = getattr(sys.modules[place], "__file__", None) or place
    try:
        return hashlib.sha256(Path(place).read_bytes()).hexdigest()
    except OSError as error:
        raise VGFError(f"--policy {name}: {place}: {error.strerror}") from error


@dataclass(frozen=True)
class RunPolicy:
    """The agent of a run folder at a test budget; made by :meth:`of`.

    Args:
        folder: the run folder.
        checkpoint: its updates.
        steps: the test budget, L_test.
        backend: that computes.
        digest: of the checkpoint's arrays.
    """

    folder: str
    checkpoint: int
    steps: int
    backend: str
    digest: str

    @classmethod
    def of(
        cls,
        folder: str,
        checkpoint: int | None = None,
        steps: int | None = None,
        backend: str | None = None,
    ) -> RunPolicy:
        """The agent of a run folder.

        Args:
            folder: the run folder.
            checkpoint: its updates; None is the last one.
            steps: the test budget; None is the training budget.
            backend: None is the run's.

        Raises:
            VGFError: no such run, checkpoint or backend, or steps below 0.
        """
        from ..runs.checkpoint import ARRAYS, checkpoint_path, load_checkpoint
        from ..runs.folder import open_run_folder

        config = open_run_folder(folder)
        _, meta = load_checkpoint(folder, checkpoint)
        steps = config.agent.budget.steps if steps is None else steps
        if steps < 0:
            raise VGFError(f"--steps is {steps}; it must be 0 or more")
        data = (checkpoint_path(folder, meta.step) / ARRAYS).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        policy = cls(folder, meta.step, steps, backend or config.backend.name or "numpy", digest)
        policy._load()
        return policy

    def provenance(self) -> dict[str, Any]:
        """The checkpoint, the budget and the backend."""
        return {
            "kind": "run",
            "folder": os.path.abspath(self.folder),
            "checkpoint": self.checkpoint,
            "steps": self.steps,
            "backend": self.backend,
            "sha256": self.digest,
        }

    def _load(self) -> Any:
        import dataclasses

        from ..runs.agent import load_agent, make_backend
        from ..runs.config import BackendSettings
        from ..runs.folder import open_run_folder

        settings = open_run_folder(self.folder).backend
        if self.backend != settings.name:  # another has its own dtype and device
            settings = BackendSettings()
        backend = make_backend(dataclasses.replace(settings, name=self.backend), training=False)
        return backend, load_agent(Path(self.folder), backend, self.checkpoint)

    def start(self, env: Any) -> Act:
        """Prepare it for an environment.

        Raises:
            VGFError: the environment's observations or actions have another size.
        """
        import dataclasses

        from ..environments.fitting import flat_size
        from ..runs.agent import agent_policy
        from ..runs.checkpoint import load_checkpoint

        backend, (state, scaling, config, _) = self._load()
        meta = load_checkpoint(self.folder, self.checkpoint)[1]
        sizes = flat_size(env.observation_space), env.action_space.shape[0]
        trained = meta.extra["observation_dim"], meta.extra["action_dim"]
        if sizes != trained:
            raise VGFError(
                f"{self.folder} was trained on {trained[0]} observations and {trained[1]} actions; "
                f"the environment has {sizes[0]} and {sizes[1]}"
            )
        agent = config.agent
        budget = dataclasses.replace(agent.budget, steps=self.steps)
        particles = config.evaluation.particles or agent.particles
        policy = agent_policy(backend, state, agent, scaling, particles)
        low, high = env.action_space.low, env.action_space.high

        def act(observation: Array, rng: np.random.Generator) -> Array:
            noise = {
                "particles": rng.standard_normal((1, particles, sizes[1])),
                "select": rng.random(1),
            }
            actions, _ = policy(np.asarray(observation, np.float32)[None], budget, noise)
            chosen = np.asarray(actions, np.float64)[0]
            if not np.isfinite(chosen).all():
                raise VGFError(f"{self.folder}: its agent's actions are not finite")
            return np.asarray(low + (chosen + 1.0) / 2.0 * (high - low))

        return act
