"""A command that updates the copy of D4RL's table; vgf/benchmarks/d4rl_infos.py says how."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ..support.files import write_atomically
from . import d4rl_infos


def main(words: list[str]) -> int:
    """Update the copy of D4RL's table from the path of an infos.py and its revision."""
    if len(words) != 2:
        print(
            "usage: python -m vgf.benchmarks.copy_d4rl_infos d4rl/infos.py REVISION",
            file=sys.stderr,
        )
        return 2
    infos, revision = words
    tasks = {
        name: {"url": task.url, "ref_min": task.ref_min, "ref_max": task.ref_max}
        for name, task in d4rl_infos.table_of(Path(infos), infos).tasks.items()
    }
    content = {
        "source": d4rl_infos.TABLE_URL.format(revision),
        "revision": revision,
        "tasks": tasks,
    }
    write_atomically(d4rl_infos.TABLE, json.dumps(content, indent=1) + "\n")
    print(f"{d4rl_infos.TABLE}: {len(tasks)} tasks")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
