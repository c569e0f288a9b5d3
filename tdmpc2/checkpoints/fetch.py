"""Download the authors' released checkpoints into a folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path

from tdmpc2.common.system.atomic_files import sha256_of, write_text
from tdmpc2.common.system.download import DownloadError, download
from tdmpc2.common.system.errors import UserError

CHECKSUMS = "SHA256SUMS"
"""File of the checksums of fetched files, in the format of `sha256sum --check`."""
LOCK = ".fetch.lock"
_SHOWN = 3  # missing files that a message lists


def fetch(paths: Sequence[str], folder: Path, base: str, *, sha256: str | None = None) -> None:
    """Download files that do not exist yet, and print a line for each.

    Args:
        paths: paths relative to `base` and to `folder`.
        folder: destination.
        base: URL of the server's folder.
        sha256: expected checksum, if there is only one file.

    Raises:
        UserError: there is no network, a checksum is wrong, or the folder cannot be written.
            Files that the server does not have are reported together, after all others have been
            downloaded.
    """
    missing = []
    with _only_one(folder, paths):
        sums = _read_sums(folder)
        for number, path in enumerate(paths, start=1):
            target, url = folder / path, url_of(base, path)
            place = f"[{number}/{len(paths)}] {target}"
            if target.exists():
                _check_present(target, sha256 or sums.get(path))
                print(f"{place}  already exists")
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                fetched = download(url, target, sha256=sha256, find_sha256=True)
            except DownloadError as error:
                if error.status not in (404, 410):
                    raise
                missing.append(path)
                print(f"{place}  {url}: there is no such file ({error.status})", file=sys.stderr)
                continue
            sums[path] = fetched.sha256
            _write_sums(folder, sums)
            checked = f"checked by {fetched.checked_by}" if fetched.checked_by else "unchecked"
            print(f"{place}  sha256 {fetched.sha256[:16]}…, {checked}", flush=True)
        if missing:
            names = ", ".join(missing[:_SHOWN]) + (" …" if len(missing) > _SHOWN else "")
            raise UserError(
                f"{len(missing)} of {len(paths)} files do not exist below {base}: {names}; the "
                "names are inferred, so look up the real names there and give a path, single= or "
                "multi="
            )


def url_of(base: str, path: str) -> str:
    """Return the URL of a file.

    Raises:
        UserError: the base is not a web address.
    """
    if urllib.parse.urlsplit(base).scheme not in ("http", "https"):
        raise UserError(f"url={base}: must begin with https:// or http://")
    return f"{base.rstrip('/')}/{urllib.parse.quote(path)}"


@contextlib.contextmanager
def _only_one(folder: Path, paths: Sequence[str]) -> Iterator[None]:
    """Lock a folder against other processes that fetch; an error leaves no lock or empty folder.

    Args:
        folder: the folder.
        paths: paths of the files below it that will be written.
    """
    parents = {parent for path in paths for parent in (folder / path).parents}
    new = sorted((path for path in parents if not os.path.lexists(path)), reverse=True)
    new_lock = not os.path.lexists(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / LOCK, "w", encoding="utf-8")  # noqa: SIM115  closed below
    except OSError as error:
        raise UserError(f"out={folder}: cannot be written ({error.strerror})") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"out={folder}: another process is fetching into it") from None
        try:
            yield
        except BaseException:
            if new_lock:
                (folder / LOCK).unlink(missing_ok=True)
            for path in new:  # innermost first
                with contextlib.suppress(OSError):  # holds other files
                    path.rmdir()
            raise


def _check_present(file: Path, sha256: str | None) -> None:
    if sha256 is None:
        return
    actual = sha256_of(file)
    if actual != sha256.lower():
        raise UserError(
            f"{file}: already exists with checksum {actual[:16]}…, expected "
            f"{sha256[:16].lower()}…; remove it to fetch it again"
        )


def _read_sums(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.split(maxsplit=1) for line in lines)
    return {pair[1].lstrip("*"): pair[0] for pair in pairs if len(pair) == 2}


def _write_sums(folder: Path, sums: dict[str, str]) -> None:
    text = "".join(f"{value}  {path}\n" for path, value in sorted(sums.items()))
    write_text(folder / CHECKSUMS, text)
