"""Texts and conversations as tokens, and tokens as text.

What stands around a text (a beginning of sequence, [CLS], [SEP]) is the tokenizer's own. Nothing is
put between a prompt and its response: what the tokenizer adds after a text comes after the
response. Conversations go through the tokenizer's chat template, and get nothing besides.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..support.errors import VGFError
from .prompts import Content, Turns, plain_text, turn_text

# Stands in for the response while a chat template is applied
_PLACE = "Vgfresponse"


def as_list(value: Any) -> list[int]:
    """Token ids given as none, one, or several."""
    if value is None:
        return []
    return [int(x) for x in value] if isinstance(value, Iterable) else [int(value)]


def special_ids(tokenizer: Any) -> set[int]:
    """Every token that is marked special, named by an attribute of the tokenizer or not."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}


def _apart(tokenizer: Any) -> set[int]:
    """The special and the added tokens."""
    return special_ids(tokenizer) | set(getattr(tokenizer, "added_tokens_decoder", {}))


def marked_tokens(tokenizer: Any, tokens: Iterable[int]) -> dict[str, int]:
    """The special and added tokens among some tokens, by their text."""
    found = sorted(_apart(tokenizer).intersection(tokens))
    return {str(tokenizer.convert_ids_to_tokens(i)): i for i in found}


def stop_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end a response, the tokenizer's own first.

    The union of the tokenizer's `eos_token_id` and the generation configuration's.

    Raises:
        VGFError: one of them is no number.
    """
    generation = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    try:
        found = as_list(tokenizer.eos_token_id) + as_list(generation)
    except (TypeError, ValueError) as error:
        raise VGFError(
            f"the generation configuration's eos_token_id is {generation!r}; it must be a token's "
            "number, or a list of them"
        ) from error
    return tuple(dict.fromkeys(i for i in found if i >= 0))


def ordinary(tokenizer: Any) -> dict[str, int]:
    """The vocabulary without special and added tokens."""
    apart = _apart(tokenizer)
    return {token: i for token, i in tokenizer.get_vocab().items() if i not in apart}


def differences(ours: Any, theirs: Any) -> list[str]:
    """The tokens that tell two tokenizers apart, special and added ones of either left out."""
    plain = ordinary(ours), ordinary(theirs)
    marked = (set(ours.get_vocab()) - set(plain[0])) | (set(theirs.get_vocab()) - set(plain[1]))
    return sorted(
        token
        for token in {*plain[0], *plain[1]} - marked
        if plain[0].get(token) != plain[1].get(token)
    )


def vocabulary_name(tokenizer: Any) -> str:
    """A short name for the ordinary vocabulary."""
    rows = sorted(ordinary(tokenizer).items(), key=lambda row: row[1])
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


def encode(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text alone."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and after a text."""
    probe = "a"
    whole, own = list(tokenizer(probe)["input_ids"]), encode(tokenizer, probe)
    for start in range(len(whole) - len(own) + 1):
        if own and whole[start : start + len(own)] == own:
            return whole[:start], whole[start + len(own) :]
    return [], []


def encode_plain(tokenizer: Any, text: str) -> list[int]:
    """A text's tokens after what stands before it, which is not said twice."""
    before, own = frame(tokenizer)[0], encode(tokenizer, text)
    return own if before and own[: len(before)] == before else before + own


def added_text(tokenizer: Any, prompt: Sequence[int], response: Sequence[int]) -> str:
    """What a response adds to the text of its prompt, special tokens left out."""
    prompt, response = list(prompt), list(response)
    before = tokenizer.decode(prompt, skip_special_tokens=True)
    both = tokenizer.decode(prompt + response, skip_special_tokens=True)
    pairs = enumerate(zip(before, both, strict=False))
    same = next((i for i, (x, y) in pairs if x != y), min(len(before), len(both)))
    return str(both[same:])


def character_spans(
    tokenizer: Any, prompt: Sequence[int], response: Sequence[int]
) -> list[tuple[int, int]]:
    """Where each token of a response begins and ends in the text that the response adds."""
    ends = [0]
    for t in range(1, len(response) + 1):
        text = added_text(tokenizer, prompt, response[:t]).rstrip("\N{REPLACEMENT CHARACTER}")
        ends.append(max(ends[-1], len(text)))
    return list(itertools.pairwise(ends))


@dataclass(frozen=True)
class Frame:
    """What a model reads around a response.

    Attributes:
        text_before, text_after: as text.
        before, after: the special tokens that are no text, before the first and after the second.
    """

    text_before: str
    text_after: str
    before: list[int]
    after: list[int]


def has_template(tokenizer: Any) -> bool:
    """Whether a tokenizer has a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))


def chat_prompt(tokenizer: Any, turns: Turns) -> str:
    """A conversation up to where the assistant begins.

    Raises:
        VGFError: there is no chat template, or it refuses the turns.
    """
    return _apply(tokenizer, turns, add_generation_prompt=True)


def chat_frame(tokenizer: Any, turns: Turns) -> Frame:
    """What stands around the assistant's response in a whole conversation.

    Raises:
        VGFError: as :func:`chat_prompt`, or the template changes what the assistant says.
    """
    whole = _apply(tokenizer, [*turns, {"role": "assistant", "content": _PLACE}])
    before, found, after = whole.rpartition(_PLACE)
    if not found:
        raise VGFError("its chat template leaves out what the assistant says")
    return Frame(before, after, [], [])


def plain_frame(tokenizer: Any, content: Content) -> Frame:
    """What stands around a response to a plain text."""
    text = plain_text(content)
    before, after = frame(tokenizer)
    if before and encode(tokenizer, text)[: len(before)] == before:
        before = []
    return Frame(text, "", before, after)


def _apply(tokenizer: Any, turns: Turns, **options: Any) -> str:
    if not has_template(tokenizer):
        raise VGFError("it has no chat template, and the prompt is a conversation")
    turns = [{**turn, "content": turn_text(turn)} for turn in turns]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, **options))
    except Exception as error:  # jinja2's, or whatever a template's own functions raise
        raise VGFError(f"its chat template refuses the turns: {error}") from error


def frame_tokens(tokenizer: Any, around: Frame) -> tuple[list[int], list[int]]:
    """A frame as tokens: those before a response, and those after it.

    They are found beside a word, as a tokenizer may begin a text in its own way.
    """
    before, _, after = tokens_around(tokenizer, around, "a")
    if not around.text_after:
        before = encode(tokenizer, around.text_before)
        return around.before + before, around.after
    return before, after


def tokens_around(
    tokenizer: Any, around: Frame, response: str
) -> tuple[list[int], list[tuple[int, int, int]], list[int]]:
    """A response in its frame as tokens.

    Returns:
        The tokens before it; its own, each with where it begins and ends in the response (a token
        that reaches over an edge belongs to the response); and those after it.

    Raises:
        VGFError: a tokenizer that does not say where its tokens stand in a text.
    """
    if not tokenizer.is_fast:
        raise VGFError(
            f"{type(tokenizer).__name__} does not say where its tokens stand in a text; use a fast "
            "tokenizer (tokenizer.json)"
        )
    text = around.text_before + response + around.text_after
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    start, stop = len(around.text_before), len(around.text_before) + len(response)
    before, after = list(around.before), list[int]()
    own: list[tuple[int, int, int]] = []
    for i, (low, high) in zip(found["input_ids"], found["offset_mapping"], strict=True):
        if high <= start and not own:
            before.append(i)
        elif low >= stop:
            after.append(i)
        else:
            own.append((i, max(low - start, 0), min(high, stop) - start))
    return before, own, after + around.after
