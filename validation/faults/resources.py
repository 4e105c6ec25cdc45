"""Runs on a full disk, with few descriptors, with little memory, and beside another writer; large
data, and many seeds.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from vgf.runs.checkpoint import flatten, load_checkpoint

from .environments import _COMMAND, SECONDS, command, flags
from .killing import difference, left_in

TMPFS = (8, 16, 32, 48, 64, 80, 96, 128)  # KiB
Trial = Callable[[], dict[str, str]]


def trials(folder: Path, backends: tuple[str, ...]) -> Iterator[tuple[str, Trial]]:
    """Each by its name."""
    yield "a full disk while rows are written", lambda: full_disk(folder)
    for size in TMPFS:
        yield (
            f"a disk of {size} KiB, then room, and --resume",
            lambda size=size: small_disk(folder, size),  # type: ignore[misc]
        )
    yield "a full disk behind standard output", lambda: full_output(folder)
    yield "standard output closed", lambda: closed_output(folder)
    yield "a read-only run folder", lambda: read_only(folder)
    yield "a run folder deleted meanwhile", lambda: deleted(folder)
    yield "two writers of one run", lambda: two_writers(folder)
    yield "a cache that is a file", lambda: cache_is_a_file(folder)
    yield "a cache whose mapped data are damaged", lambda: bad_cache(folder, "numpy")
    if "jax" in backends:
        yield "a cache whose compiled programs are damaged", lambda: bad_cache(folder, "jax")
    for most in (8, 12, 16, 24):
        yield (
            f"{most} descriptors",
            lambda most=most: limited(folder, resource.RLIMIT_NOFILE, most),  # type: ignore[misc]
        )
    for most in (200, 300, 400, 600):
        yield (
            f"{most} MiB of address space",
            lambda most=most: limited(folder, resource.RLIMIT_AS, most << 20),  # type: ignore[misc]
        )
    yield "10 million rows, mapped", lambda: many_rows(folder, 10_000_000)
    for backend in backends:
        yield (
            f"64 seeds side by side, {backend}",
            lambda backend=backend: many_seeds(folder, backend, 64),  # type: ignore[misc]
        )
    for backend in backends:
        yield (
            f"memory over 20,000 updates, {backend}",
            lambda backend=backend: flat(folder, backend),  # type: ignore[misc]
        )


def _judged(status: int, errors: str, expected: tuple[int, ...], words: str = "") -> dict[str, str]:
    said = next((x for x in reversed(errors.splitlines()) if x.strip()), "")
    wrong = ""
    if "Traceback" in errors:
        wrong = "a traceback"
    elif status not in expected:
        wrong = f"status {status}"
    elif words and words not in errors:
        wrong = f"it does not say {words!r}"
    return {"found": f"status {status}: {said[:200]}", "wrong": wrong}


def full_disk(folder: Path) -> dict[str, str]:
    """A run whose file system ends in the middle, by a limit on the size of its files."""
    place = folder / "full"
    words = [*flags(folder, "Not"), "--steps", "4000", "--out", str(place)]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    done = subprocess.run(
        [sys.executable, "-c", "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
         + _COMMAND, *words],
        capture_output=True, text=True, timeout=SECONDS, preexec_fn=limit, check=False,
    )  # fmt: skip
    return _judged(done.returncode, done.stderr, (2,), "cannot")


# Makes a run on a file system of $1 KiB; then there is room, and the run goes on.
_SMALL = """
mount -t tmpfs -o size=$1k tmpfs "$2" || exit 99
shift; place=$1; left=$2; shift 2
"$@" --out "$place/run"; first=$?
find "$place" -name '.writing-*' | grep . >&2
mount -o remount,size=512m "$place" || exit 99
if [ -f "$place/run/config.toml" ]; then
  "$1" "$2" "$3" run --resume "$place/run" > /dev/null 2> "$left.log" || exit 98
  cp -r "$place/run" "$left"
