"""Ways of acting at test time with one reference and one critic, one file each.

An operator is a frozen dataclass of its settings and is written once, with `eq`: every backend runs
it on its own equations. Those that are new here stand in guidance.py (inside the sampler) and
ascent.py (after it), with gradients derived by hand.
"""

from ..registry import register
from .base import Cost, Operator, operate
from .bptt import BPTT
from .gradient import Gradient
from .langevin import Langevin
from .qfql import QFQL
from .qgf import QGF
from .sample import BestOfN, Sample
from .vgf import Flow

for _operator in (Sample(), BestOfN(), Flow(), Gradient(), QFQL(), QGF(), BPTT(), Langevin()):
    register(Operator, _operator.name, _operator)
