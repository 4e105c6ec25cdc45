"""The specification as a book: pages in Markdown, one for each section of vgf/spec/README.md.

Of each equation: its number and LaTeX (equations.toml), what its docstring says, its code with the
lines' numbers, its measured parity, and the planted mistakes that its check catches.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vgf import spec
from vgf.checker.subjects import SUBJECTS
from vgf.support.toml import read_toml
from vgf.testing import VARIANTS

from ..record import RESULTS

ROOT = Path(__file__).parents[2]
TABLES = ROOT / "vgf" / "spec" / "README.md"
EQUATIONS: Mapping[str, str] = read_toml(Path(__file__).parent / "equations.toml")
# Pages of results that say who agrees with the specification; the first that there is.
AGREEMENT = ("conformance", "check-others")
# Rows of the table of departures, by the function that each is about.
DEPARTURES = {
    "repulsion": ("Repulsion",),
    "repulsion_through_bandwidth": ("Repulsion",),
    "rbf_kernel": ("Kernel",),
    "squared_distances": ("Distances",),
    "phi": ("Entropy term", "Kernel left out"),
    "flow_step": ("Particle step",),
    "clip_velocity": ("Clip of A-VGF's velocity",),
    "amortised_transport": ("Clip of A-VGF's velocity",),
    "polyak": ("Target network",),
    "update": ("Target network", "Learning rates", "Random numbers"),
    "critic_loss": ("Loss of the critics", "SQL's alpha"),
    "activate": ("GELU",),
    "mlp": ("LayerNorm",),
    "layer_norm": ("LayerNorm's variance",),
}
_SECTION = re.compile(r"\n\n(Shapes|Equation|Raises|Source):\n")


class Chapter(NamedTuple):
    """A section of the tables: its title, its page's name, and its functions in order."""

    title: str
    page: str
    functions: tuple[str, ...]


def functions() -> dict[str, Any]:
    """The functions of the specification, by name."""
    return {
        name: value
        for name, value in vars(spec).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }


def chapters() -> list[Chapter]:
    """The sections of the tables of equations; every function is in one of them."""
    text = TABLES.read_text(encoding="utf-8").partition("## Equations")[2]
    known, seen, found = functions(), set(), []
    for part in text.partition("\n## ")[0].split("\n### ")[1:]:
        title, _, body = part.partition("\n")
        names = [name for name in re.findall(r"\[`(\w+)`\]\([\w/]+\.py\)", body) if name in known]
        names = [name for name in dict.fromkeys(names) if name not in seen]
        seen |= set(names)
        if names:
            short = title.partition("(")[0].strip()
            page = re.sub(r"\W+", "-", short.lower()).strip("-")
            found.append(Chapter(short, page, tuple(names)))
    return found


def sections(function: Any) -> dict[str, str]:
    """A docstring by section; what stands before them is under ""."""
    head, *parts = _SECTION.split(inspect.getdoc(function) or "")
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return {"": head, **{name: inspect.cleandoc(text) for name, text in pairs}}


def departures() -> dict[str, str]:
    """Where the authors' code differs, in a sentence for each row of the table."""
    rows = TABLES.read_text(encoding="utf-8").partition("| Held by |\n")[2].splitlines()[1:]
    found = {}
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        if len(cells) != 5:
            break
        what, here, theirs, setting, _ = cells
        found[what] = f"{what}: here, {here}; there, {theirs}; to follow them: {setting}."
    return found


def place(function: Any) -> tuple[Path, int]:
    """Where a function is: its file, relative to the repository, and its first line."""
    path = Path(inspect.getsourcefile(function) or "").resolve()
    return path.relative_to(ROOT), inspect.getsourcelines(function)[1]


def parity() -> dict[str, list[dict[str, Any]]]:
    """The recorded rows of the parity table, by equation."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(RESULTS.glob("parity-*.json")):
        for row in json.loads(path.read_text(encoding="utf-8"))["equations"]:
            found.setdefault(row["equation"], []).append(row)
    return found


def plain(text: str) -> str:
    """A docstring's words as Markdown: roles and double quotes become code."""
    text = re.sub(r":\w+:`~?([\w.]+)`", lambda match: f"`{match[1]}`", text)
    text = text.replace("``", "`")
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*_|<>\[\]$])", r"\\\1", part) for part in parts
    )


