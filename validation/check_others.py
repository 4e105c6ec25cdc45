"""Who agrees with what: `vgf check` on other people's implementations, as a conformance table.

    python -m validation.check_others --checkout ryanxhr/vgf=PATH --checkout seohongpark/fql=PATH

Packages are checked as installed, repositories as checked out at a PATH (or in --checkouts FOLDER,
as owner+name); whatever is missing keeps the finding of the last time, with its date. The adapters
below are ours, the functions are theirs: none of their code is copied. A difference is a finding,
often a convention, and not a failure: validation/deviations.toml holds those known, with their
reason. Writes validation/results/check-others.md, .json and badges/. The exit status is 1 if a
difference is new, or a known one has vanished.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import json
import re
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from vgf import spec
from vgf.checker.agents import AgentResult, check_agent
from vgf.support.errors import VGFError
from vgf.support.toml import read_toml
from vgf.testing import Adapter, check_function

from .agents import AGENTS, Authors
from .record import RESULTS, environment, markdown_table, write, write_json

Build = Callable[..., tuple[Any, Adapter]]


@dataclasses.dataclass(frozen=True)
class Case:
    """Somebody else's function or agent, and as what it is checked.

    Attributes:
        source: a package, or owner/name of a repository.
        what: the function, as its authors call it.
        name: the equation it is checked as.
        build: makes it callable, given the checkout for a repository.
    """

    source: str
    what: str
    name: str
    build: Build


CASES: list[Case] = []


def case(source: str, what: str, name: str) -> Callable[[Build], Build]:
    """Register a function to check."""

    def register(build: Build) -> Build:
        CASES.append(Case(source, what, name, build))
        return build

    return register


# --- packages: kernels and SVGD ------------------------------------------------------------------


@case("blackjax", "vi.svgd.rbf_kernel", "rbf_kernel")
def _() -> tuple[Any, Adapter]:
    import jax
    from blackjax.vi.svgd import rbf_kernel

    def kernel(x: Any, y: Any, sigma_squared: Any) -> Any:
        pair: Any = lambda a, b: rbf_kernel(a, b, 2 * sigma_squared)
        return jax.vmap(lambda a: jax.vmap(lambda b: pair(a, b))(y))(x)

    return kernel, Adapter(single=True, framework="jax")


@case("blackjax", "vi.svgd.build_kernel, its own median heuristic", "phi")
def _() -> tuple[Any, Adapter]:
    import optax
    from blackjax.vi import svgd

    def phi(a: Any, score: Any) -> Any:
        step = svgd.build_kernel(optax.sgd(1.0))
        start = svgd.init(a, svgd.median_heuristic({}, a), optax.sgd(1.0))
        return step(start, score, svgd.rbf_kernel).particles - a

    return phi, Adapter(
        single=True, framework="jax", closures={"score": "score"}, constants={"temperature": 1.0}
    )


@case("numpyro", "contrib.einstein median_bandwidth (kernel exp(-d^2 / h))", "bandwidth_squared")
def _() -> tuple[Any, Adapter]:
    import jax.numpy as jnp
    from numpyro.contrib.einstein.stein_kernels import median_bandwidth

    def half(a: Any) -> Any:
        return median_bandwidth(a, lambda n: 1 / jnp.log(n)) / 2

    return half, Adapter(single=True, framework="jax")


@case("pyro-ppl", "infer.RBFSteinKernel, multivariate; the sum over j is the adapter's", "phi")
def _() -> tuple[Any, Adapter]:
    from pyro.infer import RBFSteinKernel

    def phi(a: Any, g: Any) -> Any:
        log_kernel, slope = RBFSteinKernel().log_kernel_and_grad(a)
        k = log_kernel.sum(-1).exp()
        return (k @ g - (k[..., None] * slope).sum(1)) / len(a)

    return phi, Adapter(single=True, framework="torch", constants={"temperature": 1.0})


@case("scikit-learn", "metrics.pairwise.rbf_kernel", "rbf_kernel")
def _() -> tuple[Any, Adapter]:
    from sklearn.metrics.pairwise import rbf_kernel

    return lambda X, Y, gamma: rbf_kernel(X, Y, gamma), Adapter(
        single=True, arguments={"X": "x", "Y": "y", "gamma": "1 / (2 * sigma_squared)"}
    )


@case("scipy", "spatial.distance.cdist(sqeuclidean)", "squared_distances")
def _() -> tuple[Any, Adapter]:
    from scipy.spatial.distance import cdist

    return lambda x, y: cdist(x, y, "sqeuclidean"), Adapter(single=True)


@case("torch", "cdist, squared", "squared_distances")
def _() -> tuple[Any, Adapter]:
    import torch

    return lambda x, y: torch.cdist(x, y) ** 2, Adapter(framework="torch")


# --- packages: flow matching ---------------------------------------------------------------------


def _flow_matching(sample: Any) -> tuple[Any, Adapter]:
    def loss(velocity: Any, s: Any, a: Any, x0: Any, t: Any) -> Any:
        x, target = sample(x0, a, t)
        return ((velocity(s, x, t) - target) ** 2).mean()

    return loss, Adapter(framework="torch", closures={"velocity": "velocity"}, layout={"t": "B"})


@case("torchcfm", "ConditionalFlowMatcher(sigma=0)", "flow_matching_loss")
def _() -> tuple[Any, Adapter]:
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

    matcher = ConditionalFlowMatcher(sigma=0.0)
    return _flow_matching(
        lambda x0, a, t: matcher.sample_location_and_conditional_flow(x0, a, t)[1:]
    )


@case("torchcfm", "TargetConditionalFlowMatcher(sigma=0.1): its mean path", "flow_matching_loss")
def _() -> tuple[Any, Adapter]:
    from torchcfm.conditional_flow_matching import TargetConditionalFlowMatcher

    matcher = TargetConditionalFlowMatcher(sigma=0.1)

    def sample(x0: Any, a: Any, t: Any) -> Any:
        # Lipman's path x_t = mu_t + sigma_t x0: the noise is x0 itself
        x = matcher.sample_xt(x0, a, t, x0)
        return x, matcher.compute_conditional_flow(x0, a, t, x)

    return _flow_matching(sample)


@case("torchcfm", "VariancePreservingConditionalFlowMatcher(sigma=0)", "flow_matching_loss")
def _() -> tuple[Any, Adapter]:
    from torchcfm.conditional_flow_matching import VariancePreservingConditionalFlowMatcher

    matcher = VariancePreservingConditionalFlowMatcher(sigma=0.0)
    return _flow_matching(
        lambda x0, a, t: matcher.sample_location_and_conditional_flow(x0, a, t)[1:]
    )


@case("flow_matching", "AffineProbPath(CondOTScheduler)", "flow_matching_loss")
def _() -> tuple[Any, Adapter]:
    from flow_matching.path import AffineProbPath
    from flow_matching.path.scheduler import CondOTScheduler

    path = AffineProbPath(CondOTScheduler())

    def sample(x0: Any, a: Any, t: Any) -> Any:
        found = path.sample(x_0=x0, x_1=a, t=t)
        return found.x_t, found.dx_t

    return _flow_matching(sample)


@case("flow_matching", "ODESolver, method euler, then a clip", "flow_sample")
def _() -> tuple[Any, Adapter]:
    from flow_matching.solver import ODESolver

    def sample(velocity: Any, s: Any, x0: Any, sampling_steps: int) -> Any:
        solver = ODESolver(velocity_model=lambda x, t: velocity(s, x, t))
        moved = solver.sample(x_init=x0, method="euler", step_size=1 / sampling_steps)
        return moved.clip(-1, 1)

    return sample, Adapter(framework="torch", closures={"velocity": "velocity"})


# --- packages: networks and optimisers -----------------------------------------------------------


@case("torch", "nn.functional.layer_norm, its default epsilon", "layer_norm")
def _() -> tuple[Any, Adapter]:
    from torch.nn.functional import layer_norm

    return lambda x, scale, offset: layer_norm(x, x.shape[-1:], scale, offset), Adapter(
        framework="torch"
    )


@case("flax", "linen.LayerNorm", "layer_norm")
def _() -> tuple[Any, Adapter]:
    from flax import linen

    def norm(x: Any, scale: Any, offset: Any) -> Any:
        module = linen.LayerNorm(dtype=x.dtype)
        return module.apply({"params": {"scale": scale, "bias": offset}}, x)

    return norm, Adapter(framework="jax")


@case("flax", "linen.gelu, its default", "activate")
def _() -> tuple[Any, Adapter]:
    from flax import linen

    return lambda x: linen.gelu(x), Adapter(framework="jax", constants={"activation": "gelu"})


@case("optax", "adam", "adam_step")
def _() -> tuple[Any, Adapter]:
    import optax

    def step(params: Any, gradient: Any, state: Any, learning_rate: float) -> Any:
        rule = optax.adam(learning_rate)
        own = rule.init(params)
        adam = own[0]._replace(count=state["count"], mu=state["m"], nu=state["v"])
        updates, _ = rule.update(gradient, (adam, *own[1:]), params)
        return optax.apply_updates(params, updates)

    return step, Adapter(framework="jax")


@case("torch", "optim.Adam", "adam_step")
def _() -> tuple[Any, Adapter]:
    import torch

    def step(params: Any, gradient: Any, state: Any, learning_rate: float) -> Any:
        def one(p: Any, g: Any, m: Any, v: Any) -> Any:
            leaf = p.clone().requires_grad_()
            leaf.grad = g.clone()
            rule = torch.optim.Adam([leaf], lr=learning_rate)
            rule.state[leaf] = {
                "step": torch.tensor(float(state["count"])),
                "exp_avg": m.clone(),
                "exp_avg_sq": v.clone(),
            }
            rule.step()
            return leaf.detach()

        from vgf.spec import tree_map

        return tree_map(one, params, gradient, state["m"], state["v"])

    return step, Adapter(framework="torch")


@case("optax", "clip_by_global_norm", "clip_by_global_norm")
def _() -> tuple[Any, Adapter]:
    import optax

    def clip(gradient: Any, max_norm: float) -> Any:
        return optax.clip_by_global_norm(max_norm).update(gradient, optax.EmptyState())[0]

    return clip, Adapter(framework="jax")


@case("torch", "nn.utils.clip_grad_norm_", "clip_by_global_norm")
def _() -> tuple[Any, Adapter]:
    import torch
    from torch.nn.utils import clip_grad_norm_

    from vgf.spec import tree_map

    def clip(gradient: Any, max_norm: float) -> Any:
        leaves: list[Any] = []

        def leaf(g: Any) -> Any:
            p = torch.zeros_like(g).requires_grad_()
            p.grad = g.clone()
            leaves.append(p)
            return p

        tree = tree_map(leaf, gradient)
        clip_grad_norm_(leaves, max_norm)
        return tree_map(lambda p: p.grad, tree)

    return clip, Adapter(framework="torch")


@case("optax", "incremental_update", "polyak")
def _() -> tuple[Any, Adapter]:
    import optax

    return lambda online, target, tau: optax.incremental_update(online, target, tau), Adapter(
        framework="jax"
    )


@case("stable-baselines3", "common.utils.polyak_update", "polyak")
def _() -> tuple[Any, Adapter]:
    from stable_baselines3.common.utils import polyak_update

    from vgf.spec import tree_map

    def update(online: Any, target: Any, tau: float) -> Any:
        new, pairs = tree_map(lambda p: p.clone(), target), []
        tree_map(lambda p, q: pairs.append((p, q)), online, new)
        polyak_update([p for p, _ in pairs], [q for _, q in pairs], tau)
        return new

    return update, Adapter(framework="torch")


# --- checkouts -----------------------------------------------------------------------------------


def _module(root: Path, name: str) -> Any:
    """A module of a checkout, whose folder goes first on the path."""
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    for known in [k for k in sys.modules if k.partition(".")[0] in ("agents", "utils", "rbf")]:
        if str(root) not in str(getattr(sys.modules[known], "__file__", "")):
            del sys.modules[known]
    return importlib.import_module(name)


def _single_file(root: Path, relative: str, name: str) -> Any:
    """One file of a checkout as a module, without the package around it."""
    text = (root / relative).read_text()
    # Python 2's print statement, in one place
    text = re.sub(r"^(\s*)print (?!\().*$", r"\1pass", text, flags=re.MULTILINE)
    module = types.ModuleType(name)
    exec(compile(text, str(root / relative), "exec"), vars(module))
    return module


def _authors(root: Path) -> Any:
    return _module(root, "agents.vgf")


@case("ryanxhr/vgf", "agents/vgf.py SVGD_VGF.phi", "phi")
def _(root: Path) -> tuple[Any, Adapter]:
    import optax

    module = _authors(root)

    def phi(a: Any, value: Any, temperature: float) -> Any:
        # its critic: an ensemble axis first, one row for each particle
        critic = lambda s, x: value(x.reshape(a.shape)).reshape(1, -1)
        flow = module.SVGD_VGF(critic, temperature, "mean", optax.adam(0.1))
        return flow.phi(a * 0, a)

    return phi, Adapter(
        framework="jax",
        closures={"value": "value"},
        constants={"bandwidth_gradient": True, "kernel_guard": 1e-6, "bandwidth": None},
    )


@case("ryanxhr/vgf", "agents/vgf.py SVGD_VGF.step, then a clip, on a fresh Adam", "flow_step")
def _(root: Path) -> tuple[Any, Adapter]:
    import jax.numpy as jnp
    import optax

    module = _authors(root)

    def step(a: Any, value: Any, temperature: float, step_size: float) -> Any:
        critic = lambda s, x: value(x.reshape(a.shape)).reshape(1, -1)
        flow = module.SVGD_VGF(critic, temperature, "mean", optax.adam(step_size))
        _, state = flow.init(a)
        return jnp.clip(flow.step(a * 0, a, state)[0], -1, 1)

    return step, Adapter(
        framework="jax",
        closures={"value": "value"},
        arguments={"step_size": "budget.step_size"},
        constants={
            "optimiser": "adam",
            "bandwidth_gradient": True,
            "kernel_guard": 1e-6,
            "state": None,
        },
    )


@case("ryanxhr/vgf", "agents/vgf.py rbf_kernel, sigma given", "rbf_kernel")
def _(root: Path) -> tuple[Any, Adapter]:
    import jax.numpy as jnp

    module = _authors(root)
    return lambda x, y, sigma_squared: module.rbf_kernel(
        x, y, jnp.sqrt(sigma_squared)[:, None, None]
    )[0], Adapter(framework="jax")


def _both(loss: Any) -> Any:
    return lambda q, y, expectile: loss(y - q, expectile).sum(0).mean()


@case("ryanxhr/vgf", "agents/vgf.py iql_loss", "critic_loss")
def _(root: Path) -> tuple[Any, Adapter]:
    loss = _both(_authors(root).iql_loss)
    return loss, Adapter(framework="jax", constants={"loss": "expectile"})


@case("ryanxhr/vgf", "agents/vgf.py sql_loss", "critic_loss")
def _(root: Path) -> tuple[Any, Adapter]:
    loss = _both(_authors(root).sql_loss)
    return loss, Adapter(framework="jax", constants={"loss": "sparse"})


@case("seohongpark/fql", "agents/fql.py FQLAgent.compute_flow_actions", "flow_sample")
def _(root: Path) -> tuple[Any, Adapter]:
    agent = _module(root, "agents.fql").FQLAgent
    method = agent.compute_flow_actions
    method = getattr(method, "__wrapped__", method)

    def sample(velocity: Any, s: Any, x0: Any, sampling_steps: int) -> Any:
        network = lambda observations, actions, t, is_encoded: velocity(observations, actions, t)
        stub = types.SimpleNamespace(
            config={"encoder": None, "flow_steps": sampling_steps},
            network=types.SimpleNamespace(select=lambda name: network),
        )
        return method(stub, s, x0)

    return sample, Adapter(framework="jax", closures={"velocity": "velocity"})


@case("dilinwang820/Stein-Variational-Gradient-Descent", "python/svgd.py SVGD.svgd_kernel", "phi")
def _(root: Path) -> tuple[Any, Adapter]:
    svgd = _single_file(root, "python/svgd.py", "stein").SVGD()

    def phi(a: Any, g: Any) -> Any:
        k, slope = svgd.svgd_kernel(a)
        return (k @ g + slope) / len(a)

    return phi, Adapter(single=True, framework="numpy", constants={"temperature": 1.0})


@case("dilinwang820/Stein-Variational-Gradient-Descent", "python/svgd.py SVGD.update", "transport")
def _(root: Path) -> tuple[Any, Adapter]:
    svgd = _single_file(root, "python/svgd.py", "stein").SVGD()

    def update(x0: Any, lnprob: Any, n_iter: int, stepsize: float) -> Any:
        return svgd.update(x0, lnprob, n_iter, stepsize)

    return update, Adapter(
        single=True,
        framework="numpy",
        closures={"lnprob": "score"},
        arguments={"x0": "a", "n_iter": "budget.steps", "stepsize": "budget.step_size"},
        constants={"budget.temperature": 1.0, "budget.low": None, "budget.high": None},
    )


@case("activatedgeek/svgd", "svgd.py SVGD.phi with rbf.py RBF", "phi")
def _(root: Path) -> tuple[Any, Adapter]:
    rbf = _single_file(root, "rbf.py", "rbf")
    rbf.np = np  # the file does not import what it uses
    svgd = _single_file(root, "svgd.py", "svgd")

    def phi(a: Any, value: Any) -> Any:
        target = types.SimpleNamespace(log_prob=value)
        return svgd.SVGD(target, rbf.RBF(), None).phi(a)

    return phi, Adapter(
        single=True, framework="torch", closures={"value": "value"}, constants={"temperature": 1.0}
    )


@case("larsgeb/simpleSVGD", "kernels.py rbf_kernel", "phi")
def _(root: Path) -> tuple[Any, Adapter]:
    kernel = _single_file(root, "src/simpleSVGD/kernels.py", "kernels").rbf_kernel

    def phi(a: Any, g: Any) -> Any:
        k, slope = kernel(a)
        return (k @ g + slope) / len(a)

    return phi, Adapter(single=True, framework="numpy", constants={"temperature": 1.0})


# --- packages of reinforcement learning ----------------------------------------------------------


@case("rlax", "td_learning, of two critics' minimum", "td_target")
def _() -> tuple[Any, Adapter]:
    import jax.numpy as jnp
    import rlax

    def target(q: Any, r: Any, mask: Any, discount: Any) -> Any:
        v = q.min(0).mean(-1)
        # target - v_tm1, where v_tm1 is 0
        return rlax.td_learning(jnp.zeros_like(r), r, discount * mask, v)

    return target, Adapter(framework="jax", constants={"how": "min", "particles": "mean"})


@case("torchrl", "objectives.value.functional.td0_return_estimate", "td_target")
def _() -> tuple[Any, Adapter]:
    from torchrl.objectives.value.functional import td0_return_estimate

    def target(q: Any, r: Any, mask: Any, discount: float) -> Any:
        v = q.min(0).values.mean(-1)
        return td0_return_estimate(discount, v, r, (1 - mask).bool())

    return target, Adapter(framework="torch", constants={"how": "min", "particles": "mean"})


def _mixed_in_place(soft: Any) -> Any:
    """Polyak averaging by a function of two modules and tau, which changes the first."""

    def update(online: Any, target: Any, tau: float) -> Any:
        import torch

        from vgf.spec import tree_map

        def module(tree: Any) -> tuple[Any, list[Any]]:
            leaves: list[Any] = []
            tree_map(lambda p: leaves.append(torch.nn.Parameter(p.detach().clone())), tree)
            return torch.nn.ParameterList(leaves), leaves

        (old, leaves), (new, _) = module(target), module(online)
        soft(old, new, tau)
        left = iter(leaves)
        return tree_map(lambda _: next(left).detach(), target)

    return update


@case("d3rlpy", "torch_utility.soft_sync", "polyak")
def _() -> tuple[Any, Adapter]:
    from d3rlpy.torch_utility import soft_sync

    mixed = _mixed_in_place(lambda target, source, tau: soft_sync(target, source, tau))
    return mixed, Adapter(framework="torch")


def _defined(root: Path, relative: str, names: tuple[str, ...], **scope: Any) -> dict[str, Any]:
    """Some functions of a file, without its imports."""
    path = root / relative
    tree = ast.parse(path.read_text())
    kept = [part for part in tree.body if getattr(part, "name", "") in names]
    future = ast.parse("from __future__ import annotations").body
    tree.body = [*future, *kept]
    scope["__name__"] = path.stem
    exec(compile(tree, str(path), "exec"), scope)
    return scope


@case("tinkoff-ai/CORL", "algorithms/offline/iql.py asymmetric_l2_loss", "critic_loss")
def _(root: Path) -> tuple[Any, Adapter]:
    import torch

    file = "algorithms/offline/iql.py"
    loss = _defined(root, file, ("asymmetric_l2_loss",), torch=torch)["asymmetric_l2_loss"]
    return lambda q, y, expectile: sum(loss(y - each, expectile) for each in q), Adapter(
        framework="torch", constants={"loss": "expectile"}
    )


@case("tinkoff-ai/CORL", "algorithms/offline/iql.py soft_update", "polyak")
def _(root: Path) -> tuple[Any, Adapter]:
    import torch

    soft = _defined(root, "algorithms/offline/iql.py", ("soft_update",), nn=torch.nn)["soft_update"]
    return _mixed_in_place(soft), Adapter(framework="torch")


@case("ikostrikov/implicit_q_learning", "critic.py loss", "critic_loss")
def _(root: Path) -> tuple[Any, Adapter]:
    import jax.numpy as jnp

    loss = _defined(root, "critic.py", ("loss",), jnp=jnp)["loss"]
    return _both(loss), Adapter(framework="jax", constants={"loss": "expectile"})


def _euler(module: str, cls: str, config: dict[str, Any], **given: Any) -> Build:
    """An agent's sampler of its flow, with the network and the configuration in a stand-in."""

    def build(root: Path) -> tuple[Any, Adapter]:
        method = getattr(_module(root, module), cls).compute_flow_actions
        method = getattr(method, "__wrapped__", method)

        def sample(velocity: Any, s: Any, x0: Any, sampling_steps: int) -> Any:
            network = lambda observations, actions, t, **_: velocity(observations, actions, t)
            stub = types.SimpleNamespace(
                config={**config, "flow_steps": sampling_steps},
                network=types.SimpleNamespace(select=lambda name: network),
            )
            return method(stub, s, x0, **given)

        return sample, Adapter(framework="jax", closures={"velocity": "velocity"})

    return build


