"""Aligning a language model's responses at test time, and the file of the results."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..support.errors import VGFError
from ..support.files import check_writable, make_folder, write_atomically
from ..support.progress import progress
from ..support.rows import read_lines
from .calibration import calibrate
from .flow import (
    Responses,
    best,
    changed,
    decode,
    distance,
    log_likelihoods,
    rewards,
    sample,
    transport,
)
from .models import Models
from .settings import AlignSettings, comparable, identity

Record = dict[str, Any]


def read_prompts(path: Path | str) -> list[str]:
    """The prompts of a JSONL file, one object with the text "prompt" per line.

    Raises:
        VGFError: no such file, a damaged line, a line without a prompt, or no line at all.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise VGFError(f"{path}: cannot be read: {reason}") from error
    prompts = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise VGFError(f"{path}: line {number} is not JSON: {error}") from error
        prompt = row.get("prompt") if isinstance(row, dict) else None
        if not isinstance(prompt, str):
            raise VGFError(f'{path}: line {number} has no text "prompt", as in {{"prompt": "..."}}')
        prompts.append(prompt)
    if not prompts:
        raise VGFError(f"{path}: holds no prompt")
    return prompts


def align(
    models: Models,
    prompts: Sequence[str],
    settings: AlignSettings | None = None,
    out: Path | str | None = None,
) -> list[Record]:
    """Sample responses to prompts, move them along the reward's gradient, and pick the best.

    Records already in the file are not computed again, except for a line that a crash cut off.

    Args:
        models: loaded, see :func:`vgf.text.load_models` and :func:`vgf.text.pair`.
        prompts: texts.
        settings: None is the defaults.
        out: a JSONL file to append to, a line for each prompt as it is done; None keeps no file.

    Returns:
        A record for each prompt, in order: "index", "prompt" and "config" (a name for the
        settings and the models); "response" and "reward" of the largest budget; "samples", each
        with its "response", "tokens", "reward" and "log_likelihood"; "best_of_n", the best of
        them; "budgets", for each its "steps", the "chosen" of its "candidates" with "response"
        and "reward", the candidates also with the share of tokens "changed" and the distance
        "moved" (in units of the embeddings); "decoding_weight" and "step_size" as given or
        calibrated; "seconds" by part; "settings".

    Raises:
        VGFError: a prompt that is empty or too long, or a file that was made with other settings,
        models or prompts or that cannot be written.
    """
    settings = AlignSettings() if settings is None else settings
    prompts = list(prompts)
    tokens = [
        models.encode(prompt, f"prompt {i + 1}", settings.max_new_tokens)
        for i, prompt in enumerate(prompts)
    ]
    name = identity(settings, models.fingerprint)
    log = _Log(Path(out).expanduser()) if out is not None else None
    done = log.done(name, settings, prompts) if log is not None else {}
    left = [i for i in range(len(prompts)) if i not in done]
    if not left:
        return [done[i] for i in range(len(prompts))]
    if done:
        known = next(iter(done.values()))
        chosen = replace(settings, **{key: known[key] for key in settings.calibrates})
    else:
        chosen = calibrate(
            models, list(enumerate(tokens))[: settings.calibration_prompts], settings
        )
    sizes = [settings.particles * (len(tokens[i]) + settings.max_new_tokens) for i in left]
    with progress(len(prompts), "aligning", "prompt", len(done)) as bar:
        for part in _together(sizes, settings.batch_tokens):
            these = [(i, tokens[i]) for i in left[part]]
            for record in _records(models, these, [prompts[i] for i in left[part]], chosen):
                record |= {"config": name, "settings": comparable(settings)}
                done[record["index"]] = record
                if log is not None:
                    log.append(record)
            bar.update(len(these))
    return [done[i] for i in range(len(prompts))]


def _together(sizes: list[int], most: int) -> Iterator[slice]:
    """Consecutive prompts whose particles go through a model at once, or a single larger one."""
    start, total = 0, 0
    for i, size in enumerate(sizes):
        if i > start and total + size > most:
            yield slice(start, i)
            start, total = i, 0
        total += size
    yield slice(start, len(sizes))


