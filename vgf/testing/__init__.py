"""Whether an implementation computes what the specification says: strategies, checks, comparison.

Needs hypothesis: ``pip install 'vgf[testing]'``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

try:
    import hypothesis as _hypothesis
except ImportError as error:  # pragma: no cover
    raise ImportError("vgf.testing needs hypothesis: pip install 'vgf[testing]'") from error

from .compare import FACTOR, MACHINE_EPSILON, Difference, difference
from .equations import BUDGETS, EQUATIONS, SETTINGS, Equation, Mismatch, Report, check
from .methods import Compared, MethodMismatch, MethodResult, check_method
from .training import TRAININGS, Drift, measure_drift
from .variants import VARIANTS, Variant

if TYPE_CHECKING:
    from ..checker.adapter import Adapter as Adapter
    from ..checker.checking import Result as Result
    from ..checker.checking import assert_matches as assert_matches
    from ..checker.checking import check_function as check_function
    from ..checker.subjects import SUBJECTS as SUBJECTS
    from ..checker.subjects import inputs as inputs

# What checks somebody's own function, which stands on all that is here.
_OF_CHECKER = {
    "Adapter": "adapter",
    "Result": "checking",
    "SUBJECTS": "subjects",
    "assert_matches": "checking",
    "check_function": "checking",
    "inputs": "subjects",
}


def __getattr__(name: str) -> Any:
    if name not in _OF_CHECKER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"vgf.checker.{_OF_CHECKER[name]}"), name)
