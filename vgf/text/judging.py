"""Win rates: responses of `vgf align`, compared by judges that had no part in making them.

A judge either scores a response, and the higher score wins, or compares two responses, and is asked
in both orders. A tie counts as half a win. Seeds are averaged for each prompt, so that intervals
and tests are over prompts.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import expanded
from ..support.objects import load_function, short_error
from ..support.progress import progress
from ..support.rows import read_lines
from ..support.statistics import wilson
from .prompts import NAMES, REFERENCE, Content, as_prompt, plain_text, read_rows
from .tokens import has_template, ordinary, vocabulary_name

# Prompts and responses -> a score for each, the higher the better; or one prompt and response;
# or, with a third argument, a number above 0 if the second is the better response, below 0 if the
# third is, and 0 for a tie
Judge = Any
VADER = "vader"
OPENAI = "openai:"
BASE, BEST_OF_N = "base", "best_of_n"
RETRIES = 2


@dataclass(frozen=True)
class Item:
    """A response to a prompt, and what is known about it.

    Attributes:
        content: the prompt, a text or turns.
        response: its text.
        tokens, prompt_tokens: the base model's, where known.
        end: the text of the token that ended the response, the last of its tokens; or None.
        vocabulary: a name for the tokens.
        log_likelihood: under the base model.
        special: the special and added tokens of the prompt, by their text; None is not known.
        reward_token: which token the reward was read at; None is the default.
    """

    content: Content
    response: str
    tokens: list[int] | None = None
    prompt_tokens: list[int] | None = None
    end: str | None = None
    vocabulary: str | None = None
    log_likelihood: float | None = None
    special: dict[str, int] | None = None
    reward_token: str | None = None

    @property
    def prompt(self) -> str:
        """The prompt as text."""
        return plain_text(self.content)


@dataclass(frozen=True)
class Answers:
    """The responses in files that `vgf align` wrote.

    Attributes:
        keys: of each response, the seed and the index of its prompt.
        items: of each method, a response for each key.
        fields: the whole line of each key.
        lines, failed, cut: how many lines there are, how many are of prompts that failed, and how
            many were cut off.
        prompts: how many prompts there were in all, where the files say so.
    """

    keys: list[tuple[Any, int]]
    items: dict[str, list[Item]]
    fields: list[Mapping[str, Any]]
    lines: int = 0
    failed: int = 0
    cut: int = 0
    prompts: int | None = None

    def seen(self) -> str:
        """How many lines of how many are judged, in words."""
        left = [f"{self.failed} of prompts that failed"] * bool(self.failed)
        left += [f"{self.cut} cut off"] * bool(self.cut)
        text = f"{len(self.keys)} of {self.lines} lines"
        text += f" ({', '.join(left)})" if left else ""
        if self.prompts is not None:
            text += f", {len({index for _, index in self.keys})} of {self.prompts} prompts"
        seeds = len({seed for seed, _ in self.keys})
        return text + (f", {seeds} seeds" if seeds > 1 else "")


@dataclass(frozen=True)
class Verdict:
    """One method against another, by one judge.

    Attributes:
        judge, method, against: their names.
        wins, ties, losses: numbers of pairs of responses.
        mean: of the method's scores; None if the judge gives none.
        missing: pairs that the judge could not tell.
        scores: of each prompt, 1 for a win, 1/2 for a tie, 0 for a loss, averaged over seeds; NaN
            where it is missing.
        length: of the method's responses, mean number of characters.
        perplexity: of the method's responses under the base model, per token.
        controlled: see :func:`length_controlled`.
    """

    judge: str
    method: str
    against: str
    wins: int
    ties: int
    losses: int
    mean: float | None
    missing: int = 0
    scores: tuple[float, ...] = field(default=(), repr=False, compare=False)
    length: float | None = None
    perplexity: float | None = None
    controlled: float | None = None

    @property
    def prompts(self) -> int:
        """How many prompts were judged."""
        known = int(np.isfinite(self.scores).sum()) if self.scores else 0
        return known or self.wins + self.ties + self.losses

    @cached_property
    def rate(self) -> float | None:
        """The win rate, ties as half; None without a pair."""
        if self.scores:
            known = np.asarray(self.scores)[np.isfinite(self.scores)]
            return float(known.mean()) if len(known) else None
        total = self.wins + self.ties + self.losses
        return (self.wins + self.ties / 2) / total if total else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the rate over prompts.

        A tie varies less than a win or a loss, so that with ties it is too wide, never too narrow.
        """
        return None if self.rate is None else wilson(self.rate * self.prompts, self.prompts)

    @property
    def decided_rate(self) -> float | None:
        """Wins among the pairs without a tie; None if all are ties."""
        decided = self.wins + self.losses
        return self.wins / decided if decided else None

    @property
    def decided_interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the decided rate."""
        decided = self.wins + self.losses
        return wilson(self.wins, decided) if decided else None

    @property
    def p(self) -> float:
        """Of the sign test over prompts: that the method is neither better nor worse."""
        if self.scores:
            better = int(np.sum(np.asarray(self.scores) > 0.5))
            worse = int(np.sum(np.asarray(self.scores) < 0.5))
        else:
            better, worse = self.wins, self.losses
        return _sign_test(better, worse)


@dataclass(frozen=True)
class Paired:
    """The difference between two methods' win rates against the same responses.

    Attributes:
        judge, method, other: their names.
        difference: of the rates, over the prompts judged for both.
        p: of the sign test over prompts: that neither is better.
    """

    judge: str
    method: str
    other: str
    difference: float
    p: float


def read_answers(paths: Path | str | Sequence[Path | str]) -> Answers:
    """The responses in one or several files: shards of one job, or its seeds.

    "base" is the first sample, "best_of_n" the best of them, "L=5" the chosen response of a budget.

    Raises:
        VGFError: no such file; a damaged line, or one that is not vgf align's; a prompt that is
            there twice; lines that were made with different settings, the seed aside; another
            prompt of one index.
    """
    places = [paths] if isinstance(paths, Path | str) else list(paths)
    keys: dict[tuple[Any, int], str] = {}
    asked: dict[int, tuple[str, str]] = {}
    found: dict[str, list[Item]] = {}
    fields: list[Mapping[str, Any]] = []
    lines = failed = cut = 0
    prompts: list[int] = []
    first: Mapping[str, Any] | None = None
    for place in places:
        rows = read_lines(place)
        if not rows:
            raise VGFError(f"{place}: holds no line")
        ragged = not Path(place).read_bytes().endswith(b"\n")
        lines, cut = lines + len(rows) + ragged, cut + ragged
        for number, row in enumerate(rows, 1):
            where = f"{place}: line {number}"
            if isinstance(row.get("prompts"), int):
                prompts.append(row["prompts"])
            if "error" in row and "samples" not in row:
                failed += 1
                continue
            own = _items(row, where)
            settings, number_of = row.get("settings") or {}, row.get("index", 0)
            if not isinstance(settings, dict) or type(number_of) is not int:
                raise VGFError(f"{where} was not written by vgf align")
            if not isinstance(settings.get("seed"), int | None):
                raise VGFError(f"{where} was not written by vgf align")
            first = row if first is None else first
            _check_same_settings(first, row, where)
            if found and own.keys() != found.keys():
                raise VGFError(f"{where} has other budgets than the lines before it")
            index = row.get("index", len(keys))
            key = ((row.get("settings") or {}).get("seed"), index)
            if key in keys:
                raise VGFError(
                    f"{where} is prompt {index + 1}, as is {keys[key]}; drop one of the two"
                )
            said = _key(row.get("prompt"))
            if asked.setdefault(index, (said, where))[0] != said:
                raise VGFError(
                    f"{where} has another prompt {index + 1} than {asked[index][1]}; judge files "
                    "of different prompts apart"
                )
            keys[key] = where
            fields.append(row)
            for name, item in own.items():
                found.setdefault(name, []).append(item)
    if not keys:
        raise VGFError(f"{places[0]}: holds no response: all {failed} prompts failed")
    total = max(prompts) if prompts else None
    return Answers(list(keys), found, fields, lines, failed, cut, total)


def _items(row: Mapping[str, Any], where: str) -> dict[str, Item]:
    try:
        content = row.get("given", row["prompt"])
        content = as_prompt(content, where).content
        prompt_tokens, vocabulary = row.get("prompt_tokens"), row.get("vocabulary")
        read_at = (row.get("settings") or {}).get("reward_token")

        def item(of: Mapping[str, Any]) -> Item:
            return Item(
                content,
                of["response"],
                of.get("tokens"),
                prompt_tokens,
                of.get("end"),
                vocabulary,
                of.get("log_likelihood"),
                row.get("special"),
                read_at,
            )

        def chosen(part: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Item:
            return item({**rows[part["chosen"]], "response": part["response"]} if rows else part)

        best, samples = row["best_of_n"], row["samples"]
        own = {BASE: item(samples[0])}
        own[BEST_OF_N] = chosen(best, samples if "chosen" in best else [])
        for part in row["budgets"]:
            own[f"L={part['steps']}"] = chosen(part, part.get("candidates", []))
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise VGFError(f"{where} was not written by vgf align") from error
    if not all(map(_is_sound, own.values())):
        raise VGFError(f"{where} was not written by vgf align")
    return own


def _is_sound(item: Item) -> bool:
    """Whether a response is text, and what is known about it of the right types."""
    tokens, likelihood = item.tokens, item.log_likelihood
    return (
        isinstance(item.response, str)
        and (tokens is None or isinstance(tokens, list))
        and (likelihood is None or type(likelihood) in (int, float))
    )


def _check_same_settings(first: Mapping[str, Any], row: Mapping[str, Any], where: str) -> None:
    ours: Mapping[str, Any] = first.get("settings") or {}
    theirs: Mapping[str, Any] = row.get("settings") or {}
    for name in sorted({*ours, *theirs}):
        if name != "seed" and ours.get(name) != theirs.get(name):
            raise VGFError(
                f"{where} was made with {name} {theirs.get(name)!r}, others with "
                f"{ours.get(name)!r}; judge them apart, or give the file to --against"
            )
    if ours == theirs and first.get("config") != row.get("config"):
        raise VGFError(f"{where} was made with other models than the lines before it")


def methods(path: Path | str) -> tuple[list[str], dict[str, list[str]]]:
    """The prompts in a file that `vgf align` wrote, and the responses of each method.

    Raises:
        VGFError: as :func:`read_answers`.
    """
    answers = read_answers(path)
    texts = {name: [one.response for one in items] for name, items in answers.items.items()}
    return [one.prompt for one in answers.items[BASE]], texts


def judge(
    path: Path | str | Sequence[Path | str] | Answers,
    judges: Mapping[str, Judge],
    against: str = BASE,
    reference_field: str = REFERENCE,
    retries: int = RETRIES,
) -> list[Verdict]:
    """Let judges compare every method with one of them, or with other responses.

    Args:
        path: what `vgf align` wrote, in one or several files, or :func:`read_answers` of them.
        judges: by name, see :func:`load_judge`.
        against: a method, "base", "best_of_n", "L=0", ...; "reference", the references in the
            prompts' lines; or a JSONL file with a "response" for each "index" or "prompt".
        reference_field: the name of the references in the lines.
        retries: how often a judge that raises is asked again.

    Raises:
        VGFError: as :func:`read_answers`; an unknown method; a judge that fails, or does not give
            one finite number for each response.
    """
    answers = path if isinstance(path, Answers) else read_answers(path)
    name_of, others = _against(answers, against, reference_field)
    theirs = [one for one in others if one is not None]
    if len(theirs) < len(others):
        answers = _only(answers, [one is not None for one in others])
    without = len(others) - len(theirs)
    ours = {name: items for name, items in answers.items.items() if name != name_of}
    verdicts = []
    steps = (len(ours) + 1) * len(judges) * len(answers.keys)
    with progress(steps, "judging", "response") as bar:
        for name, own in judges.items():
            if is_pairwise(own):
                bar.update(len(answers.keys))
                for method, items in ours.items():
                    margin = _both_orders(own, name, items, theirs, retries)
                    verdicts.append(_verdict(answers, name, method, name_of, margin, items, theirs))
                    bar.update(len(items))
                continue
            base = _scores(own, name, theirs, retries)
            bar.update(len(theirs))
            for method, items in ours.items():
                values = _scores(own, name, items, retries)
                known = values[np.isfinite(values)]
                mean = float(known.mean()) if len(known) else None
                found = (answers, name, method, name_of, values - base, items, theirs, mean)
                verdicts.append(_verdict(*found))
                bar.update(len(items))
    return [replace(one, missing=one.missing + without) for one in verdicts]


def _only(answers: Answers, kept: Sequence[bool]) -> Answers:
    """Some of the responses."""

    def those(rows: Sequence[Any]) -> list[Any]:
        return [row for row, keep in zip(rows, kept, strict=True) if keep]

    items = {name: those(rows) for name, rows in answers.items.items()}
    return replace(answers, keys=those(answers.keys), items=items, fields=those(answers.fields))


def _against(
    answers: Answers, against: str, reference_field: str
) -> tuple[str, Sequence[Item | None]]:
    """The other responses; None for a prompt that failed where they were made."""
    if against in answers.items:
        return against, answers.items[against]
    base = answers.items[BASE]
    if against == REFERENCE:
        own_names = reference_field in NAMES  # a field of the prompt's line is in "input" then
        rows = [(row.get("input") or {}) if own_names else row for row in answers.fields]
        texts = [row.get(reference_field) for row in rows]
        absent = [i for i, text in enumerate(texts) if not isinstance(text, str)]
        if absent:
            raise VGFError(
                f"prompt {answers.keys[absent[0]][1] + 1} has no text {reference_field!r} "
                f"({len(absent)} of {len(texts)} lack it); name its field with --reference-field"
            )
        return against, [_text(own, str(x)) for own, x in zip(base, texts, strict=True)]
    if not expanded(against).is_file():
        there = ", ".join([*answers.items, REFERENCE])
        raise VGFError(f"no method or file is {against!r}; the file has {there}")
    lines = zip(answers.keys, answers.fields, strict=True)
    asked = {index: row.get("prompt") for (_, index), row in lines}
    by_index: dict[Any, str | None] = {}
    for number, other in read_rows(against):
        where, index = f"{against}: line {number}", other.get("index")
        text = other.get("response")
        if not isinstance(text, str):
            if "error" not in other:
                raise VGFError(f'{where} has no text "response"')
            text = None
        numbered = type(index) is int
        said = as_prompt(other, where).content if {"prompt", "messages"} & set(other) else None
        if numbered and said is not None and index in asked and _key(asked[index]) != _key(said):
            raise VGFError(f"{where} has another prompt {index + 1} than the file that is judged")
        if not numbered and said is None:
            raise VGFError(f'{where} has no "index" that is a number, and no "prompt"')
        key = index if numbered else _key(said)
        if key in by_index:
            raise VGFError(f"{where} answers a prompt that another line answers")
        by_index[key] = text
    found: list[Item | None] = []
    for (_, index), own, row in zip(answers.keys, base, answers.fields, strict=True):
        key = index if index in by_index else _key(row.get("prompt"))
        if key not in by_index:
            raise VGFError(f"{against}: has no response to prompt {index + 1}")
        response = by_index[key]
        found.append(None if response is None else _text(own, response))
    if all(one is None for one in found):
        raise VGFError(f"{against}: holds no response: all prompts failed")
    return Path(against).name, found


def _text(own: Item, response: str) -> Item:
    """Another response to a prompt, read where the other one is."""
    return Item(own.content, response, reward_token=own.reward_token)


def _key(content: Any) -> str:
    return json.dumps(content, sort_keys=True)


def _verdict(
    answers: Answers,
    judge: str,
    method: str,
    against: str,
    margin: Any,
    items: Sequence[Item],
    theirs: Sequence[Item],
    mean: float | None = None,
) -> Verdict:
    wins, ties, losses = (int(np.sum(x)) for x in (margin > 0, margin == 0, margin < 0))
    point = np.where(np.isfinite(margin), (np.sign(margin) + 1) / 2, np.nan)
    by_prompt: dict[int, list[float]] = {}
    for (_, index), value in zip(answers.keys, point, strict=True):
        by_prompt.setdefault(index, []).append(float(value))
    scores = []
    for values in by_prompt.values():
        known = [value for value in values if math.isfinite(value)]
        scores.append(math.fsum(known) / len(known) if known else math.nan)
    lengths = [np.array([len(one.response) for one in of], float) for of in (items, theirs)]
    counted = [one for one in items if one.log_likelihood is not None and one.tokens]
    tokens = sum(len(one.tokens or []) for one in counted)
    log_p = math.fsum(one.log_likelihood or 0.0 for one in counted)
    return Verdict(
        judge,
        method,
        against,
        wins,
        ties,
        losses,
        mean,
        int(np.sum(~np.isfinite(margin))),
        tuple(scores),
        float(lengths[0].mean()),
        _exp(-log_p / tokens) if tokens else None,
        length_controlled(point, lengths[0] - lengths[1]),
    )


def _exp(x: float) -> float | None:
    return math.exp(x) if x < 700 else None


def compare(judge: str, method: str, against: str, ours: Any, theirs: Any) -> Verdict:
    """One method against another, prompt by prompt.

    Args:
        judge, method, against: their names.
        ours, theirs: the judge's scores of the method and of the other ``[prompts]``.
    """
    margin = np.asarray(ours) - np.asarray(theirs)
    wins, ties, losses = (int(np.sum(found)) for found in (margin > 0, margin == 0, margin < 0))
    return Verdict(judge, method, against, wins, ties, losses, float(np.mean(ours)))


def paired(verdicts: Sequence[Verdict]) -> list[Paired]:
    """The differences between methods that were judged against the same responses."""
    found = []
    for i, one in enumerate(verdicts):
        for other in verdicts[i + 1 :]:
            if (one.judge, one.against) != (other.judge, other.against):
                continue
            apart = np.asarray(one.scores) - np.asarray(other.scores)
            apart = apart[np.isfinite(apart)]
            if len(apart):
                p = _sign_test(int(np.sum(apart > 0)), int(np.sum(apart < 0)))
                difference = float(np.mean(apart))
                found.append(Paired(one.judge, one.method, other.method, difference, p))
    return found


def _sign_test(better: int, worse: int) -> float:
    """The p-value of no difference; McNemar's exact test where there are no ties."""
    from scipy.stats import binomtest

    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def length_controlled(points: Any, longer: Any) -> float | None:
    """The win rate at equal length, by a logistic regression (Dubois et al., 2024).

    P(win) = sigmoid(theta + phi tanh(d / s)), d how much longer the response is than the other in
    characters, s the standard deviation of d; the rate is sigmoid(theta). Their model also has the
    difficulty of each instruction, which takes many methods to fit, and is left out here. A weak
    prior (0.01 phi^2) keeps phi finite where length decides everything.

    Args:
        points: 1, 1/2 or 0 for each response; NaN is left out.
        longer: d of each.
    """
    from scipy.optimize import minimize

    points, longer = np.asarray(points, float), np.asarray(longer, float)
    known = np.isfinite(points)
    points, longer = points[known], longer[known]
    if not len(points):
        return None
    spread = longer.std()
    x = np.tanh(longer / spread) if spread > 0 else np.zeros_like(longer)

    def loss(at: Any) -> float:
        z = at[0] + at[1] * x
        fit = np.logaddexp(0, z) - points * z
        return float(fit.mean() + 0.01 * at[1] ** 2 + 1e-6 * at[0] ** 2)

    theta = minimize(loss, np.zeros(2)).x[0]
    return float(1 / (1 + math.exp(-theta)))


