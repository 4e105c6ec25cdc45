"""Many runs: tasks x methods x seeds x settings, on one machine or a cluster; `vgf sweep`.

A module imports only from those before it::

    spec       a TOML file, expanded into the configuration of each run
    folder     the sweep's folder: what was asked for, and where each run is
    worker     makes some of the runs, or goes on with them
    engines    where: processes of this machine, Ray, SLURM
    estimate   hours and disk, from a short measurement
"""
