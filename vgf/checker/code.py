"""Reading a function's code: the numbers it holds, and which of its lines have run.

A condition that few inputs meet is sought on purpose: inputs are drawn near the numbers that the
code compares with, and a line that no input reached is told.
"""

from __future__ import annotations

import ast
import functools
import inspect
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

_DEPTH = 6
_COMMON = {0.0, 1.0, -1.0, 2.0, 0.5}


def plain_function(function: Any) -> Any:
    """The Python function behind a method, a partial, a wrapper or an object that is called."""
    for _ in range(_DEPTH):
        for name in ("__func__", "func", "__wrapped__"):
            if hasattr(function, name):
                function = getattr(function, name)
                break
        else:
            break
    if hasattr(function, "__code__"):
        return function
    cls = type(function)
    call = getattr(cls, "forward", None) or cls.__call__
    return call if hasattr(call, "__code__") else None


def own_functions(function: Any) -> list[Any]:
    """The function, and those of its module that it refers to, by name or as methods."""
    found: dict[CodeType, Any] = {}

    def visit(value: Any, depth: int) -> None:
        plain = plain_function(value)
        if plain is None or plain.__code__ in found or depth > _DEPTH:
            return
        found[plain.__code__] = plain
        names = {name for code in _inner(plain.__code__) for name in code.co_names}
        owner = getattr(value, "__self__", None)
        others = [plain.__globals__.get(name) for name in names]
        others += [getattr(type(owner), name, None) for name in names] if owner is not None else []
        others += [cell.cell_contents for cell in plain.__closure__ or () if filled(cell)]
        for other in others:
            if callable(other) and getattr(other, "__module__", None) == plain.__module__:
                visit(other, depth + 1)

    visit(function, 0)
    return list(found.values())


def filled(cell: Any) -> bool:
    """Whether a cell of a closure holds a value yet."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _inner(code: CodeType) -> list[CodeType]:
    codes = [code]
    for each in codes:
        codes += [c for c in each.co_consts if isinstance(c, CodeType)]
    return codes


def numbers_in(function: Any, most: int = 12) -> tuple[float, ...]:
    """Numbers that a function's code holds, as constants, defaults, globals or attributes.

    Those of no interest (0, 1, 2, 1/2) are left out, and small guards such as 1e-8.
    """
    found: dict[float, None] = {}

    def keep(value: Any) -> None:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number) and number not in _COMMON and 1e-4 < abs(number) < 1e4:
                found.setdefault(number)

    for own in own_functions(function):
        for value in [*(own.__defaults__ or ()), *(own.__kwdefaults__ or {}).values()]:
            keep(value)
        for code in _inner(own.__code__):
            for value in code.co_consts:
                for one in value if isinstance(value, tuple) else (value,):
                    keep(one)
            for name in code.co_names:
                keep(own.__globals__.get(name))
    owner = getattr(function, "__self__", function)
    for value in getattr(owner, "__dict__", {}).values() if not inspect.ismodule(owner) else ():
        keep(value)
    return tuple(found)[:most]


def says_somewhere(function: Any, word: str) -> bool:
    """Whether a text in a function's code contains a word."""
    return any(
        isinstance(value, str) and word in value and " " not in value
        for own in own_functions(function)
        for code in _inner(own.__code__)
        for value in code.co_consts
    )


_SINGLE = {"float32", "float16", "bfloat16", "half", "f4", "<f4"}


def names_single_precision(function: Any) -> bool:
    """Whether a function's code names a dtype of fewer digits than float64's."""
    for own in own_functions(function):
        for code in _inner(own.__code__):
            words = {c for c in code.co_consts if isinstance(c, str)}
            if _SINGLE & (words | set(code.co_names)):
                return True
    return False


@contextmanager
def casts_watched() -> Iterator[list[str]]:
    """The torch functions that lose digits meanwhile by a cast to a smaller dtype."""
    import torch
    from torch.overrides import TorchFunctionMode

    found: list[str] = []

    class Mode(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            source = args[0] if args else None
            if (
                isinstance(result, torch.Tensor)
                and isinstance(source, torch.Tensor)
                and source.dtype == torch.float64
                and result.dtype in (torch.float32, torch.float16, torch.bfloat16)
                and result.shape == source.shape
                and bool((result.double() != source).any())
            ):
                found.append(getattr(func, "__name__", "a cast"))
            return result

    with Mode():
        yield found


class Lines:
    """Which lines of a function's code have run, of those functions that were entered."""

    def __init__(self, function: Any) -> None:
        self._codes = {c for f in own_functions(function) for c in _inner(f.__code__)}
        self._entered: set[CodeType] = set()
        self._run: dict[CodeType, set[int]] = {}
        self.stale = 0

    @property
    def done(self) -> bool:
        """Whether watching longer is of no use: every line has run."""
        return bool(self._entered) and not self.unreached()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Record the lines that run meanwhile; nothing where somebody else traces (a debugger)."""
        before = sys.gettrace()
        if before is not None or not self._codes or self.done:
            yield
            return
        count = sum(map(len, self._run.values()))
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(None)
            more = sum(map(len, self._run.values())) > count
            self.stale = 0 if more else self.stale + 1

    def _trace(self, frame: Any, event: str, argument: Any) -> Callable[..., Any] | None:
        code = frame.f_code
        if code not in self._codes:
            return None
        self._entered.add(code)
        seen = self._run.setdefault(code, {code.co_firstlineno})

        def line(frame: Any, event: str, argument: Any) -> Any:
            if event == "line":
                seen.add(frame.f_lineno)
            return line

        return line

    def unreached(self) -> dict[str, list[int]]:
        """Lines of code that was entered that never ran, by file."""
        found: dict[str, list[int]] = {}
        for code in self._entered:
            lines = {line for _, _, line in code.co_lines() if line}
            missing = lines - self._run.get(code, set()) - {code.co_firstlineno}
            missing -= {line for c in _inner(code)[1:] for _, _, line in c.co_lines() if line}
            missing -= _raising(code.co_filename)
            if missing:
                found.setdefault(Path(code.co_filename).name, []).extend(missing)
        return {name: sorted(set(lines)) for name, lines in found.items()}


@functools.cache
def _raising(filename: str) -> frozenset[int]:
    """The lines of a file that raise or assert: no result comes from there."""
    try:
        tree = ast.parse(Path(filename).read_text())
    except (OSError, SyntaxError, ValueError):
        return frozenset()
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Raise, ast.Assert)):
            lines |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return frozenset(lines)


def in_words(lines: list[int]) -> str:
    """3, 5-7."""
    parts: list[list[int]] = []
    for line in sorted(lines):
        if parts and line == parts[-1][-1] + 1:
            parts[-1].append(line)
        else:
            parts.append([line])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
