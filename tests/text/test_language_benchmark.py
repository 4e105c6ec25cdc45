"""The mini benchmark's own arithmetic; its trainings need packages that tests do not."""

from __future__ import annotations

import pytest
from needs import need

need("torch", "transformers")

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np

from validation.language import benchmark
from validation.language.corpus import clean, read_corpus, sentences
from vgf.support.errors import VGFError

METHODS = (
    "base",
    "best-of-8",
    "best-of-32",
    "best-of-8, T = 0.7",
    "best-of-32, T = 0.7",
    "DPO",
    "RLOO",
    "DPO, best of 8",
    "RLOO, best of 8",
    "VGF, L = 0",
    "VGF, L = 1",
    "VGF, L = 2",
    "VGF, L = 5",
    "VGF, L = 10",
    "random direction, L = 5",
    "negative gradient, L = 5",
)


@pytest.fixture
def data() -> dict[str, Any]:
    """Made-up numbers of two seeds in which VGF wins everything."""

    def method(name: str) -> dict[str, Any]:
        ours = name == "VGF, L = 5"
        return {
            "duels": {
                by: {
                    "base": [80, 0, 20] if ours else [60, 0, 40],
                    "VGF, L = 5": [0, 100, 0] if ours else [30, 0, 70],
                }
                for by in benchmark.JUDGES
            },
            "scores": dict.fromkeys(benchmark.JUDGES, 0.5),
            "reward": 1.0,
            "log_likelihood": -3000.0 if ours else -3100.0,
            "tokens": 1000,
            "distinct2": 0.5,
            "seconds": 1.0,
        }

    seed = {
        "seed": 0,
        "reward_accuracy": 0.8,
        "decoding_weight": 0.2,
        "step_size": 0.1,
        "methods": {name: method(name) for name in METHODS},
        "examples": [{"prompt": "p", "base": "b", "VGF, L = 5": "v"}],
    }
    accuracy = {"reviews": 0.9, "sentences": 0.8}
    return {
        "gold_accuracy": accuracy,
        "prompts": 100,
        "versions": {"trl": "1.16.0"},
        "seeds": [seed, copy.deepcopy(seed)],
    }


def test_every_verdict_can_fall(data: dict[str, Any]) -> None:
    assert all(verdict.holds for verdict in benchmark.judge(data))
    ours = "VGF, L = 5"
    for i, change in enumerate(METHODS):
        if change in ("base", "VGF, L = 1", "VGF, L = 2", "VGF, L = 10", ours):
            continue
        for by in benchmark.JUDGES:
            worse = copy.deepcopy(data)
            worse["seeds"][0]["methods"][change]["duels"][by][ours] = [70, 0, 30]
            assert sum(not verdict.holds for verdict in benchmark.judge(worse)) == 1, (i, by)
        worse = copy.deepcopy(data)
        worse["seeds"][1]["methods"][change]["log_likelihood"] = -2800.0
        assert sum(not verdict.holds for verdict in benchmark.judge(worse)) == 1
    worse = copy.deepcopy(data)
    for seed in worse["seeds"]:
        seed["methods"][ours]["log_likelihood"] = -4000.0
    assert not any(verdict.holds for verdict in benchmark.judge(worse)[:-1])


def test_best_of_n_at_the_same_perplexity(data: dict[str, Any]) -> None:
    for seed in data["seeds"]:
        cool = seed["methods"]["best-of-8, T = 0.7"]
        cool["log_likelihood"] = -2900.0
        cool["duels"]["gold"]["base"] = [90, 0, 10]
    # perplexities e^2.9 and e^3.1, and VGF's e^3 half way between 90 and 60 %
    assert benchmark.matched(data, "gold", 8, "VGF, L = 5") == pytest.approx(75)
    assert benchmark.judge(data)[-1].holds  # 80 % of VGF's
    for seed in data["seeds"]:
        seed["methods"]["best-of-8, T = 0.7"]["duels"]["gold"]["base"] = [101, 0, 0]
    assert not benchmark.judge(data)[-1].holds


