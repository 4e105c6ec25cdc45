"""Data are never code, and a file's contents are in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vgf.data import to_dataset
from vgf.data.hdf5 import read_hdf5
from vgf.data.npz import read_npz
from vgf.data.raw import RawData
from vgf.support import memory
from vgf.support.errors import VGFError

ROWS = 6


def arrays(**changes: Any) -> dict[str, Any]:
    values = {
        "observations": np.arange(2 * ROWS, dtype=np.float32).reshape(ROWS, 2),
        "actions": np.zeros((ROWS, 1), np.float32),
        "rewards": np.arange(ROWS, dtype=np.float32),
        "terminals": np.array([0, 0, 1, 0, 0, 0]),
        "timeouts": np.array([0, 0, 0, 0, 0, 1]),
    } | changes
    return {key: value for key, value in values.items() if value is not None}


@pytest.fixture
def h5py() -> Any:
    return pytest.importorskip("h5py")


def write(h5py: Any, path: Path, values: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for key, value in values.items():
            file[key] = value
    return path


@pytest.mark.parametrize("way", ["raw", "link", "deep link", "soft through a link", "virtual"])
def test_hdf5_reads_nothing_outside_its_file(tmp_path: Path, h5py: Any, way: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(np.full(ROWS, 7.0, np.float32).tobytes())
    other = write(h5py, tmp_path / "other.hdf5", {"rewards": np.full(ROWS, 7.0)})
    path = write(h5py, tmp_path / "data.hdf5", arrays(rewards=None))
    with h5py.File(path, "a") as file:
        if way == "raw":
            external = [(str(secret), 0, 4 * ROWS)]
            file.create_dataset("rewards", (ROWS,), np.float32, external=external)
        elif way == "link":
            file["rewards"] = h5py.ExternalLink(other, "/rewards")
        elif way == "deep link":
            file["rewards"] = np.zeros(ROWS)
            file.create_group("infos/more")["goal"] = h5py.ExternalLink(other, "/rewards")
        elif way == "soft through a link":
            file["all"] = h5py.ExternalLink(other, "/")
            file["rewards"] = h5py.SoftLink("/all/rewards")
        else:
            layout = h5py.VirtualLayout((ROWS,), np.float64)
            layout[:] = h5py.VirtualSource(other, "rewards", (ROWS,))
            file.create_virtual_dataset("rewards", layout)
    with pytest.raises(VGFError, match=r"data\.hdf5: /.*(another file|other files)"):
        read_hdf5(path)


def test_hdf5_links_within_the_file_are_read(tmp_path: Path, h5py: Any) -> None:
    path = write(h5py, tmp_path / "data.hdf5", arrays(rewards=None))
    with h5py.File(path, "a") as file:
        file["infos/rewards"] = np.arange(ROWS)
        file["rewards"] = h5py.SoftLink("/infos/rewards")
        file["infos/again"] = file["/"]  # a circle
    assert read_hdf5(path).arrays["rewards"].tolist() == list(range(ROWS))


def test_hdf5_elements_of_varying_length_are_not_read(tmp_path: Path, h5py: Any) -> None:
    path = write(h5py, tmp_path / "data.hdf5", arrays(rewards=None) | {"infos": ["any", "text"]})
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", (ROWS,), h5py.vlen_dtype(np.float32))
    with pytest.raises(VGFError, match="rewards has elements of varying length, not numbers"):
        read_hdf5(path)


def test_what_a_file_declares_must_be_stored_and_fit(
    tmp_path: Path, h5py: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(h5py, tmp_path / "data.hdf5", arrays(observations=None))
    with h5py.File(path, "a") as file:
        file.create_dataset("observations", (10**10, 4), np.float32, chunks=(1000, 4))
    with pytest.raises(VGFError, match=r"observations declares 160,000,000,000 bytes and 0 are"):
        read_hdf5(path)
    path = write(h5py, tmp_path / "large.hdf5", arrays())
    np.savez(tmp_path / "large.npz", **arrays())
    monkeypatch.setattr(memory, "_machine", lambda: 100)
    for read, place in ((read_hdf5, path), (read_npz, tmp_path / "large.npz")):
        with pytest.raises(VGFError, match=r"of memory, and 0\.0 GiB can be used here"):
            read(place)


# --- names of flags -------------------------------------------------------------------------------

_CUT = np.array([0, 0, 0, 0, 0, 1])
_DONE = np.array([0, 0, 1, 0, 0, 0])


@pytest.mark.parametrize(
    "flags",
    [
        {"terminals": _DONE, "truncations": _CUT},
        {"terminated": _DONE, "truncated": _CUT},
        {"terminations": _DONE[:, None], "truncation": _CUT[:, None]},
        {"terminals": _DONE, "terminated": _DONE, "timeout": _CUT},
        {"dones": _DONE | _CUT, "timeouts": _CUT},
        {"done": _DONE | _CUT, "terminated": _DONE},
        {"dones": _DONE | _CUT, "masks": 1 - _DONE},
    ],
    ids=lambda flags: "+".join(flags),
)
@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_flags_under_any_name_mean_the_same(
    tmp_path: Path, flags: dict[str, Any], suffix: str
) -> None:
    values = arrays(terminals=None, timeouts=None) | flags
    values["rewards"] = values["rewards"][:, None]
    path = tmp_path / f"data{suffix}"
    if suffix == ".npz":
        np.savez(path, **values)
        raw = read_npz(path)
    else:
        raw = read_hdf5(write(pytest.importorskip("h5py"), path, values))
    same, plain = to_dataset(raw), to_dataset(RawData(arrays(), "plain"))
    for name in ("terminals", "masks", "rewards", "here", "there"):
        np.testing.assert_array_equal(getattr(same, name), getattr(plain, name), err_msg=name)
    assert any("are the file's" in line for line in raw.conventions()) == (
        set(flags) != {"terminals", "timeouts"}
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"dones": _DONE}, "dones alone, which do not say"),
        ({"terminals": _DONE, "terminated": _CUT}, "terminals and terminated, which mean the same"),
        ({"dones": _CUT, "terminals": _DONE}, "terminals and dones contradict"),
        ({"dones": _DONE.astype("U"), "terminals": _DONE}, "dones has dtype .*must be numbers"),
        (
            {"dones": _DONE, "terminated": np.zeros(len(_DONE), [("a", "f4")])},
            "terminals has dtype .*must be numbers",
        ),
        (
            {"terminals": _DONE, "terminated": _DONE.astype(object)},
            "terminated has dtype object; it must be numbers",
        ),
    ],
)
def test_flags_that_contradict_are_refused(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(VGFError, match=words):
        RawData(arrays(terminals=None, timeouts=None) | flags, "here")
