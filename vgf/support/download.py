"""Files from the network: from a list of mirrors, resumed where they were cut, and known again.

A file appears under its name only once it is complete. Until then what came lies beside it, one
``.part`` for each address, with a ``.json`` that says of which version and size the file is; the
next download from that address goes on there, where both are the same. A file that was put together
from several answers and turns out damaged is fetched once more, from its start. What a file was
when it first came is kept in :data:`RECORD`, in its folder, and it must be that ever after.

VGF_OFFLINE=1 in the environment allows no download.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .callbacks import Progress
from .errors import VGFError
from .files import make_folder, read_json, sync_folder, write_atomically
from .locks import only_writer

RECORD = "checksums.json"
OFFLINE = "VGF_OFFLINE"
_TIMEOUT = 30.0
_PIECE = 1 << 20
_STALLS = 2  # attempts at one address, one after the other, that bring nothing new


class DownloadError(VGFError):
    """A file that no address gave."""


def is_offline() -> bool:
    """Whether the environment forbids downloads."""
    return os.environ.get(OFFLINE, "").lower() not in ("", "0", "false", "no")


def download(
    urls: Sequence[str],
    path: Path,
    begins: bytes,
    check: Callable[[Path], object] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Fetch a file from the first address that has it.

    Args:
        urls: where it may be, in order.
        path: of the file.
        begins: its first bytes, such as b"PK" for .npz; a web page has others.
        check: raises an exception if the whole file is damaged.
        progress: called with the megabytes that came, and with their number.

    Raises:
        DownloadError: no address gave a complete file, with what each one did; or it is not what it
            was when it first came.
        VGFError: the folder cannot be written to, its record is damaged, or another process is
            fetching the file.
    """
    make_folder(path.parent)
    _record(path)
    failures = []
    with only_writer(path, path.with_name(f".{path.name}.lock")):
        for url in urls:
            part = _part(path, url)
            try:
                _fetch_sound(url, part, path, begins, check, progress)
            except (OSError, ValueError, http.client.HTTPException, VGFError) as error:
                if not isinstance(error, OSError):  # what came is of no use
                    _drop(part)
                words = " ".join(str(getattr(error, "reason", None) or error).split())
                failures.append(f"{url}: {words}")
                continue
            os.replace(part, path)
            for other in urls:
                _drop(_part(path, other))
            sync_folder(path.parent)
            return path
    raise DownloadError(f"{path.name} could not be fetched; {'; '.join(failures)}")


def check_known(path: Path, ours: bool = True) -> None:
    """Check that a file is what it was when it was downloaded, if it was.

    Args:
        path: of the file.
        ours: whether its folder is one for downloads; else a record that is not one of this
            package is somebody else's, and says nothing.

    Raises:
        VGFError: it has another size or another SHA-256, or the record is damaged.
    """
    try:
        known = _record(path).get(path.name)
    except VGFError:
        if ours:
            raise
        return
    if known is None or not path.is_file():
        return
    way_out = (
        f"delete it, and it is fetched again with --data-dir {path.parent}; if it is right, delete "
        f"its entry in {path.parent / RECORD}"
    )
    size = path.stat().st_size
    if size != known["size"]:
        raise VGFError(
            f"{path} has {size:,} bytes, and {known['size']:,} when it was downloaded; {way_out}"
        )
    if sha256(path) != known["sha256"]:
        raise VGFError(f"{path} is not what was downloaded: its SHA-256 differs; {way_out}")


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _record(path: Path) -> dict[str, Any]:
    """What is known of the files of a folder.

    Args:
        path: the file whose entry is needed.

    Raises:
        VGFError: the record is damaged.
    """
    place = path.parent / RECORD
    found: dict[str, Any] = read_json(place, dict) if place.exists() else {}
    known = found.get(path.name, {"size": 0, "sha256": ""})
    kinds = {"size": int, "sha256": str}
    if not isinstance(known, dict) or any(type(known.get(key)) is not kinds[key] for key in kinds):
        raise VGFError(f"{place}: {path.name} has no size and sha256 there; delete its entry")
    return found


def _remember(path: Path, part: Path, url: str) -> None:
    """Keep size and SHA-256 of a file at its first download, and compare them at every other."""
    record = _record(path)
    now = {"size": part.stat().st_size, "sha256": sha256(part)}
    known = record.setdefault(path.name, {**now, "url": url})
    if {key: known[key] for key in now} != now:
        raise ValueError(
            f"it is not the file that came first, from {known.get('url')} (its SHA-256 differs); "
            f"if that is right, delete its entry in {path.parent / RECORD}"
        )
    write_atomically(path.parent / RECORD, json.dumps(record, indent=1) + "\n")


def _part(path: Path, url: str) -> Path:
    """Where what came from an address is kept."""
    return path.with_name(f".{path.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")


def _drop(part: Path) -> None:
    for place in (part, part.with_suffix(".json")):
        place.unlink(missing_ok=True)


