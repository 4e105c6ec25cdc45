"""n-step returns and action chunks: a data set seen over a horizon of several rows.

The TD target of a transition is r + discount * mask * value(s'), whatever the horizon: the discount
of the steps between is put into the mask, which then lies between 0 and 1.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ..spec.types import Array
from ..support.errors import VGFError
from .dataset import Dataset


def over_horizon(dataset: Dataset, steps: int, discount: float, chunks: bool = False) -> Dataset:
    """A data set whose transitions span several steps.

    Row i has h = min(H, rows left in its trajectory) steps. Its reward is the sum of
    gamma^k r_{i+k} up to the first step at which the task is done; its mask is gamma^(h-1), or 0 if
    the task is done within; s' is that of the last step.

    Args:
        dataset: of single steps.
        steps: the horizon H, 1 or more.
        discount: gamma, the agent's.
        chunks: a row's action is that of all H steps side by side, ``[H d]``, the first step first;
            rows with fewer than H steps left are dropped. Otherwise it is the first step's.

    Raises:
        VGFError: no trajectory is as long as a chunk.
    """
    if steps == 1:
        return dataset
    m = len(dataset)
    ends = np.flatnonzero(dataset.terminals != 0)
    ends = ends if len(ends) and ends[-1] == m - 1 else np.append(ends, m - 1)
    rows = np.arange(m)
    last = np.minimum(rows + steps - 1, ends[np.searchsorted(ends, rows)])
    rewards, alive = _returns(dataset, rows, last, steps, discount)
    columns = {
        "here": dataset.here,
        "there": dataset.there[last],
        "actions": dataset.actions,
        "rewards": rewards,
        "masks": (alive * discount ** (last - rows)).astype(np.float32),
        "terminals": dataset.terminals,
    }
    if chunks:
        whole = rows[last - rows == steps - 1]
        if not len(whole):
            raise VGFError(
                f"{dataset.source}: no trajectory has {steps} rows, as an action chunk needs; "
                "lower action_chunk"
            )
        columns = {name: column[whole] for name, column in columns.items()}
        taken = [dataset.actions[whole + k] for k in range(steps)]
        columns["actions"] = np.concatenate(taken, axis=-1)
        columns["terminals"] = dataset.terminals[last[whole]]
    return dataclasses.replace(dataset, **columns)


def _returns(
    dataset: Dataset, rows: Array, last: Array, steps: int, discount: float
) -> tuple[Array, Array]:
    """The sums of discounted rewards ``[M]``, and whether the task goes on, 1 or 0 ``[M]``."""
    rewards, alive = np.zeros(len(rows)), np.ones(len(rows))
    for k in range(steps):
        within = rows + k <= last
        at = np.minimum(rows + k, last)
        rewards += within * alive * discount**k * dataset.rewards[at]
        alive *= np.where(within, dataset.masks[at], 1)
    return rewards.astype(np.float32), alive
