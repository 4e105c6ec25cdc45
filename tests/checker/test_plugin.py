"""The pytest fixture, and the form of the JSON."""

import json
from importlib.metadata import entry_points

import pytest

pytest.importorskip("hypothesis")
pytest_plugins = ["pytester"]

from vgf.checker.schema import SCHEMA
from vgf.cli import main


@pytest.mark.full
def test_a_fixture_without_an_import(pytester):
    pytester.makepyfile(
        """
        target = lambda r, mask, q, discount: r + discount * mask * q.min(0).mean(-1)

        def test_right(vgf_check):
            vgf_check(target, "td_target")

        def test_wrong(vgf_check):
            vgf_check(lambda r, mask, q, discount: r + discount * q.min(0).mean(-1), "td_target")
        """
    )
    # an installed vgf has brought it already
    installed = "vgf.checker.plugin" in {one.value for one in entry_points(group="pytest11")}
    plugin = () if installed else ("-p", "vgf.checker.plugin")
    result = pytester.runpytest_inprocess(*plugin, "--vgf-examples", "30")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*Your target ignores the mask*"])


@pytest.mark.full
def test_json_follows_its_schema(tmp_path, capsys):
    jsonschema = pytest.importorskip("jsonschema")
    file = tmp_path / "mine.py"
    file.write_text(
        "def right(r, mask, q, discount):\n"
        "    return r + discount * mask * q.min(0).mean(-1)\n"
        "def wrong(r, mask, q, discount):\n"
        "    return r + discount * q.min(0).mean(-1)\n"
    )
    for name, status in (("right", 0), ("wrong", 1)):
        words = ["--as", "td_target", "--examples", "20", "--json", "-"]
        assert main(["check", f"{file}:{name}", *words]) == status
        jsonschema.validate(json.loads(capsys.readouterr().out), SCHEMA)
    assert main(["check", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA
