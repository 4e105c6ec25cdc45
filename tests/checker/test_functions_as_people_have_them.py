"""Own noise, networks as classes, batches, float32 inside, and what --suggest writes."""

import functools
import math

import numpy as np
import pytest
from needs import need
from test_checker import phi

pytest.importorskip("hypothesis")

from vgf.checker.gradients import tied
from vgf.checker.loading import load_checked
from vgf.checker.subjects import find_subject
from vgf.checker.trial import draw_many
from vgf.cli.check import main
from vgf.support.errors import VGFError
from vgf.testing import Adapter, assert_matches, check_function

GENERATOR = np.random.default_rng(3)


def bc_loss(velocity, obs, actions, draw=GENERATOR):
    x0, t = draw.standard_normal(actions.shape), draw.uniform(size=(len(actions), 1))
    return np.mean((velocity(obs, (1 - t) * x0 + t * actions, t) - (actions - x0)) ** 2)


def from_the_module(velocity, obs, actions):
    x0, t = GENERATOR.standard_normal(actions.shape), np.random.rand(len(actions))[:, None]
    return np.mean((velocity(obs, (1 - t) * x0 + t * actions, t) - (actions - x0)) ** 2)


def given_a_generator(velocity, batch, rng):
    return bc_loss(velocity, batch["observations"], batch["actions"], rng)


@pytest.mark.parametrize(
    "function", [from_the_module, pytest.param(given_a_generator, marks=pytest.mark.slow)]
)
def test_a_function_that_draws_is_given_the_specifications_numbers(function):
    result = check_function(function, "flow_matching_loss", examples=20)
    assert result.agrees, str(result)
    assert "it draws by itself, and was given for it: x0 (normal), t (uniform)" in str(result)
    assert GENERATOR.standard_normal() != GENERATOR.standard_normal()  # it is given back


@pytest.mark.full
def test_other_draws_than_the_specifications_are_named():
    def uniform_noise(velocity, obs, actions):
        x0, t = np.random.rand(*actions.shape), np.random.rand(len(actions), 1)
        return np.mean((velocity(obs, (1 - t) * x0 + t * actions, t) - (actions - x0)) ** 2)

    result = check_function(uniform_noise, "flow_matching_loss", examples=20)
    (finding,) = result.findings
    assert finding.kind == "drawn"
    assert "where the specification has x0, normal" in finding.says


@pytest.mark.slow
def test_what_it_draws_wrongly_used_still_differs():
    def swapped(velocity, obs, actions):
        x0, t = np.random.randn(*actions.shape), np.random.rand(len(actions), 1)
        return np.mean((velocity(obs, t * x0 + (1 - t) * actions, t) - (actions - x0)) ** 2)

    result = check_function(swapped, "flow_matching_loss", examples=20)
    assert not result.agrees
    assert "ends are swapped" in str(result)


@pytest.mark.slow
def test_draws_of_torch_and_jax_are_taken_over_compiled_ones_too():
    need("torch", "jax")
    import jax
    import jax.numpy as jnp
    import torch

    def in_torch(velocity, obs, actions):
        x0, t = torch.randn_like(actions), torch.rand(len(actions), 1, dtype=actions.dtype)
        error = velocity(obs, (1 - t) * x0 + t * actions, t) - (actions - x0)
        return error.pow(2).mean()

    inner = jax.jit(lambda key, a: (jax.random.normal(key, a.shape), jax.random.uniform(key, (1,))))

    def in_jax(velocity, obs, actions, key):
        keys = jax.random.split(key, len(actions))
        x0, t = jax.vmap(inner)(keys, actions)
        error = velocity(obs, (1 - t) * x0 + t * actions, t) - (actions - x0)
        return jnp.mean(error**2)

    for function in (in_torch, in_jax):
        assert_matches(function, "flow_matching_loss", examples=8)


