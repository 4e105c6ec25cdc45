"""D4RL without its package: its table, its files, and its conventions."""

from __future__ import annotations

import dataclasses
import http.server
import io
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgf.benchmarks import copy_d4rl_infos, d4rl, d4rl_infos, read_raw
from vgf.benchmarks.d4rl import find_d4rl
from vgf.benchmarks.d4rl_infos import D4RLTask, d4rl_table, normalised_score, table_of
from vgf.benchmarks.tasks import make_task
from vgf.data import to_dataset
from vgf.data.hdf5 import check_hdf5
from vgf.data.raw import RawData
from vgf.support.errors import VGFError

h5py = pytest.importorskip("h5py")
quick = hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)

INFOS = """
DATASET_URLS = {'hopper-random-v0': 'http://host/a/hopper_random.hdf5'}
REF_MIN_SCORE = {'hopper-random-v0': -1}
REF_MAX_SCORE = {'hopper-random-v0': 3}
for kind in ['medium']:
    name = 'hopper-' + kind + '-v2'
    DATASET_URLS[name] = 'http://host/a/hopper_%s-v2.hdf5' % kind
    REF_MIN_SCORE[name] = REF_MIN_SCORE['hopper-random-v0']
    REF_MAX_SCORE[name] = 7.5
DATASET_URLS['maze2d-own-v1'] = 'http://host/a/maze.hdf5'
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data but the test's own."""
    monkeypatch.delenv(d4rl.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(d4rl, "DEFAULT_FOLDER", tmp_path / "home")


def write(path: Path, **change: Any) -> Path:
    """A file as D4RL has them: three rows until the task is done, four until a timeout, one."""
    rng = np.random.default_rng(0)
    fields = {
        "observations": rng.standard_normal((8, 11)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (8, 3)).astype(np.float32),
        "rewards": np.arange(8, dtype=np.float32),
        "terminals": np.array([0, 0, 1, 0, 0, 0, 0, 0], bool),
        "timeouts": np.array([0, 0, 0, 0, 0, 0, 1, 0], bool),
    } | change
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, value in fields.items():
            if value is not None:
                file[key] = value
        file["infos/qpos"] = np.zeros((8, 6))  # which D4RL's files have too
    return path


# --- the table -----------------------------------------------------------------------------------


def test_the_copy_of_the_table() -> None:
    table = d4rl_table()
    assert "Farama-Foundation/D4RL/blob/89141a6/d4rl/infos.py" in table.source
    hopper = table.tasks["hopper-medium-v2"]
    assert hopper.files == ("hopper_medium-v2.hdf5", "hopper-medium-v2.hdf5")
    assert (hopper.ref_min, hopper.ref_max) == (-20.272305, 3234.3)
    assert table.tasks["door-cloned-v1"].ref_max == 2880.5693087298737
    assert table.tasks["antmaze-umaze-v2"].files[0].endswith("goal_False_sparse_fixed.hdf5")
    assert table.tasks["antmaze-umaze-v2"].max_episode_steps == 700
    assert table.tasks["antmaze-large-play-v2"].max_episode_steps == 1000
    assert table.tasks["pen-human-v1"].max_episode_steps == 100
    assert table.tasks["carla-town-full-v0"].ref_min is None


@quick
@given(st.sampled_from(sorted(d4rl_table().tasks)), st.floats(-1e4, 1e4))
def test_normalised_scores(name: str, value: float) -> None:
    task = d4rl_table().tasks[name]
    if task.ref_min is None or task.ref_max is None:
        with pytest.raises(VGFError, match=f"no reference score for {name}"):
            normalised_score(name, value)
        return
    span = task.ref_max - task.ref_min
    np.testing.assert_allclose(
        normalised_score(name, value), (value - task.ref_min) / span * 100, atol=1e-8
    )
    assert normalised_score(name, task.ref_min) == 0.0
    np.testing.assert_allclose(normalised_score(name, task.ref_max), 100.0)


def test_an_unknown_name_has_no_score() -> None:
    with pytest.raises(VGFError, match=r"no task 'hopper-medum-v2'; did you mean hopper-medium-v2"):
        normalised_score("hopper-medum-v2", 1.0)


def test_an_installed_package_is_read_and_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "d4rl"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('no MuJoCo 2.1 here')")
    (package / "infos.py").write_text(INFOS)
    monkeypatch.syspath_prepend(str(package.parent))
    table = d4rl_table()
    assert table.source == f"{package / 'infos.py'}, as installed"
    assert table.tasks["hopper-medium-v2"] == D4RLTask(
        "hopper-medium-v2", "http://host/a/hopper_medium-v2.hdf5", -1.0, 7.5
    )
    assert normalised_score("hopper-medium-v2", 7.5) == 100.0
    with pytest.raises(VGFError, match="no reference score for maze2d-own-v1"):
        normalised_score("maze2d-own-v1", 1.0)
    assert "d4rl" not in sys.modules
    (package / "infos.py").write_text("DATASET_URLS = {}")
    with pytest.raises(VGFError, match=r"infos.py is not D4RL's table of scores \(KeyError"):
        d4rl_table()


def test_the_copy_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "infos.py").write_text(INFOS)
    monkeypatch.setattr(d4rl_infos, "TABLE", tmp_path / "copy.json")
    d4rl_infos._read_copy.cache_clear()
    try:
        assert copy_d4rl_infos.main([str(tmp_path / "infos.py"), "0123456789"]) == 0
        table = d4rl_table()
    finally:
        d4rl_infos._read_copy.cache_clear()
    assert table.tasks == table_of(tmp_path / "infos.py", "").tasks
    assert table.source.endswith("/blob/0123456/d4rl/infos.py")
    assert json.loads((tmp_path / "copy.json").read_text())["revision"] == "0123456789"
    assert copy_d4rl_infos.main([]) == 2
    assert "usage" in capsys.readouterr().err


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hopper_medium-v2.hdf5", "hopper-medium-v2.hdf5"])
@pytest.mark.parametrize("where", ["own", "home", "variable"])
def test_files_are_found(
    name: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "variable":
        monkeypatch.setenv(d4rl.FOLDER_VARIABLE, str(tmp_path / "variable"))
    path = write(tmp_path / where / name)
    task = d4rl_table().tasks["hopper-medium-v2"]
    data_dir = tmp_path / "own" if where == "own" else None
    assert find_d4rl(task, data_dir, allow_download=False) == path


def test_the_ways_out_where_there_is_no_file(tmp_path: Path) -> None:
    task = d4rl_table().tasks["hopper-medium-v2"]
    with pytest.raises(VGFError) as error:
        find_d4rl(task, allow_download=False)
    assert f"hopper-medium-v2.hdf5 into {tmp_path / 'home'}" in str(error.value)
    for way in ("--data-dir", "--data", "allow the download"):
        assert way in str(error.value)
    dead = D4RLTask("dead-v0", "http://127.0.0.1:9/dead.hdf5", None, None)
    with pytest.raises(VGFError, match=r"http://127.0.0.1:9/dead.hdf5: .*refused"):
        find_d4rl(dead, tmp_path / "own")
    assert not list((tmp_path / "own").glob("**/*.hdf5"))


def hdf5_bytes() -> bytes:
    """A file of 3 MB, compressed as D4RL's are."""
    buffer, numbers = io.BytesIO(), np.random.default_rng(0).standard_normal((100_000, 4))
    with h5py.File(buffer, "w") as file:
        file.create_dataset("observations", data=numbers, compression="gzip")
        file["infos/name"] = "hopper"
    return buffer.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a file at /whole.hdf5, and other things at other names."""

    content = hdf5_bytes()

    def do_GET(self) -> None:
        what = self.path.strip("/").split("/")[0].removesuffix(".hdf5")
        half, sent = len(self.content) // 2, self.content
        if what in ("cut", "unsized", "less"):  # less: it says so, too
            sent = self.content[:half]
        if what == "damaged":
            sent = sent[:half] + bytes([sent[half] ^ 1]) + sent[half + 1 :]
        self.send_response(200)
        if what != "unsized":
            said = half if what == "less" else len(self.content)
            self.send_header("Content-Length", str(said))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_downloads_are_whole_or_not_there(server: str, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    task = D4RLTask("whole-v0", f"{server}/whole.hdf5", None, None)
    path = find_d4rl(task, tmp_path / "own", progress=lambda *call: calls.append(call))
    assert path == tmp_path / "own" / "whole.hdf5"
    assert path.read_bytes() == Handler.content
    assert calls[-1] == ("downloading whole.hdf5 (MB)", 3, 3)
    cut, size = D4RLTask("cut-v0", f"{server}/cut.hdf5", None, None), len(Handler.content)
    with pytest.raises(VGFError, match=f"it ended after {size // 2:,} of {size:,} bytes"):
        find_d4rl(cut, tmp_path / "own")
    assert not (tmp_path / "own" / "cut.hdf5").exists()


@pytest.mark.parametrize("what", ["unsized", "less", "damaged"])
def test_a_damaged_file_is_not_recorded(what: str, server: str, tmp_path: Path) -> None:
    task = D4RLTask("whole-v0", f"{server}/whole.hdf5", None, None)
    with pytest.raises(VGFError, match="it is not a complete HDF5 file"):
        find_d4rl(dataclasses.replace(task, url=f"{server}/{what}/whole.hdf5"), tmp_path)
    assert not list(tmp_path.iterdir())
    path = find_d4rl(task, tmp_path, mirror=f"{server}/{what}")  # the next address has it
    assert path.read_bytes() == Handler.content


# --- conventions ---------------------------------------------------------------------------------


def load(path: Path, env: str = "hopper-medium-v2", **options: Any) -> Any:
    return to_dataset(read_raw(env, path, **options))


def test_a_small_file(tmp_path: Path) -> None:
    dataset = load(write(tmp_path / "a.hdf5"))
    # The row of the timeout has no s', nor has the last row of the file; the one that is done
    # needs none.
    assert dataset.rewards.tolist() == [0, 1, 2, 3, 4, 5]
    assert dataset.masks.tolist() == [1, 1, 0, 1, 1, 1]
    assert dataset.terminals.tolist() == [0, 0, 1, 0, 0, 1]
    np.testing.assert_array_equal(dataset.next_observations[0], dataset.observations[1])
    columns = {
        "rewards": np.arange(8.0)[:, None],
        "terminals": np.eye(8)[2][:, None],
        "timeouts": np.eye(8)[6][:, None],
    }
    again = load(write(tmp_path / "b.hdf5", **columns))
    assert again.rewards.tolist() == dataset.rewards.tolist()
    assert again.masks.tolist() == dataset.masks.tolist()


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    rows = draw(st.integers(3, 12))
    rng = np.random.default_rng(draw(seeds))
    ends = rng.integers(0, 4, rows)
    return {
        "observations": rng.standard_normal((rows, 11)),
        "next_observations": rng.standard_normal((rows, 11)),
        "actions": rng.uniform(-1.1, 1.1, (rows, 3)) * draw(st.sampled_from([1.0, 3.0])),
        "rewards": rng.standard_normal(rows),
        "terminals": ends == 0,
        "timeouts": ends == 1,
    }


def loaded(fields: dict[str, Any], env: str, **options: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.hdf5"
        with h5py.File(path, "w") as file:
            for key, value in fields.items():
                file[key] = value
        return load(path, env, **options)


@quick
@given(files())
def test_actions_are_clipped(fields: dict[str, Any]) -> None:
    dataset = loaded(fields, "hopper-medium-v2")
    expected = np.clip(fields["actions"], -(1 - 1e-5), 1 - 1e-5).astype(np.float32)
    np.testing.assert_array_equal(dataset.actions, expected)
    assert np.abs(dataset.actions.astype(np.float64)).max() <= 1 - 1e-5


@pytest.mark.full
@quick
@given(files(), st.sampled_from(["antmaze-umaze-v2", "antmaze-large-diverse-v0"]))
def test_antmazes_rewards_are_shifted(fields: dict[str, Any], env: str) -> None:
    fields["rewards"] = (fields["rewards"] > 0).astype(float)
    dataset = loaded(fields, env)
    np.testing.assert_array_equal(dataset.rewards, fields["rewards"].astype(np.float32) - 1)
    assert dataset.reward_shift == -1.0
    np.testing.assert_array_equal(
        loaded(fields, "hopper-medium-v2").rewards, fields["rewards"].astype(np.float32)
    )
    with pytest.raises(VGFError, match=r"shifted by -1 and not scaled; use --no-normalise"):
        loaded(fields, env, normalise_rewards=True)


@quick
@given(files())
def test_rewards_are_normalised(fields: dict[str, Any]) -> None:
    ends = fields["terminals"] | fields["timeouts"]
    returns, total = [], 0.0
    for reward, end in zip(fields["rewards"], ends, strict=True):
        total += reward
        if end:
            returns.append(total)
            total = 0.0
    # what is left at the end of the file is not a whole trajectory
    if len(returns) < 2 or max(returns) - min(returns) < 1e-6:
        return
    dataset = loaded(fields, "hopper-medium-v2", normalise_rewards=True)
    scale = 1000.0 / (max(returns) - min(returns))
    np.testing.assert_allclose(dataset.rewards, fields["rewards"] * scale, rtol=1e-5)


@quick
@given(files())
def test_timeouts_bootstrap_and_terminals_do_not(fields: dict[str, Any]) -> None:
    dataset = loaded(fields, "walker2d-medium-replay-v2")
    ends = fields["terminals"] | fields["timeouts"]
    ends[-1] = True
    np.testing.assert_array_equal(dataset.masks, 1.0 - fields["terminals"])
    np.testing.assert_array_equal(dataset.terminals, ends)


def test_files_without_timeouts_are_cut_as_the_environment_did(tmp_path: Path) -> None:
    rows = 1500
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = np.arange(rows)[:, None] * np.ones(29)
        file["actions"] = np.zeros((rows, 8))
        file["rewards"] = np.zeros(rows)
        file["terminals"] = np.arange(rows) == 99
    dataset = load(path, "antmaze-umaze-v0")
    # after 100 rows, and 700 each from there on
    assert np.flatnonzero(dataset.terminals).tolist() == [99, 798, len(dataset) - 1]
    assert dataset.observations[799, 0] == 800  # row 799, the 700th, was dropped
    assert len(dataset) == rows - 2


# --- as the authors load them --------------------------------------------------------------------


def their_rows(fields: dict[str, Any], limit: int, maze: bool) -> dict[str, np.ndarray]:
    """What d4rl.qlearning_dataset and the authors' code after it make of a file, row by row."""
    rows: list[dict[str, Any]] = []
    step = 0
    for i in range(len(fields["rewards"]) - 1):
        cut = fields["timeouts"][i] if "timeouts" in fields else step == limit - 1
        if cut:
            step = 0
            continue
        step = 1 if fields["terminals"][i] else step + 1
        rows.append(
            {
                "observations": fields["observations"][i],
                "actions": np.clip(fields["actions"][i], -(1 - 1e-5), 1 - 1e-5),
                "rewards": np.float32(fields["rewards"][i]),
                "done": bool(fields["terminals"][i]),
                "next_observations": fields["observations"][i + 1],
            }
        )
    returns, total, length = [], 0.0, 0
    for row in rows:
        total, length = total + float(row["rewards"]), length + 1
        if row["done"] or length == 1000:
            returns.append(total)
            total, length = 0.0, 0
    for row, then in zip(rows, [*rows[1:], None], strict=True):
        apart = then is None or (
            np.linalg.norm(np.float32(then["observations"]) - np.float32(row["next_observations"]))
            > 1e-6
        )
        row["terminals"] = float(apart or (row["done"] and not maze))
        row["masks"] = 1.0 - row["done"]
        row["rewards"] -= np.float32(maze)
    found = {key: np.array([row[key] for row in rows], np.float32) for key in rows[0]}
    spread = max(returns, default=0.0) - min(returns, default=0.0)
    return found | {"scale": np.array(1000.0 / spread if spread > 0 else np.nan)}


@st.composite
def recordings(draw: st.DrawFn) -> dict[str, Any]:
    """Files of short episodes; states repeat, timeouts may be missing or stand at terminals."""
    rows = draw(st.integers(3, 40))
    rng = np.random.default_rng(draw(seeds))
    fields = {
        "observations": rng.integers(0, 3, (rows, 11)).astype(np.float32),
        "actions": rng.uniform(-1.1, 1.1, (rows, 3)).astype(np.float32),
        "rewards": rng.standard_normal(rows).astype(np.float32),
        "terminals": rng.random(rows) < 0.15,
        "timeouts": rng.random(rows) < 0.15,
    }
    if draw(st.booleans()):
        del fields["timeouts"]
    if draw(st.booleans()):  # which D4RL's loader does not look at
        fields["next_observations"] = fields["observations"] + 1.0
    return fields


@quick
@given(recordings(), st.booleans(), st.sampled_from([2, 3, 1000]), st.booleans())
def test_the_authors_loading(
    fields: dict[str, Any], normalise: bool, limit: int, maze: bool
) -> None:
    env = "antmaze-umaze-v2" if maze else "hopper-medium-v2"
    task = d4rl_table().tasks[env]
    raw = dataclasses.replace(RawData(fields, "here"), max_episode_steps=limit)
    try:
        expected = their_rows(fields, limit, maze)
    except IndexError:  # no row is left
        with pytest.raises(VGFError, match=r"here has no transitions .*--no-qlearning-dataset"):
            d4rl.qlearning_dataset(raw, task)
        return
    normalise = normalise and not maze and bool(np.isfinite(expected["scale"]))
    raw = d4rl.with_conventions(RawData(fields, "here"), task, normalise)
    raw = dataclasses.replace(raw, max_episode_steps=limit)
    dataset = to_dataset(d4rl.qlearning_dataset(raw, task))
    scale = np.float64(expected["scale"]) if normalise else 1.0
    assert dataset.reward_scale == scale
    for key in ("observations", "actions", "masks", "terminals", "next_observations"):
        np.testing.assert_array_equal(getattr(dataset, key), expected[key], key)
    np.testing.assert_array_equal(dataset.rewards, expected["rewards"] * np.float32(scale))


@pytest.mark.parametrize("normalise", [False, True])
def test_no_transition_is_left(normalise: bool, tmp_path: Path) -> None:
    path = write(tmp_path / "a.hdf5", timeouts=np.ones(8, bool))
    words = r"a.hdf5 has no transitions .*; use --no-qlearning-dataset"
    with pytest.raises(VGFError, match=words):
        load(path, qlearning_dataset=True, normalise_rewards=normalise)
    raw = dataclasses.replace(read_raw("hopper-medium-v2", path), transitions=np.zeros(0, int))
    with pytest.raises(VGFError, match=r"a.hdf5 has no transitions$"):  # whatever source has none
        to_dataset(dataclasses.replace(raw, normalise_rewards=normalise))


def test_the_authors_loading_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.hdf5")
    task = make_task("hopper-medium-v2", data=path, qlearning_dataset=True, action_clip_eps=0.5)
    assert task.dataset is not None
    assert task.dataset.rewards.tolist() == [0, 1, 2, 3, 4, 5]
    assert task.dataset.masks.tolist() == [1, 1, 0, 1, 1, 1]
    assert np.abs(task.dataset.actions).max() == 0.5
    assert any("6 of 8 rows are transitions" in note for note in task.notes)
    with pytest.raises(VGFError, match="needs terminals, no masks"):
        load(write(tmp_path / "b.hdf5", masks=np.ones(8)), qlearning_dataset=True)
    alone = make_task(None, data=path, qlearning_dataset=True)
    assert alone.dataset is not None
    assert alone.dataset.rewards.tolist() == [0, 1, 2, 3, 4, 5]  # the last two have no s'
    assert "qlearning_dataset is of D4RL's data and has no part here" in alone.notes


def test_an_empty_array_is_no_damage(tmp_path: Path) -> None:
    """One that can grow is stored in chunks, and has none yet."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "grows.hdf5"
    with h5py.File(path, "w") as file:
        for name, shape in (("a", (0,)), ("b", (0, 3)), ("c", (5, 0)), ("d", (4, 2))):
            file.create_dataset(name, shape, maxshape=(None,) * len(shape), compression="gzip")
    check_hdf5(path)
