"""Atomic files and optional imports."""

from __future__ import annotations

from pathlib import Path

import pytest

from vgf.support.errors import VGFError
from vgf.support.extras import need
from vgf.support.files import atomic_file, check_writable


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with atomic_file(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def write_half() -> None:
        with atomic_file(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(VGFError, match=r"cannot make .*file: File exists"),
        atomic_file(tmp_path / "file" / "x"),
    ):
        pass


def test_a_place_is_checked_without_making_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(VGFError, match=r"file is not a folder; choose another"):
        check_writable(tmp_path / "file" / "a" / "b")
    check_writable(tmp_path / "new" / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_missing_module_names_its_extra() -> None:
    with pytest.raises(VGFError, match=r"no_such_module is not installed.*vgf\[envs\]"):
        need("no_such_module", "envs")
