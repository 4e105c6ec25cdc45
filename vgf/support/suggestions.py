"""What a mistyped word most likely meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate a mistyped word most likely meant: the same last part, or similar letters."""
    candidates = list(candidates)
    last = word.rpartition(".")[2]
    same = [name for name in candidates if name.rpartition(".")[2] == last]
    if len(same) == 1:
        return same[0]
    matches = difflib.get_close_matches(word, same or candidates, n=1, cutoff=0.6)
    if matches or same:
        return (matches or same)[0]
    by_last = {name.rpartition(".")[2]: name for name in reversed(candidates)}
    matches = difflib.get_close_matches(last, by_last, n=1, cutoff=0.7)
    return by_last[matches[0]] if matches else None


# What people call these flags and commands elsewhere.
_ALSO = {
    "--lr": "--learning-rate",
    "--gamma": "--discount",
    "--tau": "--polyak",
    "--alpha": "--temperature",
    "--epsilon": "--step-size",
    "--environment": "--env",
    "--env-name": "--env",
    "--task": "--env",
    "--dataset": "--data",
    "--algo": "--method",
    "--algorithm": "--method",
    "--agent": "--method",
    "--updates": "--steps",
    "--epochs": "--steps",
    "--iterations": "--steps",
    "--batch": "--batch-size",
    "--num-seeds": "--seeds",
    "--gpu": "--device",
    "--output": "--out",
    "--checkpoint-path": "--from",
    "train": "run",
    "evaluate": "eval",
    "test": "check",
    "plot": "report",
    "benchmark": "bench",
    "dataset": "data",
    "grid": "sweep",
}


def meant_setting(key: str, candidates: Iterable[str]) -> str | None:
    """The setting that a mistyped key most likely meant, as :func:`meant` finds a flag.

    Args:
        key: ``table.name``, not one of the candidates.
        candidates: settings and tables; those that the key lies in are not meant.
    """
    known = [name for name in candidates if not key.startswith(f"{name}.")]
    called = _ALSO.get("--" + key.rpartition(".")[2].replace("_", "-"), "").lstrip("-")
    same = [name for name in known if name.rpartition(".")[2] == called.replace("-", "_")]
    words = {*key.rpartition(".")[2].split("_")}
    same = same or [name for name in known if words <= {*name.rpartition(".")[2].split("_")}]
    if not same:
        return nearest(key, known)
    return max(same, key=lambda name: difflib.SequenceMatcher(None, key, name).ratio())


def meant(word: str, candidates: Iterable[str]) -> str | None:
    """The flag or command that a person most likely meant: by what else it is called, or nearest.

    Args:
        word: not one of the candidates.
        candidates: flags or commands.
    """
    known = list(candidates)
    also = {name: target for name, target in _ALSO.items() if target in known}
    near = nearest(word.lower(), [*known, *also])
    return also.get(near, near) if near else None


def did_you_mean(near: str | Iterable[str] | None, otherwise: str) -> str:
    """The question for a mistyped word.

    Args:
        near: similar candidates, such as :func:`nearest` finds; None, or an empty list.
        otherwise: what to say if nothing is similar.
    """
    names = [near] if isinstance(near, str) else list(near or ())
    return f"did you mean {' or '.join(names)}?" if names else otherwise


def closest(word: str, candidates: Iterable[str], most: int = 3) -> list[str]:
    """The candidates whose letters are most like a word's, ignoring case.

    Args:
        word: not one of the candidates.
        candidates: of those that differ in case only, the first counts.
        most: the most to return; there may be none.
    """
    spelled = {name.lower(): name for name in reversed(list(candidates))}
    return [spelled[match] for match in difflib.get_close_matches(word.lower(), spelled, n=most)]
