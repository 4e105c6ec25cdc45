"""Making data sets with your own policy, in any gymnasium environment.

    collect.py   episodes, and a data set of them
    policies.py  what acts: chance, a Python function, or an agent from a run
    formats.py   where the data go: .npz, .hdf5, or a Minari data set

It is above vgf.runs, whose agents can act, and is imported by vgf.cli only. What a benchmark makes
with its own oracles is in that benchmark's files.
"""