NETWORKS = """
import torch
from torch import nn

class Velocity(nn.Module):
    def __init__(self, obs_dim, action_dim, hidden, wrong=False):
        super().__init__()
        sizes, layers = [obs_dim + action_dim + 1, *hidden], []
        for one, other in zip(sizes, sizes[1:]):
            layers += [nn.Linear(one, other), nn.ReLU()]
        self.wrong = wrong
        self.net = nn.Sequential(*layers, nn.Linear(sizes[-1], action_dim))

    def forward(self, obs, x, t):
        return self.net(torch.cat([obs, x, t], -1)) + (t if self.wrong else 0)

class Critics(nn.Module):
    def __init__(self, inputs, hidden):
        super().__init__()
        one = lambda: nn.Sequential(
            nn.Linear(inputs, hidden[0]), nn.LayerNorm(hidden[0], eps=1e-6), nn.ReLU(),
            nn.Linear(hidden[0], hidden[1]), nn.LayerNorm(hidden[1], eps=1e-6), nn.ReLU(),
            nn.Linear(hidden[1], 1))
        self.q1, self.q2 = one(), one()

    def forward(self, s, a):
        x = torch.cat([s, a], -1)
        return torch.stack([self.q1(x).squeeze(-1), self.q2(x).squeeze(-1)])
"""


@pytest.mark.slow
def test_a_network_as_a_class_is_given_the_specifications_parameters(tmp_path):
    need("torch")
    file = tmp_path / "networks.py"
    file.write_text(NETWORKS)
    sizes = {"obs_dim": "o", "action_dim": "d", "hidden": "hidden"}
    velocity = load_checked(f"{file}:Velocity", sizes, network=True)
    assert_matches(velocity, "flow_velocity", examples=10)
    wrong = load_checked(f"{file}:Velocity", {**sizes, "wrong": True}, network=True)
    assert not check_function(wrong, "flow_velocity", examples=10, explain=False).agrees
    critics = load_checked(f"{file}:Critics", {"inputs": "o + d", "hidden": "hidden"}, network=True)
    result = check_function(critics, "critic_values", examples=10)
    assert result.agrees, str(result)
    assert result.domain["E"] == (2, 2)
    fixed = load_checked(f"{file}:Critics", {"inputs": 9, "hidden": (3, 3)}, network=True)
    with pytest.raises(VGFError, match="no array is the kernel"):
        check_function(fixed, "critic_values", examples=10)


@pytest.mark.slow
def test_float32_inside_is_seen_by_its_results_or_its_casts():
    def cast_back(x, score, alpha):
        return phi(np.float32(x), np.float32(score), alpha).astype(np.float64)

    result = check_function(cast_back, "phi", examples=60)
    assert result.agrees, str(result)
    assert [t.dtype for t in result.tried] == ["float32"]
    wrong = lambda *args: 1.01 * cast_back(*args)
    assert not check_function(wrong, "phi", examples=60, explain=False).agrees


@pytest.mark.slow
def test_a_cast_of_one_part_is_seen_in_torch():
    need("torch")
    import torch

    def mixed(x, g, temperature):
        n = x.shape[-2]
        with torch.no_grad():
            gap = x.float()[..., :, None, :] - x.float()[..., None, :, :]
            d2 = gap.pow(2).sum(-1)
            median = torch.quantile(d2.flatten(-2), 0.5, dim=-1)
            s2 = (median / (2 * math.log(n + 1))).clamp_min(1e-12)[..., None, None]
            k = torch.exp(-d2 / (2 * s2)).to(x)
        away = (k[..., None] * (x[..., :, None, :] - x[..., None, :, :])).sum(-2) / s2.to(x)
        return (k @ g / temperature + away) / n

    result = check_function(mixed, "phi", examples=150)
    assert result.agrees, str(result)
    assert "something inside computes in float32" in str(result)


