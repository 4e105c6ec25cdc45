"""Each claim's verdicts are true of the method and turn false of a broken one."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from validation import edge, operators, regimes, toy
from validation.claims import (
    CLAIMS,
    best_of_n,
    boltzmann,
    distance,
    energy,
    mmd_bound,
    modes,
    support,
)
from validation.experiment import estimate, redraw, rounded, run
from validation.figures import COLOURS, SUFFIXES, figure, line
from validation.problems import Mixture, clipped, ring
from vgf import Budget, Settings, spec
from vgf.backends.numpy import NumpyBackend
from vgf.runs.operators import read_operator
from vgf.support.errors import VGFError

CELLS = {claim.name: claim for claim in CLAIMS}


def verdicts(module, data):
    """Whether each claim of a module holds of the data, as a record holds them."""
    return [verdict.holds for verdict in module.judge(json.loads(json.dumps(rounded(data))))]


# --- broken flows -------------------------------------------------------------------------------


def twice_too_long(score, a, budget, trajectory=False):
    return spec.transport(score, a, replace(budget, step_size=2 * budget.step_size), trajectory)


def without_the_clip(score, a, budget, trajectory=False):
    return spec.transport(lambda a: 4 * score(a), a, budget, trajectory)


def stopping_after_one_step(score, a, budget, trajectory=False):
    path = spec.transport(score, a, budget, trajectory=True)
    path[2:] = path[1]
    return path if trajectory else path[-1]


def deaf_to_the_step_size(score, a, budget, trajectory=False):
    return spec.transport(score, a, replace(budget, step_size=0.01), trajectory)


def standing_still(score, a, budget, trajectory=False):
    return np.stack([a] * (budget.steps + 1)) if trajectory else a


def attracting(score, a, budget, trajectory=False):
    """The sign of the repulsion is wrong."""

    def velocity(a):
        g, alpha = score(a), budget.temperature
        full, pull = spec.phi(a, g, alpha), spec.phi(a, g / (alpha or 1), None)
        return 2 * pull - full

    return spec.follow(velocity, a, budget, trajectory)


def always_repelling(score, a, budget, trajectory=False):
    """Without entropy there is repulsion all the same."""
    if budget.temperature is None:
        budget = replace(budget, temperature=1.0)
    return spec.transport(score, a, budget, trajectory)


def too_hot(score, a, budget, trajectory=False):
    return spec.transport(score, a, replace(budget, temperature=4 * budget.temperature), trajectory)


# --- the claims ---------------------------------------------------------------------------------

MMD = mmd_bound.Setup(
    seeds=3, steps=(1, 5), step_sizes=(0.03, 0.3), temperatures=(0.5, None), particles=(1, 4)
)


def test_mmd_stays_under_its_bounds():
    assert verdicts(mmd_bound, mmd_bound.measure(MMD)) == [True, True, True]


@pytest.mark.parametrize("broken", [twice_too_long, without_the_clip])
def test_mmd_of_a_broken_flow_passes_its_bounds(broken):
    assert verdicts(mmd_bound, mmd_bound.measure(MMD, broken)) == [False, False, False]


def test_an_idle_mmd_bound_is_not_called_tight():
    assert verdicts(mmd_bound, mmd_bound.measure(MMD, standing_still)) == [True, True, False]


DISTANCE = distance.Setup(seeds=5, particles=8, steps=(0, 1, 3), step_sizes=(0.01, 0.05))


def test_distances_grow_under_their_bounds():
    assert verdicts(distance, distance.measure(DISTANCE)) == [True] * 4


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (twice_too_long, [False, False, True, True]),
        (stopping_after_one_step, [True, True, False, True]),
        (deaf_to_the_step_size, [True, True, True, False]),
        (standing_still, [True, True, False, False]),
    ],
)
def test_distances_of_a_broken_flow(broken, expected):
    assert verdicts(distance, distance.measure(DISTANCE, broken)) == expected


BEST = best_of_n.Setup(seeds=2, states=8, particles=(8,), backends=("numpy",))


class OneUlpOff(NumpyBackend):
    def act(self, state, s, budget, settings, particles=None, noise=None, draw=0):
        a, info = super().act(state, s, budget, settings, particles, noise, draw)
        a[0, 0] = np.nextafter(a[0, 0], 2)
        return a, info


class NeverMoves(NumpyBackend):
    def act(self, state, s, budget, settings, particles=None, noise=None, draw=0):
        still = replace(budget, steps=0)
        return super().act(state, s, still, settings, particles, noise, draw)


class TakesTheWorst(NumpyBackend):
    def act(self, state, s, budget, settings, particles=None, noise=None, draw=0):
        _, info = super().act(state, s, budget, settings, particles, noise, draw)
        worst = np.argmin(info["q"], axis=1)
        return info["moved"][np.arange(len(s)), worst], info


def test_no_steps_are_best_of_n():
    data = best_of_n.measure(BEST)
    assert verdicts(best_of_n, data) == [True, True]
    assert {row["method"] for row in data["rows"]} == {"VGF", "A-VGF"}


@pytest.mark.parametrize(
    ("broken", "expected"),
    [(OneUlpOff, [False, True]), (TakesTheWorst, [False, True]), (NeverMoves, [True, False])],
)
def test_one_bit_is_not_best_of_n(broken, expected):
    rows = best_of_n.compare(broken("cpu", "float64", "float32"), BEST)
    assert verdicts(best_of_n, {"rows": rows}) == expected


SUPPORT = support.Setup(seeds=4, draws=10, candidates=(8,), temperatures=(0.1,), steps=(0, 3, 10))


def test_only_the_flow_leaves_the_support():
    assert verdicts(support, support.measure(SUPPORT)) == [True, True, True]


def test_a_flow_that_stands_still_does_not_leave_the_support():
    assert verdicts(support, support.measure(SUPPORT, standing_still)) == [True, True, False]


def test_selection_that_adds_noise_leaves_the_support():
    def noisy(a, *rest):
        picked, index = spec.select(a, *rest)
        return picked + 1e-9, index

    assert verdicts(support, support.measure(SUPPORT, select=noisy)) == [False, False, True]


def test_the_reference_of_the_support_is_on_its_disc():
    samples = support.reference(np.random.default_rng(0), (2000,))
    assert support.outside(samples).max() <= support.INSIDE
    radius = np.linalg.norm(samples - support.CENTRE, axis=-1)
    assert np.mean(radius < support.RADIUS / math.sqrt(2)) == pytest.approx(0.5, abs=0.04)


MODES = modes.Setup(seeds=4)


def test_modes_survive_with_repulsion_and_collapse_without():
    assert verdicts(modes, modes.measure(MODES)) == [True] * 4


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (attracting, [False, False, True, True]),
        (always_repelling, [True, True, False, False]),
        (standing_still, [False, None, True, False]),
    ],
)
def test_modes_of_a_broken_flow(broken, expected):
    found = verdicts(modes, modes.measure(MODES, broken))
    assert [e is None or f == e for f, e in zip(found, expected, strict=True)] == [True] * 4, found


def test_held_counts_modes_and_their_width():
    target = ring(4, 1.0, 0.1)
    rng = np.random.default_rng(0)
    full = target.sample(rng, (1, 4000))
    count, width = modes.held(full, target)
    assert count[0] == 4
    assert width[0] == pytest.approx(1, abs=0.05)
    one = np.broadcast_to(np.array(target.means[2]), (1, 50, 2))
    count, width = modes.held(one, target)
    assert count[0] == 1
    assert width[0] < 1e-12


def regime(operator, d, reward, tried):
    return {
        "varied": "dimension",
        "dimension": d,
        "data": 10,
        "shift": 0.4,
        "passes": 9,
        "operator": operator,
        "particles": 1,
        "tried": tried,
        "reward": reward,
        "critic_error": [0.1],
    }


@pytest.mark.parametrize(("moved", "holds"), [([0.5, 0.6, 0.7], True), ([0.5, 0.0, 0.1], False)])
def test_moving_beats_picking_only_by_its_interval(moved, holds):
    """The operator is the best of the tuning seeds, not the best of the final ones."""
    rows = [
        regime("best of N", 8, [0.1, 0.2, 0.3], [[0.1]]),
        regime("VGF", 8, moved, [[0.1], [0.9]]),
        regime("QGF", 8, [1.0, 1.0, 1.0], [[0.2], [0.3]]),
    ]
    data = {"rows": rows, "passes": 9, "samples_needed": [[2, 2.0], [4, 4.0]]}
    assert verdicts(regimes, data) == [holds, True]
    data["samples_needed"] = [[2, 4.0], [4, 4.0]]
    assert not verdicts(regimes, data)[1]


def test_the_expected_best_of_tries():
    tried = [[0.0], [1.0]]
    assert regimes.expected_best(tried, 1) == 0.5
    assert regimes.expected_best(tried, 2) == 0.75  # of four draws of two, three have a 1


def test_every_operator_has_the_same_number_of_tries_and_of_passes():
    settings = regimes.agent_settings()
    for name, grid in regimes.grids(8).items():
        assert len(grid) == (1 if name == regimes.PICKED else 4)
        for operator in grid:
            paid = regimes.paid(operator, 704, settings)
            one_more = replace(paid, particles=paid.particles + 1)
            assert paid.total(settings).passes <= 704 < one_more.total(settings).passes


def operator_rows(rates, tuned):
    """Made-up successes of each operator on the final seeds, and of its tries on the first."""
    rng, tuning, rows = np.random.default_rng(0), [], []
    for critic, (name, texts) in itertools.product(operators.CRITICS, operators.TRIES.items()):
        row = {"critic": critic, "operator": name, "text": name, "milliseconds": 1.0, "w2": 0.1}
        row |= dict.fromkeys(("reference", "evaluated", "gradient", "reference_gradient"), 1)
        for i in range(len(texts)):
            tuning.append({**row, "success": [tuned.get(name, 0.0) * (i == 1)] * 4})
        for seed, budget in itertools.product((1, 2), (32, 96)):
            success = (rng.random(30) < rates.get(name, 0.4)).astype(float).tolist()
            rows.append({**row, "seed": seed, "budget": budget, "passes": 30, "success": success})
    return {"env": "a", "updates": 1, "passes": 32, "tuning": tuning, "rows": rows}


def test_an_operator_is_judged_by_its_tuning_and_its_interval():
    """Not the best of the final seeds, and not by its mean alone."""
    tuned = {"VGF": 1.0, "QGF": 0.5}
    assert verdicts(operators, operator_rows({"VGF": 0.95}, tuned)) == [True] * 3
    assert verdicts(operators, operator_rows({"QGF": 0.95}, tuned)) == [False] * 3
    assert verdicts(operators, operator_rows({"VGF": 0.1}, tuned)) == [False] * 3
    dear = operator_rows({"VGF": 0.95}, tuned)
    for row in dear["rows"]:
        row["passes"] = 45 if row["operator"] == "VGF" else row["passes"]
    assert verdicts(operators, dear) == [False] * 3  # and no verdict is about what costs more
    data = operator_rows({"VGF": 0.95, "BPTT": 0.0}, tuned)
    at_main = operators.remarks(data)[2]
    at_main, below = at_main.split("below it")
    assert at_main.count("VGF with") == below.count("BPTT with") == 3
    assert operators.choices(data["tuning"], "td")["VGF"] == 1
    assert [len(table.rows) for table in operators.tables(data)] == [12, 12, 12, 36]


def test_all_tasks_are_judged_with_a_correction_for_their_number(tmp_path, monkeypatch):
    monkeypatch.setattr(operators, "RESULTS", tmp_path)
    tasks = operators.Tasks(("one", "two"))

    def judged(rates, tuned):
        for name in tasks.names:
            record = {"data": operator_rows(rates if name == "two" else {}, tuned)}
            (tmp_path / f"operators-{name}.json").write_text(json.dumps(record))
        data = operators.gather(tasks)
        assert [len(table.rows) for table in operators.tables_all(data)] == [6, 12, 12, 12]
        return [verdict.holds for verdict in operators.judge_all(data)]

    assert judged({"VGF": 0.95}, {"VGF": 1.0}) == [True, True]
    assert judged({"QGF": 0.95}, {"QGF": 1.0}) == [True, False]
    assert judged({"VGF": 0.95}, {"QGF": 1.0}) == [False, True]  # not what tuning chose
    assert judged({"VGF": 0.6}, {"VGF": 1.0}) == [False, True]  # above it but for the correction
    (tmp_path / "operators-two.json").unlink()
    with pytest.raises(VGFError, match=r"operators-two\.json does not exist"):
        operators.gather(tasks)


def test_every_try_of_an_operator_costs_what_was_asked():
    agent = Settings(sampling_steps=5)
    for name, texts in operators.TRIES.items():
        assert len(texts) == (1 if name in (operators.SAMPLE, operators.PICKED) else 4)
        for text in texts:
            found = read_operator(operators.priced(text, 96, agent), agent)
            assert found.total(agent).passes <= 96
    assert operators.priced("best_of_n", 96, agent) == "best_of_n:particles=16"


BOLTZMANN = boltzmann.Setup(seeds=6, particles=(10, 60), steps=(0, 10, 100), samples=100)


def test_particles_converge_to_the_boltzmann_target():
    assert verdicts(boltzmann, boltzmann.measure(BOLTZMANN)) == [True, True, True]


@pytest.mark.parametrize("broken", [attracting, too_hot])
def test_a_broken_flow_has_another_target(broken):
    assert not all(verdicts(boltzmann, boltzmann.measure(BOLTZMANN, broken)))


def test_a_flow_that_stands_still_does_not_converge():
    falls, _, better = verdicts(boltzmann, boltzmann.measure(BOLTZMANN, standing_still))
    assert not falls
    assert not better


def edge_data(flow, guided):
    """Made-up rewards at an edge: of best-of-N, the flow and guidance, by slope and seed."""
    rows = []
    for slope, shift in ((0.0, 0.2), (3.0, 0.0)):
        for name, gains in (("best of N", 0.0), ("VGF", flow[slope]), ("BPTT", guided[slope])):
            reward = shift + gains + 0.01 * np.arange(4) * (1 + gains)
            rows.append(
                {
                    "slope": slope,
                    "operator": name,
                    "particles": 2,
                    "tried": [[gains, gains]],
                    "reward": reward.tolist(),
                    "beyond": [0.0] * 4,
                }
            )
    return {"rows": rows, "slopes": [0.0, 3.0]}


def test_beyond_the_edge_the_flow_and_the_best_are_judged_apart():
    up, down = {0.0: 0.5, 3.0: 0.5}, {0.0: 0.5, 3.0: -0.5}
    assert verdicts(edge, edge_data(down, up)) == [True, True, False]
    assert verdicts(edge, edge_data(down, down)) == [True, True, True]
    assert verdicts(edge, edge_data(up, up)) == [True, False, False]
    assert not verdicts(edge, edge_data({0.0: -0.5, 3.0: -0.5}, up))[0]
    assert "below it VGF" in edge.remarks(edge_data(down, up))[1]
    assert [len(table.rows) for table in edge.tables(edge_data(down, up))] == [3, 3]


def test_data_end_at_the_edge():
    bandit = edge.Edge(replace(edge.Edges().condition, data=500), 0)
    batch = bandit.batch()
    s, a = batch["observations"], batch["actions"]
    assert bandit.beyond(s, a).max() < 1e-12
    assert bandit.beyond(s, np.clip(a + 0.3 * bandit.signs, -1, 1)).mean() > 0.1
    assert bandit.beyond(s, bandit.best(s)).min() > 0.3  # 0.4 is 1/3 of a spread beyond 0.3


ENERGY = energy.Setup(
    particles=(20, 100), steps=(0, 5, 20, 50, 100, 200, 400), starts=((0.5, 0.4),)
)


def test_the_free_energy_falls_at_its_rate():
    assert verdicts(energy, energy.measure(ENERGY)) == [True] * 4


@pytest.mark.parametrize(
    ("broken", "wrong"),
    [
        (attracting, [0, 1, 2]),
        (too_hot, [1]),
        (twice_too_long, [1]),
        (standing_still, [1, 2, 3]),
        (always_repelling, [3]),
    ],
)
def test_the_free_energy_of_a_broken_flow(broken, wrong):
    def flow(score, a, budget, trajectory=False):
        if broken is too_hot and budget.temperature is None:
            return spec.transport(score, a, budget, trajectory)
        return broken(score, a, budget, trajectory)

    small = replace(ENERGY, particles=(20, 50), steps=(0, 20, 100, 200))
    found = verdicts(energy, energy.measure(small, flow))
    assert not any(found[i] for i in wrong)


# --- the toy ------------------------------------------------------------------------------------


def toy_data(**rewards):
    """Made-up results of the toy: for each method the true reward at its settings, of 6 seeds."""
    usual = {
        "BC": [0.25],
        "best-of-N": [0.5, 0.7],
        "weighted BC": [0.6],
        "FQL": [0.0, 0.75],
        "FQL, best of N": [0.0, 0.9],
        "VGF": [0.8, 0.9, 0.1],
    }
    jitter = 0.01 * np.random.default_rng(0).standard_normal(6)
    rows = [
        {
            "method": method,
            "setting": i + 1,
            "reward": list(value + jitter),
            "near_peak": [value] * 6,
            "from_data": [0.02] * 6,
        }
        for method, values in {**usual, **rewards}.items()
        for i, value in enumerate(values)
    ]
    return {"rows": rows, "true_at_learned_peak": [0.0] * 6, "particles": 16}


def test_verdicts_of_the_toy():
    assert verdicts(toy, toy_data()) == [True] * 5
    assert verdicts(toy, toy_data(VGF=[0.74])) == [True, True, True, True, False]
    assert verdicts(toy, toy_data(VGF=[0.3])) == [True, True, True, False, False]
    assert verdicts(toy, toy_data(FQL=[0.5, 0.75]))[1] is False
    assert verdicts(toy, {**toy_data(), "true_at_learned_peak": [0.9] * 6})[0] is False
    far = toy_data()
    far["rows"][1]["from_data"] = far["rows"][2]["from_data"] = [0.4] * 6
    assert verdicts(toy, far)[2] is False
    assert "0.9" in toy.remarks(toy_data())[1]


def test_the_toy_runs_and_an_untrained_agent_fails(tmp_path):
    setup = toy.Setup(
        seeds=2,
        data=32,
        updates=2,
        draws=16,
        candidates=(4,),
        steps=(1, 2),
        distillation=(0.3, 3.0),
        weight_temperatures=(0.1,),
        backend="numpy",
    )
    record = run(replace(toy.TOY, setup=setup), tmp_path)
    assert len(record["data"]["rows"]) == 1 + 1 + 2 + 2 + 2 + 1
    assert all(len(row["reward"]) == 2 for row in record["data"]["rows"])
    assert not record["verdicts"][-1]["holds"]
    assert record["data"]["backend"] == "numpy"
    assert (tmp_path / "toy.png").stat().st_size > 10_000


def test_the_true_reward_of_the_toy_is_highest_at_its_peaks():
    assert toy.true_reward(toy.PEAKS) == pytest.approx(toy.HEIGHTS, abs=1e-3)
    clusters = toy.true_reward(toy.CLUSTERS)
    assert (clusters < toy.HEIGHTS * 0.6).all()


# --- what they share ----------------------------------------------------------------------------


def test_mixture_is_what_it_says():
    target = Mixture([[-0.5, 0.2], [0.4, 0.0]], [0.7, 0.3], 0.2)
    rng = np.random.default_rng(0)
    samples = target.sample(rng, (20_000,))
    assert samples.mean(0) == pytest.approx([-0.23, 0.14], abs=0.01)
    a, step = rng.uniform(-1, 1, (50, 2)), 1e-6
    for axis in np.eye(2) * step:
        slope = np.log(target.density(a + axis)) - np.log(target.density(a - axis))
        assert slope / (2 * step) == pytest.approx(target.score(a) @ axis / step, rel=1e-5)
    x = np.linspace(-3, 3, 301)
    grid = np.stack(np.meshgrid(x, x), axis=-1)
    assert target.density(grid).sum() * (x[1] - x[0]) ** 2 == pytest.approx(1, abs=1e-6)


def test_mmd_to_a_mixture_is_the_mmd_to_many_samples():
    target = Mixture([[-0.5, 0.2], [0.4, 0.0]], [0.7, 0.3], 0.2)
    rng = np.random.default_rng(1)
    a = rng.uniform(-1, 1, (3, 12, 2))
    many = target.sample(rng, (2500,))
    for sigma_squared in (0.05, 0.5):
        exact = target.mmd_squared(a, sigma_squared)
        for particles, value in zip(a, exact, strict=True):
            found = spec.mmd_squared(particles, many, np.array(sigma_squared))
            assert value == pytest.approx(found, abs=0.01)


def test_clipped_scores_are_no_longer_than_they_may_be():
    a = np.random.default_rng(0).uniform(-2, 2, (100, 2))
    field = ring(3, 0.5, 0.2).score
    length = np.linalg.norm(clipped(field, 1.0)(a), axis=-1)
    assert length.max() <= 1 + 1e-12
    short = np.linalg.norm(field(a), axis=-1) < 1
    assert np.array_equal(clipped(field, 1.0)(a)[short], field(a)[short])


def test_an_estimate_is_students_interval():
    found = estimate([1.0, 2.0, 3.0])
    assert found["mean"] == 2
    assert found["high"] - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def small(name):
    """A claim in its tiniest form."""
    setups = {
        "mmd-bound": MMD,
        "distance": DISTANCE,
        "best-of-n": BEST,
        "support": SUPPORT,
        "modes": MODES,
        "boltzmann": BOLTZMANN,
        "energy": replace(ENERGY, particles=(10, 20), steps=(0, 5, 20)),
    }
    return replace(CELLS[name], setup=setups[name])


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(CELLS))
def test_a_record_is_whole(name, tmp_path):
    claim = small(name)
    record = run(claim, tmp_path, command=f"python -m validation.claims {name}")
    for suffix in (*SUFFIXES, "md", "json"):
        assert (tmp_path / f"{name}.{suffix}").stat().st_size > 0
    assert "refute" in record["about"]
    assert record["settings"]
    assert record["environment"]["versions"]["vgf"]
    text = (tmp_path / f"{name}.md").read_text()
    assert f"python -m validation.claims {name}" in text
    assert all(verdict["claim"].replace("|", "\\|") in text for verdict in record["verdicts"])


def test_what_is_drawn_again_is_the_same(tmp_path):
    claim = small("best-of-n")
    run(claim, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    redraw(claim, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_verdicts_of_a_record_are_of_its_numbers(tmp_path):
    claim = small("best-of-n")
    run(claim, tmp_path)
    path = tmp_path / "best-of-n.json"
    record = json.loads(path.read_text())
    assert [verdict["holds"] for verdict in record["verdicts"]] == [True, True]
    record["data"]["rows"][0]["same"] -= 1
    path.write_text(json.dumps(record))
    assert [v["holds"] for v in redraw(claim, tmp_path)["verdicts"]] == [False, True]


def test_lines_differ_in_grey_in_dashes_and_in_markers(tmp_path):
    grey = [
        0.299 * int(c[1:3], 16) + 0.587 * int(c[3:5], 16) + 0.114 * int(c[5:], 16) for c in COLOURS
    ]
    assert all(b - a > 15 for a, b in itertools.pairwise(grey)), grey
    for key in ("color", "marker", "linestyle"):
        assert len({str(line(i)[key]) for i in range(len(COLOURS))}) == len(COLOURS)
    with figure(tmp_path / "empty") as drawing:
        drawing.subplots().plot([0, 1], [0, 1], **line(0))
    assert b"<svg" in (tmp_path / "empty.svg").read_bytes()
    assert (tmp_path / "empty.pdf").read_bytes().startswith(b"%PDF")


def test_the_flow_of_the_claims_is_the_specifications():
    """The broken flows above differ from it only in what their names say."""
    a = np.random.default_rng(0).standard_normal((2, 5, 2))
    budget = Budget(
        steps=2, step_size=0.01, temperature=0.5, optimiser="plain", low=None, high=None
    )
    score = ring(3, 0.5, 0.3).score
    right = spec.transport(score, a, budget)
    assert np.array_equal(deaf_to_the_step_size(score, a, budget), right)
    for broken in (twice_too_long, attracting, too_hot):
        assert not np.allclose(broken(score, a, budget), right)
