"""The gradients of somebody's loss: which parameters get one, and whether it is the right one.

A loss whose value is right may still train the wrong thing: a network that is detached, a target
that is not. So where a loss agrees, and it is given a network (its parameters, or a function made
of them), it is differentiated by its own framework and compared with the specification's gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..support.objects import short_error
from ..testing.compare import named_leaves
from ..testing.equations import EQUATIONS
from .diagnosis import EXTREME, Finding
from .trial import SPECIFICATION, Outcome, Trial, draw_many

# Losses, the functions that give their gradients, and whose parameters those are of.
GRADIENTS = {
    "flow_matching_loss": "flow_matching_gradient",
    "gaussian_loss": "gaussian_gradient",
    "gradient_field_loss": "gradient_field_gradient",
    "policy_loss": "policy_gradient",
    "value_loss": "value_gradient",
}
_TRIED = 4
# Inputs drawn beside those of the search where it has none that are away from ties.
_DRAWN = 300
# Where the slope of a clip or of a ReLU is a convention.
_TIES = {*EXTREME, "bounds", "ends"}


def has_gradient(trial: Trial) -> bool:
    """Whether theirs is a loss that its framework can differentiate."""
    return trial.subject.name in GRADIENTS and trial.arrays.name != "numpy"


def more_ordinary(trial: Trial, outcomes: Sequence[Outcome], seed: int) -> list[Outcome]:
    """Inputs away from edges and ties, tried beside those of the search where that has none."""
    if not has_gradient(trial) or trial.reading.single or _ordinary(outcomes):
        return []
    found: list[Outcome] = []
    for arguments, chosen in draw_many(trial.subject, _DRAWN, seed + 2, trial.sizes):
        if not tied(chosen):
            found.append(trial.run(arguments, chosen, outcomes[0].dtype))
            if not found[-1].agrees or _ordinary(found):
                break
    return found


def compare_gradients(trial: Trial, outcomes: Sequence[Outcome]) -> tuple[list[Finding], list[str]]:
    """What is wrong with the gradient of a loss that agrees, and what is to be known of it."""
    name = trial.subject.name
    if not has_gradient(trial):
        return [], []
    if trial.reading.single:
        return [], ["its gradient was not compared, as it is called for one state at a time"]
    pairs, also = [], set[str]()
    for o in _ordinary(outcomes)[:_TRIED]:
        try:
            found = trial.caller.gradients(o.named, o.dtype)
        except Exception as error:  # what cannot be differentiated says nothing of its value
            return [], [f"its gradient was not compared: {short_error(error)}"]
        if found is None:
            return [], ["it runs without gradients, so none was compared"]
        if "params" not in found:
            return [], ["its gradient was not compared, as it is given no parameters"]
        also |= {
            key
            for key, tree in found.items()
            if key != "params" and any(np.any(x) for x in tree.values())
        }
        expected = EQUATIONS[GRADIENTS[name]].run(SPECIFICATION, *o.arguments)[1]
        pairs.append((o, found["params"], expected))
    if not pairs:
        return [], ["its gradient was not compared: no input was away from edges and ties"]
    wrong = [leaf for o, got, want in pairs for leaf in _different(got, want, o.dtype)]
    notes = []
    if also:
        notes.append(
            f"its gradient also reaches {', '.join(sorted(also))}, which this loss is not to train"
        )
    if not wrong:
        left = sorted({n for _, got, want in pairs for n, _ in named_leaves(want) if n not in got})
        part = f" but for {', '.join(left)}, which it is not given" if left else ""
        also_said = f"its gradient of params is the specification's, on {len(pairs)} inputs{part}"
        return [], [also_said, *notes]
    missing = all(not np.any(x) for _, got, _ in pairs for x in got.values())
    if missing:
        says = (
            "your loss has the right value and no gradient reaches the parameters of its network: "
            "something is detached that should not be"
        )
    else:
        arrays = ", ".join(list(dict.fromkeys(wrong))[:4])
        says = (
            f"your loss has the right value and another gradient of its parameters ({arrays}): a "
            "term is detached that should not be, or is not detached that should be"
        )
    return [Finding("gradient", says, matched=len(pairs), of=len(pairs))], notes


def _ordinary(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Inputs away from edges and ties, the larger first."""
    kept = [
        o
        for o in outcomes
        if o.agrees
        and not tied(o.chosen)
        and float(np.max(np.abs(np.asarray(o.expected)), initial=0.0)) < 1e4
    ]
    return sorted(kept, key=lambda o: (o.dtype != "float64", -float(o.chosen.get("B", 0))))


def tied(chosen: Mapping[str, Any]) -> bool:
    """Whether an input may lie on an edge or a tie, by what was chosen for it."""
    return any(str(value) in _TIES for value in chosen.values())


def _different(got: Mapping[str, Any], want: Any, dtype: str) -> list[str]:
    """The arrays of a gradient that differ."""
    bound = 1e-3 if dtype == "float64" else 1e-2  # what is detached is no matter of digits
    size = max(float(np.max(np.abs(x), initial=0.0)) for _, x in named_leaves(want))
    return [
        name
        for name, x in named_leaves(want)
        if name in got and not np.max(np.abs(got[name] - x), initial=0.0) <= bound * size
    ]
