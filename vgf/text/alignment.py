"""Aligning a language model's responses at test time, and the file of the results."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..support.errors import VGFError
from ..support.files import check_writable, expanded, make_folder, write_atomically
from ..support.locks import only_writer
from ..support.progress import progress
from ..support.rows import read_lines
from .calibration import kept_calibration
from .flow import (
    PromptError,
    Responses,
    best,
    changed,
    decode,
    distance,
    log_likelihoods,
    rewards,
    sample,
    transport,
    until_stop,
)
from .models import EmptyPromptError, LongPromptError, Models, Query
from .prompts import NAMES, Prompt, as_prompt, shard
from .settings import AlignSettings, comparable, identity
from .tokens import has_template, marked_tokens, vocabulary_name

Record = dict[str, Any]
ERROR = "error"  # in the record of a prompt that was left out: why


def align(
    models: Models,
    prompts: Sequence[str | Sequence[Any] | Mapping[str, Any] | Prompt],
    settings: AlignSettings | None = None,
    out: Path | str | None = None,
) -> list[Record]:
    """Sample responses to prompts, move them along the reward's gradient, and pick the best.

    Records already in the file are not computed again, except for a line that a crash cut off. One
    process at a time writes a file. A prompt that fails is left out with a record that says why.

    Args:
        models: loaded, see :func:`vgf.text.load_models` and :func:`vgf.text.pair`.
        prompts: texts, lists of turns, or rows that hold "prompt" or "messages" and fields of
            their own, which the records keep.
        settings: None is the defaults.
        out: a JSONL file to append to, a line for each prompt as it is done; None keeps no file.

    Returns:
        A record for each prompt of the shard, in order: "index", "prompt", "prompts" (how many
        there are in all) and "config" (a name for the settings and the models); "response" and
        "reward" of the largest budget; "samples", each with its "response", "tokens", "end" (the
        token that ended it, the last one, or None), "reward" and "log_likelihood"; "best_of_n", the
        best of them; "budgets", for each its "steps", the "chosen" of its "candidates" with
        "response" and "reward", the candidates also with the share of tokens "changed" and the
        distance "moved" (in units of the embeddings); "decoding_weight" and "step_size" as given or
        calibrated; "prompt_tokens", and of these the "special" and added ones by their text;
        "given" where a prompt was changed to fit or to be a conversation; "seconds" by part;
        "settings". Of a prompt that failed: "index", "prompt" and "error". No number in it is
        infinite or NaN: such a one is None.

    Raises:
        VGFError: all prompts fail, or one that the settings say is an error; a file that another
            process writes, that was made with other settings, models or prompts, or that cannot be
            written.
    """
    settings = AlignSettings() if settings is None else settings
    if models.bridge == "selection" and settings.steps != (0,):
        raise VGFError(
            "with --bridge selection the reward model picks among the samples and moves nothing; "
            "give --steps 0"
        )
    asked = [as_prompt(prompt, f"prompt {i + 1}") for i, prompt in enumerate(prompts)]
    wanted = shard(len(asked), settings.shard)
    name = identity(settings, models.fingerprint)
    with ExitStack() as stack:
        log = None
        if out is not None:
            log = stack.enter_context(_opened(expanded(out)))
        done = log.done(name, settings, asked, wanted) if log is not None else {}
        left = [i for i in wanted if i not in done]
        if left:
            _align(models, asked, left, done, settings, log, name)
    failed = [done[i][ERROR] for i in wanted if ERROR in done[i]]
    if failed and len(failed) == len(wanted):
        raise VGFError(failed[0] + (f" ({len(failed)} prompts fail)" if len(failed) > 1 else ""))
    return [done[i] for i in wanted]


def _align(
    models: Models,
    asked: list[Prompt],
    left: list[int],
    done: dict[int, Record],
    settings: AlignSettings,
    log: _Log | None,
    name: str,
) -> None:
    """Compute the records that are left, and add them to those that are done."""
    common = {"prompts": len(asked), "config": name, "settings": comparable(settings)}
    common["vocabulary"] = vocabulary_name(models.tokenizer)

    def finish(record: Record) -> None:
        record = _finite(_with_fields(asked[record["index"]], record | common))
        done[record["index"]] = record
        if log is not None:
            log.append(record)

    queries: dict[int, Query] = {}
    problems: dict[int, str] = {}
    for i in dict.fromkeys([*range(min(len(asked), settings.calibration_prompts)), *left]):
        try:
            queries[i] = models.query(asked[i], f"prompt {i + 1}", settings)
        except (EmptyPromptError, LongPromptError) as error:
            policy = settings.on_empty if isinstance(error, EmptyPromptError) else settings.on_long
            if policy == ERROR:
                raise
            problems[i] = str(error)
        except VGFError as error:
            problems[i] = str(error)
    _say_plain(models, list(queries.values()))
    for i in (i for i in left if i in problems):
        finish(_failed(asked, i, problems[i]))
    left = [i for i in left if i in queries]
    if not left:
        return
    known = next((row for row in done.values() if ERROR not in row), None)
    if models.bridge == "selection":
        chosen = settings
    elif known is not None:
        chosen = replace(settings, **{key: known[key] for key in settings.calibrates})
    else:
        first = [(i, of) for i, of in queries.items() if i < settings.calibration_prompts]
        chosen = kept_calibration(models, first or [(left[0], queries[left[0]])], settings)
    sizes = [settings.particles * (len(queries[i].tokens) + settings.max_new_tokens) for i in left]
    with progress(len(done) + len(left), "aligning", "prompt", len(done)) as bar:
        for part in _together(sizes, settings.batch_tokens):
            for record in _attempt(models, asked, [(i, queries[i]) for i in left[part]], chosen):
                finish(record)
                bar.update()


def _attempt(
    models: Models, asked: list[Prompt], prompts: list[tuple[int, Query]], settings: AlignSettings
) -> Iterator[Record]:
    """The records of some prompts, computed together; one by one if that fails."""
    try:
        records = _records(models, asked, prompts, settings)
    except (VGFError, RuntimeError, IndexError) as error:  # one of them is bad, or all are too many
        if len(prompts) > 1:
            for one in prompts:
                yield from _attempt(models, asked, [one], settings)
            return
        index = prompts[0][0]
        text = " ".join(str(error).split())[:500]
        own = text if isinstance(error, PromptError) else f"prompt {index + 1}: {text}"
        yield _failed(asked, index, own)
        return
    yield from records


def _failed(asked: list[Prompt], index: int, message: str) -> Record:
    return {"index": index, "prompt": asked[index].content, ERROR: message}


def _with_fields(prompt: Prompt, record: Record) -> Record:
    """A record with the fields of its prompt's line; those with its own names are in "input"."""
    taken = {key: value for key, value in prompt.fields.items() if key in NAMES}
    free = {key: value for key, value in prompt.fields.items() if key not in NAMES}
    return record | free | ({"input": taken} if taken else {})


