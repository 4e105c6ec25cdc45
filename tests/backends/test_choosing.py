"""Choosing a backend at runtime, and what goes wrong."""

import functools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from needs import SECONDS, need

from vgf import get_backend, spec
from vgf.backends import BACKENDS, BackendError, add_backend_arguments
from vgf.support.errors import VGFError
from vgf.testing.training import ACTION_DIM, TRAININGS, batches


def run_python(code, **environment):
    """Run code in a fresh Python, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HIDE = """
import sys, importlib.abc
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda n, p=None: None if n in {hidden!r} else find(n, p)
"""


def test_importing_vgf_imports_no_framework():
    heavy = (
        "torch",
        "jax",
        "jaxlib",
        "optax",
        "gymnasium",
        "ogbench",
        "minari",
        "transformers",
        "hypothesis",
        "matplotlib",
        "ray",
    )
    code = f"""
import sys, json
import vgf, vgf.spec, vgf.backends, vgf.backends.numpy
vgf.get_backend("numpy")
print(json.dumps([m for m in {heavy!r} if m in sys.modules]))"""
    assert json.loads(run_python(code)) == []


@pytest.mark.full
def test_the_import_test_would_notice_a_framework():
    code = "import sys, vgf; vgf.get_backend('torch'); print('torch' in sys.modules)"
    need("torch")
    assert run_python(code) == "True"


def test_vgf_works_with_numpy_and_scipy_alone():
    hidden = ("torch", "jax", "jaxlib", "optax", "hypothesis", "safetensors")
    code = HIDE.format(hidden=hidden) + "import vgf; print(vgf.get_backend().name)"
    assert run_python(code, VGF_BACKEND="") == "numpy"


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_missing_framework_names_its_extra(name):
    code = (
        HIDE.format(hidden=(name,))
        + f"""
import vgf
try:
    vgf.get_backend({name!r})
except vgf.VGFError as error:
    print(error)
"""
    )
    message = run_python(code)
    assert f"pip install 'vgf[{name}]'" in message
    assert "numpy" in message.rpartition("choose one of")[2]


def test_testing_without_hypothesis_names_its_extra():
    code = (
        HIDE.format(hidden=("hypothesis",))
        + """
try:
    import vgf.testing
except ImportError as error:
    print(error)
