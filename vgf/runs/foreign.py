"""Agents that other people's JAX code trained, read as arrays and nothing else.

Checkpoints of four codes are known: ryanxhr/vgf (VGF and A-VGF), seohongpark/fql,
ColinQiyangLi/qam and zhouzypaul/qgf. They are pickles of nested dicts (``params_N.pkl``), or the
same as flax's msgpack. The pickles are read by an unpickler that can build arrays and containers
and refuses every other name, so that a file can run nothing.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..spec.optimiser import adam_init, tree_map
from ..spec.reference import time_frequencies
from ..spec.settings import Budget, Network, Settings, method_settings
from ..spec.types import Params
from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import check_fetched
from ..support.suggestions import did_you_mean, nearest

# --- reading files ------------------------------------------------------------------------------

_NUMPY = {
    **{
        (f"numpy.{core}.multiarray", name): getattr(np._core.multiarray, name)  # type: ignore[attr-defined]
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
    **{
        (f"numpy.{core}.numeric", "_frombuffer"): np._core.numeric._frombuffer  # type: ignore[attr-defined]
        for core in ("core", "_core")
    },
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def _reconstruct_jax(fun: Any, args: Any, state: Any, _aval: Any) -> Any:
    """A JAX array as the NumPy array that it was pickled as."""
    array = fun(*args)
    array.__setstate__(state)
    return array


_KNOWN: dict[tuple[str, str], Any] = {
    **_NUMPY,
    ("jax._src.array", "_reconstruct_array"): _reconstruct_jax,
    ("collections", "OrderedDict"): dict,
    ("_codecs", "encode"): lambda text, how: text.encode(how),
}


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that builds arrays, numbers, text and containers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which is not an array; it was not loaded"
            ) from None


def read_arrays(path: Path | str) -> dict[str, Any]:
    """The nested dicts of arrays in a pickle or in flax's msgpack.

    Raises:
        VGFError: no such file, one of another form, or a pickle of something other than arrays.
    """
    path = Path(path)
    check_fetched(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise VGFError(f"{path}: {error.strerror}") from error
    try:
        if data[:1] == b"\x80":  # a pickle of protocol 2 or later
            found = ArrayUnpickler(io.BytesIO(data)).load()
        else:
            found = _from_msgpack(data)
        if isinstance(found, dict):
            _check_numbers(found, str(path), "")
    except VGFError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise VGFError(f"{path} is no checkpoint of arrays: {reason}") from error
    if not isinstance(found, dict):
        raise VGFError(f"{path} holds a {type(found).__name__}, not an agent's arrays")
    return found


def _from_msgpack(data: bytes) -> Any:
    """What flax.serialization.msgpack_restore reads."""
    msgpack = need("msgpack", "agents")

    def extension(code: int, packed: bytes) -> Any:
        if code not in (1, 3):  # an array, a NumPy scalar
            raise ValueError(f"msgpack extension {code} is not an array")
        shape, dtype, buffer = msgpack.unpackb(packed, raw=True)
        array = np.frombuffer(buffer, np.dtype(dtype.decode())).reshape(shape)
        return array[()] if code == 3 else array

    found = msgpack.unpackb(data, ext_hook=extension, raw=False, strict_map_key=False)
    return _joined(found)


def _joined(tree: Any) -> Any:
    """Arrays above a gigabyte come in pieces."""
    if not isinstance(tree, dict):
        return tree
    if "__msgpack_chunked_array__" in tree:
        shape = tuple(tree["shape"][str(i)] for i in range(len(tree["shape"])))
        pieces = [tree["chunks"][str(i)] for i in range(len(tree["chunks"]))]
        return np.concatenate(pieces).reshape(shape)
    return {key: _joined(value) for key, value in tree.items()}


def _check_numbers(tree: Any, path: str, name: str) -> None:
    """Refuse arrays of Python objects, and tuples or other things in the place of dicts."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            _check_numbers(value, path, f"{name}/{key}")
    elif isinstance(tree, np.ndarray) and tree.dtype.kind not in "biufV":
        raise VGFError(f"{path}: {name[1:]} has dtype {tree.dtype}; an agent is numbers")


