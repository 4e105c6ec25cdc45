"""Whether an implementation computes what the specification says: strategies, checks, comparison.

Needs hypothesis: ``pip install 'vgf[testing]'``.
"""

try:
    import hypothesis as _hypothesis
except ImportError as error:  # pragma: no cover
    raise ImportError("vgf.testing needs hypothesis: pip install 'vgf[testing]'") from error

from ..checker.adapter import Adapter
from ..checker.checking import Result, assert_matches, check_function
from ..checker.subjects import SUBJECTS, inputs
from .compare import FACTOR, MACHINE_EPSILON, Difference, difference
from .equations import BUDGETS, EQUATIONS, SETTINGS, Equation, Mismatch, Report, check
from .training import TRAININGS, Drift, measure_drift
from .variants import VARIANTS, Variant