@pytest.mark.slow
def test_half_of_an_argument_is_named_and_a_rare_error_is_no_rounding():
    def half(particles, velocity, step_size, low, high):
        return np.clip(particles + 0.5 * step_size * velocity, low, high)

    text = str(check_function(half, "flow_step", examples=60))
    assert "takes step_size / 2 where step_size belongs" in text
    assert "so it does with velocity / 2 where velocity belongs" in " ".join(text.split())

    # values that the specification refuses, such as a negative step, are no explanation
    def squashed(particles, velocity, step_size):
        return np.tanh(particles + step_size * velocity) + 0.01

    result = check_function(squashed, "flow_step", examples=40)
    assert not result.agrees

    def rare(rewards, masks, next_q, discount):
        r = np.where((masks == 0) & (rewards == 0), -1.0, rewards)
        return r + masks * discount * next_q.min(0).mean(-1)

    result = check_function(rare, "td_target", examples=300)
    assert not result.agrees
    assert not any(f.kind == "rounding" for f in result.findings)


@pytest.mark.slow
def test_the_gradient_of_a_loss_that_agrees_is_compared_too():
    need("torch", "jax")
    import jax
    import torch

    def loss(velocity, obs, actions, noise, t, detach=lambda x: x):
        error = detach(velocity(obs, (1 - t) * noise + t * actions, t)) - (actions - noise)
        return (error**2).mean()

    def right(velocity, obs, actions, noise, t):
        return loss(velocity, obs, torch.as_tensor(actions), noise, t)

    def some(velocity, obs, actions, noise, t):
        want = actions - noise
        v = velocity(obs, torch.as_tensor((1 - t) * noise + t * actions), t)
        return (v.detach() ** 2 - 2 * v * want + want**2).mean()

    def none(velocity, obs, actions, noise, t):
        return loss(velocity, obs, actions, noise, t, jax.lax.stop_gradient)

    result = check_function(right, "flow_matching_loss", examples=40)
    assert result.agrees, str(result)
    assert "its gradient of params is the specification's" in str(result)
    for function, says in ((some, "another gradient of its parameters"), (none, "no gradient")):
        result = check_function(function, "flow_matching_loss", examples=40)
        assert [f.kind for f in result.findings] == ["gradient"], str(result)
        assert says in str(result)

    def policy(actor, critic, obs, noise, target, alpha):
        a = actor(torch.cat([obs, noise], -1))
        return alpha * ((a - target) ** 2).mean() - critic(obs, a.clamp(-1, 1)).mean(0).mean()

    def nll(mean, params, obs, actions):  # one network, given as a function and as its arrays
        deviation = params["log_std"].clamp(-5, 2).exp()
        return -torch.distributions.Normal(mean(obs), deviation).log_prob(actions).sum(-1).mean()

    twice = Adapter({"params": "params"}, {"tanh": False}, closures={"mean": "network(s)"})
    result = check_function(nll, "gaussian_loss", twice, examples=40)
    assert result.agrees, str(result)
    assert "its gradient of params is the specification's" in str(result)

    closures = {"actor": "network", "critic": "critic"}
    result = check_function(policy, "policy_loss", Adapter(closures=closures), examples=40)
    assert result.agrees, str(result)
    assert "its gradient also reaches critic" in str(result)


def test_a_gradient_is_compared_where_the_search_met_ties_only():
    torch = pytest.importorskip("torch")
    subject = find_subject("flow_matching_loss")
    seed = next(s for s in range(50) if tied(draw_many(subject, 1, s)[0][1]))

    def right(velocity, obs, actions, noise, t):
        v = velocity(obs, torch.lerp(noise, actions, t), t)
        return (v - (actions - noise)).square().mean()

    def detached(velocity, obs, actions, noise, t):
        v = velocity(obs, torch.lerp(noise, actions, t), t).detach()
        return (v - (actions - noise)).square().mean()

    given = {"examples": 1, "seed": seed, "dtype": "float64"}
    result = check_function(right, "flow_matching_loss", **given)
    assert result.agrees, str(result)
    assert "its gradient of params is the specification's, on" in str(result)
    result = check_function(detached, "flow_matching_loss", **given)
    assert [f.kind for f in result.findings] == ["gradient"], str(result)