# --- asking -------------------------------------------------------------------------------------


def is_pairwise(judge: Judge) -> bool:
    """Whether a judge compares two responses: it takes three arguments, or has `pairs`."""
    return hasattr(judge, "pairs") or len(_parameters(judge)) >= 3


def _parameters(function: Judge) -> list[str]:
    """The names of the arguments that must be given; none where they cannot be told."""
    try:
        known = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in known if one.kind in kinds and one.default is one.empty]


def takes_one(judge: Judge) -> bool:
    """Whether a function is called for one item: its first argument is named "prompt"."""
    return _parameters(judge)[:1] == ["prompt"]


def _again(call: Callable[[], Any], retries: int, pause: float = 0.5) -> Any:
    """What a call gives, tried again after a growing pause when it raises."""
    for attempt in range(retries + 1):
        try:
            return call()
        except VGFError:
            raise
        except Exception:
            if attempt == retries:
                raise
            time.sleep(pause * 2**attempt)
    raise AssertionError("unreachable")


def _asked(judge: Judge, name: str, columns: Sequence[Sequence[str]], retries: int) -> Any:
    """A number for each row; NaN where a function that takes one item fails."""
    rows = list(zip(*columns, strict=True))
    if not takes_one(judge):
        try:
            return _again(lambda: judge(*map(list, columns)), retries)
        except VGFError:
            raise
        except Exception as error:
            raise VGFError(f"judge {name} raised {short_error(error)}") from error
    found: list[float] = []
    problem = None
    for row in rows:
        try:
            found.append(float(_again(functools.partial(judge, *row), retries)))
        except Exception as error:
            problem = error
            found.append(math.nan)
    if problem is not None and not np.isfinite(found).any():
        raise VGFError(f"judge {name} raised {short_error(problem)}") from problem
    return found


