"""A benchmark as a stranger would add one: a class and a line; and nobody else knows kinds."""

from __future__ import annotations

import ast
import json
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import need

need("gymnasium")

import gymnasium

import vgf
from vgf import benchmarks, cli
from vgf.benchmarks import Benchmark, DataRequest, NoDataError, Scoring, find_task, read_raw
from vgf.benchmarks.tasks import make_task
from vgf.data import RawData, to_dataset
from vgf.environments.fitting import fit
from vgf.support.errors import VGFError
from vgf.support.rows import read_rows


class Line(gymnasium.Env):
    """A position that the action moves, for ten steps; the closer to 0 it is, the better."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.position = 0, float(self.np_random.uniform(-1.0, 1.0))
        return np.array([self.position], np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.position += float(action[0])
        seen = np.array([self.position], np.float32)
        return seen, -abs(self.position), False, self.steps == 10, {}


@dataclass(frozen=True)
class LineMaker:
    """Makes the environment; picklable."""

    def __call__(self, seed: int | None = None) -> Any:
        return fit(Line(), seed)


class Lines(Benchmark):
    """The stranger's benchmark: two tasks, whose data are made on the spot."""

    kind, title, example = "lines", "Line", "line-short-v0"

    def names(self, data_dir: str | Path | None = None) -> Sequence[str]:
        return ("line-short-v0", "line-maze-v0")

    def read(self, request: DataRequest) -> RawData:
        if request.data_dir is not None:
            raise NoDataError(f"no data for {request.name} in {request.data_dir}")
        rng = np.random.default_rng(request.seed)
        actions = rng.uniform(-2.0, 2.0, (60, 1))
        arrays = {
            "observations": rng.standard_normal((60, 1)),
            "actions": actions / 2.0,
            "rewards": rng.standard_normal(60),
            "terminals": np.zeros(60, bool),
            "timeouts": np.arange(60) % 10 == 9,
            "next_observations": rng.standard_normal((60, 1)),
        }
        return RawData(arrays, "made on the spot", tuple(arrays))

    def scoring(self, request: DataRequest) -> Scoring:
        return Scoring(
            LineMaker(), "normalised score", (-100.0, 0.0), notes=("evaluated on a line",)
        )

    def way_on(self, request: DataRequest) -> str | None:
        return f"draw {request.name} yourself"


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that registers it, in a copy of the list."""
    monkeypatch.setattr(benchmarks, "BENCHMARKS", list(benchmarks.BENCHMARKS))
    benchmarks.register(Lines())


def test_a_name_is_found() -> None:
    for name in ("line-short-v0", "lines:line-short-v0"):
        found = find_task(name)
        assert (found.kind, found.name) == ("lines", "line-short-v0")
    with pytest.raises(VGFError, match="did you mean line-short-v0 or line-maze-v0"):
        find_task("line-shrt-v0")
    with pytest.raises(VGFError, match=r"Line has no task 'zzz'; its names are such as line-sho"):
        find_task("lines:zzz")
    with pytest.raises(VGFError, match=r"or Line's \(line-short-v0\); --env none"):
        find_task("zzz")


def test_its_data_are_read_and_its_environment_made() -> None:
    assert len(to_dataset(read_raw("line-short-v0", seed=3))) == 60
    task = make_task("line-short-v0", seed=3)
    assert task.dataset is not None
    assert (task.name, task.observation_dim, task.action_dim) == ("line-short-v0", 1, 1)
    assert task.score(-25.0, None) == 75.0
    assert task.notes[0] == "evaluated on a line"
    assert "data: mask 0 at terminals alone" in " ".join(task.notes)
    env = pickle.loads(pickle.dumps(task.make_env))(0)
    before = env.reset(seed=1)[0]
    np.testing.assert_allclose(env.step(np.ones(1, np.float32))[0], before + 2.0, rtol=1e-5)


def test_what_means_nothing_to_it_is_refused() -> None:
    with pytest.raises(VGFError, match="action_repeat is 2; with line-short-v0 it must be 1"):
        make_task("line-short-v0", 2)
    with pytest.raises(VGFError, match=r"data_episodes is 3, .* drop it"):
        make_task("line-short-v0", episodes=3)


@pytest.mark.full
def test_the_commands_know_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", "inspect", "line-short-v0", "--json", "--no-picture"]) == 0
    assert json.loads(capsys.readouterr().out)["transitions"] == 60
    assert cli.main(["data", "inspect", "line-short-v0", "--data-dir", "x"]) == 2
    assert "error: draw line-short-v0 yourself" in capsys.readouterr().err
    assert cli.main(["data", "make", "lines:line-short-v0"]) == 2
    assert "lines:line-short-v0 is unknown" in capsys.readouterr().err
    pytest.importorskip("safetensors")
    words = ["run", "--env", "line-short-v0", "--backend", "numpy", "--steps", "2", "--out", "run"]
    small = ["--batch-size", "4", "--episodes", "1", "--evaluation-steps", "0", "--workers", "0"]
    for network in ("critic", "reference", "gradient-field"):
        small += [f"--{network}-hidden", "4"]
    assert cli.main([*words, *small]) == 0
    assert "evaluated on a line" in capsys.readouterr().out
    scores = [row["score"] for row in read_rows(tmp_path / "run/evaluations.jsonl")]
    assert scores
    assert all(score <= 100.0 for score in scores)


def test_one_of_the_same_kind_is_replaced() -> None:
    class Better(Lines):
        def names(self, data_dir: str | Path | None = None) -> Sequence[str]:
            return ("better-v0",)

    before = [known.kind for known in benchmarks.BENCHMARKS]
    benchmarks.register(Better())
    assert [known.kind for known in benchmarks.BENCHMARKS] == before
    assert find_task("better-v0").kind == "lines"


# --- nobody else knows kinds ---------------------------------------------------------------------

# A benchmark's own file, and the files that are its alone.
OWN = {
    "ogbench": ("ogbench", "ogbench_environment", "ogbench_oracles"),
    "d4rl": ("d4rl", "d4rl_infos", "stand_ins", "copy_d4rl_infos"),
    "minari": ("minari",),
    "gymnasium": ("gymnasium",),
    "none": ("files",),
}
_TESTS = {"startswith", "removeprefix", "endswith"}


def kinds_told_apart(text: str, kinds: set[str]) -> list[int]:
    """The lines of a program that compare something with a kind, or with a benchmark's class."""
    classes = {type(known).__name__ for known in benchmarks.BENCHMARKS} | {"Files"}
    spelled = kinds | {f"{kind}:" for kind in kinds}

    def of_a_kind(node: ast.expr) -> bool:
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            return any(map(of_a_kind, node.elts))
        if isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            return name in classes or (name.lower() in kinds and name.isupper())
        return isinstance(node, ast.Constant) and node.value in spelled

    lines = []
    for node in ast.walk(ast.parse(text)):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr in _TESTS:
                parts = node.args
            elif isinstance(called, ast.Name) and called.id == "isinstance":
                parts = node.args[1:]
        if any(map(of_a_kind, parts)):
            lines.append(node.lineno)
    return lines


