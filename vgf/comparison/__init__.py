"""Comparing methods over tasks and seeds; see :func:`compare`.

    results = vgf.comparison.read_table("scores.csv")      # or vgf.runs.compare.read_runs(FOLDER)
    found = vgf.comparison.compare(results)
    found.over_tasks["vgf"]["IQM"]                          # Estimate(value, low, high)
    print(vgf.comparison.tables(found))

A module imports only from those before it: results, statistics, groups, reading, comparing, tables,
figures.
"""

from .comparing import Cell, Comparison, Hindsight, compare
from .figures import save_figures
from .groups import Record, combine, unlike
from .reading import read_log, read_table
from .results import Absent, Results, Series
from .statistics import Estimate, aggregates, improvement, profile, seeds_needed
from .tables import as_csv, as_json, tables

__all__ = [
    "Absent",
    "Cell",
    "Comparison",
    "Estimate",
    "Hindsight",
    "Record",
    "Results",
    "Series",
    "aggregates",
    "as_csv",
    "as_json",
    "combine",
    "compare",
    "improvement",
    "profile",
    "read_log",
    "read_table",
    "save_figures",
    "seeds_needed",
    "tables",
    "unlike",
]
