"""What can be checked: each function of the specification, its arguments by name, their axes.

An :class:`~vgf.testing.equations.Equation` draws arguments by position, for backends. A
:class:`Subject` gives them names, so that a function from outside, whose arguments have other
names and come in another order, can be given the same inputs.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from .. import spec
from ..backends.base import Backend
from ..spec.settings import ACTIVATIONS, CRITIC_LOSSES, SELECTION_RULES, Budget, Settings
from ..support.errors import VGFError
from ..testing.equations import BUDGETS, EQUATIONS, Arguments, Equation, adam_state
from ..testing.strategies import SHAPES, Maker

# The axes of arrays, as in the docstrings of the specification; "*" is the batch of states here.
AXES = {
    "squared_distances": "x: B N d, y: B M d -> B N M",
    "bandwidth_squared": "a: B N d -> B",
    "rbf_kernel": "x: B N d, y: B M d, sigma_squared: B -> B N M",
    "repulsion": "a: B N d, sigma_squared: B -> B N d",
    "repulsion_through_bandwidth": "a: B N d -> B N d",
    "phi": "a: B N d, g: B N d -> B N d",
    "project": "a: B N d -> B N d",
    "clip_velocity": "velocity: B N d -> B N d",
    "flow_step": "a: B N d, velocity: B N d -> B N d",
    "flow_step from the score": "a: B N d, g: B N d -> B N d",
    "follow": "a: B N d -> B N d",
    "transport": "a: B N d -> B N d",
    "activate": "x: M h -> M h",
    "layer_norm": "x: M h, scale: h, offset: h -> M h",
    "mlp": "x: M in -> M out",
    "mlp_vjp": "x: M in, cotangent: M out",
    "ensemble": "x: M in -> E M out",
    "ensemble_vjp": "x: M in, cotangent: E M out",
    "flow_velocity": "s: B o, x: B d, t: B 1 -> B d",
    "flow_matching_loss": "s: B o, a: B d, x0: B d, t: B 1 -> ",
    "flow_matching_gradient": "s: B o, a: B d, x0: B d, t: B 1",
    "flow_sample": "s: B o, x0: B d -> B d",
    "gaussian_loss": "s: B o, a: B d -> ",
    "gaussian_gradient": "s: B o, a: B d",
    "gaussian_sample": "s: B o, noise: B d -> B d",
    "critic_values": "s: B o, a: B d -> E B",
    "aggregate": "q: E B N -> B N",
    "action_gradient": "s: B o, a: B d -> B d",
    "critic_transport": "s: B o, a: B N d -> B N d",
    "td_target": "q: E B N, r: B, mask: B -> B",
    "critic_loss": "q: E B, y: B -> ",
    "critic_gradient": "s: B o, a: B d, y: B",
    "gradient_field": "s: B o, a: B d -> B d",
    "gradient_field_loss": "s: B o, a: B d, g: B d -> ",
    "gradient_field_gradient": "s: B o, a: B d, g: B d",
    "amortised_transport": "s: B o, a: B N d -> B N d",
    "select": "a: B N d, q: B N, u: B -> B d",
    "sample_reference": "s: B o, noise: B N d -> B N d",
    "move": "s: B o, a: B N d -> B N d",
    "act": "s: B o",
    "advantage_weights": "q: E B, baseline: E B N -> B",
    "policy_actions": "s: B o, noise: B d -> B d",
    "policy_loss": "s: B o, noise: B d, target: B d -> ",
    "policy_gradient": "s: B o, noise: B d, target: B d",
    "propose": "s: B o, noise: B N d -> B N d",
    "state_values": "s: B o -> B",
    "value_loss": "s: B o, q: B -> ",
    "value_gradient": "s: B o, q: B",
    "denoised_gradient": "s: B o, x: B d, t: B 1 -> B d",
    "sampler_gradient": "s: B o, x: B d -> B d",
    "guided_sample": "s: B o, x0: B d -> B d",
    "gradient_ascent": "s: B o, a: B N d -> B N d",
    "langevin": "s: B o, a: B N d, noise: B R d -> B N d",
    "operate": "s: B o",
    "sequence_phi": "u: N T d, g: N T d -> N T d",
    "rescale_sequences": "v: N T d -> N T d",
    "decoding_scores": "u: B d, log_p: B V, embeddings: V d, original: B, allowed: V -> B V",
}
# Arguments of the functions that an equation calls with something made from what it draws.
_NAMES = {
    "follow": ("velocity", "a", "budget", "trajectory"),
    "transport": ("score", "a", "budget", "trajectory"),
    "update": ("state", "batch", "noise", "settings"),
    "act": ("state", "s", "noise", "budget", "settings"),
    "flow_step from the score": ("a", "g", "state", "budget"),
}
_LEFT_OUT = ("init_state", "adam_init")
# Arguments that are random numbers, which a function may draw itself: normal, or from 0 to 1.
NOISE: dict[str, dict[str, str]] = {
    "flow_matching_loss": {"x0": "normal", "t": "uniform"},
    "flow_matching_gradient": {"x0": "normal", "t": "uniform"},
    "flow_sample": {"x0": "normal"},
    "gaussian_sample": {"noise": "normal"},
    "guided_sample": {"x0": "normal"},
    "sample_reference": {"noise": "normal"},
    "propose": {"noise": "normal"},
    "langevin": {"noise": "normal"},
    "policy_actions": {"noise": "normal"},
    "policy_loss": {"noise": "normal"},
    "policy_gradient": {"noise": "normal"},
    "select": {"u": "uniform"},
}
# Other words for what can be checked.
SYNONYMS = {
    "step": "flow_step",
    "svgd_step": "flow_step",
    "svgd": "transport",
    "direction": "phi",
    "kernel": "rbf_kernel",
    "rbf": "rbf_kernel",
    "bandwidth": "bandwidth_squared",
    "median": "bandwidth_squared",
    "median_heuristic": "bandwidth_squared",
    "flow": "transport",
    "target": "td_target",
    "q_target": "td_target",
    "td": "td_target",
    "bellman": "td_target",
    "loss": "critic_loss",
    "td_loss": "critic_loss",
    "bc_loss": "flow_matching_loss",
    "flow_matching": "flow_matching_loss",
    "flow_loss": "flow_matching_loss",
    "sampler": "flow_sample",
    "sample": "flow_sample",
    "euler": "flow_sample",
    "selection": "select",
    "score": "action_gradient",
    "layernorm": "layer_norm",
    "adam": "adam_step",
    "soft_update": "polyak",
    "target_update": "polyak",
    "clip_grad_norm": "clip_by_global_norm",
    "activation": "activate",
    "clip": "project",
}
# The argument that names a part of one's own, which has no place in a function under check.
_NAMES_A_PART = {"td_target": "target"}
# What an argument is held at when the function does not take it: the first that agrees is meant.
CHOICES: dict[str, tuple[Any, ...]] = {
    "temperature": (None, 1.0),
    "bandwidth": (None,),
    "bandwidth_gradient": (False,),
    "how": ("mean", "min"),
    "particles": ("mean", "max"),
    "loss": CRITIC_LOSSES,
    "expectile": (0.9,),
    "sparse_alpha": (None, 1.0),
    "tanh": (False, True),
    "activation": ACTIVATIONS,
    "normalise": (False, True),
    "weight": (None,),
    "distillation": (10.0,),
    "maximum": (20.0,),
    "critic_activation": ACTIVATIONS,
    "trajectory": (False,),
    "rule": SELECTION_RULES,
    "scope": ("state", "batch"),
    "low": (-1.0,),
    "high": (1.0,),
    "discount": (0.99, 1.0),
    "sampling_steps": (10, 5, 20),
    "max_norm": (1.0,),
    "learning_rate": (3e-4, 1e-3),
    "tau": (0.005,),
    "kernel": ("sequence", "position", None),
    "like": (None,),
    "decoding_weight": (0.2,),
    "decoding_top": (50, None),
    "kernel_guard": (0.0,),
    "budget.optimiser": ("plain", "adam"),
    "budget.step_size": (0.1,),
    "budget.steps": (1, 5, 10),
    "budget.temperature": (None, 1.0),
    "budget.bandwidth": (None,),
    "budget.bandwidth_gradient": (False,),
    "budget.kernel": ("rbf",),
    "budget.kernel_guard": (0.0,),
    "budget.clip_norm": (None, 1.0),
    "budget.clip_scope": ("state",),
    "budget.low": (-1.0,),
    "budget.high": (1.0,),
}
# The same where one function differs from the others.
_OWN_CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
    "phi": {"kernel": ("rbf",)},
    "select": {"temperature": (1.0, 0.1)},
    "langevin": {"temperature": (0.1, 1.0, 0.0), "step_size": (0.05, 0.1)},
    "advantage_weights": {"temperature": (1.0,), "how": ("mean", "min")},
    "td_target": {"how": ("min", "mean")},
}


def choices(subject: Subject, name: str, used: set[str]) -> tuple[Any, ...]:
    """What an argument that theirs does not take may be held at, the likeliest first."""
    if name == "loss" and "expectile" not in used:
        return ("squared",)  # half of the square is an expectile loss too, and no one means that
    if name == "rule" and "u" not in used:
        return ("best",)
    found = _OWN_CHOICES.get(subject.name, CHOICES).get(name, CHOICES.get(name))
    return _default(subject, name) if found is None else found


def _default(subject: Subject, name: str) -> tuple[Any, ...]:
    """What the specification takes where an argument is not given, random numbers apart."""
    parameter = inspect.signature(getattr(spec, subject.name)).parameters.get(name)
    if parameter is None or parameter.default is parameter.empty or name == "noise":
        return ()
    return (parameter.default,)


# Fields of a budget that a function's result depends on, where it has no kernel.
_STEPS = ("steps", "step_size", "optimiser", "clip_norm", "clip_scope", "low", "high")
_BUDGET_FIELDS = dict.fromkeys(
    ("flow_step", "follow", "amortised_transport", "gradient_ascent"), _STEPS
)
_ALL_FIELDS = tuple(field.name for field in dataclasses.fields(Budget))


@dataclasses.dataclass(frozen=True)
class Linear:
    """A field of vectors shift - slope * a, the gradient of a quadratic value: as a function.

    Attributes:
        slope, shift: ``[d]``.
    """

    slope: Any
    shift: Any

    def score(self, a: Any) -> Any:
        return self.shift - self.slope * a

    def value(self, a: Any) -> Any:
        return (self.shift * a - self.slope * a * a / 2).sum(-1)


@dataclasses.dataclass(frozen=True)
class Subject:
    """Something that can be checked.

    Attributes:
        name: of the specification's function; `form` tells apart several ways of calling it.
        equation: draws inputs and calls the function on any backend.
        parameters: the names of the arguments that a function under test may take.
        axes: of each array argument, and of the result under "result".
    """

    name: str
    form: str
    equation: Equation
    parameters: tuple[str, ...]
    axes: Mapping[str, tuple[str, ...]]

    @property
    def fields(self) -> tuple[str, ...]:
        """The settings inside the budget that the function may take one by one."""
        if "budget" not in self.parameters or self.name in ("act", "move"):
            return ()
        chosen = _BUDGET_FIELDS.get(self.form, _ALL_FIELDS)
        if self.name == "flow_step":
            chosen = tuple(name for name in chosen if name != "steps")
        return tuple(f"budget.{name}" for name in chosen)

    @property
    def noise(self) -> Mapping[str, str]:
        """Its arguments that are random numbers, and their kinds."""
        return NOISE.get(self.name, {})

    def sizes(self, named: Mapping[str, Any]) -> dict[str, int]:
        """The length of each axis of the arrays: B, N, d, o, E."""
        found: dict[str, int] = {}
        for name, axes in self.axes.items():
            shape = np.shape(named.get(name, 0.0)) if name != "result" else ()
            if len(shape) == len(axes):
                found |= {axis: n for axis, n in zip(axes, shape, strict=True) if axis.isalpha()}
        return found

    @property
    def functions(self) -> tuple[str, ...]:
        """The specification's functions that it calls."""
        return ("phi", "flow_step") if self.form == "flow_step from the score" else (self.name,)

    @property
    def summary(self) -> str:
        """The first line of the function's documentation."""
        return (inspect.getdoc(getattr(spec, self.name)) or "").partition("\n")[0]

    def named(self, arguments: Arguments) -> dict[str, Any]:
        """Drawn arguments under their names; a field of vectors as a :class:`Linear`."""
        if self.name in ("follow", "transport"):
            a, slope, shift, budget, trajectory = arguments
            arguments = (Linear(slope, shift), a, budget, trajectory)
        return dict(zip(self.parameters, arguments, strict=True))

    def fix(self, arguments: Arguments, fixed: Mapping[str, Any]) -> Arguments:
        """The arguments with some of them, or fields of the budget, set to a value."""
        fields = {k.partition(".")[2]: v for k, v in fixed.items() if k.startswith("budget.")}
        names = self.drawn_names
        new = list(arguments)
        for i, name in enumerate(names):
            if name in fixed:
                new[i] = fixed[name]
            if name == "budget" and fields:
                if fields.get("bandwidth") is not None:
                    fields["bandwidth_gradient"] = False
                new[i] = dataclasses.replace(new[i], **fields)
        if fixed.get("bandwidth") is not None and "bandwidth_gradient" not in fixed:
            new[names.index("bandwidth_gradient")] = False
        if "state" in names and "budget" in names and self.name == "flow_step":
            place, budget = names.index("state"), new[names.index("budget")]
            if budget.optimiser == "plain":
                new[place] = None
            elif new[place] is None:
                new[place] = spec.adam_init(new[names.index("a")])
        return tuple(new)

    def absent(self, arguments: Arguments) -> set[str]:
        """The numbers among the arguments, and the fields of the budget, that are None."""
        found = set()
        for name, value in zip(self.drawn_names, arguments, strict=True):
            if value is None and name in CHOICES:
                found.add(name)
            if name == "budget":
                found |= {f for f in self.fields if getattr(value, f.partition(".")[2]) is None}
        return found - {"kernel", "budget.kernel"}  # a name

    def number(self, name: str) -> Any:
        """What an argument that may be None is held at where theirs takes a number only."""
        return next((x for x in choices(self, name, set()) if x is not None), 0.5)

    @property
    def drawn_names(self) -> tuple[str, ...]:
        """The names of what the equation draws."""
        if self.name in ("follow", "transport"):
            return ("a", "slope", "shift", "budget", "trajectory")
        return self.parameters

    def draw(self, make: Maker, fixed: Mapping[str, Any] | None = None) -> Arguments:
        """One set of arguments."""
        return self.fix(self.equation.draw(make), fixed or {})