def _scores(judge: Judge, name: str, items: Sequence[Item], retries: int) -> Any:
    """The scores of some responses; NaN where one is missing."""
    if hasattr(judge, "items"):
        return np.asarray(judge.items(items), dtype=np.float64)
    columns = [one.prompt for one in items], [one.response for one in items]
    found = _numbers(_asked(judge, name, columns, retries), name, "response")
    wrong = found.shape != (len(items),) or not (takes_one(judge) or np.isfinite(found).all())
    if wrong:
        raise VGFError(
            f"judge {name} must give one finite number for each of {len(items)} responses; it "
            f"gave shape {list(found.shape)}, {int(np.isfinite(found).sum())} of them finite"
        )
    return found


def _numbers(values: Any, name: str, what: str) -> Any:
    """What a judge gave, as numbers.

    Raises:
        VGFError: it is something else.
    """
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        text = " ".join(repr(values).split())[:80]
        raise VGFError(
            f"judge {name} must give a number for each {what}; it gave {text}"
        ) from error


def _both_orders(
    judge: Judge, name: str, ours: Sequence[Item], theirs: Sequence[Item], retries: int
) -> Any:
    """+1, 0 or -1 for each pair: the judge's word where both orders agree, and a tie elsewhere."""
    prompts = [one.prompt for one in ours]
    a, b = ([one.response for one in of] for of in (ours, theirs))
    if hasattr(judge, "pairs"):
        forth, back = judge.pairs([*prompts, *prompts], [*a, *b], [*b, *a])
    else:
        forth, back = (_asked(judge, name, (prompts, *of), retries) for of in ((a, b), (b, a)))
    forth, back = (np.sign(_numbers(x, name, "pair")) for x in (forth, back))
    if forth.shape != (len(ours),) or back.shape != forth.shape:
        raise VGFError(f"judge {name} must give one number for each of {len(ours)} pairs")
    agreed = np.where(forth == -back, forth, 0.0)
    return np.where(np.isfinite(forth) & np.isfinite(back), agreed, np.nan)


