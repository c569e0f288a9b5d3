"""Download one large file: interrupted downloads can be continued, checksums are verified."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from tdmpc2.common.system.atomic_files import (
    fsync_directory,
    full_disk,
    read_json,
    sha256_of,
    write_json,
)
from tdmpc2.common.system.errors import UserError

_TIMEOUT_SECONDS = 60
_BLOCK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class MissingError(UserError):
    """The server does not have the file."""


class _UselessPartError(Exception):
    """The response does not continue the partial file."""


class Fetched(NamedTuple):
    """Result of a download.

    Attributes:
        sha256: checksum of the file.
        checked_by: source of the checksum that it was compared with; None if there was none.
    """

    sha256: str
    checked_by: str | None


class _Remote(NamedTuple):
    """Facts from the response headers, stored beside the partial file.

    Attributes:
        url: URL of the file.
        validator: ETag or date that identifies the version of the file; None if there is none.
        length: length in bytes; None if unknown.
        sha256: checksum, if a header contains one, as for files in Git LFS.
    """

    url: str
    validator: str | None
    length: int | None
    sha256: str | None


def fetch_file(url: str, target: Path, *, sha256: str | None = None) -> Fetched:
    """Download a file.

    The file appears by one atomic rename. Until then its beginning is kept in `<target>.part`. A
    later call continues from there if the server supports ranges and its file has not changed.

    Args:
        url: URL of the file.
        target: destination; its folder exists, and no other process downloads the file.
        sha256: expected checksum; None to take it from the headers, or from `<url>.sha256`.

    Raises:
        MissingError: the server does not have the file.
        UserError: there is no network, the transfer was interrupted, or the checksum is wrong
            (then nothing is kept).
    """
    part = target.with_name(f"{target.name}.part")
    note = target.with_name(f"{target.name}.part.json")
    remote = _transfer(url, part, note)
    actual = sha256_of(part)
    expected, source = sha256, "sha256="
    if expected is None:
        expected, source = remote.sha256, "the server's header"
    if expected is None:
        expected, source = _checksum_beside(url), f"{url}.sha256"
    if expected is not None and expected.lower() != actual:
        part.unlink()
        note.unlink()
        raise UserError(
            f"{url}: has checksum {actual[:16]}…, expected {expected[:16].lower()}… ({source}); "
            "the download was deleted; try again"
        )
    os.replace(part, target)
    fsync_directory(target.parent)
    note.unlink()
    return Fetched(actual, None if expected is None else source)


def _transfer(url: str, part: Path, note: Path) -> _Remote:
    """Download the rest of a file into `part`."""
    known = _known(url, part, note)
    start = part.stat().st_size if known else 0
    if known is not None and known.length == start:
        return known
    try:
        return _receive(url, part, note, known, start)
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            raise MissingError(f"{url}: there is no such file ({error.code})") from None
        if error.code == 416 and start:  # the server's file is shorter than the partial file
            part.unlink()
            return _transfer(url, part, note)
        raise UserError(f"cannot download {url} ({error.code} {error.reason})") from None
    except _UselessPartError as error:
        if start:
            part.unlink()
            return _transfer(url, part, note)
        raise UserError(f"cannot download {url} ({error})") from None
    except (OSError, http.client.HTTPException) as error:
        if full_disk(error):
            raise
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        kept = part.stat().st_size if part.exists() else 0
        advice = f"; {kept:,} bytes are kept, the same command continues from there" if kept else ""
        raise UserError(
            f"cannot download {url} ({reason or type(error).__name__}){advice}"
        ) from None


def _kept(part: Path) -> str:
    size = part.stat().st_size if part.exists() else 0
    return f"; {size:,} bytes are kept, the same command continues from there" if size else ""


def _known(url: str, part: Path, note: Path) -> _Remote | None:
    """Return the facts of an earlier transfer if its partial file can be continued."""
    try:
        recorded = read_json(note) if part.is_file() else None
        known = None if recorded is None else _Remote(**recorded)
    except (UserError, TypeError):
        return None
    return known if known is not None and known.url == url and known.validator else None


def _receive(url: str, part: Path, note: Path, known: _Remote | None, start: int) -> _Remote:
    """Request the missing bytes and write them."""
    headers = {}
    if known is not None and start:
        # With If-Range, a server whose file has changed sends the whole file.
        headers = {"Range": f"bytes={start}-", "If-Range": str(known.validator)}
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    request = urllib.request.Request(url, headers=headers)
    with opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
        continues = response.status == 206 and _continues(response.headers, known, start)
        if response.status == 206 and not continues:
            raise _UselessPartError("the server sent another range than the requested one")
        if continues and known is not None:
            remote = known
        else:
            start, remote = 0, _remote(url, response.headers, redirects.linked)
            part.unlink(missing_ok=True)
            write_json(note, remote._asdict())
        with open(part, "ab" if continues else "wb") as out:
            _copy(response, out, start, remote.length, part.name)
            out.flush()
            os.fsync(out.fileno())
    size = part.stat().st_size
    if remote.length is not None and size != remote.length:
        raise http.client.IncompleteRead(b"", remote.length - size)
    return remote


def _copy(response: Any, out: IO[bytes], start: int, length: int | None, title: str) -> None:
    bar = tqdm(
        desc=title.removesuffix(".part"),
        initial=start,
        total=length,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        leave=False,
        disable=None,  # only on a terminal
    )
    with bar:
        while block := response.read(_BLOCK):
            out.write(block)
            bar.update(len(block))


def _continues(headers: Any, known: _Remote | None, start: int) -> bool:
    """Return whether a partial response is the requested range of a file of the same length."""
    match = _RANGE.match(headers.get("Content-Range", ""))
    if match is None or known is None or int(match[1]) != start:
        return False
    return match[2] == "*" or known.length is None or int(match[2]) == known.length


def _remote(url: str, headers: Any, linked: str | None) -> _Remote:
    etag, length = headers.get("ETag", ""), headers.get("Content-Length")
    strong = etag if etag and not etag.startswith("W/") else None
    checksums = [text.strip('"') for text in (linked or "", strong or "")]
    return _Remote(
        url=url,
        validator=strong or headers.get("Last-Modified"),
        length=int(length) if length else None,
        sha256=next((text for text in checksums if _SHA256.fullmatch(text)), None),
    )


def _checksum_beside(url: str) -> str | None:
    """Return the checksum in `<url>.sha256`, or None if there is no such file."""
    try:
        with urllib.request.urlopen(f"{url}.sha256", timeout=_TIMEOUT_SECONDS) as response:
            found = _SHA256.search(response.read(4096).decode(errors="replace"))
    except (OSError, http.client.HTTPException):
        return None
    return None if found is None else found[0]


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirect handler that keeps the checksum in Hugging Face's first response.

    Attributes:
        linked: `X-Linked-ETag`, the SHA-256 of a file in Git LFS.
    """

    linked: str | None = None

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """See `HTTPRedirectHandler.redirect_request`."""
        self.linked = headers.get("X-Linked-ETag", self.linked)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
