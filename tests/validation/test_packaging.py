"""What is distributed, how it is described, and the record of the tox matrix."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

from validation import distribution, matrix
from vgf.support.errors import VGFError
from vgf.support.toml import read_toml

ROOT = Path(__file__).parents[2]
PROJECT = read_toml(ROOT / "pyproject.toml")
GOOD = ["vgf/py.typed", "vgf/spec/README.md", "vgf/runs/presets/common.toml", "vgf/__init__.py"]


@pytest.mark.parametrize(
    ("name", "wheel", "fault"),
    [
        ("tests/test_x.py", True, True),
        ("tests/test_x.py", False, True),
        ("validation/results/x.json", True, True),
        ("validation/results/x.json", False, True),
        ("vgf/results/x.json", True, True),
        ("vgf-1.0.dist-info/METADATA", True, False),
        ("README.md", True, True),
        ("README.md", False, False),
        (".github/workflows/tests.yml", False, True),
    ],
)
def test_what_a_distribution_may_hold(name: str, wheel: bool, fault: bool) -> None:
    assert distribution.faults([*GOOD, name], wheel) == ([name] if fault else [])


def test_what_a_distribution_must_hold() -> None:
    assert distribution.faults(GOOD[1:], True) == ["no vgf/py.typed"]


def test_the_version_is_git_s_and_not_said_in_the_sources() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert "setuptools-scm" in " ".join(PROJECT["build-system"]["requires"])
    vgf = importlib.import_module("vgf")
    assert isinstance(vgf.__version__, str)
    assert "__version__" in dir(vgf)


def test_a_package_that_was_not_installed_has_no_version(monkeypatch) -> None:
    from importlib import metadata

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert importlib.import_module("vgf").__version__ == "unknown"


def test_the_files_that_people_expect_are_there_and_can_be_read() -> None:
    yaml = pytest.importorskip("yaml")
    files = [
        *(ROOT / ".github").rglob("*.yml"),
        ROOT / "CITATION.cff",
        ROOT / ".pre-commit-config.yaml",
    ]
    assert len(files) >= 9
    for path in files:
        assert isinstance(yaml.safe_load(path.read_text()), dict), path
    for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE"):
        assert (ROOT / name).stat().st_size > 500


def test_every_cell_of_the_workflows_is_one_of_tox() -> None:
    yaml = pytest.importorskip("yaml")
    text = (ROOT / "tox.ini").read_text()
    listed = re.search(r"env_list =\n((?: .*\n)+)", text)[1]
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        assert yaml.safe_load(path.read_text())["jobs"]
        for name in re.findall(r"tox run -e ([\w,]+)\n", path.read_text()):
            for cell in name.split(","):
                assert re.search(rf"^\[testenv:{cell}\]$", text, re.M), cell
                assert cell in listed


def test_generated_copies_are_not_kept() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for pattern in ("*.pdf", "*.png", "report.html"):
        assert f"/validation/results/{pattern}" in ignored


def record(folder: Path, status: int = 0) -> Path:
    """A record as tox writes it."""
    cell = {
        "python": {"version": "3.13.0 (main)"},
        "installed_packages": ["numpy==2.4.6", "vgf==0.1"],
        "test": [
            {
                "command": ["/x/.tox/py313-numpy/bin/pytest", "-n", "1"],
                "retcode": status,
                "elapsed": 61.04,
                "output": "....\n==== 12 passed, 3 skipped in 60.00s ====\n",
            }
        ],
    }
    path = folder / "tox.json"
    path.write_text(json.dumps({"testenvs": {"py313-numpy": cell, ".pkg": {"test": []}}}))
    return path


@pytest.mark.parametrize("status", [0, 1])
def test_a_cell_that_was_run_is_recorded(tmp_path: Path, status: int) -> None:
    assert matrix.main([str(record(tmp_path, status)), "--out", str(tmp_path)]) == status
    text = (tmp_path / "matrix.md").read_text()
    assert f"{1 - status} of the 1 cells below passed" in text
    assert ("**FAILED**" in text) == bool(status)
    assert "`pytest -n 1`" in text
    assert "12 passed, 3 skipped" in text
    # run again, it takes the older one's place
    matrix.main([str(record(tmp_path)), "--out", str(tmp_path)])
    assert "1 of the 1 cells below passed" in (tmp_path / "matrix.md").read_text()


def test_what_is_no_record_of_tox_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("{}")
    with pytest.raises(VGFError, match=r"other\.json is not a record of tox"):
        matrix.cells(path)