def load_judge(
    place: str,
    device: str = "auto",
    dtype: str | None = None,
    pad_token: str | None = None,
    batch_tokens: int = 4096,
    rm_label: str | None = None,
    only: bool = True,
    **endpoint: Any,
) -> Judge:
    """A judge by its name.

    Args:
        place: "vader" (how positive a text is, by the package vaderSentiment); "openai:MODEL", an
            OpenAI-compatible endpoint that compares two responses; MODULE:FUNCTION or
            path/to/file.py:FUNCTION; or a reward model's folder or name. A function takes the
            lists of prompts and of responses, or one of each if its first argument is named
            "prompt"; a third argument makes it compare two responses.
        device, dtype, pad_token, batch_tokens, rm_label: of a reward model, as in
            :class:`vgf.text.AlignSettings`.
        only: whether there is no other judge, so that `rm_label` must be of this one; else one
            output needs none.
        endpoint: of an endpoint, see :class:`vgf.text.endpoint.Endpoint`.

    Raises:
        VGFError: it cannot be loaded.
    """
    if place == VADER:
        return _vader()
    if place.startswith(OPENAI):
        from .endpoint import Endpoint

        return Endpoint(place.removeprefix(OPENAI), **endpoint)
    if ":" in place and not Path(place).exists():
        found: Judge = load_function(place)
        return found
    for module in ("torch", "transformers"):
        need(module, "text")
    return RewardJudge(place, device, dtype, pad_token, batch_tokens, rm_label, only)


