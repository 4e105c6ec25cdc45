"""The types of the specification."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

# In the specification a NumPy array. The backends have the same signatures with their own
# arrays, which a type checker accepts because of the second part.
if TYPE_CHECKING:
    Array = npt.NDArray[Any] | Any
else:
    Array = npt.NDArray[Any]

# A parameter tree: nested dicts of arrays. See networks.py for the names of the keys.
Params = dict[str, Any]

# A map from particles [*, N, d] to vectors of the same shape.
VectorField = Callable[[Array], Array]

Generator = np.random.Generator
