"""What SLURM answers, and which launches have jobs that `squeue` does not list on this machine."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from sweeps.tracking.sweep_folder import Submission

ANSWER_SECONDS = 60


def answer_of(command: Sequence[str]) -> str | None:
    """Return what a command of SLURM prints; None if it is missing, fails or does not respond."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def unlisted(submissions: Sequence[Submission]) -> set[Path] | None:
    """Return the folders of the launches on SLURM whose jobs `squeue` never lists here.

    They went to another cluster, or are those of other users, which `PrivateData` hides.

    Args:
        submissions: launches on SLURM.

    Returns:
        The folders; None if SLURM does not respond. It is asked only if this can matter.
    """
    others = {s.folder for s in submissions if _is_of_others(s)}
    if not others and all(_cluster_of(s) is None for s in submissions):
        return set()
    answer = answer_of(["scontrol", "show", "config"])
    if answer is None:
        return None
    config = dict(re.findall(r"^(ClusterName|PrivateData) *= *(\S+)", answer, re.MULTILINE))
    here = (None, config.get("ClusterName"))
    elsewhere = {s.folder for s in submissions if _cluster_of(s) not in here}
    private = "jobs" in config.get("PrivateData", "").split(",") and os.getuid() != 0
    return elsewhere | others if private else elsewhere


def _cluster_of(submission: Submission) -> str | None:
    """Return the name of the cluster of a launch; None of versions that have not recorded it."""
    return submission.facts.get("slurm_cluster")


def _is_of_others(submission: Submission) -> bool:
    """Return whether another user has made the folder of a launch."""
    return submission.folder.stat().st_uid != os.getuid()
