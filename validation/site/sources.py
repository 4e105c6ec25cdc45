"""The site's source folder: this repository's own pages, and those made for the site."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from . import book

ROOT = book.ROOT
HERE = Path(__file__).parent
# Pages that are read where they stand.
PAGES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "vgf/README.md",
    "vgf/backends/README.md",
    "vgf/benchmarks/README.md",
    "vgf/cli/README.md",
    "vgf/methods/README.md",
    "vgf/spec/README.md",
    "vgf/sweep/README.md",
    "vgf/testing/README.md",
    "vgf/text/README.md",
    "validation/README.md",
    "validation/consumers/README.md",
)
# Modules of the reference, by part.
REFERENCE = {
    "The package": ("vgf", "vgf.backends", "vgf.backends.base"),
    "Settings": ("vgf.spec.settings", "vgf.runs.config"),
    "Your own method and its parts": (
        "vgf.methods.base",
        "vgf.spec.methods.base",
        "vgf.spec.parts",
    ),
    "Checking an implementation": (
        "vgf.testing.compare",
        "vgf.testing.strategies",
        "vgf.testing.methods",
        "vgf.checker.checking",
    ),
    "Data and benchmarks": (
        "vgf.data.dataset",
        "vgf.data.raw",
        "vgf.data.inspect",
        "vgf.benchmarks.base",
        "vgf.benchmarks.tasks",
    ),
    "Running": ("vgf.runs.agent", "vgf.runs.evaluation", "vgf.runs.report"),
    "The specification": (
        "vgf.spec.update",
        "vgf.spec.agent",
        "vgf.spec.flow",
        "vgf.spec.kernel",
        "vgf.spec.critic",
        "vgf.spec.reference",
        "vgf.spec.networks",
        "vgf.spec.optimiser",
        "vgf.spec.selection",
        "vgf.spec.text",
        "vgf.spec.theory",
    ),
}


def gather(folder: Path) -> None:
    """Write the source folder anew."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE / "pages", folder)
    shutil.copytree(HERE / "static", folder / "_static")
    shutil.copy(HERE / "conf.py", folder)
    for path in (ROOT / "vgf").rglob("*.py"):
        _copy(path, folder)
    results = ROOT / "validation" / "results"
    pages = [*(ROOT / name for name in PAGES), *sorted(results.glob("*.md"))]
    for path in (*results.glob("*.svg"), *results.glob("*.json")):
        _copy(path, folder)
    for page in pages:
        target = folder / page.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(relinked(page, folder), encoding="utf-8")
    for name, text in book.pages().items():
        _write(folder / "book" / f"{name}.md", text)
    _write(folder / "reference.md", reference())
    _write(folder / "results.md", listed(results))


def _copy(path: Path, folder: Path) -> None:
    target = folder / path.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def relinked(page: Path, folder: Path) -> str:
    """A page whose links to code lead to the lines, in the book or in a page of that file."""
    known = book.functions()

    def link(match: re.Match[str]) -> str:
        words, target = match[1], match[2]
        name = words.strip("`*")
        path = (page.parent / target).resolve()
        if name in known:
            return f"[{words}](#spec-{name})"
        if not path.is_file():
            return words
        return f"[{words}](/{_source_page(path, folder)})"

    def folder_link(match: re.Match[str]) -> str:
        words, target = match[1], match[2].rstrip("/")
        if not (page.parent / target).is_dir():
            return match[0]
        inside = (page.parent / target / "README.md").is_file()
        return f"[{words}]({target}/README.md)" if inside else words

    text = page.read_text(encoding="utf-8")
    text = re.sub(r"\[([^\]]+)\]\(([\w./-]+\.(?:py|mjs))\)", link, text)
    return re.sub(r"\[([^\]]+)\]\(([\w./-]+)\)", folder_link, text)


def _source_page(path: Path, folder: Path) -> str:
    """The page of a file of code, made when it is first linked to."""
    name = path.relative_to(ROOT).as_posix()
    _copy(path, folder)
    page = f"source/{name.removesuffix('.py').replace('/', '-')}.md"
    language = "python" if path.suffix == ".py" else "javascript"
    shown = f"```{{literalinclude}} /{name}\n:language: {language}\n:linenos:\n```\n"
    _write(folder / page, f"---\norphan: true\n---\n\n# {name}\n\n{shown}")
    return page


def reference() -> str:
    """The page of the reference: the docstrings."""
    lines = ["# Reference", "", "Made from the docstrings; *[source]* shows the lines.", ""]
    for part, modules in REFERENCE.items():
        lines += [f"## {part}", ""]
        for module in modules:
            lines += [f"### {module}", "", "```{eval-rst}", f".. automodule:: {module}", "```", ""]
    return "\n".join(lines)


def listed(results: Path) -> str:
    """The page that lists the results."""
    elsewhere = ("report", book.agreement())
    names = [path.stem for path in sorted(results.glob("*.md")) if path.stem not in elsewhere]
    return "\n".join(
        [
            "# Results",
            "",
            "Each page names the command that makes it again.",
            "",
            "```{toctree}",
            ":maxdepth: 1",
            "",
            "How they are made <validation/README>",
            "The report on all of them <validation/results/report>",
            *(f"validation/results/{name}" for name in names),
            "```",
            "",
        ]
    )
