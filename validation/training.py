"""Trainings of experiments: a `vgf run` that is made once, and goes on where it was stopped."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vgf.cli import main as vgf_main
from vgf.runs.folder import CONFIG
from vgf.support.errors import VGFError

DATA = "VGF_VALIDATION_DATA"  # the environment variable for the folder of data


def hidden(*widths: int) -> tuple[str, ...]:
    """The flags that give all networks these hidden layers."""
    names = ("critic", "reference", "gradient-field")
    return tuple(word for name in names for word in (f"--{name}-hidden", *map(str, widths)))


def train(place: Path, words: Sequence[str]) -> None:
    """Run ``vgf WORDS`` into a folder, or go on with what is there.

    Raises:
        VGFError: the run failed.
    """
    data = os.environ.get(DATA)
    starting = [*words, *(["--data-dir", data] if data else []), "--out", str(place)]
    going_on = ["run", "--resume", str(place)]
    if vgf_main(going_on if (place / CONFIG).exists() else starting):
        raise VGFError(f"{place}: the run failed; see above")
