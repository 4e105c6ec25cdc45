"""Conventions and mistakes of acting at test time: guidance, Langevin steps (alternatives.py)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..spec.operators.guidance import velocity_vjp
from .alternatives import alternative


def _at_the_end(
    b: Any,
    critic: Any,
    s: Any,
    end: Any,
    how: str,
    activation: str,
    masked: bool = True,
    clipped: bool = True,
) -> Any:
    """The critic's gradient at an action that is clipped, through the clip where it is masked."""
    g = b.action_gradient(critic, s, b.project(end) if clipped else end, how, activation)
    return g * (np.abs(end) <= 1).astype(g.dtype) if masked and clipped else g


# --- the gradient through what is left of the sampler --------------------------------------------


def _rest_of_the_sampler(
    name: str,
    says: str,
    time: Callable[[int, int, int], float] = lambda step, start, k: step / k,
    *,
    masked: bool = True,
    clipped: bool = True,
    kept: float = 1.0,
    pulled: Callable[[int], float] = lambda k: 1 / k,
) -> None:
    """sampler_gradient with other times, another end, or another backward step.

    `kept` and `pulled(K)` are the factors of g and of J^T g in a step back.
    """

    def replacement(
        b: Any,
        original: Any,
        params: Any,
        critic: Any,
        s: Any,
        x: Any,
        start: int,
        k: int,
        how: str,
        *nets: str,
    ) -> Any:
        def at(step: int) -> Any:
            return np.full((*x.shape[:-1], 1), time(step, start, k), x.dtype)

        path = [x]
        for step in range(start, k):
            path.append(path[-1] + b.flow_velocity(params, s, path[-1], at(step), nets[0]) / k)
        g = _at_the_end(b, critic, s, path.pop(), how, nets[1], masked, clipped)
        for step in reversed(range(start, k)):
            back = velocity_vjp(params, s, path.pop(), at(step), g, nets[0])
            g = kept * g + pulled(k) * back
        return g

    alternative(name, "sampler_gradient", says)(replacement)


_rest_of_the_sampler(
    "remaining times from 0",
    "the times of your remaining steps begin at 0, not at k / K",
    lambda step, start, k: (step - start) / k,
)
_rest_of_the_sampler(
    "remaining times a step late",
    "the times of your remaining steps are (l + 1) / K, not l / K",
    lambda step, start, k: (step + 1) / k,
)
_rest_of_the_sampler(
    "sampler's gradient passes the clip",
    "your gradient passes the clip where the action is outside of the box",
    masked=False,
)
_rest_of_the_sampler(
    "sampler's end not clipped",
    "you do not clip the action at the end of the sampler",
    clipped=False,
)
_rest_of_the_sampler(
    "sampler's steps without their identity",
    "your steps back take J^T g / K alone, without g itself",
    kept=0.0,
)
_rest_of_the_sampler(
    "sampler's Jacobian undivided",
    "the Jacobian of your steps is not divided by K",
    pulled=lambda k: 1.0,
)
_rest_of_the_sampler(
    "sampler's Jacobian left out",
    "you take the gradient at the end of the sampler, and not through it",
    pulled=lambda k: 0.0,
)

# --- the gradient through the denoising ----------------------------------------------------------


def _denoised(
    name: str,
    says: str,
    *,
    masked: bool = True,
    clipped: bool = True,
    kept: float = 1.0,
    pulled: float = 1.0,
    rest: Callable[[Any], Any] = lambda t: 1 - t,
) -> None:
    """denoised_gradient with another end, or without one of its terms.

    `rest` is the time that is left at t.
    """

    def replacement(
        b: Any,
        original: Any,
        params: Any,
        critic: Any,
        s: Any,
        x: Any,
        t: Any,
        how: str,
        *nets: str,
    ) -> Any:
        y = x + rest(t) * b.flow_velocity(params, s, x, t, nets[0])
        w = _at_the_end(b, critic, s, y, how, nets[1], masked, clipped)
        return kept * w + pulled * rest(t) * velocity_vjp(params, s, x, t, w, nets[0])

    alternative(name, "denoised_gradient", says)(replacement)


_denoised(
    "denoising's gradient passes the clip",
    "your gradient passes the clip where the denoised action is outside of the box",
    masked=False,
)
_denoised("denoised action not clipped", "you do not clip the denoised action", clipped=False)
_denoised(
    "denoising without its identity",
    "your gradient takes (1 - t) J^T w alone, without w itself",
    kept=0.0,
)
_denoised(
    "denoised by the whole velocity",
    "your denoised action is x + v, without the factor 1 - t",
    rest=lambda t: 1 + 0 * t,
)
_denoised(
    "velocity held in the denoising",
    "your velocity is taken for a constant: the term (1 - t) J^T w is missing",
    pulled=0.0,
)

# --- the guided sampler --------------------------------------------------------------------------


