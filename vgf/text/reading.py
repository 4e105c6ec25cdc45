"""What the reward model reads: a prompt and a response as its own tokens.

With one vocabulary, the response's tokens are the base model's. With two, the reward model reads
the text, and the characters say which of its tokens belong to which of the base model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..support.errors import VGFError
from .prompts import Content
from .tokens import (
    Frame,
    character_spans,
    chat_frame,
    chat_prompt,
    differences,
    encode,
    encode_plain,
    frame,
    frame_tokens,
    has_template,
    plain_frame,
    tokens_around,
)


@dataclass(frozen=True)
class Reading:
    """A prompt with a response, as the reward model's tokens.

    Attributes:
        before, moving, after: tokens of the prompt, of the response, and what follows it.
        spans: where each moving token begins and ends in the response's text; None with one
            vocabulary.
    """

    before: list[int]
    moving: list[int]
    after: list[int]
    spans: list[tuple[int, int]] | None = None

    @property
    def row(self) -> list[int]:
        return self.before + self.moving + self.after


@dataclass(frozen=True)
class Reader:
    """How a reward model reads what a base model writes.

    Attributes:
        tokenizer: the reward model's.
        base: the base model's; None where only texts are known.
    """

    tokenizer: Any
    base: Any = None

    @property
    def shares_tokens(self) -> bool:
        """Whether the two vocabularies are one, but for special and added tokens."""
        return self.base is self.tokenizer or (
            self.base is not None and not differences(self.base, self.tokenizer)
        )

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """The reward model's tokens, with the added ones."""
        found: dict[str, int] = self.tokenizer.get_vocab()
        return found

    def frame(self, content: Content) -> Frame:
        """What stands around a response to this prompt.

        A conversation goes through the reward model's own chat template; without one it is read
        as text.
        """
        if not isinstance(content, str) and has_template(self.tokenizer):
            return chat_frame(self.tokenizer, content)
        return plain_frame(self.tokenizer, content)

    def by_text(self, content: Content, response: str) -> Reading:
        """A response by its text.

        Raises:
            VGFError: as :func:`vgf.text.tokens.tokens_around`.
        """
        around = self.frame(content)
        if not isinstance(content, str) and response[:1] == around.text_before[-1:] == " ":
            around = replace(around, text_before=around.text_before[:-1])  # one space, not two
        before, own, after = tokens_around(self.tokenizer, around, response)
        spans = [(low, high) for _, low, high in own]
        return Reading(before, [token for token, _, _ in own], after, spans)

    def by_tokens(
        self,
        content: Content,
        prompt: Sequence[int],
        responses: Sequence[tuple[list[int], list[int]]],
    ) -> list[Reading]:
        """Responses to one prompt by their tokens, of the one vocabulary.

        A conversation ends as the reward model's chat template ends it. A plain text ends with the
        token that ended the response, if the reward model has it, and with what its tokenizer adds
        after a text.

        Args:
            content, prompt: the prompt, and the base model's tokens of it.
            responses: for each the tokens that move, and the one that ended it, if one did.

        Raises:
            VGFError: a conversation whose special tokens a reward model without a template lacks.
        """
        closing = list[int]()
        if not isinstance(content, str):
            if has_template(self.tokenizer):
                around, begun = self.frame(content), chat_prompt(self.tokenizer, content)
                before, after = frame_tokens(self.tokenizer, around)
                if begun != around.text_before and begun == around.text_before.rstrip(" "):
                    before = encode(self.tokenizer, begun)  # the space is the response's
                return [Reading(before, movable, after) for movable, _ in responses]
            strange = [i for i in prompt if not self._knows(i)]
            if strange:
                raise VGFError(
                    "the reward model has no chat template, and lacks the token "
                    f"{self.base.convert_ids_to_tokens(strange[0])!r} of the base model's"
                )
            before = list(prompt)
        else:
            before = encode_plain(self.tokenizer, content)
            closing = frame(self.tokenizer)[1]
        found = []
        for movable, end in responses:
            after = [i for i in end if self._knows(i)]
            found.append(Reading(before, movable, after if after == closing else after + closing))
        return found

    def _knows(self, token: int) -> bool:
        """Whether the reward model has this token of the base model under its number."""
        if self.base is self.tokenizer:
            return True
        text = self.base.convert_ids_to_tokens(token)
        return self.vocabulary.get(text) == token


def alignment(
    base: Any, prompt: Sequence[int], movable: Sequence[int], spans: Sequence[tuple[int, int]]
) -> npt.NDArray[np.float64]:
    """The share of each base token's characters that each of the reward model's tokens covers.

    Shapes:
        movable: T tokens of the base model; spans: T' tokens of the reward model, by their
        characters. Returns ``[T, T']``; a row sums to 1, or to 0 where nothing covers the token.
    """
    own = character_spans(base, prompt, movable)
    shares = np.zeros((len(own), len(spans)))
    for t, (low, high) in enumerate(own):
        for j, (start, stop) in enumerate(spans):
            shares[t, j] = max(min(high, stop) - max(low, start), 0)
    total = shares.sum(1, keepdims=True)
    return np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)


def texts_of_tokens(tokenizer: Any, count: int) -> list[str]:
    """The text that each of the first tokens adds to a text."""
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"][:1]
    start = tokenizer.decode(anchor, skip_special_tokens=True)
    rows = tokenizer.batch_decode([[*anchor, i] for i in range(count)], skip_special_tokens=True)
    return [row.removeprefix(start) for row in rows]
