"""What a mistyped word most likely meant."""

from __future__ import annotations

from vgf.support.suggestions import closest, did_you_mean, nearest


def test_closest() -> None:
    names = ["Hopper-v5", "hopper-medium-v2", "Walker2d-v5"]
    assert closest("hopper-v5", names)[0] == "Hopper-v5"
    assert closest("hoper-medium-v2", names, most=1) == ["hopper-medium-v2"]
    assert closest("zzz", names) == []
    assert closest("AB", ["ab", "Ab"]) == ["ab"]  # of equal ones, case aside, the first


def test_nearest_looks_at_the_last_part_too() -> None:
    keys = ["agent.budget.steps", "train.seed", "online.steps"]
    assert nearest("seed", keys) == "train.seed"
    assert nearest("train.sede", keys) == "train.seed"
    assert nearest("zzz", keys) is None


def test_the_question() -> None:
    assert did_you_mean(["a", "b"], "x") == "did you mean a or b?"
    assert did_you_mean("a", "x") == "did you mean a?"
    assert did_you_mean([], "choose one") == did_you_mean(None, "choose one") == "choose one"
