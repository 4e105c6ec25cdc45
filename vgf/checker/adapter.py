"""Calling a function from outside with the specification's arguments: names, layout, framework.

An :class:`Adapter` declares what differs; what it does not declare is bound by name, and every
binding is told. Nothing here decides whether the function is right.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import operator
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..backends import get_backend, missing_packages
from ..support.errors import VGFError
from ..testing.compare import named_leaves
from .code import filled
from .draws import GENERATORS, Draws, numpy_generator
from .subjects import STEP_FROM_SCORE, Linear, Subject, choices

FRAMEWORKS = ("numpy", "torch", "jax")
CLOSURES = ("score", "value", "velocity", "critic", "field", "network")

# Other names of arguments, in the order in which they are tried. An entry may compute.
_ALIASES: dict[str, tuple[str, ...]] = {
    "a": (
        "particles",
        "particle",
        "x",
        "xs",
        "theta",
        "thetas",
        "samples",
        "actions",
        "action",
        "act",
        "acts",
        "points",
        "z",
        "position",
        "positions",
        "x_next",
        "next_actions",
    ),
    "g": (
        "grad",
        "grads",
        "score",
        "scores",
        "dlogp",
        "dlog_p",
        "dlogprob",
        "grad_logp",
        "grad_log_p",
        "log_prob_grad",
        "grad_q",
        "q_grad",
        "dq",
        "dqda",
        "dq_da",
        "gradient",
        "gradients",
        "lnpgrad",
        "score_values",
        "grad_log_prob",
        "dlnprob",
        "target_gradient",
    ),
    "temperature": ("alpha", "temp", "entropy_temperature", "softmax_temp", "t", "tau"),
    "bandwidth": ("sigma", "lengthscale", "length_scale"),
    "sigma_squared": (
        "sigma2",
        "sigma_sq",
        "sigmasq",
        "sig2",
        "s2",
        "variance",
        "var",
        "bandwidth_squared",
        "sigma_2",
    ),
    "velocity": ("phi", "direction", "drift", "v", "vel", "velocities", "update", "u", "dx"),
    "max_norm": ("clip_norm", "c", "clip", "max_grad_norm", "threshold", "norm"),
    "budget.step_size": (
        "step_size",
        "eps",
        "epsilon",
        "lr",
        "stepsize",
        "eta",
        "learning_rate",
        "step",
        "dt",
        "h",
    ),
    "budget.steps": (
        "steps",
        "n_steps",
        "num_steps",
        "n_iter",
        "n_iters",
        "num_iters",
        "iterations",
        "l",
        "nsteps",
        "k",
    ),
    "budget.temperature": ("temperature", "alpha", "temp"),
    "budget.bandwidth": ("bandwidth", "sigma"),
    "budget.low": ("low", "lo", "a_min", "min_action", "lower"),
    "budget.high": ("high", "hi", "a_max", "max_action", "upper"),
    "budget.clip_norm": ("clip_norm", "max_norm", "max_grad_norm"),
    "q": (
        "qs",
        "q_values",
        "values",
        "next_q",
        "next_qs",
        "q_next",
        "target_q",
        "target_qs",
        "q_target",
        "qvalues",
        "value",
        "q_pred",
        "pred",
        "preds",
        "predictions",
        "current_q",
    ),
    "r": ("rewards", "reward", "rew", "rews"),
    "mask": (
        "masks",
        "not_done",
        "not_dones",
        "nonterminal",
        "nonterminals",
        "continues",
        "cont",
        "continuation",
        "m",
    ),
    "1 - mask": ("done", "dones", "terminal", "terminals", "terminated", "d"),
    "discount": ("gamma", "discount_factor"),
    "how": ("q_agg", "agg", "aggregation", "ensemble", "reduce", "mode", "method"),
    "y": ("target", "targets", "td_target", "td_targets", "q_target", "target_q", "backup"),
    "expectile": ("tau", "expectile_tau"),
    "loss": ("kind", "loss_type", "critic_loss"),
    "s": ("obs", "observation", "observations", "state", "states", "ob", "context", "cond"),
    "x0": ("noise", "noises", "x_0", "z", "eps", "start", "x_init", "source"),
    "noise": ("noises", "eps", "epsilon", "z", "x0"),
    "t": ("time", "times", "timestep", "timesteps", "ts"),
    "sampling_steps": (
        "k",
        "n_steps",
        "num_steps",
        "steps",
        "flow_steps",
        "bc_flow_steps",
        "n_sampling_steps",
        "num_sampling_steps",
        "euler_steps",
    ),
    "params": ("parameters", "weights", "theta", "critic_params", "variables"),
    "u": ("uniform", "rand", "random", "uniforms", "noise"),
    "rule": ("selection", "method", "how", "mode", "strategy"),
    "gradient": ("grads", "grad", "g", "gradients", "updates"),
    "learning_rate": ("lr", "step_size", "alpha"),
    "state": ("opt_state", "adam_state", "optimizer_state", "agent"),
    "online": ("source", "params", "model", "critic", "new", "net", "online_params"),
    "target": ("target_params", "target_model", "target_critic", "old", "target_net"),
    "tau": ("polyak", "rate", "rho"),
    "tree": ("gradient", "grads", "g", "x", "params"),
    "activation": ("act", "activations", "name", "kind"),
    "scale": ("weight", "gamma", "gain"),
    "offset": ("bias", "beta", "shift"),
    "tanh": ("tanh_squash", "squash", "use_tanh"),
    "normalise": ("normalize", "q_grad_norm"),
    "cotangent": ("c", "v", "dy", "grad_output", "ct"),
    "settings": ("config", "cfg", "hparams", "conf"),
    "batch": ("data", "transitions"),
    "trajectory": ("return_trajectory",),
    "weight": ("weights", "w"),
    "baseline": ("own", "v", "value", "values"),
    "maximum": ("max_weight", "clip", "weight_max"),
    "distillation": ("alpha", "distill", "bc_coef"),
    "x": ("a", "xs", "inputs", "input", "theta"),
}
# Names that mean something particular for one function: tried before the others.
_OWN: dict[str, dict[str, tuple[str, ...]]] = {
    "td_target": {
        "q[0]": ("q1", "next_q1", "target_q1", "q1_next", "qf1_next"),
        "q[1]": ("q2", "next_q2", "target_q2", "q2_next", "qf2_next"),
        "mean(min(q, 0), 1)": (
            "v",
            "next_v",
            "v_next",
            "next_value",
            "next_values",
            "v_tp1",
            "bootstrap",
        ),
    },
    "critic_loss": {"q[0]": ("q1", "qf1"), "q[1]": ("q2", "qf2")},
    "rbf_kernel": {
        "y": ("x2", "b", "z", "other", "x_prime"),
        "sqrt(sigma_squared)": ("sigma", "bandwidth", "length_scale", "lengthscale"),
        "1 / (2 * sigma_squared)": ("gamma",),
    },
    "repulsion": {
        "sqrt(sigma_squared)": ("sigma", "bandwidth", "length_scale", "lengthscale"),
        "1 / (2 * sigma_squared)": ("gamma",),
    },
    "flow_matching_loss": {"a": ("x1", "x_1", "data", "actions", "action", "target", "x")},
    "flow_matching_gradient": {"a": ("x1", "x_1", "data", "actions", "action", "target", "x")},
    "flow_velocity": {"x": ("x_t", "xt", "a", "actions", "noisy")},
    "squared_distances": {"y": ("x2", "b", "z", "other"), "x": ("x1", "a")},
}
# Names of arguments that are functions, and of what kind.
_CLOSURE_NAMES: dict[str, tuple[str, ...]] = {
    "score": (
        "score_fn",
        "grad_fn",
        "score_function",
        "score",
        "g",
        "dlnprob",
        "lnprob_grad",
        "grad_log_prob",
        "grad_logdensity_fn",
        "grad_logp",
        "gradient_fn",
        "grad_q_fn",
        "grad_q",
        "lnprob",
        "target_gradient",
        "velocity",
        "v",
        "velocity_fn",
        "field",
        "vector_field",
    ),
    "value": (
        "q_fn",
        "value_fn",
        "q_function",
        "qf",
        "log_prob",
        "logp",
        "logdensity_fn",
        "log_density",
        "log_prob_fn",
        "logprob",
        "value",
        "energy",
        "q",
        "reward_fn",
    ),
    "velocity": (
        "velocity",
        "velocity_fn",
        "v",
        "model",
        "net",
        "network",
        "flow",
        "vf",
        "vector_field",
        "velocity_field",
        "actor_bc",
        "flow_net",
        "v_theta",
        "field",
        "fn",
        "policy",
        "actor",
        "drift",
    ),
    "critic": ("critic", "q", "q_fn", "qf", "q_function", "critic_fn", "value_fn", "model", "net"),
    "field": ("field", "f", "gradient_field", "net", "network", "model", "fn", "value_grad"),
    "network": ("net", "network", "model", "fn", "mlp", "f", "actor", "policy", "mean"),
}
# Which kind of function stands in for the parameters of a network.
_NETWORKS = {
    "flow_velocity": "velocity",
    "flow_matching_loss": "velocity",
    "flow_sample": "velocity",
    "critic_values": "critic",
    "action_gradient": "critic",
    "critic_transport": "critic",
    "gradient_field": "field",
    "gradient_field_loss": "field",
    "amortised_transport": "field",
}


@dataclasses.dataclass(frozen=True)
class Adapter:
    """How a function's signature differs from the specification's.

    Args:
        arguments: their argument -> ours, or an expression of ours: ``{"h": "2 * sigma_squared"}``,
            ``{"q1": "q[0]", "done": "1 - mask"}``.
        constants: values held fixed: of an argument of theirs that is none of ours, or of ours
            (``{"temperature": 0.1}``, ``{"budget.optimiser": "adam"}``).
        layout: our argument, or "result", -> the order of its axes as theirs has them,
            ``{"a": "N B d"}``; an axis left out must have the size 1. Under "" for all arrays.
        single: theirs takes one state (one row of the batch) at a time.
        returns: what of their result is meant: an index, a key, or an expression of `result` and
            our arguments, such as ``"-result"`` or ``"result[0]"``.
        closures: their argument -> the kind of function it is given: "score" (particles -> grad Q),
            "value" (particles -> Q, to be differentiated), or for functions with a network
            "velocity" v(s, x, t), "critic" Q(s, a) -> [E, *], "field" f(s, a), "network" f(x).
            "(a)" or "(s, a)" after the kind says what it is called with.
        framework: "numpy", "torch" or "jax": the arrays theirs is given; None finds out.
    """

    arguments: Mapping[str, str] = dataclasses.field(default_factory=dict)
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    layout: Mapping[str, str] = dataclasses.field(default_factory=dict)
    single: bool = False
    returns: str | int | None = None
    closures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    framework: str | None = None

    def __post_init__(self) -> None:
        if self.framework is not None and self.framework not in FRAMEWORKS:
            raise VGFError(
                f"framework {self.framework!r} is unknown; choose one of {', '.join(FRAMEWORKS)}"
            )
        for name, kind in self.closures.items():
            if kind.partition("(")[0].strip() not in CLOSURES:
                raise VGFError(
                    f"closure {name}={kind}: {kind!r} is unknown; choose one of "
                    f"{', '.join(CLOSURES)}"
                )


# --- expressions ---------------------------------------------------------------------------------

_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.MatMult: operator.matmul,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sqrt": lambda x: x**0.5,
    "exp": np.exp,
    "log": np.log,
    "abs": abs,
    "mean": lambda x, axis=None: np.mean(x, axis=axis),
    "min": lambda x, axis=None: np.min(x, axis=axis),
    "max": lambda x, axis=None: np.max(x, axis=axis),
    "sum": lambda x, axis=None: np.sum(x, axis=axis),
}


class Config(dict[str, Any]):
    """A dict whose items are attributes too, as a batch or a configuration is often read."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@functools.cache
