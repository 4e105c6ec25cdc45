"""Runs: configuration, training, evaluation, and the folder that a run leaves.

Each line may import the lines above it, and no others::

    config       every setting of a run, in one tree of dataclasses
    presets      the paper's tasks as settings
    resolve      defaults, preset, TOML file and flags, combined into one configuration
    flags        the command line's flags, made from the tree
    folder       the run folder, with its configuration and its environment
    checkpoint   checkpoints in a run folder
    scores       episodes taken together: the score at each test budget
    log          the rows that a run writes
    evaluation   rollouts of a policy at several test budgets
    agent        an agent that acts: on a backend, out of a run folder, evaluated
    task         the task of a run
    updates      offline updates, many in one call
    start        where a run starts: at another run's checkpoint
    online       environment steps
    loop         the training loop
    look         what a trained agent's flow does, recorded for a picture
    picture      that picture, and an episode as an animation
    reading      run folders, read back
    compare      run folders as vgf.comparison compares them
    report       tables, figures and report.html of run folders

So code that only acts with an agent imports `agent`, and no trainer.
"""