fi
exit $first
"""


def small_disk(folder: Path, size: int) -> dict[str, str]:
    """A run on a small file system in memory that fills; with more room, it goes on as ever."""
    whole, place, left = folder / "whole", folder / f"disk-{size}", folder / f"left-{size}"
    run = [*flags(folder, "Not"), "--steps", "24", "--checkpoint-every", "4"]
    if not whole.exists():
        status, _, errors = command(*run, "--out", str(whole))
        if status:
            return {"found": errors[-200:], "wrong": f"status {status} on a large one"}
    place.mkdir()
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _SMALL, "sh"]
    done = subprocess.run(
        [*alone, str(size), str(place), str(left), sys.executable, "-c", _COMMAND, *run],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    if done.returncode == 99 or "unshare" in done.stderr:
        return {"found": "not tried: this system mounts nothing for a user", "wrong": ""}
    if done.returncode == 98:
        log = (folder / f"{left.name}.log").read_text()
        return {"found": log[-200:], "wrong": "it does not go on once there is room"}
    found = _judged(done.returncode, done.stderr, (0, 2), "" if done.returncode == 0 else "cannot")
    if ".writing-" in done.stderr:
        found["wrong"] = found["wrong"] or "something is left behind"
    if left.exists():
        unequal = difference(left_in(whole), left_in(left))
        found["wrong"] = found["wrong"] or unequal
        found["found"] += "; then as ever"
    elif done.returncode == 0:
        found["wrong"] = found["wrong"] or "no run folder"
    return found


def full_output(folder: Path) -> dict[str, str]:
    """A complete run whose output cannot be written."""
    words = [*flags(folder, "Not"), "--steps", "8", "--out", str(folder / "output")]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", _COMMAND, *words],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    found = _judged(done.returncode, done.stderr, (2,), "cannot be written")
    if not (folder / "output/report.html").exists():
        found["wrong"] = found["wrong"] or "the run is not complete"
    return found


def closed_output(folder: Path) -> dict[str, str]:
    """A complete run without a standard output."""
    words = [*flags(folder, "Not"), "--steps", "8", "--out", str(folder / "closed")]
    shell = 'exec "$0" "$@" >&-'
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable, "-c", _COMMAND, *words],
        stderr=subprocess.PIPE, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    return _judged(done.returncode, done.stderr, (0,))


def read_only(folder: Path) -> dict[str, str]:
    """A run folder that cannot be written to; as root, which may write anywhere, a file instead."""
    parent = folder / "parent"
    if os.geteuid() == 0:
        parent.write_text("")
    else:
        parent.mkdir(mode=0o500)
    words = [*flags(folder, "Not"), "--steps", "8", "--out", str(parent / "run")]
    status, _, errors = command(*words)
    return _judged(status, errors, (2,), "cannot write into")


def deleted(folder: Path) -> dict[str, str]:
    """A run folder that is removed while the run goes on."""
    place = folder / "deleted"
    words = [*flags(folder, "Not"), "--steps", "100000000", "--out", str(place)]
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _wait(process, place / "checkpoints")
    for _ in range(2):  # what is written meanwhile is removed too
        shutil.rmtree(place, ignore_errors=True)
    _, errors = process.communicate(timeout=SECONDS)
    return _judged(process.returncode, errors, (2,))


def two_writers(folder: Path) -> dict[str, str]:
    """A second process that continues a run which the first has not ended."""
    place = folder / "two"
    words = [*flags(folder, "Not"), "--steps", "100000000", "--out", str(place)]
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _wait(process, place / "checkpoints")
    status, _, errors = command("run", "--resume", str(place))
    process.terminate()
    _, own = process.communicate(timeout=SECONDS)
    found = _judged(status, errors, (2,), "another process")
    if process.returncode != 143:
        found["wrong"] = (
            found["wrong"] or f"the first ended with {process.returncode}: {own[-200:]}"
        )
    return found


def _wait(process: subprocess.Popen[str], place: Path) -> None:
    end = time.monotonic() + SECONDS
    while not place.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)


def cache_is_a_file(folder: Path) -> dict[str, str]:
    """Data that are to be unpacked into a cache that is a file."""
    (folder / "cache").write_text("")
    words = [*flags(folder, "Not"), "--steps", "8", "--out", str(folder / "uncached")]
    status, _, errors = command(
        *words, "--data-memory", "mapped", VGF_CACHE_DIR=str(folder / "cache")
    )
    return _judged(status, errors, (2,), str(folder / "cache"))


def bad_cache(folder: Path, backend: str) -> dict[str, str]:
    """A run whose cache is cut, overwritten and emptied file by file, and the same without that."""
    cache, made = folder / f"cache-{backend}", []
    words = [*flags(folder, "Not"), "--steps", "8", "--data-memory", "mapped"]
    words[words.index("--backend") + 1] = backend
    for turn in range(4):
        files = [path for path in sorted(cache.rglob("*")) if path.is_file()]
        for path in files:
            data = path.read_bytes()
            changed = (data, data[: len(data) // 2], bytes(len(data)), b"")[turn]
            path.write_bytes(changed)
        place = folder / f"cached-{backend}-{turn}"
        status, _, errors = command(
            *words, "--out", str(place), VGF_CACHE_DIR=str(cache),
            JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        )  # fmt: skip
        found = _judged(status, errors, (0,))
        if found["wrong"]:
            return found
        if turn and not files:
            return {"found": found["found"], "wrong": "nothing is cached"}
        made.append(left_in(place))
    wrong = next((x for one in made[1:] if (x := difference(made[0], one))), "")
    return {"found": f"the same run four times, {len(files)} files damaged", "wrong": wrong}


def limited(folder: Path, kind: int, most: int) -> dict[str, str]:
    """A run that may have only so much of something: it ends well, or with one line."""
    words = [*flags(folder, "Not"), "--steps", "8", "--out", str(folder / f"limited-{most}")]

    def limit() -> None:
        resource.setrlimit(kind, (most, most))

    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, *words, "--workers", "2"],
        capture_output=True, text=True, timeout=SECONDS, preexec_fn=limit, check=False,
    )  # fmt: skip
    return _judged(done.returncode, done.stderr, (0, 2))


def many_rows(folder: Path, rows: int) -> dict[str, str]:
    """A run on a large file that is mapped: its own memory beside that of a run on a small one."""
    peaks = []
    for count in (1000, rows):
        path, place = folder / f"rows-{count}.npz", folder / f"rows-{count}"
        _write_rows(path, count)
        size = path.stat().st_size
        words = [
            "run", "--env", "none", "--data", str(path), "--data-memory", "mapped", "--backend",
            "numpy", "--steps", "200", "--out", str(place),
        ]  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, *words],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "VGF_CACHE_DIR": str(folder / "rows-cache")},
        )  # fmt: skip
        peak = 0
        while process.poll() is None:
            peak = max(peak, _own_memory(process.pid))
            time.sleep(0.02)
        errors = process.communicate()[1]
        shutil.rmtree(folder / "rows-cache", ignore_errors=True)
        path.unlink()
        found = _judged(process.returncode, errors, (0,))
        if found["wrong"]:
            return found
        peaks.append(peak / 2**20)
    return {
        "found": f"a file of {size / 2**20:,.0f} MiB: at most {peaks[1]:,.0f} MiB of its own, "
        f"{peaks[0]:,.0f} MiB with a thousand rows",
        "wrong": "" if peaks[1] - peaks[0] < size / 2**20 else "it holds more than the file",
    }


def _own_memory(process: int) -> int:
    """Bytes of memory of a process that are no file's."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def _write_rows(path: Path, rows: int) -> None:
    """A data set of so many rows, written a piece at a time."""
    rng = np.random.default_rng(0)
    ends = {"terminals": 0, "timeouts": 199}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for key, width in {"observations": 8, "actions": 2, "rewards": 0, **ends}.items():
            kind = np.dtype(bool if key in ends else np.float32)
            shape = (rows, width) if width and key not in ends else (rows,)
            with file.open(f"{key}.npy", "w", force_zip64=True) as member:
                about = {"descr": kind.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, about)
                for start in range(0, rows, 100_000):
                    piece = (min(100_000, rows - start), *shape[1:])
                    if key in ends:
                        number = np.arange(start, start + piece[0])
                        array = (number % 200 == 199) & (key == "timeouts")
                    else:
                        array = rng.uniform(-1, 1, piece).astype(np.float32)
                    member.write(array.tobytes())