def _register_config() -> None:
    """Let JAX look into a :class:`Config`: numbers and arrays change, words do not."""
    import jax

    def parts(config: Config) -> tuple[list[Any], tuple[Any, ...]]:
        moving = [key for key, value in config.items() if _is_traced(value)]
        still = tuple((key, value) for key, value in config.items() if key not in moving)
        return [config[key] for key in moving], (tuple(moving), still, tuple(config))

    def whole(aux: tuple[Any, ...], values: Any) -> Config:
        found = {**dict(zip(aux[0], values, strict=True)), **dict(aux[1])}
        return Config((key, found[key]) for key in aux[2])

    jax.tree_util.register_pytree_node(Config, parts, whole)


class Expression:
    """Arithmetic on named arguments, written by a user: names, numbers, indices, attributes."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except SyntaxError:
            raise VGFError(f"{text!r} is not an expression such as q[0], 1 - mask or -g") from None
        self.names = {
            node.id
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Name) and node.id not in _FUNCTIONS
        }
        self.dotted = {
            f"{node.value.id}.{node.attr}"
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        }

    @property
    def place(self) -> tuple[str, ...]:
        """The argument and the keys below it, of ``params['log_std']``; else nothing."""
        node, keys = self._tree, []
        while isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            if not isinstance(node.slice.value, str):
                return ()
            keys.append(node.slice.value)
            node = node.value
        return (node.id, *reversed(keys)) if isinstance(node, ast.Name) else ()

    def __call__(self, values: Mapping[str, Any]) -> Any:
        return self._value(self._tree, values)

    def __str__(self) -> str:
        return self.text

    def _value(self, node: ast.AST, values: Mapping[str, Any]) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name) and node.id in values:
            return values[node.id]
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            left, right = self._value(node.left, values), self._value(node.right, values)
            return _OPERATORS[type(node.op)](left, right)
        if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](self._value(node.operand, values))
        if isinstance(node, ast.Tuple):
            return tuple(self._value(item, values) for item in node.elts)
        if isinstance(node, ast.Dict) and None not in node.keys:
            return Config(
                (self._value(key, values), self._value(value, values))
                for key, value in zip(node.keys, node.values, strict=True)
                if key is not None
            )
        if isinstance(node, ast.Slice):
            ends = (node.lower, node.upper, node.step)
            return slice(*(None if e is None else self._value(e, values) for e in ends))
        if isinstance(node, ast.Subscript):
            return self._value(node.value, values)[self._value(node.slice, values)]
        if isinstance(node, ast.Attribute) and not node.attr.startswith("_"):
            holder = self._value(node.value, values)
            return holder[node.attr] if isinstance(holder, dict) else getattr(holder, node.attr)
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in _FUNCTIONS
            and not node.keywords
        ):
            return _FUNCTIONS[node.func.id](*(self._value(x, values) for x in node.args))
        raise VGFError(
            f"{self.text!r}: {ast.unparse(node)} is not understood; use names of arguments "
            f"({', '.join(sorted(values))}), numbers, + - * / **, [ ], and "
            f"{', '.join(sorted(_FUNCTIONS))}"
        )


# --- frameworks ----------------------------------------------------------------------------------


class Arrays:
    """Arrays of one framework: to it and back.

    Attributes:
        name: "numpy", "torch" or "jax".
    """

    def __init__(self, name: str, with_gradient: bool = False) -> None:
        missing = missing_packages(name)
        if missing:
            raise VGFError(
                f"framework {name!r} needs {' and '.join(missing)}, not installed here; install "
                f"the extra: pip install 'vgf[{name}]'"
            )
        self.name, self.with_gradient = name, with_gradient
        self._backends: dict[str, Any] = {}

    def backend(self, dtype: str) -> Any:
        """The backend of this framework, for functions made from networks."""
        if dtype not in self._backends:
            self._backends[dtype] = get_backend(self.name, dtype=dtype, device="cpu")
        return self._backends[dtype]

    def make(self, value: Any, dtype: str) -> Any:
        """NumPy arrays, in dicts and tuples too, as arrays that the framework's functions take."""
        if isinstance(value, dict):
            return type(value)((key, self.make(item, dtype)) for key, item in value.items())
        if isinstance(value, (tuple, list)) and not isinstance(value, str):
            return type(value)(self.make(item, dtype) for item in value)
        if not isinstance(value, (np.ndarray, np.generic)):
            return value
        array = np.array(value)
        if array.dtype.kind == "f":
            array = array.astype(dtype)
        if self.name == "torch":
            import torch

            tensor = torch.from_numpy(array) if array.ndim else torch.tensor(array[()])
            return (
                tensor.requires_grad_()
                if self.with_gradient and array.dtype.kind == "f"
                else (tensor)
            )
        if self.name == "jax":
            self.backend("float64")  # switches x64 on
            _register_config()
        return array  # JAX's programs take NumPy's arrays sooner than its own


