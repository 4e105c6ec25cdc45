"""The reference, the critic and what methods add, in torch."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F  # noqa: N812  (torch's own name for it)

from ...spec.optimiser import tree_map
from ...spec.parts import TARGETS, CriticLoss, Target
from ...spec.reference import LOG_STD_MAX, LOG_STD_MIN, TANH_EDGE, TIME_PERIOD
from ...spec.registry import find
from ...spec.settings import CRITIC_LOSSES
from ...spec.shapes import check_shapes, check_states
from ..composed import check_times, weighted
from .device import with_precision
from .flow import TorchFlow
from .networks import TorchNetworks


class TorchLosses(TorchFlow, TorchNetworks):
    """Losses, and what they are computed from."""

    # --- the reference --------------------------------------------------------------------------

    def flow_velocity(self, params, s, x, t, activation):
        check_times(x, t)
        if "time_frequencies" in params:
            angle = t * TIME_PERIOD * params["time_frequencies"].detach()
            t = torch.cat([angle.cos(), angle.sin()], -1)
        return self._network(params, self._parts(s, x, t), activation)

    def flow_sample(self, params, s, x0, sampling_steps, activation):
        check_shapes("flow_sample", x0=(x0, "* d"))
        x = x0
        for k in range(sampling_steps):
            t = x.new_full((1,) * x.ndim, k / sampling_steps)  # of all particles
            x = x + self.flow_velocity(params, s, x, t, activation) / sampling_steps
        return self.project(x)

    def gaussian_loss(self, params, s, a, tanh, activation, weight):
        log_std = params["log_std"]
        check_shapes("gaussian", s=(s, "B o"), a=(a, "B d"), log_std=(log_std, "d"))
        bounded = self.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)
        u = torch.atanh(a.clamp(-TANH_EDGE, TANH_EDGE)) if tanh else a
        z = (u - self.mlp(params, s, activation)) * torch.exp(-bounded)
        nll = z.square() / 2 + bounded + math.log(2 * math.pi) / 2
        if tanh:
            nll = nll + 2 * (math.log(2) - u - F.softplus(-2 * u))
        return weighted(nll, weight).sum(-1).mean()

    def gaussian_sample(self, params, s, noise, tanh, activation):
        check_states("gaussian_sample", s, noise)
        check_shapes("gaussian_sample", noise=(noise, "* d"), log_std=(params["log_std"], "d"))
        mean = self.mlp(params, s.reshape(-1, s.shape[-1]), activation)
        mean = mean.reshape(*s.shape[:-1], *(1,) * (noise.ndim - s.ndim), noise.shape[-1])
        u = mean + torch.exp(params["log_std"].clamp(LOG_STD_MIN, LOG_STD_MAX)) * noise
        return torch.tanh(u) if tanh else self.project(u)

    # --- the critic -----------------------------------------------------------------------------

    def aggregate(self, q, how):
        if how == "mean":
            return q.mean(0)
        if how == "min":
            return q.amin(0)  # amin shares the gradient evenly between ties, min does not
        raise ValueError(f"ensemble aggregation is {how!r}; choose mean or min")

    @with_precision
    def action_gradient(self, params, s, a, how, activation):
        constants = tree_map(lambda p: p.detach(), params)
        _, gradient = self.value_and_gradient(
            lambda a: self.aggregate(self.critic_values(constants, s, a, activation), how).sum(), a
        )
        return gradient

    def td_target(self, q, r, mask, discount, how, particles, target):
        check_shapes("td_target", q=(q, "E B N"), r=(r, "B"), mask=(mask, "B"))
        if target != "td":
            own = find(Target, target, "target", TARGETS)
            return own.value(self, q, r, mask, discount, how, particles)
        if particles not in ("mean", "max"):
            raise ValueError(f"particle aggregation is {particles!r}; choose mean or max")
        value = self.aggregate(q, how)
        value = value.mean(-1) if particles == "mean" else value.amax(-1)
        r, mask = r.to(value.dtype), mask.to(value.dtype)  # whole numbers and bools too
        return r + discount * mask * value

    def critic_loss(self, q, y, loss, expectile, sparse_alpha):
        check_shapes("critic_loss", q=(q, "E B"), y=(y, "B"))
        x = y - q
        alpha = expectile if sparse_alpha is None else sparse_alpha
        if loss == "squared":
            value = x.square()
        elif loss == "mean_squared":
            return x.square().mean()
        elif loss == "expectile":
            # torch.where on two Python numbers would make a float32 weight whatever x is
            weight = torch.full_like(x, 1 - expectile).masked_fill(x >= 0, expectile)
            value = weight * x.square()
        elif loss == "sparse":
            value = alpha * F.relu(x / (2 * alpha) + 1).square() - x
        else:
            own = find(CriticLoss, loss, "critic_loss", CRITIC_LOSSES)
            return own.value(self, q, y, expectile)
        return value.sum(0).mean()

    # --- methods --------------------------------------------------------------------------------

    def advantage_weights(self, q, baseline, how, temperature, maximum):
        check_shapes("advantage_weights", q=(q, "E B"), baseline=(baseline, "E B N"))
        advantage = self.aggregate(q, how) - self.aggregate(baseline, how).mean(-1)
        return (advantage / temperature).clamp_max(math.log(maximum)).exp()
