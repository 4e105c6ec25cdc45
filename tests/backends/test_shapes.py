"""Wrong shapes and words are refused by name, on every backend, before anything broadcasts."""

import numpy as np
import pytest

from vgf import Budget, Network, Settings, method_settings, spec


def test_rewards_with_an_axis_too_many(backend):
    q, r, mask = (backend.asarray(np.ones(s)) for s in ((2, 4, 3), (4, 1), (4,)))
    with pytest.raises(
        ValueError, match=r"td_target: r has shape \(4, 1\), expected \[B\] with E = 2, B = 4"
    ):
        backend.td_target(q, r, mask, 0.99)


def test_scores_of_another_state(backend):
    a, g = backend.asarray(np.ones((2, 4, 3))), backend.asarray(np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"phi: g has shape \(4, 3\), expected \[\*, N, d\]"):
        backend.phi(a, g)


def test_a_score_of_another_width(backend):
    a = backend.asarray(np.ones((2, 4, 3)))
    with pytest.raises(ValueError, match=r"g has shape \(2, 4, 1\)"):
        backend.transport(lambda x: x[..., :1], a, Budget(steps=1))


def test_an_observation_of_another_width_names_the_layer(backend):
    params = backend.asarray(spec.init_mlp(np.random.default_rng(0), 5, Network((8,)), 2))
    with pytest.raises(ValueError, match=r"layer hidden_0: kernel has shape \(5, 8\).*in = 4"):
        backend.mlp(params, backend.asarray(np.ones((3, 4))))


def test_states_and_actions_that_do_not_match(backend):
    params = backend.asarray(spec.init_ensemble(np.random.default_rng(0), 5, Network((8,)), 1, 2))
    with pytest.raises(ValueError, match=r"\(4, 3\) do not match actions of shape \(5, 2\)"):
        backend.critic_values(
            params, backend.asarray(np.ones((4, 3))), backend.asarray(np.ones((5, 2)))
        )


def test_a_batch_that_lacks_a_key_or_has_another_length(backend):
    settings = Settings(critic=Network((4,)), reference=Network((4,)))
    state = backend.init_state(0, 3, 2, settings)
    batch = {
        "observations": np.ones((4, 3)),
        "actions": np.ones((4, 2)),
        "rewards": np.ones(4),
        "masks": np.ones(4),
        "next_observations": np.ones((4, 3)),
    }
    short = {key: value for key, value in batch.items() if key != "masks"}
    with pytest.raises(ValueError, match="batch lacks masks; it has actions"):
        backend.update(state, backend.asarray(short), settings)
    with pytest.raises(ValueError, match=r"batch: rewards has shape \(3,\), expected \[B\]"):
        backend.update(state, backend.asarray({**batch, "rewards": np.ones(3)}), settings)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b, x: b.activate(x, "selu"), "activation is 'selu'; choose one of relu"),
        (lambda b, x: b.aggregate(x, "max"), "'max'; choose mean or min"),
        (
            lambda b, x: b.critic_loss(x, x[0], "huber"),
            "critic_loss is 'huber'; choose one of squared",
        ),
        (
            lambda b, x: b.select(x, x[:, 0], x[0, 0], "worst"),
            "selection is 'worst'; choose one of best",
        ),
        (
            lambda b, x: b.td_target(x[None], x[0], x[0], 0.9, "min", "min"),
            "'min'; choose mean or max",
        ),
    ],
)
def test_unknown_words(backend, call, message):
    with pytest.raises(ValueError, match=message):
        call(backend, backend.asarray(np.ones((2, 2))))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discount": 1.5}, r"discount is 1.5; it must lie in \[0.0, 1.0\]"),
        ({"critic_loss": "huber"}, "critic_loss is 'huber'"),
        ({"particles": 0}, "particles is 0; it must be 1"),
        ({"expectile": 1.0}, "expectile is 1.0"),
        ({"reference_tanh": True}, "reference_tanh belongs to reference_kind 'gaussian'"),
        ({"normalise_gradients": True}, "normalise_gradients belongs to method 'avgf'"),
        ({"method": "avgf", "value_ensemble": "min"}, "has no part in it"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": -1}, "budget.steps is -1"),
        ({"steps": 1.5}, "budget.steps is 1.5; it must be a whole number"),
        ({"temperature": 0.0}, "budget.temperature is 0.0; it must be above 0.0"),
        ({"optimiser": "sgd"}, "budget.optimiser is 'sgd'; choose one of plain, adam"),
        ({"low": 1.0, "high": -1.0}, "must lie below"),
        ({"bandwidth": 0.5, "bandwidth_gradient": True}, "drop budget.bandwidth"),
        ({"clip_scope": "world"}, "budget.clip_scope"),
    ],
)
def test_budgets_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        Budget(**settings)


def test_networks_out_of_range():
    with pytest.raises(ValueError, match=r"network.hidden is \(\)"):
        Network(())
    with pytest.raises(ValueError, match=r"network.activation is 'tanh'"):
        Network((4,), "tanh")
    assert Network([4, 8]).hidden == (4, 8)
    assert hash(method_settings("avgf")) == hash(method_settings("avgf"))