def _vader() -> Judge:
    try:
        analyser = need("vaderSentiment.vaderSentiment", "text").SentimentIntensityAnalyzer()
    except VGFError as error:
        raise VGFError("judge 'vader' needs a package: pip install vaderSentiment") from error
    return lambda prompts, responses: [
        analyser.polarity_scores(prompt + response)["compound"]
        for prompt, response in zip(prompts, responses, strict=True)
    ]


class RewardJudge:
    """A reward model as a judge: it reads what `vgf align` would let it read.

    Responses of its own tokens are read by their tokens and their end, others by their text.
    """

    def __init__(
        self,
        place: str,
        device: str,
        dtype: str | None,
        pad_token: str | None,
        batch_tokens: int,
        label: str | None = None,
        only: bool = True,
    ) -> None:
        from .models import check_head, load_reward_model, load_tokenizer
        from .reading import Reader
        from .reward import RewardModel

        tokenizer = load_tokenizer(place, pad_token, padded=False)
        model = load_reward_model(place, device, dtype, label, only)
        head = check_head(model, place, label, only)
        self.label = label if head is not None or only else None
        self.place, self.batch_tokens = place, batch_tokens
        self.reward = RewardModel(model, len(tokenizer), head)
        self.reader = Reader(tokenizer, tokenizer)
        self.vocabulary = vocabulary_name(tokenizer)
        self.ordinary = set(ordinary(tokenizer).values())

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """The rewards of texts."""
        pairs = zip(prompts, responses, strict=True)
        found = self.items([Item(prompt, response) for prompt, response in pairs])
        absent = [i for i, value in enumerate(found) if not math.isfinite(value)]
        if absent:
            raise VGFError(f"{self.place}: response {absent[0] + 1} is too long to be judged")
        return found

    def items(self, items: Sequence[Item]) -> list[float]:
        """The rewards of responses; NaN for one that is too long."""
        from .language import portions

        rows = [self._row(item) for item in items]
        empty = next((i for i, row in enumerate(rows) if not row), None)
        if empty is not None:
            raise VGFError(
                f"{self.place}: prompt and response {empty + 1} are empty: nothing to judge"
            )
        read_at = items[0].reward_token if items else None
        reward = replace(self.reward, reward_token=read_at) if read_at else self.reward
        most = reward.limit or math.inf
        left = [i for i, row in enumerate(rows) if len(row) <= most]
        found = [math.nan] * len(rows)
        for part in portions([len(rows[i]) for i in left], self.batch_tokens):
            values = reward.rewards([rows[i] for i in left[part]]).tolist()
            for i, value in zip(left[part], values, strict=True):
                found[i] = value
        return found

    def _row(self, item: Item) -> list[int]:
        if item.tokens is None or item.prompt_tokens is None or item.vocabulary != self.vocabulary:
            return self.reader.by_text(item.content, item.response).row
        if not isinstance(item.content, str) and not self._knows(item):
            return self.reader.by_text(item.content, item.response).row
        tokens = list(item.tokens)
        movable, end = (tokens, []) if item.end is None else (tokens[:-1], tokens[-1:])
        known = item.end is not None and self.reader.vocabulary.get(item.end) == tokens[-1]
        each = [(movable, end if known else [])]
        return self.reader.by_tokens(item.content, item.prompt_tokens, each)[0].row

    def _knows(self, item: Item) -> bool:
        """Whether it has the special and added tokens of a conversation under their numbers."""
        if has_template(self.reader.tokenizer):
            return True  # it says them itself
        if item.special is not None:
            return all(self.reader.vocabulary.get(text) == i for text, i in item.special.items())
        return set(item.prompt_tokens or ()) <= self.ordinary


def by_judge(verdicts: Sequence[Verdict]) -> Iterator[tuple[str, list[Verdict]]]:
    """The verdicts of each judge, in their order."""
    for name in dict.fromkeys(verdict.judge for verdict in verdicts):
        yield name, [verdict for verdict in verdicts if verdict.judge == name]
