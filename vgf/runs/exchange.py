"""Agents in and out: other people's checkpoints, folders of .npz, the Hugging Face Hub.

    FOLDER/
        agent.npz     the agent's arrays, under names such as critic/hidden_0/kernel
        agent.json    the task, the updates, sizes, the scaling of observations
        config.toml   every setting of the run it comes from
        README.md     what that is and how to use it without this package

A place that begins with ``hf://`` is a repository of the Hub, ``hf://user/name``.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import get_backend
from ..data.npz import load_arrays, names_in, readable
from ..data.scaling import Scaling
from ..spec.types import Params
from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import make_folder, read_json, scratch_folder, write_atomically
from ..support.settings_tree import override
from ..support.toml import read_toml
from .agent import load_agent
from .checkpoint import flatten, load_checkpoint, save_checkpoint, unflatten
from .config import EvaluationSettings, RunConfig, TaskSettings, TrainSettings, save_config
from .folder import CONFIG, create_run_folder, open_run_folder
from .foreign import Imported, import_agent, read_arrays
from .resolve import load_config

ARRAYS, FACTS, README = "agent.npz", "agent.json", "README.md"
HUB = "hf://"
FLAGS = "flags.json"

_README = """# An agent of {title} for {task}

Trained with [vgf](https://arxiv.org/abs/2604.14265) for {step:,} updates. `agent.npz` holds its
arrays, `config.toml` every setting, `agent.json` the task, sizes and the scaling of observations.

In vgf: `vgf import FOLDER --out RUN`, then `vgf eval RUN`.

Without it, in NumPy:

```python
import numpy as np

arrays = np.load("agent.npz")
print(arrays.files)  # {names}
```

Observations are scaled first: {scaling}. A network's layers are `hidden_0`, `hidden_1`, ... and
`output`; each is `x @ kernel + bias`, then `norm_*` (LayerNorm before the activation, epsilon
1e-6), the activation `config.toml` names, `post_*` (LayerNorm after it). The critic's arrays have
the ensemble first, and its input is the observation and the action side by side. The reference is a
flow: from standard normal noise x, K = {steps} times `x = x + v([observation, x, t]) / K` with
t = 0, 1/K, ..., then clipped to [-1, 1].
"""


def import_run(
    place: str,
    out: Path | str,
    *,
    code: str | None = None,
    flags: Path | str | None = None,
    env: str | None = None,
    reference: str | None = None,
) -> tuple[Path, RunConfig]:
    """A run folder from an agent that was exported, or trained by other code.

    Args:
        place: a folder that :func:`export_run` wrote, a checkpoint of :mod:`vgf.runs.foreign`, or
            either in a repository of the Hub.
        out: the run folder, which must not exist.
        code: whose checkpoint it is; None finds out.
        flags: the settings it was trained with, JSON; None looks beside the checkpoint.
        env: the task's name; None is the one that the settings name.
        reference: which of its networks becomes the flow reference.

    Raises:
        VGFError: what cannot be read or does not fit.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = fetched(place, Path(scratch))
        if path.is_dir() and (path / ARRAYS).exists():
            if place.startswith(HUB):
                _check_no_code(path / CONFIG, place)
            tree, facts, config = _exported(path)
            if env is not None:
                config = replace(config, task=replace(config.task, env=env))
        else:
            tree, facts, config = _trained_elsewhere(path, code, flags, env, reference)
    config = replace(config, out=None)
    folder = create_run_folder(out, config, {"imported_from": place})
    extra = {name: facts[name] for name in _EXTRA}
    task = config.task.env or facts["task"]
    try:
        save_checkpoint(folder, facts["step"], tree, extra, task=task, settings=config.agent)
        load_agent(folder, get_backend("numpy"))
    except BaseException as error:
        shutil.rmtree(folder)
        if isinstance(error, VGFError):
            raise VGFError(f"{place} is not an agent that can be used: {error}") from error
        raise
    return folder, config


_EXTRA = (
    "evaluation_due",
    "scaling",
    "transitions",
    "environment_steps",
    "observation_dim",
    "action_dim",
)


def _check_no_code(path: Path, place: str) -> None:
    """Check that a downloaded agent's settings name no code, such as a method's, to be imported.

    Raises:
        VGFError: they do.
    """
    rest = [read_toml(path).get("agent")]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            rest += value.values()
        elif isinstance(value, list):
            rest += value
        elif isinstance(value, str) and ":" in value:
            raise VGFError(
                f"{place}: its {path.name} names code, {value!r}, which a download may not have "
                "run; read that code, and then import the repository from a folder of your own"
            )


def _exported(path: Path) -> tuple[Params, dict[str, Any], RunConfig]:
    facts = read_json(path / FACTS, dict)
    missing = [name for name in (*_EXTRA, "step", "task") if name not in facts]
    if missing:
        raise VGFError(f"{path / FACTS} lacks {', '.join(missing)}")
    step, task = facts["step"], facts["task"]
    if type(step) is not int or not 0 <= step < 10**15 or not isinstance(task, str):
        raise VGFError(f"{path / FACTS} is damaged: its step is {step!r}, its task {task!r}")
    with readable(path / ARRAYS):
        flat = load_arrays(path / ARRAYS, names_in(path / ARRAYS))[0]
    return unflatten(flat), facts, load_config(path / CONFIG)


def _trained_elsewhere(
    path: Path, code: str | None, flags: Path | str | None, env: str | None, reference: str | None
) -> tuple[Params, dict[str, Any], RunConfig]:
    if path.is_dir():
        files = [x for x in path.iterdir() if x.suffix in (".pkl", ".msgpack")]
        if len(files) != 1:
            names = ", ".join(sorted(x.name for x in files)) or f"no .pkl, .msgpack or {ARRAYS}"
            raise VGFError(f"{path} has {names}; name one checkpoint")
        path = files[0]
    beside = path.parent / FLAGS
    said = Path(flags) if flags is not None else beside if beside.is_file() else None
    trained = {} if said is None else read_json(said, dict)
    arrays = read_arrays(path)
    try:
        found: Imported = import_agent(arrays, trained, code, reference)
    except VGFError as error:
        raise VGFError(f"{path}: {error}") from error
    except Exception as error:  # whatever is not where its code would have put it
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise VGFError(
            f"{path}{f', with {said}' if said else ''}: not an agent of a code that is known "
            f"({reason}); name the code with --code"
        ) from error
    env = env or found.env
    if not isinstance(env, str):
        raise VGFError(
            f"{path}: no {FLAGS} beside it says which task the agent is for; name it, --env NAME"
        )
    config = RunConfig(
        task=TaskSettings(action_repeat=1, standardise=False),
        agent=found.settings,
        train=TrainSettings(steps=0),
        evaluation=EvaluationSettings(),
    )
    task = {"env": env, "action_chunk": found.chunk}
    config = override(config, {"task": task}, str(said or path))
    digits = re.sub("[^0-9]", "", path.stem)
    facts = {
        "step": int(digits[:15] or 0),
        "task": env,
        "evaluation_due": False,
        "scaling": Scaling(None, None).to_json(),
        "transitions": 0,
        "environment_steps": 0,
        "observation_dim": found.observation_dim,
        "action_dim": found.action_dim,
    }
    return found.state, facts, config


def export_run(folder: Path | str, place: str, step: int | None = None) -> str:
    """Write a run folder's agent as .npz with a README, into a folder or to the Hub.

    Args:
        folder: the run folder.
        place: a new folder, or ``hf://user/name``.
        step: which checkpoint, by its updates; None is the last one.

    Returns:
        Where it is now.

    Raises:
        VGFError: a folder that exists, a run without a checkpoint, or a Hub that refuses.
    """
    folder = Path(folder)
    config = open_run_folder(folder)
    tree, meta = load_checkpoint(folder, step)
    if not place.startswith(HUB):
        target = Path(place)
        if target.exists():
            raise VGFError(f"{target} exists; name a new folder")
        make_folder(target.parent)
        try:
            with scratch_folder(target.parent) as scratch:
                _write(scratch / "agent", config, tree, meta.step, meta.task, meta.extra)
                (scratch / "agent").rename(target)  # whole, or not there
        except OSError as error:
            raise VGFError(f"cannot write {target}: {error.strerror or error}") from error
        return str(target)
    hub = need("huggingface_hub", "agents")
    repository = place.removeprefix(HUB)
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "agent"
        _write(whole, config, tree, meta.step, meta.task, meta.extra)
        try:
            hub.create_repo(repository, exist_ok=True)
            hub.upload_folder(repo_id=repository, folder_path=str(whole))
        except Exception as error:  # of the network, of rights, of names: the Hub says which
            raise VGFError(f"{place}: {_first_line(error)}") from error
    return place


def _write(
    target: Path, config: RunConfig, tree: Params, step: int, task: str, extra: Mapping[str, Any]
) -> None:
    make_folder(target)
    arrays = flatten(tree)
    with tempfile.TemporaryFile() as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
        file.seek(0)
        write_atomically(target / ARRAYS, file.read())
    facts = {"step": step, "task": task, **{name: extra[name] for name in _EXTRA}}
    write_atomically(target / FACTS, json.dumps(facts, indent=2) + "\n")
    # where data and runs lay on this machine is nobody else's business
    public = replace(
        config,
        out=None,
        task=replace(config.task, data=None, data_dir=None),
        start=type(config.start)(),
    )
    save_config(public, target / CONFIG)
    scaling = extra["scaling"]
    scaled = "(observation - mean) / std, in agent.json" if scaling.get("mean") else "not at all"
    text = _README.format(
        title=config.agent.declared.title,
        task=task,
        step=step,
        names=", ".join(list(arrays)[:3]) + ", ...",
        scaling=scaled,
        steps=config.agent.sampling_steps,
    )
    write_atomically(target / README, text)


def fetched(place: str, scratch: Path) -> Path:
    """A file or folder, from the Hub if its name says so.

    Args:
        place: a path, or ``hf://user/name``, with ``/file/in/it`` for one file.
        scratch: where a folder of the Hub is put.

    Raises:
        VGFError: it does not exist, or the Hub cannot be reached.
    """
    if not place.startswith(HUB):
        path = Path(place)
        if not path.exists():
            raise VGFError(f"{path}: no such file or folder")
        return path
    hub = need("huggingface_hub", "agents")
    parts = place.removeprefix(HUB).split("/")
    if len(parts) < 2 or not all(parts):
        raise VGFError(f"{place} names no repository; write hf://user/name")
    repository, file = "/".join(parts[:2]), "/".join(parts[2:])
    try:
        if file:
            return Path(hub.hf_hub_download(repository, file))
        return Path(hub.snapshot_download(repository))
    except Exception as error:  # of the network, of rights, of names: the Hub says which
        raise VGFError(f"{place}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
