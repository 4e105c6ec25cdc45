"""Run folders whose numbers are made up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from vgf.runs.checkpoint import SIDECAR, checkpoint_path
from vgf.runs.config import RunConfig
from vgf.runs.folder import ENVIRONMENT, create_run_folder
from vgf.runs.log import RunLog


def save_run(
    folder: Path,
    config: RunConfig,
    value: float = 0.5,
    budgets: Mapping[int, float] | None = None,
    steps: tuple[int, ...] | None = None,
    transitions: int = 1_000,
    ogbench: str = "1.2.1",
    kind: str = "success",
) -> None:
    """A run folder with two episodes for each budget and step; by default it is finished."""
    create_run_folder(folder, config, {"score": kind, "versions": {"ogbench": ogbench}})
    with RunLog(folder, config) as log:
        for step in steps or (config.updates // 2, config.updates):
            log.metrics(step, {"critic_loss": 1.0})
            for budget, score in (budgets or {0: value, 1: value}).items():
                rows = [
                    {"budget": budget, "episode": i, "return": 0.0, "success": None, "score": score}
                    for i in range(2)
                ]
                log.evaluations(step, rows)
    place = checkpoint_path(folder, config.updates)
    place.mkdir(parents=True)
    (place / SIDECAR).write_text(json.dumps({"extra": {"transitions": transitions}}))
    assert (folder / ENVIRONMENT).is_file()
