"""Environments in one form, whatever their benchmark, and many of them stepped together.

    fitting.py   vectors in, actions in [-1, 1] out, reproducible from a seed
    making.py    gymnasium's environments by name
    pool.py      many environments, in this process or in a few others

It imports vgf.support and nothing above it; benchmarks, runs and recording build on it. fitting.py
and making.py import gymnasium; the package itself does not.
"""
