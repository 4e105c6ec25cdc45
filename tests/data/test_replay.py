"""Collected transitions: the ring in memory, and the file that outlives the process.

A transition is made so that it names itself: its observation is its number, and its next
observation the number after it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgf.data.dataset import KEYS, batch_at, check_dataset
from vgf.data.replay import HEADER_BYTES, ReplayBuffer, TransitionFile, read_transitions, row_type
from vgf.support.errors import VGFError

QUICK = settings(deadline=None, max_examples=50, database=None, derandomize=True)
CHUNKS = st.lists(st.integers(0, 9), max_size=8)


def transitions(start: int, count: int) -> dict[str, np.ndarray]:
    """Numbers start .. start + count - 1; every third ends a trajectory, every sixth is done."""
    number = np.arange(start, start + count, dtype=np.float32)
    return {
        "observations": np.stack([number, -number], 1),
        "actions": np.sin(number)[:, None],
        "rewards": number / 2,
        "masks": (number % 6 != 0).astype(np.float32),
        "terminals": (number % 3 == 0).astype(np.float32),
        "next_observations": np.stack([number + 1, -number - 1], 1),
    }


def rows(start: int, count: int) -> list[dict[str, np.ndarray]]:
    fields = transitions(start, count)
    return [{key: fields[key][i] for key in KEYS} | {"success": np.nan} for i in range(count)]


# --- the ring ------------------------------------------------------------------------------------


@QUICK
@given(capacity=st.integers(1, 7), chunks=CHUNKS)
def test_the_ring_holds_the_latest_in_their_order(capacity: int, chunks: list[int]) -> None:
    buffer, added = ReplayBuffer(capacity, 2, 1), 0
    for chunk in chunks:
        buffer.add(transitions(added, chunk))
        added += chunk
    assert len(buffer) == min(added, capacity)
    expected = transitions(0, added)
    for number in range(max(0, added - capacity), added):
        for key in KEYS:
            np.testing.assert_array_equal(
                buffer.rows[key][number % capacity], expected[key][number]
            )


@QUICK
@given(capacity=st.integers(1, 7), chunks=CHUNKS)
def test_chunks_or_one_by_one(capacity: int, chunks: list[int]) -> None:
    whole, single = ReplayBuffer(capacity, 2, 1), ReplayBuffer(capacity, 2, 1)
    for chunk in chunks:
        start = whole.added
        whole.add(transitions(start, chunk))
        for number in range(start, start + chunk):
            single.add(transitions(number, 1))
    assert whole.added == single.added
    for key in KEYS:
        np.testing.assert_array_equal(whole.rows[key], single.rows[key])


@QUICK
@given(
    capacity=st.integers(1, 30),
    added=st.integers(1, 60),
    seed=st.integers(0, 5),
    step=st.integers(0, 10**6),
    size=st.integers(1, 64),
)
def test_a_batch_is_of_whole_transitions_that_are_there(
    capacity: int, added: int, seed: int, step: int, size: int
) -> None:
    buffer = ReplayBuffer(capacity, 2, 1)
    buffer.add(transitions(5, added))  # none is all zeros, as a row that was never written is
    batch = buffer.batch(seed, step, size)
    numbers = batch["observations"][:, 0].astype(int)
    assert numbers.min() >= max(5, 5 + added - capacity)
    assert numbers.max() < 5 + added
    expected = transitions(0, 5 + added)
    assert set(batch) == set(KEYS) - {"terminals"}
    for key, values in batch.items():
        np.testing.assert_array_equal(values, expected[key][numbers])
        assert values.dtype == np.float32
    again = buffer.batch(seed, step, size)
    assert all(np.array_equal(batch[key], again[key]) for key in batch)


def test_batches_reach_every_row_and_differ_from_those_of_the_data() -> None:
    buffer = ReplayBuffer(20, 2, 1)
    buffer.add(transitions(0, 20))
    drawn = [buffer.batch(0, step, 16)["observations"][:, 0] for step in range(40)]
    assert set(np.concatenate(drawn)) == set(range(20))
    assert len({tuple(batch) for batch in drawn}) == 40
    assert tuple(buffer.batch(1, 0, 16)["observations"][:, 0]) != tuple(drawn[0])
    data = check_dataset(transitions(0, 20) | {"actions": np.zeros((20, 1))}, "test")
    assert tuple(batch_at(data, 0, 0, 16)["observations"][:, 0]) != tuple(drawn[0])


def test_the_end_of_a_trajectory_leaves_its_mask() -> None:
    buffer = ReplayBuffer(3, 2, 1)
    buffer.add(transitions(1, 4))
    buffer.end_trajectory()
    assert buffer.rows["terminals"][3 % 3] == 1.0  # number 4, the fourth
    assert buffer.rows["masks"][0] == 1.0


def test_a_buffer_that_cannot_be() -> None:
    with pytest.raises(VGFError, match="capacity 0; it must be 1 or more"):
        ReplayBuffer(0, 2, 1)
    with pytest.raises(VGFError, match=r"does not fit into memory; lower --buffer-size"):
        ReplayBuffer(10**17, 2, 1)
    with pytest.raises(VGFError, match="is empty; collect a transition first"):
        ReplayBuffer(3, 2, 1).batch(0, 0, 4)


# --- the file ------------------------------------------------------------------------------------


@QUICK
@given(cut=st.integers(0, 400), count=st.integers(0, 6))
def test_a_torn_tail_is_cut_off_and_nothing_else(
    cut: int, count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("torn") / "transitions.bin"
    with TransitionFile(path, 2, 1) as file:
        for row in rows(1, count):
            file.append(row)
    whole = path.read_bytes()
    size = row_type(2, 1).itemsize
    assert len(whole) == HEADER_BYTES + count * size
    kept = max(HEADER_BYTES, len(whole) - cut)
    path.write_bytes(whole[:kept])
    left = (kept - HEADER_BYTES) // size
    with TransitionFile(path, 2, 1) as file:
        assert len(file) == left
        for row in rows(1, count)[left:]:
            file.append(row)
    assert path.read_bytes() == whole


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "transitions.bin"
    with TransitionFile(path, 2, 1) as file:
        for row in rows(0, 7):
            file.append(row | {"rewards": 0.1})
        np.testing.assert_array_equal(file.read(2, 5)["observations"][:, 0], [2, 3, 4])
    found = read_transitions(path)
    for key in set(KEYS) - {"rewards"}:
        np.testing.assert_array_equal(found[key], transitions(0, 7)[key])
    assert found["rewards"].tolist() == [0.1] * 7  # the environment's own, in float64
    assert np.isnan(found["success"]).all()


def test_a_row_that_is_damaged_ends_the_file(tmp_path: Path) -> None:
    path = tmp_path / "transitions.bin"
    with TransitionFile(path, 2, 1) as file:
        for row in rows(0, 5):
            file.append(row)
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 3 * row_type(2, 1).itemsize + 1] ^= 1
    path.write_bytes(data)
    before = path.read_bytes()
    message = r"transitions.bin holds 3 complete .* after 5; put the file back, or delete the later"
    with pytest.raises(VGFError, match=message):
        TransitionFile(path, 2, 1, at_least=5)
    assert path.read_bytes() == before
    with TransitionFile(path, 2, 1, at_least=3) as file:
        assert len(file) == 3
        file.append(rows(3, 1)[0])
    # what stood behind the damaged row does not come back
    assert len(read_transitions(path)["masks"]) == 4
    # a row in another's place is no row either
    size = row_type(2, 1).itemsize
    swapped = before[:HEADER_BYTES] + before[HEADER_BYTES + size : HEADER_BYTES + 2 * size]
    path.write_bytes(swapped)
    assert len(read_transitions(path)["masks"]) == 0


def test_a_trajectory_is_ended_in_place(tmp_path: Path) -> None:
    path = tmp_path / "transitions.bin"
    with TransitionFile(path, 2, 1) as file:
        for row in rows(1, 2):
            file.append(row)
        assert file.end_trajectory()["terminals"] == 1.0
        file.append(rows(3, 1)[0])
    found = read_transitions(path)
    assert found["terminals"].tolist() == [0.0, 1.0, 1.0]
    assert found["masks"].tolist() == [1.0, 1.0, 1.0]
    np.testing.assert_array_equal(found["observations"], transitions(1, 3)["observations"])


def test_files_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "transitions.bin"
    with pytest.raises(VGFError, match=r"holds 0 complete transitions.* after 4"):
        TransitionFile(path, 2, 1, at_least=4)
    assert not path.exists()
    TransitionFile(path, 2, 1).close()
    with pytest.raises(VGFError, match="'vgf transitions 1 2 1', expected 'vgf transitions 1 3 1'"):
        TransitionFile(path, 3, 1)
    path.write_text("something else")
    with pytest.raises(VGFError, match="is not a file of transitions"):
        read_transitions(path)
    with pytest.raises(VGFError, match="cannot be read: No such file"):
        read_transitions(tmp_path / "absent")
