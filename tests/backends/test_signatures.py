"""An equation's signature and text, said once in the specification, are known everywhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from needs import SECONDS, need

from vgf import spec
from vgf.equations import EQUATIONS


@pytest.mark.parametrize("name", sorted(EQUATIONS))
@pytest.mark.backend(dtypes=("float64",))
def test_help_is_the_specifications(backend, name):
    assert getattr(backend, name).__doc__ == getattr(spec, name).__doc__


@pytest.mark.slow
def test_a_type_checker_knows_them(tmp_path):
    need("mypy")
    file = tmp_path / "theirs.py"
    file.write_text(
        "import vgf\n"
        'backend = vgf.get_backend("numpy")\n'
        "reveal_type(backend.phi)\n"
        'backend.phi(1, 2, temprature="x")\n'
        'backend.td_target(1, 2, 3, discount="x")\n'
        "backend.phi(object(), object(), temperature=0.1).anything_of_theirs()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", "--config-file=", str(file)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(Path(spec.__file__).parents[2])},
    )
    revealed, *errors = done.stdout.splitlines()
    for part in (
        "temperature: float | None =",
        "bandwidth_gradient: bool =",
        "kernel: str | None =",
    ):
        assert part in revealed
    assert len(errors) == 2, done.stdout
    assert 'Unexpected keyword argument "temprature"' in errors[0]
    assert 'Argument "discount"' in errors[1]