def _guided(
    name: str,
    says: str,
    time: Callable[[int, int], float] = lambda step, k: step / k,
    change: Callable[[Any, float], Any] = lambda g, t: g,
    *,
    each: bool = False,
    last: bool = True,
    rest: Callable[[Any], Any] = lambda t: 1 - t,
) -> None:
    """guided_sample with other times, another guidance, or other clips."""

    def replacement(
        b: Any,
        original: Any,
        params: Any,
        critic: Any,
        s: Any,
        x: Any,
        steps: int,
        weight: float,
        guidance: str,
        how: str,
        *nets: str,
    ) -> Any:
        for step in range(steps):
            now = time(step, steps)
            t = np.full((*x.shape[:-1], 1), now, x.dtype)
            v = b.flow_velocity(params, s, x, t, nets[0])
            y = x if guidance == "noisy" else x + rest(t) * v
            if guidance == "sampler":
                g = b.sampler_gradient(params, critic, s, x, step, steps, how, *nets)
            elif guidance == "jacobian":
                w = _at_the_end(b, critic, s, y, how, nets[1])
                g = w + rest(t) * velocity_vjp(params, s, x, t, w, nets[0])
            else:
                g = _at_the_end(b, critic, s, y, how, nets[1], False, guidance == "denoised")
            x = x + (v + weight * change(g, now)) / steps
            x = b.project(x) if each else x
        return b.project(x) if last else x

    alternative(name, "guided_sample", says)(replacement)


def _unit(g: Any, t: float) -> Any:
    return g / np.maximum(np.sqrt(np.sum(g**2, axis=-1, keepdims=True)), 1e-12)


_guided(
    "guided a step late",
    "the times of your guided sampler are (k + 1) / K, not k / K",
    lambda step, k: (step + 1) / k,
)
_guided("guided sampler clips each step", "your guided sampler clips after each step", each=True)
_guided("guided sampler not clipped", "your guided sampler does not clip at the end", last=False)
_guided(
    "guided at x + v",
    "your denoised action is x + v, without the factor 1 - t",
    rest=lambda t: 1 + 0 * t,
)
_guided("guidance of unit length", "your guidance is scaled to length 1", change=_unit)
_guided("guidance fades", "your guidance is times 1 - t", change=lambda g, t: (1 - t) * g)
_guided("guidance grows", "your guidance is times t", change=lambda g, t: t * g)
_guided(
    "guidance's sign", "your guidance takes the gradient's sign", change=lambda g, t: np.sign(g)
)

# --- Langevin steps ------------------------------------------------------------------------------


def _langevin(
    name: str,
    says: str,
    drift: Callable[[float, float], float] = lambda epsilon, alpha: epsilon,
    spread: Callable[[float, float], float] = lambda e, alpha: math.sqrt(2 * e * alpha),
    *,
    each: bool = True,
    last: bool = True,
) -> None:
    """langevin with other factors of the gradient and of the noise, or other clips."""

    def replacement(
        b: Any,
        original: Any,
        params: Any,
        s: Any,
        a: Any,
        noise: Any,
        step_size: float,
        temperature: float,
        how: str,
        activation: str,
    ) -> Any:
        n = a.shape[-2]
        for first in range(0, noise.shape[-2], n):
            g = b.action_gradient(params, s, a, how, activation)
            a = a + drift(step_size, temperature) * g
            a = a + spread(step_size, temperature) * noise[..., first : first + n, :]
            a = b.project(a) if each else a
        return b.project(a) if last else a

    alternative(name, "langevin", says)(replacement)


_langevin(
    "Langevin with half the drift",
    "your gradient's step is epsilon / 2",
    drift=lambda epsilon, alpha: epsilon / 2,
)
_langevin(
    "Langevin in halves",
    "your step is epsilon / 2, with noise of sqrt(epsilon alpha): half of epsilon",
    lambda epsilon, alpha: epsilon / 2,
    lambda epsilon, alpha: math.sqrt(epsilon * alpha),
)
_langevin(
    "Langevin's gradient over alpha",
    "your gradient is divided by alpha and your noise is not times it",
    lambda epsilon, alpha: epsilon / alpha if alpha else math.inf,
    lambda epsilon, alpha: math.sqrt(2 * epsilon),
)
_langevin(
    "Langevin's noise without its root",
    "your noise is 2 epsilon alpha, not its root",
    spread=lambda epsilon, alpha: 2 * epsilon * alpha,
)
_langevin(
    "Langevin's noise without alpha",
    "your noise is sqrt(2 epsilon), without the temperature",
    spread=lambda epsilon, alpha: math.sqrt(2 * epsilon),
)
_langevin(
    "Langevin's noise times alpha",
    "your noise is alpha sqrt(2 epsilon): the temperature is outside of the root",
    spread=lambda epsilon, alpha: alpha * math.sqrt(2 * epsilon),
)
_langevin(
    "Langevin's noise by epsilon",
    "your noise is times epsilon: epsilon sqrt(2 alpha)",
    spread=lambda epsilon, alpha: epsilon * math.sqrt(2 * alpha),
)
_langevin("Langevin without noise", "you add no noise", spread=lambda epsilon, alpha: 0.0)
_langevin("Langevin descends", "you descend: the gradient has the wrong sign", lambda e, alpha: -e)
_langevin("Langevin clipped at the end", "you clip after the last step only", each=False)
_langevin("Langevin not clipped", "you do not clip to the box", each=False, last=False)