def _axes(text: str) -> dict[str, tuple[str, ...]]:
    arrays, arrow, result = text.partition("->")
    found = {}
    for part in filter(None, (part.strip() for part in arrays.split(","))):
        name, _, axes = part.partition(":")
        found[name.strip()] = tuple(axes.split())
    if arrow:
        found["result"] = tuple(result.split())
    return found


def _subject(form: str, equation: Equation) -> Subject:
    name = form.partition(" ")[0]
    parameters = _NAMES.get(form) or tuple(inspect.signature(getattr(spec, name)).parameters)
    if name == "adam_step":
        parameters = parameters[:4]
    if name in _NAMES_A_PART:
        parameters = tuple(p for p in parameters if p != _NAMES_A_PART[name])
    return Subject(name, form, equation, parameters, _axes(AXES.get(form, "")))


def _from_score(b: Backend, a: Any, g: Any, state: Any, budget: Budget) -> Any:
    return b.flow_step(a, b.phi(a, g, *budget.phi_settings), state, budget)


def _draw_from_score(make: Maker) -> Arguments:
    b, n, d = make.sizes()
    budget = BUDGETS[make.pick("budget", range(1, len(BUDGETS)))]
    a, g = make.particles((b,), n, d), make.scores((b, n, d))
    return a, g, adam_state(make, a) if budget.optimiser == "adam" else None, budget


