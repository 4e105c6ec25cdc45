"""gymnasium's environments, which have no data of their own: each needs a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.provenance import file_provenance
from ..data.raw import RawData
from ..support.errors import VGFError
from ..support.extras import is_installed
from ..support.suggestions import closest, did_you_mean
from .base import Benchmark, DataRequest, Scoring
from .files import read_own


@dataclass(frozen=True)
class GymnasiumMaker:
    """Makes one of gymnasium's environments; picklable. Like every maker, it is called with a
    seed for the first `reset` without its own seed, or with None.
    """

    name: str

    def __call__(self, seed: int | None = None) -> Any:
        from ..environments.making import make_gymnasium_env

        return make_gymnasium_env(self.name, seed)


class Gymnasium(Benchmark):
    """Names are gymnasium's ids; ``MODULE:ID`` imports the module that registers it."""

    kind, title, example = "gymnasium", "gymnasium", "Hopper-v5"
    has_data = False
    recordable = True

    def names(self, data_dir: str | Path | None = None) -> Sequence[str]:
        if not is_installed("gymnasium"):
            return ()
        from ..environments.making import registered

        return list(registered())

    def has(self, name: str, data_dir: str | Path | None = None) -> bool:
        if not is_installed("gymnasium"):
            return False
        from ..environments.making import find_spec

        return find_spec(name) is not None

    def spelled(self, name: str, data_dir: str | Path | None = None) -> str:
        if self.has(name):
            return name
        near = closest(name, self.names())
        hint = did_you_mean(near, f"its names are such as {self.example}")
        raise VGFError(f"gymnasium has no {name!r}; {hint}{self.not_known()}")

    def not_known(self) -> str:
        if is_installed("gymnasium"):
            return ""
        return (
            "; gymnasium's names are not known here, where it is not installed: "
            "pip install 'vgf[envs]'"
        )

    def check_request(self, request: DataRequest) -> None:
        if request.data is None:
            raise VGFError(
                f"{request.name} is one of gymnasium's environments, which have no data of their "
                "own; name a file with --data"
            )
        super().check_request(request)

    def read(self, request: DataRequest) -> RawData:
        return read_own(request)

    def scoring(self, request: DataRequest) -> Scoring:
        from ..environments.making import simulator_versions

        name = request.name
        note = f"evaluated in {name} ({simulator_versions(name)})"
        return Scoring(GymnasiumMaker(name), notes=(note,))

    def task_of_file(self, path: Path) -> tuple[str, str] | None:
        name = recorded_environment(path)
        module, _, bare = (name or "").rpartition(":")
        # no file's word imports a module
        if name is None or bare not in self.names() or (module and module not in sys.modules):
            return None
        env = f"{self.kind}:{name}"
        return env, f"actions are those of {env}, where they were recorded: train with --env"

    def makeable(self) -> Sequence[str]:
        return self.names()


def recorded_environment(path: Path) -> str | None:
    """The gymnasium id that a .npz or .hdf5 file says it was recorded in, or None."""
    found = file_provenance(path)
    name = found.get("environment") if isinstance(found, dict) else None
    return name if isinstance(name, str) else None