def _records(
    models: Models, prompts: list[tuple[int, list[int]]], texts: list[str], settings: AlignSettings
) -> list[Record]:
    """The results of some prompts, computed together."""
    clock = _Clock(len(prompts))
    with clock.of("sample"):
        samples = sample(models, prompts, settings)
    with clock.of("flow"):
        moved = transport(models, samples, settings)
    decoded = {}
    for steps in settings.steps:
        with clock.of("decode"):
            decoded[steps] = decode(models, samples, moved[steps], settings)
    with clock.of("score"):
        scored = {
            steps: _candidates(models, of, settings)
            for steps, of in [(None, samples), *decoded.items()]
        }
        for steps, of in decoded.items():
            for k, (before, after) in enumerate(zip(samples, of, strict=True)):
                far = distance(models, before, moved[steps][k])
                shares = changed(before, after)
                for row, share, length in zip(scored[steps][k][1], shares, far, strict=True):
                    row |= {"changed": share, "moved": length}
    records = []
    for k, text in enumerate(texts):
        budgets = [{"steps": L, **_chosen(*scored[L][k])} for L in settings.steps]
        last = max(budgets, key=lambda budget: budget["steps"])
        picked = _chosen(*scored[None][k])
        records.append(
            {
                "index": prompts[k][0],
                "prompt": text,
                "response": last["response"],
                "reward": last["reward"],
                "samples": picked.pop("candidates"),
                "best_of_n": picked,
                "budgets": budgets,
                "decoding_weight": settings.decoding_weight,
                "step_size": settings.step_size,
                "seconds": clock.seconds,
            }
        )
    return records


def _candidates(
    models: Models, responses: Sequence[Responses], settings: AlignSettings
) -> list[tuple[int, list[Record]]]:
    """For each prompt the best response, and what is known about each."""
    values = rewards(models, responses, settings)
    likelihoods = log_likelihoods(models, responses, settings)
    found = []
    for of, value, likelihood in zip(responses, values, likelihoods, strict=True):
        rows = [
            {
                "response": models.text(row),
                "tokens": row,
                "reward": float(reward),
                "log_likelihood": log_p,
            }
            for row, reward, log_p in zip(of.rows, value, likelihood, strict=True)
        ]
        found.append((best(models, of, value), rows))
    return found


def _chosen(index: int, rows: list[Record]) -> Record:
    row = rows[index]
    return {
        "chosen": index,
        "response": row["response"],
        "reward": row["reward"],
        "candidates": rows,
    }


class _Clock:
    """Seconds by part, divided among prompts that were computed together."""

    def __init__(self, prompts: int) -> None:
        self.prompts = prompts
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        spent = (time.perf_counter() - start) / self.prompts
        self.seconds[part] = self.seconds.get(part, 0.0) + spent


class _Log:
    """The JSONL file of records, appended to.

    Raises:
        VGFError: it cannot be written, or is damaged in the middle.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Record] = []
        check_writable(path.parent)
        if path.exists():
            self.rows = read_lines(path)
            data = path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                write_atomically(path, whole)

    def done(self, name: str, settings: AlignSettings, prompts: list[str]) -> dict[int, Record]:
        """The records of prompts, by their index.

        Raises:
            VGFError: a line from other settings or models, or from another prompt.
        """
        found = {}
        for number, row in enumerate(self.rows, 1):
            where = f"{self.path}: line {number}"
            if row.get("config") != name:
                raise VGFError(f"{where} {self._other(row, settings)}; choose another --out")
            index = row.get("index")
            if not (isinstance(index, int) and 0 <= index < len(prompts)) or (
                row.get("prompt") != prompts[index]
            ):
                raise VGFError(
                    f"{where} is for another prompt than line {index} (from 0) of the prompts; "
                    "choose another --out, or the prompts it was made from"
                )
            found[index] = row
        return found

    @staticmethod
    def _other(row: Record, settings: AlignSettings) -> str:
        theirs = row.get("settings")
        if not isinstance(theirs, dict):
            return "was not written by vgf align"
        for name, ours in comparable(settings).items():
            if theirs.get(name) != ours:
                return f"was made with {name} {theirs.get(name)!r}, not {ours!r}"
        return "was made with other models"

    def append(self, record: Record) -> None:
        """Add a line, and wait until it is on disk."""
        make_folder(self.path.parent)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
