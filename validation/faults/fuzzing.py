"""Mutated files, given to whatever reads them: a correct load or a VGFError, and nothing else.

For each kind of file there is a small sound one, and a function that reads it as a command does.
Iteration i of a kind changes the file by a function of (seed, kind, i): bits, bytes, blocks, cuts,
numbers in text, leaves of JSON. Where a checksum stands before the content it is computed again in
half of the iterations, so that what is behind it is read too.

A process of its own reads a few hundred of them, so that a crash in a library is counted, and the
rest goes on. It may not take more than MEMORY bytes of address space beyond what it has when it
starts, a minute of a processor's time for one, nor open a file outside its folder.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import io
import itertools
import json
import os
import pickle
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vgf.bench.worker import peak_memory
from vgf.comparison import as_json, compare, read_log, read_table, tables
from vgf.data import to_dataset
from vgf.data.hdf5 import read_hdf5
from vgf.data.inspect import inspect
from vgf.data.npz import MAPPED, read_npz
from vgf.data.replay import TransitionFile, read_transitions
from vgf.runs import agent, config, reading, report
from vgf.runs.checkpoint import _digest, check_checkpoint, load_checkpoint, save_checkpoint
from vgf.runs.config import RunConfig, save_config
from vgf.runs.exchange import export_run, import_run
from vgf.runs.folder import open_run_folder
from vgf.runs.log import EVALUATION_COLUMNS, EVALUATIONS, METRICS, RunLog
from vgf.runs.resolve import resolve
from vgf.spec.settings import Network, Settings
from vgf.spec.update import init_state
from vgf.support.errors import VGFError
from vgf.support.extras import need
from vgf.support.rows import read_lines
from vgf.sweep.folder import states, summary, write_cells
from vgf.sweep.spec import read_spec
from vgf.sweep.worker import fail

from .reading import MEMORY

_CALLS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect")
# What changes names, and which of its arguments may be the folder that they are relative to.
_CHANGES = {
    "os.link": 2, "os.mkdir": 2, "os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.symlink": 2,
    "os.truncate": None, "shutil.rmtree": None,
}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
SECONDS = 60
CHUNK = 250
SOUND = "sound"
SMALL = Settings(critic=Network((3,)), reference=Network((3,)), particles=2)
_ODD_NUMBERS = (
    "0", "-1", "1", "255", "256", "65536", "2147483648", "-9223372036854775809", "1e308", "1e999",
    "NaN", "Infinity", "0.1", "99999999999999999999", "9" * 5000,
)  # fmt: skip
_ODD_TEXTS = (
    "", "none", "nan", "/", "~", "..", "../../etc/passwd", "/etc/passwd", "a:b", "\\u0000",
    "\\u0007\\n", "\\ud800", "\ufeff", "\u202e", "x" * 5000,
)  # fmt: skip
_ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1,
    2**31, 2**63, 10**40, 1e308, float("nan"), float("inf"), 0.5, "",
    "x", "NaN", "\ud800", "a\0b", "../../etc/passwd", "none", [], {}, [[]], [1, "x"], {"a": {}},
    "a" * 10_000,
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Args:
        make: puts sound files into a folder; returns those to change.
        read: reads them, as a command does.
        again: computes checksums again, of files in a folder; None where there are none.
    """

    make: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    again: Callable[[Path], None] | None = None


# --- mutations ------------------------------------------------------------------------------------


def mutated(data: bytes, rng: random.Random, text: bool) -> bytes:
    """A changed copy of a file's bytes."""
    if text and rng.random() < 0.5:
        changed = _structure(data, rng)
        if changed is not None:
            return changed
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        own = [_number, _number, _string] if text else [_integer]
        kinds = [_flip, _set, _cut, _drop, _copy, _insert, *own]
        rng.choice(kinds)(found, rng)
    return bytes(found)


def _place(data: bytearray, rng: random.Random) -> int:
    return rng.randrange(max(len(data), 1))


