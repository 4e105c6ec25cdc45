"""Making data sets with a policy of one's own, in any environment of gymnasium.

    collect.py   episodes, and a data set of them
    policies.py  what acts: chance, a Python function, or an agent out of a run
    formats.py   where the data go: .npz, .hdf5, or a Minari data set

It stands above vgf.runs, whose agents can act, and is imported by vgf.cli alone. What a benchmark
makes with its own oracles is with that benchmark.
"""
