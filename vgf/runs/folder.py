"""The run folder.

RUN/
  config.toml          every setting; the run can be repeated from this file alone
  environment.json     versions, platform, revision and command line of every start
  metrics.csv, .jsonl, evaluations.csv, .jsonl      see vgf/runs/log.py
  online.csv, .jsonl   of a run with an online phase: one row for each collected episode
  transitions.bin      and every transition, see vgf/data/replay.py
  checkpoints/         see vgf/runs/checkpoint.py
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..support.errors import VGFError
from ..support.files import read_json, scratch_folder, write_atomically
from ..support.settings_tree import short_hash, to_dict
from ..support.toml import read_toml
from .config import RunConfig, save_config
from .resolve import load_config

CONFIG, ENVIRONMENT = "config.toml", "environment.json"
# Of a sweep's folder: cells/NAME.toml, the configuration of each run that was asked for; runs/NAME,
# its run folder; failed/NAME.txt, why it failed, one line.
CELLS, RUNS, FAILED = "cells", "runs", "failed"

_PACKAGES = (
    "numpy",
    "scipy",
    "torch",
    "jax",
    "jaxlib",
    "optax",
    "safetensors",
    "gymnasium",
    "ogbench",
    "mujoco",
)
# Other variables that decide how a framework multiplies matrices, and on how many threads.
_VARIABLES = (
    "JAX_DEFAULT_MATMUL_PRECISION",
    "JAX_ENABLE_X64",
    "JAX_PLATFORMS",
    "XLA_FLAGS",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "NVIDIA_TF32_OVERRIDE",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VGF_BACKEND",
    "MUJOCO_GL",
)


def create_run_folder(
    path: Path | str, config: RunConfig, facts: Mapping[str, Any] | None = None
) -> Path:
    """Make a run folder with its config.toml and environment.json.

    Args:
        path: of the folder, which must not exist; its parents are made.
        config: of the run.
        facts: more facts for environment.json, such as the device's name.

    Raises:
        VGFError: the folder exists, or cannot be made.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(path.parent) as scratch:
            fresh = scratch / path.name
            fresh.mkdir()
            try:
                save_config(config, fresh / CONFIG)
                record_environment(fresh, config, facts)
            except VGFError as error:
                raise VGFError(str(error).replace(str(fresh), str(path))) from error
            if os.path.lexists(path):
                raise FileExistsError
            os.rename(fresh, path)  # not over one that another process has made meanwhile
    except OSError as error:
        if os.path.lexists(path):
            raise VGFError(
                f"{path} exists; continue it with --resume {path}, or choose another --out"
            ) from error
        raise VGFError(f"{path}: cannot be made: {error.strerror}") from error
    return path


def open_run_folder(path: Path | str) -> RunConfig:
    """The configuration of a run folder that exists.

    Raises:
        VGFError: no such folder, or not a run folder.
    """
    path = Path(path)
    if not path.is_dir():
        raise VGFError(f"{path}: no such run folder")
    if not (path / CONFIG).is_file():
        raise VGFError(f"{path} is not a run folder: it has no {CONFIG}")
    return load_config(path / CONFIG)


def written_hash(folder: Path) -> str:
    """The hash of a run folder's [agent] as written, including settings of other methods.

    Checkpoints of version 0.1 have this hash: their agents had the settings of every method.

    Raises:
        VGFError: config.toml cannot be read.
    """
    return short_hash(read_toml(folder / CONFIG).get("agent", {}))


def seed_folders(config: RunConfig, folder: Path) -> dict[int, Path]:
    """The folder of each seed: the run folder itself for one, folders within it for several."""
    if config.seeds == 1:
        return {config.seed: folder}
    seeds = range(config.seed, config.seed + config.seeds)
    return {seed: folder / f"seed-{seed}" for seed in seeds}


def record_environment(
    folder: Path | str, config: RunConfig, facts: Mapping[str, Any] | None = None
) -> None:
    """Add this start of the run to environment.json: a list, in order of the starts.

    Raises:
        VGFError: an environment.json that is not such a list.
    """
    path = Path(folder) / ENVIRONMENT
    starts = read_json(path, list) if path.exists() else []
    starts.append({**environment(), "backend": to_dict(config.backend), **(facts or {})})
    write_atomically(path, json.dumps(starts, indent=2) + "\n")


def environment() -> dict[str, Any]:
    """What a run's numbers may depend on besides its settings; imports no framework."""
    from .. import __version__

    versions = {"vgf": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "versions": versions,
        "git_revision": git_revision(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


@functools.cache
def git_revision() -> str | None:
    """The revision of the checkout this package runs from, "+changes" if it has any; or None."""
    package = Path(__file__).parents[1]

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(package), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A checkout that merely contains an installed copy is not this package's.
    if git("ls-files", "--error-unmatch", "--", "__init__.py") is None:
        return None
    revision = git("rev-parse", "HEAD")
    return f"{revision}+changes" if revision and git("status", "--porcelain") else revision
