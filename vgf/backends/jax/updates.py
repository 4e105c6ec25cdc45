"""Updates in JAX: many compiled as one, shared between cores, or for seeds side by side."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding, PartitionSpec

from ...methods import find_method
from ...spec.optimiser import tree_map
from ...spec.settings import Budget, Settings
from ...spec.update import ACT, TRAIN, update_draws
from ..base import Gather, NumpyPolicy, Tree, take
from ..composed import ComposedBackend
from .device import STATES, JaxDevice, compiled
from .losses import states_meet

Array = jax.Array

# One compiled program makes up to this many updates, and multiples of it.
UPDATES_TOGETHER = 64
# With this many weights in a layer, XLA's threads divide its products better than cores divide
# states: each core would pass all weights through its own cache.
WEIGHTS_TO_DIVIDE = 512 * 512
_Spec: Any = PartitionSpec
# How cores share: not at all, by the states of row numbers [U, B], by agents [S, ...].
EVERYWHERE, BY_STATES, BY_AGENTS = _Spec(), _Spec(None, STATES), _Spec(STATES)
# Each draw of an update has its own key: the first three, and then those of the method.
_SLOTS = {"particles": 0, "reference_start": 1, "reference_time": 2}


class JaxUpdates(JaxDevice):
    """The agent: updates, acting, and their random numbers."""

    @property
    def rounds_by_place(self) -> bool:
        return bool(self.jit) and (self.device != "cpu" or self.cores is not None)

    @compiled("settings")
    def update(self, state, batch, settings, noise):
        return ComposedBackend.update(self, state, batch, settings, noise)

    def updates(
        self, state: Tree, data: Tree, rows: Any, settings: Settings, gather: Gather = take
    ) -> tuple[Tree, dict[str, Array]]:
        count, size = np.shape(rows)
        if not self.jit:
            return super().updates(state, data, rows, settings, gather)
        if self.cores is None or size % self.cores.size or self._on_one_device(state, settings):
            return self._updates(state, data, _padded(rows), count, settings, gather)
        put = self.in_own_precision(jax.device_put)
        state, data = put((state, data), NamedSharding(self.cores, EVERYWHERE))
        rows = put(_padded(rows), NamedSharding(self.cores, BY_STATES))
        found = self._updates_on_cores(state, data, rows, count, settings, gather)
        return jax.tree.map(lambda x: x.addressable_data(0), found)

    def updates_together(
        self,
        states: list[Tree | None],
        data: Tree,
        rows: Any,
        settings: Settings,
        gather: Gather = take,
    ) -> list[tuple[Tree, dict[str, Array]] | None]:
        cores = self.cores
        if len(states) == 1 or not self.jit or (cores is None and self.device == "cpu"):
            return super().updates_together(states, data, rows, settings, gather)
        # each core has as many agents; those left over share all cores, one after another
        most = len(states) - (0 if cores is None else len(states) % cores.size)
        left = super().updates_together(states[most:], data, rows[most:], settings, gather)
        first, padded, count = states[:most], _padded(rows[:most]), np.shape(rows)[1]
        some = next((state for state in first if state is not None), None)
        if some is None:
            return [*(None for _ in first), *left]
        # one program whoever is missing: another would round otherwise
        every = self._stacked([some if state is None else state for state in first])
        put = self.in_own_precision(jax.device_put)
        if cores is not None:
            every, padded = put((every, padded), NamedSharding(cores, BY_AGENTS))
            data = put(data, NamedSharding(cores, EVERYWHERE))
        found = self._updates_together(every, data, padded, count, settings, gather)
        found = put(found, self.jax_device)
        made = zip(first, self._apart(found), strict=True)
        return [*(None if state is None else own for state, own in made), *left]

    @compiled()
    def _stacked(self, states: list[Tree]) -> Tree:
        return jax.tree.map(lambda *xs: jnp.stack(xs), *states)

    @compiled()
    def _apart(self, together: Tree) -> list[Tree]:
        count = len(jax.tree.leaves(together)[0])
        return [jax.tree.map(lambda x, i=i: x[i], together) for i in range(count)]

    def _on_one_device(self, state: Tree, settings: Settings) -> bool:
        """Whether cores do not share an update: states affect each other, it is a subclass's, or
        a layer is so wide that XLA's threads do better."""
        own = type(self).update is not JaxUpdates.update
        meet = find_method(settings.method).states_meet(settings)
        wide = any(math.prod(np.shape(x)[-2:]) >= WEIGHTS_TO_DIVIDE for x in jax.tree.leaves(state))
        return own or meet or states_meet(settings.budget, trajectory=False) or wide

    def _share(self) -> JaxUpdates:
        """This backend on one core within shard_map: gradients are those of all cores."""
        share = copy.copy(self)
        share.sharing, share.compilations = True, {}
        return share

    def mean_over_shares(self, tree: Tree) -> Tree:
        if not self.sharing:
            return tree
        # Gradients and metrics are means over states, and all shares have the same size. One
        # array, as XLA for CPUs takes about 50 microseconds for each that it sums over devices.
        flat, as_tree = ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x, self.dtype), tree))
        return as_tree(lax.pmean(flat, STATES))

    @compiled("settings", "gather")
    def _updates_together(
        self,
        states: Tree,
        data: Tree,
        rows: Array,
        count: Array,
        settings: Settings,
        gather: Gather,
    ) -> tuple[Tree, dict[str, Array]]:
        """As `_updates` of agents stacked: in products of all of them, or each core with its own.

        Then a core has one agent after another and waits for no other core, and the agent's arrays
        stay in its cache; XLA for CPUs is several times slower at products of several agents.
        """

        def all_of(agents: tuple[Tree, Array], data: Tree, count: Array) -> Tree:
            def one(agent: tuple[Tree, Array]) -> tuple[Tree, dict[str, Array]]:
                return self._updates(agent[0], data, agent[1], count, settings, gather)

            return jax.vmap(one)(agents) if self.cores is None else lax.map(one, agents)

        run: Any = all_of
        if self.cores is not None:
            run = jax.shard_map(
                all_of,
                mesh=self.cores,
                check_vma=False,
                out_specs=BY_AGENTS,
                in_specs=(BY_AGENTS, EVERYWHERE, EVERYWHERE),
            )
        return run((states, rows), data, count)

    @compiled("settings", "gather")
    def _updates_on_cores(
        self, state: Tree, data: Tree, rows: Array, count: Array, settings: Settings, gather: Gather
    ) -> tuple[Tree, dict[str, Array]]:
        """As `_updates`, each core with its columns of the rows."""
        assert self.cores is not None
        cores, size = self.cores.size, rows.shape[1]
        share = self._share()

        def own(noise: Array) -> Array:
            place = lax.axis_index(STATES) * (size // cores)
            return lax.dynamic_slice_in_dim(noise, place, size // cores)

        def one(state: Tree, batch: Tree) -> tuple[Tree, Tree]:
            d = batch["actions"].shape[-1]
            noise = self.draw_update_noise(state["seed"], state["step"], size, d, settings)
            return share.update_from_noise(state, batch, tree_map(own, noise), settings)

        loop: Any = jax.shard_map(
            lambda state, data, rows, count: _repeat(
                lambda i, state: one(state, gather(data, rows[i])), count, state
            ),
            mesh=self.cores,
            check_vma=False,
            out_specs=EVERYWHERE,
            in_specs=(EVERYWHERE, EVERYWHERE, BY_STATES, EVERYWHERE),
        )
        return loop(state, data, rows, count)

    @compiled("settings", "gather")
    def _updates(
        self, state: Tree, data: Tree, rows: Array, count: Array, settings: Settings, gather: Gather
    ) -> tuple[Tree, dict[str, Array]]:
        return _repeat(
            lambda i, state: self.update(state, gather(data, rows[i]), settings), count, state
        )

    @compiled("budget", "settings", "particles")
    def act(self, state, s, budget, settings, particles, noise, draw):
        return ComposedBackend.act(self, state, s, budget, settings, particles, noise, draw)

    def policy(self, state: Tree, settings: Settings) -> NumpyPolicy:
        # passing NumPy arrays to a compiled function is faster than placing them first
        def policy(s: np.ndarray, budget: Budget, noise: Tree) -> tuple[np.ndarray, Tree]:
            given = tree_map(lambda x: np.asarray(x, self.dtype), {"s": s, **noise})
            actions, info = self.act(state, given.pop("s"), budget, settings, noise=given)
            return np.asarray(actions), tree_map(np.asarray, info)

        return policy

    @compiled("batch_size", "action_dim", "settings")
    def draw_update_noise(self, seed, step, batch_size, action_dim, settings):
        key = _key(seed, TRAIN, step)
        keys = jax.random.split(key, len(_SLOTS))
        draw: dict[str, Callable[..., Array]] = {
            "normal": jax.random.normal,
            "uniform": jax.random.uniform,
        }
        noise = {}
        more = len(_SLOTS)
        for name, (kind, shape) in update_draws(batch_size, action_dim, settings).items():
            own = keys[_SLOTS[name]] if name in _SLOTS else jax.random.fold_in(key, more)
            more += name not in _SLOTS
            noise[name] = draw[kind](own, shape, self.dtype)
        return noise

    @compiled("batch_size", "particles", "action_dim")
    def draw_act_noise(self, seed, draw, batch_size, particles, action_dim):
        keys = jax.random.split(_key(seed, ACT, draw))
        shape = (batch_size, particles, action_dim)
        return {
            "particles": jax.random.normal(keys[0], shape, self.dtype),
            "select": jax.random.uniform(keys[1], (batch_size,), self.dtype),
        }


def _repeat(
    one: Callable[[Array | int, Tree], tuple[Tree, Tree]], count: Array, state: Tree
) -> tuple[Tree, dict[str, Array]]:
    """`count` updates, ``one(i, state)``: the last state, and the last one's metrics."""
    shapes = jax.eval_shape(lambda state: one(0, state), state)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes[1])
    return lax.fori_loop(0, count, lambda i, carry: one(i, carry[0]), (state, nothing))


def _padded(rows: Any) -> Any:
    """Row numbers ``[*, U, B]``, U a multiple, so that one program serves any number of them."""
    rows = np.asarray(rows)
    padding = -rows.shape[-2] % UPDATES_TOGETHER
    return np.pad(rows, [(0, 0)] * (rows.ndim - 2) + [(0, padding), (0, 0)])


def _key(seed: Any, purpose: int, index: Any) -> Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), index)
