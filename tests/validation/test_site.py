"""The site: what its pages are made of, and that its checks find what is wrong."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from validation.site import book, checks, sources

ROOT = Path(__file__).parents[2]


def test_every_function_of_the_specification_has_a_place_in_the_book() -> None:
    placed = [name for chapter in book.chapters() for name in chapter.functions]
    assert len(placed) == len(set(placed))
    helpers = set(book.functions()) - set(placed)
    assert helpers == {"specification"} & helpers, f"in no table of vgf/spec/README.md: {helpers}"


def test_every_equation_that_is_compared_is_typeset() -> None:
    pytest.importorskip("latex2mathml")
    from latex2mathml.converter import convert

    assert set(book.EQUATIONS) <= set(book.functions())
    # steps of Algorithm 1, which their pages have in words
    whole = {"update", "act", "operate", "propose", "move", "init_state", "sample_reference"}
    missing = set(book.parity()) & set(book.functions()) - set(book.EQUATIONS) - whole
    assert not missing
    for name, latex in book.EQUATIONS.items():
        assert convert(latex).startswith("<math"), name


def test_a_page_has_equation_code_parity_and_mistakes() -> None:
    text = book.entry("phi", "1.1", book.parity()["phi"])
    assert "{math}" in text
    assert ":pyobject: phi" in text
    assert re.search(r"\| torch \| float64 \| cpu \| \d+ \| \d\.\de-\d\d \| 0\.\d+ \|", text)
    assert "your phi lacks the 1/N" in text
    assert "`vgf vectors vectors --only phi`" in text
    assert "- Entropy term: here, on with a temperature" in text
    path, line = book.place(book.functions()["phi"])
    assert (ROOT / path).read_text().splitlines()[line - 1].startswith("def phi(")


def test_departures_are_rows_of_the_table() -> None:
    known = book.departures()
    assert len(known) == book.TABLES.read_text().partition("| Held by |")[2].count("\n| ")
    assert set(book.DEPARTURES) <= set(book.functions())
    assert {what for rows in book.DEPARTURES.values() for what in rows} <= set(known)


def test_the_paper_leads_to_the_code() -> None:
    found = book.cited()
    assert {"update", "td_target"} <= set(found["Algorithm 1"])
    assert "phi" in found["Liu and Wang 2016"]


def test_links_to_code_lead_to_lines(tmp_path: Path) -> None:
    text = sources.relinked(ROOT / "vgf" / "spec" / "README.md", tmp_path)
    assert "[`phi`](#spec-phi)" in text
    assert not re.search(r"\]\([^)]*\.py\)", text)
    (page,) = tmp_path.glob("source/vgf-spec-parts.md")
    assert ":linenos:" in page.read_text()


FAULTS = {
    '<a href="none.html">x</a>': "none.html: no such file",
    '<a href="#none">x</a>': "#none: no such place in it",
    '<a href="b.html#none">x</a>': "b.html#none: no such place in it",
    '<script src="https://example.org/x.js"></script>': "loads https://example.org/x.js",
    '<link rel="stylesheet" href="//example.org/x.css">': "loads //example.org/x.css",
    '<img src="none.png">': "none.png: no such file",
    '<a href="b.html#there">x</a><a href="https://example.org">x</a>': None,
}


@pytest.mark.parametrize("body", FAULTS)
def test_the_check_of_links_finds_what_is_wrong(tmp_path: Path, body: str) -> None:
    (tmp_path / "a.html").write_text(body)
    (tmp_path / "b.html").write_text('<p id="there">')
    expected = FAULTS[body]
    assert checks.broken(tmp_path) == ([f"a.html: {expected}"] if expected else [])


def chromium() -> str:
    program = checks.browser()
    if program is None or importlib.util.find_spec("playwright") is None:
        pytest.skip("no Chromium, or no playwright to drive it")
    return program


@pytest.mark.slow
def test_the_browser_finds_what_is_wrong(tmp_path: Path) -> None:
    program = chromium()
    page = (
        '<body><div style="width:900px">wide</div><script>console.error("bad");'
        'fetch("https://example.org/")</script>'
    )
    (tmp_path / "index.html").write_text(page)
    (tmp_path / "search.html").write_text("<p>")
    found = "\n".join(checks.seen(tmp_path, program))
    assert "index.html: bad" in found
    assert "index.html: asks for https://example.org/" in found
    assert "index.html: 9" in found  # and as many pixels wide
    assert "search.html: finds nothing" in found


@pytest.mark.slow
def test_the_site_is_made_without_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("sphinx")
    pytest.importorskip("furo")
    from validation.site.__main__ import main

    assert main(["--out", str(tmp_path / "site")]) == 0, capsys.readouterr().err
    text = (tmp_path / "site" / "book" / "the-flow.html").read_text()
    assert text.count("<math ") > 8
    assert (tmp_path / "site" / "_modules" / "vgf" / "spec" / "flow.html").exists()


# --- the pages that stand in the repository ------------------------------------------------------

PAGES = [
    "README.md",
    *sources.PAGES,
    *(
        f"validation/site/pages/{p.relative_to(sources.HERE / 'pages')}"
        for p in sorted((sources.HERE / "pages").rglob("*.md"))
    ),
]


@pytest.mark.parametrize("name", PAGES)
def test_links_between_pages_lead_somewhere(name: str) -> None:
    """Of the site's own pages, relative to where they will stand."""
    page = ROOT / name
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    root = ROOT if "site/pages" not in name else None
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http", "#")):
            continue
        path = target.partition("#")[0]
        inside = (page.parent / path).exists()
        if root is None:  # they are copied to the top
            at = name.removeprefix("validation/site/pages/").count("/")
            inside = inside or (ROOT / path.removeprefix("../" * at)).exists()
            inside = inside or path.removeprefix("../" * at).startswith("book/")
        assert inside, f"{name}: {target}"


def test_the_readme_is_short_and_has_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert text.count("![") == 1
    assert ".venv/bin/pip install -e '.[jax,envs,run]' && .venv/bin/vgf run\n" in text
    assert "CI=1 .venv/bin/pytest -m quick -n 2\n" in text


def test_the_page_of_commands_has_every_command() -> None:
    from vgf.cli import COMMANDS

    page = (ROOT / "vgf" / "cli" / "README.md").read_text()
    assert {name for name in COMMANDS if f"`vgf {name}" not in page} == set()


def test_the_architecture_has_every_package() -> None:
    page = (ROOT / "vgf" / "README.md").read_text()
    packages = {path.parent.name for path in (ROOT / "vgf").glob("*/__init__.py")}
    assert {name for name in packages if f"vgf/{name}/" not in page} == set()


@pytest.mark.slow
def test_the_library_s_example_runs() -> None:
    pytest.importorskip("jax")
    pytest.importorskip("optax")
    page = (ROOT / "vgf" / "backends" / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.S)
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["actions"].shape == (256, 5)
