"""The update as one program: compiled ahead of time, kept, and found again."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
from needs import need

from vgf.support.interrupts import StopRunError

pytestmark = [pytest.mark.slow, pytest.mark.full]


@pytest.fixture
def modules() -> Any:
    need("torch")
    import torch

    from vgf.backends.torch import programs

    return torch, programs


def _update(torch: Any) -> Any:
    def function(state: Any, batch: Any, noise: Any, power: int) -> Any:
        count = state["count"] + 1
        new = {"b": state["b"] + batch["x"].sum() / count.double().item(), "a": state["a"] ** power}
        return {"weights": {"b": new["b"], "a": new["a"]}, "count": count}, {"loss": noise["z"] - 1}

    return function


def _arguments(torch: Any, count: int = 0) -> list[Any]:
    state = {
        "a": torch.tensor([2.0, 3.0]),
        "b": torch.tensor([-1.0, 5.0]),
        "count": torch.tensor(count),
    }
    return [state, {"x": torch.ones(4)}, {"z": torch.ones(3)}]


def _numbers(outputs: Any) -> list[Any]:
    state, metrics = outputs
    weights = state["weights"]
    return [
        *(weights[name].tolist() for name in "ab"),
        int(state["count"]),
        metrics["loss"].tolist(),
    ]


def test_programs_are_kept_and_found_again(
    modules: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch, programs = modules
    monkeypatch.setenv("VGF_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("VGF_COMPILATION_CACHE")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    function, compiled, alive = _update(torch), [], []
    real = programs._compile
    monkeypatch.setattr(programs, "_compile", lambda *a: (compiled.append(1), real(*a))[1])

    def one(count: int = 0) -> None:
        given = [*_arguments(torch, count), 2]
        alive.append(programs.Program(function, True))
        assert _numbers(alive[-1](*given)) == _numbers(function(*given))
        # torch has a cache of its own there, kept from process to process
        left = [path.name for path in (tmp_path / "temporary").iterdir()]
        assert [name for name in left if not name.startswith("torchinductor_")] == []

    with warnings.catch_warnings():
        warnings.filterwarnings("error", "torch.compile compiles")
        one()
        assert len(compiled) == 1
        one(count=6)  # a counter that is read is no constant of the program
        assert len(compiled) == 1
        (path,) = tmp_path.rglob("*.pt2")
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2] ^= 255
        path.write_bytes(whole)
        one()
        assert len(compiled) == 2
        assert len(list(tmp_path.rglob("*.pt2"))) == 1
        assert not list(tmp_path.rglob(".writing-*"))


def test_keys_in_another_order_are_other_arrays(modules: Any) -> None:
    torch, programs = modules
    function = _update(torch)
    program = programs.Program(function, True)
    for turned in (False, True):
        state, *rest = _arguments(torch)
        if turned:
            state = {name: state[name] for name in reversed(list(state))}
        assert _numbers(program(state, *rest, 2)) == _numbers(function(state, *rest, 2))


def test_one_array_under_two_names_is_two_inputs(modules: Any) -> None:
    torch, programs = modules
    function = lambda state, batch, noise, power: ({"c": state["a"] + 10 * state["b"]}, {})
    program = programs.Program(function, True)
    one, other = torch.tensor([1.0, 2.0]), torch.tensor([6.0, 7.0])
    for second in (one, other):
        given = {"a": one, "b": second}, {}, {}, 2
        state, _ = program(*given)
        assert state["c"].tolist() == function(*given)[0]["c"].tolist()


def test_a_folder_that_cannot_be_written_is_named(
    modules: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch, programs = modules
    monkeypatch.setenv("VGF_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.delenv("VGF_COMPILATION_CACHE")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(programs, "_compile", lambda graph, inputs, folder: folder)
    monkeypatch.setattr(programs, "_load", lambda path: lambda *inputs: [2 * x for x in inputs])
    program = programs.Program(lambda state, *_: ({"a": 2 * state["a"]}, {}), True)
    with pytest.warns(UserWarning, match=r"file/torch.* VGF_CACHE_DIR"):
        state, _ = program({"a": torch.ones(2)}, {}, {}, 2)
    assert state["a"].tolist() == [2.0, 2.0]


def test_the_code_within_a_graph_is_in_its_key(modules: Any) -> None:
    torch, programs = modules

    class Branch(torch.nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x: Any) -> Any:
            return x * self.factor

    def graph(factor: float) -> Any:
        inner = torch.fx.symbolic_trace(Branch(factor))
        outer = torch.fx.Graph()
        outer.output(outer.call_module("inner", (outer.placeholder("x"),)))
        return torch.fx.GraphModule({"inner": inner}, outer)

    keys = [programs._key(graph(factor), []) for factor in (2.0, 2.0, 7.0)]
    assert keys[0] == keys[1] != keys[2]


def test_a_stop_in_the_middle_of_compiling_is_a_stop(
    modules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch, programs = modules

    def stopped(*args: Any) -> Any:
        raise StopRunError

    monkeypatch.setattr(programs, "_compile", stopped)
    program = programs.Program(_update(torch), True)
    program._just_in_time = _update(torch)
    with pytest.raises(StopRunError):
        program(*_arguments(torch), 2)


def test_what_cannot_be_traced_is_left_to_torch_compile(modules: Any) -> None:
    torch, programs = modules

    def branching(state: Any, batch: Any, noise: Any, power: int) -> Any:
        return ({"a": state["a"] * (2 if batch["x"].sum() > 0 else power)},), {}

    def function(*given: Any) -> Any:
        (state,), metrics = branching(*given)
        return state, metrics

    program = programs.Program(function, True)
    program._just_in_time = function  # what torch.compile would do, at once
    with pytest.warns(UserWarning, match=r"torch\.compile compiles"):
        state, _ = program(*_arguments(torch), 3)
    assert state["a"].tolist() == [4.0, 6.0]
