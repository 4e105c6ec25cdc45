"""A .npz file's arrays in memory and mapped from the disk: the same data, or a clear refusal."""

from __future__ import annotations

import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vgf.benchmarks.files import read_file
from vgf.data import npz, to_dataset
from vgf.data.dataset import KEYS, batch_at
from vgf.support.errors import VGFError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("VGF_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def recorded(path: Path, following: bool, dtype: Any = np.float32, **more: Any) -> Path:
    """A file of three trajectories, the second of which is done."""
    rng = np.random.default_rng(0)
    states = rng.standard_normal((31, 3)).astype(dtype)
    rows: dict[str, Any] = {
        "observations": states[:-1],
        "actions": rng.uniform(-1, 1, (30, 2)),
        "rewards": rng.standard_normal(30),
        "terminals": np.arange(30) == 19,
        "timeouts": np.isin(np.arange(30), [9, 29]),
        "about": np.array("nothing"),
    }
    if following:
        rows["next_observations"] = states[1:]
    np.savez_compressed(path, **(rows | more))
    return path


@pytest.mark.parametrize("following", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mapped_data_are_the_same(tmp_path: Path, cache: Path, following: bool, dtype: Any) -> None:
    path = recorded(tmp_path / "data.npz", following, dtype)
    here, there = (to_dataset(read_file(path, memory)) for memory in (npz.MEMORY, npz.MAPPED))
    for key in KEYS:
        np.testing.assert_array_equal(getattr(here, key), getattr(there, key))
    for key, array in batch_at(here, 0, 1, 8).items():
        np.testing.assert_array_equal(array, batch_at(there, 0, 1, 8)[key])
    assert _is_mapped(there.states)
    assert not _is_mapped(here.states)
    assert not there.states.flags.writeable


def _is_mapped(array: Any) -> bool:
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False


def test_unpacked_once(tmp_path: Path, cache: Path) -> None:
    path = recorded(tmp_path / "data.npz", True)
    to_dataset(read_file(path, npz.MAPPED))
    (folder,) = cache.iterdir()
    times = {place: place.stat().st_mtime_ns for place in folder.iterdir()}
    assert "states.npy" in {place.name for place in times}
    assert "about.npy" not in {place.name for place in times}
    to_dataset(read_file(path, npz.MAPPED))
    assert times == {place: place.stat().st_mtime_ns for place in folder.iterdir()}
    recorded(path, True, rewards=np.zeros(30), more=np.zeros(3))  # another file by that name
    assert not to_dataset(read_file(path, npz.MAPPED)).rewards.any()
    assert len(list(cache.iterdir())) == 2


def test_what_does_not_fit_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recorded(tmp_path / "data.npz", False)
    size = sum(array.nbytes + 128 for array in read_file(path).arrays.values())
    for free, mapped in [(None, False), (3 * size, False), (size, True)]:
        monkeypatch.setattr(npz, "free_memory", lambda free=free: free)
        assert (read_file(path, npz.AUTO).folder is not None) == mapped
        assert read_file(path).folder is None


def test_no_room_leaves_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recorded(tmp_path / "data.npz", False)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfileobj", full)
        with pytest.raises(VGFError, match=r"cannot unpack .*No space left.*VGF_CACHE_DIR"):
            read_file(path, npz.MAPPED)
    assert not list(cache.iterdir())
    assert len(to_dataset(read_file(path, npz.MAPPED))) == 28


def test_what_cannot_be_mapped(tmp_path: Path) -> None:
    (tmp_path / "data.hdf5").touch()
    with pytest.raises(VGFError, match=r"only .npz files can; use --data-memory memory"):
        read_file(tmp_path / "data.hdf5", npz.MAPPED)
    np.savez(tmp_path / "objects.npz", observations=np.array([[None]], object))
    with pytest.raises(VGFError, match=r"not a complete .npz file"):
        read_file(tmp_path / "objects.npz", npz.MAPPED)


@pytest.mark.parametrize("name", ["rewards.npy", "states.npy"])
@pytest.mark.parametrize("content", [b"", b"\0" * 200, b"\x93NUMPY\x01\0v\0{'descr'"])
def test_a_damaged_cache_is_made_again(
    tmp_path: Path, cache: Path, content: bytes, name: str
) -> None:
    path = recorded(tmp_path / "data.npz", True)
    whole = to_dataset(read_file(path, npz.MAPPED))
    rewards, states = np.array(whole.rewards), np.array(whole.states)
    (folder,) = cache.iterdir()
    (folder / name).unlink()
    (folder / name).write_bytes(content)
    again = to_dataset(read_file(path, npz.MAPPED))
    np.testing.assert_array_equal(again.rewards, rewards)
    np.testing.assert_array_equal(again.states, states)


def test_what_is_mapped_takes_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while it is read: less than the states and actions themselves."""
    for module in ("dataset", "raw"):
        monkeypatch.setattr(f"vgf.data.{module}.CHUNK", 1000)
    rows, rng = 50_000, np.random.default_rng(0)
    np.savez(
        tmp_path / "data.npz",
        observations=rng.standard_normal((rows, 29), np.float32),
        actions=rng.random((rows, 8), np.float32),
        rewards=np.zeros(rows, np.float32),
        terminals=np.arange(rows) % 100 == 99,
        timeouts=np.arange(rows) % 200 == 149,
    )
    read_file(tmp_path / "data.npz", npz.MAPPED)
    tracemalloc.start()
    try:
        dataset = to_dataset(read_file(tmp_path / "data.npz", npz.MAPPED))
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left / len(dataset) < 4 * 8 + 20 + 2  # actions; rewards, masks, terminals, here, there
    assert peak / len(dataset) < 4 * 8 + 60


# --- folders of files ----------------------------------------------------------------------------


def folder_of(tmp_path: Path, **changes: dict[str, Any]) -> Path:
    """A folder of three files; `changes` are those of one's arrays, by its name."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a", "b", "c"):
        recorded(folder / f"{name}.npz", False, **changes.get(name, {}))
    return folder


def damage(change: Callable[[bytearray], Any]) -> Callable[[Path], None]:
    def done(path: Path) -> None:
        content = bytearray(path.read_bytes())
        change(content)
        path.write_bytes(content)

    return done


ACTIONS = np.linspace(-1, 1, 70).reshape(35, 2)


@pytest.mark.parametrize("memory", [npz.MEMORY, npz.MAPPED])
@pytest.mark.parametrize(
    ("changes", "damaged", "words"),
    [
        # as many too many as there are too few, so that their sum is right
        ({"b": {"actions": ACTIONS[:25]}, "c": {"actions": ACTIONS}}, None, "actions 25"),
        ({"b": {"actions": ACTIONS[:29]}}, None, "its arrays differ in length: .*actions 29"),
        (
            {"b": {"observations": np.zeros((30, 2))}},
            None,
            r"\[30, 2\], and \[30, 3\] in the first",
        ),
        ({"b": {"terminals": np.zeros((30, 1))}}, None, r"terminals has shape \[30, 1\]"),
        ({"b": {"rewards": np.array(3.0)}}, None, r"rewards has shape \[\]"),
        ({"b": {"rewards": np.array([None] * 30)}}, None, ""),
        ({}, damage(lambda content: content.__setitem__(400, content[400] ^ 1)), ""),
        ({}, damage(lambda content: content.__delitem__(slice(400, None))), "was cut off"),
        ({}, damage(lambda content: content.clear()), "was cut off"),
    ],
)
def test_a_damaged_file_of_a_folder_is_named(
    tmp_path: Path,
    memory: str,
    changes: dict[str, Any],
    damaged: Callable[[Path], None] | None,
    words: str,
) -> None:
    folder = folder_of(tmp_path, **changes)
    if damaged is not None:
        damaged(folder / "b.npz")
    with pytest.raises(VGFError) as error:
        read_file(folder, memory)
    named = f"{folder / 'b.npz'} is not a complete .npz file: "
    assert str(error.value).startswith(named)
    assert str(error.value).endswith("; make or fetch that file again")
    assert re.search(words, str(error.value))


def test_files_that_changed_places(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, b={"rewards": np.ones(30)}, c={"rewards": -np.ones(30)})
    one, other = folder / "b.npz", folder / "c.npz"
    for path in (one, other):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    assert one.stat().st_size == other.stat().st_size
    before = read_file(folder, npz.MAPPED).arrays["rewards"].tolist()
    one.rename(tmp_path / "aside.npz")
    other.rename(one)
    (tmp_path / "aside.npz").rename(other)
    after = read_file(folder, npz.MAPPED).arrays["rewards"].tolist()
    assert after == before[:30] + before[60:] + before[30:60] != before
