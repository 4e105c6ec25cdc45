"""n-step returns and action chunks, against sums written out step by step."""

import dataclasses

import numpy as np
import pytest

from vgf.data.dataset import check_dataset, gather
from vgf.data.horizon import over_horizon
from vgf.support.errors import VGFError

GAMMA = 0.9


def recorded(seed=0, rows=40):
    """Trajectories that end by a timeout, at the goal, or with the recording; goals on the way."""
    rng = np.random.default_rng(seed)
    terminals = (rng.random(rows) < 0.15).astype(np.float32)
    masks = (rng.random(rows) > 0.15).astype(np.float32)
    states = rng.standard_normal((rows + 1, 3))
    return check_dataset(
        {
            "observations": states[:-1],
            "actions": rng.uniform(-1, 1, (rows, 2)),
            "rewards": rng.standard_normal(rows),
            "masks": masks,
            "terminals": terminals,
            "next_observations": states[1:] + terminals[:, None],  # a new start follows
        },
        "here",
    )


def by_hand(data, i, steps):
    """Reward, factor of the next value, and the last row, of the steps from row i on."""
    total, weight, k = 0.0, 1.0, 0
    while True:
        total += weight * data.rewards[i + k]
        weight *= data.masks[i + k] * GAMMA
        if k == steps - 1 or data.terminals[i + k] or i + k == len(data) - 1:
            return total, weight, i + k
        k += 1


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_n_step_returns(steps, seed):
    data = recorded(seed)
    found = over_horizon(data, steps, GAMMA)
    assert len(found) == len(data)
    for i in range(len(data)):
        total, weight, last = by_hand(data, i, steps)
        assert found.rewards[i] == pytest.approx(total, abs=1e-5)
        # the target multiplies the mask by one more discount
        assert GAMMA * found.masks[i] == pytest.approx(weight, abs=1e-6)
        np.testing.assert_array_equal(found.next_observations[i], data.next_observations[last])
    np.testing.assert_array_equal(found.observations, data.observations)
    np.testing.assert_array_equal(found.actions, data.actions)


@pytest.mark.parametrize("steps", [2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_chunks(steps, seed):
    data = recorded(seed)
    found = over_horizon(data, steps, GAMMA, chunks=True)
    whole = [i for i in range(len(data)) if by_hand(data, i, steps)[2] - i == steps - 1]
    assert len(found) == len(whole) < len(data)
    for row, i in enumerate(whole):
        total, weight, last = by_hand(data, i, steps)
        assert found.rewards[row] == pytest.approx(total, abs=1e-5)
        assert GAMMA * found.masks[row] == pytest.approx(weight, abs=1e-6)
        np.testing.assert_array_equal(found.actions[row], data.actions[i : i + steps].ravel())
        np.testing.assert_array_equal(found.observations[row], data.observations[i])
        np.testing.assert_array_equal(found.next_observations[row], data.next_observations[last])
        assert found.terminals[row] == data.terminals[last]


def test_batches_are_gathered_as_ever():
    data = recorded()
    chunked = over_horizon(data, 3, GAMMA, chunks=True)
    batch = gather(chunked.arrays(), np.arange(4))
    assert batch["actions"].shape == (4, 6)
    np.testing.assert_array_equal(batch["next_observations"], chunked.next_observations[:4])


def test_a_horizon_of_one_is_the_data():
    data = recorded()
    assert over_horizon(data, 1, GAMMA) is data


def test_trajectories_shorter_than_a_chunk():
    data = recorded()
    short = dataclasses.replace(data, terminals=np.ones_like(data.terminals))
    with pytest.raises(VGFError, match="here: no trajectory has 2 rows"):
        over_horizon(short, 2, GAMMA, chunks=True)
