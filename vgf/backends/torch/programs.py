"""The whole update as one program, which outlives the process that compiled it.

On the CPU it is traced (make_fx), compiled ahead of time (AOTInductor) and kept in a file, so that
the next run needs only to trace it. torch.compile, with a tracer of its own that takes longer,
serves GPUs, for which AOTInductor needs a CUDA toolkit, and code of your own that make_fx does not
take, such as a branch on an array's value.

Source: torch's documentation of AOTInductor and of torch.compile.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._inductor import config as inductor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from ...spec.optimiser import tree_map
from ...support.files import programs_folder, scratch_folder

try:
    from torch._inductor import aoti_compile_and_package, aoti_load_package
except ImportError:  # before torch 2.6
    _AHEAD = False
else:
    _AHEAD = True

# The vector instructions that the processor names are used without a trial of the C++ compiler,
# which takes a second at every start.
_UNTRIED = {"cpp.vec_isa_ok": True}


class Program:
    """A function of trees of arrays and of settings, compiled at its first call for each settings
    and shapes.

    Args:
        function: (state, batch, noise, settings) to trees of arrays.
        ahead: whether AOTInductor may compile it.
    """

    def __init__(self, function: Callable[..., Any], ahead: bool) -> None:
        self._function, self._ahead = function, ahead and _AHEAD
        self._just_in_time = torch.compile(function, dynamic=False)
        self._made: dict[Any, _Made | None] = {}

    def __call__(self, *trees: Any) -> Any:
        if not self._ahead:
            return self._just_in_time(*trees)
        *arrays, settings = trees
        inputs: list[Tensor] = []
        names: list[str] = []
        for tree in arrays:
            _flatten(tree, inputs, names)
        key = (settings, *names, *((x.shape, x.stride(), x.dtype) for x in inputs))
        if key not in self._made:
            self._made[key] = self._make(inputs, arrays, settings)
        made = self._made[key]
        if made is None:
            return self._just_in_time(*trees)
        program, outputs = made
        values = iter(program(*inputs))
        return tuple(tree_map(lambda _: next(values), tree) for tree in outputs)

    def _make(self, inputs: list[Tensor], trees: list[Any], settings: Any) -> _Made | None:
        outputs: list[Any] = []
        inputs = [x.detach() for x in inputs]  # one tensor under two names would be one input

        def flat(*arrays: Tensor) -> list[Tensor]:
            given = iter(arrays)
            own = [tree_map(lambda _: next(given), tree) for tree in trees]
            made, found = self._function(*own, settings), list[Tensor]()
            for tree in made:
                _flatten(tree, found, [])
            outputs[:] = [tree_map(lambda _: None, tree) for tree in made]
            return found

        try:
            with torch.no_grad():
                # with made-up arrays: a value that is read becomes a symbol, never a constant
                graph = make_fx(flat, tracing_mode="fake")(*inputs)
                return _program(graph, inputs), outputs
        except Exception as error:
            why = str(error).partition("\n")[0]
            warnings.warn(f"torch.compile compiles, at every start: {why}", stacklevel=2)
            return None


_Made = tuple[Callable[..., Any], list[Any]]


def _flatten(tree: Any, arrays: list[Tensor], names: list[str]) -> None:
    """Add a tree's arrays to a list, and their names: the same names may come in another order."""
    for name, value in tree.items():
        names.append(name)
        if isinstance(value, dict):
            _flatten(value, arrays, names)
        else:
            arrays.append(value)


def _program(graph: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    """What a graph computes, as machine code: from a file, or compiled into one."""
    folder = programs_folder("torch")
    if folder is not None:
        path = folder / f"{_key(graph, inputs)}.pt2"
        if _is_whole(path):
            return _load(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with scratch_folder(folder) as scratch:
                os.replace(_compile(graph, inputs, scratch), path)
            return _load(path)
        except OSError as error:
            why = error.strerror or error
            warnings.warn(
                f"{folder}: {why}; what is compiled is not kept for later runs. VGF_CACHE_DIR "
                "names another folder",
                stacklevel=2,
            )
    with tempfile.TemporaryDirectory(prefix="vgf-") as scratch:
        return _load(_compile(graph, inputs, Path(scratch)))


def _is_whole(path: Path) -> bool:
    """Whether a program is there, as it was written: a damaged one would crash the process."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def _key(graph: GraphModule, inputs: list[Tensor]) -> str:
    """What a program depends on beside the processor: its code and constants, what it is given,
    threads, torch and torch's own variables."""
    parts = [
        *(own.code for own in graph.modules() if isinstance(own, GraphModule)),
        *((name, x.dtype, x.tolist()) for name, x in graph.named_buffers()),
        *((x.shape, x.stride(), x.dtype) for x in inputs),
        torch.__version__,
        torch.get_num_threads(),
        sorted((k, v) for k, v in os.environ.items() if k.startswith(("TORCHINDUCTOR_", "AOT_"))),
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _compile(graph: GraphModule, inputs: list[Tensor], folder: Path) -> Path:
    path = folder / "program.pt2"
    exported = torch.export.export(graph, tuple(inputs))
    with warnings.catch_warnings(), inductor.patch(_UNTRIED):
        warnings.simplefilter("ignore", FutureWarning)  # torch's own
        aoti_compile_and_package(exported, package_path=str(path))
    return path


def _load(path: Path) -> Callable[..., Any]:
    """A program, in memory: torch unpacks it into a folder that a killed process would leave."""
    before = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="vgf-", ignore_cleanup_errors=True) as scratch:
        os.environ["TMPDIR"] = scratch
        try:
            with inductor.patch(_UNTRIED):
                program: Callable[..., Any] = aoti_load_package(str(path))
        finally:
            del os.environ["TMPDIR"]
            if before is not None:
                os.environ["TMPDIR"] = before
    return program
