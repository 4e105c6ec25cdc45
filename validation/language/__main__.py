"""Aligning a small language model at test time, beside best-of-N, DPO and a policy gradient.

    python -m validation.language            # trains what is not trained yet
    python -m validation.language --redraw   # from the recorded numbers

Needs ``pip install 'vgf[baselines]'``. Models and responses are kept in the folder that
VGF_VALIDATION_RUNS names (runs): a stopped run continues.
"""

import sys

from vgf.support.errors import VGFError

from ..experiment import main

if __name__ == "__main__":
    try:
        from .benchmark import EXPERIMENT
    except VGFError as error:  # an extra that is not installed
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(main([EXPERIMENT], "language", __doc__, None))
