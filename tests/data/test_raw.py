"""From files to the internal form: conventions against a row-by-row reading, and every fault."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgf.benchmarks.base import Benchmark
from vgf.benchmarks.files import read_file
from vgf.data import RawData, read_npz, return_range, to_dataset
from vgf.data.raw import equal_returns
from vgf.support.errors import VGFError

quick = hypothesis.settings(max_examples=80, deadline=None, derandomize=True)
flags = st.lists(st.booleans(), min_size=1, max_size=14)


@st.composite
def arrays(draw: st.DrawFn, *, masks: bool | None = None) -> dict[str, Any]:
    """A small file: random rows, ends of both kinds, and optional fields."""
    rows = draw(st.integers(2, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    column = st.lists(st.sampled_from([0, 0, 0, 1]), min_size=rows, max_size=rows).map(np.array)
    found = {
        "observations": rng.standard_normal((rows, 3)),
        "actions": rng.uniform(-1, 1, (rows, 2)),
        "rewards": rng.standard_normal(rows),
        "terminals": draw(column).astype(draw(st.sampled_from([bool, np.float32, np.int64]))),
    }
    if draw(st.booleans()):
        found["timeouts"] = draw(column).astype(bool)
    if draw(st.booleans()):
        found["next_observations"] = rng.standard_normal((rows, 3))
    if draw(st.booleans()) if masks is None else masks:
        found["masks"] = 1.0 - draw(column)
    return found


def row_by_row(found: dict[str, Any], limit: int | None) -> list[dict[str, Any]]:
    """What the internal form is, said once more, a row at a time."""
    rows, kept, begun = len(found["rewards"]), [], 0
    for i in range(rows):
        timeout = bool(found["timeouts"][i]) if "timeouts" in found else False
        if "masks" in found:
            done = found["masks"][i] == 0
        else:
            done = bool(found["terminals"][i])
            if "timeouts" not in found and limit is not None:
                timeout = i - begun + 1 == limit
        end = bool(found["terminals"][i]) or timeout or i == rows - 1
        row = {key: found[key][i] for key in ("observations", "actions", "rewards")}
        row |= {"masks": 0.0 if done else 1.0, "terminals": float(end), "begun": begun}
        if "next_observations" in found:
            row["next_observations"] = found["next_observations"][i]
        elif not end:
            row["next_observations"] = found["observations"][i + 1]
        if "next_observations" in row or done:
            kept.append(row)
        elif kept and kept[-1]["begun"] == begun:
            kept[-1]["terminals"] = 1.0
        if end:
            begun = i + 1
    return kept


@quick
@given(arrays(), st.sampled_from([None, 2, 3, 5]))
def test_conventions(found: dict[str, Any], limit: int | None) -> None:
    raw = RawData(found, "here", max_episode_steps=limit)
    expected = row_by_row(found, limit)
    if not expected:
        with pytest.raises(VGFError, match="no transitions"):
            to_dataset(raw)
        return
    dataset = to_dataset(raw)
    for key in ("observations", "actions", "rewards", "masks", "terminals"):
        np.testing.assert_array_equal(
            getattr(dataset, key), np.array([row[key] for row in expected], np.float32), key
        )
    for i, row in enumerate(expected):
        if "next_observations" in row:
            np.testing.assert_array_equal(
                dataset.next_observations[i], row["next_observations"].astype(np.float32)
            )
        else:
            assert dataset.masks[i] == 0  # so that whatever stands there is not used


@quick
@given(arrays(masks=False))
def test_a_timeout_ends_a_trajectory_and_keeps_the_bootstrap(found: dict[str, Any]) -> None:
    found["next_observations"] = found["observations"] + 1.0
    found["terminals"] = np.zeros(len(found["rewards"]), bool)
    found["timeouts"] = np.arange(len(found["rewards"])) % 3 == 2
    dataset = to_dataset(RawData(found, "here"))
    assert dataset.terminals[found["timeouts"]].all()
    assert dataset.masks.all()
    assert not dataset.terminals[:-1][~found["timeouts"][:-1]].any()


@quick
@given(arrays(), st.floats(-5, 5), st.floats(0.1, 5))
def test_actions_are_rescaled_from_their_box(
    found: dict[str, Any], low: float, size: float
) -> None:
    box = np.array([low, -low]), np.array([low, -low]) + size
    ours = found["actions"]
    theirs = box[0] + (ours + 1) / 2 * (box[1] - box[0])
    raw = RawData({**found, "actions": theirs, "next_observations": found["observations"]}, "here")
    dataset = to_dataset(dataclasses.replace(raw, action_low=box[0], action_high=box[1]))
    np.testing.assert_allclose(dataset.actions, ours, atol=1e-5)


def slow_range(rewards: Any, ends: Any, steps: int) -> tuple[float, float] | None:
    returns, total, length = [], 0.0, 0
    for reward, end in zip(rewards, ends, strict=True):
        total, length = total + reward, length + 1
        if end or length == steps:
            returns.append(total)
            total, length = 0.0, 0
    return (min(returns), max(returns)) if returns else None


@quick
@given(flags, st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_range_of_returns(ends: list[bool], steps: int, seed: int) -> None:
    rewards = np.random.default_rng(seed).standard_normal(len(ends))
    expected = slow_range(rewards, ends, steps) or (rewards.sum(), rewards.sum())
    got = return_range(rewards, np.array(ends), steps)
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_trajectories_are_split_at_1000_steps() -> None:
    rewards = np.ones(2500)
    rewards[1000:2000] = 2.0
    ends = np.zeros(2500, bool)
    assert return_range(rewards, ends) == (1000.0, 2000.0)  # the rest, of 500, is no whole one
    ends[1499] = True  # 1,000 of 1; 500 of 2; 1,000 from there on, half of 2 and half of 1
    assert return_range(rewards, ends) == (1000.0, 1500.0)


@quick
@given(arrays(), st.floats(-2, 2))
def test_normalised_rewards_span_1000(found: dict[str, Any], shift: float) -> None:
    found["next_observations"] = found["observations"]
    raw = RawData(found, "here", reward_shift=shift, normalise_rewards=True)
    plain = to_dataset(dataclasses.replace(raw, normalise_rewards=False))
    ends = found["terminals"].astype(bool) | found.get("timeouts", np.zeros(len(plain), bool))
    low, high = return_range(plain.rewards, ends)
    if high - low < 1e-3:
        return
    dataset = to_dataset(raw)
    np.testing.assert_allclose(
        np.subtract(*return_range(dataset.rewards, ends)[::-1]), 1000.0, rtol=1e-3
    )
    assert (dataset.reward_shift, plain.reward_scale) == (shift, 1.0)
    np.testing.assert_allclose(
        dataset.rewards, (found["rewards"] + shift) * dataset.reward_scale, rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize(
    ("rewards", "ends"),
    [
        ([0, 0, 0, 0], [0, 1, 0, 1]),  # the goal is never reached
        ([1, 2, 2, 1], [0, 1, 0, 1]),
        ([1, 2, 3, 4], [0, 0, 0, 1]),  # one trajectory
        ([1, 2, 3, 4], [0, 0, 0, 0]),  # none that ends
        ([0.1, 0.2, 0.3, 0.3, 0.2, 0.1], [0, 0, 1, 0, 0, 1]),  # equal but for the order of the sum
    ],
)
def test_equal_returns_are_not_scaled_and_said(rewards: list[float], ends: list[int]) -> None:
    fields = {
        "observations": np.zeros((len(ends), 2)),
        "actions": np.zeros((len(ends), 1)),
        "rewards": np.array(rewards),
        "terminals": np.array(ends),
    }
    raw = RawData(fields, "here", reward_shift=-1.0, normalise_rewards=True)
    dataset = to_dataset(raw)
    assert dataset.reward_scale == 1.0
    plain = to_dataset(dataclasses.replace(raw, normalise_rewards=False))
    np.testing.assert_array_equal(dataset.rewards, plain.rewards)
    (line,) = equal_returns(raw)
    assert line.startswith("all complete trajectories have the return ")
    notes = Benchmark().data_notes(raw)
    assert line in notes
    assert not any("scaled by" in note for note in notes)
    fields["rewards"] = np.arange(len(ends), dtype=float) ** 2
    fields["terminals"][[1, -1]] = 1
    assert equal_returns(RawData(fields, "here", normalise_rewards=True)) == ()
    assert equal_returns(dataclasses.replace(raw, normalise_rewards=False)) == ()


# --- faults --------------------------------------------------------------------------------------


def good(rows: int = 6) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "observations": rng.standard_normal((rows, 3)),
        "actions": rng.uniform(-1, 1, (rows, 2)),
        "rewards": np.zeros(rows),
        "terminals": np.arange(rows) % 3 == 2,
        "timeouts": np.zeros(rows, bool),
    }


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"observations": None}, r"lacks observations; it has actions, rewards, terminals, timeouts"),
    ({"actions": None, "rewards": None}, "lacks actions, rewards"),
    ({"terminals": None}, "lacks terminals; .*terminals are 1 where the task is done"),
    ({"rewards": np.zeros((6, 2))}, r"rewards has shape \[6, 2\]; it must have 1 axis"),
    (
        {"observations": np.zeros(6)},
        r"observations has shape \[6\]; it must be \[6, d\]: one number a row is \[6, 1\]",
    ),
    ({"observations": np.zeros((6, 8, 8, 3))}, r"shape \[6, 8, 8, 3\]; it must have 2 axes"),
    ({"observations": np.zeros((6, 0))}, r"shape \[6, 0\]; its rows are empty"),
    ({"actions": np.zeros(6, int)}, "actions has dtype int64, as discrete actions have"),
    ({"rewards": np.zeros(5)}, "lengths differ: .*rewards 5"),
    ({"next_observations": np.zeros((6, 4))}, r"next_observations \[6, 4\]; they must agree"),
    ({"rewards": np.array([0, 0, np.nan, 0, 0, 0])}, "rewards has NaN or infinity, first in row 2"),
    ({"observations": np.full((6, 3), 1e300)}, "observations has NaN or infinity, first in row 0"),
    ({"terminals": np.full(6, 0.5)}, "terminals is 0.5 in row 0; it must be 0 or 1"),
    ({"timeouts": np.full(6, 2)}, "timeouts is 2.0 in row 0; it must be 0 or 1"),
    ({"masks": np.full(6, -1)}, "masks is -1.0 in row 0"),
    ({"actions": np.full((6, 2), 1.5)}, r"leave the box \[-1, 1\] in 6 rows.*; rescale .*--env"),
    ({"observations": np.full((6, 3), "x")}, "observations has dtype <U1; it must be numbers"),
    ({"rewards": np.zeros(6, complex)}, "rewards has dtype complex128"),
]


@pytest.mark.parametrize(("change", "words"), FAULTS)
@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_every_fault_is_one_clear_error(
    change: dict[str, Any], words: str, suffix: str, tmp_path: Path
) -> None:
    found = {key: value for key, value in {**good(), **change}.items() if value is not None}
    path = tmp_path / f"data{suffix}"
    if suffix == ".npz":
        np.savez(path, **found)
    else:
        h5py = pytest.importorskip("h5py")
        if any(np.asarray(value).dtype.kind in "Uc" for value in found.values()):
            pytest.skip("not in HDF5")
        with h5py.File(path, "w") as file:
            for key, value in found.items():
                file[key] = value
    with pytest.raises(VGFError, match=words) as error:
        to_dataset(read_file(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, content, words in [
        (
            "a.npz",
            b"not a zip",
            "is not a complete .npz file: it is not a zip archive, or was cut off",
        ),
        ("b.npz", b"", "is not a complete .npz file: it is not a zip archive"),
        ("c.hdf5", b"not HDF5", "is not a complete HDF5 file"),
        ("d.csv", b"1,2", "must end in one of .npz, .hdf5, .h5"),
    ]:
        (tmp_path / name).write_bytes(content)
        if name.endswith("hdf5"):
            pytest.importorskip("h5py")
        with pytest.raises(VGFError, match=words):
            read_file(tmp_path / name)
    with pytest.raises(VGFError, match="no such file; name a file of data with --data"):
        read_file(tmp_path / "nothing.npz")
    (tmp_path / "folder").mkdir()
    with pytest.raises(VGFError, match="is a folder"):
        read_file(tmp_path / "folder")
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(VGFError, match=r"is not a complete \.npz file: it is not a zip archive"):
        read_npz(tmp_path / "array.npz")
    np.savez(tmp_path / "objects.npz", observations=np.array([None, {}], object))
    with pytest.raises(VGFError, match=r"is not a complete \.npz file"):
        read_npz(tmp_path / "objects.npz")


def test_names_in_hdf5_without_an_array_are_told_apart(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["actions"] = np.zeros((3, 1))
        file.create_group("observations")
        file["rewards"] = h5py.SoftLink("/nowhere")
    with pytest.raises(VGFError, match=r"observations \(no array\), rewards \(no array\);"):
        to_dataset(read_file(tmp_path / "a.hdf5"))


@quick
@given(st.integers(0, 10**6), st.sampled_from([".npz", ".hdf5"]))
def test_truncated_files_are_refused(cut: int, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"data{suffix}"
        if suffix == ".npz":
            np.savez_compressed(path, **good(200))
        else:
            h5py = pytest.importorskip("h5py")
            with h5py.File(path, "w") as file:
                for key, value in good(200).items():
                    file[key] = value
        whole = path.read_bytes()
        path.write_bytes(whole[: cut % len(whole)])
        with pytest.raises(VGFError, match="is not a complete"):
            to_dataset(read_file(path))
