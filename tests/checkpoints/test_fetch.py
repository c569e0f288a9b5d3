"""Download of released checkpoints, from a local server."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tdmpc2.checkpoints.__main__ import main
from tdmpc2.checkpoints.fetch import CHECKSUMS
from tdmpc2.checkpoints.names import HOME, expand
from tdmpc2.common.system.errors import UserError
from tests.checkpoints.server import Server, serving

NAME = "multitask/mt30-1M.pt"
DATA = bytes(range(256)) * 5000
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as one:
        one.files[NAME] = DATA
        one.headers[NAME] = {"ETag": '"version-1"'}
        yield one


def fetch(server: Server, out: Path, *arguments: str, name: str = NAME) -> int:
    return main(["fetch", name, f"out={out}", f"url={server.url}", *arguments])


def ranges(server: Server) -> list[str | None]:
    return [wanted for path, wanted in server.requests if path == NAME]


def left(out: Path) -> set[str]:
    return {p.name for p in out.rglob("*") if p.is_file()} - {".fetch.lock", CHECKSUMS}


def test_a_file_is_fetched_once(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert fetch(server, tmp_path) == 0
    assert (tmp_path / NAME).read_bytes() == DATA
    assert ranges(server) == [None]
    printed = capsys.readouterr().out
    assert f"sha256 {SHA[:16]}…, unchecked" in printed
    assert "already exists" in printed
    assert (tmp_path / CHECKSUMS).read_text() == f"{SHA}  {NAME}\n"
    assert left(tmp_path) == {"mt30-1M.pt"}


def test_an_interrupted_transfer_goes_on(server: Server, tmp_path: Path) -> None:
    server.break_after = 500_000
    with pytest.raises(UserError, match="500,000 bytes are kept, the same command continues"):
        fetch(server, tmp_path)
    assert left(tmp_path) == {"mt30-1M.pt.part", "mt30-1M.pt.part.json"}
    with pytest.raises(UserError, match="1,000,000 bytes are kept"):
        fetch(server, tmp_path)
    server.break_after = None
    assert fetch(server, tmp_path, f"sha256={SHA}") == 0
    assert ranges(server) == [None, "bytes=500000-", "bytes=1000000-"]
    assert (tmp_path / NAME).read_bytes() == DATA
    assert left(tmp_path) == {"mt30-1M.pt"}


@pytest.mark.parametrize(
    "why", ["no ranges", "another file", "no validator", "another address", "another part"]
)
def test_what_cannot_go_on_starts_over(server: Server, tmp_path: Path, why: str) -> None:
    if why == "no validator":
        server.headers[NAME] = {}
    server.break_after = 500_000
    with pytest.raises(UserError, match="are kept"):
        fetch(server, tmp_path)
    server.break_after = None
    if why == "no ranges":
        server.ranges = False
    elif why == "another file":
        server.headers[NAME] = {"ETag": '"version-2"'}
        server.files[NAME] = DATA[::-1]
    elif why == "another address":
        (note,) = tmp_path.rglob("*.part.json")
        note.write_text(note.read_text().replace("127.0.0.1", "elsewhere"))
    elif why == "another part":
        server.shift = 1
    assert fetch(server, tmp_path) == 0
    assert (tmp_path / NAME).read_bytes() == server.files[NAME]


def test_a_transfer_that_only_lacked_its_last_step(server: Server, tmp_path: Path) -> None:
    """Killed after the last byte: no further request is sent."""
    server.break_after = 500_000
    with pytest.raises(UserError):
        fetch(server, tmp_path)
    (tmp_path / f"{NAME}.part").write_bytes(DATA)
    server.requests.clear()
    assert fetch(server, tmp_path) == 0
    assert ranges(server) == []


def test_a_file_that_became_shorter_starts_over(server: Server, tmp_path: Path) -> None:
    server.break_after = 500_000
    with pytest.raises(UserError):
        fetch(server, tmp_path)
    server.break_after, server.files[NAME] = None, DATA[:1000]
    assert fetch(server, tmp_path) == 0
    assert (tmp_path / NAME).read_bytes() == DATA[:1000]


@pytest.mark.parametrize("source", ["sha256=", "the server's header", ".sha256"])
@pytest.mark.parametrize("right", [True, False])
def test_checksums(
    server: Server,
    tmp_path: Path,
    source: str,
    right: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checksum = SHA if right else "0" * 64
    arguments = [f"sha256={checksum}"] if source == "sha256=" else []
    if source == "the server's header":
        # As on Hugging Face for files in Git LFS: the checksum is in the redirect response.
        server.files["cdn"] = server.files.pop(NAME)
        server.headers["cdn"] = {"ETag": '"not-a-checksum"'}
        server.redirects[NAME] = ("cdn", {"X-Linked-ETag": f'"{checksum}"'})
    if source == ".sha256":
        server.files[f"{NAME}.sha256"] = f"{checksum}  mt30-1M.pt\n".encode()
    if right:
        assert fetch(server, tmp_path, *arguments) == 0
        assert f"{source}\n" in capsys.readouterr().out
        assert left(tmp_path) == {"mt30-1M.pt"}
    else:
        with pytest.raises(UserError, match=r"has checksum .*, expected 0000"):
            fetch(server, tmp_path, *arguments)
        assert left(tmp_path) == set()


def test_an_etag_that_is_a_checksum_counts(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.headers[NAME] = {"ETag": f'"{SHA}"'}
    assert fetch(server, tmp_path) == 0
    assert "checked by the server's header" in capsys.readouterr().out


def test_a_file_that_changed_on_disk_is_noticed(server: Server, tmp_path: Path) -> None:
    assert fetch(server, tmp_path) == 0
    (tmp_path / NAME).write_bytes(b"mine")
    with pytest.raises(UserError, match="remove it to fetch it again"):
        fetch(server, tmp_path)
    assert (tmp_path / NAME).read_bytes() == b"mine"


def test_missing_files_are_reported_after_the_others_are_there(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["dmcontrol/dog-run-2.pt"] = b"dog"
    with pytest.raises(
        UserError, match=r"2 of 3 files do not exist below .*dog-run-1\.pt.*inferred"
    ):
        fetch(server, tmp_path, name="dog-run")
    assert left(tmp_path) == {"dog-run-2.pt"}
    assert "there is no such file (404)" in capsys.readouterr().err


@pytest.mark.parametrize("busy", [3, 4])
def test_a_busy_server_is_asked_four_times(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: int
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    server.busy = busy
    if busy == 3:
        assert fetch(server, tmp_path) == 0
    else:
        with pytest.raises(UserError, match=r"cannot download .* \(503 Service Unavailable\)$"):
            fetch(server, tmp_path)
    assert ranges(server) == [None] * 4
    assert waits == [60] * 3


@pytest.mark.parametrize("to", ["http://[", "file:///etc/passwd", "mt30-1M.pt"])
def test_redirects_to_nowhere_are_one_line(server: Server, tmp_path: Path, to: str) -> None:
    server.redirects[NAME] = ("", {"Location": to})
    with pytest.raises(UserError, match=r"^cannot download .*mt30-1M\.pt \([^\n]+\)$"):
        fetch(server, tmp_path)
    assert left(tmp_path) == set()


def test_a_length_that_is_no_number_is_ignored(server: Server, tmp_path: Path) -> None:
    server.headers[NAME] = {"Content-Length": "many"}
    assert fetch(server, tmp_path) == 0
    assert (tmp_path / NAME).read_bytes() == DATA


@pytest.mark.parametrize("size", [0, 700_000])
def test_a_full_disk_keeps_what_was_downloaded(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    def copy(source: IO[bytes], target: IO[bytes], block: int) -> None:
        target.write(source.read(size))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", copy)
        with pytest.raises(OSError, match="No space left"):
            fetch(server, tmp_path)
    assert left(tmp_path) == {"mt30-1M.pt.part", "mt30-1M.pt.part.json"}
    assert fetch(server, tmp_path) == 0
    assert ranges(server) == [None, f"bytes={size}-" if size else None]
    assert (tmp_path / NAME).read_bytes() == DATA


def test_no_server_and_no_web_address(tmp_path: Path) -> None:
    with serving() as gone:
        pass
    with pytest.raises(UserError, match=r"cannot download .*refused"):
        fetch(gone, tmp_path)
    with pytest.raises(UserError, match="must begin with https"):
        main(["fetch", NAME, f"out={tmp_path}", "url=file:///etc"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        main(["fetch", NAME, f"out={tmp_path / 'file' / 'x'}"])


@pytest.mark.parametrize("deep", [False, True])
def test_a_refused_fetch_leaves_nothing_behind(deep: bool, server: Server, tmp_path: Path) -> None:
    """Neither without a server, nor without the file."""
    out = tmp_path / "new" / "deep" if deep else tmp_path
    with serving() as gone:
        pass
    for place, message in ((gone, "cannot download"), (server, "do not exist below")):
        with pytest.raises(UserError, match=message):
            main(["fetch", "a/b/missing.pt", f"out={out}", f"url={place.url}"])
        assert list(tmp_path.iterdir()) == []


def test_one_process_per_folder(server: Server, tmp_path: Path) -> None:
    with open(tmp_path / ".fetch.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is fetching"):
            fetch(server, tmp_path)
    assert fetch(server, tmp_path) == 0


# --- names -----------------------------------------------------------------------------------


def test_names_of_the_released_files() -> None:
    everything = expand("all")
    assert len(everything) == len(set(everything)) == 104 * 3 + 10
    assert everything[0] == "dmcontrol/walker-stand-1.pt"
    assert expand("multitask") == everything[-10:]
    assert expand("mt80")[-1] == "multitask/mt80-317M.pt"
    assert expand("mt80-48M") == ["multitask/mt80-48M.pt"]
    assert expand("walker-walk,ball-in-cup-catch", seeds=(2,)) == [
        *("dmcontrol/walker-walk-2.pt", "dmcontrol/cup-catch-2.pt"),
    ]
    assert expand("x/y.pt, myosuite")[:2] == ["x/y.pt", "myosuite/myo-hand-reach-1.pt"]
    assert expand("mw-push", single="{domain}_{task}/{seed}")[0] == "metaworld_mw-push/1"


@pytest.mark.parametrize(
    ("name", "patterns", "message"),
    [
        ("walker-wakl", {}, "did you mean 'walker-walk'"),
        ("toy-pointmass", {}, "has no released checkpoints"),
        ("../x.pt", {}, "must be a path below"),
        ("/x.pt", {}, "must be a path below"),
        ("", {}, "no checkpoints are named"),
        ("all", {"single": "{task}.pt"}, "must have the fields {domain}, {seed}, {task}"),
        ("all", {"multi": "{set"}, "not a valid pattern"),
        ("walker-walk", {"single": "{domain}{task:d}{seed}"}, "no formats"),
        ("walker-walk", {"single": "{domain}{task!r}{seed}"}, "no formats"),
    ],
)
def test_other_names_are_refused(name: str, patterns: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        expand(name, **patterns)


def test_a_dry_run_prints_addresses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "walker-walk", "seeds=2", "dry_run=true"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{HOME}/dmcontrol/walker-walk-{seed}.pt" for seed in (1, 2)
    ]
