"""The run folder: made whole, opened, and what it says of where it was made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vgf.runs import folder
from vgf.runs.config import RunConfig
from vgf.runs.folder import create_run_folder, git_revision, open_run_folder, record_environment
from vgf.runs.resolve import load_config
from vgf.support.errors import VGFError


def test_run_folder(tmp_path: Path) -> None:
    config = RunConfig(seed=3)
    made = create_run_folder(tmp_path / "runs" / "one", config, {"gpu": "none"})
    assert open_run_folder(made) == config
    starts = json.loads((made / "environment.json").read_text())
    assert len(starts) == 1
    assert starts[0]["versions"]["numpy"] == np.__version__
    assert {"python", "scipy", "vgf"} <= set(starts[0]["versions"])
    assert starts[0]["gpu"] == "none"
    assert starts[0]["backend"]["matmul_precision"] == "float32"
    assert starts[0]["command"]
    record_environment(made, config)
    assert len(json.loads((made / "environment.json").read_text())) == 2
    assert sorted(entry.name for entry in made.iterdir()) == ["config.toml", "environment.json"]


def test_an_existing_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    made = create_run_folder(tmp_path / "one", RunConfig())
    before = {entry: entry.read_bytes() for entry in made.iterdir()}
    with pytest.raises(VGFError, match=f"{made} exists.*--resume {made}"):
        create_run_folder(made, RunConfig(seed=1))
    assert {entry: entry.read_bytes() for entry in made.iterdir()} == before
    assert load_config(made / "config.toml").seed == 0
    with pytest.raises(VGFError, match="cannot be made"):
        create_run_folder(made / "config.toml" / "below", RunConfig())


def test_a_folder_that_cannot_be_filled_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise VGFError("broken")

    monkeypatch.setattr(folder, "record_environment", broken)
    with pytest.raises(VGFError, match="broken"):
        create_run_folder(tmp_path / "one", RunConfig())
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_not_runs(tmp_path: Path) -> None:
    with pytest.raises(VGFError, match="no such run folder"):
        open_run_folder(tmp_path / "absent")
    with pytest.raises(VGFError, match=r"not a run folder: it has no config\.toml"):
        open_run_folder(tmp_path)


def test_git_revision_is_of_this_package_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (Path(folder.__file__).parents[2] / ".git").exists() and shutil.which("git"):
        assert git_revision() is not None
    find = git_revision.__wrapped__  # it is looked for once
    monkeypatch.setattr(folder, "__file__", str(tmp_path / "folder.py"))
    assert find() is None
    monkeypatch.setenv("PATH", "")
    assert find() is None
