"""Selection, the optimiser and decoding, in torch; the optimiser is torch.optim's."""

from __future__ import annotations

import weakref

import torch
from torch.optim.adam import adam as torch_adam

from ...spec.optimiser import tree_map
from ...spec.parts import SelectionRule
from ...spec.registry import find
from ...spec.settings import SELECTION_RULES
from ...spec.shapes import check_shapes
from .device import TorchDevice, leaves, rebuild, with_precision


class TorchSelection(TorchDevice):
    """Selection, the optimiser and decoding."""

    def select(self, a, q, u, rule, temperature):
        n = check_shapes("select", a=(a, "* N d"), q=(q, "* N"), u=(u, "*"))["N"]
        if rule == "best":
            index = q.argmax(-1)
        elif rule == "softmax":
            logits = (q - q.amax(-1, keepdim=True)) / temperature
            below = torch.softmax(logits, -1).cumsum(-1) <= u.unsqueeze(-1)
            index = below.sum(-1).clamp_max(n - 1)
        elif rule == "uniform":
            index = (u * n).floor().long().clamp_max(n - 1)
        else:
            own = find(SelectionRule, rule, "selection", SELECTION_RULES)
            index = torch.as_tensor(own.pick(self, q, u, temperature)).long()
        picked = index[..., None, None].expand(*index.shape, 1, a.shape[-1])
        return a.gather(-2, picked).squeeze(-2), index

    def adam_init(self, params):
        return {
            "count": torch.zeros((), dtype=torch.int32),
            "m": tree_map(torch.zeros_like, params),
            "v": tree_map(torch.zeros_like, params),
        }

    def adam_step(self, params, gradient, state, learning_rate, b1, b2, epsilon):
        # torch pairs arrays by position, and trees may hold the same keys in another order
        gradient, m, v = (
            leaves(tree_map(lambda _, x: x, params, tree))
            for tree in (gradient, state["m"], state["v"])
        )
        new, m, v = ([array.clone() for array in x] for x in (leaves(params), m, v))
        torch_adam(
            new,
            gradient,
            m,
            v,
            [],
            [state["count"].double() for _ in new],
            amsgrad=False,
            beta1=b1,
            beta2=b2,
            lr=learning_rate,
            weight_decay=0.0,
            eps=epsilon,
            maximize=False,
            # torch.compile fuses better than torch, and takes no list with a counter on the host
            foreach=False if torch.compiler.is_compiling() else None,
        )
        return rebuild(params, new), {
            "count": state["count"] + 1,
            "m": rebuild(params, m),
            "v": rebuild(params, v),
        }

    def global_norm(self, tree):
        norms = torch.stack([torch.linalg.vector_norm(leaf) for leaf in leaves(tree)])
        return torch.linalg.vector_norm(norms)

    def clip_by_global_norm(self, gradient, max_norm):
        # torch.nn.utils adds 1e-6 to the norm, so the division is done here
        scale = max_norm / self.global_norm(gradient).clamp_min(max_norm)
        return tree_map(lambda g: g * scale, gradient)

    @with_precision
    def _squared_norms(self, embeddings):
        """||e_c||^2 of a table, kept for the next call: a response asks at every position."""
        table, version, norms = getattr(self, "_norms", (None, None, None))
        if table is None or table() is not embeddings or version != embeddings._version:
            # without a copy of the table: fourteen times as fast for 49,152 tokens
            norms = torch.linalg.vector_norm(embeddings, dim=-1).square()
            self._norms = (weakref.ref(embeddings), embeddings._version, norms)
        return norms

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
        norms = self._squared_norms(embeddings)
        if decoding_top is not None and decoding_top < len(allowed):
            likely = log_p.masked_fill(~allowed, -torch.inf)
            least, few = likely.topk(decoding_top)
            if int((likely >= least[:, -1:]).sum(-1).amax()) == decoding_top:  # no ties
                scores = torch.full_like(log_p, -torch.inf, dtype=u.dtype)
                for index in (few, original[:, None]):  # scores of these tokens alone
                    near = torch.einsum("bd,bkd->bk", u, embeddings[index]) - norms[index] / 2
                    found = near / norms.mean() + decoding_weight * log_p.gather(1, index)
                    scores = scores.scatter(1, index, found)
                return scores
        score = (self.matmul(u, embeddings.T) - norms / 2) / norms.mean()
        score = score + decoding_weight * log_p
        candidate = allowed.expand_as(score)
        if decoding_top is not None and decoding_top < len(allowed):
            likely = log_p.masked_fill(~allowed, -torch.inf)
            candidate = candidate & (likely >= likely.topk(decoding_top).values[:, -1:])
        candidate = candidate.scatter(1, original[:, None], True)
        return score.masked_fill(~candidate, -torch.inf)
