"""Every function of the interface, on every backend and dtype, against the specification."""

import inspect

import pytest

from vgf import spec
from vgf.equations import EQUATIONS as INTERFACE
from vgf.testing import EQUATIONS, check

# seconds each on JAX, which compiles them for every setting
WHOLE = ("update", "move", "operate", "guided_sample", "sampler_gradient", "denoised_gradient")
LARGE = ("langevin", "policy_gradient", "gradient_ascent", "critic_transport")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[pytest.mark.heavy("jax")] * (name in WHOLE)
            + [pytest.mark.full("jax")] * (name in LARGE or name.endswith(("_gradient", "_loss"))),
        )
        for name in sorted(EQUATIONS)
    ],
)
def test_backend_equals_the_specification(backend, name, examples, seed):
    report = check(backend, name, examples, seed)
    assert report.examples >= min(examples, 10)  # a strategy with few inputs ends earlier


def test_every_function_of_the_interface_is_checked():
    # random numbers are not the specification's own; their tests are elsewhere
    assert set(EQUATIONS) == set(INTERFACE) - {"draw_update_noise", "draw_act_noise"}


@pytest.mark.parametrize("name", sorted(set(EQUATIONS) | {"draw_update_noise", "draw_act_noise"}))
def test_signatures_are_those_of_the_specification(backend, name):
    wanted = inspect.signature(getattr(spec, name)).parameters.values()
    found = inspect.signature(getattr(backend, name)).parameters.values()
    assert [(p.name, p.default) for p in found] == [(p.name, p.default) for p in wanted]