"""
    )
    assert "vgf[testing]" in run_python(code)


def test_the_environment_variable_chooses(monkeypatch):
    monkeypatch.setenv("VGF_BACKEND", "numpy")
    assert get_backend().name == "numpy"
    monkeypatch.setenv("VGF_BACKEND", "tensorflow")
    with pytest.raises(BackendError, match=r"'tensorflow' \(from VGF_BACKEND\).*numpy, torch, jax"):
        get_backend()
    assert get_backend("numpy").name == "numpy"  # a name goes before the variable


def test_unknown_settings_are_named():
    with pytest.raises(BackendError, match="'mxnet' is unknown; choose one of numpy, torch, jax"):
        get_backend("mxnet")
    with pytest.raises(BackendError, match=r"dtype 'float16'.*float32, float64"):
        get_backend("numpy", dtype="float16")
    with pytest.raises(BackendError, match=r"'int8' is unknown.*tf32"):
        get_backend("numpy", matmul_precision="int8")
    for device in ("tpu", "gpu:x", "cpu:0", ""):
        with pytest.raises(BackendError, match="choose auto, cpu, gpu"):
            get_backend("numpy", device=device)
    with pytest.raises(BackendError, match=r"numpy.*--device cpu"):
        get_backend("numpy", device="gpu")
    with pytest.raises(BackendError, match="--matmul-precision float32"):
        get_backend("numpy", matmul_precision="bf16")
    with pytest.raises(BackendError, match="unexpected keyword argument 'jit'"):
        get_backend("numpy", jit=True)
    assert issubclass(BackendError, VGFError)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_settings_of_the_frameworks(name):
    need(name)
    with pytest.raises(BackendError, match=r"'gpu:99' was requested.*sees.*--device cpu"):
        get_backend(name, device="cuda:99")
    with pytest.raises(BackendError, match=r"tf32.*needs an NVIDIA GPU"):
        get_backend(name, device="cpu", matmul_precision="tf32")
    with pytest.raises(BackendError, match="contradicts dtype 'float64'"):
        get_backend(name, dtype="float64", matmul_precision="bf16")
    assert get_backend(name, device="cpu").dtype == "float32"


def test_compiling_without_a_compiler_names_the_flag(monkeypatch):
    need("torch")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BackendError, match=r"C\+\+ compiler.*--eager"):
        get_backend("torch", device="cpu", compile=True)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_bf16_rounds_the_operands_and_sums_in_full(name):
    need(name)
    rng = np.random.default_rng(0)
    params = spec.init_mlp(rng, 16, spec.Network((64,)), 3)
    x = rng.standard_normal((8, 16))
    exact = spec.mlp(params, x)
    backend = get_backend(name, device="cpu", matmul_precision="bf16")
    rough = backend.to_numpy(backend.mlp(backend.asarray(params), backend.asarray(x)))
    error = np.abs(rough - exact).max() / np.abs(exact).max()
    assert rough.dtype == np.float32
    assert 1e-4 < error < 2e-2


@pytest.mark.parametrize("new", [True, False])
def test_tf32_is_switched_on_a_gpu_alone_and_put_back(monkeypatch, new):
    """No GPU is needed to see which switch is thrown, and that it is thrown back."""
    need("torch")
    import torch

    class Switch:
        pass

    switch = Switch()
    name, before = ("fp32_precision", "none") if new else ("allow_tf32", True)
    setattr(switch, name, before)
    monkeypatch.setattr(torch.backends.cuda, "matmul", switch)
    seen = []
    for precision in ("float32", "tf32"):
        backend = get_backend("torch", device="cpu")
        backend.device, backend.matmul_precision = "gpu:0", precision
        backend.activate = lambda x, _: seen.append(getattr(switch, name)) or x
        params = backend.asarray(spec.init_mlp(np.random.default_rng(0), 2, spec.Network((2,)), 1))
        backend.mlp(params, backend.asarray(np.ones((1, 2))))
        assert getattr(switch, name) == before
    assert seen == (["ieee", "tf32"] if new else [False, True])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_an_update_compiled_for_a_gpu_is_one_graph(monkeypatch, precision):
    """The switch is thrown around what is compiled: within, it would break the graph."""
    need("torch")
    import torch

    whole = functools.partial(torch.compile, backend="eager", fullgraph=True)
    monkeypatch.setattr(torch, "compile", lambda function, **_: whole(function))
    settings = TRAININGS["vgf flow squared"]
    found = []
    for compile_it in (True, False):
        backend = get_backend("torch", device="cpu", compile=compile_it)
        backend.device, backend.matmul_precision = "gpu:0", precision
        if compile_it:
            backend._update._ahead = False
        state = backend.init_state(0, 6, ACTION_DIM, settings)
        new, _ = backend.update(state, backend.asarray(batches(1)[0]), settings)
        found.append(backend.to_numpy(new["critic"]["output"]["kernel"]))
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.full
def test_float32_does_not_depend_on_float64_having_been_used():
    need("jax")
    code = """
import numpy as np, vgf
from vgf.testing.training import TRAININGS, train
{first}
got = train(vgf.get_backend("jax", device="cpu"), TRAININGS["vgf flow squared"], 2)
print(got["critic"]["output"]["kernel"].tobytes().hex(), got["critic"]["output"]["kernel"].dtype)
"""
    alone = run_python(code.format(first=""))
    after = run_python(code.format(first="vgf.get_backend('jax', device='cpu', dtype='float64')"))
    assert alone == after
    assert alone.endswith("float32")


def test_flags_choose(capsys):
    import argparse

    parser = argparse.ArgumentParser()
    add_backend_arguments(parser)
    chosen = parser.parse_args(["--backend", "numpy", "--dtype", "float32"])
    assert (chosen.backend, chosen.device, chosen.dtype) == ("numpy", "auto", "float32")
    with pytest.raises(SystemExit):
        parser.parse_args(["--backend", "nonesuch"])
    assert "nonesuch" in capsys.readouterr().err


def test_every_backend_is_named_once():
    assert len(set(BACKENDS)) == len(BACKENDS) == 3


def test_arrays_go_there_and_back(backend):
    tree = {"a": np.arange(6.0).reshape(2, 3), "b": {"count": np.asarray(3, np.int32)}}
    back = backend.to_numpy(backend.asarray(tree))
    assert back["a"].dtype == backend.dtype
    assert np.array_equal(back["a"], tree["a"])
    assert back["b"]["count"].dtype == np.int32
    assert back["b"]["count"].shape == ()
    again = backend.asarray(backend.asarray(tree))  # its own arrays are taken too
    assert np.array_equal(backend.to_numpy(again)["a"], tree["a"])
    own = backend.asarray(tree["a"])
    tree["a"][:] = 0  # a copy, not a view
    assert backend.to_numpy(own).any()
