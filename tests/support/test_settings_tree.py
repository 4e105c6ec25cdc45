"""A tree of settings is walked by the classes of its values, whatever its annotations say."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from vgf.support.errors import VGFError
from vgf.support.settings_tree import override, settings_of, to_dict
from vgf.support.suggestions import did_you_mean, nearest


@dataclass(frozen=True)
class Engine:
    """An engine.

    Args:
        power: in kilowatts,
            at most.
    """

    power: float = 50.0


@dataclass(frozen=True)
class Electric(Engine):
    """An electric one.

    Args:
        battery: in kilowatt hours.
    """

    battery: float | None = None


@dataclass(frozen=True)
class Car:
    """A car.

    Args:
        engine: what drives it.
        seats: how many.
    """

    engine: Engine = field(default_factory=Engine)
    seats: int = 4


ELECTRIC = Car(Electric())


def test_a_subclass_has_its_own_settings_too() -> None:
    found = {setting.key: (setting.default, setting.help) for setting in settings_of(ELECTRIC)}
    assert found == {
        "engine.power": (50.0, "in kilowatts, at most."),
        "engine.battery": (None, "in kilowatt hours."),
        "seats": (4, "how many."),
    }
    assert [setting.key for setting in settings_of(Car())] == ["engine.power", "seats"]


def test_a_subclass_is_overridden_as_what_it_is() -> None:
    changed = override(ELECTRIC, {"engine": {"battery": 40}, "seats": 2}, "flags")
    assert changed == Car(Electric(battery=40.0), seats=2)
    assert to_dict(changed) == {"engine": {"power": 50.0, "battery": 40.0}, "seats": 2}
    with pytest.raises(VGFError, match=r"unknown key engine\.battery; did you mean engine\.power"):
        override(Car(), {"engine": {"battery": 40}}, "flags")
    with pytest.raises(VGFError, match=r"did you mean engine\.battery\?"):
        override(ELECTRIC, {"engine": {"batery": 40}}, "flags")


def test_suggestions() -> None:
    assert nearest("train.step_size", ["budget.step_size", "train.steps"]) == "budget.step_size"
    assert nearest("stepz", ["train.steps", "seed"]) == "train.steps"
    assert nearest("zzz", ["train.steps", "seed"]) is None
    assert did_you_mean("a", "look it up") == "did you mean a?"
    assert did_you_mean(["a", "b"], "look it up") == "did you mean a or b?"
    assert did_you_mean([], "look it up") == did_you_mean(None, "look it up") == "look it up"
