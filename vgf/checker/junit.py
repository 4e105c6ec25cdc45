"""Results of checks as JUnit XML, which continuous integration shows beside its tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree


def junit(results: Sequence[tuple[str, str, Any]]) -> str:
    """One suite, a case for each result; a difference is a failure with the whole report.

    Args:
        results: (what was checked, as what, the result: it has `agrees` and a text).
    """
    failures = sum(not result.agrees for _, _, result in results)
    suite = ElementTree.Element(
        "testsuite", name="vgf check", tests=str(len(results)), failures=str(failures)
    )
    for what, name, result in results:
        case = ElementTree.SubElement(suite, "testcase", classname=f"vgf.{name}", name=what)
        if not result.agrees:
            first = next((f.says for f in getattr(result, "findings", ())), "differs")
            failure = ElementTree.SubElement(case, "failure", message=_clean(first))
            failure.text = _clean(str(result))
        else:
            ElementTree.SubElement(case, "system-out").text = _clean(str(result))
    ElementTree.indent(suite)
    text = ElementTree.tostring(suite, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _clean(text: str) -> str:
    """Without the control characters that XML cannot hold."""
    return "".join(c for c in text if c in "\n\t" or ord(c) >= 32)
