"""Pages of headings, text, tables and figures, as Markdown or as one HTML file."""

from __future__ import annotations

import base64
import html
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .record import markdown_table


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """Paragraphs, with an empty line between two."""

    text: str


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table; its caption may be empty."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A figure: the name of its files without suffix, and its caption."""

    name: str
    alt: str
    caption: str


Block = Heading | Text | Points | Table | Picture


def to_markdown(blocks: Sequence[Block]) -> str:
    """The page as Markdown; figures are the SVG files beside it."""
    return "\n\n".join(part for block in blocks if (part := _markdown(block))) + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Text):
        return "\n\n".join(
            textwrap.fill(part, 100, break_on_hyphens=False) for part in block.text.split("\n\n")
        )
    if isinstance(block, Points):
        return "\n".join(
            textwrap.fill(
                item, 100, initial_indent="* ", subsequent_indent="  ", break_on_hyphens=False
            )
            for item in block.items
        )
    if isinstance(block, Table):
        table = markdown_table(block.header, [[_cell(c) for c in row] for row in block.rows])
        return f"{block.caption}:\n\n{table}" if block.caption else table
    return f"![{block.alt}]({block.name}.svg)\n\n*{textwrap.fill(block.caption, 98)}*"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def to_html(blocks: Sequence[Block], folder: Path, title: str) -> str:
    """The page as HTML that needs no other file; figures are read from the folder."""
    body = "\n".join(_html(block, folder) for block in blocks)
    return _PAGE.format(title=html.escape(title), body=body)


def _html(block: Block, folder: Path) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{_inline(block.text)}</h{block.level}>"
    if isinstance(block, Text):
        return "\n".join(f"<p>{_inline(part)}</p>" for part in block.text.split("\n\n"))
    if isinstance(block, Points):
        return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in block.items) + "</ul>"
    if isinstance(block, Table):
        caption = f"<caption>{_inline(block.caption)}</caption>" if block.caption else ""
        rows = "".join(_row("td", row) for row in block.rows)
        return f"<div class=wide><table>{caption}{_row('th', block.header)}{rows}</table></div>"
    data = base64.b64encode((folder / f"{block.name}.svg").read_bytes()).decode()
    return (
        f'<figure><img alt="{html.escape(block.alt)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{_inline(block.caption)}</figcaption></figure>"
    )


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{_inline(cell)}</{tag}>" for cell in cells) + "</tr>\n"


def _inline(text: str) -> str:
    """Text of a line: `code`, **bold** and [links](to) as in Markdown."""
    text = html.escape(text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text)
    return re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", r'<a href="\2">\1</a>', text)


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; color: #1b1b1b; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.2rem; margin-top: 2.5rem;
  border-top: 1px solid #ccc; padding-top: 1rem; }} h3 {{ font-size: 1.05rem; }}
.wide {{ overflow-x: auto; margin: 1rem 0; }} table {{ border-collapse: collapse; }}
caption {{ text-align: left; color: #555; padding-bottom: .3rem; }}
th, td {{ text-align: left; vertical-align: top; padding: .2rem .9rem .2rem 0;
  border-bottom: 1px solid #ddd; font-size: .92rem; }}
figure {{ margin: 1.5rem 0; }} img {{ max-width: 100%; height: auto; }}
figcaption {{ color: #555; font-size: .9rem; }} code {{ font-size: .9em; background: #f4f4f4; }}
</style>
<body>
{body}
</body>
</html>
"""
