"""Imported agents act as the code that trained them does, on the same noise.

    python -m validation.imports --checkout ryanxhr/vgf=PATH --checkout seohongpark/fql=PATH \\
        --checkout ColinQiyangLi/qam=PATH --checkout zhouzypaul/qgf=PATH

Each code, in a process of its own, makes an agent of its own, moves its networks by random numbers
so that none is 0, trains it by its own `update` on made-up transitions, saves it by its own
`save_agent`, and acts on random states with noise that its own random keys give. The checkpoint is
read by `vgf.runs.foreign`, and this package acts with that noise, in JAX in float32.
What would refute the claim: an action that differs by more than 2e-5. At bc44a67, BPTT of
zhouzypaul/qgf calls a function that it does not have, the rest of its sampler; it is given one.

Each agent's row is kept in the folder that VGF_VALIDATION_RUNS names (runs/imports): a run that was
stopped goes on there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vgf import get_backend
from vgf.runs.folder import git_revision
from vgf.runs.foreign import import_agent, read_arrays
from vgf.spec.operators import BPTT, QFQL, QGF, BestOfN, Gradient, Operator, Sample
from vgf.support.errors import VGFError
from vgf.support.files import read_json
from vgf.support.settings_tree import short_hash

from .authors import checkouts_of, revision
from .experiment import Data, Experiment, Verdict, add_arguments, command_line, exit_status, run_one
from .experiment import holds as all_hold
from .pages import Table
from .record import RUNS, write

TOLERANCE = 2e-5

# Run in the checkout: makes an agent, saves it, and acts. `case` is JSON from the command line.
_MAKE = """
import json, os, sys
import jax, jax.numpy as jnp, numpy as np
case = json.loads(sys.argv[1]); out = sys.argv[2]
sys.path.insert(0, os.getcwd())
import importlib
from utils.flax_utils import save_agent
module = importlib.import_module(case["module"])
config = module.get_config()
for key, value in case["config"].items():
    config[key] = value
o, d, b = 5, 3, 4
rng = np.random.default_rng(0)
s = rng.standard_normal((b, o)).astype(np.float32)
kind = getattr(module, case["agent"])
def rest_of_sampler(self, observations, a, start):
    n = self.config["denoise_steps"]
    for i in range(n):
        v = self.policy(observations, a, jnp.full(a.shape[:1], i / n))
        a = jnp.where((i >= start)[:, None], a + v / n, a)
    return a
if case["agent"] == "BPTTAgent" and not hasattr(kind, "_bc_flow_from"):
    kind._bc_flow_from = rest_of_sampler  # their code calls it and does not have it
one = case["style"] == "qam"  # its example is one row, the others' a batch
agent = kind.create(
    0, jnp.asarray(s[0] if one else s), jnp.zeros(d if one else (b, d), jnp.float32), config)
def shake(tree):
    return jax.tree_util.tree_map(
        lambda x: x + 0.1 * jnp.asarray(rng.standard_normal(x.shape), x.dtype), tree)
for name in ("network", "critic", "target_critic", "actor_bc", "q_grad", "policy", "value"):
    part = getattr(agent, name, None)
    if part is not None and hasattr(part, "params"):
        agent = agent.replace(**{name: part.replace(params=shake(part.params))})
lead = (b, case["chunk"]) if case["style"] in ("qam", "qgf") else (b,)
for _ in range(case["updates"]):
    batch = {
        "observations": rng.standard_normal((b, o)),
        "actions": rng.uniform(-1, 1, (*lead, d)),
        "rewards": rng.standard_normal(lead),
        "masks": np.ones(lead),
        "terminals": np.zeros(lead),
        "valid": np.ones(lead),
        "next_observations": rng.standard_normal((*lead, o)),
    }
    agent, _ = agent.update({key: jnp.asarray(x, jnp.float32) for key, x in batch.items()})
save_agent(agent, out, 1)
flags = {"agent": {k: v for k, v in config.to_dict().items()}, "env_name": "pointmaze-medium-v0"}
json.dump(flags, open(os.path.join(out, "flags.json"), "w"), default=str)
seed, n, full = jax.random.PRNGKey(3), case["particles"], d * case["chunk"]
kwargs = case["act"]
if case["style"] == "vgf":
    noise = jax.random.normal(jax.random.split(seed)[1], (n, full))
    a = np.stack([np.asarray(agent.sample_actions(x, seed=seed, **kwargs)) for x in s])
    noise = np.broadcast_to(noise, (b, n, full))
elif case["style"] == "fql":
    noise = jax.random.normal(jax.random.split(seed)[0], (b, full))[:, None]
    a = agent.sample_actions(s, seed=seed)
elif case["style"] == "qam":
    noise = jax.random.normal(jax.random.split(seed)[0], (b, n, full))
    a = agent.sample_actions(s, seed)
