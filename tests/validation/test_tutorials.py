"""The tutorials of the site: their code is run as it stands, in the order in which it is read."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from validation.site.sources import HERE
from vgf import cli

TUTORIALS = HERE / "pages" / "tutorials"
# so that a run of the default task takes a moment; and those of each backend that are made small
SHORT = (
    "--steps 20 --batch-size 8 --data-episodes 2 --episodes 2 --evaluation-steps 0 1 --workers 0 "
    "--critic-hidden 8 --reference-hidden 8 --backend numpy"
)


def pieces(name: str) -> list[tuple[str, str]]:
    """The blocks of a tutorial that are run: (language, text)."""
    text = (TUTORIALS / f"{name}.md").read_text()
    return re.findall(r"```(python|bash|toml)\n(.*?)```", text, re.S)


def follow(name: str, folder: Path, statuses: dict[str, list[int]] | None = None) -> list[int]:
    """Do what a tutorial says, in a folder; the exit statuses of its commands."""
    found = []
    for language, text in pieces(name):
        if language != "bash":
            saved = re.match(r"# (\w+\.\w+)\n", text)
            if saved:
                (folder / saved[1]).write_text(text)
            else:
                exec(compile(text, f"{name}.md", "exec"), {"__name__": "__main__"})
            continue
        for line in text.splitlines():
            words = shlex.split(line)
            assert words[0] == "vgf"
            if "--quick" in words:
                words += [*shlex.split(SHORT), "--data-dir", str(folder / "data")]
            if words[1] == "eval":
                words += ["--workers", "0", "--backend", "numpy"]
            found.append(cli.main(words[1:]))
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("VGF_BACKEND", "numpy")
    return tmp_path


@pytest.mark.slow
def test_a_first_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ogbench")
    assert follow("first-run", folder) == [0, 0]
    assert "(3, 2) moved by" in capsys.readouterr().out
    assert (folder / "first" / "report.html").exists()


@pytest.mark.slow
def test_own_data(folder: Path) -> None:
    assert follow("own-data", folder) == [0, 0]


@pytest.mark.slow
def test_own_code(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)
    assert follow("own-code", folder) == [1, 0]
    said = " ".join(capsys.readouterr().out.split())
    page = (TUTORIALS / "own-code.md").read_text()
    quoted = " ".join(re.search(r"`(Your median[^`]+)`", page)[1].split())
    assert quoted in said


@pytest.mark.slow
def test_several_seeds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ogbench")
    assert follow("seeds", folder) == [0, 0, 0, 0]
    assert "seed-1 1 " in capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ogbench")
    monkeypatch.setenv("HOME", str(folder))  # its data are made there
    assert follow("sweep", folder) == [0, 0, 0]
    assert list((folder / "table").glob("*.md"))


@pytest.mark.slow
def test_a_language_model(folder: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "text"))
    try:
        from tiny_models import base_model, make_tokenizer, reward_model
    finally:
        sys.path.pop(0)
    for name, model in (("sft", base_model()), ("rm", reward_model())):
        model.save_pretrained(folder / name)
        make_tokenizer().save_pretrained(folder / name)
    assert follow("language-model", folder) == [0, 0]


def test_every_tutorial_is_followed() -> None:
    tests = {"first-run", "own-data", "own-code", "seeds", "sweep", "language-model"}
    assert {path.stem for path in TUTORIALS.glob("*.md")} == tests
