"""Data sets in one form, and what holds, reads and shows them; specific to no benchmark.

    dataset.py     the one form, and batches from it
    raw.py         from what a file holds to that form: checks and conventions
    npz.py         files of two formats
    hdf5.py
    replay.py      transitions that a run collects, on disk and in memory
    scaling.py     observations and rewards as the networks see them
    inspect.py     what a data set holds and what is wrong with it
    picture.py     and a picture of it
    parts.py       recording in parallel, kept in parts
    provenance.py  what a recorded data set depends on

Every source is read in two stages: a reader makes a :class:`RawData` (arrays as they are in the
file, unchecked), and :func:`to_dataset` checks it, applies its conventions and makes a
:class:`Dataset`.

The package imports vgf.support and nothing above it; environments, benchmarks, runs and recording
build on it. Importing it imports no simulator.
"""

from ..moved import old_names
from .dataset import Dataset, check_dataset, standardise
from .hdf5 import read_hdf5
from .npz import read_npz
from .raw import RawData, return_range, to_dataset

__getattr__ = old_names(__name__)