def to_numpy(value: Any) -> Any:
    """Anything that turns into arrays: tensors, lists of numbers, dicts, named tuples, objects.

    Raises:
        TypeError: it does not.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return value if value is None else np.asarray(value)
    if isinstance(value, Mapping):
        return {key: to_numpy(item) for key, item in value.items()}
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            return value.float().numpy().astype(np.float16)
        return np.array(value.numpy())
    if isinstance(value, (tuple, list)):
        if _is_nested(value):
            return np.asarray(value)
        if isinstance(value, list) and len({getattr(x, "shape", None) for x in value}) == 1:
            parts = [to_numpy(item) for item in value]
            if all(isinstance(part, np.ndarray) for part in parts):
                return np.stack(parts)
        return tuple(to_numpy(item) for item in value)
    array = np.asarray(value)
    if array.dtype == object and hasattr(value, "numpy"):
        array = np.asarray(value.numpy())
    if array.dtype == object:
        raise TypeError(f"a {type(value).__name__} does not turn into arrays")
    if array.dtype.kind not in "fiub":  # bfloat16 of JAX
        return array.astype(np.float16)
    return array


def _is_nested(value: Any) -> bool:
    """Whether a list holds numbers, or lists of them, and nothing else."""
    if isinstance(value, (tuple, list)):
        return len(value) > 0 and all(_is_nested(item) for item in value)
    return isinstance(value, (bool, int, float))


def guess_frameworks(function: Any) -> list[str]:
    """The frameworks a function may want, the likeliest first, judged by the names it uses."""
    used: set[str] = {getattr(function, "framework", "")}  # of a module
    _collect(function, used, 0)
    first: list[str] = [name for name in ("torch", "jax") if name in used]
    if len(first) == 2 or not first:
        first = first if "numpy" not in used else ["numpy", *first]
    order = dict.fromkeys([*first, "numpy", "torch", "jax"])
    return [name for name in order if not missing_packages(name)]


_PACKAGES = {"jaxlib": "jax", "flax": "jax", "optax": "jax", "haiku": "jax"}


def _collect(function: Any, used: set[str], depth: int) -> None:
    """The frameworks that a function's code, and that of functions it calls, refers to."""
    function = getattr(function, "__func__", function)
    function = getattr(function, "func", function)  # functools.partial
    function = getattr(function, "__wrapped__", function)
    package = (getattr(function, "__module__", "") or "").partition(".")[0]
    used.add(_PACKAGES.get(package, package))
    if not hasattr(function, "__code__"):
        call: Any = getattr(type(function), "forward", type(function).__call__)
        if depth < 6 and hasattr(call, "__code__"):
            _collect(call, used, depth + 1)
        return
    codes = [function.__code__]
    for code in codes:
        codes += [c for c in code.co_consts if hasattr(c, "co_names")]
    names = {name for code in codes for name in code.co_names}
    cells = [c.cell_contents for c in function.__closure__ or () if filled(c)]
    for value in [function.__globals__.get(name) for name in names] + cells:
        package = (getattr(value, "__module__", "") or "").partition(".")[0]
        if inspect.ismodule(value):
            package = value.__name__.partition(".")[0]
        used.add(_PACKAGES.get(package, package))
        own = getattr(value, "__module__", None) == function.__module__
        if depth < 6 and own and callable(value):
            _collect(value, used, depth + 1)
    for name in names & {"torch", "jax"}:  # imported inside the function
        used.add(name)


# --- binding -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Source:
    """What one of their arguments is given.

    Attributes:
        kind: "ours" (an expression of our arguments), "closure", "constant" or "generator".
        value: the expression, the kind of closure, the constant, or the generator's name.
    """

    kind: str
    value: Any

    def __str__(self) -> str:
        if self.kind == "generator":
            return "a generator"
        return f"{self.value}" if self.kind != "closure" else f"a function ({self.value})"


