"""The comparison with the authors' code can fail, and reads their trees as they are."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from validation import authors, budget, learning, protocol, repeats
from validation.authors import EXACT, Row
from vgf import spec
from vgf.bench.interleave import ratio
from vgf.data.dataset import check_dataset
from vgf.spec.settings import Network, method_settings
from vgf.support.errors import VGFError


def tree() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"a": rng.standard_normal((3, 2)), "b": {"c": rng.standard_normal(4) * 1e-6}}


def test_a_difference_is_seen_in_every_array() -> None:
    assert authors.largest(tree(), tree()) == 0.0
    changed = tree()
    changed["b"]["c"][2] += 1e-9  # small beside the other array, and not beside its own
    assert 1e-4 < authors.largest(changed, tree()) < 1e-2
    assert authors.largest({**tree(), "a": tree()["a"].T}, tree()) == np.inf
    assert authors.largest(tree(), {**tree(), "a": np.full((3, 2), np.nan)}) == np.inf
    with pytest.raises(VGFError, match="ours lacks"):
        authors.largest({"a": tree()["a"]}, tree())


def test_data_agree_to_the_bit_or_not_at_all() -> None:
    data = authors.fields_of(check_dataset(authors.offline(5), "made up"))
    assert authors.apart(data, authors.offline(5), authors.FIELDS) == 0.0
    other = authors.offline(5)
    other["rewards"] = np.nextafter(other["rewards"], np.float32(0))
    assert authors.apart(data, other, authors.FIELDS) > 0.0
    assert authors.apart(data, authors.offline(6), authors.FIELDS) == np.inf


@pytest.mark.parametrize("worst", [0.0, 1e-3, None])
def test_a_row_beyond_its_bound_fails_the_claim(worst: float | None) -> None:
    rows = [
        dataclasses.asdict(row)
        for row in (
            Row("data", "one", 0.0, EXACT),
            Row("data", "two", worst, EXACT),
            Row("updates", "three", 1e-14, authors.UPDATES),
        )
    ]
    data, updates = sorted(authors.judge({"rows": rows}), key=lambda v: "bit" not in v.claim)
    assert updates.holds
    assert data.holds == (worst == 0.0)
    assert ("not: two" in data.evidence) == (worst != 0.0)


def test_their_layers_are_read_in_order() -> None:
    """Eleven layers, as names sort "Dense_10" before "Dense_2"."""
    layers = {
        f"Dense_{i}": {"kernel": np.full((2, 2), i), "bias": np.full(2, i)} for i in range(12)
    }
    norms = {
        f"LayerNorm_{i}": {"scale": np.full(2, 50 + i), "bias": np.full(2, 70 + i)}
        for i in range(11)
    }
    network = Network((2,) * 11, layer_norm="after")
    found = authors.network_of({"module": {"MLP_0": {**layers, **norms}}}, network)
    assert list(found) == [*(f"hidden_{i}" for i in range(11)), "output"]
    for i in range(11):
        assert found[f"hidden_{i}"]["kernel"][0, 0] == i
        assert found[f"hidden_{i}"]["post_scale"][0] == 50 + i
        assert found[f"hidden_{i}"]["post_offset"][0] == 70 + i
    assert found["output"]["bias"].tolist() == [11, 11]


def test_draws_have_our_shapes() -> None:
    settings = method_settings("vgf")
    drawn = [np.arange(n, dtype=float) for n in (4 * 10 * authors.ACTIONS, 12, 4)]
    noise = authors.noise_of(drawn, settings, 4)
    assert {name: x.shape for name, x in noise.items()} == {
        "particles": (4, 10, authors.ACTIONS),
        "reference_start": (4, authors.ACTIONS),
        "reference_time": (4, 1),
    }
    with pytest.raises((ValueError, IndexError)):
        authors.noise_of(drawn[1:], settings, 4)


@pytest.mark.full
def test_our_online_phase_by_itself(tmp_path: Path) -> None:
    """What is compared with theirs: here, the numbers that theirs was seen to have."""
    phase = dataclasses.replace(authors.PHASES["from scratch, random warm-up"], online_steps=14)
    seen, _ = authors.our_phase(phase, str(tmp_path))
    assert [len(rows) for rows in seen] == [8, 9, 10, 11, 12, 13, 14]
    np.testing.assert_array_equal(seen[-1], np.arange(1, 15))


def test_the_command_needs_a_checkout(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--checkout", "ryanxhr/vgf"], ["--checkout", "ryanxhr/vgf=/nowhere"]):
        with pytest.raises(SystemExit) as error:
            authors.main(words)
        assert error.value.code == 2
        assert "--checkout" in capsys.readouterr().err


def test_a_budget_is_above_another_if_its_interval_is() -> None:
    def found(one: list[float]) -> dict[str, Any]:
        flat = {"seeds": [[0.1, 0.2, 0.1]]}
        return {"budgets": {"bc": flat, "0": {"seeds": [one]}, **dict.fromkeys("123", flat)}}

    higher = budget.judge(found([0.5, 0.65, 0.5]))
    assert [verdict.holds for verdict in higher] == [True, False, False, False]
    assert not budget.judge(found([0.9, 0.1, 0.1]))[0].holds


def curves(*success: float) -> list[dict[str, dict[str, float]]]:
    """The same at every test budget, one curve for each seed, evaluated twice."""
    return [{step: dict.fromkeys("0123", x) for step in ("10", "20")} for x in success]


def test_learning_is_compared_seed_by_seed() -> None:
    def judged(ours: list[Any], theirs: list[Any]) -> list[bool]:
        data = {"methods": {"vgf": {"ours": ours, "theirs": theirs}}}
        return [verdict.holds for verdict in learning.judge(data)]

    assert judged(curves(0.5, 0.6, 0.4), curves(0.4, 0.7, 0.4)) == [True, True]
    assert judged(curves(0.5, 0.7, 0.4), curves(0.3, 0.5, 0.2)) == [True, False]
    assert judged(curves(0.0, 0.0, 0.0), curves(0.0, 0.0, 0.1))[0] is False
    shorter = [{"10": curve["10"]} for curve in curves(0.9, 0.9, 0.9)]
    assert learning.steps_of({"ours": shorter, "theirs": curves(0.1, 0.2, 0.3)}) == ["10"]
    with pytest.raises(VGFError, match="same number of updates"):
        learning.steps_of({"ours": shorter, "theirs": [{"30": {}}]})


def test_distances_from_differences_are_ours() -> None:
    pytest.importorskip("jax")
    a = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    k, distances, twice = authors.kernel_from_differences(a, a)
    sigma_squared = spec.bandwidth_squared(a) + 5e-7  # their guard of 1e-6 to 2 sigma^2
    np.testing.assert_allclose(k, spec.rbf_kernel(a, a, sigma_squared), rtol=1e-5)
    np.testing.assert_allclose(distances, spec.squared_distances(a, a), rtol=1e-5)
    np.testing.assert_allclose(twice[:, 0, 0], 1 / sigma_squared, rtol=1e-5)


def test_a_protocol_is_as_fast_as_wanted_in_every_round_or_not(tmp_path: Path) -> None:
    def judged(*rounds: tuple[float, float, float]) -> list[bool]:
        sides = (protocol.OURS, protocol.THEIRS, protocol.MANY)
        data = {
            "times": 2.0,
            "seeds": 8,
            "rounds": [dict(zip(sides, r, strict=True)) for r in rounds],
        }
        return [verdict.holds for verdict in protocol.judge(data)]

    assert judged((10, 20, 39), (10, 25, 30)) == [True, True]
    assert judged((10, 20, 39), (10, 19, 41)) == [False, False]

    # 0.5 s to compile, 0.01 s for an update, 3 s in the evaluation after the second row
    clock = [0.5 + 1.0, 0.5 + 2.0, 0.5 + 3.0 + 3.0, 0.5 + 4.0 + 3.0]
    rows = [{"step": 100 * (i + 1), "seconds": seconds} for i, seconds in enumerate(clock)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    setup = protocol.Setup("", (), updates=400, evaluate_every=200, episodes=1, times=1)
    found = list(protocol.parts(tmp_path, 9.0, setup).values())
    np.testing.assert_allclose(found, [0.5, 4.0, 3.0, 1.5])


def test_repeats_are_as_fast_as_wanted_in_every_one_or_not() -> None:
    """The verdicts, whose turn it was, and what the wanted ratio would take."""

    def row(*rounds: tuple[float, float], limit: float = 0.9) -> dict[str, Any]:
        ours, theirs = zip(*rounds, strict=True)
        sides = {"jax": {"seconds": list(ours)}, repeats.VGF: {"seconds": list(theirs)}}
        for side in sides.values():
            side["of_limit"] = ratio(side["seconds"], [limit] * len(rounds))
        sides["jax"]["ratios"] = {repeats.VGF: ratio(ours, theirs)}
        return {"sides": sides}

    def data(*rows: dict[str, Any]) -> dict[str, Any]:
        return {
            "title": "",
            "revision": "",
            "times": 1.1,
            "of_limit": 0.85,
            "ways": {"way": list(rows)},
        }

    fast, slow = row((1.0, 1.2), (1.0, 1.3)), row((1.0, 1.0), (1.2, 1.2))
    assert [v.holds for v in repeats.judge(data(fast, fast))] == [True, True]
    assert [v.holds for v in repeats.judge(data(fast, slow))] == [False, False]
    assert repeats.by_turn(fast, "jax") == [1.2, 1.3]
    assert "79%" in repeats.remarks(data(row((1.0, 1.25), (1.0, 1.25))))[1]  # 1.1 * 0.9 / 1.25
