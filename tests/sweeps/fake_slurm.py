"""Programs that answer as a SLURM with the jobs of two users would."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# It holds more jobs of the same name: of other folders of runs, of other users, and of an id that
# merely begins like one of a sweep. After some answers, all jobs have ended.
SQUEUE = """#!/bin/sh
echo "$@" >> {folder}/asked
[ $(wc -l < {folder}/asked) -gt {answers} ] && exit 0
own="--user={user}"
for option in "$@"; do [ "$option" = "$own" ] && only=1; done
printf '70_0|RUNNING\\n70_1|PENDING\\n71|PENDING\\n700_0|RUNNING\\n80_0|PENDING\\n'
[ -n "$only" ] || printf '72_0|RUNNING\\n72_1|RUNNING\\n81|PENDING\\n'
"""
SCANCEL = """#!/bin/sh
echo "$@" >> {folder}/named
{end}
"""


def use_fake_slurm(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, answers: int = 2, end: str = "exit 0"
) -> Path:
    """Put the programs first on the path; return the file to which `scancel` writes its arguments.

    Args:
        folder: folder that is created for them.
        monkeypatch: what sets the path.
        answers: how often `squeue` lists the jobs.
        end: how `scancel` ends.
    """
    folder.mkdir()
    programs = {
        "squeue": SQUEUE.format(folder=folder, user=os.getuid(), answers=answers),
        "scancel": SCANCEL.format(folder=folder, end=end),
    }
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    return folder / "named"
