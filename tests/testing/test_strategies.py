"""What examples share where a framework compiles each combination of shapes and settings."""

import hypothesis
import numpy as np
import pytest

from vgf.testing import EQUATIONS
from vgf.testing.compare import named_leaves

pytestmark = pytest.mark.full


def drawn(name, programs, seed, count=60):
    """Examples of an equation: what a program is compiled for, and the numbers."""
    found = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(EQUATIONS[name].examples(programs, seed))
    def keep(example):
        arguments, _ = example
        data = [a for a in arguments if isinstance(a, (np.ndarray, dict))]
        leaves = [leaf for a in data for leaf in named_leaves(a)]
        rest = [a for a in arguments if not isinstance(a, (np.ndarray, dict))]
        program = repr([(key, np.shape(x), np.asarray(x).dtype) for key, x in leaves] + rest)
        found.append((program, tuple(np.asarray(x).tobytes() for _, x in leaves)))

    keep()
    return found


@pytest.mark.parametrize("name", sorted(EQUATIONS.keys() - {"init_state"}))  # it compiles nothing
def test_examples_share_programs_and_no_numbers(name):
    few, every = drawn(name, 4, 0), drawn(name, None, 0)
    programs = {program for program, _ in few}
    assert min(2, len({program for program, _ in every})) <= len(programs) <= 4
    assert len({numbers for _, numbers in few}) >= 20


def test_the_seed_decides_which_programs_there_are():
    programs = [{program for program, _ in drawn("phi", 4, seed)} for seed in (0, 0, 1)]
    assert programs[0] == programs[1]
    assert not programs[0] & programs[2]
