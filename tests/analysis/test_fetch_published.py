"""Download of the released curves from a local server."""

from __future__ import annotations

import functools
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from analysis import fetch_published
from analysis.fetch_published import KNOWN_DIGEST, KNOWN_FILES, digest, main
from tdmpc2.common.system.errors import UserError

FILES = {
    "tdmpc2-abc/results/tdmpc2/walker-walk.csv": "step,reward,seed\n0,1,1\n",
    "tdmpc2-abc/results/sac/mw-reach.csv": "step,success,seed\n0,1,1\n",
    "tdmpc2-abc/train.py": "not wanted",
}


def archive(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return path


@pytest.fixture
def server(tmp_path) -> Iterator[str]:
    """URL of a server of the folder `served`."""
    (tmp_path / "served").mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path / "served")
    handler.log_message = lambda *args: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        host, port = http.server_address
        yield "http://" + f"{host}:{port}"
        http.shutdown()


def test_the_curves_are_downloaded_and_the_rest_is_left_out(tmp_path, server, capsys):
    archive(tmp_path / "served" / "main.zip", FILES)
    out = tmp_path / "cache" / "published"
    assert main([f"out={out}", f"url={server}/main.zip"]) == 0
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.*")) == [
        *("sac/mw-reach.csv", "tdmpc2/walker-walk.csv"),
    ]
    printed = capsys.readouterr()
    assert printed.out == f"{out}\n"
    assert "warning: the 2 files differ" in printed.err
    assert [path.name for path in out.parent.iterdir()] == ["published"]
    assert main([f"out={out}", "url=not-asked"]) == 0
    assert "exists already" in capsys.readouterr().err


def test_an_archive_downloaded_elsewhere(tmp_path):
    file = archive(tmp_path / "main.zip", FILES)
    assert main([f"out={tmp_path / 'out'}", f"archive={file}"]) == 0
    assert (tmp_path / "out" / "sac" / "mw-reach.csv").exists()
    assert file.exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tdmpc2-abc/train.py": "x"}, "contains no folder"),
        ({"tdmpc2-abc/results/readme.md": "x"}, "contains no curves"),
        ({**FILES, "../evil": "x"}, "write outside its folder"),
    ],
)
def test_other_archives_are_refused_and_nothing_is_left(tmp_path, files, message):
    file = archive(tmp_path / "main.zip", files)
    with pytest.raises(UserError, match=message):
        main([f"out={tmp_path / 'out'}", f"archive={file}"])
    assert [path.name for path in tmp_path.iterdir()] == ["main.zip"]


def test_trouble_is_one_line_of_advice(tmp_path, server):
    for argument, message in (
        (f"url={server}/none.zip", "cannot download .*none.zip .*archive="),
        (f"archive={tmp_path / 'none.zip'}", "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            main([f"out={tmp_path / 'out'}", argument])
        assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="name another folder with out="):
        main([f"out={tmp_path / 'file' / 'out'}", f"url={server}/none.zip"])


def test_the_released_curves_are_those_known(published_curves):
    assert digest(published_curves) == (KNOWN_FILES, KNOWN_DIGEST)
    assert "out=" in fetch_published.usage()
