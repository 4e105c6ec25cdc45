"""Looking at data: what is planted in a file is counted, and a fault is what a run refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import SECONDS

from vgf import cli
from vgf.data import RawData, to_dataset
from vgf.data.inspect import duplicated, inspect
from vgf.support.download import RECORD, check_known, sha256
from vgf.support.errors import VGFError

ROWS = 40


def arrays(seed: int = 0, rows: int = ROWS) -> dict[str, Any]:
    """Three trajectories: one done, one cut, one that the file ends in."""
    rng = np.random.default_rng(seed)
    ends = np.arange(rows)
    return {
        "observations": rng.standard_normal((rows, 3)),
        "actions": rng.uniform(-1, 1, (rows, 2)),
        "rewards": rng.standard_normal(rows),
        "terminals": ends == 9,
        "timeouts": ends == 29,
        "next_observations": rng.standard_normal((rows, 3)),
    }


def raw(values: dict[str, Any], **conventions: Any) -> RawData:
    return RawData(values, "here.npz", tuple(values), **conventions)


def test_sound_data() -> None:
    values = arrays()
    found = inspect(raw(values))
    assert found.faults == found.remarks == ()
    assert (found.rows, found.transitions, found.trajectories, found.done) == (40, 40, 3, 1)
    assert (found.terminals, found.timeouts, found.masks) == (1, 1, None)
    assert (found.duplicates, found.outside, found.constant) == (0, 0, ())
    assert found.lengths is not None
    assert found.returns is not None
    assert (found.lengths.min, found.lengths.median, found.lengths.max) == (10, 10, 20)
    returns = [values["rewards"][part].sum() for part in np.split(np.arange(40), [10, 30])]
    for name in ("min", "median", "mean", "max"):
        wanted = getattr(np, name)(returns)
        np.testing.assert_allclose(getattr(found.returns, name), wanted)
    field = found.fields["observations"]
    assert (field.shape, field.dtype, field.nan, field.infinite) == ((40, 3), "float64", 0, 0)
    np.testing.assert_allclose(
        [field.min, field.mean, field.max],
        [f(values["observations"]) for f in (np.min, np.mean, np.max)],
    )


def test_masks_terminals_and_timeouts_are_counted_apart() -> None:
    values = arrays()
    values["masks"] = np.ones(ROWS)
    values["masks"][[3, 4, 5, 9]] = 0
    values["terminals"][[19, 29]] = True
    found = inspect(raw(values))
    assert (found.terminals, found.timeouts, found.masks) == (3, 1, 4)
    assert (found.terminals_and_timeouts, found.trajectories, found.done) == (1, 4, 4)
    assert found.remarks == ("terminals and timeouts are both 1 in 1 rows: the mask decides",)


planted = st.lists(st.integers(0, ROWS - 1), unique=True, max_size=6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    nan=planted,
    infinite=planted,
    outside=planted,
    odd=planted,
    key=st.sampled_from(["observations", "rewards", "next_observations"]),
)
def test_what_is_planted_is_counted(
    nan: list[int], infinite: list[int], outside: list[int], odd: list[int], key: str
) -> None:
    values = arrays()
    values["masks"] = np.ones(ROWS)
    values["masks"][odd] = 0.5
    values["actions"][outside, 1] = 1.01
    values[key][infinite] = 1e39  # More than float32 holds.
    values[key][nan] = np.nan
    found = inspect(raw(values))
    assert found.fields[key].nan == len(nan)
    assert found.fields[key].infinite == len(set(infinite) - set(nan))
    assert found.outside == len(outside)
    kinds = [nan, set(infinite) - set(nan), outside, odd]
    assert len(found.faults) == sum(map(bool, kinds))
    for rows, word in zip(kinds, ["NaN", "infinity", "leave the box", "neither 0"], strict=True):
        line = next((fault for fault in found.faults if word in fault), "")
        assert bool(line) == bool(rows)
        if len(rows) > 1:
            assert f"in {len(rows)} rows, first in row {min(rows)}" in line
    _agrees(raw(values), found.faults)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    copies=st.lists(
        st.tuples(st.integers(0, 19), st.integers(20, 39)),
        max_size=8,
        unique_by=lambda pair: pair[1],
    ),
    same_action=st.booleans(),
)
def test_duplicates_are_counted(copies: list[tuple[int, int]], same_action: bool) -> None:
    values = arrays()
    for source, copy in copies:
        for key in ("observations", "actions", "rewards", "next_observations"):
            values[key][copy] = values[key][source]
        if not same_action:
            values["actions"][copy] *= 0.5
    found = inspect(raw(values))
    assert found.faults == ()
    alike = len(copies) if same_action else len(copies) - len({source for source, _ in copies})
    assert found.duplicates == alike
    assert len(found.remarks) == bool(alike)


def test_duplicates_are_exact() -> None:
    rows = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0 + 2**-52], [np.nan, 1.0], [np.nan, 1.0]])
    assert duplicated([rows]) == 2  # Zero is zero, and NaN is NaN; an ulp is another row.
    assert duplicated([np.zeros((5, 0)), np.zeros(5)]) == 4
    assert duplicated([]) == 0


def _agrees(data: RawData, faults: tuple[str, ...]) -> None:
    """Faults are there exactly where training refuses the data."""
    try:
        to_dataset(data)
    except VGFError:
        assert faults
    else:
        assert not faults


CHANGES: list[tuple[dict[str, Any], list[str]]] = [
    ({"rewards": None, "actions": None}, ["actions is missing", "rewards is missing"]),
    ({"terminals": None}, ["terminals is missing"]),
    ({"actions": np.zeros((ROWS, 2, 1))}, [r"actions has shape [40, 2, 1]; it must have 2 axes"]),
    ({"rewards": np.zeros((ROWS, 3))}, ["rewards has shape [40, 3]; it must have 1 axis"]),
    ({"observations": np.zeros((ROWS, 0))}, ["observations has shape [40, 0]; its rows are empty"]),
    ({"rewards": np.zeros(39)}, ["lengths differ: observations 40, actions 40, rewards 39"]),
    ({"next_observations": np.zeros((ROWS, 4))}, ["observations have 3 numbers and next_obs"]),
    ({"actions": np.full((ROWS, 2), "x")}, ["actions has dtype <U1; it must be numbers"]),
    ({"timeouts": np.full(ROWS, 2)}, ["timeouts is neither 0 nor 1 in 40 rows"]),
    (
        {
            "timeouts": np.full(ROWS, np.nan),
            "rewards": np.zeros(3),
            "actions": np.full((ROWS, 2), 9.0),
        },
        ["lengths differ", "timeouts has NaN in 40 rows", "actions leave the box [-1, 1] in 40"],
    ),
    ({key: value[:0] for key, value in arrays().items()}, ["there are no rows"]),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_every_fault_is_listed(change: dict[str, Any], words: list[str]) -> None:
    values = {key: value for key, value in (arrays() | change).items() if value is not None}
    found = inspect(raw(values))
    assert len(found.faults) == len(words)
    for word in words:
        assert sum(word in fault for fault in found.faults) == 1
    with pytest.raises(VGFError):
        to_dataset(raw(values))
    assert found.transitions is None


def test_equal_returns_are_a_remark() -> None:
    values = arrays() | {"rewards": np.zeros(ROWS)}
    found = inspect(raw(values, normalise_rewards=True))
    assert found.faults == ()
    assert found.remarks[0].startswith("all complete trajectories have the return 0")


def test_the_box_of_an_environment() -> None:
    values = arrays()
    values["actions"][:4] = [[1.9, -1.9], [2.1, 0], [0, 3.0], [2.0, -2.0]]
    box = {"action_low": np.full(2, -2.0), "action_high": np.full(2, 2.0)}
    found = inspect(raw(values, **box))
    assert (found.outside, found.box) == (2, "[-2, 2]")
    assert "leave the box [-2, 2] in 2 rows, first in row 1: [2.1, 0]; " in found.faults[0]
    assert "rescale them, or name the environment whose box they are in by --env" in found.faults[0]
    clipped = inspect(raw(values, action_clip=1.0 - 1e-5))
    assert clipped.faults == ()
    assert "4 rows, first in row 0, and are clipped" in clipped.remarks[0]
    wrong = inspect(raw(values, action_low=np.zeros(3), action_high=np.ones(3)))
    assert wrong.faults == (
        "actions have 2 numbers and the environment's 3; are they from another environment?",
    )


def test_constant_coordinates() -> None:
    values = arrays()
    values["observations"][:, 1] = 7.0
    found = inspect(raw(values))
    assert found.constant == (1,)
    assert found.remarks == ("observations never change in coordinates 1",)


# --- the command ---------------------------------------------------------------------------------


def vgf(*words: str | Path) -> int:
    return cli.main(["data", "inspect", *map(str, words)])


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "some.npz"
    np.savez(path, **arrays(), extra=np.zeros(2))
    return path


def test_what_the_command_prints(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert vgf(file.name) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    words = " ".join(said.split())
    for expected in (
        "not used extra",
        "terminals = 1 1",
        "timeouts = 1 1",
        "masks = 0: done, no bootstrap absent 1",
        "the end of a trajectory 3",
        "transitions 40",
        "duplicates 0",
        "actions out of box 0 [-1, 1]",
        "no faults; vgf run takes these data",
        "picture: inspect-some.png",
    ):
        assert expected in words
    assert (file.parent / "inspect-some.png").read_bytes()[1:4] == b"PNG"


def test_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert vgf(file, "--json", "--no-picture") == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["transitions"], values["faults"], values["picture"]) == (40, [], None)
    assert values["fields"]["actions"]["shape"] == [40, 2]
    assert [path.name for path in file.parent.iterdir()] == ["some.npz"]


def test_faults_are_listed_and_are_a_failure(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = arrays()
    values["rewards"][3] = np.nan
    values["actions"] = values["actions"][:-1]
    np.savez(file, **values)
    assert vgf(file, "--out", file.parent / "pictures") == 2
    said = capsys.readouterr().out
    assert "2 faults; vgf run refuses these data:" in said
    assert "rewards has NaN in row 3" in said
    assert "lengths differ" in said
    assert (file.parent / "pictures" / "inspect-some.png").exists()


def test_a_file_that_is_not_what_was_downloaded(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"size": file.stat().st_size, "sha256": sha256(file)}
    (file.parent / RECORD).write_text(json.dumps({file.name: known}))
    assert vgf(file, "--no-picture") == 0
    np.savez(file, **arrays(1), extra=np.zeros(2))
    assert file.stat().st_size == known["size"]
    capsys.readouterr()
    assert vgf(file, "--no-picture", "--json") == 2
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    with pytest.raises(VGFError) as error:
        check_known(file)
    assert fault == str(error.value)
    for words in ("its SHA-256 differs; delete it, and it is fetched again", str(file.parent)):
        assert words in fault


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.npz", None, "no such file"),
        ("cut.npz", b"PK\x03\x04 and no more", "is not a complete .npz file"),
        ("foreign.npz", b"hello", "is not a complete .npz file"),
        ("some.txt", b"hello", "must end in one of .npz, .hdf5, .h5"),
        ("cut.hdf5", b"\x89HDF\r\n\x1a\n", "is not a complete HDF5 file"),
    ],
)
def test_a_file_that_cannot_be_read(
    name: str, content: bytes | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name.endswith("hdf5"):
        pytest.importorskip("h5py")
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert vgf(path, "--out", tmp_path / "x.png") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert str(path) in said
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


@pytest.mark.full
def test_without_simulators(file: Path) -> None:
    """Files need no gymnasium, no OGBench and no framework."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('gymnasium', 'ogbench', 'torch', 'jax', "
        "'minari', 'mujoco'))); from vgf.cli import main; "
        f"sys.exit(main(['data', 'inspect', {str(file)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=file.parent,
        check=False,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "no faults" in done.stdout


