"""Win rates: responses of `vgf align`, scored by judges that had no part in making them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..support.errors import VGFError
from ..support.extras import need
from ..support.objects import load_function
from ..support.progress import progress
from ..support.rows import read_lines
from ..support.statistics import wilson

# Prompts and responses -> a score for each, the higher the better
Judge = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
VADER = "vader"
BASE, BEST_OF_N = "base", "best_of_n"


@dataclass(frozen=True)
class Verdict:
    """One method against another, by one judge.

    Attributes:
        judge, method, against: their names.
        wins, ties, losses: numbers of prompts.
        mean: of the method's scores.
    """

    judge: str
    method: str
    against: str
    wins: int
    ties: int
    losses: int
    mean: float

    @property
    def rate(self) -> float | None:
        """Wins among the prompts without a tie; None if all are ties."""
        decided = self.wins + self.losses
        return self.wins / decided if decided else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the rate."""
        return None if self.rate is None else wilson(self.wins, self.wins + self.losses)


def methods(path: Path | str) -> tuple[list[str], dict[str, list[str]]]:
    """The prompts in a file that `vgf align` wrote, and the responses of each method.

    "base" is the first sample, "best_of_n" the best of them, "L=5" the chosen response of a budget.

    Raises:
        VGFError: no such file, a damaged line, or one that is not vgf align's.
    """
    prompts: list[str] = []
    found: dict[str, list[str]] = {}
    lines = read_lines(path)
    if not lines:
        raise VGFError(f"{path}: holds no line")
    for number, row in enumerate(lines, 1):
        try:
            own = {BASE: row["samples"][0]["response"], BEST_OF_N: row["best_of_n"]["response"]}
            own |= {f"L={part['steps']}": part["response"] for part in row["budgets"]}
            prompts.append(row["prompt"])
        except (KeyError, IndexError, TypeError) as error:
            raise VGFError(f"{path}: line {number} was not written by vgf align") from error
        if found and own.keys() != found.keys():
            raise VGFError(f"{path}: line {number} has other budgets than the lines before it")
        for name, response in own.items():
            found.setdefault(name, []).append(response)
    return prompts, found


def judge(path: Path | str, judges: dict[str, Judge], against: str = BASE) -> list[Verdict]:
    """Score a file's responses and compare every method with one of them.

    Args:
        path: what `vgf align` wrote.
        judges: by name, see :func:`load_judge`.
        against: the method that the others are compared with: "base", "best_of_n", "L=0", ...

    Raises:
        VGFError: as :func:`methods`; an unknown method; a judge that does not give one finite
            number for each response.
    """
    prompts, responses = methods(path)
    if against not in responses:
        raise VGFError(f"{path} has no {against!r}; it has {', '.join(responses)}")
    verdicts = []
    with progress(len(judges) * len(responses) * len(prompts), "judging", "response") as bar:
        for name, score in judges.items():
            values = {}
            for method, texts in responses.items():
                values[method] = _scores(score, name, prompts, texts)
                bar.update(len(prompts))
            for method in responses:
                if method != against:
                    verdicts.append(compare(name, method, against, values[method], values[against]))
    return verdicts


def compare(judge: str, method: str, against: str, ours: Any, theirs: Any) -> Verdict:
    """One method against another, prompt by prompt.

    Args:
        judge, method, against: their names.
        ours, theirs: the judge's scores of the method and of the other ``[prompts]``.
    """
    margin = np.asarray(ours) - np.asarray(theirs)
    wins, ties, losses = (int(np.sum(found)) for found in (margin > 0, margin == 0, margin < 0))
    return Verdict(judge, method, against, wins, ties, losses, float(np.mean(ours)))


def _scores(score: Judge, name: str, prompts: list[str], responses: list[str]) -> Any:
    found = np.asarray(score(prompts, responses), dtype=np.float64)
    if found.shape != (len(prompts),) or not np.isfinite(found).all():
        raise VGFError(
            f"judge {name} must give one finite number for each of {len(prompts)} responses; it "
            f"gave shape {list(found.shape)}, {int(np.isfinite(found).sum())} of them finite"
        )
    return found


def load_judge(
    place: str,
    device: str = "auto",
    dtype: str | None = None,
    pad_token: str | None = None,
    batch_tokens: int = 4096,
) -> Judge:
    """A judge by its name.

    Args:
        place: "vader" (how positive a text is, by the package vaderSentiment); MODULE:FUNCTION or
            path/to/file.py:FUNCTION, called with the lists of prompts and of responses; or a
            reward model's folder or name.
        device, dtype, pad_token, batch_tokens: of a reward model, as in
            :class:`vgf.text.AlignSettings`.

    Raises:
        VGFError: it cannot be loaded.
    """
    if place == VADER:
        return _vader()
    if ":" in place and not Path(place).exists():
        found: Judge = load_function(place)
        return found
    for module in ("torch", "transformers"):
        need(module, "text")
    return _reward_model(place, device, dtype, pad_token, batch_tokens)


def _vader() -> Judge:
    try:
        analyser = need("vaderSentiment.vaderSentiment", "text").SentimentIntensityAnalyzer()
    except VGFError as error:
        raise VGFError("judge 'vader' needs a package: pip install vaderSentiment") from error
    return lambda prompts, responses: [
        analyser.polarity_scores(prompt + response)["compound"]
        for prompt, response in zip(prompts, responses, strict=True)
    ]


def _reward_model(
    place: str, device: str, dtype: str | None, pad_token: str | None, batch_tokens: int
) -> Judge:
    from .language import portions
    from .models import load_reward_model, load_tokenizer
    from .reward import RewardModel

    tokenizer = load_tokenizer(place, pad_token)
    model = RewardModel(load_reward_model(place, device, dtype), len(tokenizer))

    def score(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        texts = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
        rows = [list(tokenizer(text)["input_ids"]) for text in texts]
        empty = next((i for i, row in enumerate(rows) if not row), None)
        if empty is not None:
            raise VGFError(f"{place}: prompt and response {empty + 1} are empty: nothing to judge")
        found: list[float] = []
        for part in portions([len(row) for row in rows], batch_tokens):
            found += model.rewards(rows[part]).tolist()
        return found

    return score