@dataclasses.dataclass(frozen=True)
class Reading:
    """One way to call their function.

    Attributes:
        subject: what is drawn and computed.
        sources: for each argument of theirs that is passed, what it is given.
        positional: how many of them are passed by position, from the first.
        fixed: our arguments that are held at a value, because theirs does not take them.
        single: one state at a time.
        numbers: our arguments that are never None, because theirs cannot take that.
        drawn: our random arguments, given to theirs wherever it draws numbers itself.
    """

    subject: Subject
    sources: Mapping[str, Source]
    positional: frozenset[str]
    fixed: Mapping[str, Any]
    single: bool = False
    numbers: frozenset[str] = frozenset()
    drawn: tuple[str, ...] = ()

    def uses(self) -> set[str]:
        """Our names that reach theirs."""
        used: set[str] = set()
        for source in self.sources.values():
            if source.kind == "ours":
                used |= source.value.names | source.value.dotted
            elif source.kind == "closure":
                used |= _stands_for(self.subject, source.value) | {"g", "score", "velocity"}
        return used


def _plain(name: str) -> str:
    return name.lower().strip("_")


def bind(
    function: Any, subject: Subject, adapter: Adapter, numbers: tuple[float, ...] = ()
) -> list[Reading]:
    """The ways to call a function that its argument names, and the adapter, allow.

    Args:
        numbers: of its code, to hold what it does not take at, beside the usual values.

    Raises:
        VGFError: an argument that is none of ours, or a declaration that fits nothing.
    """
    forms = [subject]
    if subject.name == "flow_step":
        forms = _step_forms(function, subject, adapter)
    readings: list[Reading] = []
    for form in forms:
        readings += _bind_form(function, form, adapter, numbers)
    return readings


def parameters_of(function: Any) -> list[inspect.Parameter] | None:
    """The arguments that a function names, or None where it cannot be asked."""
    try:
        signature = inspect.signature(_called(function))
    except (TypeError, ValueError):
        return None
    return [
        p
        for p in signature.parameters.values()
        if p.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]


def _called(function: Any) -> Any:
    """What says which arguments a call takes: the `forward` of a torch module."""
    forward = getattr(function, "forward", None)
    return forward if hasattr(function, "named_parameters") and callable(forward) else function


def _step_forms(function: Any, subject: Subject, adapter: Adapter) -> list[Subject]:
    """A flow step is given a velocity; one that is given scores computes phi itself."""
    names = {_plain(p.name) for p in parameters_of(function) or []}
    ours = {name for text in adapter.arguments.values() for name in Expression(text).names}
    scores = names & {"g", *_ALIASES["g"]} - set(map(_plain, adapter.arguments))
    velocity = names & {"velocity", *_ALIASES["velocity"]}
    if "g" in ours or (scores and not velocity and "velocity" not in ours):
        return [STEP_FROM_SCORE]
    wants_kernel = names & {"temperature", "alpha", "bandwidth", "sigma"}
    return [STEP_FROM_SCORE] if wants_kernel and not velocity else [subject]


def _bind_form(
    function: Any, subject: Subject, adapter: Adapter, numbers: tuple[float, ...]
) -> list[Reading]:
    parameters = parameters_of(function)
    visible = [*subject.parameters, *subject.fields]
    for name in (*adapter.layout,):
        if name and name != "result" and name not in subject.axes:
            raise VGFError(
                f"layout: {subject.name} has no array {name!r}; it has {', '.join(subject.axes)}"
            )
    if parameters is None or not parameters:  # it takes *args, or cannot be asked: our order
        order = [name for name in subject.parameters if name not in adapter.constants]
        if parameters is None or not parameters:
            data = [name for name in order if name in subject.axes] or order
            sources = {name: Source("ours", Expression(name)) for name in data}
            return _with_choices(
                subject, sources, frozenset(data), adapter, set(data), None, numbers
            )
    assert parameters is not None
    by_name = {p.name: p for p in parameters}
    takes_more = any(
        p.kind == inspect.Parameter.VAR_KEYWORD
        for p in inspect.signature(_called(function)).parameters.values()
    )
    for name in (*adapter.arguments, *adapter.closures):
        if name not in by_name and not takes_more:
            raise VGFError(
                f"{_label(function)} takes no argument {name}; it takes {', '.join(by_name)}"
            )
    sources, taken = {}, set()
    for theirs, text in adapter.arguments.items():
        expression = Expression(text)
        known = {name.partition(".")[0] for name in visible} | _sizes_of(subject)
        for name in expression.names - known:
            near = _near(name, [*visible])
            raise VGFError(f"--arg {theirs}={text}: {subject.name} has no argument {name}; {near}")
        field = text.strip() in _functions(subject)
        sources[theirs] = Source("closure", "score") if field else Source("ours", expression)
        taken |= (expression.names - _sizes_of(subject)) | expression.dotted
    for theirs, kind in adapter.closures.items():
        sources[theirs] = Source("closure", kind)
        carried = _stands_for(subject, kind)
        if "params" in carried and "params" not in subject.parameters:
            raise VGFError(
                f"--closure {theirs}={kind}: {subject.name} has no network; say {theirs}=score, "
                f"or {theirs}=value"
            )
        taken |= carried
    fixed = {}
    for name, value in adapter.constants.items():
        ours = name if name in visible else f"budget.{name}"
        if ours in visible:
            fixed[ours] = value
        elif name in by_name or takes_more:
            sources[name] = Source("constant", value)
        else:
            raise VGFError(
                f"--constant {name}: neither {_label(function)} nor {subject.name} has an argument "
                f"{name}; {_near(name, [*by_name, *visible])}"
            )
    candidates = _candidates(by_name, subject, sources, taken)
    for name in by_name:
        if name not in sources and name not in candidates:
            found = _made_up(name, by_name[name], subject)
            if found is not None:
                sources[name] = found
                if found.kind == "ours":
                    taken |= found.value.names - _sizes_of(subject)
    unknown = [
        name
        for name, p in by_name.items()
        if name not in sources and name not in candidates and p.default is inspect.Parameter.empty
    ]
    if unknown:
        raise VGFError(
            f"{_label(function)}: cannot tell what its argument {unknown[0]} is; say so with "
            f"--arg {unknown[0]}=OURS, where OURS is one of {', '.join(visible)}, with --constant "
            f"{unknown[0]}=VALUE, or with --closure {unknown[0]}=score or value"
        )
    readings = []
    for chosen in _combinations(candidates):
        everything = {**sources, **chosen}
        by_position = frozenset(
            name for name, p in by_name.items() if p.kind == inspect.Parameter.POSITIONAL_ONLY
        )
        ordered = {n: everything[n] for n in [*by_name, *everything] if n in everything}
        used = set(taken)
        for source in ordered.values():
            if source.kind == "ours":
                used |= source.value.names | source.value.dotted
            elif source.kind == "closure":
                used |= _stands_for(subject, source.value)
        readings += _with_choices(subject, ordered, by_position, adapter, used, fixed, numbers)
    return readings