def test_wins_are_over_all_seeds(data: dict[str, Any]) -> None:
    data["seeds"][1]["methods"]["DPO"]["duels"]["gold"]["base"] = [10, 40, 50]
    found = benchmark.duel(data, "gold", "DPO", "base")
    assert (found.wins, found.ties, found.losses) == (70, 40, 90)
    assert found.decided_rate == 70 / 160
    assert benchmark.rates(data, "gold", "DPO") == "60 17"
    assert benchmark.perplexity(data, "DPO") == pytest.approx(math.exp(3.1))


def test_the_page_and_its_figure(data: dict[str, Any], tmp_path: Path) -> None:
    tables = benchmark.tables(data)
    assert [row[0] for row in tables[0].rows] == list(METHODS)
    assert all(len(row) == len(table.header) for table in tables for row in table.rows)
    assert "By VADER the most wins are at L = 5 (80.0 %; 60.0 % at L = 10)" in " ".join(
        benchmark.remarks(data)
    )
    benchmark.draw(data, tmp_path / "figure")
    assert (tmp_path / "figure.svg").stat().st_size > 10_000


def test_distinct_pairs_of_words() -> None:
    assert benchmark.distinct(["a b c", "a b"]) == 2 / 3  # ab, bc, ab
    assert benchmark.distinct(["a"]) == 0


def test_w2_of_decoded_responses(models: Any) -> None:
    rows = [{"tokens": [3, 4]}, {"tokens": [5, 6]}]
    table = models.reward.table.double().numpy()
    same = benchmark.apart(models, rows, rows[::-1])  # a set has no order
    np.testing.assert_allclose(same, (0, 0), atol=1e-7)
    w2, mmd = benchmark.apart(models, rows, [{"tokens": [3, 4]}, {"tokens": [5, 7]}])
    wanted = np.sqrt(np.square(table[6] - table[7]).sum() / 2)  # one particle of two moved
    assert w2 == pytest.approx(wanted / models.reward.scale / math.sqrt(2))
    assert mmd > 0


def test_stopping_takes_the_last_budget_that_is_likely_enough() -> None:
    def row(text: str, log_p: float) -> dict[str, Any]:
        return {"response": text, "tokens": [1, 2], "log_likelihood": log_p, "reward": 0.0}

    record = {
        "samples": [row("sample", -9), row("best", -4)],
        "best_of_n": {"chosen": 1},
        "budgets": [
            {"steps": steps, "chosen": 0, "candidates": [row(f"L{steps}", log_p)]}
            for steps, log_p in ((2, -3.9), (0, -2), (5, -4.1))
        ],
        "seconds": {"sample": 1.0, "flow": 2.0},
    }
    found = benchmark.stopped([record])
    assert found.responses == ["L2"]
    assert found.seconds == 3
    for budget in record["budgets"]:
        budget["candidates"][0]["log_likelihood"] = -20
    assert benchmark.stopped([record]).responses == ["best"]


def test_reviews_are_cleaned_and_cut() -> None:
    assert clean("A <br />Fine  film , no ?") == "a fine film, no?"
    assert sentences(["one. two! three"]) == ["one.", "two!", "three"]


def test_reading_reviews(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    lines = [f'"Film {i}, fine",{i % 2},imdb' for i in range(20)]
    path.write_text("\n".join(["text,label,source", *lines]))
    corpus = read_corpus(path)
    assert (len(corpus.texts), len(corpus.held_out)) == (18, 2)
    assert not {*corpus.texts} & {*corpus.held_out}
    for text, label in zip(corpus.texts, corpus.labels, strict=True):
        assert int(text.split()[1].rstrip(",")) % 2 == label
    for content in ("", "text,mark\na,1\n", "text,label\na,good\n"):
        path.write_text(content)
        with pytest.raises(VGFError, match=r"reviews\.csv"):
            read_corpus(path)
    with pytest.raises(VGFError, match=r"none\.csv"):
        read_corpus(tmp_path / "none.csv")
