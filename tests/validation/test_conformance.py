"""The table of who agrees with what: what is known, new or gone, and the badges."""

import pytest

pytest.importorskip("hypothesis")

from validation import check_others
from validation.check_others import (
    CASES,
    badge,
    badge_markdown,
    deviations,
    page,
    status,
    write_all,
)

KNOWN = {("one", "f"): {"source": "one", "what": "f", "reason": "by its design"}}


def record(verdict="agrees", source="one", what="f", name="phi"):
    return {
        "source": source,
        "version": "1.2",
        "what": what,
        "as": name,
        "date": "2026-11-28",
        "specification": "1.0",
        "verdict": verdict,
        "convention": "kernel_guard = 0.0",
        "finding": "your median is the lower one" if verdict == "differs" else "agrees (20)",
        "result": None,
    }


def test_a_difference_is_known_new_or_gone(monkeypatch):
    assert status(record("differs"), KNOWN) == "known"
    assert status(record("differs", what="g"), KNOWN) == "new"
    assert status(record("agrees"), KNOWN) == "vanished"
    assert status(record("agrees", what="g"), KNOWN) == "agrees"
    assert status(record(None), KNOWN) == "not run"
    monkeypatch.setattr(check_others, "deviations", lambda: KNOWN)
    others = [record(source="two"), record("differs", "three"), record(None, "x")]
    records = [record("differs"), *others]
    text = page(records, {"versions": {"numpy": "2"}, "revision": "abc"}, 20)
    text = " ".join(text.split())
    assert "| one | 1.2 | 2026-11-28 | differs |" in text
    assert "**differs**" in text
    assert "Known: by its design." in text
    assert "This is new." in text
    assert "* x, f:" in text


def test_every_known_deviation_is_of_a_case_and_says_why():
    cases = {(case.source, case.what) for case in CASES}
    for key, entry in deviations().items():
        assert key in cases, key
        assert entry["reason"]
    assert len({case.source for case in CASES}) >= 12


def test_badges_are_written_for_those_that_agree(tmp_path, monkeypatch):
    monkeypatch.setattr(check_others, "deviations", dict)
    write_all([record(), record("differs", "two")], tmp_path, 20)
    (file,) = (tmp_path / "badges").iterdir()
    assert file.name == "one-phi-f.json"
    assert badge(record())["message"] == "phi agrees"
    assert "img.shields.io/badge/VGF%20specification%201.0-phi%20agrees-" in badge_markdown(
        record()
    )