def test_an_environment_for_a_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gymnasium")
    values = arrays()
    values["actions"] = 2 * values["actions"][:, :1]
    np.savez(file, **values)
    assert vgf(file, "--no-picture") == 2
    assert "leave the box [-1, 1]" in capsys.readouterr().out
    assert vgf(file, "--no-picture", "--env", "gymnasium:Pendulum-v1") == 0
    assert "actions out of box  0   [-2, 2]" in capsys.readouterr().out
    assert vgf(file, "--no-picture", "--env", "MountainCarContinuous-v0") == 2
    said = capsys.readouterr().out
    assert "leave the box" in said


def test_a_recording_knows_its_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gymnasium")
    path = tmp_path / "x.npz"
    assert (
        cli.main(
            [
                "data",
                "make",
                "Pendulum-v1",
                "--policy",
                "random",
                "--episodes",
                "1",
                "--workers",
                "1",
                "--out",
                str(path),
            ]
        )
        == 0
    )
    assert vgf(path, "--no-picture") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "actions out of box 0 [-2, 2]" in said
    assert "those of gymnasium:Pendulum-v1, where they were recorded" in said


def test_ogbenchs_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ogbench")
    name = "pointmaze-medium-stitch-v0"
    assert vgf(name, "--data-dir", tmp_path) == 2
    said = capsys.readouterr().err
    assert f"vgf data make {name} --data-dir {tmp_path} makes them" in said
    path = tmp_path / f"{name}.npz"
    assert (
        cli.main(["data", "make", name, "--episodes", "2", "--workers", "1", "--out", str(path)])
        == 0
    )
    assert f"vgf run --env pointmaze-medium-stitch-singletask-task1-v0 --data {path}" in (
        capsys.readouterr().out
    )
    for what in (path, name):
        assert vgf(what, "--data-dir", tmp_path, "--json", "--no-picture") == 0
        values = json.loads(capsys.readouterr().out)
        assert (values["transitions"], values["trajectories"], values["terminals"]) == (400, 2, 2)
        assert values["masks"] == values["done"]
        assert "pointmaze-medium-stitch-singletask-task1-v0" in values["remarks"][-1]


@pytest.mark.parametrize("text", ['{"data.npz": "0123abcd"}', '["data.npz"]', "no JSON"])
def test_somebody_elses_record_says_nothing_of_a_named_file(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only where downloads are kept is it ours, and then damaged."""
    path = tmp_path / "data.npz"
    np.savez(path, **arrays(1))
    (tmp_path / RECORD).write_text(text)
    assert vgf(path, "--no-picture") == 0
    with pytest.raises(VGFError, match=RECORD):
        check_known(path)
