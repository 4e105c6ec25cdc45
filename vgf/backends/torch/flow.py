"""The kernel and the flow in torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...spec.kernel import SIGMA_SQUARED_MIN
from ...spec.shapes import check_shapes
from .device import TorchDevice


class TorchFlow(TorchDevice):
    """The kernel and the flow."""

    def squared_distances(self, x, y):
        check_shapes("squared_distances", x=(x, "* N d"), y=(y, "* M d"))
        return (x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1)

    def bandwidth_squared(self, a):
        n = check_shapes("bandwidth_squared", a=(a, "* N d"))["N"]
        # torch.median would return the lower of the two middle values of an even count
        ordered = self.squared_distances(a, a).flatten(-2).sort(dim=-1).values
        median = (ordered[..., (n * n - 1) // 2] + ordered[..., n * n // 2]) / 2
        return (median / (2 * math.log(n + 1))).clamp_min(SIGMA_SQUARED_MIN).detach()

    def rbf_kernel(self, x, y, sigma_squared):
        check_shapes(
            "rbf_kernel", x=(x, "* N d"), y=(y, "* M d"), sigma_squared=(sigma_squared, "*")
        )
        return torch.exp(-self.squared_distances(x, y) / (2 * sigma_squared[..., None, None]))

    def repulsion(self, a, sigma_squared):
        n = check_shapes("repulsion", a=(a, "* N d"), sigma_squared=(sigma_squared, "*"))["N"]
        k = self.rbf_kernel(a, a, sigma_squared)
        away = (a.unsqueeze(-2) - a.unsqueeze(-3)) / sigma_squared[..., None, None, None]
        return (k.unsqueeze(-1) * away).sum(-2) / n

    def repulsion_through_bandwidth(self, a, guard):
        n = check_shapes("repulsion_through_bandwidth", a=(a, "* N d"))["N"]

        # as the authors' code does it: automatic differentiation, the median included
        def total(moving: Tensor) -> Tensor:
            distances = self.squared_distances(moving, a)
            flat = distances.flatten(-2)
            ordered = flat.gather(-1, flat.detach().argsort(dim=-1, stable=True))
            median = (ordered[..., (n * n - 1) // 2] + ordered[..., n * n // 2]) / 2
            sigma_squared = (median / (2 * math.log(n + 1))).clamp_min(SIGMA_SQUARED_MIN)
            guarded = sigma_squared + guard / 2
            return torch.exp(-distances / (2 * guarded[..., None, None])).sum()

        gradient: Tensor = torch.func.grad(total)(a)
        return -gradient / n

    def project(self, a, low, high):
        return a if low is None and high is None else a.clamp(low, high)

    def clip_velocity(self, velocity, max_norm, scope):
        check_shapes("clip_velocity", velocity=(velocity, "* N d"))
        if scope not in ("state", "batch"):
            raise ValueError(f"clip scope is {scope!r}; choose state or batch")
        if scope == "state":
            norm = torch.linalg.vector_norm(velocity, dim=(-2, -1), keepdim=True)
        else:
            norm = torch.linalg.vector_norm(velocity)
        return velocity * (max_norm / norm.clamp_min(max_norm))
