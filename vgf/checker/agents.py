"""Somebody else's whole agent beside the specification: updates in a row, and actions.

Their agent is described once, by a class of a few lines: how it is made with given settings, what
an update is, and where each network's parameters are. What it draws at random is taken over and
given to the specification. States are drawn and written into theirs, and a few updates run on both
from each; the first array that differs is named, with the update, the network and the quantity.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..spec.methods.base import Draw
from ..spec.optimiser import adam_init, tree_map
from ..spec.settings import Settings
from ..spec.update import act, init_state, update, update_draws
from ..support.errors import VGFError
from ..support.objects import load_object, short_error
from ..testing.compare import named_leaves
from ..testing.methods import small_settings
from ..testing.training import ACTION_DIM, DRIFT_BOUND, OBSERVATION_DIM
from .alternatives import library_for
from .draws import Draws, Taken
from .layers import Place, natural, places_of, read, shapes_of, write
from .modules import is_torch
from .trial import planted

STARTS, UPDATES, BATCHES = 40, 5, (6, 16)
# States in which actions are compared, at each budget.
_ACTED = 4
_EXAMPLE = """\
class Mine:
    networks = {"critic": "critic", "target_critic": "target", "reference": "flow"}

    def create(self, settings, observation_dim, action_dim, seed):
        return Agent(...)

    def update(self, agent, batch):     # returns the new agent, or None if it changed in place
        return agent.update(batch)

    def act(self, agent, observations, steps):   # may be left out
        return agent.sample_actions(observations, steps)
"""


@dataclasses.dataclass(frozen=True)
class Divergence:
    """Where theirs first differs.

    Attributes:
        update: of how many in a row, from 1; 0 for an action.
        network: under our name, or "" for an action.
        quantity: "gradient" (of its loss), "step" (the gradient is right, the new parameters are
            not), "mixing" (of a target network) or "actions".
        array: which of the network.
        relative: the difference over the array's largest number.
        also: other networks that differ in the same update.
    """

    update: int
    network: str
    quantity: str
    array: str
    relative: float
    also: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.network:
            return f"{self.array}: off by {self.relative:.2g} of their size"
        words = {
            "gradient": "the gradient of its loss",
            "step": "its step (the gradient is right)",
            "mixing": "how it is mixed",
            "parameters": "its new parameters",
        }[self.quantity]
        text = (
            f"update {self.update}, network {self.network!r}, {words}: {self.array} is off by "
            f"{self.relative:.2g} of its size"
        )
        return text + (f"; also network {', '.join(map(repr, self.also))}" if self.also else "")


@dataclasses.dataclass(frozen=True)
class AgentResult:
    """What a check of an agent found.

    Attributes:
        agent: its name.
        method, settings: what it was held to; the settings given by name.
        updates, starts: how many updates were compared, from how many states.
        worst: the largest relative difference of any array.
        acted: the largest difference of actions at each budget.
        networks: our networks, and where theirs are.
        drawn: what it drew in one update, in order.
        moments: whether its gradients could be read, from Adam's averages.
        divergence: the first difference, or None.
        says: the cause, if one mistake planted in the specification explains all, or "".
    """

    agent: str
    method: str
    settings: Mapping[str, Any]
    updates: int
    starts: int
    worst: float
    acted: Mapping[int, float]
    networks: Mapping[str, str]
    drawn: tuple[str, ...]
    moments: bool
    divergence: Divergence | None = None
    says: str = ""

    @property
    def agrees(self) -> bool:
        return self.divergence is None

    def __str__(self) -> str:
        verdict = "agrees" if self.agrees else "DIFFERS"
        lines = [f"{self.agent} as an agent of {self.method}: {verdict}"]
        if self.says:
            lines += ["", _fill(self.says)]
        if self.divergence is not None:
            lines += ["", _fill(f"First differs: {self.divergence}.")]
        lines += ["", f"  {self.updates} updates, from {self.starts} states drawn"]
        lines.append(
            f"  largest difference {self.worst:.1e} of an array's size (at most {BOUND:g})"
        )
        if self.acted:
            shown = ", ".join(f"L = {steps}: {worst:.1e}" for steps, worst in self.acted.items())
            lines.append(_fill(f"actions, largest difference at {shown}", "  "))
        lines.append(_fill(f"it draws, in one update: {', '.join(self.drawn) or 'nothing'}", "  "))
        where = ", ".join(f"{ours} = {theirs}" for ours, theirs in self.networks.items())
        lines.append(_fill(f"networks: {where}", "  "))
        if not self.moments:
            text = (
                "Adam's averages were not found, so gradients by themselves were not compared: a "
                "factor on a whole loss is not seen"
            )
            lines.append(_fill(text, "  "))
        if self.settings:
            held = ", ".join(f"{name} = {value}" for name, value in self.settings.items())
            lines.append(_fill(f"settings held: {held}", "  "))
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: plain numbers, words and lists."""
        found = dataclasses.asdict(self)
        found["settings"] = {k: str(v) for k, v in self.settings.items()}
        found["acted"] = {str(k): v for k, v in self.acted.items()}
        return {**found, "agrees": self.agrees, "bound": BOUND}


