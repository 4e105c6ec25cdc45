"""What in a file looks checkable, and as what: by the names of functions and of their arguments."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..support.errors import VGFError
from ..support.objects import load_file
from .adapter import Adapter, bind
from .modules import is_flax, is_torch
from .subjects import SUBJECTS, SYNONYMS, Subject

# Words in a function's name, and what it then may be, beside the subjects' own names.
_WORDS: dict[str, tuple[str, ...]] = {
    "phi": ("phi", "svgd", "direction", "stein"),
    "rbf_kernel": ("rbf", "kernel", "gaussian_kernel"),
    "bandwidth_squared": ("bandwidth", "median", "sigma"),
    "repulsion": ("repulsion", "repulsive"),
    "flow_step": ("step", "particle_step"),
    "transport": ("transport", "flow_particles", "evolve"),
    "td_target": ("target", "td_target", "backup", "bellman"),
    "critic_loss": ("critic_loss", "q_loss", "td_loss", "value_loss"),
    "flow_matching_loss": ("bc_loss", "bc_flow_loss", "flow_loss", "fm_loss", "flow_matching"),
    "flow_sample": ("sample", "sampler", "euler", "flow_actions", "sample_actions"),
    "gaussian_loss": ("nll", "gaussian_loss", "log_prob_loss"),
    "action_gradient": ("action_grad", "action_gradient", "dqda", "grad_q", "q_grad", "score"),
    "gradient_field_loss": ("gradient_field_loss", "gf_loss", "field_loss"),
    "select": ("select", "pick", "choose"),
    "polyak": ("polyak", "soft_update", "target_update", "ema"),
    "adam_step": ("adam",),
    "clip_by_global_norm": ("clip_grad", "global_norm", "clip_by_global_norm"),
    "layer_norm": ("layer_norm", "layernorm"),
    "mlp": ("mlp", "forward"),
    "policy_loss": ("actor_loss", "policy_loss", "distill_loss"),
    "advantage_weights": ("weights", "advantage_weights", "awr", "awac"),
    "flow_velocity": ("velocity", "vector_field", "flow_net"),
    "critic_values": ("critic", "qfunction", "q_network"),
}


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """A function that may be checked.

    Attributes:
        target: what `vgf check` takes.
        name: as what.
        arguments: theirs and ours, as they would be bound.
        closures: theirs that are functions, and of what kind.
        missing: an argument of theirs that a user has to explain, or "".
    """

    target: str
    name: str
    arguments: Mapping[str, str]
    closures: Mapping[str, str]
    missing: str = ""

    def __str__(self) -> str:
        text = f"vgf check {self.target} --as {self.name}"
        return text if not self.missing else f"{text} --arg {self.missing}=?"


def suggest(path: Path) -> list[Suggestion]:
    """What a file's functions, methods and networks look like, the likeliest subject of each.

    Raises:
        VGFError: a file that cannot be found or imported.
    """
    found = []
    for word, function, network in _functions(path):
        best = None
        for subject in _likely(word.rpartition(".")[2], network):
            suggestion = _bound(f"{path}:{word}", function, subject)
            if best is None or (best.missing and not suggestion.missing):
                best = suggestion
        if best is not None:
            found.append(best)
    return found


def _functions(path: Path) -> Iterator[tuple[str, Any, bool]]:
    """Names and functions that a file defines; of classes their methods; networks by themselves."""
    module = load_file(path)
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", "") != module.__name__:
            continue
        if inspect.isclass(value):
            if is_torch(value) or is_flax(value):
                yield name, value, True
            for inner, method in vars(value).items():
                method = getattr(method, "__func__", method)
                method = getattr(method, "__wrapped__", method)
                if inspect.isfunction(method) and not inner.startswith("_"):
                    yield f"{name}.{inner}", method, False
        elif callable(value):
            yield name, value, False


def _likely(name: str, network: bool) -> list[Subject]:
    """The subjects that a function's name speaks for, the most of its letters first."""
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().strip("_")
    scores: dict[str, float] = {}
    for subject in SUBJECTS:
        words = {subject, *_WORDS.get(subject, ())}
        words |= {word for word, meant in SYNONYMS.items() if meant == subject}
        for word in words:
            if plain == word:
                scores[subject] = max(scores.get(subject, 0), 100 + len(word))
            elif f"_{word}_" in f"_{plain}_" or (len(word) > 5 and word in plain):
                scores[subject] = max(scores.get(subject, 0), len(word))
    if network:
        kept = ("flow_velocity", "critic_values", "gradient_field", "mlp")
        scores = {k: v for k, v in scores.items() if k in kept} or {"mlp": 1.0}
    return [SUBJECTS[k] for k in sorted(scores, key=lambda k: -scores[k])]


def _bound(target: str, function: Any, subject: Subject) -> Suggestion:
    function = _without_self(function)
    try:
        sources = bind(function, subject, Adapter())[0].sources
    except VGFError as error:
        word = re.search(r"what its argument (\w+) is", str(error))
        return Suggestion(target, subject.name, {}, {}, word.group(1) if word else "...")
    arguments = {k: str(s.value) for k, s in sources.items() if s.kind == "ours"}
    closures = {k: str(s.value) for k, s in sources.items() if s.kind == "closure"}
    return Suggestion(target, subject.name, arguments, closures)


def _without_self(function: Any) -> Any:
    """A method as it is called on an object; a network as a function of its inputs."""
    if inspect.isclass(function):
        from .modules import NetworkCall

        return NetworkCall(function, {}, function.__name__)
    names = list(inspect.signature(function).parameters)
    if names[:1] in (["self"], ["cls"]):
        return _Method(function)
    return function


class _Method:
    def __init__(self, function: Any) -> None:
        signature = inspect.signature(function)
        self.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])
        self.__qualname__ = function.__qualname__

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("only its signature is read")


def as_toml(suggestions: list[Suggestion]) -> str:
    """A file for `vgf check --mapping`: one [[check]] for each, with what is bound."""
    lines = ["# Written by vgf check --suggest; vgf check --mapping THIS runs every check.", ""]
    for s in suggestions:
        lines += ["[[check]]", f'target = "{s.target}"', f'as = "{s.name}"']
        if s.missing:
            lines.append(f"# arguments.{s.missing} = '?'  # say what it is, then take this line in")
            lines.append("skip = true")
        for key, pairs in (("arguments", s.arguments), ("closures", s.closures)):
            lines += [f'{key}.{theirs} = "{ours}"' for theirs, ours in pairs.items()]
        lines.append("")
    return "\n".join(lines)