else:
    noise = jax.random.normal(seed, (b * n, full)).reshape(b, n, full)
    a = agent.sample_actions(s, seed=seed, rejection_sampling=n, **kwargs)
np.savez(os.path.join(out, "acted.npz"), s=s, noise=np.asarray(noise), a=np.asarray(a))
"""


@dataclass(frozen=True)
class Case:
    """One agent of one code, and the operator that acts as it does.

    Args:
        repository: whose checkout.
        module, agent: of its agent.
        style: how it draws its noise.
        operator: ours; None acts as the agent itself does.
        config: its settings that are changed.
        act: further arguments of its `sample_actions`.
        particles: N.
        chunk: actions in one decision.
    """

    name: str
    repository: str
    module: str
    agent: str
    style: str
    operator: Operator | None
    config: dict[str, Any] = field(default_factory=dict)
    act: dict[str, Any] = field(default_factory=dict)
    particles: int = 4
    chunk: int = 1


SMALL: dict[str, Any] = {"actor_hidden_dims": [16, 12, 8], "value_hidden_dims": [16, 12]}
_VGF = {**SMALL, "vgf_particles": 4, "vgf_lr": 0.05, "vgf_alpha": 0.5}
_QGF: dict[str, Any] = {
    "actor_hidden_dims": [16, 12, 8],
    "value_network_kwargs": {"hidden_dims": [16, 12], "layer_norm": True},
}
_CHUNKS = {"horizon_length": 3, "action_chunking": True}


def _target(operator: Operator) -> Operator:
    return replace(operator, particles=4, critic="target")


CASES = (
    *(
        Case(
            f"VGF, L = {steps}",
            "ryanxhr/vgf",
            "agents.vgf",
            "VGFAgent",
            "vgf",
            None,
            _VGF,
            {"eval_vgf_steps": steps},
        )
        for steps in (0, 1, 3)
    ),
    Case(
        "A-VGF, L = 2",
        "ryanxhr/vgf",
        "agents.a_vgf",
        "AVGFAgent",
        "vgf",
        None,
        {**SMALL, "vgf_particles": 4, "vgf_lr": 0.05},
        {"eval_vgf_steps": 2},
    ),
    Case("FQL", "seohongpark/fql", "agents.fql", "FQLAgent", "fql", Sample(), SMALL, particles=1),
    *(
        Case(name, "ColinQiyangLi/qam", "agents.qam", "QAMAgent", "qam", BestOfN(), config, chunk=h)
        for name, config, h in (
            ("QAM, best of 4", {**SMALL, "best_of_n": 4, "horizon_length": 1}, 1),
            ("QAM, chunks of 3", {**SMALL, "best_of_n": 4, **_CHUNKS}, 3),
            ("QAM, one-step", {**SMALL, "best_of_n": 4, "horizon_length": 1, "fql_alpha": 1.0}, 1),
        )
    ),
    *(
        Case(name, "zhouzypaul/qgf", module, agent, "qgf", _target(operator), config, act, chunk=h)
        for name, module, agent, operator, config, act, h in (
            ("QGF", "agents.qgf", "QGFAgent", QGF(weight=0.7), _QGF, {"guidance_weight": 0.7}, 1),
            (
                "QGF, chunks of 3",
                "agents.qgf",
                "QGFAgent",
                QGF(weight=0.7),
                {**_QGF, **_CHUNKS},
                {"guidance_weight": 0.7},
                3,
            ),
            (
                "QGF with Jacobian",
                "agents.qgf",
                "QGFAgent",
                QGF(weight=0.7, jacobian=True),
                {**_QGF, "apply_jacobian": True},
                {"guidance_weight": 0.7},
                1,
            ),
            (
                "QFQL",
                "agents.qgf",
                "QGFAgent",
                QFQL(weight=0.7),
                {**_QGF, "denoised_action_approx": "noisy"},
                {"guidance_weight": 0.7},
                1,
            ),
            (
                "BPTT, with the function that it lacks",
                "agents.bptt",
                "BPTTAgent",
                BPTT(weight=0.7),
                _QGF,
                {"guidance_weight": 0.7},
                1,
            ),
            (
                "GradStep",
                "agents.grad_step",
                "GradStepAgent",
                Gradient(steps=3, step_size=0.1),
                {**_QGF, "qgrad_steps": 3},
                {},
                1,
            ),
            (
                "GradStep, sign",
                "agents.grad_step",
                "GradStepAgent",
                Gradient(steps=3, step_size=0.1, sign=True),
                {**_QGF, "qgrad_steps": 3, "use_sign_gradient": True},
                {},
                1,
            ),
        )
    ),
)


def compare(case: Case, checkout: Path, updates: int) -> dict[str, Any]:
    """The largest difference between their actions and ours, after some updates of theirs."""
    told = {
        "updates": updates,
        "module": case.module,
        "agent": case.agent,
        "style": case.style,
        "config": case.config,
        "act": case.act,
        "particles": case.particles,
        "chunk": case.chunk,
    }
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", _MAKE, json.dumps(told), folder],
            cwd=checkout,
            capture_output=True,
            text=True,
            # compiling takes longest; an error that JAX shortens ends in a note on that
            env={
                **os.environ,
                "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
                "JAX_TRACEBACK_FILTERING": "off",
            },
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it failed"])[-1]
            raise VGFError(f"{case.repository}, {case.name}: {last}")
        place = Path(folder)
        flags = json.loads((place / "flags.json").read_text())
        found = import_agent(read_arrays(place / "params_1.pkl"), flags)
        acted = dict(np.load(place / "acted.npz"))
    backend = get_backend("jax", device="cpu", dtype="float32")
    state, s = backend.asarray(found.state), backend.asarray(acted["s"])
    noise = backend.asarray({"particles": acted["noise"], "select": np.zeros(len(acted["s"]))})
    if case.operator is None:
        budget = replace(found.settings.budget, steps=case.act["eval_vgf_steps"])
        a, _ = backend.act(state, s, budget, found.settings, noise=noise)
    else:
        a, _ = backend.operate(state, s, case.operator, found.settings, noise)
    apart = float(np.abs(backend.to_numpy(a) - acted["a"]).max())
    spread = float(acted["a"].std())
    return {"name": case.name, "code": case.repository, "apart": apart, "spread": spread}


@dataclass(frozen=True)
class Setup:
    """What is compared.

    Args:
        updates: of each agent, by its own code.
    """

    updates: int = 10


def measure(setup: Setup, checkouts: Mapping[str, str]) -> Data:
    """One row for each agent of the codes that are there; those that were made are kept."""
    folder = Path(os.environ.get(RUNS, Path("runs") / "imports"))
    revisions = {name: revision(path) for name, path in checkouts.items()}
    rows = []
    for case in CASES:
        if case.repository in checkouts:
            of = [asdict(case), asdict(setup), revisions[case.repository], git_revision()]
            place = folder / f"{short_hash(dict(enumerate(of)))}.json"
            if not place.exists():
                row = compare(case, Path(checkouts[case.repository]), setup.updates)
                print(row, flush=True)
                write(place, json.dumps(row))
            rows.append(read_json(place, dict))
    return {"rows": rows, "revisions": revisions}


def judge(data: Data) -> list[Verdict]:
    """All actions agree, for each code that was there."""
    found = []
    for code in dict.fromkeys(row["code"] for row in data["rows"]):
        rows = [row for row in data["rows"] if row["code"] == code]
        worst = max(row["apart"] for row in rows)
        names = ", ".join(row["name"] for row in rows)
        found.append(
            Verdict(
                f"agents of {code} act as theirs do",
                worst < TOLERANCE,
                f"{names}: actions differ by {worst:.1g} at most",
            )
        )
    return found


def tables(data: Data) -> list[Table]:
    """Every agent."""
    header = ("code", "agent", "largest difference of an action", "spread of the actions")
    rows = [[r["code"], r["name"], f"{r['apart']:.1e}", f"{r['spread']:.2f}"] for r in data["rows"]]
    return [Table("Actions of imported agents beside their own", header, rows)]


def remarks(data: Data) -> list[str]:
    """The revisions of the codes."""
    return ["; ".join(f"{name} {found}" for name, found in data["revisions"].items())]


def experiment(checkouts: Mapping[str, str] | None = None) -> Experiment:
    """The experiment for some checkouts."""
    about = (__doc__ or "").partition("PATH\n\n")[2].rpartition("\n\n")[0]
    return Experiment(
        name="imports",
        title="Imported agents act as the code that trained them",
        about=about,
        setup=Setup(),
        quick=Setup(updates=1),
        measure=lambda setup: measure(setup, checkouts or {}),
        judge=judge,
        tables=tables,
        remarks=remarks,
    )


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m validation.imports", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--checkout", metavar="OWNER/NAME=PATH", action="append", default=[], help="of a code"
    )
    add_arguments(parser)
    args = parser.parse_args(argv)
    checkouts = checkouts_of(parser, args.checkout)
    if not checkouts and not args.redraw:
        parser.error("name a checkout, such as --checkout ryanxhr/vgf=PATH")
    words = [f"--checkout {name}=PATH" for name in checkouts]
    command = command_line("imports", words)
    return exit_status(lambda: all_hold(run_one(experiment(checkouts), command, args)))


if __name__ == "__main__":
    sys.exit(main())
