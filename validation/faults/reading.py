"""What is wrong in a record of faults: for the page, and for the report of all results."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]
MEMORY = 1 << 30  # bytes that a process which reads mutated files may take beyond its own


def faults(record: Record) -> list[str]:
    """Everything recorded that is not as it must be, one line each."""
    lines = []
    for part in ("kills", "signals"):
        for name, row in record.get(part, {}).items():
            lines += [f"{part}: {name}, trial {i}: {what}" for i, what in row["wrong"].items()]
    for kind, row in record.get("fuzz", {}).items():
        lines += [f"fuzz: {kind}, iteration {i}: {what}" for i, what in row["found"].items()]
        if row["peak"] > MEMORY:
            lines.append(f"fuzz: {kind} took {row['peak']:,} bytes")
    for part in ("planted", "environments", "resources"):
        for name, row in record.get(part, {}).items():
            lines += [f"{part}: {name}: {row['wrong']}"] if row["wrong"] else []
    return lines