def entry(name: str, number: str, rows: list[dict[str, Any]]) -> str:
    """One function's part of a page."""
    function = functions()[name]
    said = sections(function)
    path, line = place(function)
    lines = [f"(spec-{name})=", f"## {number} `{name}`", "", plain(said[""]), ""]
    if name in EQUATIONS:
        lines += ["```{math}", f":label: eq-{name}", "", EQUATIONS[name], "```", ""]
    lines += [":::{admonition} In full", "", "```text", said["Equation"], "```", "", ":::", ""]
    lines += ["**Symbols and shapes.** " + plain(said["Shapes"]), ""]
    if "Raises" in said:
        lines += ["**Raises.** " + plain(said["Raises"]), ""]
    lines += ["**Source.** " + plain(said["Source"]), ""]
    lines += [
        f"**Code.** {path} from line {line}; any backend: "
        f'`vgf.get_backend("jax").{name}`; yours: `vgf check mine.py:{name} --as {name}`.'
        if rows
        else f"**Code.** {path} from line {line}.",
        "",
        f"```{{literalinclude}} /{path.as_posix()}",
        ":language: python",
        f":pyobject: {name}",
        ":lineno-match:",
        "```",
        "",
    ]
    if name in SUBJECTS:
        lines += [
            f"**Test vectors.** `vgf vectors vectors --only {name}` writes inputs, results and "
            "tolerances as JSON; [what they hold](../validation/consumers/README.md).",
            "",
        ]
    if name in DEPARTURES:
        known = departures()
        lines += ["**Where the authors' code differs.**", ""]
        lines += [f"- {known[what]}" for what in DEPARTURES[name]] + [""]
    if rows:
        lines += [
            "| Backend | dtype | device | examples | worst, relative | of the tolerance |",
            "|---|---|---|---|---|---|",
            *(
                f"| {row['backend']} | {row['dtype']} | {row['device']} | {row['examples']} | "
                f"{row['relative']:.1e} | {row['ratio']:.3f}{'' if row['agrees'] else ' DIFFERS'} |"
                for row in rows
            ),
            "",
        ]
    mistakes = [variant.says for variant in VARIANTS.values() if variant.equation == name]
    if mistakes:
        lines += ["Planted mistakes that its check catches:", ""]
        lines += [f"- {plain(says)}" for says in mistakes] + [""]
    return "\n".join(lines)


def agreement() -> str:
    """The page that says whose code agrees with the specification, as it was measured."""
    return next(name for name in AGREEMENT if (RESULTS / f"{name}.md").exists())


def cited() -> dict[str, list[str]]:
    """For each place that a function's Source cites, the functions: the paper's places first."""
    found: dict[str, list[str]] = {}
    for name, function in functions().items():
        source = " ".join(sections(function)["Source"].split())
        for part in re.split(r"; |\. ", source):
            where = re.match(r"Paper[,:] (.*)", part)
            if where:
                words = where[1].partition("(")[0].partition(":")[0]
                for one in re.split(r" and (?=Algorithm)", words):
                    found.setdefault(one.strip(" .,"), []).append(name)
            for other in re.findall(r"[A-Z]\w+ (?:and [A-Z]\w+|et al\.) \d{4}", part):
                found.setdefault(other, []).append(name)
    return {where: list(dict.fromkeys(names)) for where, names in found.items()}


def _order(place: tuple[str, Any]) -> tuple[bool, bool, str]:
    """The paper's numbers, its other places, other works."""
    where = place[0]
    return bool(re.search(r"\d{4}$", where)), not re.search(r"\d", where), where


def pages() -> dict[str, str]:
    """The book's pages by name, `index` first."""
    measured = parity()
    found = {}
    listed = []
    for i, chapter in enumerate(chapters(), 1):
        parts = [
            entry(name, f"{i}.{j}", measured.get(name, []))
            for j, name in enumerate(chapter.functions, 1)
        ]
        found[chapter.page] = f"# {i} {chapter.title}\n\n" + "\n".join(parts)
        listed.append(chapter.page)
    rows = [
        f"| {where if re.search(r'[0-9]{4}$', where) else f'Paper, {where}'} | "
        f"{', '.join(f'[`{name}`](#spec-{name})' for name in names)} |"
        for where, names in sorted(cited().items(), key=_order)
    ]
    found["places"] = "\n".join(
        [
            "# From a place in the paper to the code",
            "",
            "The places that the *Source* of an equation names, in the paper and in the other "
            "works that it rests on. The paper's equations are named by what they are; of its own "
            "numbers only that of Algorithm 1 is used here.",
            "",
            "| Place | Functions |",
            "|---|---|",
            *rows,
            "",
        ]
    )
    found["index"] = "\n".join(
        [
            "# The book",
            "",
            "The specification, equation by equation: typeset and in full, with the shapes of its "
            "symbols, its source, its code, how closely each backend was measured to compute it, "
            "and the mistakes that its check was seen to catch. **Start at "
            "[`update`](#spec-update)**, which is Algorithm 1.",
            "",
            "The parity columns are of the largest difference that the search found: relative to "
            "the result, and as a share of [the tolerance](../vgf/testing/README.md#tolerances), "
            "where 1 would be a failure.",
            "",
            "```{toctree}",
            ":maxdepth: 2",
            "",
            "Symbols, conventions and departures <../vgf/spec/README>",
            *listed,
            "places",
            f"Who agrees with it <../validation/results/{agreement()}>",
            "```",
            "",
        ]
    )
    return found
