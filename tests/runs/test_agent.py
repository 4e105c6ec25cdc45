"""Acting with an agent needs no trainer; what was the trainer's is found under its old name."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
from needs import SECONDS


def test_acting_imports_no_trainer() -> None:
    code = """
import sys
import vgf.runs.agent
print(*{f"vgf.runs.{name}" for name in ("loop", "updates", "online", "start")} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS, check=True
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("old", "names"),
    [
        ("vgf.train", "train train_together load_agent evaluate_agent make_backend load_task"),
        ("vgf.train", "deferred_interrupt test_budgets finished prepare say_line"),
        ("vgf.acting", "agent_policy"),
        (
            "vgf.config",
            "RunConfig resolve load_config all_settings override read_toml nearest check",
        ),
        ("vgf.checkpoint", "load_checkpoint open_run_folder git_revision read_json CONFIG"),
        ("vgf.evaluate", "evaluate summarise Summary Policy"),
        ("vgf.metrics", "RunLog RowLog read_rows by_budget progress shown_progress Progress"),
        ("vgf.report", "report Run Score scores figure format_table find_runs"),
        ("vgf.updates", "drive Run Interrupted StopRunError"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_names(old: str, names: str) -> None:
    module = importlib.import_module(old)
    assert [name for name in names.split() if not hasattr(module, name)] == []
