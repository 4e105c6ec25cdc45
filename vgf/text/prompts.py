"""Prompts as users have them: plain text, or the turns of a conversation, with fields of their own.

A prompt's content is a text, or a list of turns ``{"role": ..., "content": ...}`` as in Hugging
Face's chat templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..support.errors import VGFError
from ..support.files import check_fetched, expanded, is_text, parse_json

Turns = list[dict[str, Any]]
Content = str | Turns

REFERENCE = "reference"
# The names of a record's own parts; fields of these names in a prompt's line are kept in "input"
NAMES = (
    *("index", "prompt", "prompts", "given", "response", "reward", "samples", "best_of_n"),
    *("budgets", "decoding_weight", "step_size", "prompt_tokens", "special", "vocabulary"),
    *("seconds", "config", "settings", "error", "input"),
)


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        content: a text, or turns.
        fields: what else its line holds, such as "id" or "reference".
    """

    content: Content
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_chat(self) -> bool:
        return not isinstance(self.content, str)


def as_prompt(value: str | Sequence[Any] | Mapping[str, Any] | Prompt, where: str) -> Prompt:
    """A prompt from a text, a list of turns, or a row that holds "prompt" or "messages".

    "messages" that end with the assistant's turn are a prompt and its reference.

    Args:
        value: as above.
        where: its name, for the messages.

    Raises:
        VGFError: it is none of these.
    """
    if isinstance(value, Prompt):
        return value
    prompt = _as_prompt(value, where)
    for said in [prompt.content] if isinstance(prompt.content, str) else prompt.content:
        text = said if isinstance(said, str) else turn_text(said)
        if not is_text(text):
            raise VGFError(
                f"{where} holds half of a surrogate pair, \\ud800 to \\udfff, which is no "
                "character; write the text anew as UTF-8"
            )
    return prompt


def _as_prompt(value: str | Sequence[Any] | Mapping[str, Any], where: str) -> Prompt:
    if isinstance(value, str):
        return Prompt(value)
    if not isinstance(value, Mapping):
        return Prompt(_turns(value, where))
    if ("prompt" in value) == ("messages" in value):
        raise VGFError(
            f'{where} has both "prompt" and "messages"; drop one'
            if "prompt" in value
            else f'{where} has no text "prompt", as in {{"prompt": "..."}}, and no "messages"'
        )
    fields = {name: x for name, x in value.items() if name not in ("prompt", "messages")}
    if "messages" in value:
        turns = _turns(value["messages"], where)
        if turns[-1]["role"] == "assistant":
            fields.setdefault(REFERENCE, turn_text(turns.pop()))
            if not turns:
                raise VGFError(f'{where}: "messages" hold only the assistant\'s turn')
        return Prompt(turns, fields)
    content = value["prompt"]
    if isinstance(content, str):
        return Prompt(content, fields)
    if not isinstance(content, list):
        raise VGFError(f'{where} has no text "prompt", as in {{"prompt": "..."}}, and no turns')
    turns = _turns(content, where)
    if turns[-1]["role"] == "assistant":
        raise VGFError(f'{where}: the last turn of "prompt" is the assistant\'s; drop it')
    return Prompt(turns, fields)


def _turns(value: Any, where: str) -> Turns:
    turns = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    good = [
        isinstance(turn, Mapping)
        and isinstance(turn.get("role"), str)
        and (
            isinstance(turn.get("content"), str)
            or (isinstance(turn.get("content"), list) and all(map(_is_said, turn["content"])))
        )
        for turn in turns
    ]
    if not turns or not all(good):
        raise VGFError(
            f'{where}: turns must be a list of {{"role": "user", "content": "..."}}, the content '
            "a text or parts of text; "
            + ("it is empty" if not turns else f"turn {good.index(False) + 1} is not one")
        )
    return [dict(turn) for turn in turns]


def _is_said(part: Any) -> bool:
    """Whether a part of a turn's content is text."""
    return isinstance(part, str) or (
        isinstance(part, Mapping)
        and part.get("type", "text") == "text"
        and isinstance(part.get("text"), str)
    )


def read_rows(path: Path | str) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with the numbers of their lines; empty lines are left out.

    The file is UTF-8, with or without a byte order mark, its lines ended by LF or CRLF.

    Raises:
        VGFError: no such file, or a line that is no JSON object.
    """
    check_fetched(path)
    try:
        text = expanded(path).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise VGFError(f"{path}: cannot be read: {reason}") from error
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise VGFError(f"{path}: line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise VGFError(f'{path}: line {number} has no text "prompt", as in {{"prompt": "..."}}')
        rows.append((number, row))
    return rows


def read_prompts(path: Path | str) -> list[Prompt]:
    """The prompts of a JSONL file, one object with "prompt" or "messages" a line.

    "prompt" is a text or a list of turns.

    Raises:
        VGFError: as :func:`read_rows`; a line without a prompt, or no line at all.
    """
    prompts = [as_prompt(row, f"{path}: line {number}") for number, row in read_rows(path)]
    if not prompts:
        raise VGFError(f"{path}: holds no prompt")
    return prompts


def with_system(prompt: Prompt, text: str) -> Prompt:
    """A conversation that begins with this system prompt, unless it has one of its own."""
    if isinstance(prompt.content, str) or prompt.content[0]["role"] == "system":
        return prompt
    return Prompt([{"role": "system", "content": text}, *prompt.content], prompt.fields)


def plain_text(content: Content) -> str:
    """A prompt as text, for judges without a chat template.

    One user's turn is its content. Several turns are named, as in "User: ...", and end with
    "Assistant:".
    """
    if isinstance(content, str):
        return content
    said = [(turn["role"], turn_text(turn)) for turn in content]
    users = [text for role, text in said if role != "system"]
    if len(users) == 1:
        return "\n\n".join(text for _, text in said)
    return "\n\n".join([*(f"{role.capitalize()}: {text}" for role, text in said), "Assistant:"])


def turn_text(turn: Mapping[str, Any]) -> str:
    """The text of a turn, whose content may come in parts."""
    content = turn["content"]
    if isinstance(content, str):
        return content
    return "".join(part if isinstance(part, str) else str(part["text"]) for part in content)


def shard(count: int, name: str | None) -> list[int]:
    """The indices of one of n shards: "2/4" has those that leave 1 when divided by 4.

    Raises:
        VGFError: it is not written i/n with 1 <= i <= n.
    """
    if name is None:
        return list(range(count))
    first, slash, last = name.partition("/")
    if not (slash and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise VGFError(f"--shard is {name!r}; write i/n, from 1/n to n/n")
    return list(range(int(first) - 1, count, int(last)))
