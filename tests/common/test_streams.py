"""Commands whose output is closed, full or without a reader: their work is done nevertheless."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tdmpc2.common.run.run_files import read_status
from tests.runs import arguments, outcome, run_directory
from tests.sweeps.directories import plan, write_lease, write_status, write_sweep

ROOT = Path(__file__).parents[2]
WORK = """
import sys
from tdmpc2.common.system.command import command

def main(arguments):
    for i in range(3):
        print("line", i, flush=True)
        print("more", i, file=sys.stderr)
    with open(arguments[0], "w") as file:
        print("print to the descriptors of the streams", end="")
        file.write(f"done {file.fileno() > 2}")
    return int(arguments[1])

sys.exit(command(main, lambda: "usage"))
"""
CLOSED = [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"]
UNREAD = ["| true", "2>&1 | true", "2>&1 >/dev/null | true"]
FULL = ["2>/dev/full", ">/dev/full 2>/dev/full"]


def shell(command: Sequence[object], streams: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in bash with its streams redirected; the result is that of the command."""
    line = f'"$@" {streams}; exit ${{PIPESTATUS[0]}}'
    return subprocess.run(
        ["bash", "-c", line, "bash", *map(str, command)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **env},
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("streams", [*CLOSED, *UNREAD, "2>/dev/full"])
@pytest.mark.parametrize("code", [0, 1])
def test_the_work_is_done(streams: str, code: int, unbuffered: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORK, tmp_path / "file", code]
    assert shell(command, streams, PYTHONUNBUFFERED=unbuffered).returncode == code
    assert (tmp_path / "file").read_text() == "done True"


def test_output_that_is_missing_is_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORK, tmp_path / "file", 0]
    done = shell(command, ">/dev/full")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: standard output: No space left on device, so some of the output is missing; free "
        "some space or redirect the output elsewhere, and run the same command again"
    )
    assert (tmp_path / "file").read_text() == "done True"


def test_whole_output_arrives_at_a_slow_reader(tmp_path: Path) -> None:
    """Also if another program has set the pipe to non-blocking."""
    work = """
import os, sys
from tdmpc2.common.system.command import command
os.set_blocking(1, False)
sys.exit(command(lambda _: print("x" * 3_000_000) or 0, lambda: ""))
"""
    done = shell([sys.executable, "-c", work], "| (sleep 1; wc -c)")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "3000001", "")


@pytest.mark.parametrize("streams", [*CLOSED, *UNREAD, *FULL])
def test_an_error_has_its_exit_code(streams: str) -> None:
    command = [sys.executable, ROOT / "tdmpc2" / "train.py", "unknown=1"]
    assert shell(command, streams).returncode == 2


@pytest.mark.parametrize("streams", [">&- 2>&-", "2>&1 | true", "2>/dev/full"])
def test_a_run_goes_on_without_a_reader(streams: str, undisturbed: Path, tmp_path: Path) -> None:
    settings = arguments(tmp_path, progress="true" if "2>/dev/full" in streams else None)
    done = shell([sys.executable, ROOT / "tdmpc2" / "train.py", *settings], streams)
    assert done.returncode == 0, done
    status = read_status(run_directory(tmp_path))
    assert status is not None
    assert status["state"] == "COMPLETED"
    assert outcome(tmp_path) == outcome(undisturbed)


def test_status_does_not_follow_runs_without_a_reader(tmp_path: Path) -> None:
    """A run that is in progress would be followed to its end."""
    (run,) = plan(tmp_path, 1)
    write_status(run, "RUNNING")
    write_lease(run)
    write_sweep(tmp_path, [run])
    options = [f"runs={tmp_path}", "follow=true", "every=0.1"]
    command = [sys.executable, ROOT / "sweeps" / "status.py", *options]
    assert shell(["timeout", 60, *command], "| head -1").returncode == 0