@pytest.fixture(scope="module")
def programs() -> dict[Path, str]:
    """The text of every module, by its path inside the package."""
    root = Path(vgf.__file__).parent
    return {path.relative_to(root): path.read_text(encoding="utf-8") for path in root.rglob("*.py")}


def test_only_a_benchmarks_own_file_tells_kinds_apart(programs: dict[Path, str]) -> None:
    own = {Path("benchmarks", f"{name}.py") for names in OWN.values() for name in names}
    assert own < programs.keys()
    kinds = {known.kind for known in benchmarks.BENCHMARKS}
    found = [
        f"{path}:{line}"
        for path, text in programs.items()
        if path not in own
        for line in kinds_told_apart(text, kinds)
    ]
    assert not found


@pytest.mark.parametrize(
    "text",
    [
        "if source.kind == 'd4rl': pass",
        "if kind in (OGBENCH, MINARI): pass",
        "readers = {'ogbench': read}",
        "x = {GYMNASIUM: read}[kind]",
        "name.startswith('minari:')",
        "isinstance(benchmark, D4RL)",
        "match kind:\n    case 'gymnasium': pass",
    ],
)
def test_the_search_finds_what_it_is_for(text: str) -> None:
    kinds = {known.kind for known in benchmarks.BENCHMARKS}
    assert kinds_told_apart(text, kinds)


def test_a_benchmarks_files_are_imported_by_itself_alone(programs: dict[Path, str]) -> None:
    """Those beside the file that the list imports."""
    for names in OWN.values():
        for name in names[1:]:
            wanted = re.compile(rf"(?:from|import) [\w.]*\b{name}\b")
            users = {path.stem for path, text in programs.items() if wanted.search(text)}
            assert users <= set(names)