def test_a_network_of_its_own_widths_is_given_parameters_of_them(tmp_path):
    pytest.importorskip("torch")
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, inputs, outputs):\n"
        "        super().__init__()\n"
        "        self.first = torch.nn.Linear(inputs, 6)\n"
        "        self.second = torch.nn.Linear(6, outputs)\n"
        "    def forward(self, x):\n"
        "        return self.second(torch.relu(self.first(x)))\n"
    )
    net = load_checked(f"{file}:Net", {"inputs": "in", "outputs": "out"}, network=True)
    result = check_function(net, "mlp", examples=20, dtype="float64")
    assert result.agrees, str(result)


def test_why_no_gradient_was_compared_is_said():
    torch = pytest.importorskip("torch")

    @torch.no_grad()
    def loss(velocity, obs, actions, noise, t):
        v = velocity(obs, torch.lerp(noise, actions, t), t)
        return (v - (actions - noise)).square().mean()

    result = check_function(loss, "flow_matching_loss", examples=10, dtype="float64")
    assert "it runs without gradients, so none was compared" in str(result)


def test_suggestions_are_written_and_run(tmp_path, capsys, monkeypatch):
    file, mapping = tmp_path / "mine.py", tmp_path / "mine.toml"
    file.write_text(
        "import numpy as np\n"
        "def soft_update(online, target, tau):\n"
        "    if isinstance(target, dict):\n"
        "        return {k: soft_update(online[k], target[k], tau) for k in target}\n"
        "    return tau * online + (1 - tau) * target\n"
        "class Learner:\n"
        "    def td_target(self, rewards, dones, next_q, gamma):\n"
        "        return rewards + gamma * (1 - dones) * next_q.min(0).mean(-1)\n"
        "def unrelated(x):\n    return x\n"
    )
    assert main(["--suggest", str(file), "--mapping", str(mapping)]) == 0
    shown = capsys.readouterr().out
    assert f"vgf check {file}:soft_update --as polyak" in shown
    assert f"vgf check {file}:Learner.td_target --as td_target" in shown
    assert "unrelated" not in shown
    assert 'arguments.dones = "1 - mask"' in mapping.read_text()
    assert main(["--mapping", str(mapping), "--examples", "20"]) == 0
    assert "Learner.td_target as td_target: agrees" in capsys.readouterr().out


def test_an_argument_of_the_class_may_be_drawn(tmp_path, capsys):
    file = tmp_path / "agent.py"
    file.write_text(
        "class Agent:\n"
        "    def __init__(self, gamma, how='min'): self.gamma, self.how = gamma, how\n"
        "    def target(self, q, r, mask, **unused):\n"
        "        v = q.min(0) if self.how == 'min' else q.mean(0)\n"
        "        return r + self.gamma * mask * v.mean(-1)\n"
    )
    words = [f"{file}:Agent.target", "--as", "td_target", "--examples", "60"]
    assert main([*words, "--arg", "gamma=discount"]) == 0
    assert "gamma = discount" in capsys.readouterr().out
    assert main([*words, "--arg", "gamma=discount", "--construct", "how=mean"]) == 0
    assert "how = mean" in capsys.readouterr().out
    assert main([*words, "--construct", "gamma=0.9", "--constant", "discount=0.99"]) == 1
    with pytest.raises(VGFError, match="gamma"):
        main([*words, "--arg", "how=how"])
    with pytest.raises(VGFError, match="cannot be made"):
        main([f"{file}:Agent", "--as", "td_target", "--arg", "gamma=discount"])


def test_an_argument_of_a_module_may_be_drawn(tmp_path, capsys):
    need("torch")
    file = tmp_path / "module.py"
    file.write_text(
        "import torch\n"
        "class Loss(torch.nn.Module):\n"
        "    def __init__(self, beta):\n"
        "        super().__init__()\n"
        "        self.beta = beta\n"
        "    def forward(self, q, y):\n"
        "        u = y - q\n"
        "        side = torch.where(u > 0, self.beta, 1 - self.beta)\n"
        "        return (side * u**2).mean(-1).sum()\n"
    )
    words = [f"{file}:Loss", "--as", "critic_loss", "--examples", "60"]
    assert main([*words, "--constant", "loss=expectile", "--arg", "beta=expectile"]) == 0
    assert "beta = expectile" in capsys.readouterr().out


