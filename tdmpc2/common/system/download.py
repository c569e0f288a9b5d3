"""Download of one file: continued after interruptions, verified, put in place by one rename."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import requests
import urllib3
from requests.adapters import HTTPAdapter
from tqdm import tqdm

from tdmpc2.common.system.atomic_files import (
    fsync_directory,
    full_disk,
    read_json,
    sha256_of,
    write_json,
)
from tdmpc2.common.system.errors import UserError, chain

# On top of requests, since pooch 1.9 and huggingface_hub 2.4 delete the partial file when a
# download is interrupted, and the latter also needs the Hub's own response headers.
_TIMEOUT_SECONDS = 60
_BLOCK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)
_ERRORS = (OSError, ValueError, urllib3.exceptions.HTTPError)  # ValueError: an invalid redirect
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class DownloadError(UserError):
    """A file cannot be downloaded.

    Args:
        url: URL of the file.
        error: error of the library or of the operating system.
        advice: end of the message, may be empty.

    Attributes:
        status: HTTP status of the response that was refused; None if there was no response.
    """

    def __init__(self, url: str, error: BaseException, advice: str) -> None:
        response = getattr(error, "response", None)
        self.status: int | None = None if response is None else response.status_code
        *_, first = chain(error)  # the reason, inside the libraries' own errors
        reason = str(first) or type(first).__name__
        super().__init__(f"cannot download {url} ({reason}){advice and f'; {advice}'}")


class Downloaded(NamedTuple):
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
        validator: ETag or date that identifies the version of the file; empty if there is none.
        length: length in bytes; None if unknown.
        sha256: checksum, if a header contains one, as for files in Git LFS.
    """

    url: str
    validator: str
    length: int | None
    sha256: str | None


def download(
    url: str,
    file: Path,
    *,
    sha256: str | None = None,
    find_sha256: bool = False,
    title: str | None = None,
    advice: str = "",
) -> Downloaded:
    """Download a file with a progress bar.

    The file appears by one atomic rename. Until then its beginning is kept in `<file>.part`. A
    later call continues from there if the server supports ranges and its file has not changed.

    Args:
        url: URL of the file.
        file: destination; its folder exists, and no other process downloads the file.
        sha256: expected checksum.
        find_sha256: without `sha256`, whether to take it from the headers or `<url>.sha256`.
        title: label of the progress bar; default: the name of the file.
        advice: end of the error message; default: that the download can be continued.

    Raises:
        DownloadError: there is no network, the server refuses, or the transfer was interrupted.
        UserError: the checksum is wrong (then nothing is kept).
        OSError: the disk is full.
    """
    part, note = (file.with_name(f"{file.name}{end}") for end in (".part", ".part.json"))
    try:
        remote = _transfer(url, part, note, title or file.name)
    except _ERRORS as error:
        if full_disk(error):
            raise
        raise DownloadError(url, error, advice or _kept(part)) from None
    actual, expected, source = sha256_of(part), sha256, "sha256="
    if expected is None and find_sha256:
        expected, source = _find_checksum(url, remote)
    if expected is not None and expected.lower() != actual:
        part.unlink()
        note.unlink()
        raise UserError(
            f"{url}: has checksum {actual[:16]}…, expected {expected[:16].lower()}… ({source}); "
            "the download was deleted; try again"
        )
    os.replace(part, file)
    fsync_directory(file.parent)
    note.unlink()
    return Downloaded(actual, source if expected else None)


def _kept(part: Path) -> str:
    size = part.stat().st_size if part.exists() else 0
    return f"{size:,} bytes are kept, the same command continues from there" if size else ""


def _transfer(url: str, part: Path, note: Path, title: str) -> _Remote:
    """Download the rest of a file into `part`."""
    known = _known(url, part, note)
    start = part.stat().st_size if known else 0
    if known and known.length == start:
        return known
    # With If-Range, a server whose file has changed sends the whole file.
    headers = {"Range": f"bytes={start}-", "If-Range": known.validator} if known else {}
    with _get(url, headers) as response:
        if known and _continues(response, known, start):
            return _receive(response, known, part, title)
        if response.status_code == 200:
            remote = _remote(url, response)
            part.unlink(missing_ok=True)
            write_json(note, remote._asdict())
            return _receive(response, remote, part, title)
        if not known or response.status_code not in (206, 416):
            reason = f"{response.status_code} {response.reason}"
            raise requests.HTTPError(reason, response=response)
    part.unlink()  # the server sends another range, or its file is shorter
    return _transfer(url, part, note, title)


@contextmanager
def _get(url: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
    """Request a URL, repeatedly if the server is busy."""
    retries = urllib3.Retry(
        3,
        connect=0,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
        backoff_factor=0.5,
        retry_after_max=_TIMEOUT_SECONDS,
    )
    with requests.Session() as session:
        session.headers["Accept-Encoding"] = "identity"
        for scheme in ("http", "https"):
            session.mount(f"{scheme}://", HTTPAdapter(max_retries=retries))
        with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as response:
            yield response


def _receive(response: requests.Response, remote: _Remote, part: Path, title: str) -> _Remote:
    """Append the body of a response to the partial file."""
    with open(part, "ab") as out:
        progress = tqdm.wrapattr(
            *(out, "write", remote.length),
            initial=out.tell(),
            desc=title,
            leave=False,
            disable=None,  # shown on a terminal only
        )
        with progress as counted:
            shutil.copyfileobj(response.raw, counted, _BLOCK)
        out.flush()
        os.fsync(out.fileno())
        missing = (remote.length or out.tell()) - out.tell()
    if missing:
        raise OSError(f"{missing:,} bytes are missing")
    return remote


def _known(url: str, part: Path, note: Path) -> _Remote | None:
    """Return the facts of an earlier transfer if its partial file can be continued."""
    try:
        known = _Remote(**(read_json(note) or {}))
    except (UserError, TypeError):  # damaged, or there is none
        return None
    begun = part.is_file() and part.stat().st_size > 0
    return known if begun and known.url == url and known.validator else None


def _continues(response: requests.Response, known: _Remote, start: int) -> bool:
    """Return whether a response is the requested range of a file of the same length."""
    match = _RANGE.match(response.headers.get("Content-Range", ""))
    if response.status_code != 206 or match is None or int(match[1]) != start:
        return False
    return match[2] == "*" or known.length is None or int(match[2]) == known.length


def _remote(url: str, response: requests.Response) -> _Remote:
    etag = response.headers.get("ETag", "")
    strong = "" if etag.startswith("W/") else etag
    # Hugging Face sends the checksum of a file in Git LFS with the redirect to it.
    linked = [answer.headers.get("X-Linked-ETag", "") for answer in response.history]
    checksums = [text.strip('"') for text in (*linked, strong)]
    return _Remote(
        url=url,
        validator=strong or response.headers.get("Last-Modified", ""),
        length=response.raw.length_remaining,
        sha256=next((text for text in checksums if _SHA256.fullmatch(text)), None),
    )


def _find_checksum(url: str, remote: _Remote) -> tuple[str | None, str]:
    """Return the server's checksum of a file, None if there is none, and its source."""
    if remote.sha256 is not None:
        return remote.sha256, "the server's header"
    try:
        with _get(f"{url}.sha256", {}) as response:
            text = response.raw.read(4096).decode(errors="replace") if response.ok else ""
    except _ERRORS:
        text = ""
    found = _SHA256.search(text)
    return found and found[0], f"{url}.sha256"
