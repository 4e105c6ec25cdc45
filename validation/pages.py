"""Pages of headings, text, tables and figures, as Markdown or as one HTML file."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from vgf.support.pages import html_figure, html_page, html_table

from .record import markdown_table


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """Paragraphs, separated by empty lines."""

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
    return html_page(title, body)


def _html(block: Block, folder: Path) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{_inline(block.text)}</h{block.level}>"
    if isinstance(block, Text):
        return "\n".join(f"<p>{_inline(part)}</p>" for part in block.text.split("\n\n"))
    if isinstance(block, Points):
        return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in block.items) + "</ul>"
    if isinstance(block, Table):
        rows = [[_inline(cell) for cell in row] for row in block.rows]
        return html_table(list(map(_inline, block.header)), rows, _inline(block.caption))
    return html_figure(folder / f"{block.name}.svg", block.alt, _inline(block.caption))


def _inline(text: str) -> str:
    """Text within a line: `code`, **bold** and [links](to) as in Markdown."""
    text = escape(text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text)
    return re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", r'<a href="\2">\1</a>', text)
