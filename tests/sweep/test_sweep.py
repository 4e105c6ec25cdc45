"""Sweeps: what they run, that nothing is lost when something dies, and that a sick run is alone."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import needs
import pytest
from needs import SECONDS, need

from vgf.cli import main
from vgf.runs.checkpoint import ARRAYS, checkpoint_path, latest_step
from vgf.support.errors import VGFError
from vgf.sweep.engines import run_ray, run_slurm
from vgf.sweep.folder import cell_names, states, summary, write_cells
from vgf.sweep.spec import read_spec
from vgf.sweep.worker import share

need("ogbench")

TASK = "pointmaze-medium-navigate-singletask-task1-v0"
SPEC = """
tasks = ["pointmaze-medium-navigate-singletask-task1-v0"]
methods = ["bc"]
seeds = {seeds}
[settings]
train = {{ steps = {steps}, batch_size = 8, log_every = 10, evaluate_every = {steps}, \
checkpoint_every = {every} }}
task = {{ data_episodes = 2, data_dir = "{data}", action_repeat = 8 }}
evaluation = {{ episodes = 1, steps = [0], workers = 0 }}
agent = {{ critic = {{ hidden = [8] }}, reference = {{ hidden = [8] }} }}
backend = {{ name = "numpy" }}
{more}
"""


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def write_spec(
    folder: Path, data: Path, seeds: object = 2, steps: int = 100, more: str = "", every: int = 20
) -> Path:
    path = folder / "spec.toml"
    path.write_text(SPEC.format(seeds=seeds, steps=steps, data=data, more=more, every=every))
    return path


def sweep(spec: Path, out: Path, *words: str) -> int:
    return main(["sweep", str(spec), "--out", str(out), "--no-estimate", *words])


def last_arrays(folder: Path) -> dict[str, bytes]:
    """The arrays of every run's last checkpoint, and its logs."""
    found = {}
    for name in cell_names(folder):
        place = folder / "runs" / name
        step = latest_step(place)
        if step is None:
            continue
        found[name] = (checkpoint_path(place, step) / ARRAYS).read_bytes()
        found[f"{name} evaluations"] = (place / "evaluations.jsonl").read_bytes()
    return found


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def processes_of(folder: Path) -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in (entry / "cmdline").read_bytes():
                yield int(entry.name)


# --- what is run ----------------------------------------------------------------------------------


