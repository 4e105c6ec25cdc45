"""What a recorded data set depends on: kept with it as JSON, read, and compared.

A .npz file has it in the ``.json`` beside it, a .hdf5 file in an attribute.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..support.extras import installed_version, is_installed, need
from ..support.files import parse_json

ATTRIBUTE = "vgf"  # the attribute of a .hdf5 file with its provenance, as JSON


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None if it is missing or incomplete."""
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def file_provenance(path: Path) -> Any:
    """What a .npz or .hdf5 file says it depends on, or None if it says nothing."""
    if path.suffix == ".npz":
        return read_json(path.with_suffix(".json"))
    if not is_installed("h5py"):
        return None
    try:
        with need("h5py", "d4rl").File(path, "r") as file:
            return parse_json(file.attrs[ATTRIBUTE])
    except Exception:  # whatever HDF5 finds wrong with it; reading the data will say so
        return None


def versions(*packages: str) -> dict[str, str]:
    """The versions of this package and of others."""
    from .. import __version__

    return {"vgf": __version__, **{package: installed_version(package) for package in packages}}


def same_making(before: Any, now: Mapping[str, Any]) -> bool:
    """Whether two provenances describe the same data set, whatever the packages' versions."""
    return isinstance(before, dict) and {**before, "versions": None} == {
        **json.loads(json.dumps(now)),
        "versions": None,
    }


def differences(before: Any, now: Any, key: str = "") -> str:
    """Where two JSON values differ, in words: "seed 0, now 1"."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        return ", ".join(differences(before.get(name), now.get(name), name) for name in keys)
    return f"{key} {json.dumps(before)}, now {json.dumps(now)}"
