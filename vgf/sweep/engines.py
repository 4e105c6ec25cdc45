"""Where the runs of a sweep are made: processes of this machine, a Ray cluster, or SLURM.

An engine takes jobs, each a list of names (several are seeds side by side), makes every run or
records why it failed, and returns when there is nothing left to do. Which job runs where and when
is concurrent.futures', Ray's or SLURM's to decide. A job that dies with its machine is begun again,
and its runs go on from their last checkpoints.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from ..runs.checkpoint import CHECKPOINTS, latest_step
from ..runs.folder import CELLS, CONFIG, FAILED, RUNS
from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import make_folder, write_atomically
from ..support.locks import LOCK
from .folder import LOCKS, LOGS
from .worker import fail_rest, run_cells, share

TRIES = 3  # of a job whose process is killed
Job = Sequence[str]
Files = dict[str, bytes | None]  # by their paths in the sweep's folder; None: as known already
Look = Callable[[], None]  # called every second or so while runs are made


# --- this machine ---------------------------------------------------------------------------------


def run_local(folder: Path, jobs: Sequence[Job], at_once: int, cores: int, look: Look) -> None:
    """Make the runs in processes of this machine, `at_once` at a time."""
    children: set[subprocess.Popen[bytes]] = set()
    stopped = threading.Event()

    def make(job: Job) -> None:
        for attempt in range(TRIES):
            if stopped.is_set():
                return
            with open(folder / LOGS / f"{job[0]}.log", "ab") as log:
                child = subprocess.Popen(
                    [sys.executable, "-m", "vgf.sweep.worker", str(folder), *job],
                    env={**os.environ, **share(cores)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for the sweep, which passes it on
                )
            children.add(child)
            code = child.wait()
            children.discard(child)
            if code in (0, 130) or stopped.is_set():
                return
            words = (
                f"its process was killed by signal {-code}"
                if code < 0
                else f"its process ended with status {code}"
            )
            if attempt == TRIES - 1:
                fail_rest(folder, job, f"{words}, {TRIES} times; see {LOGS}/{job[0]}.log")

    with ThreadPoolExecutor(at_once) as pool:
        try:
            _wait({pool.submit(make, job) for job in jobs}, look)
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for child in list(children):
                with contextlib.suppress(ProcessLookupError):
                    child.send_signal(signal.SIGINT)
            raise


def _wait(futures: set[Future[None]], look: Look) -> None:
    while futures:
        done, futures = wait(futures, timeout=1, return_when=FIRST_COMPLETED)
        for one in done:
            one.result()
        look()


# --- Ray ------------------------------------------------------------------------------------------


def run_ray(
    folder: Path,
    jobs: Sequence[Job],
    address: str | None,
    cores: int,
    gpus: float,
    send_back: bool,
    look: Look,
) -> None:
    """Make the runs on a Ray cluster; a job whose node is lost is begun again on another one.

    Args:
        address: of the cluster; None is a new one on this machine.
        cores, gpus: that each job asks for.
        send_back: the nodes do not share the sweep's folder: each run is made in its node's own
            temporary folder, and sent back after every checkpoint. A run whose node is lost goes on
            from the last one that came.

    Raises:
        VGFError: no cluster there.
    """
    ray = need("ray", "ray")
    with _connected(ray, address):
        post = _post_office(ray) if send_back else None
        make = ray.remote(
            num_cpus=cores,
            num_gpus=gpus,
            # of what a lost node costs; a run that fails says so itself. What is sent back is to be
            # sent out again, so Ray, which would send what it had at first, does not try by itself.
            max_retries=0 if send_back else -1,
            max_calls=1,  # a process of its own: JAX keeps memory and settings
        )(_on_ray)

        def begin(job: Job) -> Any:
            files = _files(folder, job) if send_back else None
            return make.remote(str(folder.resolve()), list(job), cores, files, post)

        waiting = {begin(job): job for job in jobs}
        tries: Counter[str] = Counter()
        reached: Counter[str] = Counter()
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=1)
            while post is not None and not post.empty():
                _unpack(folder, post.get())
            for reference in done:
                job = waiting.pop(reference)
                try:
                    ray.get(reference)
                except ray.exceptions.RayError as error:
                    updates = sum(latest_step(folder / RUNS / name) or 0 for name in job)
                    if updates > reached[job[0]]:
                        tries[job[0]], reached[job[0]] = 0, updates
                    tries[job[0]] += 1
                    if tries[job[0]] < TRIES:
                        waiting[begin(job)] = job
                    else:
                        fail_rest(folder, job, f"Ray: {str(error).strip().splitlines()[-1]}")
            look()


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    before = ray.is_initialized()
    if not before:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            text = str(error).strip().splitlines()[0]
            raise VGFError(f"--address {address}: no Ray cluster there: {text}") from error
    try:
        yield
    finally:
        if not before:
            ray.shutdown()


def _post_office(ray: Any) -> Any:
    """A queue for files that nodes send back, on the node of this process."""
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


def _on_ray(
    folder: str, names: list[str], cores: int, files: Files | None, post: Any = None
) -> None:
    """On a node: make some runs; with files, in a folder of the node's own, sent back by `post`."""
    import tempfile

    os.environ.update(share(cores))
    if files is None:
        run_cells(Path(folder), names)
        return
    with tempfile.TemporaryDirectory() as place:
        own = Path(place)
        for name in (LOGS, LOCKS, FAILED, RUNS, CELLS):
            make_folder(own / name)
        _unpack(own, files)
        with _sending(own, names, post):
            run_cells(own, names)


