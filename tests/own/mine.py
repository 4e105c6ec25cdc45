"""A method, its specification in NumPy, and a kernel: all of one's own.

An expectile V(s) of Q(s, a) is learned beside the critic, as IQL does (Kostrikov et al. 2022), and
the reference is fitted with the weights exp((Q - V) / beta). Q is smoothed: it is asked at actions
with noise added.
"""

from dataclasses import dataclass, field

import numpy as np

from vgf import spec
from vgf.methods import Budget, Kernel, Method, Network, NetworkShape, Settings, normal

LOG_WEIGHT_MAXIMUM = 3.0


@dataclass(frozen=True)
class MySettings(Settings):
    """Its settings, besides those of every method."""

    value: Network = field(default_factory=Network)
    beta: float = 1.0
    smoothing: float = 0.1


class MySpecification(spec.Specification):
    """What it declares, and its gradients in NumPy, derived by hand."""

    title = "IQL, weighted flow matching"
    Settings = MySettings
    defaults = {"budget": Budget(steps=0), "expectile": 0.7}
    trains = ("critic", "reference", "value")

    def networks(self, o, d, settings):
        return {"value": NetworkShape(o, 1, settings.value)}

    def noise(self, b, d, settings):
        return {"smoothing": normal(b, d)}

    def gradients(self, state, batch, noise, settings):
        s, a, tau = batch["observations"], batch["actions"], settings.expectile
        near = spec.project(a + settings.smoothing * noise["smoothing"])
        q = spec.critic_values(state["target_critic"], s, near, settings.critic.activation)
        v = spec.mlp(state["value"], s, settings.value.activation)[:, 0]
        u = spec.aggregate(q, settings.target_ensemble) - v
        slope = -2 * np.where(u > 0, tau, 1 - tau) * u / len(u)
        value, _ = spec.mlp_vjp(state["value"], s, slope[:, None], settings.value.activation)
        weight = np.exp(np.minimum(u / settings.beta, LOG_WEIGHT_MAXIMUM))

        start = self.propose(state, batch["next_observations"], noise["particles"], settings)
        critic, metrics = spec.fit_critic(state, batch, start, start, settings)
        loss, reference = spec.fit_reference(state["reference"], s, a, noise, settings, weight)
        metrics |= {
            "reference_loss": loss,
            "value_loss": np.mean(np.where(u > 0, tau, 1 - tau) * u**2),
            "weight_mean": weight.mean(),
        }
        return {"critic": critic, "reference": reference, "value": value}, metrics


class MyMethod(Method):
    """The same on torch and JAX, which differentiate the loss."""

    specification = MySpecification()

    def gradients(self, eq, state, batch, noise, settings):
        s, a, tau = batch["observations"], batch["actions"], settings.expectile
        near = eq.project(a + settings.smoothing * noise["smoothing"])
        q = eq.critic_values(state["target_critic"], s, near, settings.critic.activation)
        q = eq.aggregate(q, settings.target_ensemble)

        def advantage(params):
            return q - eq.mlp(params, s, settings.value.activation)[:, 0]

        def loss(params):
            u = advantage(params)
            above, below = eq.project(u, 0.0, None), eq.project(u, None, 0.0)
            return (tau * above**2 + (1 - tau) * below**2).mean()

        value_loss, value = eq.value_and_gradient(loss, state["value"])
        u = advantage(state["value"]) / settings.beta
        weight = eq.xp.exp(eq.project(u, None, LOG_WEIGHT_MAXIMUM))
        critic, metrics = self.critic_gradient(eq, state, batch, noise, settings)
        reference, more = self.reference_gradient(eq, state, batch, noise, settings, weight)
        metrics = {**metrics, **more, "value_loss": value_loss, "weight_mean": weight.mean()}
        return {"critic": critic, "reference": reference, "value": value}, metrics


class IMQ(Kernel):
    """The inverse multiquadric 1 / sqrt(1 + |x - y|^2 / sigma^2) (Gorham and Mackey 2017)."""

    def value(self, eq, x, y, sigma_squared):
        return (1 + eq.squared_distances(x, y) / sigma_squared[..., None, None]) ** -0.5

    def gradient(self, x, y, sigma_squared):
        k = self.value(spec, x, y, sigma_squared)
        apart = x[..., :, None, :] - y[..., None, :, :]
        return -(k**3)[..., None] * apart / sigma_squared[..., None, None, None]