def _sizes_of(subject: Subject) -> set[str]:
    """Names of sizes that an expression may use: B, N, d, E, o."""
    axes = {axis for names in subject.axes.values() for axis in names if axis.isalpha()}
    return axes - set(subject.parameters)


# What an argument that is one bundle of arrays, or of settings, holds under its usual keys.
_BUNDLES = {
    ("batch", "data", "transitions"): {
        "observations": "s",
        "actions": "a",
        "rewards": "r",
        "masks": "mask",
        "terminals": "1 - mask",
    },
    ("config", "cfg", "hparams", "conf", "args"): {
        "discount": "discount",
        "tau": "tau",
        "q_agg": "how",
        "expectile": "expectile",
        "flow_steps": "sampling_steps",
        "alpha": "distillation",
    },
}
_SIZE_NAMES = {
    "d": ("action_dim", "act_dim", "ac_dim", "a_dim", "n_actions", "dim_a"),
    "B": ("batch_size", "n_states", "bs"),
    "N": ("n_particles", "num_particles", "n_samples", "num_samples"),
    "o": ("obs_dim", "observation_dim", "state_dim", "ob_dim"),
}


def _made_up(name: str, parameter: inspect.Parameter, subject: Subject) -> Source | None:
    """A generator, a bundle of arrays or of settings, or a size, by the argument's name."""
    plain, has_default = _plain(name), parameter.default is not inspect.Parameter.empty
    if subject.noise and plain in GENERATORS and not has_default:
        return Source("generator", plain)
    for size, names in _SIZE_NAMES.items():
        if plain in names and size in _sizes_of(subject):
            return Source("ours", Expression(size))
    for names, parts in _BUNDLES.items():
        if plain in names and not has_default and subject.name not in ("update", "act"):
            held = {
                key: text
                for key, text in parts.items()
                if Expression(text).names <= set(subject.parameters)
            }
            if held:
                inside = ", ".join(f"'{key}': {text}" for key, text in held.items())
                return Source("ours", Expression(f"{{{inside}}}"))
    return None


def _near(name: str, options: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, options, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(options)}"


def _label(function: Any) -> str:
    return getattr(function, "__qualname__", None) or type(function).__name__


def _stands_for(subject: Subject, kind: str) -> set[str]:
    """Our arguments that a closure carries with it."""
    kind = kind.partition("(")[0].strip()
    if kind in ("score", "value"):
        return {"score", "velocity", "g"} & set(subject.parameters)
    if kind == "critic" and "critic" in subject.parameters:
        return {"critic", "critic_activation"}
    return {"params", "activation"}


def _functions(subject: Subject) -> set[str]:
    """Our arguments that are functions of the particles."""
    found = {"score", "velocity"} if subject.name in ("transport", "follow") else set()
    return found & set(subject.parameters)


def _candidates(
    by_name: Mapping[str, inspect.Parameter],
    subject: Subject,
    sources: Mapping[str, Source],
    taken: set[str],
) -> dict[str, list[Source]]:
    """What each argument of theirs that nothing was declared for may be, the likeliest first."""
    taken = set(taken)
    found: dict[str, list[Source]] = {}
    left = [name for name in by_name if name not in sources]
    fields = {name.partition(".")[2]: name for name in subject.fields}
    functions = _functions(subject)
    for name in left:  # our own names first
        plain = _plain(name)
        ours = next((p for p in subject.parameters if _plain(p) == plain), fields.get(plain, ""))
        if ours and ours not in taken:
            kind = "score" if ours in functions and ours in subject.parameters[:1] else ""
            found[name] = [Source("closure", kind) if kind else Source("ours", Expression(ours))]
            taken.add(ours)
    for name in left:
        if name in found:
            continue
        options = _by_alias(_plain(name), subject, taken)
        if options:
            found[name] = options
            for option in options[:1]:
                if option.kind == "ours":
                    taken |= option.value.dotted or option.value.names
                else:
                    taken |= _stands_for(subject, option.value)
    return found


def _by_alias(plain: str, subject: Subject, taken: set[str]) -> list[Source]:
    options: list[Source] = []
    own = _OWN.get(subject.name, {})
    fields = set(subject.fields)
    closures = []
    if subject.name in ("transport", "follow"):
        closures = ["score", "value"]
    elif subject.name in ("phi", "flow_step") and "g" in subject.parameters:
        closures = ["score", "value"] if plain.endswith(("_fn", "function", "density")) else []
    elif subject.name in _NETWORKS:
        closures = [_NETWORKS[subject.name]]
    elif "params" in subject.parameters:
        closures = ["network"]
    for kind in closures:
        if plain in _CLOSURE_NAMES[kind] and not _stands_for(subject, kind) & taken:
            options.append(Source("closure", kind))
    for table in (own, _ALIASES):
        for ours, names in table.items():
            if not _spellings(plain) & set(names):
                continue
            expression = Expression(ours)
            roots = {name.partition(".")[0] for name in expression.names}
            if expression.dotted:
                if not expression.dotted <= fields or expression.dotted & taken:
                    continue
            elif not roots <= set(subject.parameters) or (
                roots & taken and "[" not in ours and ours not in own
            ):
                continue
            if any(str(option) == ours for option in options):
                continue
            options.append(Source("ours", expression))
    if not options and plain in _CLOSURE_NAMES["score"] and "g" in subject.parameters:
        options.append(Source("ours", Expression("g")))
    return options[:3]


def _spellings(plain: str) -> set[str]:
    """A name, and what it is in the singular or the plural."""
    words = {plain, f"{plain}s"}
    return words | {plain.removesuffix("s")} if len(plain) > 2 else words


def _combinations(candidates: Mapping[str, list[Source]]) -> list[dict[str, Source]]:
    """Every choice of one candidate for each argument, none of ours given twice; 24 at most."""
    found: list[dict[str, Source]] = [{}]
    for name, options in candidates.items():
        found = [{**start, name: option} for option in options for start in found][:24]

    def doubled(choice: dict[str, Source]) -> bool:
        texts = [str(source) for source in choice.values()]
        return len(set(texts)) < len(texts)

    return [choice for choice in found if not doubled(choice)] or found[:1]