@contextlib.contextmanager
def _sending(folder: Path, names: Sequence[str], post: Any) -> Iterator[None]:
    """Send what some runs have written after every checkpoint, and at the end."""
    over = threading.Event()
    sent: dict[str, int] = {}

    def send() -> None:
        before: list[int | None] = []
        while not over.wait(1):
            now = [latest_step(folder / RUNS / name) for name in names]
            if any(now) and now != before:
                with contextlib.suppress(FileNotFoundError):  # a checkpoint was replaced meanwhile
                    post.put(_files(folder, names, sent))
                    before = now

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        post.put(_files(folder, names, sent))


def _files(folder: Path, names: Sequence[str], sent: dict[str, int] | None = None) -> Files:
    """The files of some cells, without those that are being written.

    Checkpoints come first, so that logs have at least the rows of the last one.

    Args:
        sent: when each file was written that is known already; it is brought up to date.
    """
    parts = [
        *(path for name in names for path in (folder / RUNS / name / CHECKPOINTS).rglob("*")),
        *(path for name in names for path in (folder / RUNS / name).rglob("*")),
        *(folder / CELLS / f"{name}.toml" for name in names),
        *(folder / FAILED / f"{name}.txt" for name in names),
        *(folder / LOGS / f"{name}.log" for name in names),
    ]
    sent = {} if sent is None else sent
    files: Files = {}
    times = {}
    for path in parts:
        name = str(path.relative_to(folder))
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and name not in files and not hidden:
            times[name] = path.stat().st_mtime_ns
            files[name] = None if sent.get(name) == times[name] else path.read_bytes()
    sent.clear()
    sent.update(times)
    return files


def _unpack(folder: Path, files: Files) -> None:
    """Write files, and remove from the runs that they are of what is no longer there."""
    # config.toml last: until then the run counts as not begun
    for name, data in sorted(files.items(), key=lambda item: item[0].endswith(CONFIG)):
        if data is not None:
            write_atomically(folder / name, data)
    for run in {Path(name).parts[1] for name in files if Path(name).parts[0] == RUNS}:
        for path in (folder / RUNS / run).rglob("*"):
            if path.is_file() and path.name != LOCK and str(path.relative_to(folder)) not in files:
                path.unlink()
                with contextlib.suppress(OSError):
                    path.parent.rmdir()


# --- SLURM ----------------------------------------------------------------------------------------


class _Task:
    """A job of an array; when SLURM preempts it or its time is over, it is queued again."""

    def __call__(self, folder: str, names: list[str], cores: int) -> None:
        os.environ.update(share(cores))
        run_cells(Path(folder), names)

    def checkpoint(self, *args: Any) -> Any:
        return need("submitit", "slurm").helpers.DelayedSubmission(self, *args)


def run_slurm(
    folder: Path,
    jobs: Sequence[Job],
    at_once: int,
    cores: int,
    options: Mapping[str, Any],
    look: Look,
) -> None:
    """Make the runs as a job array of SLURM, through submitit; the sweep's folder is shared.

    Args:
        at_once: the most jobs of the array that run together.
        options: of submitit's executor, such as slurm_partition or timeout_min; `cluster`
            chooses the executor: "slurm", "local" or "debug".

    Raises:
        VGFError: SLURM is not here, or an option is unknown.
    """
    # or its import closes the log handlers, and so the streams, of all other libraries
    os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")
    submitit = need("submitit", "slurm")
    settings = dict(options)
    cluster = settings.pop("cluster", "slurm")
    try:
        executor = submitit.AutoExecutor(folder=folder / "slurm", cluster=cluster)
        executor.update_parameters(
            name="vgf-sweep",
            cpus_per_task=cores,
            **({"slurm_array_parallelism": at_once} if cluster == "slurm" else {}),
            **{"timeout_min": 60 * 24, **settings},
        )
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        text = str(error).strip().splitlines()[0]
        raise VGFError(
            f"--engine slurm: {text}; --slurm KEY=VALUE sets submitit's options"
        ) from error
    place = str(folder.resolve())
    submitted = executor.map_array(
        _Task(), [place] * len(jobs), [list(job) for job in jobs], [cores] * len(jobs)
    )
    waiting = dict(zip(submitted, jobs, strict=True))
    try:
        while waiting:
            for one in [one for one in waiting if one.done()]:
                job = waiting.pop(one)
                wrong = one.exception()
                if wrong is not None:
                    last = str(wrong).strip().splitlines()[-1]
                    fail_rest(folder, job, f"SLURM job {one.job_id}: {last}")
            look()
            threading.Event().wait(1)
    except KeyboardInterrupt:
        for one in waiting:
            one.cancel()
        raise
