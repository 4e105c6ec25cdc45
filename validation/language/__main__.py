"""Aligning a small language model at test time, beside best-of-N, DPO and a policy gradient.

    python -m validation.language            # trains what has not been trained yet
    python -m validation.language --redraw   # from the recorded numbers

Needs ``pip install 'vgf[baselines]'``. Models and responses are kept in the folder that
VGF_VALIDATION_RUNS names (runs): a stopped run goes on.
"""

import sys

from ..experiment import main
from .benchmark import EXPERIMENT

if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], "language", __doc__, None))
