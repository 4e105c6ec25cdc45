"""Downloads from a server that cuts, lies about sizes, redirects, and sends web pages."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vgf.benchmarks import ogbench
from vgf.benchmarks.base import addresses
from vgf.data.npz import check_npz
from vgf.support import download as module
from vgf.support.download import DownloadError, check_known, download
from vgf.support.errors import VGFError


def npz_bytes(seed: int = 0) -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.random.default_rng(seed).standard_normal(30_000))
    return file.getvalue()


CONTENT = npz_bytes()
PAGE = b"<!doctype html><html><body>Down for maintenance</body></html>"


class Handler(http.server.BaseHTTPRequestHandler):
    """What it does is the first word of the path; what was asked is kept."""

    content = CONTENT
    asked: list[tuple[str, str | None]] = []

    def do_GET(self) -> None:
        what, given = self.path.split("/")[1], self.headers.get("Range")
        self.asked.append((what, given))
        body = self.content
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        if what == "page":
            return self.reply(200, PAGE, {"Content-Type": "text/html"})
        if what == "missing":
            return self.reply(404, PAGE, {"Content-Type": "text/html"})
        if what == "busy":
            return self.reply(503, b"")
        if what == "moved":
            return self.reply(302, b"", {"Location": "/whole/a.npz"})
        if what == "round":
            return self.reply(302, b"", {"Location": "/round/a.npz"})
        if what == "empty":
            return self.reply(200, b"")
        if what == "short":  # it says less than the file has
            return self.reply(200, body[:-1000])
        if what == "unsized":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)
            return None
        start = 0
        same = self.headers.get("If-Range") == tag or what in ("ignores", "untagged")
        if given and what != "rangeless" and same:
            start = int(given.removeprefix("bytes=").rstrip("-"))
        if start >= len(body):
            return self.reply(416, b"", {"Content-Range": f"bytes */{len(body)}"})
        head = {"ETag": tag, "Content-Length": str(len(body) - start)}
        if what == "untagged":
            del head["ETag"]
        if start:
            head["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        most = {
            "cuts": 50_000,
            "untagged": 50_000,
            "stops": 0 if start else 50_000,
            "rangeless": 50_000,
        }
        sent = body[start:][: most.get(what, len(body))]
        if what == "long":  # it says more than it has
            head["Content-Length"] = str(len(body) + 1000)
        return self.reply(206 if start else 200, sent, head)

    def reply(self, status: int, body: bytes, head: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (head or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.asked, Handler.content = [], CONTENT
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def fetch(path: Path, *urls: str, **options: Any) -> Path:
    return download(urls, path, b"PK", check_npz, **options)


@pytest.mark.parametrize("what", ["whole", "cuts", "untagged", "moved", "unsized"])
def test_a_file_comes_whole(what: str, server: str, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    path = fetch(
        tmp_path / "own" / "a.npz", f"{server}/{what}/a.npz", progress=lambda *c: calls.append(c)
    )
    assert path.read_bytes() == CONTENT
    assert calls[-1] == ("downloading a.npz (MB)", 1, 1)
    if what in (
        "cuts",
        "untagged",
    ):  # it went on where it was cut, and never came to the start again
        ranges = [given for _, given in Handler.asked]
        assert ranges == [None, *(f"bytes={n}-" for n in range(50_000, len(CONTENT), 50_000))]
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.npz", module.RECORD]
    known = json.loads((path.parent / module.RECORD).read_text())["a.npz"]
    assert known["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert known["size"] == len(CONTENT)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("page", "it sent a web page"),
        ("missing", "it answered 404 Not Found"),
        ("busy", "Service Unavailable"),
        ("round", "302"),
        ("empty", "it sent nothing"),
        ("short", "it is not a complete .npz file"),
        ("long", f"it ended after {len(CONTENT):,} of {len(CONTENT) + 1000:,} bytes"),
        ("stops", f"it ended after 50,000 of {len(CONTENT):,} bytes"),
    ],
)
def test_the_next_address_is_tried(what: str, words: str, server: str, tmp_path: Path) -> None:
    path = tmp_path / "own" / "a.npz"
    bad, good = f"{server}/{what}/a.npz", f"{server}/whole/a.npz"
    with pytest.raises(DownloadError) as error:
        fetch(path, bad)
    assert f"a.npz could not be fetched; {bad}: " in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not path.exists()
    assert fetch(path, bad, good).read_bytes() == CONTENT
    assert not list(path.parent.glob(".*"))


def test_nobody_answers(server: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"http://127.0.0.1:9/a.npz: .*refused"):
        fetch(tmp_path / "a.npz", "http://127.0.0.1:9/a.npz")
    assert fetch(tmp_path / "a.npz", "http://127.0.0.1:9/a.npz", f"{server}/whole/a.npz")


def test_another_process_goes_on(server: str, tmp_path: Path) -> None:
    """What came before the process was stopped is not fetched again, but of another version."""
    path = tmp_path / "a.npz"
    with pytest.raises(DownloadError, match="it ended after 50,000"):
        fetch(path, f"{server}/stops/a.npz")
    (part,) = tmp_path.glob(".*.part")
    assert part.read_bytes() == CONTENT[:50_000]
    Handler.asked = []
    part.rename(module._part(path, f"{server}/whole/a.npz"))
    part.with_suffix(".json").rename(
        module._part(path, f"{server}/whole/a.npz").with_suffix(".json")
    )
    assert fetch(path, f"{server}/whole/a.npz").read_bytes() == CONTENT
    assert Handler.asked == [("whole", "bytes=50000-")]
    path.unlink()
    (tmp_path / module.RECORD).unlink()
    with pytest.raises(DownloadError):
        fetch(path, f"{server}/stops/a.npz")
    Handler.content = npz_bytes(1)  # the server's file was changed meanwhile
    (part,) = tmp_path.glob(".*.part")
    whole = module._part(path, f"{server}/whole/a.npz")
    part.rename(whole)
    part.with_suffix(".json").rename(whole.with_suffix(".json"))
    assert fetch(path, f"{server}/whole/a.npz").read_bytes() == Handler.content


def came(path: Path, url: str, content: bytes, whole: bytes) -> None:
    """What is left of a file, `whole`, that a server named by its tag, as if it had been cut."""
    part = module._part(path, url)
    part.write_bytes(content)
    tag = None if "untagged" in url else f'"{hashlib.md5(whole).hexdigest()}"'
    part.with_suffix(".json").write_text(json.dumps({"version": tag, "total": len(whole)}))


@pytest.mark.parametrize(
    ("what", "new"),
    [
        ("ignores", npz_bytes(1)),  # it goes on with another file of the same size, and says so
        ("untagged", npz_bytes(1) + b"."),  # or of another size
        ("untagged", npz_bytes(1)),  # or does not say so, which the check finds
    ],
)
def test_two_versions_are_not_mixed(what: str, new: bytes, server: str, tmp_path: Path) -> None:
    path, url = tmp_path / "a.npz", f"{server}/{what}/a.npz"
    Handler.content = new
    came(path, url, CONTENT[:50_000], CONTENT)
    seen = what == "ignores" or len(new) != len(CONTENT)
    download([url], path, b"PK", None if seen else check_npz)
    assert path.read_bytes() == new
    first, *others = [given for _, given in Handler.asked]
    assert first == "bytes=50000-"
    assert None in others  # it began again
    check_known(path)


@pytest.mark.parametrize("lost", [False, True])
def test_nothing_is_left_to_fetch(lost: bool, server: str, tmp_path: Path) -> None:
    """The process was stopped after the last byte, or before all of them were on the disk."""
    path, url = tmp_path / "a.npz", f"{server}/whole/a.npz"
    came(path, url, CONTENT[:50_000] + bytes(len(CONTENT) - 50_000) if lost else CONTENT, CONTENT)
    assert fetch(path, url).read_bytes() == CONTENT
    asked = [given for _, given in Handler.asked]
    assert asked == [f"bytes={len(CONTENT)}-", *([None] if lost else [])]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ('{"a.npz": {"size": 3', "checksums.json: not JSON, or cut off"),
        ("[]", "checksums.json: holds a list"),
        ('{"a.npz": 5}', "a.npz has no size and sha256 there; delete its entry"),
        ('{"a.npz": {"size": 3}}', "a.npz has no size and sha256 there; delete its entry"),
        ('{"a.npz": {"size": "3", "sha256": ""}}', "has no size and sha256 there"),
    ],
)
def test_a_damaged_record(record: str, words: str, server: str, tmp_path: Path) -> None:
    path, place = tmp_path / "a.npz", tmp_path / module.RECORD
    place.write_text(record)
    with pytest.raises(VGFError, match=words) as error:
        fetch(path, f"{server}/whole/a.npz")
    assert str(place) in str(error.value)
    assert not Handler.asked  # and nothing was fetched for nothing
    path.write_bytes(CONTENT)
    with pytest.raises(VGFError, match=words):
        check_known(path)


def test_what_came_first_is_known_ever_after(server: str, tmp_path: Path) -> None:
    path, url = tmp_path / "a.npz", f"{server}/whole/a.npz"
    fetch(path, url)
    check_known(path)
    changed = bytearray(CONTENT)
    changed[100] ^= 1
    path.write_bytes(changed)
    with pytest.raises(VGFError, match="is not what was downloaded: its SHA-256 differs"):
        check_known(path)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(VGFError, match=r"bytes, and .* when it was downloaded"):
        check_known(path)
    path.unlink()
    Handler.content = npz_bytes(1)
    with pytest.raises(DownloadError, match=r"the file that came first, from .*SHA-256 differs"):
        fetch(path, url)
    assert not path.exists()
    (tmp_path / module.RECORD).unlink()
    assert fetch(path, url).read_bytes() == Handler.content
    check_known(tmp_path / "another.npz")  # of which nothing is known


def test_where_files_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VGF_DATA_MIRRORS", "https://a/x/, https://b/{file}?raw=1 https://a/x")
    assert addresses("f.npz", "https://c", ["https://d/{file}"]) == [
        "https://c/f.npz",
        "https://a/x/f.npz",
        "https://b/f.npz?raw=1",
        "https://d/f.npz",
    ]
    own = addresses("f.npz", None, ogbench.MIRRORS)[-2:]
    assert own == [
        "https://rail.eecs.berkeley.edu/datasets/ogbench/f.npz",
        "https://huggingface.co/datasets/zhouzypaul/ogbench_datasets/resolve/main/f.npz",
    ]