# --- networks -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Code:
    """How one code names and makes its networks.

    Args:
        reference: the names of the flow, the one that acts first.
        policy: the name of the one-step policy, or "".
        layer_norm: where its LayerNorm stands.
        activation: of networks whose settings say nothing.
        steps: the key of K in its settings.
        critic: which critic its agents act by, as an operator's `critic`.
    """

    reference: tuple[str, ...]
    policy: str = ""
    layer_norm: str = "before"
    activation: str = "gelu_tanh"
    steps: str = "flow_steps"
    critic: str = "online"


CODES = {
    "vgf": Code(("actor_bc",), activation="relu", steps="bc_flow_steps"),
    "avgf": Code(("actor_bc",), activation="relu", steps="bc_flow_steps"),
    "fql": Code(("actor_bc_flow",), "actor_onestep_flow", "after"),
    "qam": Code(("actor_fast", "actor_slow"), "one_step_actor", "after"),
    "qgf": Code(("policy",), steps="denoise_steps", critic="target"),
}
# QGF's code has more agents with the same networks.
SAME = {"a_vgf": "avgf", "grad_step": "qgf", "bptt": "qgf"}
ACTIVATIONS = {"relu": "relu", "gelu": "gelu_tanh", "swish": "swish", "silu": "swish"}


