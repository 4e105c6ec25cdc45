"""A quick run, and the picture of a trained agent's flow."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
from html import escape
from pathlib import Path

import numpy as np
import pytest
from test_report import make_run

from vgf.runs.config import RunConfig, default_config, dump_config, shortened
from vgf.runs.look import FLOW
from vgf.runs.picture import caption
from vgf.runs.report import QUICK, report
from vgf.runs.resolve import resolve
from vgf.runs.start import configuration
from vgf.support.errors import VGFError


def test_a_quick_run_is_a_tenth_as_long_and_evaluated_once_at_its_end() -> None:
    whole, quick = resolve({}), resolve({"quick": True})
    assert quick.train.steps * 10 == whole.train.steps
    assert quick.train.evaluate_every == quick.train.checkpoint_every == quick.train.steps
    assert quick.evaluation.episodes < whole.evaluation.episodes
    assert (quick.task, quick.agent) == (whole.task, whole.agent)


def test_it_shortens_a_preset_and_online_steps_too() -> None:
    name = "cube-single-task2-vgf-online"
    whole, quick = resolve({"preset": name}), resolve({"preset": name, "quick": True})
    assert quick.train.steps * 10 == whole.train.steps
    assert quick.online.steps * 10 == whole.online.steps


def test_what_flags_and_files_say_is_not_shortened(tmp_path: Path) -> None:
    flags = {"quick": True, "train": {"steps": 300}, "evaluation": {"episodes": 50}}
    config = configuration(flags)
    assert (config.train.steps, config.evaluation.episodes) == (300, 50)
    # so a quick run's own configuration repeats it, and is not shortened once more
    path = tmp_path / "config.toml"
    path.write_text(dump_config(resolve({"quick": True})))
    assert resolve({}, path) == resolve({"quick": True})


@pytest.mark.parametrize("steps", [1, 9, 10])
def test_the_shortest_runs_stay_runs(steps: int) -> None:
    short = shortened(resolve({"train": {"steps": steps}}))
    assert short.train.steps == 1


def test_a_run_from_a_checkpoint_has_its_own_length(tmp_path: Path) -> None:
    with pytest.raises(VGFError, match=r"drop --quick, or --from"):
        configuration({"quick": True, "start": {"run": str(tmp_path)}})


def flow(maze: bool = True, decisions: int = 7, success: float | None = 1.0) -> dict[str, object]:
    """A record of an episode, made up."""
    rng = np.random.default_rng(0)
    side = np.linspace(-1, 1, 41)
    hill = -(side[:, None] ** 2) - (side[None] - 0.5) ** 2
    place = {"values": hill.tolist(), "best": 3, "paths": rng.uniform(-1, 1, (4, 24, 2)).tolist()}
    found: dict[str, object] = {
        "updates": 2000,
        "steps": 1,
        "success": success,
        "observations": np.linspace(0, 4, 2 * decisions + 2).reshape(-1, 2).tolist(),
        "start": rng.uniform(-1, 1, (decisions, 5, 2)).tolist(),
        "moved": rng.uniform(-1, 1, (decisions, 5, 2)).tolist(),
        "actions": rng.uniform(-1, 1, (decisions, 2)).tolist(),
        "places": [{"decision": 0, **place}, {"decision": decisions // 2, **place}],
    }
    if maze:
        walls = np.pad(np.zeros((2, 3), int), 1, constant_values=1)
        values = np.where(np.kron(walls, np.ones((5, 5))), None, 1.0)  # type: ignore[call-overload]
        found["maze"] = {
            "walls": walls.tolist(),
            "unit": 4.0,
            "origin": [-4.0, -4.0],
            "goal": [4.0, 0.0],
            "values": values.tolist(),
        }
    return found


def shown(page: str, kind: str) -> list[bytes]:
    return [
        base64.b64decode(x) for x in re.findall(rf'src="data:image/{kind};base64,([^"]+)"', page)
    ]


@pytest.mark.full
@pytest.mark.parametrize(
    "decisions", [7, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 150))]
)
def test_the_report_shows_the_flow_and_the_episode(tmp_path: Path, decisions: int) -> None:
    from PIL import Image

    folder = make_run(tmp_path / "run", steps=(5_000,))
    (folder / FLOW).write_text(json.dumps(flow(decisions=decisions)))
    page = report(folder).read_text()
    (moving,) = shown(page, "gif")
    frames = Image.open(io.BytesIO(moving)).n_frames
    assert min(decisions, 2) <= frames <= 62
    assert len(shown(page, r"svg\+xml")) == 4
    assert f"{decisions} decisions, reaching the goal" in page
    assert (folder / "episode.gif").read_bytes() == moving
    assert "http" not in re.sub(r"data:[^\"]+", "", page)


@pytest.mark.full
def test_without_a_maze_there_is_no_animation_and_without_a_record_no_picture(
    tmp_path: Path,
) -> None:
    folder = make_run(tmp_path / "run", steps=(5_000,))
    before = report(folder).read_text()
    assert len(shown(before, r"svg\+xml")) == 3
    assert not list(folder.glob("flow.*"))
    (folder / FLOW).write_text(json.dumps(flow(maze=False, success=None)))
    after = report(folder).read_text()
    assert len(shown(after, r"svg\+xml")) == 4
    assert shown(after, "gif") == []


def test_an_episode_that_fails_is_said_to() -> None:
    assert "7 decisions, not reaching the goal" in caption(flow(success=0.0))


@pytest.mark.full
def test_a_quick_run_is_said_to_be_one(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=(5_000,))
    assert "first look" not in report(folder).read_text()
    path = folder / "config.toml"
    path.write_text(path.read_text().replace("quick = false", "quick = true"))
    assert escape(QUICK) in report(folder).read_text()


@pytest.mark.full
def test_what_is_recorded_is_what_the_agent_does(tmp_path: Path) -> None:
    """The episode is the evaluation's first at L_train; the paths are the flow's, step by step."""
    pytest.importorskip("ogbench")
    from vgf import cli
    from vgf.support.rows import read_rows

    words = shlex.split(
        "run --backend numpy --steps 30 --batch-size 8 --data-episodes 2 --workers 0 "
        "--evaluation-steps 0 1 2 --episodes 1 --critic-hidden 8 --reference-hidden 8 --quick"
    )
    folder = tmp_path / "run"
    assert cli.main([*words, "--data-dir", str(tmp_path / "data"), "--out", str(folder)]) == 0
    found = json.loads((folder / FLOW).read_text())
    (row,) = [row for row in read_rows(folder / "evaluations.jsonl") if row["budget"] == 1]
    assert (len(found["actions"]), found["success"]) == (row["length"], row["success"])
    distance = np.linalg.norm(np.subtract(found["moved"], found["start"]), axis=-1).mean()
    assert distance == pytest.approx(row["displacement"], abs=1e-3)
    for place in found["places"]:
        assert np.shape(place["paths"]) == (3, 24, 2)
        steps = np.abs(np.diff(place["paths"], axis=0))
        assert 0 < steps.max() <= 0.301  # epsilon of the default run, by Adam's bound
    free = np.asarray(found["maze"]["walls"]) == 0
    values = np.asarray(found["maze"]["values"], float)
    assert np.array_equal(~np.isnan(values[2::5, 2::5]), free)


def test_quick_is_a_setting_of_every_run() -> None:
    assert not RunConfig().quick
    assert not default_config().quick
