"""Multi-layer perceptrons, their vector-Jacobian products, and ensembles of them.

Parameters are nested dicts of arrays, the same on every backend and in every file::

    hidden_0, hidden_1, ...   kernel [in, out]   bias [out]
                              norm_scale [out]   norm_offset [out]     (LayerNorm before the
                                                                        activation)
                              post_scale [out]   post_offset [out]     (LayerNorm after it)
    output                    kernel [in, out]   bias [out]

An ensemble is the same tree with one more axis, the member, in front of every array.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from .optimiser import tree_map
from .settings import ACTIVATIONS, Network
from .shapes import check_shapes
from .types import Array, Generator, Params

LAYER_NORM_EPSILON = 1e-6  # flax's; torch's own default is 1e-5


def activate(x: Array, activation: str) -> Array:
    """The activation functions.

    Shapes:
        x: any; returns the same.

    Equation:
        relu(x) = max(x, 0)
        gelu(x) = x Phi(x),  Phi(x) = erfc(-x / sqrt 2) / 2
        gelu_tanh(x) = x (1 + tanh u) / 2,  u = sqrt(2 / pi) (x + 0.044715 x^3)
        swish(x) = x / (1 + exp(-x))

    Raises:
        ValueError: an unknown activation.

    Source:
        Hendrycks and Gimpel 2016; Ramachandran et al. 2017. The authors' "gelu" is flax's, the
        tanh form.
    """
    if activation == "relu":
        return np.maximum(x, 0)
    if activation == "gelu":
        from scipy.special import erfc  # here, as it is slow to import

        return x * erfc(x * -math.sqrt(0.5)) / 2
    if activation == "gelu_tanh":
        return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    if activation == "swish":
        from scipy.special import expit

        return x * expit(x)
    raise ValueError(f"activation is {activation!r}; choose one of {', '.join(ACTIVATIONS)}")


def activate_derivative(x: Array, activation: str) -> Array:
    """The derivatives of the activation functions.

    Shapes:
        x: any; returns the same.

    Equation:
        relu'(x) = [x > 0], so 0 at 0
        gelu'(x) = Phi(x) + x exp(-x^2 / 2) / sqrt(2 pi)
        gelu_tanh'(x) = (1 + tanh u) / 2 + x (1 - tanh^2 u) u' / 2,
        u' = sqrt(2 / pi) (1 + 3 * 0.044715 x^2)
        swish'(x) = S + x S (1 - S),  S = 1 / (1 + exp(-x))

    Raises:
        ValueError: an unknown activation.

    Source:
        Derived by hand from :func:`activate`.
    """
    if activation == "relu":
        return (x > 0).astype(x.dtype)
    if activation == "gelu":
        density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
        from scipy.special import erfc

        return erfc(x * -math.sqrt(0.5)) / 2 + x * density
    if activation == "gelu_tanh":
        tanh = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
        return (1 + tanh) / 2 + x * (1 - tanh**2) * slope / 2
    if activation == "swish":
        from scipy.special import expit

        s = expit(x)
        return s + x * s * (1 - s)
    raise ValueError(f"activation is {activation!r}; choose one of {', '.join(ACTIVATIONS)}")


def layer_norm(x: Array, scale: Array, offset: Array) -> Array:
    """Layer normalisation over the features.

    Shapes:
        x: ``[*, h]``; scale, offset: ``[h]``; returns ``[*, h]``.

    Equation:
        xhat = (x - mean x) / sqrt(var x + 1e-6),  var the mean square (no N - 1)
        y = scale * xhat + offset

    Raises:
        ValueError: shapes that do not match.

    Source:
        Ba et al. 2016; epsilon as in flax, which the authors' code uses.
    """
    check_shapes("layer_norm", x=(x, "* h"), scale=(scale, "h"), offset=(offset, "h"))
    centred = x - np.mean(x, axis=-1, keepdims=True)
    variance = np.mean(centred**2, axis=-1, keepdims=True)
    return scale * centred / np.sqrt(variance + LAYER_NORM_EPSILON) + offset


def layer_norm_vjp(x: Array, scale: Array, cotangent: Array) -> tuple[Array, Array, Array]:
    """The vector-Jacobian product of :func:`layer_norm`.

    Shapes:
        x, cotangent: ``[M, h]``; scale: ``[h]``. Returns the gradients of x ``[M, h]``, scale
        ``[h]`` and offset ``[h]``.

    Equation:
        With xhat as in layer_norm, std = sqrt(var + 1e-6) and c = scale * cotangent:
        dx = ( c - mean(c) - xhat * mean(c * xhat) ) / std
        dscale = sum over M of cotangent * xhat,   doffset = sum over M of cotangent

    Raises:
        ValueError: shapes that do not match.

    Source:
        Derived by hand from :func:`layer_norm`.
    """
    check_shapes("layer_norm_vjp", x=(x, "M h"), scale=(scale, "h"), cotangent=(cotangent, "M h"))
    centred = x - np.mean(x, axis=-1, keepdims=True)
    std = np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + LAYER_NORM_EPSILON)
    xhat = centred / std
    c = scale * cotangent
    mean_c = np.mean(c, axis=-1, keepdims=True)
    dx = (c - mean_c - xhat * np.mean(c * xhat, axis=-1, keepdims=True)) / std
    return dx, np.sum(cotangent * xhat, axis=0), np.sum(cotangent, axis=0)


def hidden_layers(params: Params) -> list[str]:
    """The names of a network's hidden layers, in order.

    Shapes:
        params: a network; returns ``["hidden_0", "hidden_1", ...]``.

    Equation:
        None.

    Source:
        The tree described at the head of this file.
    """
    return [f"hidden_{i}" for i in range(sum(key.startswith("hidden_") for key in params))]


def mlp(params: Params, x: Array, activation: str = "relu") -> Array:
    """A multi-layer perceptron, with LayerNorm before or after the activation where it has one.

    Shapes:
        params: a network; x: ``[M, in]``; returns ``[M, out]``.

    Equation:
        x <- activate( x W + b ) for each hidden layer;  y = x W + b
        LayerNorm before:  x <- activate( layer_norm( x W + b ) )
        LayerNorm after:   x <- layer_norm( activate( x W + b ) )

    Raises:
        ValueError: an input whose width is not the network's, or an unknown activation.

    Source:
        Paper, its networks; authors' code, `MLP` with `ln_first` (before); FQL's code, `MLP`
        (after).
    """
    return _forward(params, x, activation)[0]


def mlp_vjp(
    params: Params, x: Array, cotangent: Array, activation: str = "relu"
) -> tuple[Params, Array]:
    """The vector-Jacobian product of :func:`mlp`, with respect to parameters and input.

    Shapes:
        params: a network; x: ``[M, in]``; cotangent: ``[M, out]``. Returns the gradient of the
        parameters, a tree like params, and of the input, ``[M, in]``.

    Equation:
        For y = x W + b with cotangent c:  dW = x^T c,  db = sum over M of c,  dx = c W^T;
        through the activation  c <- c * activate'(z);  through LayerNorm as layer_norm_vjp, of
        its own input: z before the activation, activate(z) after it.

    Raises:
        ValueError: shapes that do not match.

    Source:
        Derived by hand from :func:`mlp` (backpropagation).
    """
    _, tape = _forward(params, x, activation)
    out = params["output"]["kernel"].shape[-1]
    check_shapes("mlp_vjp", x=(x, "M in"), cotangent=(cotangent, f"M {out}"))
    gradient: Params = {}
    c = cotangent
    for name in ["output", *reversed(hidden_layers(params))]:
        layer = params[name]
        layer_input, z, normed = tape[name]
        gradient[name] = {}
        if "post_scale" in layer:
            active = activate(normed, activation)
            c, dscale, doffset = layer_norm_vjp(active, layer["post_scale"], c)
            gradient[name] |= {"post_scale": dscale, "post_offset": doffset}
        if name != "output":
            c = c * activate_derivative(normed, activation)
        if "norm_scale" in layer:
            c, dscale, doffset = layer_norm_vjp(z, layer["norm_scale"], c)
            gradient[name] |= {"norm_scale": dscale, "norm_offset": doffset}
        gradient[name] |= {"kernel": layer_input.T @ c, "bias": np.sum(c, axis=0)}
        c = c @ layer["kernel"].T
    return {key: gradient[key] for key in params if key in gradient}, c


def _forward(params: Params, x: Array, activation: str) -> tuple[Array, Params]:
    """The forward pass, keeping (input, pre-normalisation, pre-activation) of each layer."""
    tape: Params = {}
    for name in [*hidden_layers(params), "output"]:
        layer = params[name]
        check_shapes(
            f"mlp, layer {name}",
            x=(x, "M in"),
            kernel=(layer["kernel"], "in out"),
            bias=(layer["bias"], "out"),
        )
        z = normed = x @ layer["kernel"] + layer["bias"]
        if "norm_scale" in layer:
            normed = layer_norm(z, layer["norm_scale"], layer["norm_offset"])
        tape[name] = (x, z, normed)
        x = normed if name == "output" else activate(normed, activation)
        if "post_scale" in layer:
            x = layer_norm(x, layer["post_scale"], layer["post_offset"])
    return x, tape


def member(params: Params, e: int) -> Params:
    """One network out of an ensemble.

    Shapes:
        params: an ensemble of E networks; returns a network.

    Equation:
        theta_e

    Source:
        The tree described at the head of this file.
    """
    members: Params = tree_map(lambda p: p[e], params)
    return members


def ensemble_size(params: Params) -> int:
    """The number of networks in an ensemble.

    Shapes:
        params: an ensemble; returns E.

    Equation:
        E

    Source:
        The tree described at the head of this file.
    """
    return int(params["output"]["bias"].shape[0])


def ensemble(params: Params, x: Array, activation: str = "relu") -> Array:
    """An ensemble of networks on the same input.

    Shapes:
        params: an ensemble of E networks; x: ``[M, in]``; returns ``[E, M, out]``.

    Equation:
        y_e = mlp(theta_e, x)

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, its two critics.
    """
    return np.stack([mlp(member(params, e), x, activation) for e in range(ensemble_size(params))])


def ensemble_vjp(
    params: Params, x: Array, cotangent: Array, activation: str = "relu"
) -> tuple[Params, Array]:
    """The vector-Jacobian product of :func:`ensemble`.

    Shapes:
        params: an ensemble of E networks; x: ``[M, in]``; cotangent: ``[E, M, out]``. Returns the
        gradients of the parameters, a tree like params, and of the input, ``[M, in]``.

    Equation:
        dtheta_e = mlp_vjp(theta_e, x, c_e);   dx = sum over e of the members' dx

    Raises:
        ValueError: shapes that do not match.

    Source:
        Derived by hand from :func:`ensemble`.
    """
    size = ensemble_size(params)
    check_shapes("ensemble_vjp", x=(x, "M in"), cotangent=(cotangent, f"{size} M out"))
    pairs = [mlp_vjp(member(params, e), x, cotangent[e], activation) for e in range(size)]
    gradient = tree_map(lambda *leaves: np.stack(leaves), *(pair[0] for pair in pairs))
    return gradient, np.sum(np.stack([pair[1] for pair in pairs]), axis=0)


def init_mlp(
    rng: Generator, inputs: int, network: Network, outputs: int, output_gain: float = 1.0
) -> Params:
    """Parameters of a new network: Glorot-uniform kernels, zero biases, LayerNorm the identity.

    Shapes:
        inputs, outputs: widths; output_gain: variance of the last kernel relative to Glorot's.
        Returns a network of float64 arrays.

    Equation:
        W ~ U[-c, c],  c = sqrt( 6 gain / (in + out) )

    Source:
        Glorot and Bengio 2010; the authors' code, `default_init` (gain 1e-2 for the last layer of
        the Gaussian).
    """
    widths = [inputs, *network.hidden, outputs]
    params: Params = {}
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        last = i == len(network.hidden)
        bound = math.sqrt(6 * (output_gain if last else 1.0) / (fan_in + fan_out))
        layer: dict[str, Any] = {
            "kernel": rng.uniform(-bound, bound, (fan_in, fan_out)),
            "bias": np.zeros(fan_out),
        }
        inner = network.layer_norm != "inner" or i < len(network.hidden) - 1
        if network.layer_norm is not None and not last and inner:
            norm = "post" if network.layer_norm == "after" else "norm"
            layer |= {f"{norm}_scale": np.ones(fan_out), f"{norm}_offset": np.zeros(fan_out)}
        params["output" if last else f"hidden_{i}"] = layer
    return params


def init_ensemble(rng: Generator, inputs: int, network: Network, outputs: int, size: int) -> Params:
    """Parameters of a new ensemble, its members drawn independently.

    Shapes:
        Returns an ensemble of `size` networks.

    Equation:
        theta_e ~ init_mlp, e = 1 .. E

    Source:
        Authors' code, `ensemblize`.
    """
    members = [init_mlp(rng, inputs, network, outputs) for _ in range(size)]
    stacked: Params = tree_map(lambda *leaves: np.stack(leaves), *members)
    return stacked
