"""Every named mistake, planted in torch and in JAX, is caught by the check that should catch it."""

import math

import pytest

from vgf.testing import VARIANTS, Mismatch, Variant, check, variants


def test_there_are_enough_of_them():
    assert len(VARIANTS) >= 25


# on JAX a whole update is compiled for each
WHOLE = pytest.mark.heavy("jax")
LARGE = (
    "langevin",
    "sequence_phi",
    "decoding_scores",
    "update",
    "operate",
    "guided_sample",
    "denoised_gradient",
    "policy_loss",
)


@pytest.mark.full
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[WHOLE] * (one.equation in LARGE)) for name, one in VARIANTS.items()],
)
@pytest.mark.backend(names=("torch", "jax"), dtypes=("float64",))
def test_planted_mistake_is_caught(backend, name):
    variant = VARIANTS[name]
    with pytest.raises(Mismatch, match=variant.equation):
        check(variant.plant(backend), variant.equation, examples=200, shrink=False)


@pytest.mark.backend(names=("torch", "jax"), dtypes=("float64",))
def test_planting_leaves_the_backend_itself_alone(backend):
    VARIANTS["repulsion sign"].plant(backend)
    check(backend, "repulsion", examples=10)


# The same scaffolding around the right thing: if one of these were caught, a mistake of its kind
# might be caught for the scaffolding's sake.
def control(method, replacement, equation=None):
    return Variant(method, "", method, replacement, equation or method)


CONTROLS = [
    control("adam_step", lambda b, _, *args: variants._adam(b, *args, correct=True, inside=False)),
    control("bandwidth_squared", lambda b, _, a: right_bandwidth(b, a)),
    control(
        "_normalise", lambda b, _, x, *affine: variants.normalised(x, 1e-6, *affine), "layer_norm"
    ),
    control("td_target", lambda b, original, q, r, *args: original(q, r * 1, *args)),
    control("clip_by_global_norm", lambda b, original, *args: original(*args)),
    control("advantage_weights", lambda b, original, q, own, *args: original(q, own * 1, *args)),
    control(
        "policy_loss",
        lambda b, original, params, critic, *args: original(
            params, variants._negated(variants._negated(critic)), *args
        ),
    ),
    control("update_from_noise", lambda b, original, *args: original(*args), "update"),
]


def right_bandwidth(b, a):
    n = a.shape[-2]
    x = variants.ordered(b, variants.all_distances(b, a))
    median = (x[..., (n * n - 1) // 2] + x[..., n * n // 2]) / 2
    return variants.floored(b, median / (2 * math.log(n + 1)))


@pytest.mark.full
@pytest.mark.parametrize(
    "variant",
    [pytest.param(one, marks=[WHOLE] * (one.equation in LARGE), id=one.name) for one in CONTROLS],
)
@pytest.mark.backend(names=("torch", "jax"), dtypes=("float64",))
def test_the_right_thing_in_the_same_scaffolding_is_not_caught(backend, variant):
    check(variant.plant(backend), variant.equation, examples=40, shrink=False)
