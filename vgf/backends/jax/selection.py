"""Selection, the optimiser and decoding, in JAX; the optimiser is optax's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ...spec.optimiser import tree_map
from ...spec.parts import SelectionRule
from ...spec.registry import find
from ...spec.settings import SELECTION_RULES
from ...spec.shapes import check_shapes
from .device import JaxDevice

Array = jax.Array


class JaxSelection(JaxDevice):
    """Selection, the optimiser and decoding."""

    # the clip is optax's, which computes the norm itself
    uncalled = JaxDevice.uncalled | {"global_norm"}

    def select(self, a, q, u, rule, temperature):
        n = check_shapes("select", a=(a, "* N d"), q=(q, "* N"), u=(u, "*"))["N"]
        if rule == "best":
            index = jnp.argmax(q, axis=-1)
        elif rule == "softmax":
            logits = (q - jnp.max(q, axis=-1, keepdims=True)) / temperature
            below = jnp.cumsum(jax.nn.softmax(logits, axis=-1), axis=-1) <= u[..., None]
            index = jnp.minimum(jnp.sum(below, axis=-1), n - 1)
        elif rule == "uniform":
            index = jnp.minimum(jnp.floor(u * n).astype(jnp.int32), n - 1)
        else:
            own = find(SelectionRule, rule, "selection", SELECTION_RULES)
            index = jnp.asarray(own.pick(self, q, u, temperature))
        return jnp.take_along_axis(a, index[..., None, None], axis=-2)[..., 0, :], index

    def adam_init(self, params):
        state = optax.scale_by_adam().init(params)
        return {"count": state.count, "m": state.mu, "v": state.nu}

    def adam_step(self, params, gradient, state, learning_rate, b1, b2, epsilon):
        adam = optax.scale_by_adam(b1, b2, epsilon)
        before = optax.ScaleByAdamState(state["count"], state["m"], state["v"])
        direction, after = adam.update(gradient, before)
        new = tree_map(lambda p, u: p - learning_rate * u, params, direction)
        return new, {"count": after.count, "m": after.mu, "v": after.nu}

    def global_norm(self, tree):
        return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))

    def clip_by_global_norm(self, gradient, max_norm):
        clip = optax.clip_by_global_norm(max_norm)
        return clip.update(gradient, clip.init(gradient))[0]

    def decoding_scores(
        self, u, log_p, embeddings, original, allowed, decoding_weight, decoding_top
    ):
        check_shapes(
            "decoding_scores",
            u=(u, "B d"),
            log_p=(log_p, "B V"),
            embeddings=(embeddings, "V d"),
            original=(original, "B"),
            allowed=(allowed, "V"),
        )
        if decoding_top is not None and decoding_top < 1:
            raise ValueError(f"decoding_top is {decoding_top}; it must be 1 or more, or None")
        norms = jnp.sum(jnp.square(embeddings), axis=-1)
        score = (self.matmul(u, embeddings.T) - norms / 2) / jnp.mean(norms)
        score = score + decoding_weight * log_p
        likely = jnp.where(allowed, log_p, -jnp.inf)
        kept = likely.shape[-1] if decoding_top is None else min(decoding_top, likely.shape[-1])
        candidate = allowed & (likely >= lax.top_k(likely, kept)[0][:, -1:])
        candidate = candidate | (jnp.arange(likely.shape[-1]) == original[:, None])
        return jnp.where(candidate, score, -jnp.inf)