def _with_choices(
    subject: Subject,
    sources: Mapping[str, Source],
    positional: frozenset[str],
    adapter: Adapter,
    used: set[str],
    fixed: Mapping[str, Any] | None = None,
    numbers: tuple[float, ...] = (),
) -> list[Reading]:
    """A reading for each way of holding fixed what their function does not take."""
    readings: list[dict[str, Any]] = [dict(fixed or {})]
    fixed_names = set(readings[0])
    whole = "budget" in used and not any(name.startswith("budget.") for name in used)
    names = [*subject.parameters, *(() if whole else subject.fields)]
    takes_state = "state" in used and subject.name == "flow_step"
    for name in names:
        base = name.partition(".")[0]
        if name in used or name in readings[0] or (base in used and base != "budget"):
            continue
        if name == "budget.optimiser" and takes_state:
            options: tuple[Any, ...] = ("adam",)
        elif name == "activation" and "params" in used and not _passes(sources, "activation"):
            closed = any(
                s.kind == "closure" and "activation" in _stands_for(subject, s.value)
                for s in sources.values()
            )
            options = () if closed else choices(subject, name, used)
        else:
            options = choices(subject, name, used)
        options = (*options, *(x for x in _fitting(name, numbers) if x not in options))
        if options and name not in subject.axes:
            readings = [{**held, name: option} for option in options for held in readings]
    most = 32 if not numbers else 120
    drawn = tuple(name for name in subject.noise if name not in fixed_names)
    return [
        Reading(subject, sources, positional, held, adapter.single, drawn=drawn)
        for held in readings[:most]
    ]


# Numbers that a function may hold inside, and where each of them lies.
_HELD = {
    "temperature": (1e-4, 1e3),
    "bandwidth": (1e-3, 1e3),
    "discount": (0.5, 1.0),
    "expectile": (0.5, 1.0),
    "tau": (1e-4, 1.0),
    "max_norm": (1e-3, 1e3),
    "learning_rate": (1e-6, 1.0),
    "distillation": (1e-3, 1e4),
    "maximum": (1.0, 1e4),
    "sampling_steps": (1, 100),
    "budget.step_size": (1e-4, 1.0),
    "budget.temperature": (1e-4, 1e3),
    "budget.clip_norm": (1e-3, 1e3),
    "budget.steps": (1, 64),
}


def _fitting(name: str, numbers: tuple[float, ...]) -> list[Any]:
    """The numbers of a function's code that an argument of ours may be held at."""
    low, high = _HELD.get(name, (1.0, 0.0))
    found = [x for x in numbers if low <= x <= high]
    if name in ("sampling_steps", "budget.steps"):
        return [int(x) for x in found if x == int(x)]
    return list(found)


def _passes(sources: Mapping[str, Source], name: str) -> bool:
    return any(s.kind == "ours" and name in s.value.names for s in sources.values())


# --- calling -------------------------------------------------------------------------------------


