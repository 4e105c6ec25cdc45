"""A language model behind an OpenAI-compatible endpoint, as a judge that compares two responses.

The endpoint is reached through the package `openai`, and its answers are kept on disk by
`diskcache`, so that a job that was stopped goes on without asking again:
``pip install 'vgf[judge]'``.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import random
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import cache_folder, expanded

# The questions of the paper's protocol, Rafailov et al. (2023), appendix C.2
PROMPTS = {
    "tldr": (
        "Which of the following summaries does a better job of summarizing the most important "
        "points in the given forum post, without including unimportant or irrelevant details? A "
        "good summary is both precise and concise.\n\nPost:\n{prompt}\n\nSummary A:\n{a}\n\n"
        "Summary B:\n{b}\n\nFIRST provide a one-sentence comparison of the two summaries, "
        'explaining which you prefer and why. SECOND, on a new line, state only "A" or "B" to '
        "indicate your choice. Your response should use the format:\nComparison: <one-sentence "
        'comparison and explanation>\nPreferred: <"A" or "B">'
    ),
    "hh": (
        "For the following query to a chatbot, which response is more helpful?\n\nQuery: {prompt}"
        "\n\nResponse A:\n{a}\n\nResponse B:\n{b}\n\nFIRST provide a one-sentence comparison of "
        "the two responses and explain which you feel is more helpful. SECOND, on a new line, "
        'state only "A" or "B" to indicate which response is more helpful. Your response '
        "should use the format:\nComparison: <one-sentence comparison and explanation>\n"
        'More helpful: <"A" or "B">'
    ),
}
_WORDS = {"A": 1.0, "B": -1.0, "TIE": 0.0, "C": 0.0, "NEITHER": 0.0, "EQUAL": 0.0}
_NAMED = re.compile(
    r"(?:preferred|more helpful|better|choice|verdict|answer)\W*:(.*)", re.IGNORECASE
)
_TIES = {"tie", "tied", "neither", "equal", "equally", "both", "same"}
_BEGINS = re.compile(r"\W*(?:(?:summary|response|option|answer)\s+)?([ABC])\b", re.IGNORECASE)
_GOES_ON = re.compile(r"\W*$|\s*(?:[,.;:(-]|(?:because|since|as|over|is)\b)")  # with a reason
_LONGEST_PAUSE = 60.0
_LONGEST_ANSWER = 2**20  # bytes
_AGAIN = (408, 409, 429)  # and from 500 on: statuses of requests to be sent again
_UNSUITED = (400, 413, 422)  # of requests that are refused for what they ask


class Endpoint:
    """A model that says which of two responses is better.

    Args:
        model: its name.
        url: of the endpoint, such as http://127.0.0.1:8000/v1; None is OPENAI_BASE_URL, or
            OpenAI's own. The key is read from OPENAI_API_KEY.
        question: "tldr", "hh", or a text file with {prompt}, {a} and {b} in it.
        calls: the most requests to be sent, retries included; None is no limit.
        cache: folder of answers; None is one in `vgf.support.files.cache_folder`.
        timeout: seconds until a request's answer begins, and again until it ends.
        retries: how often a request that fails, or an answer that says neither A nor B, is asked
            again, after a pause that doubles, or that the endpoint asks for.
        workers: requests at a time.
        pause: seconds, the first one.

    Raises:
        VGFError: a package that is missing, a question without its three places, a number out of
            its range, or a cache that is no folder.
    """

    def __init__(
        self,
        model: str,
        url: str | None = None,
        question: str = "tldr",
        calls: int | None = None,
        cache: Path | str | None = None,
        timeout: float = 60.0,
        retries: int = 5,
        workers: int = 8,
        pause: float = 1.0,
    ) -> None:
        for name, value, least in (
            ("--judge-workers", workers, 1),
            ("--retries", retries, 0),
            ("--judge-calls", math.inf if calls is None else calls, 0),
        ):
            if value < least:
                raise VGFError(f"{name} is {value}; it must be at least {least}")
        if not timeout > 0:
            raise VGFError(f"--judge-timeout is {timeout}; it must be above 0, in seconds")
        self.openai = need("openai", "judge")
        diskcache = need("diskcache", "judge")
        self.model, self.question = model, _question(question)
        self.calls, self.retries, self.workers, self.pause = calls, retries, workers, pause
        self.url = url or os.environ.get("OPENAI_BASE_URL")
        self.client = self.openai.OpenAI(
            base_url=self.url,
            api_key=os.environ.get("OPENAI_API_KEY") or "none",
            timeout=timeout,
            max_retries=0,  # counted here, against the limit
            http_client=_bounded_client(self.openai, timeout),
        )
        folder = cache_folder() / "judgements" if cache is None else expanded(cache)
        try:
            self.cache = diskcache.Cache(str(folder), disk=diskcache.JSONDisk)
        except (OSError, sqlite3.Error) as error:
            raise VGFError(
                f"{folder} cannot hold the judge's answers: {error}; give a folder with "
                "--judge-cache"
            ) from error
        self.sent = 0  # requests
        self.answered = False  # whether there was an answer
        self.limited = False  # whether the limit on requests was reached
        self.problem: Exception | None = None
        self._lock = threading.Lock()

    def pairs(
        self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
    ) -> tuple[list[float], list[float]]:
        """1 where the first is better, -1 where the second is, 0 for a tie, NaN for no answer.

        Args:
            prompts, first, second: of as many pairs in one order, and then in the other.

        Returns:
            The answers of both halves.

        Raises:
            VGFError: the endpoint refuses the requests, or answers none.
        """
        rows = list(zip(prompts, first, second, strict=True))
        with ThreadPoolExecutor(self.workers) as pool:
            found = list(pool.map(self._one, rows))
        if rows and all(map(math.isnan, found)) and self.problem and not self.limited:
            text = " ".join(str(self.problem).split())[:300]
            where = self.url or "OpenAI"
            raise VGFError(f"the judge {self.model} at {where} gave no answer: {text}")
        half = len(found) // 2
        return found[:half], found[half:]

    def _one(self, row: tuple[str, str, str]) -> float:
        prompt, a, b = row
        values = {"prompt": prompt.strip(), "a": a.strip(), "b": b.strip()}
        text = re.sub(r"\{(prompt|a|b)\}", lambda found: values[found[1]], self.question)
        key = hashlib.sha256(json.dumps([self.url, self.model, text]).encode()).hexdigest()
        kept = self.cache.get(key)
        if isinstance(kept, str) and (value := read_answer(kept)) is not None:
            return value
        for attempt in range(self.retries + 1):
            with self._lock:
                if self.calls is not None and self.sent >= self.calls:
                    self.limited = True
                    return math.nan
                self.sent += 1
            try:
                answer = self._ask(text)
            except self.openai.APIStatusError as error:
                self.problem = error
                if error.status_code in _AGAIN or error.status_code >= 500:
                    if attempt < self.retries:
                        time.sleep(self._wait(attempt, error))
                    continue
                if self.answered and error.status_code in _UNSUITED:
                    return math.nan  # this question alone, such as one too long or filtered
                message = " ".join(str(error).split())[:300]
                raise VGFError(f"the judge {self.model} refuses the request: {message}") from error
            except self.openai.APIConnectionError as error:  # a timeout is one
                self.problem = error
                if attempt < self.retries:
                    time.sleep(self._wait(attempt, error))
                continue
            except self.openai.OpenAIError as error:  # no JSON, or none of the expected shape
                self.problem = error
                continue
            self.answered = True
            if (value := read_answer(answer)) is not None:
                self.cache.set(key, answer)
                return value
            self.problem = ValueError(f"an answer that is neither A nor B: {answer[:80]!r}")
        return math.nan

    def _ask(self, text: str) -> str:
        try:
            found = self.client.chat.completions.create(
                model=self.model, messages=[{"role": "user", "content": text}], temperature=0.0
            )
            content = found.choices[0].message.content
            return content if isinstance(content, str) else ""
        except (ValueError, AttributeError, LookupError, TypeError, RecursionError):
            return ""  # no JSON, or none of the expected shape

    def _wait(self, attempt: int, error: Any) -> float:
        """Seconds before the next try: what the endpoint asks for, or a pause that doubles."""
        response = getattr(error, "response", None)
        asked = response.headers.get("retry-after", "") if response is not None else ""
        try:
            seconds = float(asked)
        except ValueError:
            seconds = math.nan
        if seconds >= 0:
            return min(seconds, _LONGEST_PAUSE)
        return min(self.pause * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1.0)


def _bounded_client(openai: Any, timeout: float) -> Any:
    """The package's own client, whose answers have to end in time and be no longer than they may.

    It bounds the time between two parts of an answer, and not their number.
    """
    client = openai.DefaultHttpxClient
    httpx = importlib.import_module(client.__mro__[1].__module__.partition(".")[0])

    class Parts(httpx.SyncByteStream):  # type: ignore[name-defined]
        def __init__(self, response: Any) -> None:
            self.stream, self.request = response.stream, response.request
            self.until = time.monotonic() + timeout

        def __iter__(self) -> Iterator[bytes]:
            length = 0
            for part in self.stream:
                length += len(part)
                if time.monotonic() > self.until:
                    raise httpx.ReadTimeout("the answer did not end in time", request=self.request)
                if length > _LONGEST_ANSWER:
                    raise httpx.ReadError("the answer is too long", request=self.request)
                yield part

        def close(self) -> None:
            self.stream.close()

    def bound(response: Any) -> None:
        response.stream = Parts(response)

    return client(event_hooks={"response": [bound]})


def read_answer(text: str) -> float | None:
    """What an answer says: 1 for A, -1 for B, 0 for a tie; None for anything else.

    The last line alone, or what stands after "Preferred:" or the like, the last of them.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    last = re.sub(r"\W", "", lines[-1]).upper() if lines else ""
    if last in _WORDS:
        return _WORDS[last]
    for line in reversed(lines):
        if named := _NAMED.search(line):
            return _choice(named[1])
    return _choice(lines[-1]) if lines and len(lines[-1].split()) <= 3 else None


def _choice(text: str) -> float | None:
    """What a few words choose; None where they name both, as in "A or B"."""
    words = re.findall(r"[A-Za-z]+", text)
    named = {word for word in words if word in ("A", "B", "C")}
    if named in (set(), {"A", "B"}) and _TIES & {word.lower() for word in words}:
        return 0.0
    begun = _BEGINS.match(text)
    if begun is None:
        return None
    alone = named == {begun[1]} or (not named and len(words) <= 2)
    clear = alone or (begun[1] in named and _GOES_ON.match(text[begun.end() :]))
    return _WORDS[begun[1].upper()] if clear else None


def _question(name: str) -> str:
    if name in PROMPTS:
        return PROMPTS[name]
    place = expanded(name)
    try:
        text = place.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise VGFError(
            f"--judge-prompt is {name!r}; choose {', '.join(PROMPTS)}, or a text file"
        ) from error
    for part in ("{prompt}", "{a}", "{b}"):
        if part not in text:
            raise VGFError(f"{place}: the judge's question has no {part}")
    return text
