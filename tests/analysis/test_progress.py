"""Commands show what they are doing on a terminal, and nothing elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios

import pytest

from analysis.records.progress import doing
from tdmpc2.common.system.paths import project_root
from tests.analysis.run_files import write_run


def test_nothing_is_shown_without_a_terminal(capsys):
    with doing("reading"):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (("make_figures.py", "only=aggregate", "reps=200"), ("reading ", "figures:", "auditing")),
        (("report.py", "reps=200"), ("reading ", "scores of the groups", "audit of the records")),
    ],
)
def test_a_terminal_shows_what_is_done(tmp_path, command, shown):
    write_run(tmp_path / "runs", {0: 1.0, 1000: 2.0})
    name, *arguments = command
    out = tmp_path / ("report.html" if name == "report.py" else "figures")
    script = project_root() / "analysis" / name
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 100))
    line = [sys.executable, str(script), f"runs={tmp_path / 'runs'}", f"out={out}", *arguments]
    started = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=theirs, cwd=project_root())
    os.close(theirs)
    text = b""
    try:
        while chunk := os.read(ours, 4096):
            text += chunk
    except OSError:  # the other end is closed
        pass
    assert started.wait() == 0
    os.close(ours)
    for part in shown:
        assert part in text.decode()
    assert started.stdout is not None
    assert str(out) in started.stdout.read().decode()
    started.stdout.close()
