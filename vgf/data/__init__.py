"""Data: one internal form, the benchmarks' own files and recorders, and their environments.

Every source is read in two stages: a reader makes a :class:`RawData` (arrays as they are in the
file, unchecked), and :func:`to_dataset` checks it, applies its conventions and makes a
:class:`Dataset` (raw.py). :func:`read_raw` finds the reader from a task's name and
:func:`read_file` from a file's (source.py).

Importing this package imports no simulator; the functions that need one import it.
"""

from ..benchmarks.d4rl import d4rl_table, normalised_score, read_hdf5
from ..benchmarks.minari import read_minari
from ..benchmarks.ogbench import load_ogbench, ogbench_tasks, parse_task
from ..benchmarks.source import Source, find_source, read_file, read_raw
from ..recording.record import generate_ogbench
from .dataset import Dataset, check_dataset, standardise
from .npz import read_npz
from .raw import RawData, return_range, to_dataset
