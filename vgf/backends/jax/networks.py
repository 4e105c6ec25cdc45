"""Networks in JAX: matrix products in the backend's precision, LayerNorm, ensembles."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...spec.networks import LAYER_NORM_EPSILON, hidden_layers
from ...spec.optimiser import tree_map
from ...spec.settings import ACTIVATIONS
from ...spec.shapes import check_shapes
from ..base import Tree
from ..composed import check_layer
from .device import JaxDevice

Array = jax.Array
# A network's input, in parts to be concatenated; their leading axes broadcast.
Parts = tuple[Array, ...]


class JaxNetworks(JaxDevice):
    """Networks."""

    def matmul(self, x: Array, y: Array) -> Array:
        """A matrix product in the backend's precision."""
        if self.matmul_precision == "bf16":
            x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
            return jnp.matmul(x, y, preferred_element_type=jnp.float32)
        precision = lax.Precision.HIGH if self.matmul_precision == "tf32" else lax.Precision.HIGHEST
        return jnp.matmul(x, y, precision=precision)

    def _product(self, x: Array, kernel: Array) -> Array:
        """``[*, in] @ [in, out]``, not on a GPU's matrix units where they have little to do.

        With one input or one output it is a pass over memory, which XLA fuses with the operations
        before and after; and seeds side by side (vmap) stay in order.
        """
        if self.device == "cpu" or 1 not in kernel.shape:
            return self.matmul(x, kernel)
        if self.matmul_precision == "bf16":
            x, kernel = (lax.reduce_precision(y, 8, 7) for y in (x, kernel))
        if kernel.shape[0] == 1:
            return x * kernel[0]
        return jnp.sum(x * kernel[:, 0], axis=-1, keepdims=True)

    def activate(self, x, activation):
        if activation == "relu":
            return jax.nn.relu(x)
        if activation == "gelu":
            return jax.nn.gelu(x, approximate=False)
        if activation == "gelu_tanh":
            return jax.nn.gelu(x, approximate=True)
        if activation == "swish":
            return jax.nn.swish(x)
        raise ValueError(f"activation is {activation!r}; choose one of {', '.join(ACTIVATIONS)}")

    def layer_norm(self, x, scale, offset):
        check_shapes("layer_norm", x=(x, "* h"), scale=(scale, "h"), offset=(offset, "h"))
        return self._normalise(x - jnp.mean(x, axis=-1, keepdims=True)) * scale + offset

    def _normalise(self, centred: Array) -> Array:
        return _unit_variance(centred, self.device == "cpu")

    def _network(self, params: Tree, x: Array | Parts, activation: str) -> Array:
        """A network on ``[*, in]`` or parts of it; an ensemble's result has one more axis."""
        if params["output"]["kernel"].ndim == 2:
            return self._member(params, x, activation)
        members = functools.partial(self._member, x=x, activation=activation)
        if self.device != "cpu":
            return jax.vmap(members)(params)
        count = len(params["output"]["kernel"])
        return jnp.stack([members(tree_map(lambda p, e=e: p[e], params)) for e in range(count)])

    def _member(self, params: Tree, x: Array | Parts, activation: str) -> Array:
        parts = x if isinstance(x, tuple) else (x,)
        for name in [*hidden_layers(params), "output"]:
            layer = params[name]
            kernel, bias = layer["kernel"], layer["bias"]
            widths = [part.shape[-1] for part in parts]
            check_layer(name, widths, kernel, bias)
            if "norm_scale" in layer:
                # what LayerNorm does first, subtracting the features' mean, done to the weights
                kernel = kernel - jnp.mean(kernel, axis=-1, keepdims=True)
                bias = bias - jnp.mean(bias)
            # a state's part is multiplied once, not once for each particle
            kernels = jnp.split(kernel, np.cumsum(widths)[:-1])
            y = bias + sum(map(self._product, parts, kernels))
            if "norm_scale" in layer:
                y = self._normalise(y) * layer["norm_scale"] + layer["norm_offset"]
            if name != "output":
                y = self.activate(y, activation)
            if "post_scale" in layer:
                centred = y - _row_mean(y, self.device == "cpu")
                y = self._normalise(centred) * layer["post_scale"] + layer["post_offset"]
            parts = (y,)
        return parts[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _unit_variance(centred: Array, by_product: bool) -> Array:
    """Rows of mean 0 to rows of variance 1; the last part of LayerNorm, with its gradient.

    The gradient is that of LayerNorm for rows that are already centred: the term it lacks, the
    mean of the cotangent, is subtracted by the centring's own gradient.
    """
    return _unit_variance_forward(centred, by_product)[0]


def _unit_variance_forward(centred: Array, by_product: bool) -> tuple[Array, Tree]:
    variance = _row_mean(jnp.square(centred), by_product)
    scale = lax.rsqrt(variance + LAYER_NORM_EPSILON)
    return centred * scale, (centred * scale, scale)


def _unit_variance_backward(by_product: bool, kept: Tree, cotangent: Array) -> tuple[Array]:
    unit, scale = kept
    return (scale * (cotangent - unit * _row_mean(cotangent * unit, by_product)),)


_unit_variance.defvjp(_unit_variance_forward, _unit_variance_backward)


def _row_mean(x: Array, by_product: bool) -> Array:
    """The mean of every row, ``[*, h]`` -> ``[*, 1]``.

    A matrix product where XLA's own sums are slow: on a CPU it does not vectorise them.
    """
    if not by_product:
        return jnp.mean(x, axis=-1, keepdims=True)
    ones = jnp.full((x.shape[-1], 1), 1 / x.shape[-1], x.dtype)
    return jnp.matmul(x, ones, precision=lax.Precision.HIGHEST)
