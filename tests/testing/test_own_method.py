"""A method and a kernel of somebody's own, checked as ours are: tests/own/mine.py."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vgf.backends import get_backend, missing_packages
from vgf.cli import main
from vgf.methods import VGF
from vgf.support.errors import VGFError
from vgf.testing import MethodMismatch, Mismatch, check_method

pytestmark = pytest.mark.full  # each is a search over four equations and trainings

MINE = Path(__file__).parents[1] / "own" / "mine.py"
METHOD, KERNEL = f"{MINE}:MyMethod", f"{MINE}:IMQ"
FEW = {"examples": 8, "updates": 3}

needs_torch = pytest.mark.skipif(bool(missing_packages("torch")), reason="torch is not installed")


@pytest.fixture(scope="module")
def torch():
    return get_backend("torch", device="cpu", dtype="float64")


def changed(folder, old, new):
    """The stranger's file with a mistake in it."""
    text = MINE.read_text()
    assert old in text
    file = folder / "mine.py"
    file.write_text(text.replace(old, new))
    return file


@pytest.mark.backend(names=("torch", "jax"), dtypes=("float64",))
@pytest.mark.heavy("jax")
def test_a_right_method_agrees(backend):
    found = check_method(METHOD, backend, dtype="float64", **FEW)
    assert found.agrees
    assert found.specification == "MySpecification"
    assert {c.what for c in found.compared} >= {"update", "act", "propose", "move"}
    assert {"defaults", "gaussian", "own settings"} <= set(found.settings)
    trained = [c for c in found.compared if c.what.startswith("training")]
    assert len(trained) == 3
    assert all(c.tried == 3 and c.worst <= 1e-8 for c in trained)
    assert all(c.tried >= 8 and c.worst < 1 for c in found.compared if c not in trained)


@pytest.mark.slow
@needs_torch
def test_a_class_is_checked_in_both_dtypes(torch, monkeypatch):
    monkeypatch.syspath_prepend(str(MINE.parent))
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # another test's, of the same name
    module = __import__("mine")
    found = check_method(module.MyMethod, [torch], **FEW)
    assert found.method == "mine:MyMethod"
    assert {c.dtype for c in found.compared if c.what == "update"} == {"float64", "float32"}
    sys.modules.pop("mine", None)


# what is changed, to what, and what must be named
# caught in the default tier too
OFTEN = ("a gradient by hand", "a weight left out")
MISTAKES = {
    "a gradient by hand": ("slope = -2 *", "slope = -1 *", "the gradient of network 'value'"),
    "a setting ignored": (
        'advantage(state["value"]) / settings.beta',
        'advantage(state["value"])',
        "metric 'weight_mean'",
    ),
    "noise of another sign": (
        "near = spec.project(a + ",
        "near = spec.project(a - ",
        "metric 'value_loss'",
    ),
    "the wrong critic": (
        'eq.critic_values(state["target_critic"]',
        'eq.critic_values(state["critic"]',
        "metric 'value_loss'",
    ),
    "the other expectile": (
        "tau * above**2 + (1 - tau)",
        "(1 - tau) * above**2 + tau",
        "metric 'value_loss'",
    ),
    "a weight left out": (
        "noise, settings, weight)\n        metrics = {",
        "noise, settings)\n        metrics = {",
        "metric 'reference_loss'",
    ),
}


@needs_torch
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in OFTEN else pytest.mark.slow) for n in MISTAKES]
)
def test_a_mistake_is_caught_and_named(torch, tmp_path, name):
    old, new, named = MISTAKES[name]
    method = f"{changed(tmp_path, old, new)}:MyMethod"
    with pytest.raises(MethodMismatch) as caught:
        check_method(method, [torch], dtype="float64", examples=20, updates=3)
    result = caught.value.result
    assert not result.agrees
    wrong = [c for c in result.compared if c.differs]
    assert wrong[0].what == "update"
    assert named in wrong[0].differs
    trained = [c for c in wrong if c.what.startswith("training")]
    assert trained
    first = 2 if name == "the wrong critic" else 1  # the target critic starts as the critic
    assert all(c.tried == first and f"after update {first}" in c.says for c in trained)
    assert f"first differs: {wrong[0].differs[0]}" in str(caught.value)
    assert isinstance(caught.value, Mismatch)


@pytest.mark.slow
@needs_torch
def test_a_method_derived_from_one_of_ours_is_checked_in_its_own_variations(torch):
    class Mine(VGF):
        """VGF under a name of its own."""

    found = check_method(Mine, torch, dtype="float64", **FEW)
    assert found.method.endswith("Mine")
    assert {"defaults", "gaussian tanh", "plain ascent", "clipped"} <= set(found.settings)

    class Further(VGF):
        specification = VGF.specification  # said, as it is no longer what this class computes

        def move(self, eq, state, s, a, budget, settings, trajectory=False):
            budget = replace(budget, step_size=2 * budget.step_size)
            return super().move(eq, state, s, a, budget, settings, trajectory)

    with pytest.raises(MethodMismatch) as caught:
        check_method(Further, torch, dtype="float64", **FEW)
    found = {c.what: c.differs for c in caught.value.result.compared}
    assert found["move"] == ("the particles moved",)
    assert "metric 'displacement'" in found["update"]