def test_the_gradient_of_an_array_that_is_given_apart_is_its_own():
    """A network as a function and one of its arrays by itself: neither is held to be detached."""
    need("torch")
    import torch
    from torch.distributions import Independent, Normal

    def loss(net, log_std, s, a):
        std = torch.exp(torch.clamp(log_std, -5, 2))
        return -Independent(Normal(net(s), std), 1).log_prob(a).mean()

    def held(net, log_std, s, a):
        return loss(net, log_std.detach(), s, a)

    words = {"log_std": "params['log_std']"}
    adapter = Adapter(words, {"tanh": False, "weight": None}, closures={"net": "network(s)"})
    result = check_function(loss, "gaussian_loss", adapter, examples=60, dtype="float64")
    assert result.agrees, str(result)
    assert "its gradient of params is the specification's" in str(result)
    result = check_function(held, "gaussian_loss", adapter, examples=60, dtype="float64")
    assert "another gradient of its parameters (log_std)" in str(result)
    for text in ("params['log_std'] * 1", "params['log_std'][0]"):
        other = Adapter({"log_std": text}, adapter.constants, closures=adapter.closures)
        result = check_function(
            lambda net, log_std, s, a: loss(net, log_std, s, a),
            *("gaussian_loss", other),
            examples=60,
            dtype="float64",
            explain=False,
        )
        assert "its gradient of params is the specification's" not in str(result)
    twice = Adapter(
        {"log_std": "params['log_std'] * 1"},
        {"tanh": False, "weight": None},
        closures=adapter.closures,
    )
    result = check_function(loss, "gaussian_loss", twice, examples=60, dtype="float64")
    assert "was not compared" in str(result)


def test_a_closure_that_cannot_be_is_refused_with_the_way_out():
    def steps(field, a, budget):
        for _ in range(budget.steps):
            a = np.clip(a + budget.step_size * field(a), -1, 1)
        return a

    held = {"budget.optimiser": "plain", "budget.clip_norm": None, "budget.low": -1.0}
    held["budget.high"] = 1.0
    for adapter in (
        Adapter({"field": "velocity"}, held),
        Adapter(constants=held, closures={"field": "score"}),
    ):
        result = check_function(steps, "follow", adapter, examples=40, dtype="float64")
        assert result.agrees, str(result)
    with pytest.raises(VGFError, match="follow has no network; say field=score"):
        check_function(steps, "follow", Adapter(constants=held, closures={"field": "velocity"}))

    def loss(v, s, a, x0, t):
        return np.mean((v(s, (1 - t) * x0 + t * a, t) - (a - x0)) ** 2)

    with pytest.raises(VGFError, match="called with 3 arguments"):
        check_function(loss, "flow_matching_loss", Adapter(closures={"v": "network"}))


def test_a_jitted_function_with_static_arguments_is_not_compiled_for_each_of_their_values():
    """Its temperature is another in nearly each of 750 inputs; it is traced for shapes alone."""
    need("jax")
    import jax
    import jax.numpy as jnp

    traces = []

    @functools.partial(jax.jit, static_argnames=("temperature",))
    def phi(a, g, temperature=None, bandwidth=None):
        traces.append(a.shape)
        apart = a[..., None, :, :] - a[..., :, None, :]
        squared = (apart**2).sum(-1)
        medians = jnp.median(squared.reshape(*squared.shape[:-2], -1), axis=-1)
        sigma_squared = jnp.maximum(medians / (2 * jnp.log(a.shape[-2] + 1)), 1e-12)
        sigma_squared = sigma_squared[..., None, None]
        if bandwidth is not None:
            sigma_squared = bandwidth**2 * jnp.ones_like(sigma_squared)
        k = jnp.exp(-squared / (2 * sigma_squared)) / a.shape[-2]
        if temperature is None:
            return k @ g
        return k @ g / temperature - (k[..., None] * apart / sigma_squared[..., None]).sum(-2)

    result = check_function(phi, "phi")
    assert result.agrees, result.message
    assert len(traces) < 100