def networks_of(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of an agent's networks by their names, whichever of the forms it has."""
    root = tree.get("agent", tree)
    whole = root.get("network") if isinstance(root, Mapping) else None
    if isinstance(whole, Mapping) and isinstance(whole.get("params"), Mapping):
        return {re.sub("^modules_", "", name): value for name, value in whole["params"].items()}
    return {
        name: part["params"]
        for name, part in (root.items() if isinstance(root, Mapping) else ())
        if isinstance(part, Mapping) and isinstance(part.get("params"), Mapping)
    }


def _numbered(layers: Mapping[str, Any], kind: str) -> list[Any]:
    found = {
        int(key.rpartition("_")[2]): value
        for key, value in layers.items()
        if re.fullmatch(rf"{kind}_\d+", key)
    }
    return [found[i] for i in sorted(found)]


def to_network(name: str, params: Mapping[str, Any], layer_norm: str) -> Params:
    """A flax perceptron as ours: hidden_0, ..., output, with norm_* or post_*.

    Args:
        name: for the messages.
        params: of its module; layers are Dense_i and LayerNorm_i, at the top or one module down.
        layer_norm: "before" or "after" the activation.

    Raises:
        VGFError: it has other layers, such as an encoder's.
    """
    dense, norms, tail = _layers(params)
    dense = [*dense, *tail]
    if not dense or any(set(layer) != {"kernel", "bias"} for layer in dense):
        raise VGFError(
            f"{name} is no perceptron: it has {', '.join(map(str, params)) or 'nothing'}; agents "
            "with encoders of pixels or other networks cannot be imported"
        )
    prefix = "post" if layer_norm == "after" else "norm"
    made: Params = {}
    for i, layer in enumerate(dense):
        own = {key: np.asarray(layer[key]) for key in ("kernel", "bias")}
        last = i == len(dense) - 1
        if i < len(norms) and not last:
            own[f"{prefix}_scale"] = np.asarray(norms[i]["scale"])
            own[f"{prefix}_offset"] = np.asarray(norms[i]["bias"])
        made["output" if last else f"hidden_{i}"] = own
    return made


def _layers(params: Mapping[str, Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Dense and LayerNorm layers in order, and Dense layers beside a module that holds the rest."""
    dense, norms = _numbered(params, "Dense"), _numbered(params, "LayerNorm")
    modules = [
        value
        for key, value in params.items()
        if isinstance(value, Mapping) and not re.fullmatch(r"(Dense|LayerNorm)_\d+", key)
    ]
    if len(modules) != 1:
        return (dense, norms, []) if not modules else ([], [], [])
    inner, inner_norms, tail = _layers(modules[0])
    return inner, inner_norms, [*tail, *dense]


def shape_of(name: str, network: Params, activation: str) -> Network:
    """The settings of a network.

    Raises:
        VGFError: LayerNorm in some layers only.
    """
    hidden = [network[key] for key in network if key.startswith("hidden_")]
    kinds = ["post" if "post_scale" in x else "norm" if "norm_scale" in x else "" for x in hidden]
    patterns = {"": None, "norm": "before", "post": "after"}
    if len(set(kinds)) == 1:
        layer_norm = patterns[kinds[0]]
    elif set(kinds[:-1]) == {"norm"} and not kinds[-1]:
        layer_norm = "inner"
    else:
        raise VGFError(f"{name} has LayerNorm in some of its layers only: {kinds}")
    return Network(tuple(x["bias"].shape[-1] for x in hidden), activation, layer_norm)


def _ensemble(network: Params) -> Params:
    """A single critic as an ensemble of one."""
    if network["output"]["kernel"].ndim == 3:
        return network
    return tree_map(lambda x: x[None], network)


# --- agents -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Imported:
    """An agent in this package's form.

    Args:
        state: as :func:`vgf.spec.update.init_state` makes it, float32, Adam's moments at 0.
        settings: of the agent.
        observation_dim, action_dim: o and d; d is that of a chunk.
        chunk: actions in one decision.
        critic: which critic it acts by: "online" or "target".
        env: the task's name if its flags say so.
    """

    state: Params
    settings: Settings
    observation_dim: int
    action_dim: int
    chunk: int
    critic: str
    env: str | None


def code_of(flags: Mapping[str, Any], networks: Mapping[str, Any], name: str | None) -> str:
    """Whose code made a checkpoint: as told, as its flags say, or by its networks' names.

    Raises:
        VGFError: none of those that are known.
    """
    own = flags.get("agent", {})
    told = name or (own.get("agent_name") if isinstance(own, Mapping) else None)
    if told is not None:
        told = SAME.get(told, told)
        if told not in CODES:
            hint = did_you_mean(nearest(told, CODES), f"known are {', '.join(CODES)}")
            raise VGFError(f"agents of {told!r} cannot be imported; {hint}")
        return str(told)
    if "q_grad" in networks:
        return "avgf"
    for code, known in CODES.items():
        if known.reference[0] in networks:
            return code
    raise VGFError(
        f"no known agent has the networks {', '.join(networks) or '(none)'}; name its code, one of "
        f"{', '.join(CODES)}"
    )


def import_agent(
    tree: Mapping[str, Any],
    flags: Mapping[str, Any] | None = None,
    code: str | None = None,
    reference: str | None = None,
) -> Imported:
    """An agent of another code in this package's form.

    Args:
        tree: what :func:`read_arrays` read.
        flags: the content of its ``flags.json``; without it, the code's defaults are assumed.
        code: one of :data:`CODES`; None finds out.
        reference: which of its networks becomes the flow reference; None is the one that acts.

    Raises:
        VGFError: an unknown code, or an agent whose networks are not those of its code.
    """
    flags = flags or {}
    networks = networks_of(tree)
    code = code_of(flags, networks, code)
    known, own = CODES[code], flags.get("agent", {})
    _refuse(code, own, networks)
    names = [reference] if reference else list(known.reference)
    found = next((name for name in names if name in networks), None)
    for name in (found or names[0], "critic"):
        if name not in networks:
            raise VGFError(
                f"the agent of {code} has no network {name}; it has {', '.join(networks)}"
            )
    assert found is not None
    inner = known.layer_norm
    state: Params = {
        "critic": _ensemble(to_network("critic", networks["critic"], inner)),
        "reference": _reference(found, networks[found], inner),
    }
    target = networks.get("target_critic", networks["critic"])
    state["target_critic"] = _ensemble(to_network("target_critic", target, inner))
    method, more = "vgf", {}
    value_activation = _activation(own, known)
    actor_activation = "relu" if code in ("vgf", "avgf") else value_activation
    if code == "avgf":
        method = "avgf"
        state["gradient_field"] = to_network("q_grad", networks["q_grad"], inner)
        more["gradient_field"] = shape_of("q_grad", state["gradient_field"], value_activation)
    elif known.policy in networks:
        method = "fql"
        state["policy"] = to_network(known.policy, networks[known.policy], inner)
        more["policy"] = shape_of(known.policy, state["policy"], actor_activation)
    elif code == "qgf":
        method = "iql"
        state["value"] = _member(to_network("value", networks["value"], inner))
        more["value"] = shape_of("value", state["value"], value_activation)
    d = state["reference"]["output"]["bias"].shape[-1]
    o = state["critic"]["hidden_0"]["kernel"].shape[1] - d
    more |= _reference_settings(state["reference"], o, d, actor_activation, own)
    settings = method_settings(
        method,
        critic=shape_of("critic", state["critic"], value_activation),
        ensemble=len(state["critic"]["output"]["bias"]),
        **_acting(code, known, own),
        **more,
    )
    chunk = int(own.get("horizon_length") or 1) if own.get("action_chunking") else 1
    state = {name: state[name] for name in (*settings.networks, "target_critic")}
    state = tree_map(lambda x: np.asarray(x, np.float32), state)
    state["optimiser"] = {name: adam_init(state[name]) for name in settings.networks}
    state |= {"seed": np.asarray(0, np.int32), "step": np.asarray(0, np.int32)}
    env = flags.get("env_name")
    return Imported(state, settings, o, d, chunk, known.critic, env)


def _refuse(code: str, own: Mapping[str, Any], networks: Mapping[str, Any]) -> None:
    """Agents whose actions are more than a sampler and a choice."""
    for key in ("edit_scale", "residual"):
        if own.get(key):
            raise VGFError(f"the agent of {code} has {key} = {own[key]}, which cannot be imported")
    if "edit_actor" in networks:
        raise VGFError(f"the agent of {code} has an edit_actor, which cannot be imported")


def _activation(own: Mapping[str, Any], known: Code) -> str:
    """The activation of the critic, as its flags say it."""
    said = own.get("activations", own.get("activation"))
    if said is None:
        return known.activation
    if said not in ACTIVATIONS:
        raise VGFError(
            f"the agent's activation is {said!r}; only {', '.join(ACTIVATIONS)} can be imported"
        )
    return ACTIVATIONS[said]


def _member(network: Params) -> Params:
    """One network out of an ensemble of one."""
    return tree_map(lambda x: x[0], network) if network["output"]["kernel"].ndim == 3 else network


def _reference(name: str, params: Mapping[str, Any], layer_norm: str) -> Params:
    """The flow's network, or the Gaussian's."""
    if "mean_net" not in params:
        return to_network(name, params, layer_norm)
    body = to_network(name, {**params["actor_net"], "Dense_1000": params["mean_net"]}, layer_norm)
    if "log_stds" not in params:
        raise VGFError(f"{name} is a Gaussian whose spread depends on the state")
    return {**body, "log_std": np.asarray(params["log_stds"])}


def _reference_settings(
    reference: Params, o: int, d: int, activation: str, own: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of the reference; a flow's time embedding is recognised by its width."""
    found: dict[str, Any] = {"reference": shape_of("the reference", reference, activation)}
    if "log_std" in reference:
        return {
            **found,
            "reference_kind": "gaussian",
            "reference_tanh": bool(own.get("bc_use_tanh", False)),
        }
    features = reference["hidden_0"]["kernel"].shape[0] - o - d
    if features < 1 or (features > 1 and features % 2):
        raise VGFError(f"the reference takes {features} features of time; 1 or an even number can")
    if features > 1:
        reference["time_frequencies"] = time_frequencies(features)
    return {**found, "time_features": features}


def _acting(code: str, known: Code, own: Mapping[str, Any]) -> dict[str, Any]:
    """How its agents act: N, K, L, and how critics are aggregated."""
    made: dict[str, Any] = {
        "sampling_steps": int(own.get(known.steps) or (5 if code in ("vgf", "avgf") else 10)),
        "discount": float(own.get("discount") or 0.99),
        "polyak": float(own.get("tau") or 0.005),
    }
    if code in ("vgf", "avgf"):
        alpha = own.get("vgf_alpha", 1.0)
        made |= {
            "particles": int(own.get("vgf_particles") or (10 if code == "vgf" else 5)),
            "target_ensemble": own.get("train_q_agg") or "min",
            "budget": Budget(
                steps=int(own.get("train_vgf_steps", 1)),
                step_size=float(own.get("vgf_lr") or 0.1),
                temperature=float(alpha) if code == "vgf" else None,
                bandwidth_gradient=code == "vgf",
                kernel_guard=1e-6 if code == "vgf" else 0.0,
                clip_norm=1.0 if code == "avgf" else None,
                clip_scope="batch" if code == "avgf" else "state",
            ),
        }
        if code == "vgf":
            made["value_ensemble"] = own.get("vgf_q_agg") or "mean"
    elif code == "qgf":
        how = own.get("q_aggregation") or "min"
        made |= {"target_ensemble": how, "value_ensemble": how, "particles": 1}
        made["expectile"] = float(own.get("expectile") or 0.9)
    else:
        made |= {"particles": int(own.get("best_of_n") or 1), "target_ensemble": "mean"}
        made["budget"] = Budget(steps=0)
    return made