def _flip(data: bytearray, rng: random.Random) -> None:
    if data:
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _set(data: bytearray, rng: random.Random) -> None:
    if data:
        data[_place(data, rng)] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))


def _cut(data: bytearray, rng: random.Random) -> None:
    if rng.random() < 0.3:
        del data[_place(data, rng) :]


def _drop(data: bytearray, rng: random.Random) -> None:
    start = _place(data, rng)
    del data[start : start + rng.choice((1, 2, 8, 64))]


def _copy(data: bytearray, rng: random.Random) -> None:
    start, length = _place(data, rng), rng.choice((1, 4, 16, 256))
    data[_place(data, rng) : 0] = data[start : start + length]


def _insert(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    odd = (b"\0", b"\xff" * 8, b"[" * 3000, b"\n", b'"', b"{}", b"\xed\xa0")
    data[place:place] = rng.choice(odd)


def _integer(data: bytearray, rng: random.Random) -> None:
    """A number of 2, 4 or 8 bytes, of either order."""
    size = rng.choice((2, 4, 8))
    place = _place(data, rng)
    top = 1 << (8 * size)
    value = rng.choice((0, 1, top - 1, top >> 1, (top >> 1) - 1, 1 << 20, 1 << 31)) % top
    data[place : place + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _number(data: bytearray, rng: random.Random) -> None:
    """A number in text."""
    spots = list(re.finditer(rb"-?\d+(\.\d+)?", bytes(data[:20_000])))
    if spots:
        spot = rng.choice(spots)
        data[spot.start() : spot.end()] = rng.choice(_ODD_NUMBERS).encode()


def _string(data: bytearray, rng: random.Random) -> None:
    """What stands between quotation marks."""
    spots = list(re.finditer(rb'"([^"\n]*)"', bytes(data[:20_000])))
    if spots:
        spot = rng.choice(spots)
        data[spot.start(1) : spot.end(1)] = rng.choice(_ODD_TEXTS).encode()


def _structure(data: bytes, rng: random.Random) -> bytes | None:
    """JSON, or a line of JSON, with another value somewhere, or without one."""
    lines = data.split(b"\n")
    for where in (None, rng.randrange(len(lines))):
        try:
            tree = json.loads(data if where is None else lines[where])
        except (ValueError, TypeError):
            continue
        if not isinstance(tree, dict | list) or not tree:
            continue
        node, key = rng.choice(list(_nodes(tree)))
        if rng.random() < 0.2:
            del node[key]
        else:
            node[key] = rng.choice(_ODD_VALUES)
        text = json.dumps(tree).encode()
        if where is None:
            return text
        lines[where] = text
        return b"\n".join(lines)
    return None


def _nodes(tree: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    for key in keys:
        yield tree, key
        if isinstance(tree[key], dict | list) and tree[key]:
            yield from _nodes(tree[key])


# --- kinds ----------------------------------------------------------------------------------------

_ROWS = 24


def _arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "observations": rng.standard_normal((_ROWS, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (_ROWS, 2)).astype(np.float32),
        "rewards": rng.standard_normal(_ROWS).astype(np.float32),
        "terminals": np.arange(_ROWS) % 8 == 7,
        "timeouts": np.arange(_ROWS) % 12 == 11,
    }


def _look(raw: Any) -> None:
    inspect(raw)
    to_dataset(raw)


def _npz(
    save: Callable[..., None], names: Mapping[str, str] | None = None
) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        arrays = {(names or {}).get(key, key): array for key, array in _arrays().items()}
        save(folder / "data.npz", **arrays)
        return [folder / "data.npz"]

    return make


def _data_again(folder: Path) -> None:
    _zip_again(folder / "data.npz")


def _zip_again(path: Path) -> None:
    """The checksums of a zip archive's members, where they can be found."""
    data = bytearray(path.read_bytes())
    place = data.find(b"PK\x01\x02")
    while place >= 0 and place + 46 <= len(data):
        start = int.from_bytes(data[place + 42 : place + 46], "little")
        size = int.from_bytes(data[place + 20 : place + 24], "little")
        if data[start : start + 4] == b"PK\x03\x04":
            names = [int.from_bytes(data[start + i : start + i + 2], "little") for i in (26, 28)]
            begin = start + 30 + sum(names)
            if int.from_bytes(data[place + 10 : place + 12], "little") == 0:
                check = zlib.crc32(data[begin : begin + size]).to_bytes(4, "little")
                data[place + 16 : place + 20] = data[start + 14 : start + 18] = check
        place = data.find(b"PK\x01\x02", place + 4)
    path.write_bytes(data)


def _hdf5(folder: Path) -> list[Path]:
    h5py = need("h5py", "d4rl")

    with h5py.File(folder / "data.hdf5", "w") as file:
        for key, array in _arrays().items():
            file.create_dataset(key, data=array, compression="gzip" if key == "rewards" else None)
        file["infos/goal"] = np.zeros(3)
    return [folder / "data.hdf5"]


def _config() -> RunConfig:
    return RunConfig(agent=SMALL)


def _checkpoint(folder: Path) -> list[Path]:
    save_config(_config(), folder / "config.toml")
    extra = {
        "evaluation_due": False,
        "scaling": {
            "reward_shift": 0.0, "reward_scale": 1.0, "mean": [0.0] * 4, "std": [1.0] * 4,
        },
        "transitions": 10,
        "environment_steps": 0,
        "observation_dim": 4,
        "action_dim": 2,
    }  # fmt: skip
    tree = init_state(0, 4, 2, SMALL)
    place = save_checkpoint(folder, 10, tree, extra, task=str(_config().task.env), settings=SMALL)
    return [place / "state.json", place / "state.safetensors"]


def _read_checkpoint(folder: Path) -> None:
    tree, meta = load_checkpoint(folder, 10)
    agent.check_agent_checkpoint(folder, meta)
    sizes = meta.extra["observation_dim"], meta.extra["action_dim"]
    if max(sizes) > 1000:
        raise VGFError("sizes of another agent")  # init_state would take what they ask for
    check_checkpoint(meta, tree, init_state(0, *sizes, SMALL), str(_config().task.env))


def _checkpoint_again(folder: Path) -> None:
    place = folder / "checkpoints" / "step-000000010"
    try:
        head = json.loads((place / "state.json").read_bytes())
        head["sha256"] = hashlib.sha256((place / "state.safetensors").read_bytes()).hexdigest()
        head.pop("digest", None)
        (place / "state.json").write_text(json.dumps({**head, "digest": _digest(head)}))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return


def _toml(folder: Path) -> list[Path]:
    save_config(_config(), folder / "config.toml")
    return [folder / "config.toml"]


def _preset(folder: Path) -> list[Path]:
    place = folder / "mine.toml"
    place.write_text(
        'preset = "cube-single-task2"\nseed = 3\n[task]\nenv = "cube-single-play-singletask-task2-'
        'v0"\n[agent]\nmethod = "avgf"\ndiscount = 0.9\n[agent.budget]\nsteps = 2\n[train]\n'
        "steps = 10\n[evaluation]\nsteps = [0, 1]\n"
    )
    return [place]


def _rows(count: int) -> list[dict[str, Any]]:
    blank = dict.fromkeys(EVALUATION_COLUMNS)
    values = {"return": -1.5, "success": 1.0, "score": 1.0, "length": 7, "displacement": 0.1}
    return [
        {
            **blank,
            **values,
            "step": 5 * (1 + i // 4),
            "budget": i % 2,
            "episode": i // 2 % 2,
            "seed": i,
        }
        for i in range(count)
    ]


def _run(folder: Path) -> list[Path]:
    save_config(_config(), folder / "config.toml")
    start = {"command": ["vgf"], "versions": {"vgf": "0"}, "score": "success", "notes": ["a"]}
    (folder / "environment.json").write_text(json.dumps([start]))
    with RunLog(folder, _config()) as log:
        for step in (5, 10):
            log.metrics(step, {"critic_loss": 0.5, "q": -1.0})
            log.evaluations(step, [row for row in _rows(8) if row["step"] == step])
    names = ("config.toml", "environment.json", f"{METRICS}.jsonl", f"{EVALUATIONS}.jsonl")
    return [folder / name for name in names]


def _read_run(folder: Path) -> None:
    """What `vgf report` does, without drawing, which takes a second."""
    runs = reading.find_runs(folder)
    last = report.last_scores(runs)
    report.score_curves(runs)
    if last:
        report.score_table(report.best_scores(runs), with_step=True)
    report._page(folder, runs, last, [], {})


def _logs(folder: Path) -> list[Path]:
    return [path for path in _run(folder) if path.suffix == ".jsonl"]


def _read_logs(folder: Path) -> None:
    with RunLog(folder, _config(), last_step=7):
        pass


def _transitions(folder: Path) -> list[Path]:
    with TransitionFile(folder / "transitions.bin", 3, 2) as file:
        for i in range(8):
            file.append({"observations": np.full(3, i), "rewards": i, "terminals": i % 4 == 3})
    return [folder / "transitions.bin"]


def _read_transitions(folder: Path) -> None:
    read_transitions(folder / "transitions.bin")
    with TransitionFile(folder / "transitions.bin", 3, 2, at_least=2) as file:
        file.read(0, len(file))


def _aligned(folder: Path) -> list[Path]:
    candidate = {"response": "b", "tokens": [1], "reward": 0.1, "log_likelihood": -1.0}
    rows = [
        {
            "index": i, "prompt": f"p{i}", "config": "c", "response": "b", "reward": 0.1,
            "samples": [candidate], "best_of_n": {"chosen": 0, **candidate},
            "budgets": [{"steps": 0, "chosen": 0, **candidate, "candidates": [candidate]}],
        }
        for i in range(3)
    ]  # fmt: skip
    (folder / "out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [folder / "out.jsonl"]


def _read_aligned(folder: Path) -> None:
    from vgf.text.judging import judge

    read_lines(folder / "out.jsonl")
    with contextlib.redirect_stderr(io.StringIO()):
        judge(folder / "out.jsonl", {"length": lambda prompts, texts: [len(t) for t in texts]})


def _minari(folder: Path) -> list[Path]:
    gymnasium = need("gymnasium", "envs")
    minari = need("minari", "minari")
    buffer = need("minari.data_collector", "minari").EpisodeBuffer
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    rng = np.random.default_rng(0)
    episodes = [
        buffer(
            id=i,
            observations=rng.standard_normal((4, 3)).astype(np.float32),
            actions=rng.uniform(-1, 1, (3, 1)).astype(np.float32),
            rewards=np.zeros(3),
            terminations=np.zeros(3, bool),
            truncations=np.arange(3) == 2,
        )
        for i in range(2)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            "test/plane-v0", episodes, env=gymnasium.make("Pendulum-v1"), algorithm_name="x",
            observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32),
            action_space=gymnasium.spaces.Box(-1, 1, (1,), np.float32),
        )  # fmt: skip
    return [folder / "test/plane-v0/data/metadata.json"]


def _read_minari(folder: Path) -> None:
    from vgf.benchmarks.minari import make_minari_env, read_minari

    _look(read_minari(folder / "test/plane-v0"))
    make_minari_env(folder / "test/plane-v0").close()


_CELLS = [
    {"task": task, "method": method, "seed": seed, "step": step, "score": 0.1 * seed}
    for task in ("a", "b")
    for method in ("vgf", "fql")
    for seed in range(3)
    for step in (5, 10)
]


def _table(folder: Path) -> list[Path]:
    """A table of results in each of its forms."""
    lines = [",".join(_CELLS[0]), *(",".join(map(str, row.values())) for row in _CELLS)]
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _CELLS))
    scores = np.arange(6.0).reshape(2, 3) / 10
    arrays: dict[str, Any] = {"a|vgf": scores, "a|fql": scores, "steps": np.array([5, 10])}
    np.savez(folder / "table.npz", **arrays)
    return sorted(folder.glob("table.*"))


def _changed(paths: Iterable[Path]) -> list[Path]:
    """Those that are not as the sound ones in the folder beside; all, if that one is read."""
    found = []
    for path in sorted(paths):
        sound = path.parent.parent / SOUND / path.name
        same = sound.exists() and sound.read_bytes() == path.read_bytes()
        if not same or path == sound:
            found.append(path)
    return found


def _read_tables(folder: Path) -> None:
    for path in _changed(folder.glob("table.*")):
        found = compare(read_table(path), resamples=5, figures=False)
        tables(found), as_json(found)


def _fql_log(folder: Path) -> list[Path]:
    agent = {"agent_name": "fql", "batch_size": 256}
    flags = {"env_name": "a", "seed": 0, "offline_steps": 10, "agent": agent}
    (folder / "flags.json").write_text(json.dumps(flags))
    lines = ["step,evaluation/success,time", "5,0.5,1.5", "10,1.0,3.0"]
    (folder / "eval.csv").write_text("\n".join(lines) + "\n")
    return [folder / "flags.json", folder / "eval.csv"]


def _sweep(folder: Path) -> list[Path]:
    (folder / "sweep.toml").write_text(
        'tasks = ["cube-single-play-singletask-task2-v0"]\nmethods = ["vgf", "fql"]\nseeds = 2\n'
        "[settings]\ntrain = { steps = 100_000 }\n[grid]\n"
        '"agent.budget.step_size" = [0.05, 0.1]\n'
    )
    return [folder / "sweep.toml"]


def _swept(folder: Path) -> list[Path]:
    """The folder of a sweep, with a run that has begun, one that failed and one that has not."""
    cells = {name: replace(_config(), seed=seed) for seed, name in enumerate(("a", "b", "c"))}
    write_cells(folder, cells)
    run = folder / "runs" / "a"
    run.mkdir()
    _run(run)
    _checkpoint(run)
    fail(folder, "b", "it failed")
    return [
        folder / "cells" / "a.toml",
        folder / "failed" / "b.txt",
        *(run / name for name in ("config.toml", f"{METRICS}.jsonl")),
        run / "checkpoints" / "step-000000010" / "state.json",
    ]


def _read_swept(folder: Path) -> None:
    summary(states(folder))


def _exported(folder: Path) -> list[Path]:
    (folder / "run").mkdir()
    _checkpoint(folder / "run")
    export_run(folder / "run", str(folder / "agent"))
    return [folder / "agent" / name for name in ("agent.npz", "agent.json", "config.toml")]


def _exported_again(folder: Path) -> None:
    _zip_again(folder / "agent" / "agent.npz")


def _foreign(folder: Path) -> list[Path]:
    """An agent as FQL's code leaves it, as a pickle and as msgpack."""
    rng = np.random.default_rng(0)

    def layers(*widths: int) -> dict[str, Any]:
        return {
            f"Dense_{i}": {"kernel": rng.random((a, b)), "bias": rng.random(b)}
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        }

    networks = {
        "modules_critic": {"value_net": layers(5, 4, 1)},
        "modules_target_critic": {"value_net": layers(5, 4, 1)},
        "modules_actor_bc_flow": {"mlp": layers(6, 4, 2)},
        "modules_actor_onestep_flow": {"mlp": layers(5, 4, 2)},
    }
    tree = {"agent": {"network": {"params": networks}}}
    (folder / "params_10.pkl").write_bytes(pickle.dumps(tree))
    flags = {"env_name": "Hopper-v5", "agent": {"agent_name": "fql", "flow_steps": 4, "tau": 0.1}}
    (folder / "flags.json").write_text(json.dumps(flags))

    def packed(value: Any) -> Any:
        msgpack = need("msgpack", "agents")
        content = (value.shape, value.dtype.name, value.tobytes())
        return msgpack.ExtType(1, msgpack.packb(content, use_bin_type=True))

    data = need("msgpack", "agents").packb(tree, default=packed, use_bin_type=True)
    (folder / "params_20.msgpack").write_bytes(data)
    return [folder / name for name in ("params_10.pkl", "params_20.msgpack", "flags.json")]


def _imported(place: Path, **options: Any) -> None:
    out = place.parent / "imported"
    shutil.rmtree(out, ignore_errors=True)
    import_run(str(place), out, **options)


def _read_foreign(folder: Path) -> None:
    parameters = list(folder.glob("params_*"))
    for path in _changed(parameters) or parameters:  # if their flags are changed, both
        _imported(path, flags=folder / "flags.json")


def _prompts(folder: Path) -> list[Path]:
    rows: list[dict[str, Any]] = [
        {"prompt": "The film was", "id": 7},
        {"prompt": [{"role": "user", "content": "What?"}], "reference": "That."},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]},
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [folder / "prompts.jsonl"]


def _read_prompts(folder: Path) -> None:
    from vgf.text.prompts import plain_text, read_prompts

    for prompt in read_prompts(folder / "prompts.jsonl"):
        plain_text(prompt.content)


KINDS = {
    "checkpoint, checksums computed again": Kind(_checkpoint, _read_checkpoint, _checkpoint_again),
    "checkpoint": Kind(_checkpoint, _read_checkpoint),
    "configuration": Kind(_toml, open_run_folder),
    "preset in a file": Kind(_preset, lambda folder: resolve({}, folder / "mine.toml")),
    "npz": Kind(_npz(np.savez), lambda f: _look(read_npz(f / "data.npz")), _data_again),
    "npz, compressed": Kind(
        _npz(np.savez_compressed, {"terminals": "terminated", "timeouts": "truncations"}),
        lambda f: _look(read_npz(f / "data.npz")),
        _data_again,
    ),
    "npz, mapped": Kind(
        _npz(np.savez), lambda f: _look(read_npz(f / "data.npz", MAPPED)), _data_again
    ),
    "HDF5": Kind(_hdf5, lambda folder: _look(read_hdf5(folder / "data.hdf5"))),
    "Minari's metadata": Kind(_minari, _read_minari),
    "what vgf align wrote": Kind(_aligned, _read_aligned),
    "logs, continued": Kind(_logs, _read_logs),
    "transitions": Kind(_transitions, _read_transitions),
    "run folder, reported": Kind(_run, _read_run),
    "tables of results, compared": Kind(_table, _read_tables),
    "logs of other code": Kind(_fql_log, read_log),
    "sweep": Kind(_sweep, lambda folder: read_spec(folder / "sweep.toml")),
    "folder of a sweep": Kind(_swept, _read_swept),
    "exported agent": Kind(_exported, lambda folder: _imported(folder / "agent"), _exported_again),
    "agent of other code": Kind(_foreign, _read_foreign),
    "prompts": Kind(_prompts, _read_prompts),
}


# --- running --------------------------------------------------------------------------------------


_warm: set[str] = set()


def fuzz(kind: str, first: int, stop: int, seed: int, folder: Path) -> dict[str, Any]:
    """Read the mutations `first` to `stop` of a kind, each chunk in a process of its own.

    Returns:
        counts: "iterations", "loaded", "refused", "found" (iteration -> what happened instead),
        "peak" (bytes of memory beyond what the process began with).
    """
    counts: dict[str, Any] = {"iterations": 0, "loaded": 0, "refused": 0, "found": {}, "peak": 0}
    if kind not in _warm:  # what is imported is imported once
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        KINDS[kind].make(folder)
        KINDS[kind].read(folder)
        _warm.add(kind)
    while first < stop:
        end = min(first + CHUNK, stop)
        done, words = _chunk(kind, first, end, seed, folder)
        for entry in done:
            if entry[0] == "peak":
                counts["peak"] = max(counts["peak"], entry[1])
            elif entry[1] in ("loaded", "refused"):
                counts[entry[1]] += 1
            else:
                counts["found"][str(entry[0])] = entry[1]
        reached = [entry[0] for entry in done if entry[0] != "peak"]
        last = max(reached, default=first - 1)
        if last < first and not words:
            raise RuntimeError(f"{kind}: a sound file is not read; see standard error")
        if words and last + 1 < end:
            counts["found"][str(last + 1)] = words
            last += 1
        counts["iterations"] += last + 1 - first
        first = last + 1
    return counts


def _chunk(
    kind: str, first: int, stop: int, seed: int, folder: Path
) -> tuple[list[Any], str | None]:
    """Some iterations in a process; what each came to, and how the process ended if not well."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(heard)
        try:
            _work(kind, first, stop, seed, folder, told)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(told)
    with os.fdopen(heard, "rb") as pipe:
        text = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    shutil.rmtree(folder, ignore_errors=True)
    done = [json.loads(line) for line in text.splitlines()]
    words = None
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        words = f"took more than {SECONDS} s" if name == "SIGPROF" else f"crashed by {name}"
    return done, words


def _work(kind: str, first: int, stop: int, seed: int, folder: Path, told: int) -> None:
    what = KINDS[kind]
    os.environ["VGF_CACHE_DIR"] = str(folder / "cache")
    tempfile.tempdir = str(folder / "scratch")
    os.mkdir(tempfile.tempdir)
    warnings.simplefilter("ignore")
    # what is the same each time, and half of what it takes: of the installation, of defaults
    importlib.metadata.version = functools.cache(importlib.metadata.version)
    config.demo_agent = functools.cache(config.demo_agent)
    sound = folder / SOUND
    sound.mkdir()
    files = [path.relative_to(sound) for path in what.make(sound)]
    what.read(sound)  # a sound file is read
    outside: list[str] = []
    system = (sys.prefix, sys.base_prefix, "/proc", "/sys", "/dev", "/usr", os.getcwd())
    places = tuple(f"{place}/" for place in (folder, *system))

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            mode, flags = arguments[1:3]
            writing = set(mode or "") & set("wax+") or (flags or 0) & _WRITING
            look(arguments[:1], places[:1] if writing else places)
        elif event in _CHANGES:
            within = _CHANGES[event]
            if within is None or arguments[within] == -1:
                look(arguments[:2], places[:1])
        elif event in _CALLS:
            outside.append(event)

    def look(paths: tuple[Any, ...], allowed: tuple[str, ...]) -> None:
        for path in paths:
            if isinstance(path, str | bytes | os.PathLike):
                place = os.path.abspath(os.fsdecode(path))
                if not f"{place}/".startswith(allowed):
                    outside.append(place)

    sys.addaudithook(audit)
    before = peak_memory()
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + MEMORY, pages + MEMORY))
    place = folder / "changed"
    for number in range(first, stop):
        rng = random.Random(f"{seed} {kind} {number}")
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(sound, place)
        chosen = place / rng.choice(files)
        text = chosen.suffix in (".json", ".jsonl", ".toml")
        chosen.write_bytes(mutated(chosen.read_bytes(), rng, text))
        if what.again is not None and rng.random() < 0.5:
            what.again(place)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            what.read(place)
            found = "loaded"
        except VGFError as error:
            found = "refused" if "\n" not in str(error) else f"a message of lines: {error}"
        except BaseException as error:
            at = traceback.extract_tb(error.__traceback__)
            own = [entry for entry in at if "/vgf/" in entry.filename] or list(at)
            where = f"{own[-1].filename.rpartition('/vgf/')[2]}:{own[-1].lineno}"
            found = f"{type(error).__name__}: {str(error)[:100]} ({where})"
        signal.setitimer(signal.ITIMER_PROF, 0)
        if outside:
            found = f"opened {outside[0]}"
            outside.clear()
        os.write(told, (json.dumps([number, found]) + "\n").encode())
    os.write(told, (json.dumps(["peak", peak_memory() - before]) + "\n").encode())
