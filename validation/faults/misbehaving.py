"""Environments that misbehave, a kind of fault each, for `python -m validation.faults` and tests.

Importing the module registers them with gymnasium, as ``Misbehaving/KIND-v0``:

    vgf run --env gymnasium:validation.faults.misbehaving:Misbehaving/NanReward-v0 --data FILE

All behave until the third step of an episode, except those of making, reset and close. Where the
environment variable VGF_FAULT_ONCE names a file, only the first fault happens: it makes that file.
Where VGF_FAULT_AFTER names one, faults happen once there is something in it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

# What is said of each kind: a part of the message. None: nothing is wrong with its episodes.
KINDS: dict[str, str | None] = {
    "RaisesMade": "cannot be made here",
    "RaisesReset": r"raised ValueError: broken",
    "RaisesStep": r"raised ValueError: broken",
    "RaisesClose": None,  # after all episodes; a warning
    "Exits": r"raised SystemExit: 0",
    "Crashes": r"ended its process by SIGSEGV",
    "HangsReset": r"took (more|longer) than",
    "HangsStep": r"took (more|longer) than",
    "NanObservation": r"returned an observation with nan in place 1",
    "InfiniteObservation": r"returned an observation with inf in place 1",
    "OtherShape": r"returned an observation of shape \[3\], and its space has \[2\]",
    "TextObservation": r"not of numbers",
    "NanReward": r"returned the reward nan",
    "NoReward": r"returned as the reward None",
    "RewardVector": r"returned as the reward a ndarray of shape \[2\]",
    "FourValues": r"returned 4 values|expected 5, got 4",
    "ResetWithoutInfo": r"returned a ndarray of shape \[2\]|unpack",
    "NoFlag": r"returned as terminated None",
    "NoInfo": r"returned as info None|'NoneType'",
    "NanSuccess": r"returned the success nan",
}
LENGTH = 5


class Misbehaving(gymnasium.Env[np.ndarray, np.ndarray]):
    """A point on a plane, that one kind of fault befalls."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._fault("RaisesMade", _raise)

    def _fault(self, kind: str, do: Callable[[], Any]) -> Any:
        """Do it, where it is this environment's fault, and the first one if only that happens."""
        if self.kind != kind or not _due():
            return None
        once = os.environ.get("VGF_FAULT_ONCE")
        if once:
            try:
                Path(once).touch(exist_ok=False)
            except FileExistsError:
                return None
        return do()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.random(2).astype(np.float32)
        self.steps = 0
        self._fault("RaisesReset", _raise)
        self._fault("HangsReset", _hang)
        if self.kind == "ResetWithoutInfo" and _due():
            return self.place.copy()  # type: ignore[return-value]
        return self.place.copy(), {}

    def step(self, action: Any) -> Any:
        self.place = self.place + np.float32(0.1) * np.asarray(action, np.float32)[0]
        self.steps += 1
        seen, reward = self.place.copy(), float(-np.abs(self.place).sum())
        answer = [seen, reward, False, self.steps >= LENGTH, {"success": 0.0}]
        if self.steps != 3 or not _due():
            return tuple(answer)
        for kind, do in (("RaisesStep", _raise), ("Exits", sys.exit), ("HangsStep", _hang)):
            self._fault(kind, do if kind != "Exits" else lambda: sys.exit(0))
        self._fault("Crashes", lambda: os.kill(os.getpid(), signal.SIGSEGV))
        changed: dict[str, tuple[int, Any]] = {
            "NanObservation": (0, np.array([0, np.nan], np.float32)),
            "InfiniteObservation": (0, np.array([0, np.inf], np.float32)),
            "OtherShape": (0, np.zeros(3, np.float32)),
            "TextObservation": (0, np.array(["a", "b"])),
            "NanReward": (1, np.nan),
            "NoReward": (1, None),
            "RewardVector": (1, np.zeros(2)),
            "NoFlag": (2, None),
            "NoInfo": (4, None),
            "NanSuccess": (4, {"success": np.nan}),
        }
        if self.kind in changed:
            where, value = changed[self.kind]
            answer[where] = value
        return tuple(answer[:4] if self.kind == "FourValues" else answer)

    def close(self) -> None:
        self._fault("RaisesClose", _raise)


def _due() -> bool:
    after = os.environ.get("VGF_FAULT_AFTER")
    return not after or (os.path.exists(after) and os.path.getsize(after) > 0)


def _raise() -> None:
    raise ValueError("broken")


def _hang() -> None:
    while True:
        time.sleep(60)


def make(kind: str) -> Misbehaving:
    """One of them; gymnasium's entry point."""
    return Misbehaving(kind)


for _kind in ("", *KINDS):
    gymnasium.register(
        f"Misbehaving/{_kind or 'Not'}-v0", f"{__name__}:make", kwargs={"kind": _kind}
    )
