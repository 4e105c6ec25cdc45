"""A whole agent from outside: networks found, draws taken over, the first difference named."""

import copy
import itertools

import pytest
from needs import need

pytest.importorskip("hypothesis")

from vgf.checker.agents import check_agent
from vgf.cli.check import main
from vgf.support.errors import VGFError

need("torch")
import torch


def mlp(inputs, hidden, outputs, norm=False):
    sizes, layers = [inputs, *hidden], []
    for one, other in itertools.pairwise(sizes):
        layers.append(torch.nn.Linear(one, other))
        layers.append(torch.nn.ReLU() if not norm else torch.nn.GELU(approximate="tanh"))
        if norm:
            layers.append(torch.nn.LayerNorm(other, eps=1e-6))
    return torch.nn.Sequential(*layers, torch.nn.Linear(sizes[-1], outputs))


class TorchFQL:
    """FQL as somebody writes it in torch: two critics, a flow, a one-step policy."""

    detached, trains_flow, scale, mixed_after = True, False, 1.0, False

    def __init__(self, settings, o, d):
        self.settings, self.action_dim = settings, d
        critic = lambda: mlp(o + d, settings.critic.hidden, 1, norm=True)
        self.q1, self.q2 = critic(), critic()
        self.t1, self.t2 = copy.deepcopy(self.q1), copy.deepcopy(self.q2)
        self.flow = self._actor(o + d + 1)
        self.policy = self._actor(o + d)
        groups = {"critic": (self.q1, self.q2), "flow": (self.flow,), "policy": (self.policy,)}
        self.optimisers = [
            torch.optim.Adam([p for net in nets for p in net.parameters()], settings.learning_rate)
            for nets in groups.values()
        ]

    def _actor(self, inputs):
        net = mlp(inputs, self.settings.reference.hidden, self.action_dim)
        for i, layer in enumerate(net):
            if isinstance(layer, torch.nn.ReLU):
                net[i] = torch.nn.GELU(approximate="tanh")
        return net

    def values(self, nets, s, a):
        x = torch.cat([s, a], -1)
        return torch.stack([net(x).squeeze(-1) for net in nets])

    def sample(self, s):
        noise = torch.randn(len(s), self.action_dim)
        return self.policy(torch.cat([s, noise], -1)).clamp(-1, 1)

    def flow_actions(self, s, x):
        for k in range(self.settings.sampling_steps):
            t = torch.full((len(s), 1), k / self.settings.sampling_steps)
            x = x + self.flow(torch.cat([s, x, t], -1)) / self.settings.sampling_steps
        return x.clamp(-1, 1)

    def update(self, batch):
        s, a, own = batch["observations"], batch["actions"], self.settings
        with torch.set_grad_enabled(not self.detached):
            after = batch["next_observations"]
            q = self.values((self.t1, self.t2), after, self.sample(after)).mean(0)
            y = batch["rewards"] + own.discount * batch["masks"] * q
        critic_loss = self.scale * (self.values((self.q1, self.q2), s, a) - y).pow(2).mean()
        x0, t = torch.randn_like(a), torch.rand(len(a), 1)
        error = self.flow(torch.cat([s, (1 - t) * x0 + t * a, t], -1)) - (a - x0)
        noise = torch.randn_like(a)
        with torch.set_grad_enabled(self.trains_flow):
            target = self.flow_actions(s, noise)
        action = self.policy(torch.cat([s, noise], -1))
        value = self.values((self.q1, self.q2), s, action.clamp(-1, 1)).mean()
        actor_loss = error.pow(2).mean() + own.distillation * (action - target).pow(2).mean()
        critic, flow, policy = self.optimisers
        (actor_loss - value).backward()
        critic.zero_grad()  # the policy's loss reaches the critics, and does not train them
        critic_loss.backward()
        if not self.mixed_after:  # as FQL's code
            self.mix()
        for optimiser in (critic, flow, policy):
            optimiser.step()
            optimiser.zero_grad()
        if self.mixed_after:
            self.mix()

    @torch.no_grad()
    def mix(self):
        for nets in ((self.q1, self.t1), (self.q2, self.t2)):
            for p, old in zip(*(net.parameters() for net in nets), strict=True):
                old.lerp_(p, self.settings.polyak)


class Described:
    """What `vgf check --agent` is given."""

    kind = TorchFQL
    networks = {
        "critic": ("q1", "q2"),
        "target_critic": ("t1", "t2"),
        "reference": "flow",
        "policy": "policy",
    }

    def create(self, settings, observation_dim, action_dim, seed):
        return self.kind(settings, observation_dim, action_dim)

    def update(self, agent, batch):
        agent.update(batch)

    def act(self, agent, observations, steps):
        return agent.sample(observations)


def described(**changes):
    return type("Other", (Described,), {"kind": type("Agent", (TorchFQL,), changes)})


@pytest.mark.slow
def test_an_agent_in_torch_goes_through_whole():
    result = check_agent(Described, "fql", starts=3, updates=3)
    assert result.agrees, str(result)
    assert result.updates == 9
    assert result.moments
    assert result.worst < 1e-10
    assert result.acted[0] < 1e-12
    assert "it draws, in one update: normal [6, 3]" in str(result)


MISTAKES = {
    "policy's target trains the flow": ({"trains_flow": True}, "reference", "gradient"),
    "half of the loss": ({"scale": 0.5}, "critic", "gradient"),
    "mixed after the step": ({"mixed_after": True}, "target_critic", "mixing"),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) for n in MISTAKES])
def test_the_first_difference_is_named(name):
    changes, network, quantity = MISTAKES[name]
    result = check_agent(described(**changes), "fql", starts=2, updates=2)
    assert not result.agrees
    assert result.divergence.update == 1
    assert (result.divergence.network, result.divergence.quantity) == (network, quantity)
    if quantity == "mixing":
        assert "'target mixed after the step'" in result.says


def test_what_an_agent_lacks_is_said():
    with pytest.raises(VGFError, match="networks: say where policy is"):
        check_agent(
            type("Less", (Described,), {"networks": dict(list(Described.networks.items())[:3])}),
            "fql",
            starts=1,
        )
    with pytest.raises(VGFError, match="has no create"):
        check_agent(type("Nothing", (), {"networks": {}}), "fql")
    with pytest.raises(VGFError, match="--settings"):
        main(["--agent", "x.py:Y"])
