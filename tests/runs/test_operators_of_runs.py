"""Operators on the command line, and several evaluated side by side."""

import dataclasses
import warnings

import numpy as np
import pytest
from needs import need

from vgf import Network, get_backend, method_settings
from vgf.benchmarks.tasks import Task, success
from vgf.data.scaling import Scaling
from vgf.runs.config import EvaluationSettings
from vgf.runs.evaluation import make_pool
from vgf.runs.operators import (
    evaluate_operators,
    operator_names,
    operator_table,
    read_operator,
    read_operators,
    save_operators,
    trial_rows,
)
from vgf.spec.operators import QGF, BestOfN, Cost, Flow, Sample
from vgf.support.errors import VGFError

SMALL = {"critic": Network((6,)), "reference": Network((6,)), "sampling_steps": 2, "particles": 3}
AGENT = method_settings("iql", **SMALL, value=Network((4,)))

OWN = '''
from dataclasses import dataclass
from typing import ClassVar

from vgf.spec.operators import Cost, Operator


@dataclass(frozen=True)
class Halved(Operator):
    """Samples, pulled towards 0."""

    name: ClassVar[str] = "halved"
    factor: float = 0.5

    def improve(self, eq, state, s, noise, settings):
        return self.factor * self.start(eq, state, s, noise, settings)

    def cost(self, settings):
        return Cost(reference=self.count(settings))
'''


class Point:
    """Adds actions to a start in [0, 1]^2; three steps; success is to be right of the start."""

    def reset(self, *, seed):
        self.position = np.random.default_rng(seed).random(2)
        self.first, self.steps = self.position[0], 0
        return self.position.copy(), {}

    def step(self, action):
        self.position = self.position + action
        self.steps += 1
        info = {"success": float(self.position[0] > self.first)}
        return self.position.copy(), -1.0, False, self.steps == 3, info

    def close(self):
        pass


POINT = Task("point", 1, 2, 2, 3, lambda seed=None: Point(), None, "success", success)


def evaluated(texts, backend="numpy", episodes=4, agent=AGENT):
    computing = get_backend(backend)
    state = computing.init_state(0, 2, 2, agent)
    settings = EvaluationSettings(episodes=episodes, workers=0)
    operators = read_operators(texts, agent)
    with make_pool(POINT, episodes) as pool:
        return evaluate_operators(
            computing, state, agent, operators, POINT, Scaling(None, None), settings, 0, pool
        )


def test_what_the_command_line_says():
    assert read_operator("best_of_n", AGENT) == BestOfN()
    found = read_operator("qgf:weight=0.5,jacobian=true,critic=target,particles=8", AGENT)
    assert found == QGF(particles=8, critic="target", weight=0.5, jacobian=True)
    flow = read_operator("vgf:steps=2,temperature=none,kernel=none,best_of=1", AGENT)
    budget = dataclasses.replace(AGENT.budget, steps=2, temperature=None, kernel=None)
    assert flow == Flow(best_of=1, budget=budget)
    assert {"sample", "best_of_n", "vgf", "gradient", "qfql", "qgf", "bptt", "langevin"} <= set(
        operator_names()
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("qfg", "operator is 'qfg'; choose one of sample, best_of_n"),
        ("qgf:wieght=2", "no setting 'wieght'; did you mean weight"),
        ("qgf:weight=a", "weight: 'a' is not a finite number"),
        ("qgf:weight=1,weight=2", "weight is given twice"),
        ("gradient:sign=1", "sign is '1'; it must be true or false"),
        ("vgf:steps=-1", "budget.steps is -1"),
        ("best_of_n:best_of=5", "more than the agent's 3 particles"),
        ("nowhere.py:Mine", "nowhere.py"),
    ],
)
def test_what_it_cannot_say(text, message):
    with pytest.raises(VGFError, match=f"--operator {text.replace('(', '.')}: .*{message}"):
        read_operator(text, AGENT)


def test_an_operator_is_named_once():
    with pytest.raises(VGFError, match="names qgf twice"):
        read_operators(["qgf", "sample", "qgf"], AGENT)


def test_operators_get_the_same_start_states_and_noise():
    """Two names of one operator do the same in every episode, whoever evaluates beside them."""
    texts = ["best_of_n", "best_of_n:particles=3", "langevin:steps=2", "sample"]
    found, trials = evaluated(texts)
    by_name = {text: [r for r in found.records if r["budget"] == text] for text in texts}
    for name in ("episode", "seed", "return", "success", "length"):
        one, two = ([r[name] for r in by_name[text]] for text in texts[:2])
        assert one == two
    seeds = {text: [r["seed"] for r in rows] for text, rows in by_name.items()}
    assert len({tuple(s) for s in seeds.values()}) == 1
    assert [trial.name for trial in trials] == texts


def test_cost_and_distance_beside_the_score():
    _, trials = evaluated(["sample", "best_of_n", "qgf:weight=0.5", "vgf:steps=2"])
    rows = {row["operator"]: row for row in trial_rows(trials)}
    assert trials[2].cost == Cost(reference=6, critic=3, gradient=6)
    assert rows["qgf:weight=0.5"]["passes"] == 6 + 3 + 2 * 6
    assert rows["sample"]["w2"] == rows["best_of_n"]["w2"] == 0
    assert rows["vgf:steps=2"]["w2"] > 0
    assert rows["qgf:weight=0.5"]["w2"] > 0
    assert all(row["milliseconds"] > 0 for row in rows.values())
    assert [row["operator"] for row in operator_table(trials)] == list(rows)


def test_your_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    own = f"{file}:Halved"
    found, trials = evaluated([f"{own}:factor=0.0", own, "sample"])
    assert trials[0].score.w2 > trials[1].score.w2 > 0
    assert trials[0].cost == Cost(reference=3, critic=3)
    returned = [r["success"] for r in found.records if r["budget"] == f"{own}:factor=0.0"]
    assert returned == [0.0] * 4  # it never moves


@pytest.mark.full
@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_every_backend_acts_alike(backend):
    need(backend)
    texts = ["best_of_n", "qgf:weight=0.3", "gradient:steps=2", "langevin"]
    want, _ = evaluated(texts)
    got, _ = evaluated(texts, backend)
    for one, two in zip(want.records, got.records, strict=True):
        assert one["success"] == two["success"]
        assert one["displacement"] == pytest.approx(two["displacement"], rel=1e-3, abs=1e-5)


def test_the_figure(tmp_path):
    need("matplotlib")
    _, trials = evaluated(["sample", "qgf"])
    save_operators(trials, tmp_path / "operators")
    assert (tmp_path / "operators.svg").exists()


def test_the_figure_of_many_operators_has_room_for_their_names(tmp_path):
    need("matplotlib")
    _, trials = evaluated(["sample"])
    many = [
        dataclasses.replace(trials[0], name=f"vgf:steps={i},step_size=0.05,kernel=none")
        for i in range(40)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_operators(many, tmp_path / "many")


def test_behaviour_cloning_can_only_sample():
    bc = method_settings("bc", reference=Network((4,)), sampling_steps=2)
    assert read_operator("sample", bc) == Sample()
    with pytest.raises(VGFError, match="needs a critic, which method 'bc' does not train"):
        read_operator("qgf", bc)