class Caller:
    """Their function, called with our arguments by one reading, its result as NumPy arrays."""

    def __init__(self, function: Any, reading: Reading, adapter: Adapter, arrays: Arrays) -> None:
        self.function, self.reading, self.adapter, self.arrays = function, reading, adapter, arrays
        returns = adapter.returns
        text = str(returns) if returns is not None else None
        if text is not None and text.lstrip("-").isdigit():
            text = f"result[{text}]"
        elif text is not None and text.isidentifier() and text != "result":
            text = f"result.{text}"
        self._returns = None if text is None else Expression(text)
        self.changed = ""
        self.draws = Draws(function) if reading.drawn else None
        # JAX compiles theirs where it can be traced: eager JAX is a hundred times slower
        self.eager = arrays.name != "jax"
        self._compiled = _programs_of(function)
        # jax.jit with static arguments would refuse traced ones; compiled here, it needs no jit
        jitted = type(function).__name__ == "PjitFunction"
        self._traced = function.__wrapped__ if jitted else function
        self._differentiate = False
        self._calls = 0

    @property
    def slow(self) -> bool:
        """Whether a call takes milliseconds: JAX, one operation at a time."""
        return self.arrays.name == "jax" and self.eager

    @contextlib.contextmanager
    def afresh(self) -> Iterator[None]:
        """Run theirs itself meanwhile, and nothing that was compiled of it before."""
        before, self._compiled = self._compiled, {}
        try:
            yield
        finally:
            self._compiled = before

    def __call__(self, named: Mapping[str, Any], dtype: str) -> Any:
        """The result for drawn arguments; :attr:`changed` names what was changed in place."""
        self.changed = ""
        if not self.reading.single:
            return self._call(named, dtype, batch=True)
        axes = self.reading.subject.axes
        self._sizes = self.reading.subject.sizes(named)
        states = next(
            (named[k].shape[a.index("B")] for k, a in axes.items() if k != "result" and "B" in a), 0
        )
        rows = []
        for i in range(states):
            row = {
                key: np.take(value, i, axis=axes[key].index("B"))
                if key in axes and "B" in axes[key]
                else value
                for key, value in named.items()
            }
            rows.append(self._call(row, dtype, batch=False))
        place = axes.get("result", ("B",)).index("B") if "B" in axes.get("result", ("B",)) else 0
        return _stack(rows, place, "B" in axes.get("result", ("B",)))

    def _call(self, named: Mapping[str, Any], dtype: str, batch: bool) -> Any:
        values = {key: self._laid_out(key, value, batch) for key, value in named.items()}
        values = {**(self.reading.subject.sizes(named) if batch else self._sizes), **values}
        given: dict[str, Any] = {}
        for theirs, source in self.reading.sources.items():
            if source.kind == "constant":
                given[theirs] = source.value
            elif source.kind == "closure":
                given[theirs] = self._closure(source.value, named, dtype)
            elif source.kind == "generator":
                given[theirs] = self._generator(source.value)
            else:
                found = source.value(values)
                given[theirs] = self.arrays.make(found, dtype)
        self._calls += 1
        self._watch = self.arrays.name != "jax" and (self._calls < 40 or self._calls % 4 == 0)
        before = {
            name: [np.array(leaf) for _, leaf in named_leaves(to_numpy(value))]
            for name, value in given.items()
            if self._watch and _holds_arrays(value)
        }
        positional = [given.pop(n) for n in list(given) if n in self.reading.positional]
        if self.draws is not None:
            kinds = self.reading.subject.noise
            self.draws.give([(n, kinds[n], named[n]) for n in self.reading.drawn])
        if self._differentiate:
            return self._gradients(positional, given)
        with contextlib.ExitStack() as stack:
            if self.draws is not None:
                stack.enter_context(self.draws)
            result = self._result(positional, given)
            if self.draws is not None:
                result = to_numpy(result) if self._returns is None else result
        for name, kept in before.items():
            if name in given and not _same(kept, to_numpy(given[name])):
                self.changed = name
        if self._returns is not None:
            ours = {key: self.arrays.make(value, dtype) for key, value in values.items()}
            try:
                result = self._returns({**ours, "result": result})
            except (KeyError, IndexError, AttributeError, TypeError) as error:
                raise VGFError(
                    f"--returns {self.adapter.returns}: their result, a {type(result).__name__}, "
                    f"has no such part ({type(error).__name__}: {error})"
                ) from None
        return self._laid_back(to_numpy(result), batch)

    def _result(self, positional: list[Any], given: dict[str, Any]) -> Any:
        def eagerly() -> Any:
            words, named = positional, given
            if self.arrays.name == "jax":
                words, named = _as_jax(positional), _as_jax(given)
            return self.function(*map(_opened, words), **{k: _opened(v) for k, v in named.items()})

        if self.eager:
            return eagerly()
        import jax

        everything: dict[Any, Any] = {**dict(enumerate(positional)), **given}
        closures, dynamic, static = _parted(everything)
        # what a program is compiled for, beside the shapes
        words = [
            (k, v.kind, v.activation, v.place, getattr(v.backend, "dtype", ""))
            for k, v in closures.items()
        ]
        key = repr((sorted(static.items(), key=str), sorted(words, key=str), list(everything)))
        if key not in self._compiled:
            names = list(everything)
            call = self._program(self._traced, closures, static, names, len(positional))
            # compiling is most of the time, and each program runs a few times
            self._compiled[key] = jax.jit(call, compiler_options=_QUICKLY)
        try:
            return self._compiled[key](dynamic)
        except Exception as error:
            if not _of_tracing(error):
                raise  # one operation at a time it would raise too, after compiling each
            result = eagerly()
            self.eager = True
            return result

    def _program(
        self,
        function: Any,
        closures: Mapping[Any, _Closure],
        static: Mapping[Any, Any],
        names: list[Any],
        n: int,
    ) -> Callable[[dict[str, Any]], Any]:
        """Theirs as a function of arrays alone."""
        held = {k: dataclasses.replace(v, arrays=None) for k, v in closures.items()}

        def call(arrays: dict[str, Any]) -> Any:
            own = {
                k: held[k].function(arrays[str(k)])
                if k in held
                else arrays.get(str(k), static.get(k))
                for k in names
            }
            words = [own.pop(i) for i in range(n)]
            return function(*words, **own)

        return call

    def gradients(self, named: Mapping[str, Any], dtype: str) -> dict[str, Any] | None:
        """The gradients of a scalar result: of "params", "critic" and other arrays of ours.

        Flat, by the arrays' names; arrays that theirs is not given are left out. None where the
        result depends on nothing that can be differentiated.

        Raises:
            VGFError: an argument is computed of a network's arrays.
        """
        for name, source in self.reading.sources.items():
            made = source.kind == "ours" and "params" in source.value.names
            if made and not _network_of(self.reading, source):
                raise VGFError(f"{name} is computed of params")
        self._differentiate = True
        with_gradient, self.arrays.with_gradient = self.arrays.with_gradient, True
        try:
            found: dict[str, Any] | None = self._call(named, dtype, batch=True)
            return found
        finally:
            self._differentiate, self.arrays.with_gradient = False, with_gradient

    def _gradients(self, positional: list[Any], given: dict[str, Any]) -> Any:
        everything: dict[Any, Any] = {**dict(enumerate(positional)), **given}
        closures, dynamic, static = _parted(everything)
        networks = {
            str(k): _network_of(self.reading, self.reading.sources[str(k)])
            for k in everything
            if str(k) in self.reading.sources
        }
        own = {k: v for k, v in dynamic.items() if networks.get(k)}
        if not own:
            return {}
        with contextlib.ExitStack() as stack:
            if self.draws is not None:
                stack.enter_context(self.draws)
            if self.arrays.name == "jax":
                import jax

                names = list(everything)
                call = self._program(self.function, closures, static, names, len(positional))
                program = lambda part: self._scalar(call({**dynamic, **part}))
                found = jax.grad(program)(own)
            else:
                import torch

                words = [_opened(x) for x in positional]
                result = self._scalar(
                    self.function(*words, **{k: _opened(v) for k, v in given.items()})
                )
                if not getattr(result, "requires_grad", False):
                    return None
                names = [name for name, _ in named_leaves(own)]
                leaves = [x for _, x in named_leaves(own)]
                slopes = torch.autograd.grad(result, leaves, allow_unused=True)
                flat = {
                    name: torch.zeros_like(x) if slope is None else slope
                    for name, x, slope in zip(names, leaves, slopes, strict=True)
                }
                found = _unflattened(own, flat)
            found = to_numpy(found)
        whole: dict[str, Any] = {}
        for k, tree in found.items():  # a network may be given twice, or in parts
            name, *keys = networks[k]
            flat = whole.setdefault(name, {})
            for leaf, x in named_leaves(tree):
                path = ".".join([*keys, leaf] if leaf else keys)
                flat[path] = flat.get(path, 0.0) + x
        return whole

    def _scalar(self, result: Any) -> Any:
        """The loss of what theirs returns."""
        if self._returns is not None:
            result = self._returns({"result": result})
        if isinstance(result, tuple):
            (result,) = (x for x in result if hasattr(x, "ndim") and x.ndim == 0)
        return result

    def _laid_out(self, name: str, value: Any, batch: bool) -> Any:
        ours = self.reading.subject.axes.get(name)
        theirs = self.adapter.layout.get(name, self.adapter.layout.get(""))
        if ours is None or theirs is None:
            return value
        return _transpose(
            value, ours if batch else tuple(x for x in ours if x != "B"), theirs.split(), name
        )

    def _laid_back(self, value: Any, batch: bool) -> Any:
        ours = self.reading.subject.axes.get("result")
        theirs = self.adapter.layout.get("result", self.adapter.layout.get(""))
        if ours is None or theirs is None or not isinstance(value, np.ndarray):
            return value
        ours = ours if batch else tuple(x for x in ours if x != "B")
        names = theirs.split()
        if set(ours) - {"1"} != set(names) - {"1"} or value.ndim != len(names):
            return value
        order = [names.index(axis) for axis in ours]
        return value.transpose(order)

    def _generator(self, name: str) -> Any:
        """A generator of their framework; whatever it draws is taken over."""
        if name == "seed":
            return 0
        if self.arrays.name == "jax":
            import jax

            return jax.random.PRNGKey(0)
        if self.arrays.name == "torch":
            import torch

            return torch.Generator()
        return numpy_generator()

    def _closure(self, declared: str, named: Mapping[str, Any], dtype: str) -> _Closure:
        kind, _, signature = declared.partition("(")
        kind = kind.strip()
        # what it is called with, where the user said so: "value(s, a)"
        words = [word.strip() for word in signature.rstrip(") ").split(",")] if signature else []
        place = words.index("a") if "a" in words else -1
        if kind in ("score", "value"):
            field = next(v for v in named.values() if isinstance(v, Linear))
            parts = {"slope": np.asarray(field.slope), "shift": np.asarray(field.shift)}
            return _Closure(kind, self.arrays.make(parts, dtype), place, "", None)
        critic = kind == "critic" and "critic" in named
        activation = named.get("critic_activation" if critic else "activation", "relu")
        params = self.arrays.make(named["critic" if critic else "params"], dtype)
        return _Closure(kind, params, place, activation, self.arrays.backend(dtype))


