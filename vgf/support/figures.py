"""Figures: legible in grey, and the same files, byte for byte, from the same numbers."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from .extras import need
from .files import write_atomically

# Every line has its own marker and its own dashes, and the shades differ.
MARKERS = "osD^vPX*"
DASHES = ("-", "--", "-.", ":")
COLOURS = ("#1b1b1b", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#7a7a7a")
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "vgf",
    "figure.constrained_layout.use": True,
}
_METADATA: Mapping[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


@contextmanager
def figure(
    stem: Path | str,
    width: float = 6.4,
    height: float = 4.0,
    kinds: Sequence[str] = ("png", "svg"),
    dpi: int = 160,
    style: Mapping[str, Any] = STYLE,
) -> Iterator[Any]:
    """A new matplotlib figure, written to ``STEM.png`` and ``STEM.svg`` at the end.

    Args:
        stem: the path without its suffix.
        width, height: in inches.
        kinds: suffixes of the files to write: "png", "svg", "pdf".
        dpi: dots per inch.
        style: of matplotlib.

    Raises:
        VGFError: matplotlib is missing, or the files cannot be written.
    """
    matplotlib = need("matplotlib", "run")
    figures = need("matplotlib.figure", "run")
    stem = Path(stem)
    with matplotlib.rc_context(style):
        drawing = figures.Figure(figsize=(width, height))
        yield drawing
        for kind in kinds:
            data = io.BytesIO()
            drawing.savefig(data, format=kind, dpi=dpi, metadata=_METADATA.get(kind, {}))
            write_atomically(stem.with_name(f"{stem.name}.{kind}"), data.getvalue())


def draw_once(
    files: Sequence[Path], draw: Callable[..., Any], arguments: Sequence[Any], given: Any
) -> None:
    """Draw figures, unless they are there whole, drawn from the same by the same code.

    Each file ends with a mark of its content and of what it was drawn from, so that neither a
    damaged nor an older one is kept.

    Args:
        files: what is written: .png, .svg or .gif.
        draw: writes them, called with the arguments.
        given: all that they show, compared by its `repr`.
    """
    sources = [Path(path) for path in (__file__, draw.__code__.co_filename)]
    with suppress(metadata.PackageNotFoundError):
        given = (given, metadata.version("matplotlib"))
    key = b"".join(source.read_bytes() for source in sources if source.is_file())
    key += repr(given).encode()
    if all(_is_marked(path, key) for path in files):
        return
    draw(*arguments)
    for path in files:
        write_atomically(path, _marked(path.read_bytes(), path.suffix, key))


def _marked(data: bytes, suffix: str, key: bytes) -> bytes:
    """The file with a comment at its end: a digest of it and of the key."""
    word = hashlib.sha256(key + data).hexdigest().encode()
    if suffix == ".svg":
        return data + b"<!-- " + word + b" -->\n"
    if suffix == ".gif":  # a comment block before the trailer
        return data[:-1] + b"\x21\xfe\x40" + word + b"\0" + data[-1:]
    chunk = b"tEXtDrawn from\0" + word  # before IEND, the last 12 bytes
    size, check = struct.pack(">I", len(chunk) - 4), struct.pack(">I", zlib.crc32(chunk))
    return data[:-12] + size + chunk + check + data[-12:]


# What a mark adds, and the bytes of the file that follow it.
_MARKS = {".svg": (74, 0), ".gif": (68, 1), ".png": (87, 12)}


def _is_marked(path: Path, key: bytes) -> bool:
    if not path.is_file():
        return False
    data = path.read_bytes()
    size, after = _MARKS[path.suffix]
    end = len(data) - after
    plain = data[: end - size] + data[end:]
    return len(plain) > after and _marked(plain, path.suffix, key) == data


def line_look(
    i: int,
    colours: Sequence[str] = COLOURS,
    markers: Sequence[str] = MARKERS,
    dashes: Sequence[Any] = DASHES,
) -> dict[str, Any]:
    """The look of the i-th line of a figure."""
    colour = colours[i % len(colours)]
    return {
        "color": colour,
        "marker": markers[i % len(markers)],
        "linestyle": dashes[i % len(dashes)],
        "markerfacecolor": "white" if i % 2 else colour,
    }
