"""Networks in torch: matrix products in the backend's precision, LayerNorm, ensembles."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own name for it)

from ...spec.networks import LAYER_NORM_EPSILON, hidden_layers
from ...spec.optimiser import tree_map
from ...spec.settings import ACTIVATIONS
from ...spec.shapes import check_shapes
from ..base import Tree
from ..composed import check_layer
from .device import TorchDevice, with_precision

# A network's input, in parts to be concatenated; their leading axes broadcast.
Parts = tuple[Tensor, ...]


class TorchNetworks(TorchDevice):
    """Networks."""

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        """A matrix product in the backend's precision."""
        if self.matmul_precision == "bf16":
            return (x.bfloat16() @ y.bfloat16()).to(x.dtype)
        return x @ y

    def activate(self, x, activation):
        if activation == "relu":
            return F.relu(x)
        if activation == "gelu":
            return x * torch.special.erfc(x * -math.sqrt(0.5)) / 2
        if activation == "gelu_tanh":
            return F.gelu(x, approximate="tanh")
        if activation == "swish":
            return F.silu(x)
        raise ValueError(f"activation is {activation!r}; choose one of {', '.join(ACTIVATIONS)}")

    def layer_norm(self, x, scale, offset):
        check_shapes("layer_norm", x=(x, "* h"), scale=(scale, "h"), offset=(offset, "h"))
        return self._normalise(x, scale, offset)

    def _normalise(
        self, x: Tensor, scale: Tensor | None = None, offset: Tensor | None = None
    ) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], scale, offset, LAYER_NORM_EPSILON)

    @with_precision
    def _network(self, params: Tree, x: Tensor | Parts, activation: str) -> Tensor:
        """A network on ``[*, in]`` or parts of it; an ensemble's result has one more axis."""
        if params["output"]["kernel"].ndim == 2:
            return self._member(params, x, activation)
        members = functools.partial(self._member, x=x, activation=activation)
        if self.torch_device.type != "cpu":
            batched: Tensor = torch.func.vmap(members)(params)
            return batched
        count = len(params["output"]["kernel"])
        return torch.stack([members(tree_map(lambda p, e=e: p[e], params)) for e in range(count)])

    def _member(self, params: Tree, x: Tensor | Parts, activation: str) -> Tensor:
        parts = x if isinstance(x, tuple) else (x,)
        for name in [*hidden_layers(params), "output"]:
            layer = params[name]
            kernel, bias = layer["kernel"], layer["bias"]
            widths = [part.shape[-1] for part in parts]
            check_layer(name, widths, kernel, bias)
            # a state's part is multiplied once, not once for each particle
            y = bias + sum(map(self.matmul, parts, kernel.split(widths)))
            if "norm_scale" in layer:
                y = self._normalise(y, layer["norm_scale"], layer["norm_offset"])
            if name != "output":
                y = self.activate(y, activation)
            if "post_scale" in layer:
                y = self._normalise(y, layer["post_scale"], layer["post_offset"])
            parts = (y,)
        return parts[0]