def many_seeds(folder: Path, backend: str, seeds: int) -> dict[str, str]:
    """Many seeds side by side, and three of them alone."""
    place = folder / f"seeds-{backend}"
    words = [*flags(folder, "Not"), "--steps", "8"]
    words[words.index("--backend") + 1] = backend
    words[words.index("--env") + 1] = "none"
    words += ["--dtype", "float64", *(["--eager"] if backend == "torch" else [])]
    status, _, errors = command(*words, "--seeds", str(seeds), "--together", "--out", str(place))
    found = _judged(status, errors, (0,))
    if found["wrong"]:
        return found
    most = 0.0
    for seed in (0, seeds // 2, seeds - 1):
        alone = folder / f"alone-{backend}-{seed}"
        status, _, errors = command(*words, "--seed", str(seed), "--out", str(alone))
        if status:
            return _judged(status, errors, (0,))
        one, other = (flatten(load_checkpoint(at)[0]) for at in (alone, place / f"seed-{seed}"))
        most = max(most, *(float(np.abs(one[k] - other[k]).max()) for k in one))
    count = len(list(place.glob("seed-*/checkpoints/step-000000008")))
    wrong = f"{count} finished" if count != seeds else ""
    return {
        "found": f"{count} finished; three differ from the same alone by at most {most:.1g}",
        "wrong": wrong or ("" if most < 1e-9 else "they are not the same alone"),
    }


_FLAT = """
import sys
from pathlib import Path
from validation.faults.killing import configuration
from vgf.bench.worker import peak_memory
from vgf.runs.loop import prepare, train
import dataclasses
folder, backend, few, many = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
config = configuration(folder, backend, "offline")
rare = dict(log_every=many // 40, evaluate_every=many // 2, checkpoint_every=many // 4)
peaks = []
prepared = prepare(config)
for steps in (few, many):
    train_settings = dataclasses.replace(config.train, steps=steps, **rare)
    run = dataclasses.replace(config, train=train_settings)
    train(run, folder / f"{backend}-{steps}", prepared=prepared, say=lambda line: None)
    peaks.append(peak_memory())
print(*peaks)
"""


def flat(folder: Path, backend: str, few: int = 2_000, many: int = 20_000) -> dict[str, str]:
    """The most memory after some updates, and after many more."""
    done = subprocess.run(
        [sys.executable, "-c", _FLAT, str(folder), backend, str(few), str(many)],
        capture_output=True, text=True, timeout=10 * SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        return {"found": done.stderr[-200:], "wrong": f"status {done.returncode}"}
    before, after = map(int, done.stdout.split()[-2:])
    more = (after - before) / 2**20
    return {
        "found": f"{before / 2**20:.0f} MiB after {few:,} updates, {more:+.0f} MiB after "
        f"{many:,} more",
        "wrong": "" if more < 64 else "it grows",
    }
