"""The paper's claims, one experiment each."""

from .best_of_n import BEST_OF_N
from .boltzmann import BOLTZMANN
from .distance import DISTANCE
from .energy import ENERGY
from .mmd_bound import MMD_BOUND
from .modes import MODES
from .support import SUPPORT

CLAIMS = (MMD_BOUND, DISTANCE, BEST_OF_N, SUPPORT, MODES, BOLTZMANN, ENERGY)
