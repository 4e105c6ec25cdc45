"""The JAX backend: every function compiled, the whole update in one piece; on the CPU or a GPU.

Gradients come from jax.grad, the optimiser from optax. The traps that separate JAX from the
specification are handled where they occur: float64 has to be switched on (device.py), matrix
products state their precision (networks.py), and ReLU and clip define their gradients at ties
(losses.py).

    device.py       devices, arrays, compiled methods
    flow.py         the kernel and the flow
    networks.py     networks
    losses.py       the reference, the critic, and what methods add
    selection.py    selection, the optimiser, decoding
    updates.py      updates and acting, and their random numbers
"""

from __future__ import annotations

from typing import Any

from ...equations import EQUATIONS
from ..composed import ComposedBackend
from ..operators import ComposedOperators
from .device import compiled
from .losses import JaxLosses
from .selection import JaxSelection
from .updates import JaxUpdates


class JaxBackend(JaxLosses, JaxSelection, JaxUpdates):
    """JAX. `jit=False` runs operation by operation, for debugging.

    `cores=2` has two cores of a CPU make many updates (`updates`) together, each with half of the
    states: they then share the gradient, once per update, and not every matrix product, for which
    cores with separate caches have to wait. It sums in a different order. It needs jax 0.6, JAX not
    used before in this process, a batch that divides evenly, settings in which states do not affect
    each other, and layers of fewer than 512 x 512 weights, beyond which XLA's own threads do
    better; otherwise one device does it all, as with `cores=1`. Agents side by side
    (`updates_together`) are shared out between the cores, whatever their batches and settings;
    those left over are trained one after another, as by `updates`.
    """


# what both frameworks share is compiled too
_SHARED = {"phi", "flow_step", "state_values", "mlp", "ensemble", "critic_values", "polyak"}
_SHARED |= {"gradient_field", "policy_actions"}
for _name, _equation in EQUATIONS.items():
    _own: Any = vars(ComposedBackend).get(_name, vars(ComposedOperators).get(_name))
    _whole = _name in vars(ComposedOperators) or _name.endswith(("_gradient", "_vjp", "_loss"))
    if getattr(JaxBackend, _name) is _own and (_whole or _name in _SHARED):
        setattr(JaxBackend, _name, compiled(*_equation.settings)(_own))
