"""HTML pages that need no other file, made of parts that are already HTML."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path


def html_page(title: str, body: str, drawn: Mapping[str, str] | None = None) -> str:
    """A whole page.

    Args:
        title: text.
        body: HTML.
        drawn: for each figure, text that stands for what it was drawn from; it is not shown.
    """
    meta = "".join(
        f'<meta name="drawn:{escape(name)}" content="{escape(stamp)}">\n'
        for name, stamp in (drawn or {}).items()
    )
    return _PAGE.format(title=escape(title), body=body, meta=meta)


def drawn_from(page: Path) -> dict[str, str]:
    """What a page that is there says that its figures were drawn from."""
    text = page.read_text(encoding="utf-8", errors="replace") if page.is_file() else ""
    return dict(re.findall(r'<meta name="drawn:([^"]+)" content="([^"]+)">', text))


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """A table whose cells are HTML."""
    above = f"<caption>{caption}</caption>\n" if caption else ""
    return f"<table>\n{above}{_row('th', header)}{''.join(_row('td', row) for row in rows)}</table>"


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>\n"


def html_figure(path: Path, alt: str, caption: str) -> str:
    """A picture, an SVG, PNG or GIF file, within the page.

    Args:
        path: of the file.
        alt: text.
        caption: HTML.
    """
    kind = {".svg": "svg+xml"}.get(path.suffix, path.suffix[1:])
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{escape(alt)}" src="data:image/{kind};base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
{meta}<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; color: #1b1b1b; }}
h1 {{ font-size: 1.5rem; overflow-wrap: anywhere; }} h2 {{ font-size: 1.2rem; margin-top: 2.5rem;
  border-top: 1px solid #ccc; padding-top: 1rem; }} h3 {{ font-size: 1.05rem; }}
.headline {{ font-size: 1.15rem; }} .note {{ color: #555; font-size: .9rem; }}
.warning {{ border-left: 4px solid #d55e00; padding-left: .6rem; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }}
caption {{ text-align: left; color: #555; padding-bottom: .3rem; }}
th, td {{ text-align: left; vertical-align: top; padding: .2rem .9rem .2rem 0;
  border-bottom: 1px solid #ddd; font-size: .92rem; }}
figure {{ margin: 1.5rem 0; }} img {{ max-width: 100%; height: auto; }}
figcaption {{ color: #555; font-size: .9rem; }} code {{ font-size: .9em; background: #f4f4f4; }}
pre {{ background: #f5f5f5; padding: .8rem; overflow-x: auto; }}
pre.command {{ white-space: pre-wrap; overflow-wrap: anywhere; }}
</style>
<body>
{body}
</body>
</html>
"""