SUBJECTS: dict[str, Subject] = {
    name: _subject(name, equation)
    for name, equation in EQUATIONS.items()
    if name not in _LEFT_OUT and hasattr(spec, name)
}
# A step is often written as one function of the particles and their scores, phi inside.
STEP_FROM_SCORE = _subject(
    "flow_step from the score",
    Equation("flow_step", _draw_from_score, _from_score, floor=1.0, unit=1.0, jitter=True),
)


def find_subject(name: Any) -> Subject:
    """A subject by its name, or by the specification's function itself.

    Raises:
        VGFError: there is none of that name; the nearest ones are named.
    """
    import difflib

    if callable(name):
        name = getattr(name, "__name__", str(name))
    plain = str(name).strip().lower().replace("-", "_").replace(" ", "_")
    plain = SYNONYMS.get(plain, plain)
    if plain in SUBJECTS:
        return SUBJECTS[plain]
    near = difflib.get_close_matches(plain, [*SUBJECTS, *SYNONYMS], n=3, cutoff=0.5)
    near = list(dict.fromkeys(SYNONYMS.get(word, word) for word in near))
    hint = f"did you mean {' or '.join(near)}?" if near else "vgf check --list names them all"
    raise VGFError(f"{name!r} cannot be checked; {hint}")


# --- drawing -------------------------------------------------------------------------------------