case("ColinQiyangLi/qam", "agents/qam.py QAMAgent.compute_flow_actions", "flow_sample")(
    _euler("agents.qam", "QAMAgent", {})
)
case("zhouzypaul/qgf", "agents/fql.py FQLAgent.compute_flow_actions", "flow_sample")(
    _euler("agents.fql", "FQLAgent", {"encoder": None})
)


@case("zhouzypaul/qgf", "agents/iql.py IQLAgent.expectile_loss", "critic_loss")
def _(root: Path) -> tuple[Any, Adapter]:
    loss = _module(root, "agents.iql").IQLAgent.expectile_loss
    return _both(lambda diff, expectile: loss(diff, diff, expectile)), Adapter(
        framework="jax", constants={"loss": "expectile"}
    )


# --- whole agents --------------------------------------------------------------------------------


def _agent(method: str) -> Build:
    """An agent of the authors', for `check_agent`."""

    def build(root: Path) -> tuple[Any, Adapter]:
        return Authors(method, str(root)), Adapter()

    return build


for _method, (_source, _module_name, _class, *_rest) in AGENTS.items():
    case(_source, f"{_module_name.replace('.', '/')}.py {_class}, whole", "agent")(_agent(_method))


# Functions that cannot take the specification's inputs, and why.
NO_ADAPTER = (
    ("blackjax", "vi.svgd.as_top_level_api", "its step uses the bandwidth of the step before"),
    ("pyro-ppl", "infer.SVGD.step", "it moves the parameters of a model in a global store"),
)