BOUND = DRIFT_BOUND


def _fill(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, 80, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False
    )


# --- their parameters ----------------------------------------------------------------------------


class Parameters:
    """The arrays of an agent by name: torch modules and tensors, NumPy arrays, JAX's trees."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent
        self.torch = is_torch(agent) or any(is_torch(x) for x in _held(agent))

    def arrays(self) -> dict[str, np.ndarray]:
        """Each array, in declared order (torch) or by name (JAX)."""
        if self.torch:
            return {name: p.detach().numpy().copy() for name, p in self._tensors()}
        return {name: np.asarray(x) for name, x in self._leaves() if _is_array(x)}

    def moments(self) -> dict[str, np.ndarray]:
        """Adam's averages of gradients, under the names of the parameters; {} if none is found."""
        if self.torch:
            import torch

            names = {id(p): name for name, p in self._tensors()}
            found = {}
            rules = [x for x in _held(self.agent) if isinstance(x, torch.optim.Optimizer)]
            for p, state in ((p, s) for rule in rules for p, s in rule.state.items()):
                if id(p) in names and "exp_avg" in state:
                    found[names[id(p)]] = state["exp_avg"].detach().numpy().copy()
            return found
        arrays = self.arrays()
        return _optax_moments(arrays)

    def write(self, values: Mapping[str, np.ndarray]) -> Any:
        """The agent with some arrays replaced: a new one (JAX), or the same (torch)."""
        if self.torch:
            import torch

            with torch.no_grad():
                for name, p in self._tensors():
                    if name in values:
                        p.copy_(torch.as_tensor(values[name]))
            return self.agent
        import jax
        import jax.numpy as jnp

        flat, tree = jax.tree_util.tree_flatten_with_path(self.agent)
        new = []
        for path, x in flat:
            name = _name(path)
            new.append(jnp.asarray(values[name], x.dtype) if name in values else x)
        return jax.tree_util.tree_unflatten(tree, new)

    def _tensors(self) -> Iterator[tuple[str, Any]]:
        if is_torch(self.agent):
            yield from self.agent.named_parameters()
            return
        for name, value in vars(self.agent).items():
            yield from _tensors_in(value, name)

    def _leaves(self) -> list[tuple[str, Any]]:
        import jax

        flat, _ = jax.tree_util.tree_flatten_with_path(self.agent)
        return sorted(((_name(path), x) for path, x in flat), key=lambda item: natural(item[0]))


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _tensors_in(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    import torch

    if isinstance(value, torch.nn.Module):
        yield from ((f"{name}.{inner}", p) for inner, p in value.named_parameters())
    elif isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors_in(item, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _tensors_in(item, f"{name}.{i}")


def _held(agent: Any) -> Iterator[Any]:
    """What an object's attributes hold, lists and dicts looked into."""
    for value in getattr(agent, "__dict__", {}).values():
        if isinstance(value, Mapping):
            yield from value.values()
        elif isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value


def _name(path: Any) -> str:
    words = []
    for key in path:
        for attribute in ("key", "name", "idx"):
            if hasattr(key, attribute):
                words.append(str(getattr(key, attribute)))
                break
    return ".".join(words)


def _optax_moments(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leaves ...mu.REST under the names of the parameters that end in REST, nearest first."""
    found: dict[str, np.ndarray] = {}
    averages = [name for name in arrays if ".mu." in f".{name}"]
    for average in averages:
        before, _, rest = f".{average}".partition(".mu.")
        ends = [
            name
            for name in arrays
            if (name == rest or name.endswith(f".{rest}"))
            and not {"mu", "nu", "opt_state"} & set(name.split("."))
            and arrays[name].shape == arrays[average].shape
        ]
        if ends:
            own = before.strip(".").split(".")

            def near(name: str, own: list[str] = own) -> tuple[int, int]:
                pairs = zip(name.split("."), own, strict=False)
                return sum(1 for _ in itertools.takewhile(lambda p: p[0] == p[1], pairs)), -len(
                    name
                )

            found[max(ends, key=near)] = arrays[average]
    return found


def _widened(agent: Any) -> Any:
    """The same agent in float64."""
    kept = Parameters(agent)
    if kept.torch:
        for value in [agent, *_held(agent)]:
            if is_torch(value):
                value.double()
        return agent
    import jax

    def wide(x: Any) -> Any:
        return x.astype(np.float64) if _is_array(x) and x.dtype == np.float32 else x

    return jax.tree_util.tree_map(wide, agent)


class _Networks:
    """Where each of our networks is in theirs."""

    def __init__(self, where: Mapping[str, Any], state: Mapping[str, Any], agent: Any) -> None:
        names = [n for n in state if isinstance(state[n], dict) and n != "optimiser"]
        unknown = [name for name in where if name not in names]
        if unknown:
            raise VGFError(
                f"networks: {unknown[0]} is no network of this method; it has {', '.join(names)}"
            )
        if missing := [name for name in names if name not in where]:
            raise VGFError(
                f"networks: say where {missing[0]} is, as in {missing[0]!r}: 'attribute.params'"
            )
        shapes = {name: x.shape for name, x in Parameters(agent).arrays().items()}
        self.words = {k: v if isinstance(v, str) else ", ".join(v) for k, v in where.items()}
        self.places: dict[str, list[Place]] = {}
        for ours in names:
            prefixes = [where[ours]] if isinstance(where[ours], str) else list(where[ours])
            inside = [
                (name, shape)
                for prefix in prefixes
                for name, shape in shapes.items()
                if name == prefix or name.startswith(f"{prefix}.")
            ]
            if not inside:
                heads = dict.fromkeys(".".join(name.split(".")[:2]) for name in shapes)
                raise VGFError(
                    f"networks: {ours} = {self.words[ours]}: theirs has no array there; it has "
                    f"{', '.join(list(heads)[:12])}"
                )
            self.places[ours] = places_of(shapes_of(state[ours]), inside, ours)

    def read(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Our networks from their arrays, those that are all there."""
        return {
            ours: read(places, arrays)
            for ours, places in self.places.items()
            if all(place.theirs in arrays for place in places)
        }

    def write(self, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Their arrays from our state."""
        shapes: dict[str, np.ndarray] = {}
        for ours, places in self.places.items():
            shapes |= write(places, state[ours])
        return shapes


# --- checking ------------------------------------------------------------------------------------


def check_agent(
    adapter: Any,
    method: str,
    settings: Mapping[str, Any] | None = None,
    *,
    starts: int = STARTS,
    updates: int = UPDATES,
    seed: int = 0,
    explain: bool = True,
) -> AgentResult:
    """Compare a whole agent with the specification, in float64.

    Args:
        adapter: a class, an object, or the name of one (``module:Class``,
            ``path/to/file.py:Class``), with

            * ``networks``: for each network of ours where theirs is: the attribute or the path in a
              tree of JAX, ``"critic.params"``, or several for the members of an ensemble. The
              layers inside are found by their shapes.
            * ``create(settings, observation_dim, action_dim, seed)``: an agent of theirs.
            * ``update(agent, batch)``: one update; returns the new agent, or None.
            * ``act(agent, observations, steps)``, which may be absent: actions ``[B, d]`` at a
              budget of so many steps, for observations ``[B, o]``.
            * ``draws``, which may be absent: the names of what an update draws, in its order.

        method: whose settings are held, such as "vgf".
        settings: others held at a value, as in ``{"discount": 0.9}``.
        starts: how many states are drawn.
        updates: how many follow each of them.
        seed: of the states and batches.
        explain: look for the mistake that explains a difference.

    Raises:
        VGFError: an adapter that lacks something, or whose networks do not fit the settings.
    """
    label = adapter if isinstance(adapter, str) else _label(adapter)
    adapter = load_object(adapter) if isinstance(adapter, str) else adapter
    if inspect.isclass(adapter):
        adapter = adapter()
    for name in ("networks", "create", "update"):
        if not hasattr(adapter, name):
            raise VGFError(f"{label} has no {name}; an agent is described as in\n\n{_EXAMPLE}")
    if starts < 1 or updates < 1:
        raise VGFError(f"starts is {starts} and updates {updates}; both must be 1 or more")
    held = small_settings(method, settings or {})
    return _Check(adapter, label, held, dict(settings or {}), seed).run(starts, updates, explain)


def _label(adapter: Any) -> str:
    cls = adapter if inspect.isclass(adapter) else type(adapter)
    return cls.__qualname__


@dataclasses.dataclass
class _Case:
    """One update on both: for planting mistakes in the specification."""

    state: Any
    batch: Any
    noise: Any
    theirs: dict[str, Any]
    moments: dict[str, Any]


class _Check:
    def __init__(
        self, adapter: Any, label: str, settings: Settings, given: dict[str, Any], seed: int
    ) -> None:
        self.adapter, self.label, self.settings, self.given = adapter, label, settings, given
        self.seed = seed
        self.draws = Draws(getattr(type(adapter), "update", None))
        self.order: list[int] | None = None
        self.drawn: tuple[str, ...] = ()
        self.moments = False
        self.cases: list[_Case] = []
        self._base: Any = None

    # -- theirs

    def made(self, state: Mapping[str, Any], number: int) -> Any:
        """An agent of theirs in our state, its optimisers new."""
        if self._base is None or Parameters(self._base).torch:
            try:
                agent = self.adapter.create(self.settings, OBSERVATION_DIM, ACTION_DIM, number)
            except Exception as error:
                raise VGFError(f"{self.label}.create: {short_error(error)}") from error
            self._base = _widened(agent)
        if not hasattr(self, "networks"):
            self.networks = _Networks(self.adapter.networks, state, self._base)
        return Parameters(self._base).write(self.networks.write(state))

    def arrays(self, tree: Any) -> Any:
        """Arrays of their framework."""
        kept = Parameters(self._base)
        if kept.torch:
            import torch

            return {key: torch.as_tensor(value) for key, value in tree.items()}
        import jax.numpy as jnp

        return {key: jnp.asarray(value) for key, value in tree.items()}

    # -- both

    def run(self, starts: int, updates: int, explain: bool) -> AgentResult:
        rng = np.random.default_rng([self.seed, 18])
        worst, count, found = 0.0, 0, None
        acted: dict[int, float] = {}
        with _in_float64():
            for number in range(starts):
                state = _state(rng, number, self.settings)
                agent = self.made(state, number)
                for i in range(updates):
                    batch = _batch(rng, BATCHES[number % len(BATCHES)])
                    agent, case = self.update(agent, state, batch, first=number == 0 and i == 0)
                    want = update(state, batch, self.settings, case.noise)[0]
                    gap, divergence = self.compare(case, want, i + 1)
                    worst, count = max(worst, gap), count + 1
                    if divergence is not None:
                        found = found or divergence
                        self.cases.append(case)
                        break
                    state = want
                if found is None and number == 0:
                    acted = self.acting(agent, state, rng)
                if len(self.cases) >= 3:
                    break
        if found is None and acted and max(acted.values()) > BOUND:
            steps = max(acted, key=lambda n: acted[n])
            where = f"actions at L = {steps}"
            found = Divergence(0, "", "actions", where, acted[steps])
        says = self.explained() if explain and self.cases else ""
        return AgentResult(
            self.label,
            self.settings.method,
            self.given,
            count,
            number + 1,
            worst,
            acted,
            self.networks.words,
            self.drawn,
            self.moments,
            found,
            says,
        )

    def update(self, agent: Any, state: Any, batch: Any, first: bool) -> tuple[Any, _Case]:
        """One update of theirs, and what it drew."""
        self.draws.give()
        self.draws.reseed(self.seed)
        self.seed += 1
        given = self.arrays(batch)
        with self.draws:
            try:
                new = self.adapter.update(agent, given)
            except Exception as error:
                raise VGFError(f"{self.label}.update: {short_error(error)}") from error
            new = new[0] if type(new) is tuple else new
            agent = agent if new is None else new
            kept = Parameters(agent)
            arrays, moments = kept.arrays(), kept.moments()
        theirs, averages = self.networks.read(arrays), self.networks.read(moments)
        self.moments = self.moments or bool(averages)
        taken = list(self.draws.taken)
        wanted = update_draws(len(batch["rewards"]), ACTION_DIM, self.settings)
        if first:
            self.drawn = tuple(map(str, taken))
            self.order = self.ordered(taken, wanted, _Case(state, batch, {}, theirs, averages))
        assert self.order is not None
        noise = _noise(taken, wanted, self.order)
        return agent, _Case(state, batch, noise, theirs, averages)

    def ordered(self, taken: list[Taken], wanted: Mapping[str, Draw], case: _Case) -> list[int]:
        """Which of their draws is which of ours: the order given, or the first that agrees."""
        names = getattr(self.adapter, "draws", None)
        if names is not None:
            if set(wanted) - set(names):
                raise VGFError(f"{self.label}.draws must name {', '.join(wanted)}")
            return [list(names).index(name) for name in wanted]
        likely: list[int] | None = None
        best = (10**6, math.inf)
        for order in itertools.islice(_orders(taken, wanted), 200):
            noise = _noise(taken, wanted, order)
            want = update(case.state, case.batch, self.settings, noise)[0]
            gaps = self.gaps(case, want)
            # the order in which most is right, where nothing makes all of it so
            score = (sum(not gap <= BOUND for *_, gap in gaps), max(gap for *_, gap in gaps))
            if score < best:
                likely, best = order, score
            if score[0] == 0:
                break
        if likely is None:
            short = ", ".join(
                f"{name}, {kind} {list(shape)}" for name, (kind, shape) in wanted.items()
            )
            mine = ", ".join(map(str, taken)) or "nothing"
            raise VGFError(
                f"{self.label}.update draws {mine}; one of {self.settings.method} needs {short}"
            )
        return likely

    def gaps(self, case: _Case, want: Any) -> list[tuple[str, str, str, float]]:
        """Of each network its quantities, with the array that differs most, and by how much."""
        gaps: list[tuple[str, str, str, float]] = []
        for name in self.networks.places:
            target = name not in self.settings.networks
            if name in case.moments and not target:
                array, gap = _gap(case.moments[name], want["optimiser"][name]["m"])
                gaps.append((name, "gradient", array, gap))
            array, gap = _gap(case.theirs[name], want[name])
            kind = "mixing" if target else ("step" if name in case.moments else "parameters")
            gaps.append((name, kind, array, gap))
        return gaps

    def compare(self, case: _Case, want: Any, number: int) -> tuple[float, Divergence | None]:
        """The largest relative difference, and the first thing that differs."""
        gaps = self.gaps(case, want)
        worst = max(gap for *_, gap in gaps)
        bad = [entry for entry in gaps if not entry[3] <= BOUND]
        if not bad:
            return worst, None
        wrong = (
            [e for e in bad if e[1] == "gradient"] or [e for e in bad if e[1] != "mixing"] or bad
        )
        name, kind, array, gap = wrong[0]
        also = dict.fromkeys(entry[0] for entry in bad if entry[0] != name)
        return worst, Divergence(number, name, kind, array, gap, tuple(also))

    def acting(self, agent: Any, state: Any, rng: Any) -> dict[int, float]:
        """The largest difference of actions at each budget."""
        if not hasattr(self.adapter, "act"):
            return {}
        found = {}
        budgets = (0, 1, 3) if self.settings.transports else (0,)
        for steps in budgets:
            s = rng.standard_normal((_ACTED, OBSERVATION_DIM))
            n = self.settings.particles
            self.draws.give()
            self.draws.reseed(self.seed)
            self.seed += 1
            with self.draws:
                got = self.adapter.act(agent, self.arrays({"s": s})["s"], steps)
                got = got.detach() if hasattr(got, "detach") else got
                got = np.asarray(got, np.float64)
            numbers = [d.values.ravel() for d in self.draws.taken if d.kind == "normal"]
            size = _ACTED * n * ACTION_DIM
            whole = [x for x in numbers if x.size == size]
            each = [x for x in numbers if x.size * _ACTED == size]
            drawn = whole[0] if whole else np.concatenate(each or [np.zeros(size)])
            select = [d.values.ravel() for d in self.draws.taken if d.kind == "uniform"]
            noise = {
                "particles": drawn[:size].reshape(_ACTED, n, ACTION_DIM),
                "select": select[0] if select and select[0].size == _ACTED else np.zeros(_ACTED),
            }
            budget = dataclasses.replace(self.settings.budget, steps=steps)
            want = act(state, s, budget, self.settings, noise=noise)[0]
            found[steps] = (
                math.inf if got.shape != want.shape else float(np.max(np.abs(got - want)))
            )
        return found

    def explained(self) -> str:
        """The mistakes each of which, planted in the specification, gives what theirs does."""
        names = []
        for variant in library_for("update").values():
            backend = planted((variant,))
            fits = True
            for case in self.cases:
                try:
                    with np.errstate(all="ignore"):
                        want = backend.update(case.state, case.batch, self.settings, case.noise)[0]
                except Exception:
                    fits = False
                    break
                if self.compare(case, want, 1)[1] is not None:
                    fits = False
                    break
            if fits:
                names.append(variant)
        if not names:
            return ""
        first = names[0]
        text = f"{first.says[:1].upper()}{first.says[1:]}. It equals the specification with "
        text += f"{first.name!r} in each of the {len(self.cases)} updates that differ"
        others = ", ".join(repr(v.name) for v in names[1:4])
        return text + (f" (so it does with {others}: here they are one)." if others else ".")


class _in_float64:  # noqa: N801  (used as a function)
    """What is made meanwhile is float64, in torch and in JAX."""

    def __enter__(self) -> None:
        import sys

        self.torch, self.jax = sys.modules.get("torch"), sys.modules.get("jax")
        if self.torch is not None:
            self.dtype = self.torch.get_default_dtype()
            self.torch.set_default_dtype(self.torch.float64)
        if self.jax is not None:
            self.x64 = self.jax.config.jax_enable_x64
            self.jax.config.update("jax_enable_x64", True)

    def __exit__(self, *_: Any) -> None:
        if self.torch is not None:
            self.torch.set_default_dtype(self.dtype)
        if self.jax is not None:
            self.jax.config.update("jax_enable_x64", self.x64)


def _state(rng: Any, number: int, settings: Settings) -> dict[str, Any]:
    """A state drawn: every network of its own, biases and scales too; optimisers new."""
    state = init_state(number, OBSERVATION_DIM, ACTION_DIM, settings)
    for name, value in state.items():
        if isinstance(value, dict) and name != "optimiser":
            state[name] = tree_map(lambda x: x + 0.1 * rng.standard_normal(x.shape), value)
    state["optimiser"] = {name: adam_init(state[name]) for name in settings.networks}
    return state


def _batch(rng: Any, rows: int) -> dict[str, np.ndarray]:
    """Made-up transitions, some of which end the task."""
    return {
        "observations": rng.standard_normal((rows, OBSERVATION_DIM)),
        "actions": rng.uniform(-1, 1, (rows, ACTION_DIM)),
        "rewards": rng.standard_normal(rows),
        "masks": (rng.random(rows) > 0.2).astype(np.float64),
        "next_observations": rng.standard_normal((rows, OBSERVATION_DIM)),
    }


def _orders(taken: Sequence[Taken], wanted: Mapping[str, Draw]) -> Iterator[list[int]]:
    """Ways to take our draws for theirs: each of the same kind and size, in order first."""
    groups: dict[tuple[str, int], list[str]] = {}
    for name, (kind, shape) in wanted.items():
        groups.setdefault((kind, math.prod(shape)), []).append(name)
    choices = []
    for (kind, size), names in groups.items():
        fits = [i for i, d in enumerate(taken) if d.kind == kind and d.values.size == size]
        choices.append(
            [dict(zip(names, p, strict=True)) for p in itertools.permutations(fits, len(names))]
        )
    for chosen in itertools.product(*choices):
        place = {name: i for part in chosen for name, i in part.items()}
        yield [place[name] for name in wanted]


def _noise(
    taken: Sequence[Taken], wanted: Mapping[str, Draw], order: Sequence[int]
) -> dict[str, np.ndarray]:
    pairs = zip(wanted.items(), order, strict=True)
    return {name: taken[i].values.reshape(shape) for (name, (_, shape)), i in pairs}


def _gap(got: Any, want: Any) -> tuple[str, float]:
    """The array that differs most, and by how much of its size."""
    worst = ("", 0.0)
    own = dict(named_leaves(got))
    for name, x in named_leaves(want):
        y = np.asarray(own[name], np.float64)
        size = float(np.max(np.abs(x), initial=0.0))
        gap = float(np.max(np.abs(y - x), initial=0.0)) if y.shape == np.shape(x) else math.inf
        gap = math.inf if math.isnan(gap) else (gap / size if size else gap)
        if gap >= worst[1]:
            worst = (name, gap)
    return worst