# (B, N, d) beside those of the backends' own tests: as large as agents have them.
LARGE = ((16, 3, 4), (2, 32, 2), (3, 10, 12), (5, 16, 6))
MEMBERS = (2, 2, 1, 5)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes that are tried.

    Attributes:
        shapes: (B, N, d), each tried as often as the others.
        members: E, of ensembles of critics.
        norms: where networks have LayerNorm: of None, "before", "after", "inner"; () is all.
        hidden: the widths of networks' hidden layers, where those of one's own are given.
    """

    shapes: tuple[tuple[int, int, int], ...] = (*SHAPES, *LARGE)
    members: tuple[int, ...] = MEMBERS
    norms: tuple[str | None, ...] = ()
    hidden: tuple[int, ...] | None = None

    def held(self, **fixed: int) -> Sizes:
        """The same with B, N, d or E held at a value."""
        place = {"B": 0, "N": 1, "d": 2}
        shapes = [list(shape) for shape in self.shapes]
        for name, value in fixed.items():
            if name in place:
                for shape in shapes:
                    shape[place[name]] = value
        kept = tuple(dict.fromkeys((s[0], s[1], s[2]) for s in shapes))
        members = (fixed["E"],) if "E" in fixed else self.members
        return dataclasses.replace(self, shapes=kept, members=members)

    def __str__(self) -> str:
        texts = []
        for name, values in zip("BNd", zip(*self.shapes, strict=True), strict=True):
            low, high = min(values), max(values)
            texts.append(f"{name} = {low}" if low == high else f"{name} = {low} to {high}")
        return ", ".join(texts)


SIZES = Sizes()


class NamedMaker(Maker):
    """A maker for functions from outside: one batch axis, and a record of what was chosen."""

    def __init__(self, draw: st.DrawFn, sizes: Sizes = SIZES) -> None:
        super().__init__(draw)
        self.chosen: dict[str, Any] = {}
        self.given = sizes

    def pick(self, name: str, options: Any, compiled: bool = True) -> Any:
        options = list(options)
        if name == "lead":
            return options[1]
        if name == "per_state":
            return "one"
        if name == "mask":
            return "float64"
        if name == "count":
            options = [*options, 1000]  # steps of Adam already taken
        if name == "E":
            options = list(dict.fromkeys(self.given.members))
        if name == "layer_norm" and self.given.norms:
            options = list(self.given.norms)
        value = super().pick(name, options, compiled)
        self.chosen[name] = value
        return value

    def network(
        self,
        inputs: int,
        outputs: int,
        members: int | None = None,
        layer_norm: bool | None = None,
        activation: str = "",
    ) -> dict[str, Any]:
        # what has no LayerNorm in agents may have one where only one place is tried
        where = None if len(self.given.norms) == 1 else layer_norm
        return super().network(inputs, outputs, members, where, activation)

    def hidden(self, where: str | None) -> tuple[int, ...]:
        return super().hidden(where) if self.given.hidden is None else self.given.hidden

    def sizes(self) -> tuple[int, int, int]:
        b, n, d = self._one_of("sizes", self.given.shapes)
        self.chosen |= {"B": b, "N": n, "d": d}
        return b, n, d

    def members(self) -> int:
        self.chosen["E"] = self._one_of("E", self.given.members)
        return int(self.chosen["E"])


class QuickMaker(NamedMaker):
    """A maker that needs no search by hypothesis: thousands of inputs a second.

    Args:
        rng: the numbers.
        decks: of each choice the options left, shared by the makers of one series, so that every
            option is tried as often as every other whatever the seed.
        sizes: those that are tried.
        program: choices that decide what a framework compiles, made already: they are made again,
            and new ones kept.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        decks: dict[str, list[int]],
        sizes: Sizes = SIZES,
        program: dict[str, Any] | None = None,
    ) -> None:
        self.words, self.rng, self.program = [], rng, None
        self.decks, self.given = decks, sizes
        self.chosen = {}
        self.choices = program

    def _one_of(self, name: str, options: Any, compiled: bool = True) -> Any:
        if compiled and self.choices is not None:
            if name not in self.choices:
                self.choices[name] = self._next(name, options)
            return self.choices[name]
        return self._next(name, options)

    def _next(self, name: str, options: Any) -> Any:
        key = f"{name} {len(options)}"
        if not self.decks.get(key):
            self.decks[key] = list(self.rng.permutation(len(options)))
        return options[self.decks[key].pop()]

    def elements(self, shape: tuple[int, ...]) -> np.ndarray:
        round_numbers = self.rng.choice(_VALUES, shape)
        free = np.float32(self.rng.uniform(-2, 2, shape)).astype(np.float64)
        return np.where(self.rng.random(shape) < 0.5, round_numbers, free)


