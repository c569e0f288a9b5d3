"""Cancelling SLURM jobs of a sweep: by recorded id, never by name, and only the user's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sweeps import cancel
from sweeps.tracking.sweep_folder import job_name
from tests.sweeps.directories import one_array, plan, write_sweep

# A queue of two users. It holds more jobs of the same name: of other folders of runs, of other
# users, and of an id that merely begins like one of the sweep.
SQUEUE = """#!/bin/sh
echo "$@" >> {folder}/asked
own="--user={user}"
for option in "$@"; do [ "$option" = "$own" ] && only=1; done
printf '70_0|RUNNING\\n70_1|PENDING\\n71|PENDING\\n700_0|RUNNING\\n80_0|PENDING\\n'
[ -n "$only" ] || printf '72_0|RUNNING\\n72_1|RUNNING\\n81|PENDING\\n'
"""


@pytest.fixture
def scancel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulate a cluster; return the file to which `scancel` writes its arguments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    programs = {
        "squeue": SQUEUE.format(folder=folder, user=os.getuid()),
        "scancel": f'#!/bin/sh\necho "$@" >> {folder}/named\n',
    }
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    return folder / "named"


def test_only_recorded_jobs_of_the_user_are_named(
    tmp_path: Path, scancel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    planned = plan(runs, 2)
    arrays = one_array(runs, planned, "70") + one_array(runs, planned, "72")
    sweep = write_sweep(runs, planned, cluster="slurm", arrays=arrays, figures="71")
    assert cancel.main([f"runs={runs}"]) == 0
    assert scancel.read_text() == "70 71\n"
    printed = capsys.readouterr().out
    assert f"{sweep.name}: 3 jobs cancelled (70, 71)" in printed
    assert f"{sweep.name}: 2 jobs of other users are left" in printed
    asked = (scancel.parent / "asked").read_text()
    assert asked.count(f"--name={job_name(sweep.name)}") == 2


def test_a_sweep_of_the_same_name_elsewhere_is_left_alone(
    tmp_path: Path, scancel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both folders hold the same runs, so the names of their jobs are equal."""
    here, there = tmp_path / "here", tmp_path / "there"
    for runs, job in ((here, "90"), (there, "70")):
        planned = plan(runs, 2)
        write_sweep(runs, planned, cluster="slurm", arrays=one_array(runs, planned, job))
    assert cancel.main([f"runs={here}"]) == 0
    assert not scancel.exists()
    assert "nothing is running or queued" in capsys.readouterr().out


def test_without_squeue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = plan(tmp_path, 1)
    arrays = one_array(tmp_path, planned, "70")
    write_sweep(tmp_path, planned, cluster="slurm", arrays=arrays)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cancel.main([f"runs={tmp_path}"]) == 0
    assert "squeue does not respond on this machine" in capsys.readouterr().out