def _fetch_sound(
    url: str,
    part: Path,
    path: Path,
    begins: bytes,
    check: Callable[[Path], object] | None,
    progress: Progress | None,
) -> None:
    """Fetch from one address, check, and record; what was put together and is damaged, once more.

    Raises:
        OSError: it does not answer, or stopped; what came is kept.
        ValueError, VGFError: it sent something else.
    """
    for turn in range(2):
        _fetch(url, part, path.name, begins, progress)
        try:
            if check is not None:
                check(part)
            _remember(path, part, url)
            return
        except (ValueError, VGFError):
            if turn or not _about(part).get("joined"):
                raise
            _drop(part)


def _fetch(url: str, part: Path, name: str, begins: bytes, progress: Progress | None) -> bool:
    """Fetch from one address, going on where the connection was cut as long as more comes.

    Raises:
        OSError: it does not answer, or stopped; what came is kept.
        ValueError: it sent something else.
    """
    stalls, most, failure = 0, _size(part), OSError("it was cut")
    while True:
        try:
            if _go_on(url, part, name, begins, progress):
                return True
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise OSError(f"it answered {error.code} {error.reason}") from error
            failure = error if isinstance(error, OSError) else OSError(str(error))
        else:
            if total := _about(part).get("total"):
                failure = OSError(f"it ended after {_size(part):,} of {total:,} bytes")
        stalls = 0 if _size(part) > most else stalls + 1
        most = max(most, _size(part))
        if stalls == _STALLS:
            raise OSError(str(getattr(failure, "reason", None) or failure)) from failure


def _go_on(url: str, part: Path, name: str, begins: bytes, progress: Progress | None) -> bool:
    """One request; whether the file is complete now."""
    have, about = _size(part), _about(part)
    headers = {"User-Agent": "vgf", "Accept-Encoding": "identity"}
    if have and (about.get("version") or about.get("total")):
        headers["Range"] = f"bytes={have}-"
    if "Range" in headers and about.get("version"):
        headers["If-Range"] = about["version"]
    request = urllib.request.Request(url, headers=headers)
    try:
        reply = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        error.close()
        complete = error.headers.get("Content-Range") == f"bytes */{have}"
        if have and complete and about.get("total") in (None, have):  # nothing is left
            _note(part, about | {"joined": True})
            return True
        _anew(part, "it answered 416 to a plain request")
        return _go_on(url, part, name, begins, progress)
    with reply:
        fresh = reply.status != 206
        start, total = (0, reply.headers.get("Content-Length")) if fresh else _range(reply.headers)
        version = reply.headers.get("ETag") or reply.headers.get("Last-Modified")
        if version and version.startswith("W/"):  # a weak one, which does not tell bytes apart
            version = reply.headers.get("Last-Modified")
        now = {"version": version, "total": None if total is None else int(total)}
        if not fresh and (start != have or (have and not _same(about, now))):
            reply.close()
            _anew(part, "it answered a plain request with a part")
            return _go_on(url, part, name, begins, progress)
        if fresh:
            _drop(part)
        elif have:
            now |= {key: about[key] for key in now if about.get(key) is not None}
        total = now["total"]
        _note(part, now | {"joined": not fresh})
        with open(part, "ab") as file:
            done = start
            while piece := reply.read1(_PIECE):
                if not piece[: len(begins) - done].startswith(begins[done : done + len(piece)]):
                    _refuse(_other(reply.headers))
                file.write(piece)
                done += len(piece)
                if progress is not None:
                    whole = max(total or 0, done)
                    progress(f"downloading {name} (MB)", -(-done // _PIECE), -(-whole // _PIECE))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and done > total:
        _refuse(f"it sent {done:,} bytes and said {total:,}")
    if done < len(begins):
        _refuse("it sent nothing") if total is None or done == total else None
    return total is None or done == total


def _same(about: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether an answer is of the file that came before: version and size agree where both say."""
    both = [key for key in now if now[key] is not None and about.get(key) is not None]
    return bool(both) and all(now[key] == about[key] for key in both)


def _anew(part: Path, refusal: str) -> None:
    """Drop what came, to begin again.

    Raises:
        ValueError: nothing had come, so that the answer would be the same.
    """
    if not _size(part):
        _refuse(refusal)
    _drop(part)


def _range(headers: Any) -> tuple[int, str | None]:
    """From ``Content-Range: bytes START-END/TOTAL``: where it starts, and the whole size."""
    _, _, words = str(headers.get("Content-Range", "")).partition(" ")
    span, _, total = words.partition("/")
    with contextlib.suppress(ValueError):
        return int(span.partition("-")[0]), total if total.isdigit() else None
    raise ValueError(f"it answered a range with Content-Range {words!r}")


def _other(headers: Any) -> str:
    kind = str(headers.get("Content-Type", "")).partition(";")[0]
    page = kind in ("text/html", "application/xhtml+xml")
    return "it sent a web page" if page else f"it sent something else ({kind or 'of no type'})"


def _refuse(words: str) -> bool:
    raise ValueError(words)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _note(part: Path, about: dict[str, Any]) -> None:
    part.with_suffix(".json").write_text(json.dumps(about))


def _about(part: Path) -> dict[str, Any]:
    place = part.with_suffix(".json")
    with contextlib.suppress(VGFError):
        found: dict[str, Any] = read_json(place, dict)
        return found
    return {}
