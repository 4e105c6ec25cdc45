"""The run folder and its checkpoints: what comes back, what is refused, what a crash leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vgf.runs import checkpoint
from vgf.runs.checkpoint import (
    check_checkpoint,
    flatten,
    latest_step,
    list_steps,
    load_checkpoint,
    save_checkpoint,
    unflatten,
)
from vgf.runs.config import settings_hash
from vgf.spec.settings import Network, Settings
from vgf.spec.update import init_state
from vgf.support.errors import VGFError

SMALL = Settings(critic=Network((3, 2), layer_norm=True), reference=Network((3,)), particles=2)
TASK = "some-task-v0"


def agent(seed: int = 0, settings: Settings = SMALL) -> dict[str, Any]:
    return init_state(seed, 4, 2, settings)


def save(folder: Path, step: int, tree: Any = None, **extra: Any) -> Path:
    tree = agent(step) if tree is None else tree
    return save_checkpoint(folder, step, tree, extra, task=TASK, settings=SMALL)


def same(a: Any, b: Any) -> None:
    flat_a, flat_b = flatten(a), flatten(b)
    assert sorted(flat_a) == sorted(flat_b)
    for name, array in flat_a.items():
        assert array.dtype == flat_b[name].dtype, name
        assert array.shape == flat_b[name].shape, name
        assert array.tobytes() == flat_b[name].tobytes(), name


def test_round_trip_of_an_agent(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rng.random(5)
    save(tmp_path, 7, rng=rng.bit_generator.state, note="é")
    tree, meta = load_checkpoint(tmp_path)
    same(tree, agent(7))
    assert tree["step"].shape == ()
    assert tree["step"].dtype == np.int32
    assert (
        tree["optimiser"]["critic"]["count"].dtype == agent()["optimiser"]["critic"]["count"].dtype
    )
    assert (meta.step, meta.task, meta.extra["note"]) == (7, TASK, "é")
    assert meta.settings_hash == settings_hash(SMALL)
    assert meta.shapes["critic/hidden_0/kernel"] == [2, 6, 3]
    again = np.random.default_rng()
    again.bit_generator.state = meta.extra["rng"]
    assert again.random() == rng.random()


@pytest.mark.full
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_round_trip_of_any_tree(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    dtypes = ["?", "i1", "i4", "i8", "u1", "u4", "f2", "f4", "f8", ">f8", ">i4"]
    arrays = st.sampled_from(dtypes).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))
    )
    names = st.text("abc_0. ", min_size=1, max_size=4)
    trees = st.recursive(
        st.dictionaries(names, arrays, min_size=1, max_size=3),
        lambda children: st.dictionaries(names, children | arrays, min_size=1, max_size=3),
        max_leaves=5,
    )
    tree = data.draw(trees)
    folder = tmp_path_factory.mktemp("run")
    save(folder, 0, tree)
    same(load_checkpoint(folder)[0], tree)


def test_arrays_in_any_memory_order(tmp_path: Path) -> None:
    base = np.arange(24.0).reshape(2, 3, 4)
    tree: dict[str, Any] = {
        "t": base.T,
        "s": base[:, ::2],
        "f": np.asfortranarray(base[0]),
        "n": np.float32(2),
    }
    save(tmp_path, 1, tree)
    loaded, _ = load_checkpoint(tmp_path)
    for name, array in tree.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"a/b": np.zeros(1)}, "a/b"),
        ({"a": {"": np.zeros(1)}}, "a/"),
        ({"a": {"b": {}}}, "a/b: it is empty"),
        ({"a": np.array(["x"])}, "a: its dtype"),
        ({"a": np.array([None])}, "a: its dtype is object"),
        ({3: np.zeros(1)}, "3"),
    ],
)
def test_trees_that_cannot_be_stored(tree: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(VGFError, match=words):
        save(tmp_path, 1, tree)
    assert list(tmp_path.iterdir()) == []


def test_flatten_is_undone() -> None:
    tree = agent()
    same(unflatten(flatten(tree)), tree)
    assert "critic/hidden_0/kernel" in flatten(tree)


def test_steps_are_listed_in_order(tmp_path: Path) -> None:
    assert latest_step(tmp_path) is None
    for step in (1000, 20, 3):
        save(tmp_path, step)
    for name in ("step-5.bak", "step-", "old-step-000000007"):
        (tmp_path / "checkpoints" / name).mkdir()
    assert list_steps(tmp_path) == [3, 20, 1000]
    assert latest_step(tmp_path) == 1000
    same(load_checkpoint(tmp_path, 20)[0], agent(20))
    with pytest.raises(VGFError, match="no checkpoint of step 4; it has 3, 20, 1000"):
        load_checkpoint(tmp_path, 4)


def test_one_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    save(tmp_path, 5, agent(1))
    save(tmp_path, 5, agent(2))
    same(load_checkpoint(tmp_path)[0], agent(2))
    assert [entry.name for entry in (tmp_path / "checkpoints").iterdir()] == ["step-000000005"]


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("keep", [0, 1, 0.3, 0.999])
def test_truncated_files_never_load(name: str, keep: float, tmp_path: Path) -> None:
    save(tmp_path, 1)
    file = save(tmp_path, 2) / name
    data = file.read_bytes()
    size = 1 if keep == 1 else min(int(len(data) * keep), len(data.rstrip()) - 1)
    file.write_bytes(data[:size])
    with pytest.raises(VGFError, match=rf"step-000000002.*{name}.*resume from step 1") as caught:
        load_checkpoint(tmp_path, 2)
    assert "\n" not in str(caught.value)
    said: list[str] = []
    same(load_checkpoint(tmp_path, say=said.append)[0], agent(1))
    assert len(said) == 1
    assert re.search(rf"step-000000002.*{name}.*trying the checkpoint before it", said[0])


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
def test_missing_and_mixed_up_files(name: str, tmp_path: Path) -> None:
    one, two = save(tmp_path, 1), save(tmp_path, 2)
    shutil.copy(one / name, two / name)
    with pytest.raises(VGFError, match=r"step-000000002.*damaged or belongs to another checkpoint"):
        load_checkpoint(tmp_path, 2)
    (two / name).unlink()
    with pytest.raises(VGFError, match="step-000000002"):
        load_checkpoint(tmp_path, 2)


def test_a_changed_number_is_noticed(tmp_path: Path) -> None:
    file = save(tmp_path, 1) / "state.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(VGFError, match=r"state\.safetensors is damaged"):
        load_checkpoint(tmp_path)


def test_foreign_sidecars(tmp_path: Path) -> None:
    file = save(tmp_path, 1) / "state.json"
    head = json.loads(file.read_text())
    for foreign in ({}, {**head, "version": 99}, {**head, "format": "else"}):
        file.write_text(json.dumps(foreign))
        with pytest.raises(VGFError, match=r"state\.json: not a vgf checkpoint"):
            load_checkpoint(tmp_path)
    file.write_text("[1]")
    with pytest.raises(VGFError, match="holds a list"):
        load_checkpoint(tmp_path)
    del head["shapes"], head["digest"]
    head["version"] = 1
    file.write_text(json.dumps(head))
    with pytest.raises(VGFError, match="shapes"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("crash_at", ["state.safetensors", "state.json", "rename"])
def test_a_crash_while_writing_leaves_the_last_checkpoint(
    crash_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the process had been killed: nothing cleans up, and the next start goes on."""
    save(tmp_path, 1)
    write, replace = checkpoint.write_durably, os.replace

    def dying_write(path: Path, data: bytes | str) -> None:
        if path.name == crash_at:
            path.write_bytes(data[: len(data) // 2].encode() if isinstance(data, str) else b"x")
            raise KeyboardInterrupt
        write(path, data)

    def dying_replace(old: Any, new: Any) -> None:
        if crash_at == "rename":
            raise KeyboardInterrupt
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_durably", dying_write)
        patch.setattr(checkpoint.os, "replace", dying_replace)
        patch.setattr(tempfile.TemporaryDirectory, "__exit__", lambda *_: None)
        patch.setattr(tempfile.TemporaryDirectory, "_cleanup", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2)
    leftovers = [p.name for p in (tmp_path / "checkpoints").iterdir() if p.name[0] == "."]
    assert len(leftovers) == 1
    assert list_steps(tmp_path) == [1]
    same(load_checkpoint(tmp_path)[0], agent(1))
    save(tmp_path, 2)
    same(load_checkpoint(tmp_path)[0], agent(2))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "step-000000001",
        "step-000000002",
    ]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes | str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_durably", full)
    with pytest.raises(VGFError, match="step-000000003: cannot be written: No space left"):
        save(tmp_path, 3)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_check_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    tree, meta = load_checkpoint(tmp_path)
    check_checkpoint(meta, tree, agent(5), TASK)
    check_checkpoint(meta, tree, agent(5))
    with pytest.raises(VGFError, match=f"of task {TASK}, not other; use --env {TASK}"):
        check_checkpoint(meta, tree, agent(), "other")
    wide = Settings(critic=Network((4, 2), layer_norm=True), reference=Network((3,)))
    with pytest.raises(VGFError, match=r" critic/hidden_0/\w+ is \[2, .*3\].* need \[2, .*4\]"):
        check_checkpoint(meta, tree, agent(0, wide), TASK)
    deep = Settings(critic=Network((3, 2), layer_norm=True), reference=Network((3, 3)))
    with pytest.raises(VGFError, match=r" reference/hidden_1/\w+ is absent"):
        check_checkpoint(meta, tree, agent(0, deep), TASK)
    amortised = Settings(critic=SMALL.critic, reference=SMALL.reference, method="avgf")
    with pytest.raises(VGFError, match=r" gradient_field/hidden_0/\w+ is absent"):
        check_checkpoint(meta, tree, agent(0, amortised), TASK)
    with pytest.raises(VGFError, match=r"log_std is \[2\], but these settings need absent"):
        check_checkpoint(meta, {**tree, "log_std": np.zeros(2)}, agent(), TASK)


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(VGFError, match="has no checkpoint"):
        load_checkpoint(tmp_path)


def test_names_come_back_in_their_order(tmp_path: Path) -> None:
    """An optimiser that pairs arrays by position must find them where they were."""
    tree = {"z": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}, "a": np.ones(1, np.float32)}
    save_checkpoint(tmp_path, 1, tree, task="t", settings=Settings())
    loaded, _ = load_checkpoint(tmp_path)
    assert list(flatten(loaded)) == list(flatten(tree)) == ["z/kernel", "z/bias", "a"]