def _as_jax(value: Any) -> Any:
    """NumPy's arrays inside dicts and sequences as JAX's."""
    import jax.numpy as jnp

    if isinstance(value, dict):
        return type(value)((key, _as_jax(item)) for key, item in value.items())
    if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
        return type(value)(_as_jax(item) for item in value)
    return jnp.asarray(value) if isinstance(value, np.ndarray) else value


def _of_tracing(error: Exception) -> bool:
    """Whether an exception may be due to JAX tracing a function, and not the function's own."""
    import jax

    frames = traceback.extract_tb(error.__traceback__)
    inside = any(frame.filename == __file__ and frame.name == "call" for frame in frames)
    kinds = (jax.errors.JAXTypeError, jax.errors.JAXIndexError)
    if not inside or isinstance(error, kinds):
        return True
    return "racer" in str(error) and "NoneType" not in str(error)


_PROGRAMS: dict[int, tuple[Any, dict[Any, Any]]] = {}


def _programs_of(function: Any) -> dict[Any, Any]:
    """What was compiled for a function, whoever calls it: readings differ in what they pass."""
    # the function is kept, so that no other has its identity
    return _PROGRAMS.setdefault(id(function), (function, {}))[1]


_QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclasses.dataclass(frozen=True)
class _Closure:
    """A function that theirs is given, made of arrays when it is called.

    Attributes:
        arrays: parameters of a network, or slope and shift of a linear field.
        place: which of its arguments holds the particles.
    """

    kind: str
    arrays: Any
    place: int
    activation: str
    backend: Any

    def function(self, arrays: Any) -> Callable[..., Any]:
        """What theirs calls."""
        b, activation = self.backend, self.activation
        if self.kind in ("score", "value"):
            own = Linear(arrays["slope"], arrays["shift"])
            call = own.score if self.kind == "score" else own.value
            return lambda *args, **kwargs: call(
                args[self.place] if args else next(iter(kwargs.values()))
            )
        if self.kind == "velocity":
            return lambda s, x, t=None, **_: b.flow_velocity(arrays, s, x, _times(t, x), activation)
        if self.kind == "critic":
            return lambda s, a, **_: b.critic_values(arrays, s, a, activation)
        if self.kind == "field":
            return lambda s, a, **_: b.gradient_field(arrays, s, a, activation)

        def network(x: Any, *more: Any, **_: Any) -> Any:
            if more:
                raise VGFError(
                    f"a closure of the kind network is called with {1 + len(more)} arguments and "
                    "takes one, its input; the kinds of several are velocity, critic and field"
                )
            return b.mlp(arrays, x, activation)

        return network


def _parted(everything: Mapping[Any, Any]) -> tuple[dict[Any, Any], dict[str, Any], dict[Any, Any]]:
    """Arguments that are closures, arrays that change from input to input, and the rest."""
    closures = {k: v for k, v in everything.items() if isinstance(v, _Closure)}
    dynamic = {str(k): v for k, v in everything.items() if _is_traced(v)}
    dynamic |= {str(k): v.arrays for k, v in closures.items()}
    return closures, dynamic, {k: v for k, v in everything.items() if str(k) not in dynamic}


def _network_of(reading: Reading, source: Source) -> tuple[str, ...]:
    """The network of ours that an argument of theirs stands for, and the keys of a part of it."""
    if source.kind == "closure":
        kind = source.value.partition("(")[0].strip()
        if kind in ("score", "value"):
            return ()
        own = kind == "critic" and "critic" in reading.subject.parameters
        return ("critic",) if own else ("params",)
    place = source.value.place if source.kind == "ours" else ()
    return place if place and place[0] in ("params", "critic") else ()


def _unflattened(tree: Any, flat: Mapping[str, Any], name: str = "") -> Any:
    if isinstance(tree, dict):
        return {
            k: _unflattened(v, flat, f"{name}.{k}" if name else str(k)) for k, v in tree.items()
        }
    return flat[name]


def _opened(value: Any) -> Any:
    return value.function(value.arrays) if isinstance(value, _Closure) else value


def _is_traced(value: Any) -> bool:
    """Whether an argument is one that changes from input to input: arrays, trees, real numbers."""
    return isinstance(value, (dict, float)) or hasattr(value, "shape")


def _times(t: Any, x: Any) -> Any:
    """Times as [*, 1], however they are given: a number, one for each row, or that already."""
    if not hasattr(t, "ndim"):
        return x[..., :1] * 0 + t
    if t.ndim == x.ndim:
        return x[..., :1] * 0 + t
    if t.ndim == x.ndim - 1:
        return x[..., :1] * 0 + t[..., None]
    return x[..., :1] * 0 + t


def _holds_arrays(value: Any) -> bool:
    if isinstance(value, dict):
        return True
    return hasattr(value, "shape") and not callable(value)


def _same(before: list[np.ndarray], after: Any) -> bool:
    left, right = named_leaves(before), named_leaves(after)
    return len(left) == len(right) and all(
        np.array_equal(p, q, equal_nan=np.asarray(p).dtype.kind == "f")
        for (_, p), (_, q) in zip(left, right, strict=True)
    )


def _stack(rows: list[Any], place: int, over_states: bool) -> Any:
    first = rows[0]
    if isinstance(first, tuple):
        return tuple(
            _stack([row[i] for row in rows], place, over_states) for i in range(len(first))
        )
    if isinstance(first, dict):
        return {k: _stack([row[k] for row in rows], place, over_states) for k in first}
    if first is None:
        return None
    if not over_states:  # a mean over the batch
        return np.mean(np.stack(rows), axis=0)
    return np.stack(rows, axis=min(place, np.ndim(first)))


def _transpose(value: Any, ours: tuple[str, ...], theirs: list[str], name: str) -> Any:
    extra = [axis for axis in theirs if axis not in ours and axis != "1"]
    if extra:
        if not set(theirs) & set(ours):
            return value
        raise VGFError(
            f"layout {name}={' '.join(theirs)}: its axes are {' '.join(ours)}; "
            f"{extra[0]} is none of them"
        )
    missing = [axis for axis in ours if axis not in theirs and axis != "1"]
    if missing:
        raise VGFError(
            f"layout {name}={' '.join(theirs)}: its axes are {' '.join(ours)}; {missing[0]} is "
            "missing (--single calls it for one state at a time)"
        )
    kept = [i for i, axis in enumerate(ours) if axis in theirs]
    dropped = tuple(i for i, axis in enumerate(ours) if axis not in theirs)
    if dropped:
        value = np.squeeze(value, axis=dropped)
        ours = tuple(ours[i] for i in kept)
    order, given = [], list(ours)
    for axis in theirs:
        if axis == "1" and "1" not in given:
            value = value[..., None]
            order.append(value.ndim - 1)
        else:
            order.append(given.index(axis))
    return np.transpose(value, order)
