"""Training beside its peers and beside the machine's limit, all in one run, by turns."""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backends import available_backends
from ..runs.folder import environment
from ..support.errors import VGFError
from ..support.files import expanded
from ..support.processes import usable_cores
from ..support.progress import progress
from . import ours, peers, roofs
from .interleave import MissingPackageError, Worker, calibrate, ratio, take_turns
from .limits import UnknownLimitError, flops, intensity, limit, state_bytes
from .machine import machine
from .work import Work

Data = dict[str, Any]
Say = Callable[[str], None]

PRODUCT = "product"
MEMORY, CACHE = 1 << 28, 1 << 22  # bytes: beyond any cache, and within most
_JAX_PRECISIONS = {"float32": "float32", "tf32": "tensorfloat32", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Peer:
    """Somebody else's code.

    Args:
        name: of :data:`vgf.bench.peers.PEERS`.
        checkout: where it lies.
        python: the interpreter that has what it needs.
    """

    name: str
    checkout: Path
    python: str

    def __post_init__(self) -> None:
        if self.name not in peers.PEERS:
            raise VGFError(f"--peer {self.name}: unknown; choose one of {', '.join(peers.PEERS)}")
        for agent in peers.PEERS[self.name].values():
            file = self.checkout / f"{agent.module.replace('.', '/')}.py"
            if not file.is_file():
                raise VGFError(
                    f"--peer {self.name}={self.checkout}: not a checkout of it, {file} is missing; "
                    f"git clone https://github.com/{self.name}"
                )

    def lacks(self, package: str) -> VGFError:
        """The error that says which package its Python lacks, and how to install it."""
        return VGFError(
            f"{self.name} needs {package}, which {self.python} lacks; install it: "
            f"{self.python} -m pip install {package}, or choose another --peer-python"
        )

    def revision(self) -> str | None:
        """The commit that is checked out, if git knows."""
        command = ["git", "-C", str(self.checkout), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() or None if done.returncode == 0 else None


def peer_from_flag(text: str, python: str) -> Peer:
    """A peer as `--peer OWNER/NAME=PATH` names it.

    Raises:
        VGFError: written otherwise, or as :class:`Peer`.
    """
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise VGFError(f"--peer {text}: write --peer OWNER/NAME=PATH, PATH being a checkout of it")
    return Peer(name, expanded(path), python)


@dataclass(frozen=True)
class Plan:
    """What is measured, and how.

    Args:
        works: the sizes.
        sides: of :data:`vgf.bench.ours.OURS`.
        peers: measured beside them, where they know the method.
        against: a record of this command, whose peers stand in for those not at hand.
        device, dtype: of our sides.
        matmul_precisions: of our sides; every work is measured in each.
        peer_matmul_precision: of the peers; None is that of our sides.
        rounds, block_seconds: as :func:`vgf.bench.interleave.take_turns`.
        libraries: of :data:`vgf.bench.roofs.LIBRARIES`, whose products and copies are tried.
        roof_sizes: bytes of what is copied in memory, and in the cache.
    """

    works: Sequence[Work]
    sides: Sequence[str]
    peers: Sequence[Peer] = ()
    against: Data | None = None
    device: str = "auto"
    dtype: str = "float32"
    matmul_precisions: Sequence[str] = ("float32",)
    peer_matmul_precision: str | None = None
    rounds: int = 7
    block_seconds: float = 1.0
    libraries: Sequence[str] = roofs.LIBRARIES
    roof_sizes: tuple[int, int] = (MEMORY, CACHE)

    def cases(self) -> list[Case]:
        """Every work in every precision."""
        return [Case(work, name) for work in self.works for name in self.matmul_precisions]


class Case(NamedTuple):
    """One work in one precision of our matrix products."""

    work: Work
    precision: str

    @property
    def title(self) -> str:
        """For people: the work's, and the precision where it is not that of the dtype."""
        title = self.work.title
        return title if self.precision == "float32" else f"{title}, {self.precision}"


def default_sides() -> list[str]:
    """The backends that are installed, each as it is fastest."""
    return [name for name in available_backends() if name != "numpy"] or ["numpy"]


def read_record(path: Path) -> Data:
    """What `vgf bench --out` has written.

    Raises:
        VGFError: no such file, or not a record.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VGFError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise VGFError(f"{path}: not JSON: {error}") from error
    if not isinstance(record, dict) or "kind" not in record:
        raise VGFError(f"{path}: not a record of vgf bench, which --out writes")
    return record


def read_against(path: Path) -> Data:
    """A record of training, made on this machine.

    Raises:
        VGFError: as :func:`read_record`; one of something else, or of another machine.
    """
    record = read_record(path)
    if record["kind"] != "training":
        raise VGFError(f"--against {path}: a record of {record['kind']}, not of training")
    here = machine()
    for key in ("processor", "cores"):
        if record["machine"].get(key) != here[key]:
            raise VGFError(
                f"--against {path}: measured on another machine ({key} "
                f"{record['machine'].get(key)}, here {here[key]}); a ratio would say nothing"
            )
    return record


def measure(plan: Plan, say: Say = lambda line: None) -> Data:
    """Measure the machine, then every work of a plan.

    Args:
        plan: what is measured.
        say: takes a table for each work as soon as it is there.

    Returns:
        What JSON can hold: the environment, the machine, its roofs and a row for each work.

    Raises:
        VGFError: what is wrong with the request, or cannot be run.
    """
    found: Data = {
        "kind": "training",
        "environment": environment(),
        "machine": machine(),
        "plan": {
            key: getattr(plan, key)
            for key in (
                "device",
                "dtype",
                "matmul_precisions",
                "peer_matmul_precision",
                "rounds",
                "block_seconds",
            )
        },
        "peers": {
            peer.name: {"revision": peer.revision(), "versions": None} for peer in plan.peers
        },
    }
    found["roofs"] = measure_roofs(plan)
    say(roof_text(found["roofs"]))
    found["rows"] = []
    cases = plan.cases()
    # a GPU has room for all, and the host compiles them side by side
    on_gpu = found["roofs"]["device"] != "cpu"
    for group in [cases] if on_gpu else [[case] for case in cases]:
        with ExitStack() as stack:
            for case, sides in zip(group, _start(plan, group, found, stack), strict=True):
                found["rows"].append(measure_case(plan, case, sides, found))
                say(row_text(found["rows"][-1]))
    return found


class Side(NamedTuple):
    """A process at work, and what it says of itself."""

    worker: Worker
    about: Data


# --- the machine ---------------------------------------------------------------------------------


def measure_roofs(plan: Plan) -> Data:
    """The rate of matrix products and copies, by every library that is installed.

    Returns:
        "device", and the "device_name" of a GPU; "products", a list; "bandwidth", bytes/s to and
        from "memory" and "cache".
    """
    sizes = sorted({(work.batch_size * work.particles, work.width) for work in plan.works})
    largest = max(sizes, key=lambda size: size[0] * size[1] ** 2)
    wanted = [(name, size) for name in plan.matmul_precisions for size in sizes]
    with ExitStack() as stack:
        workers = _roof_workers(plan, stack)
        device, called = _device(workers)
        extra = ["bf16", *(["tf32"] if device != "cpu" else [])]
        wanted += [(name, largest) for name in extra if name not in plan.matmul_precisions]
        products = []
        with progress(len(wanted) + 2, "the machine's limits", "limit") as bar:
            for precision, (m, k) in wanted:
                options = {
                    "what": PRODUCT,
                    "m": m,
                    "k": k,
                    "device": plan.device,
                    "dtype": plan.dtype,
                    "matmul_precision": precision,
                }
                libraries = [name for name in workers if name != "numpy" or precision == "float32"]
                rates = _rates(plan, workers, libraries, options, 2.0 * m * k * k)
                products += [
                    {"library": library, "precision": precision, "m": m, "k": k, "rate": rate}
                    for library, rate in rates.items()
                ]
                bar.update()
            bandwidth = {}
            for name, size in zip(("memory", "cache"), plan.roof_sizes, strict=True):
                options = {"what": "copy", "size": size, "device": plan.device}
                bandwidth[name] = max(
                    _rates(plan, workers, list(workers), options, 2.0 * size).values()
                )
                bar.update()
    if bandwidth["cache"] < bandwidth["memory"]:
        del bandwidth["cache"]  # on a GPU such a copy takes no longer than to start it
    return {"device": device, "device_name": called, "products": products, "bandwidth": bandwidth}


def _roof_workers(plan: Plan, stack: ExitStack) -> dict[str, Side]:
    """A worker for each library that can use the device, and which device that is."""
    found: dict[str, Side] = {}
    for library in plan.libraries:
        if library not in available_backends() or (
            library == "numpy" and plan.device not in ("auto", "cpu")
        ):
            continue
        worker = stack.enter_context(Worker(library))
        about = worker.start(
            roofs.__name__, what="copy", library=library, size=8, device=plan.device
        )
        found[library] = Side(worker, about)
    on_gpu = {name: side for name, side in found.items() if side.about["device"] != "cpu"}
    return on_gpu or found


def _device(workers: Mapping[str, Side]) -> tuple[str, str | None]:
    """The device in use, and what it calls itself."""
    about = next(iter(workers.values())).about
    return about["device"], about["device_name"]


def device_in_use(device: str) -> str:
    """The device that "auto" or another word means here, for the fastest backend installed.

    Raises:
        BackendError: there is none such.
    """
    with ExitStack() as stack:
        return _device(_roof_workers(Plan((), (), device=device), stack))[0]


def _rates(
    plan: Plan, workers: Mapping[str, Side], libraries: Sequence[str], options: Data, amount: float
) -> dict[str, float]:
    """The best rate of each library, in `amount` a second."""
    timers, counts = {}, {}
    for library in libraries:
        worker = workers[library].worker
        worker.start(roofs.__name__, library=library, **options)
        timers[library] = worker.time
        counts[library] = calibrate(worker.time, plan.block_seconds / 5)
    times = take_turns(timers, counts, max(2, plan.rounds // 2))
    return {library: amount / min(seconds) for library, seconds in times.items()}


def best_product(machine_roofs: Data, work: Work, precision: str) -> Data:
    """The fastest library at the sizes of a work."""
    size = work.batch_size * work.particles, work.width
    rows = [
        row
        for row in machine_roofs["products"]
        if (row["m"], row["k"]) == size and row["precision"] == precision
    ]
    best: Data = max(rows, key=lambda row: row["rate"])
    return best


# --- one work ------------------------------------------------------------------------------------


def measure_case(plan: Plan, case: Case, started: Mapping[str, Side], found: Data) -> Data:
    """All sides of a case by turns, with bare products of the same size among them."""
    work, best = case.work, best_product(found["roofs"], *case)
    workers = {name: side.worker for name, side in started.items()}
    about = {name: side.about for name, side in started.items()}
    for name, told in about.items():
        if name in found["peers"]:
            found["peers"][name]["versions"] = told["versions"]
    counts = {}
    with progress(len(workers) * (plan.rounds + 1), work.name, "block") as bar:
        for name, worker in workers.items():
            counts[name] = calibrate(worker.time, plan.block_seconds)
            worker.idle = 0.0
            bar.update()
        timers = {name: worker.time for name, worker in workers.items()}
        times = take_turns(timers, counts, plan.rounds, bar.update)
    memory = {name: worker.memory() for name, worker in workers.items()}
    idle = {name: worker.idle for name, worker in workers.items()}
    bandwidth = found["roofs"]["bandwidth"]["memory"]
    sides = {}
    for name, seconds in times.items():
        if name == PRODUCT:
            continue
        mine = name in ours.OURS
        # a unit of ours is an update of every agent
        seconds = [s / work.seeds for s in seconds] if mine else seconds
        sides[name] = {
            "ours": mine,
            "seconds": seconds,
            "count": counts[name],
            "memory": memory[name],
            "idle": idle[name],
            "device": about[name]["device"],
        }
    row: Data = {
        "name": work.name,
        "title": case.title,
        "work": dataclasses.asdict(work),
        "matmul_precision": case.precision,
        "peer_matmul_precision": plan.peer_matmul_precision or case.precision,
        **_counted(work, plan.dtype),
        "product": {
            "library": best["library"],
            "seconds": times[PRODUCT],
            "idle": idle[PRODUCT],
            "flops": 2 * best["m"] * best["k"] ** 2,
        },
        "sides": sides,
    }
    return compare(row, bandwidth, plan.against)


def _counted(work: Work, dtype: str) -> Data:
    """The operations and bytes of an update, or why they are not known."""
    try:
        return {
            "flops": flops(work),
            "state_bytes": state_bytes(work, dtype),
            "intensity": intensity(work, dtype),
        }
    except UnknownLimitError as error:
        return {"no_limit": str(error)}


def compare(row: Data, bandwidth: float, against: Data | None = None) -> Data:
    """A measured row with what follows from its times: ratios, and fractions of the limit.

    Args:
        row: of :func:`measure_case`.
        bandwidth: bytes/s.
        against: as :class:`Plan`.
    """
    if "no_limit" not in row:
        row["limit_seconds"] = [
            limit(row["flops"], row["state_bytes"], row["product"]["flops"] / seconds, bandwidth)
            for seconds in row["product"]["seconds"]
        ]
    recorded = _recorded(row, against)
    for side in row["sides"].values():
        if "no_limit" not in row:
            # a limit is what a side cannot be faster than: as if it were the slower of two
            side["of_limit"] = ratio(side["seconds"], row["limit_seconds"])
        if not side["ours"]:
            continue
        side["ratios"] = {
            name: {**ratio(side["seconds"], other["seconds"]), "interleaved": True}
            for name, other in row["sides"].items()
            if not other["ours"]
        }
        mine = statistics.median(side["seconds"])
        for name, seconds in recorded.items():
            side["ratios"][name] = {
                "median": statistics.median(seconds) / mine,
                "low": min(seconds) / mine,
                "high": max(seconds) / mine,
                "interleaved": False,
            }
    return row


def _recorded(row: Data, against: Data | None) -> dict[str, list[float]]:
    """The times of peers that are not in a row, out of a record of the same work."""
    same = "matmul_precision", "peer_matmul_precision"
    for other in (against or {"rows": []})["rows"]:
        if other["work"] == {**row["work"], "seeds": 1} and all(row[k] == other[k] for k in same):
            return {
                name: side["seconds"]
                for name, side in other["sides"].items()
                if not side["ours"] and name not in row["sides"]
            }
    return {}


class _Launch(NamedTuple):
    """How a side of a case comes to be; cases share what has the same key."""

    name: str
    key: tuple[Any, ...]
    make: Callable[[], Worker]
    begin: Callable[[Worker], Data]


def _start(
    plan: Plan, cases: Sequence[Case], found: Data, stack: ExitStack
) -> list[dict[str, Side]]:
    """The sides of some cases, each in training and compiled; started at the same time."""
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vgf-bench-")))
    started: list[dict[str, tuple[Worker, Future[Data]]]] = []
    running: dict[tuple[Any, ...], tuple[Worker, Future[Data]]] = {}
    with ThreadPoolExecutor(usable_cores()) as pool:
        for i, case in enumerate(cases):
            data = scratch / f"{i}.npz"
            np.savez(data, **case.work.dataset())  # type: ignore[arg-type]
            started.append({})
            for launch in _launches(plan, case, data, found):
                if launch.key not in running:
                    worker = stack.enter_context(launch.make())
                    running[launch.key] = worker, pool.submit(launch.begin, worker)
                started[-1][launch.name] = running[launch.key]
    return [
        {name: Side(worker, done.result()) for name, (worker, done) in waiting.items()}
        for waiting in started
    ]


def _launches(plan: Plan, case: Case, data: Path, found: Data) -> Iterator[_Launch]:
    """The sides that know the method, and a bare product of the same size."""
    work, precision = case
    sizes, on_gpu = dataclasses.asdict(work), found["roofs"]["device"] != "cpu"
    options: dict[str, Any] = {
        "device": plan.device,
        "dtype": plan.dtype,
        "matmul_precision": precision,
    }
    theirs_is = plan.peer_matmul_precision or precision
    variables = {"JAX_DEFAULT_MATMUL_PRECISION": _JAX_PRECISIONS[theirs_is]}
    if not on_gpu:
        variables["JAX_PLATFORMS"] = "cpu"

    def train(worker: Worker, side: str) -> Data:
        return _begin(worker, ours.__name__, side=side, work=sizes, data=str(data), **options)

    def train_peer(worker: Worker, peer: Peer) -> Data:
        try:
            about = _begin(
                worker,
                peers.__file__,
                peer=peer.name,
                checkout=str(peer.checkout),
                work=sizes,
                data=str(data),
            )
        except MissingPackageError as error:
            raise peer.lacks(error.package) from error
        if on_gpu and about["device"] == "cpu":
            raise VGFError(
                f"{peer.name} runs on the CPU and vgf on a GPU; install the CUDA build of jax "
                f"for {peer.python}, or compare on --device cpu"
            )
        return about

    for side in plan.sides:
        yield _Launch(
            side, (side, case), partial(Worker, f"vgf ({side})"), partial(train, side=side)
        )
    one = dataclasses.replace(work, seeds=1)
    for peer in plan.peers:
        if work.method in peers.PEERS[peer.name]:
            yield _Launch(
                peer.name,
                (peer.name, one, theirs_is),
                partial(Worker, peer.name, peer.python, variables),
                partial(train_peer, peer=peer),
            )
    best = best_product(found["roofs"], work, precision)
    size: dict[str, Any] = {name: best[name] for name in ("library", "m", "k")}
    yield _Launch(
        PRODUCT,
        (PRODUCT, *size.values(), precision),
        partial(Worker, PRODUCT),
        partial(_begin, module=roofs.__name__, what=PRODUCT, **size, **options),
    )


def _begin(worker: Worker, module: str, **options: Any) -> Data:
    """Start a worker's work and do it once, which compiles it."""
    about = worker.start(module, **options)
    worker.time(1)
    return about


# --- as text -------------------------------------------------------------------------------------


def spell_rate(rate: float) -> str:
    """FLOP/s as GFLOP/s."""
    return f"{rate / 1e9:,.0f}" if rate >= 1e11 else f"{rate / 1e9:.3g}"


def roof_text(found: Data) -> str:
    """The machine's limits, in 80 columns."""
    from ..support.tables import format_table

    rows: dict[tuple[str, str], dict[str, str]] = {}
    for product in found["products"]:
        key = f"[{product['m']}, {product['k']}]^2", product["precision"]
        line = rows.setdefault(
            key,
            {
                "product": f"{product['m']} x {product['k']} x {product['k']}",
                "precision": product["precision"],
            },
        )
        line[product["library"]] = spell_rate(product["rate"])
    libraries = dict.fromkeys(product["library"] for product in found["products"])
    table = [
        {
            "product": line["product"],
            "precision": line["precision"],
            **{library: line.get(library, "") for library in libraries},
        }
        for line in rows.values()
    ]
    copies = ", ".join(f"{name} {rate / 1e9:.1f}" for name, rate in found["bandwidth"].items())
    return (
        f"limits of {found['device']}: matrix products, GFLOP/s\n{format_table(table)}\n"
        f"copying, GB/s read and written: {copies}\n"
    )


def row_text(row: Data) -> str:
    """One work as a table of its sides, in 80 columns."""
    from ..support.tables import format_table

    lines = []
    for name, side in row["sides"].items():
        median = statistics.median(side["seconds"])
        line = {
            "": name,
            "ms": f"{1e3 * median:.4g}",
            "updates/s": f"{1 / median:.4g}",
            **_of_limit(side),
            "MB": f"{(side['memory']['device'] or side['memory']['host']) / 1e6:,.0f}",
        }
        for peer, found in side.get("ratios", {}).items():
            line[f"x {peer}"] = spell_ratio(found)
        lines.append(line)
    names = list(dict.fromkeys(name for line in lines for name in line))
    table = format_table([{name: line.get(name, "") for name in names} for line in lines])
    text = f"{row['title']}\n{_limit_text(row)}\n{table}\n"
    if "*" in table:
        text += "* against a recorded time, not by turns\n"
    return text


def _of_limit(side: Data) -> dict[str, str]:
    """A column of a table: how near a side comes to the limit, where that is known."""
    if "of_limit" not in side:
        return {}
    return {"of limit": f"{100 * side['of_limit']['median']:.0f} %"}


def _limit_text(row: Data) -> str:
    """What an update takes at the least, or why that is not known, in 80 columns."""
    if "no_limit" in row:
        return textwrap.fill(row["no_limit"], 80, break_on_hyphens=False)
    least = statistics.median(row["limit_seconds"])
    rate = statistics.median(row["product"]["flops"] / s for s in row["product"]["seconds"])
    return (
        f"{row['flops'] / 1e9:.4g} GFLOP, at {rate / 1e9:,.0f} GFLOP/s "
        f"({row['product']['library']}) {1e3 * least:.4g} ms at the least"
    )


def spell_ratio(found: Data) -> str:
    """A ratio with its lowest and highest round; a star where it was not taken by turns."""
    star = "" if found["interleaved"] else "*"
    return f"{found['median']:.2f}{star} ({found['low']:.2f}-{found['high']:.2f})"
