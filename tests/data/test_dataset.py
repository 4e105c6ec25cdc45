"""The internal form of data: what is accepted, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vgf.data import check_dataset, standardise
from vgf.data.dataset import KEYS, batch_at, batch_rows
from vgf.data.scaling import Scaling
from vgf.support.errors import VGFError


def arrays(rows: int = 5) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "observations": rng.standard_normal((rows, 3)),
        "actions": rng.uniform(-1, 1, (rows, 2)),
        "rewards": np.full(rows, -1.0),
        "masks": np.array([1, 0, 1, 1, 1][:rows]),
        "terminals": np.array([False, False, True, False, True][:rows]),
        "next_observations": rng.standard_normal((rows, 3)),
    }


def test_a_good_dataset_is_kept_as_float32() -> None:
    dataset = check_dataset(arrays() | {"qpos": np.zeros(7)}, "here")
    assert (len(dataset), dataset.observation_dim, dataset.action_dim) == (5, 3, 2)
    for key in arrays():
        assert getattr(dataset, key).dtype == np.float32
        np.testing.assert_array_equal(getattr(dataset, key), arrays()[key].astype(np.float32))
    assert dataset.masks.tolist() != (1 - dataset.terminals).tolist()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"masks": None}, "lacks masks"),
        ({"terminals": None, "rewards": None}, "lacks rewards, terminals"),
        ({"actions": np.zeros(5)}, r"actions has shape \[5\]; it must be \[5, d\]"),
        ({"rewards": np.zeros((5, 1))}, r"rewards has shape \[5, 1\]; it must have 1 axis"),
        ({"rewards": np.zeros(4)}, "lengths differ: .*rewards 4"),
        ({"next_observations": np.zeros((5, 4))}, r"\[5, 3\] and next_observations \[5, 4\]"),
        ({"observations": np.full((5, 3), "x")}, "observations has dtype"),
        (
            {"rewards": np.array([0, 0, 0, np.nan, 0])},
            "rewards has NaN or infinity, first in row 3",
        ),
        ({"observations": np.full((5, 3), np.inf)}, "observations has NaN or infinity"),
        (
            {"actions": np.array([[0, 0], [0, -1.1]] + 3 * [[0, 0]])},
            "actions leave the box .* row 1.*; rescale .*--env",
        ),
        ({"masks": np.full(5, 0.5)}, "masks is 0.5 in row 0"),
        ({"terminals": np.array([0, 0, 2, 0, 1])}, "terminals is 2.0 in row 2"),
    ],
)
def test_a_bad_dataset_is_refused(change: dict[str, Any], words: str) -> None:
    bad = {key: value for key, value in (arrays() | change).items() if value is not None}
    with pytest.raises(VGFError, match=words) as error:
        check_dataset(bad, "here.npz")
    assert "here.npz" in str(error.value)


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(VGFError, match="no transitions"):
        check_dataset({key: value[:0] for key, value in arrays().items()}, "here")


def test_rounding_may_touch_the_box() -> None:
    check_dataset(arrays() | {"actions": np.full((5, 2), 1 + 1e-6)}, "here")


def test_standardising() -> None:
    given = arrays()
    given["observations"][:, 1] = 7.0  # A constant coordinate is centred and not scaled.
    dataset = check_dataset(given, "here")
    got = standardise(dataset.observations, dataset.observation_mean, dataset.observation_std)
    np.testing.assert_allclose(got.mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(got.std(axis=0), [1.0, 0.0, 1.0], atol=1e-6)
    assert got.dtype == np.float32


def test_every_state_is_held_once() -> None:
    rng = np.random.default_rng(0)
    walks = [rng.standard_normal((length + 1, 3)).astype(np.float32) for length in (4, 1, 6)]
    given = {
        "observations": np.concatenate([walk[:-1] for walk in walks]),
        "next_observations": np.concatenate([walk[1:] for walk in walks]),
        "actions": np.zeros((11, 2)),
        "rewards": np.arange(11.0),
        "masks": np.ones(11),
        "terminals": np.isin(np.arange(11), [3, 4, 10]),
    }
    dataset = check_dataset(given, "here")
    np.testing.assert_array_equal(dataset.states, np.concatenate(walks))
    for key in KEYS:
        np.testing.assert_array_equal(getattr(dataset, key), given[key])
    arrays = dataset.arrays()
    assert all(arrays[key] is getattr(dataset, key) for key in arrays)
    assert all(array.flags.c_contiguous for array in arrays.values())


def test_a_batch_is_standardised() -> None:
    dataset = check_dataset(arrays(), "here")
    scaling = Scaling.of(dataset, True)
    scaled = scaling.dataset(dataset)
    assert scaled.states is dataset.states
    batch, plain = batch_at(scaled, 3, 7, 64), batch_at(dataset, 3, 7, 64)
    rows = batch_rows(3, 7, 5, 64)
    for key in ("observations", "next_observations"):
        np.testing.assert_array_equal(batch[key], scaling(getattr(dataset, key))[rows])
        np.testing.assert_array_equal(batch[key], getattr(scaled, key)[rows])
        assert batch[key].dtype == np.float32
    for key in ("actions", "rewards", "masks"):
        np.testing.assert_array_equal(batch[key], plain[key])


def test_statistics_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {key: np.repeat(array, 40, axis=0) for key, array in arrays().items()}
    given["observations"] = np.random.default_rng(1).normal(5, 2, (200, 3))
    monkeypatch.setattr("vgf.data.dataset.CHUNK", 7)
    dataset = check_dataset(given, "here")
    np.testing.assert_array_equal(dataset.observations, given["observations"].astype(np.float32))
    np.testing.assert_allclose(dataset.observation_mean, given["observations"].mean(0), rtol=1e-6)
    np.testing.assert_allclose(dataset.observation_std, given["observations"].std(0), rtol=1e-6)
    given["observations"][150, 1] = np.nan
    with pytest.raises(VGFError, match="NaN or infinity, first in row 150"):
        check_dataset(given, "here")