def _finite(value: Any) -> Any:
    """The same without NaN and infinities, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def _say_plain(models: Models, queries: list[Query]) -> None:
    plain = sum(isinstance(of.content, str) for of in queries)
    if plain and has_template(models.tokenizer):
        print(
            f"note: the base model has a chat template, and {plain} prompts are plain text: they "
            "are given as they are; write them as turns, or give --as-chat",
            file=sys.stderr,
        )


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
    models: Models, asked: list[Prompt], prompts: list[tuple[int, Query]], settings: AlignSettings
) -> list[Record]:
    """The results of some prompts, computed together."""
    clock = _Clock(len(prompts))
    budgets = settings.steps
    with clock.of("sample"):
        samples = sample(models, prompts, settings)
    moves = models.bridge != "selection"
    decoded = [samples for _ in budgets]
    shares = [[[0.0] * len(of.rows) for of in samples] for _ in budgets]
    far = shares
    if moves:
        with clock.of("flow"):
            moved, samples = transport(models, samples, settings)
        with clock.of("decode"):  # all budgets in one batch
            every = [u for steps in budgets for u in moved[steps]]
            flat = decode(models, samples * len(budgets), every, settings)
            pairs = list(zip(samples * len(budgets), flat, strict=True))
            flat_shares = [changed(before, after) for before, after in pairs]
            flat = until_stop(models, flat, settings)
        size = len(samples)
        decoded = [flat[k : k + size] for k in range(0, len(flat), size)]
        shares = [flat_shares[k : k + size] for k in range(0, len(flat), size)]
        far = [
            [distance(models, of, u) for of, u in zip(samples, moved[steps], strict=True)]
            for steps in budgets
        ]
    with clock.of("score"):
        groups = [samples, *decoded] if moves else [samples]
        flat_groups = [of for group in groups for of in group]
        rows = _candidates(models, flat_groups, settings)
        scored = [rows[k : k + len(samples)] for k in range(0, len(rows), len(samples))]
        if not moves:
            copies = [(at, [dict(row) for row in own]) for at, own in scored[0]]
            scored.append(copies)
    records = []
    for k, (index, query) in enumerate(prompts):
        found = []
        for b, steps in enumerate(budgets):
            at, own = scored[1 + b][k]
            for row, share, length in zip(own, shares[b][k], far[b][k], strict=True):
                row |= {"changed": share, "moved": length}
            found.append({"steps": steps, **_chosen(at, own)})
        last = max(found, key=lambda budget: budget["steps"])
        picked = _chosen(*scored[0][k])
        record = {
            "index": index,
            "prompt": asked[index].content,
            "response": last["response"],
            "reward": last["reward"],
            "samples": picked.pop("candidates"),
            "best_of_n": picked,
            "budgets": found,
            "decoding_weight": settings.decoding_weight,
            "step_size": settings.step_size,
            "prompt_tokens": query.tokens,
            "seconds": clock.seconds,
        }
        if marked := marked_tokens(models.tokenizer, query.tokens):
            record["special"] = marked
        if query.content != asked[index].content:
            record["given"] = query.content
        records.append(record)
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
                "response": models.text(of.prompt, row),
                "tokens": row,
                "end": models.tokenizer.convert_ids_to_tokens(row[-1])
                if len(row) > len(own)
                else None,
                "reward": float(reward),
                "log_likelihood": log_p,
            }
            for row, own, reward, log_p in zip(of.rows, of.movable, value, likelihood, strict=True)
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


@contextmanager
def _opened(path: Path) -> Iterator[_Log]:
    """The file of records, which nobody else writes meanwhile.

    Raises:
        VGFError: another process writes it, it cannot be written, or it is damaged in the middle.
    """
    check_writable(path.parent)
    make_folder(path.parent)
    with only_writer(path, path.with_name(f".{path.name}.lock")):
        yield _Log(path)


class _Log:
    """The JSONL file of records, appended to.

    Raises:
        VGFError: it is damaged in the middle.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Record] = []
        if path.exists():
            self.rows = read_lines(path)
            data = path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                write_atomically(path, whole)

    def done(
        self, name: str, settings: AlignSettings, prompts: list[Prompt], wanted: list[int]
    ) -> dict[int, Record]:
        """The records of prompts, by their index.

        Raises:
            VGFError: a line from other settings or models, from another prompt or another shard,
                or from a prompt that has one already.
        """
        found: dict[int, Record] = {}
        for number, row in enumerate(self.rows, 1):
            where = f"{self.path}: line {number}"
            if row.get("config") != name:
                raise VGFError(f"{where} {self._other(row, settings)}; choose another --out")
            index = row.get("index")
            if not (isinstance(index, int) and 0 <= index < len(prompts)) or (
                row.get("prompt") != prompts[index].content
            ):
                raise VGFError(
                    f"{where} is for another prompt than line {index} (from 0) of the prompts; "
                    "choose another --out, or the prompts it was made from"
                )
            if index in found:
                raise VGFError(f"{where} is for prompt {index + 1}, as one before; delete a line")
            if index not in wanted:
                raise VGFError(f"{where} is of another shard; choose another --out")
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
        with open(self.path, "a", encoding="utf-8") as file:
            text = json.dumps(record, ensure_ascii=False, allow_nan=False)
            file.write(_encodable(text) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _encodable(text: str) -> str:
    """JSON with half surrogates, which no file can hold, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