class SmallMaker(NamedMaker):
    """Draws numbers from a short list that hypothesis shrinks, for an example that can be read."""

    def __init__(self, draw: st.DrawFn, sizes: Sizes = SIZES) -> None:
        super().__init__(draw, sizes)
        self.rng = _SmallNumbers(draw)  # type: ignore[assignment]

    def sizes(self) -> tuple[int, int, int]:
        own = self.given.shapes
        b, n, d = self.draw(st.sampled_from(_SMALL_SHAPES if self.given == SIZES else own))
        self.chosen |= {"B": b, "N": n, "d": d}
        return b, n, d

    def members(self) -> int:
        self.chosen["E"] = self.given.members[0]
        return int(self.chosen["E"])

    def elements(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.rng.standard_normal(shape)

    def particles(self, lead: tuple[int, ...], n: int, d: int, name: str = "a") -> np.ndarray:
        return self.rng.standard_normal((*lead, n, d)) / 2

    def scores(self, shape: tuple[int, ...], name: str = "g") -> np.ndarray:
        return self.rng.standard_normal(shape)


_SMALL_SHAPES = sorted(
    {*SHAPES, (1, 2, 2), (1, 3, 1), (1, 4, 1), (2, 1, 1), (2, 2, 1), (1, 1, 2), (2, 3, 1)},
    key=lambda shape: (np.prod(shape), shape),
)
_VALUES = (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 0.25, -0.75, 1.5)
_FREE = 24  # numbers of one array that are drawn one by one


class _SmallNumbers:
    """The part of NumPy's generator that equations use, with simple numbers."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def _fill(self, size: Any, values: Any) -> Any:
        shape = (size,) if isinstance(size, int) else tuple(() if size is None else size)
        count = int(np.prod(shape))
        if count > _FREE:
            seed = self._draw(st.integers(0, 3))
            return np.random.default_rng(seed).choice(np.asarray(values), shape)
        chosen = [self._draw(st.sampled_from(list(values))) for _ in range(count)]
        return np.array(chosen, np.asarray(values).dtype).reshape(shape)

    def standard_normal(self, size: Any = None) -> Any:
        return self._fill(size, _VALUES)

    def uniform(self, low: float = 0.0, high: float = 1.0, size: Any = None) -> Any:
        return self._fill(size, [low + (high - low) * x for x in (0.5, 0.0, 0.25, 0.75, 0.875)])

    def random(self, size: Any = None) -> Any:
        return self.uniform(0.0, 1.0, size)

    def choice(self, options: Any, size: Any = None) -> Any:
        return self._fill(size, options)

    def integers(self, low: int, high: int | None = None, size: Any = None) -> Any:
        low, high = (0, low) if high is None else (low, high)
        found = self._fill(size, list(range(low, min(high, low + 64))))
        return int(found) if size is None else found


def inputs(name: Any, **fixed: Any) -> st.SearchStrategy[dict[str, Any]]:
    """A hypothesis strategy of a function's arguments, by name: NumPy arrays and settings.

    Args:
        name: what can be checked, such as "phi"; see :data:`SUBJECTS`.
        fixed: arguments held at a value, such as ``temperature=None``.

    Example:
        ``@given(inputs("phi", temperature=0.1))`` for a test that takes a dict with a, g, ...

    Raises:
        VGFError: an unknown name or argument.
    """
    subject = find_subject(name)
    for key in fixed:
        if key not in (*subject.parameters, *subject.fields):
            raise VGFError(
                f"{subject.name} has no argument {key}; it has {', '.join(subject.parameters)}"
            )

    @st.composite
    def strategy(draw: st.DrawFn) -> dict[str, Any]:
        return subject.named(subject.draw(NamedMaker(draw), fixed))

    return strategy()


def as_settings(value: Any) -> bool:
    """Whether an argument is one of the specification's bundles of settings."""
    return isinstance(value, (Budget, Settings))
