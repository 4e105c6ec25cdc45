"""Names that vgf.data had up to version 0.1: they still import, and say where they are now."""

from __future__ import annotations

import importlib

import pytest

import vgf.data
from vgf.moved import MOVED_NAMES, RENAMED


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in MOVED_NAMES.items() for name in names]
)
def test_a_name_of_a_module(module: str, name: str) -> None:
    home, now = MOVED_NAMES[module][name]
    with pytest.warns(DeprecationWarning, match=f"{module}.{name} is now {home}.{now}"):
        found = getattr(importlib.import_module(module), name)
    assert found is getattr(importlib.import_module(home), now)


@pytest.mark.parametrize(("module", "name"), [key for key in RENAMED if "vgf.data" in key[0]])
def test_a_name_that_changed(module: str, name: str) -> None:
    found = getattr(importlib.import_module(module), name)
    assert found.__name__ == RENAMED[module, name]


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("vgf.data.common", "Progress Say without_interrupts"),
        ("vgf.data.d4rl", "D4RLTask find_d4rl read_hdf5 with_conventions"),
        ("vgf.data.environments", "ActionRepeat OwnGenerator fit make_ogbench_env registered"),
        ("vgf.data.formats", "MinariOutput NpzOutput Output parse_output recorded_environment"),
        ("vgf.data.ogbench", "dataset_path load_ogbench read_ogbench"),
        ("vgf.environments.pool", "EnvironmentPool MakeEnv Step default_workers usable_cores"),
        ("vgf.data.record", "Recipe generate_ogbench recipe_for"),
        ("vgf.data.source", "find_source read_file read_raw"),
        ("vgf.tasks", "D4RLMaker GymnasiumMaker OGBenchMaker Task make_task simulator_versions"),
    ],
)
def test_an_old_module(module: str, names: str) -> None:
    if "environments" in module or module == "vgf.tasks":
        pytest.importorskip("gymnasium")
    for name in names.split():
        assert getattr(importlib.import_module(module), name) is not None


def test_what_never_was_is_not_there() -> None:
    with pytest.raises(AttributeError, match=r"module 'vgf\.data' has no attribute 'nothing'"):
        _ = vgf.data.nothing
