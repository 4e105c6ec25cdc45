"""Logs that survive a crash and a resume."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import math
import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import SECONDS, need

from vgf.runs.config import LoggingSettings, RunConfig
from vgf.runs.log import EVALUATION_COLUMNS, RunLog
from vgf.runs.scores import by_budget, mean
from vgf.support.errors import VGFError
from vgf.support.rows import RowLog, read_rows


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def log_up_to(log: RunLog, first: int, last: int) -> None:
    """What a run logs from one step to another; the same numbers however it is split."""
    for step in range(first, last + 1):
        log.metrics(step, {"critic_loss": 1 / step, "count": step})
        if step % 5 == 0:
            log.evaluations(
                step,
                [
                    {"budget": b, "episode": i, "return": 0.1 * i, "success": i == 1}
                    for b in ("bc", 0, 1)
                    for i in range(2)
                ],
            )


def contents(folder: Path) -> dict[str, Any]:
    """Every log file, without the seconds, which no two runs share."""
    files = {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
    files["metrics.jsonl"] = re.sub(r'"seconds": [0-9.]+', "", files["metrics.jsonl"])
    files["metrics.csv"] = re.sub(r"(?m)^(\d+),[0-9.]+,", r"\1,", files["metrics.csv"])
    return files


def test_rows_come_back(tmp_path: Path) -> None:
    log = RowLog(tmp_path, "rows")
    log.append([{"step": np.int32(1), "x": np.float32(0.5), "ok": np.bool_(True), "who": "bc"}])
    log.append([{"step": 2, "x": float("nan"), "ok": False}, {"step": 3, "x": -math.inf}])
    rows = read_rows(tmp_path / "rows.jsonl")
    assert rows[0] == {"step": 1, "x": 0.5, "ok": 1, "who": "bc"}
    assert math.isnan(rows[1]["x"])  # type: ignore[arg-type]
    assert rows[2] == {"step": 3, "x": -math.inf}
    table = read_csv(tmp_path / "rows.csv")
    assert [row["x"] for row in table] == ["0.5", "nan", "-inf"]
    assert [row["ok"] for row in table] == ["1", "0", ""]
    assert "NaN" not in (tmp_path / "rows.jsonl").read_text().replace('"NaN"', "")


def test_a_late_column_widens_the_table(tmp_path: Path) -> None:
    log = RowLog(tmp_path, "rows")
    log.append([{"step": 1, "a": 1}])
    log.append([{"step": 2, "b": 2}])
    log.append([{"step": 3, "a": 3}])
    assert (tmp_path / "rows.csv").read_text() == "step,a,b\n1,1,\n2,,2\n3,3,\n"


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    row = {"least": -(2**63), "most": 2**63 - 1, "unsigned": np.uint64(2**64 - 1)}
    RowLog(tmp_path, "rows").append([row])
    assert RowLog(tmp_path, "rows").last == {name: int(value) for name, value in row.items()}


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_crash_costs_the_cut_row_alone(
    tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    """Cut either file anywhere, as a killed process does: the next start repairs both."""
    folder = tmp_path_factory.mktemp("run")
    values = (
        st.floats()
        | st.integers(-(2**63), 2**63 - 1)
        | st.text(max_size=3)
        | st.sampled_from(["NaN", None])
    )
    rows = data.draw(st.lists(st.fixed_dictionaries({"x": values, "y": values}), min_size=1))
    log = RowLog(folder, "rows", ("x", "y"))
    for row in rows:
        log.append([row])
    whole = [path.read_bytes() for path in (log.jsonl, log.csv)]
    cut = data.draw(st.integers(0, len(whole[0])))
    log.jsonl.write_bytes(whole[0][:cut])
    log.csv.write_bytes(whole[1][: data.draw(st.integers(0, len(whole[1])))])
    survivors = whole[0][:cut].count(b"\n")
    again = RowLog(folder, "rows", ("x", "y"))
    for row in rows[survivors:]:
        again.append([row])
    assert [path.read_bytes() for path in (log.jsonl, log.csv)] == whole


@pytest.mark.parametrize("checkpoint", [5, 7, 10])
@pytest.mark.parametrize("crash", ["", '{"step": 12, "cri', "\n"])
def test_a_resumed_log_equals_a_straight_one(checkpoint: int, crash: str, tmp_path: Path) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    for folder in (straight, resumed):
        folder.mkdir()
    with RunLog(straight, RunConfig()) as log:
        log_up_to(log, 1, 20)
    with RunLog(resumed, RunConfig()) as log:
        log_up_to(log, 1, 11)
    if crash.strip():
        for name in ("metrics.jsonl", "evaluations.jsonl", "evaluations.csv"):
            with open(resumed / name, "a") as file:
                file.write(crash)
    with RunLog(resumed, RunConfig(), last_step=checkpoint) as log:
        log_up_to(log, checkpoint + 1, 20)
    assert contents(resumed) == contents(straight)
    seconds = [float(row["seconds"] or 0) for row in read_rows(resumed / "metrics.jsonl")]
    assert seconds == sorted(seconds)


def test_seconds_go_on_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    log = RunLog(tmp_path, RunConfig())
    for step in (1, 2):
        now[0] += 10
        log.metrics(step, {"x": 0})
    now[0] = 5000.0
    log = RunLog(tmp_path, RunConfig(), last_step=1)
    now[0] += 3
    log.metrics(2, {"x": 0})
    assert [row["seconds"] for row in read_rows(tmp_path / "metrics.jsonl")] == [10.0, 13.0]


def test_dropping_rows_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunLog(tmp_path, RunConfig()) as log:
        log_up_to(log, 1, 10)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            RunLog(tmp_path, RunConfig(), last_step=5)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_evaluation_rows(tmp_path: Path) -> None:
    with RunLog(tmp_path, RunConfig()) as log:
        log.evaluations(
            7,
            [
                {
                    "budget": 1,
                    "episode": 0,
                    "seed": 3,
                    "return": np.float64(2),
                    "success": np.True_,
                    "length": 9,
                    "displacement": 0.5,
                }
            ],
        )
    (row,) = read_rows(tmp_path / "evaluations.jsonl")
    assert tuple(row) == EVALUATION_COLUMNS
    assert (row["step"], row["success"], row["w2"]) == (7, 1, None)
    head = (tmp_path / "evaluations.csv").read_text().splitlines()
    assert head == [",".join(EVALUATION_COLUMNS), "7,1,0,3,2.0,1,,9,0.5,"]


def test_what_is_no_scalar_is_refused(tmp_path: Path) -> None:
    log = RunLog(tmp_path, RunConfig())
    for value in (np.zeros(2), [1.0], object()):
        with pytest.raises(VGFError, match="cannot log loss: it is not a scalar"):
            log.metrics(1, {"loss": value})
    assert read_rows(tmp_path / "metrics.jsonl") == []


def test_damaged_logs_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(VGFError, match=r"rows\.jsonl: line 2 is damaged"):
        RowLog(tmp_path, "rows")
    path.write_text("3\n")
    with pytest.raises(VGFError, match="line 1 is not a row"):
        read_rows(path)
    with pytest.raises(VGFError, match=r"absent\.jsonl: cannot be read"):
        read_rows(tmp_path / "absent.jsonl")


def test_budgets_in_order() -> None:
    rows = [{"budget": b, "x": x} for b, x in ((10, 1), ("bc", 2), (2, 3), (10, None), (0, 5))]
    groups = by_budget(rows)
    assert list(map(repr, groups)) == ["'bc'", "0", "2", "10"]
    assert mean(groups[10], "x") == 1
    assert mean(groups[10], "y") is None


def events(folder: Path) -> list[tuple[int, str, float]]:
    """The scalars of TensorBoard's event files: records of length, checksum, data, checksum."""
    proto: Any = importlib.import_module("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = proto.Event.FromString(data[12 : 12 + length])
            found += [(event.step, x.tag, x.simple_value) for x in event.summary.value]
            data = data[16 + length :]
    return found


def test_tensorboard(tmp_path: Path) -> None:
    need("tensorboardX")
    config = RunConfig(logging=LoggingSettings(tensorboard=True))
    with RunLog(tmp_path, config) as log:
        log_up_to(log, 1, 5)
        log.metrics(6, {"critic_loss": float("nan")})
    found = events(tmp_path / "tensorboard")
    assert (4, "train/critic_loss", 0.25) in found
    assert (5, "evaluation_bc/success", 0.5) in found
    assert len(found) == 5 * 2 + 3 * 2 + 1


def test_wandb_is_offline_by_default(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    code = f"""
from vgf.runs.config import LoggingSettings, RunConfig
from vgf.runs.log import RunLog
with RunLog({str(tmp_path)!r}, RunConfig(logging=LoggingSettings(wandb=True))) as log:
    log.metrics(1, {{"critic_loss": 0.5}})
    log.evaluations(1, [{{"budget": 1, "success": 1}}])
"""
    environment = {name: x for name, x in os.environ.items() if not name.startswith("WANDB")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment, capture_output=True, check=True, timeout=SECONDS
    )
    assert done.stdout == b""
    (record,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    data = record.read_bytes()
    assert b"train/critic_loss" in data
    assert b"evaluation 1/success" in data


@pytest.mark.parametrize("package", ["tensorboardX", "wandb"])
def test_missing_packages_name_the_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    extra = package.lower().rstrip("x")
    config = RunConfig(logging=dataclasses.replace(LoggingSettings(), **{extra: True}))
    with pytest.raises(VGFError, match=rf"{package} is not installed.*vgf\[{extra}\]"):
        RunLog(tmp_path, config)
    assert list(tmp_path.iterdir()) == []
