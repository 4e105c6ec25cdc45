"""A .npz file's arrays in memory and mapped from the disk: the same data, or a clear refusal."""

from __future__ import annotations

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
