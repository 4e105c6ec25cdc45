"""The paper's claims as experiments, each with numbers, verdicts and a figure.

    python -m validation.claims                  # all
    python -m validation.claims modes            # one
    python -m validation.claims modes --redraw   # from its recorded numbers

Writes validation/results/NAME.md, .json, .svg, .pdf and .png.
"""

import sys

from ..experiment import main
from . import CLAIMS

if __name__ == "__main__":
    sys.exit(main(CLAIMS, "claims", __doc__, None))
