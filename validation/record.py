"""Where and with what a result was measured, and how it is written."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from vgf.bench.machine import processor
from vgf.runs.folder import git_revision
from vgf.support.files import write_atomically

RESULTS = Path(__file__).parent / "results"
RUNS = "VGF_VALIDATION_RUNS"  # the environment variable for the folder of trained runs
PACKAGES = ("vgf", "numpy", "scipy", "torch", "jax", "jaxlib", "optax", "hypothesis")


def versions() -> dict[str, str]:
    """The versions of what computes, those that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """Machine, versions and revision."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
        "revision": git_revision(),
    }


def write(path: Path, text: str) -> None:
    """Write a file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, one key per line."""
    write(path, json.dumps(value, indent=1) + "\n")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table whose columns line up in plain text too."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) + " |" for r in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)