def test_a_spec_is_expanded(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(
        'tasks = ["a-v0", "b-v0"]\nmethods = ["vgf", "fql"]\nseeds = [3, 5]\n'
        '[settings.train]\nsteps = 70\n[grid]\n"train.batch_size" = [8, 16]\n'
    )
    cells = read_spec(path)
    assert len(cells) == 16
    one = cells["a-v0-fql-batch_size=16-seed-5"]
    assert (one.task.env, one.agent.method, one.seed) == ("a-v0", "fql", 5)
    assert (one.train.steps, one.train.batch_size, one.seeds) == (70, 16, 1)


def test_the_papers_groups(tmp_path: Path) -> None:
    """A family is its offline presets; another method keeps the task."""
    path = tmp_path / "spec.toml"
    path.write_text('presets = "ogbench-avgf"\nseeds = 2\n')
    cells = read_spec(path)
    assert len(cells) == 100
    assert {one.agent.method for one in cells.values()} == {"avgf"}
    assert len({one.task.env for one in cells.values()}) == 50
    path.write_text('presets = ["cube-single-task2-avgf"]\nmethods = ["avgf", "fql"]\n')
    assert list(read_spec(path)) == [
        "cube-single-task2-avgf-seed-0",
        "cube-single-task2-fql-seed-0",
    ]


def test_methods_of_one_class_name_are_told_apart(tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("from vgf.methods.bc import BC\nclass Mine(BC): pass\n")
    path = tmp_path / "spec.toml"
    path.write_text(f'tasks = ["a-v0"]\nmethods = ["{tmp_path}/a.py:Mine", "{tmp_path}/b.py:Mine"]')
    assert list(read_spec(path)) == ["a-v0-a.py-Mine-seed-0", "a-v0-b.py-Mine-seed-0"]
    path.write_text(f'tasks = ["a-v0"]\nmethods = ["{tmp_path}/a.py:Mine"]')
    assert list(read_spec(path)) == ["a-v0-Mine-seed-0"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("taks = []", "unknown key taks; did you mean tasks?"),
        ("seeds = 2", "name either tasks or presets"),
        ('presets = "ogbench-agvf"', "did you mean ogbench-avgf?"),
        ('tasks = ["a"]\nmethods = ["fqll"]', "a: .*fqll.*choose one of vgf"),
        ('tasks = ["a"]\nseeds = 0', "it must be a number of seeds, or a list"),
        ('tasks = ["a"]\nseeds = [1, 1]', "a-vgf-seed-1 is there twice"),
        ('tasks = ["a"]\n[settings]\ntrain = { stepz = 1 }', "unknown key train.stepz; did you"),
        ('tasks = ["a"]\n[settings]\nseed = 1', "seed is the sweep's own"),
        ('tasks = ["a"]\n[grid]\n"train.steps" = 5', "it must be a list of values"),
    ],
)
def test_wrong_specs(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(text)
    with pytest.raises(VGFError, match=words) as error:
        read_spec(path)
    assert str(error.value).startswith(str(path))


def test_what_a_folder_holds_is_not_changed(tmp_path: Path) -> None:
    """More runs may come; none changes or goes."""
    path, out = tmp_path / "spec.toml", tmp_path / "out"
    path.write_text('tasks = ["a"]\nseeds = 1')
    write_cells(out, read_spec(path))
    path.write_text('tasks = ["a"]\nseeds = 2')
    write_cells(out, read_spec(path))
    assert summary(states(out)) == "2 runs: 2 not started"
    path.write_text('tasks = ["a"]\nseeds = [1]')
    with pytest.raises(VGFError, match="has a-vgf-seed-0, which the file no longer names"):
        write_cells(out, read_spec(path))
    path.write_text('tasks = ["a"]\nseeds = 2\n[settings.train]\nsteps = 1')
    with pytest.raises(VGFError, match="has a-vgf-seed-0 with other settings"):
        write_cells(out, read_spec(path))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(VGFError, match="is not a sweep's"):
        write_cells(tmp_path / "other", read_spec(path))
    assert main(["sweep", "--status", str(tmp_path / "other")]) == 2


# --- running --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "device", "words", "sizes", "at_once"),
    [
        ("jax", "gpu:0", [], [3, 3], 1),
        ("jax", "gpu:0", ["--no-together"], [1] * 6, 1),
        ("jax", "gpu:0", ["--jobs", "2"], [3, 3], 2),
        ("torch", "gpu:0", [], [1] * 6, 1),
        ("numpy", "cpu", ["--jobs", "4"], [1] * 6, 4),
        ("numpy", "cpu", ["--together", "--jobs", "4"], [3, 3], 4),
    ],
)
def test_a_shared_gpu(
    backend: str,
    device: str,
    words: list[str],
    sizes: list[int],
    at_once: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One job at a time, JAX's seeds side by side, and no process takes the memory of others."""
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    made: list[tuple[list[int], int]] = []

    def engine(folder: Path, jobs: list[list[str]], at_once: int, cores: int, look: object) -> None:
        assert share(cores)["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
        made.append(([len(job) for job in jobs], at_once))

    fake = SimpleNamespace(name=backend, device=device)
    monkeypatch.setattr("vgf.runs.agent.make_backend", lambda settings: fake)
    monkeypatch.setattr("vgf.sweep.engines.run_local", engine)
    monkeypatch.setattr("vgf.cli.sweep._make_data", lambda cells, folder: set())
    spec = tmp_path / "spec.toml"
    spec.write_text(f"tasks = {[TASK, TASK.replace('task1', 'task2')]}\nseeds = 3")
    assert sweep(spec, tmp_path / "out", *words) == 1  # nothing was made
    assert made == [(sizes, at_once)]
    assert ("on the GPU one job at a time" in capsys.readouterr().out) == (at_once == 1)


def test_a_task_that_no_benchmark_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(f"tasks = ['{TASK}', '{TASK.replace('medium', 'medim')}']")
    assert sweep(spec, tmp_path / "out", "--dry-run") == 2
    said = capsys.readouterr().err
    assert str(spec) in said
    assert f"did you mean {TASK}" in said


@pytest.mark.slow
def test_the_status_while_runs_are_made(tmp_path: Path, data: Path) -> None:
    """It can be asked for at any moment, also while checkpoints and rows are replaced."""
    spec, out = write_spec(tmp_path, data, 2, 300), tmp_path / "out"
    write_cells(out, read_spec(spec))
    command = [sys.executable, "-c", "import sys; from vgf.cli import main; sys.exit(main())"]
    command += ["sweep", str(spec), "--out", str(out), "--no-estimate"]
    child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    seen = []
    while child.poll() is None:
        cells = states(out)
        assert len(cells) == 2
        seen.append(summary(cells))
    assert child.returncode == 0
    assert len(set(seen)) > 1
    assert summary(states(out)) == "2 runs: 2 finished"


def test_a_page_of_what_has_not_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "spec.toml", tmp_path / "out"
    path.write_text(f"tasks = ['{TASK}']\nseeds = 2")
    write_cells(out, read_spec(path))
    assert main(["report", str(out)]) == 0
    assert "2 runs, 2 of them not started" in capsys.readouterr().out


def test_a_damaged_run_can_be_asked_about(tmp_path: Path) -> None:
    """A checkpoint that cannot be read is not finished, and does not hide the others."""
    path, out = tmp_path / "spec.toml", tmp_path / "out"
    path.write_text(f"tasks = ['{TASK}']\nseeds = 2\n[settings.train]\nsteps = 3")
    write_cells(out, read_spec(path))
    (one, _) = cell_names(out)
    place = checkpoint_path(out / "runs" / one, 3)
    place.mkdir(parents=True)
    (place / "state.json").write_text('{"ext')
    (out / "runs" / one / "metrics.jsonl").write_text('{"step": "')
    (out / "runs" / one / "config.toml").write_bytes((out / "cells" / f"{one}.toml").read_bytes())
    assert summary(states(out)) == "2 runs: 1 stopped, 1 not started"


@pytest.mark.slow
def test_seeds_side_by_side_are_runs_like_others(tmp_path: Path, data: Path) -> None:
    """A folder each, and the same bits as alone."""
    spec = write_spec(tmp_path, data, 2, 40)
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert sweep(spec, alone) == sweep(spec, both, "--together") == 0
    assert last_arrays(both) == last_arrays(alone)
    assert len(list((both / "logs").glob("*.log"))) == 1


@pytest.mark.full
def test_one_sick_run_fails_alone(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told with its one line, in the status and in the comparison, and can be retried."""
    more = '[grid]\n"agent.learning_rate" = [1e-3, 1e200]'
    spec, out = write_spec(tmp_path, data, 1, 40, more), tmp_path / "out"
    assert sweep(spec, out, "--dry-run") == 0
    assert not out.exists()
    assert sweep(spec, out) == 1
    text = capsys.readouterr().out
    assert "2 runs: 1 finished, 1 failed" in text
    assert "training diverged" in text
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 80
    assert {cell.state for cell in states(out)} == {"finished", "failed"}
    assert main(["compare", str(out), "--resamples", "20"]) == 0
    assert "failed: bc learning_rate=1e+200" in capsys.readouterr().out
    assert main(["sweep", "--status", str(out)]) == 0
    (failed,) = (out / "failed").glob("*.txt")
    failed.write_text("the disk was full\n")  # it goes on from there
    assert sweep(spec, out, "--retry-failed") == 1
    assert "training diverged" in failed.read_text()
    log = (out / "sweep.log").read_text()
    assert "to be tried again" in log
    page = (out / "report.html").read_text()  # every run on one page, with links to their own
    links = re.findall(r'<a href="([^"]+)"', page)
    assert len(links) == 1
    assert (out / unquote(links[0])).is_file()
    assert "<td>failed" in page
    assert "training diverged" in page


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_sweep(tmp_path: Path, data: Path) -> None:
    """What was killed goes on from its last checkpoints, bit for bit."""
    spec = write_spec(tmp_path, data, 2, 3_000)
    assert sweep(spec, tmp_path / "straight") == 0
    out = tmp_path / "killed"
    command = [sys.executable, "-c", "import sys; from vgf.cli import main; sys.exit(main())"]
    command += ["sweep", str(spec), "--out", str(out), "--no-estimate", "--jobs", "2"]

    def begin() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)

    def wait_for(step: int) -> None:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if any((latest_step(place) or 0) >= step for place in (out / "runs").glob("*")):
                return
            time.sleep(0.02)
        raise AssertionError("no checkpoint came")

    child = begin()
    wait_for(40)
    workers = [pid for pid in processes_of(out) if pid != child.pid]
    assert workers
    os.kill(workers[0], signal.SIGKILL)  # one worker: the sweep begins it again
    wait_for(400)
    child.kill()
    child.wait()
    for pid in processes_of(out):  # and the whole sweep
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert "finished" not in {cell.state for cell in states(out)}
    assert sweep(spec, out) == 0
    assert last_arrays(out) == last_arrays(tmp_path / "straight")
    assert summary(states(out)) == "2 runs: 2 finished"


def lose_nodes(tmp_path: Path, data: Path) -> None:
    """Three nodes, two of them killed with what they were making: every run ends as it should."""
    import ray
    from ray.cluster_utils import Cluster

    spec = write_spec(tmp_path, data, 4, 1_500)
    straight, out = tmp_path / "straight", tmp_path / "ray"
    assert sweep(spec, straight) == 0
    write_cells(out, read_spec(spec))
    # seconds of work, for nodes to be lost in; a folder is sent between two checkpoints
    updates, alone, sent = 9_000, tmp_path / "alone", tmp_path / "sent"
    assert sweep(write_spec(tmp_path, data, 1, updates, every=250), alone) == 0
    write_cells(sent, read_spec(write_spec(tmp_path, data, 4, updates, every=250)))
    jobs = [[name] for name in cell_names(out)]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    killed: list[int] = []
    killed_sending: list[int] = []

    def kill_nodes() -> None:
        at_work = [(latest_step(place) or 0) for place in (out / "runs").glob("*")]
        if (
            len(killed) < 2
            and any(40 <= step < 1_400 for step in at_work)
            and len(at_work) > 2 * len(killed)
        ):
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            killed.append(max(at_work))
            nodes.insert(0, cluster.add_node(num_cpus=1))

    (name,) = jobs[0]
    log = sent / "logs" / f"{name}.log"

    def kill_all() -> None:
        """Once something came; then what comes until the run goes on, from the last of it."""
        step = latest_step(sent / "runs" / name)
        if not step or (log.exists() and "continuing after" in log.read_text()):
            return
        if nodes:
            while nodes:
                cluster.remove_node(nodes.pop(), allow_graceful=False)
            cluster.add_node(num_cpus=1)
        killed_sending[:] = [step]

    try:
        ray.init(address=cluster.address, log_to_driver=False)
        run_ray(out, jobs, cluster.address, 1, 0, False, kill_nodes)
        run_ray(sent, jobs[:1], cluster.address, 1, 0, True, kill_all)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert killed
    assert summary(states(out)) == "4 runs: 4 finished"
    assert last_arrays(out) == last_arrays(straight)
    assert summary(states(sent)) == "4 runs: 1 finished, 3 not started"
    (step,) = killed_sending
    assert 0 < step < updates
    assert f"continuing after {step:,}" in log.read_text()
    one, other = (last_arrays(folder) for folder in (sent, alone))
    assert {key: one[key] for key in (name, f"{name} evaluations")}.items() <= other.items()
    assert files_of(sent / "runs" / name) == files_of(alone / "runs" / name)


@pytest.mark.slow
def test_a_ray_cluster_loses_nodes(tmp_path: Path, data: Path) -> None:
    """In a process of its own: Ray leaves the outputs of the one that started it closed."""
    need("ray")
    path = os.pathsep.join([str(Path(needs.__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path), str(data)],
        env={**os.environ, "PYTHONPATH": path},
        timeout=SECONDS,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_submitit(tmp_path: Path, data: Path) -> None:
    """A job array, with submitit's executor of this machine in SLURM's place."""
    need("submitit")
    closed: list[bool] = []
    of_others = logging.NullHandler()
    of_others.close = lambda: closed.append(True)  # type: ignore[method-assign]
    spec, out = write_spec(tmp_path, data, 2, 40), tmp_path / "out"
    assert sweep(spec, out, "--engine", "slurm", "--slurm", "cluster=local", "timeout_min=5") == 0
    assert summary(states(out)) == "2 runs: 2 finished"
    assert not closed
    assert sweep(spec, tmp_path / "straight") == 0
    assert last_arrays(out) == last_arrays(tmp_path / "straight")
    write_cells(tmp_path / "more", read_spec(spec))
    with pytest.raises(VGFError, match=r"--engine slurm: .*no_such"):
        run_slurm(tmp_path / "more", [], 1, 1, {"cluster": "local", "no_such": 1}, lambda: None)


if __name__ == "__main__":
    lose_nodes(*map(Path, sys.argv[1:]))
