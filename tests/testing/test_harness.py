"""A backend that was asked for and is absent FAILS; it is not skipped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from needs import SECONDS

pytestmark = pytest.mark.full  # each is a run of pytest
ROOT = Path(__file__).parents[2]

# A plugin that makes the frameworks look absent, however they are installed.
HIDE = "from needs import hide\nhide('torch', 'jax')\n"


def run_tests(folder, *words, **environment):
    (folder / "hide_frameworks.py").write_text(HIDE)
    clean = {k: v for k, v in os.environ.items() if k not in ("CI", "VGF_TEST_BACKENDS")}
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "hide_frameworks",
            "-p",
            "no:cacheprovider",
            "tests/backends/test_shapes.py",
            "-k",
            "another_state",
            *words,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={
            **clean,
            **environment,
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "tests")]),
        },
        timeout=SECONDS,
    )


def test_an_absent_backend_is_skipped_by_default(tmp_path):
    done = run_tests(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "skipped" in done.stdout


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        (["--backends", "numpy,torch"], {}),
        pytest.param([], {"CI": "true"}, marks=pytest.mark.slow),
        pytest.param([], {"VGF_TEST_BACKENDS": "torch"}, marks=pytest.mark.slow),
    ],
)
def test_an_absent_backend_fails_when_it_is_asked_for(tmp_path, words, environment):
    done = run_tests(tmp_path, *words, **environment)
    assert done.returncode == 1, done.stdout
    assert "pip install 'vgf[torch]'" in done.stdout
    assert "skipped" not in done.stdout


def test_a_framework_that_was_not_asked_for_is_not_needed(tmp_path):
    done = run_tests(tmp_path, "--backends", "numpy", CI="true")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    assert "skipped" not in done.stdout


def test_a_framework_that_was_not_asked_for_is_not_seen():
    code = """
from needs import hide
hide("xmlrpc")
import importlib.util
assert importlib.util.find_spec("xmlrpc") is importlib.util.find_spec("xmlrpc.client") is None
assert importlib.util.find_spec("csv")
try:
    import xmlrpc.client
except ModuleNotFoundError as error:
    print(error.name)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
        env=environment,
    )
    assert done.stdout == "xmlrpc\n"


def test_an_unknown_backend_fails(tmp_path):
    done = run_tests(tmp_path, "--backends", "mxnet")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "'mxnet' is unknown" in done.stderr
