"""Methods, one file each: what a method declares, and its equations in NumPy."""

from ..registry import Declared, register
from .avgf import AVGF, AVGFSettings
from .base import Declaration, Draw, NetworkShape, Specification, normal, uniform
from .bc import BC
from .fql import FQL, FQLSettings
from .iql import IQL, IQLSettings
from .td import TD
from .vgf import VGF
from .weighted_bc import WeightedBC, WeightedBCSettings

for _method in (VGF(), AVGF(), BC(), WeightedBC(), FQL(), IQL(), TD()):
    register(Declared, _method.name, _method)