@needs_torch
@pytest.mark.parametrize(
    ("function", "named"), [("propose", "the particles proposed"), ("move", "the particles moved")]
)
def test_proposing_and_moving_are_compared(torch, tmp_path, function, named):
    own = f"    def {function}(self, *args):\n        return super().{function}(*args) / 2\n"
    method = f"{changed(tmp_path, 'class IMQ', f'{own}class IMQ')}:MyMethod"
    with pytest.raises(MethodMismatch) as caught:
        check_method(method, [torch], dtype="float64", **FEW)
    found = {c.what: c for c in caught.value.result.compared}
    assert found[function].differs == (named,)


@needs_torch
def test_an_exception_of_theirs_is_a_finding(torch, tmp_path):
    method = f"{changed(tmp_path, 'near = eq.project(', 'near = eq.projects(')}:MyMethod"
    with pytest.raises(MethodMismatch, match=r"(?s)it raises AttributeError: .*mine.py, line \d+"):
        check_method(method, [torch], dtype="float64", **FEW)


@needs_torch
def test_random_numbers_of_their_own_are_a_finding(torch, tmp_path):
    method = f"{changed(tmp_path, 'above**2 + ', 'above**2 + np.random.rand() + ')}:MyMethod"
    with pytest.raises(MethodMismatch, match="differs"):
        check_method(method, [torch], dtype="float64", **FEW)


def test_without_a_specification_there_is_nothing_to_compare_with(tmp_path, capsys):
    file = changed(tmp_path, "    specification = MySpecification()", "    Settings = MySettings")
    assert main(["check", "--method", f"{file}:MyMethod"]) == 2
    assert (
        "has no `specification`, so there is nothing to compare it with" in capsys.readouterr().err
    )


def test_a_specification_that_does_not_run_is_no_finding(tmp_path):
    file = changed(tmp_path, "spec.fit_critic", "spec.fit_critics")
    with pytest.raises(VGFError, match=r"does not run .* 'fit_critics'"):
        check_method(f"{file}:MyMethod", **FEW)


@pytest.mark.slow
@needs_torch
def test_a_kernel_is_checked_by_the_setting_that_names_it(torch, tmp_path):
    few = {"examples": 8, "updates": 2, "dtype": "float64"}
    found = check_method("vgf", [torch], settings={"budget.kernel": KERNEL}, **few)
    assert "vgf" in found.settings
    assert "vgf gaussian tanh" not in found.settings  # its bandwidth_gradient is of "rbf" alone
    wrong = f"{changed(tmp_path, 'return -(k**3)', 'return (k**3)')}:IMQ"
    with pytest.raises(MethodMismatch) as caught:
        check_method("vgf", [torch], settings={"budget.kernel": wrong}, **few)
    assert any(c.what in ("update", "move") and c.differs for c in caught.value.result.compared)


def test_a_kernel_without_its_gradient_in_numpy_is_no_finding(tmp_path):
    kernel = f"{changed(tmp_path, 'def gradient(', 'def derivative(')}:IMQ"
    with pytest.raises(VGFError, match="has no gradient"):
        check_method("vgf", settings={"budget.kernel": kernel}, **FEW)


# --- the command ---------------------------------------------------------------------------------


@needs_torch
def test_the_command_says_what_was_compared(capsys):
    words = ["--backend", "torch", "--dtype", "float64", "--examples", "4", "--updates", "2"]
    assert main(["check", "--method", "fql", *words]) == 0
    printed = capsys.readouterr().out
    assert "method fql agrees with its specification, FQL" in printed
    assert "training: fql normalised" in printed
    assert max(map(len, printed.splitlines())) <= 80


@needs_torch
def test_the_command_exits_with_1_where_they_differ(tmp_path, capsys):
    file, out = changed(tmp_path, "slope = -2 *", "slope = -1 *"), tmp_path / "found.json"
    words = ["--backend", "torch", "--dtype", "float64", "--examples", "4", "--updates", "2"]
    assert main(["check", "--method", f"{file}:MyMethod", *words, "--json", str(out)]) == 1
    printed = capsys.readouterr().out
    assert "DIFFERS from its specification" in printed
    assert "first differs: the gradient of network 'value'" in printed
    assert "after update 1" in printed
    found = json.loads(out.read_text())
    assert found["agrees"] is False
    assert found["compared"][0]["differs"] == ["the gradient of network 'value'"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--method", "sac"], "method is 'sac'; choose one of vgf"),
        (["--method", f"{MINE}:Nothing"], "has no Nothing"),
        (["--method", f"{MINE}:MySpecification"], "is a specification"),
        (["--method", f"{MINE}:IMQ"], "must be a class derived from"),
        (["--method", "vgf", "--set", "budget.colour=1"], "no setting 'budget.colour'"),
        (["--method", "vgf", "--set", "beta=1"], "no setting 'beta'"),
        (["--method", "vgf", "--set", "budget.kernel=cubic"], "budget.kernel is 'cubic'"),
        (["--method", "bc", "--set", "budget.steps=2"], "moves no particles"),
        (["--method", "vgf", "--examples", "0"], "must be 1 or more"),
        (["--method", "vgf", "--dtype", "float16"], "'float16' is unknown"),
        (["--method", "vgf", "--as", "phi"], "--as belongs to a function"),
        (["mine.py:phi", "--method", "vgf"], "mine.py:phi belongs to a function"),
        (["mine.py:phi", "--as", "phi", "--updates", "3"], "--updates belongs to --method"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(capsys, words, says):
    assert main(["check", *words]) == 2
    assert says in capsys.readouterr().err