# --- running -------------------------------------------------------------------------------------


def version_of(source: str, checkouts: dict[str, Path]) -> str | None:
    """The version of a package or the revision of a checkout; None if it is missing."""
    if "/" in source:
        root = checkouts.get(source)
        if root is None or not root.is_dir():
            return None
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short=10", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
        stated = root / "REVISION"  # an export without a repository has none
        if stated.is_file():
            return stated.read_text().strip()[:10]
        return done.stdout.strip() or "unknown revision"
    try:
        return metadata.version(source)
    except metadata.PackageNotFoundError:
        return None


def run(item: Case, checkouts: dict[str, Path], examples: int) -> tuple[Any, Adapter]:
    """The result of one case, or why there is none; and how it was called."""
    adapter = Adapter()
    try:
        arguments = (checkouts[item.source],) if "/" in item.source else ()
        function, adapter = item.build(*arguments)
        if isinstance(function, Authors):
            own, starts = function.settings, max(examples // 10, 1)
            return check_agent(function, function.method, own, starts=starts), adapter
        found = check_function(function, item.name, adapter, examples=examples, label=item.what)
    except (ImportError, AttributeError, OSError, SyntaxError, VGFError) as error:
        return f"not run: {type(error).__name__}: {error}", adapter
    return found, adapter


def in_words(result: Any) -> str:
    """What was found, as a table cell."""
    if isinstance(result, AgentResult):
        told = f"{result.updates} updates from {result.starts} states, largest {result.worst:.1g}"
        return f"agrees ({told})" if result.agrees else (result.says or str(result.divergence))
    if result.agrees:
        tried = ", ".join(f"{t.examples} in {t.dtype}" for t in result.tried)
        worst = max(t.worst.ratio for t in result.tried)
        return f"{result.verdict} ({tried}; worst {worst:.1g} x tolerance)"
    said = [f.says for f in result.findings]
    return "; ".join(said) or "differs"


def convention(adapter: Adapter, result: Any) -> str:
    """What it was held to, or what it computes instead: settings, and names of variants."""
    if isinstance(result, AgentResult):
        return ", ".join(f"{k} = {v}" for k, v in result.settings.items())
    named = [name for f in result.findings for name in f.variants]
    if named:
        return ", ".join(named)
    held = [note.partition("held fixed: ")[2] for note in result.notes if "held fixed" in note]
    given = [f"{k} = {v}" for k, v in adapter.constants.items()]
    return "; ".join([*given, *held])


# --- what is known -------------------------------------------------------------------------------


def deviations() -> dict[tuple[str, str], dict[str, str]]:
    """The differences that are known, by source and function."""
    found = read_toml(Path(__file__).parent / "deviations.toml")
    return {(d["source"], d["what"]): d for d in found["deviation"]}


def status(record: dict[str, Any], known: dict[tuple[str, str], dict[str, str]]) -> str:
    """agrees, known (a difference with its reason), new (without), vanished, or not run."""
    there = known.get((record["source"], record["what"]))
    if record["verdict"] is None:
        return "not run"
    if record["verdict"] == "agrees":
        return "vanished" if there else "agrees"
    return "known" if there else "new"


# --- the page ------------------------------------------------------------------------------------

SYMBOLS = {"agrees": "agrees", "known": "differs", "new": "**differs**", "vanished": "**agrees**"}


def page(records: list[dict[str, Any]], where: Any, examples: int) -> str:
    """The table, then every finding."""
    known = deviations()
    ran = [r for r in records if r["verdict"] is not None]
    names = list(dict.fromkeys(r["as"] for r in ran))
    sources = list(dict.fromkeys(r["source"] for r in ran))
    rows = []
    for source in sources:
        own = [r for r in ran if r["source"] == source]
        cells = []
        for name in names:
            words = [SYMBOLS[status(r, known)] for r in own if r["as"] == name]
            cells.append(", ".join(words))
        rows.append((source, own[0]["version"], max(r["date"] for r in own), *cells))
    used = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    text = [
        "# Who agrees with what",
        "",
        f"Made by `python -m validation.check_others`, {examples} examples in each dtype, against",
        f"specification {spec.__version__}. {used}. Revision {where['revision'] or 'unknown'}.",
        "",
        "A difference is not a fault: it is often another convention, and the finding says which.",
        "The adapters, which rename arguments and call one state at a time, are in",
        "`validation/check_others.py` and `agents.py`; the functions are their authors'.",
        "Differences that are known stand with their reason in `validation/deviations.toml`; one",
        "that is new, or has vanished, is in bold.",
        "",
        markdown_table(("implementation", "version", "date", *names), rows),
        "",
        "## Findings",
        "",
        *(_entry(r, known) for r in ran),
        "",
        "No adapter was possible for:",
        "",
        *(f"* {source}, {what}: {why}." for source, what, why in NO_ADAPTER),
        "",
    ]
    if left := [r for r in records if r["verdict"] is None]:
        shown = [f"* {r['source']}, {r['what']}: {r['finding']}." for r in left]
        text += ["Not run:", "", *shown, ""]
    text += ["## Badges", "", "For the README of an implementation that agrees:", ""]
    text += [f"* {r['source']}: `{badge_markdown(r)}`" for r in ran if r["verdict"] == "agrees"]
    return "\n".join([*text, ""])


def _entry(record: dict[str, Any], known: dict[tuple[str, str], dict[str, str]]) -> str:
    """One finding."""
    words = record["finding"]
    if record["verdict"] == "differs":
        words = f"differs. {words[:1].upper()}{words[1:]}"
    there = known.get((record["source"], record["what"]))
    said = status(record, known)
    if there and said == "known":
        words += f". Known: {there['reason']}"
    elif said in ("new", "vanished"):
        words += f". This is {'new' if said == 'new' else 'no longer a difference'}"
    if record["convention"] and record["verdict"] == "agrees":
        words += f". Convention: {record['convention']}"
    head = f"* **{record['source']}** {record['version']} ({record['date']}), {record['what']}, as "
    return textwrap.fill(
        f"{head}`{record['as']}`: {words.rstrip('.')}.",
        100,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def badge(record: dict[str, Any]) -> dict[str, Any]:
    """A badge as shields.io reads it from an address."""
    return {
        "schemaVersion": 1,
        "label": f"VGF specification {record['specification']}",
        "message": f"{record['as']} agrees",
        "color": "brightgreen",
    }


def badge_markdown(record: dict[str, Any]) -> str:
    """The same as an image with its words in the address."""
    words = badge(record)
    parts = [quote(words[k].replace("_", "__").replace("-", "--")) for k in ("label", "message")]
    return f"![{words['label']}](https://img.shields.io/badge/{'-'.join(parts)}-brightgreen)"


def _slug(record: dict[str, Any]) -> str:
    text = f"{record['source']} {record['as']} {record['what'].partition(',')[0]}"
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def write_all(records: list[dict[str, Any]], out: Path, examples: int) -> None:
    """The page, its data and the badges."""
    where = environment()
    write(out / "check-others.md", page(records, where, examples))
    data = {"environment": where, "examples": examples, "cases": records}
    write_json(out / "check-others.json", data)
    for record in records:
        if record["verdict"] == "agrees":
            write_json(out / "badges" / f"{_slug(record)}.json", badge(record))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m validation.check_others", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--checkout", action="append", default=[], metavar="OWNER/NAME=PATH")
    parser.add_argument("--checkouts", action="append", default=[], type=Path, metavar="FOLDER",
                        help="of checkouts named owner+name")  # fmt: skip
    parser.add_argument("--examples", type=int, default=100, help="in each dtype (default 100)")
    parser.add_argument("--only", help="sources whose name contains this")
    parser.add_argument("--again", action="store_true", help="also what was found at this version")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args(argv)
    checkouts = {
        path.name.replace("+", "/"): path.resolve()
        for folder in args.checkouts
        for path in sorted(folder.iterdir())
        if path.is_dir() and "+" in path.name
    }
    for text in args.checkout:
        name, equals, path = text.partition("=")
        if not equals or not Path(path).is_dir():
            parser.error(f"--checkout {text}: write OWNER/NAME=PATH, with an existing folder")
        checkouts[name] = Path(path).resolve()
    before = _before(args.out / "check-others.json")
    records = []
    for item in CASES:
        old = before.get((item.source, item.what, item.name))
        version = version_of(item.source, checkouts)
        now = (version, spec.__version__)
        same = old is not None and (old["version"], old["specification"]) == now
        left = args.only and args.only not in item.source
        if old is not None and (version is None or left or (same and not args.again)):
            records.append(old)
            continue
        found: Any = "not there"
        adapter = Adapter()
        if version is not None and not left:
            found, adapter = run(item, checkouts, args.examples)
        words = found if isinstance(found, str) else in_words(found)
        verdict = None if isinstance(found, str) else ("agrees" if found.agrees else "differs")
        print(f"{item.source} {version or ''}: {item.what} as {item.name}\n    {words}", flush=True)
        records.append(
            {
                "source": item.source,
                "version": version,
                "what": item.what,
                "as": item.name,
                "date": datetime.now(timezone.utc).date().isoformat(),
                "specification": spec.__version__,
                "verdict": verdict,
                "convention": "" if isinstance(found, str) else convention(adapter, found),
                "finding": words,
                "result": None if isinstance(found, str) else found.as_dict(),
            }
        )
        write_all(records + _after(before, records), args.out, args.examples)
    write_all(records, args.out, args.examples)
    print(f"written to {args.out / 'check-others.md'}")
    known = deviations()
    odd = [r for r in records if status(r, known) in ("new", "vanished")]
    for record in odd:
        print(f"{status(record, known)}: {record['source']}, {record['what']}")
    return 1 if odd else 0


def _before(path: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The findings of the last time, in this form."""
    if not path.is_file():
        return {}
    cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
    return {(r["source"], r["what"], r["as"]): r for r in cases if r.get("verdict")}


def _after(before: dict[Any, Any], records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is left of the last time, so that a run that is stopped loses nothing."""
    done = {(r["source"], r["what"], r["as"]) for r in records}
    return [r for key, r in before.items() if key not in done]


if __name__ == "__main__":
    sys.exit(main())
