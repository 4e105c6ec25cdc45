"""Both sides of the comparison of evaluations take the steps they are asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from needs import need

from vgf.bench import evaluation, memory

MAZE = "pointmaze-medium-navigate-singletask-task1-v0"
# As much of another repository as is called.
AGENT = """
import numpy as np

class VGFAgent:
    @classmethod
    def create(cls, seed, observations, actions, config):
        agent = cls()
        agent.size, agent.config = actions.shape[-1], config
        return agent

def get_config():
    return {"value_hidden_dims": (), "actor_hidden_dims": (), "bc_flow_steps": 0,
            "vgf_particles": 0}
"""
EVALUATION = """
import numpy as np

def evaluate_vgf_multiple(agent, env, eval_step_list, num_eval_episodes):
    for _ in range(len(eval_step_list) * num_eval_episodes):
        env.reset()
        over = False
        while not over:
            over = any(env.step(np.zeros(agent.size))[2:4])
"""


def test_ours() -> None:
    need("ogbench")
    side: Any = evaluation.start(
        "ours",
        task=MAZE,
        depth=1,
        width=4,
        particles=2,
        sampling_steps=1,
        decisions=3,
        backend="numpy",
        workers=0,
    )
    side.run(2)
    side.run(2)
    side.pool.close()
    assert side.describe() == {
        "device": "cpu",
        "taken": 2 * 4 * 2 * 3,
        "observation_dim": 2,
        "action_dim": 2,
    }


def test_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("ogbench")
    for place, text in [("agents/vgf.py", AGENT), ("utils/evaluation.py", EVALUATION)]:
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_text(text)
        monkeypatch.delitem(sys.modules, place.split("/")[0], raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    side: Any = evaluation.start(str(tmp_path), task=MAZE, particles=2, decisions=3)
    assert side.agent.config["vgf_particles"] == 2
    side.run(2)
    assert side.taken == 4 * 2 * 3


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts a process's memory")
def test_memory() -> None:
    found = {kind: memory.measure(100_000, 60, memory=kind) for kind in ("memory", "mapped")}
    assert found["memory"]["data"] == 4 * 100_000 * 127
    grown = {kind: one["held"] - one["before"] for kind, one in found.items()}
    # s, 24 MB, and not s' beside it; what is mapped is not held at all but for some pages around it
    assert 23.5e6 < grown["memory"] - grown["mapped"] < 40e6
    assert found["memory"]["peak"] >= found["memory"]["held"]


def test_memory_as_a_table() -> None:
    row = {
        "rows": 2_000,
        "memory": "mapped",
        "data": 2_000_000,
        "before": 1_000_000,
        "peak": 5_000_000,
        "held": 2_000_000,
        "ratio": 2.0,
    }
    assert list(memory.table_rows([row])[0].values()) == [
        "2,000",
        "mapped",
        "2",
        "5",
        "4",
        "1",
        "2.00",
        "0.50",
    ]
