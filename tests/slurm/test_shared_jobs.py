"""Several runs in one SLURM job, and what SLURM says of jobs that are ending."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.slurm import sweeping
from tests.slurm.cluster import WAIT_SECONDS, Cluster, wait_for

pytestmark = pytest.mark.xdist_group("slurm")


def test_a_run_that_ends_first_does_not_end_the_others(cluster: Cluster, tmp_path: Path) -> None:
    """SLURM's WaitTime ends the other processes of a job, which KillOnBadExit does not prevent."""
    sweeping.sweep(tmp_path, seeds=2, runs_per_gpu=2, env_steps=400, eval_every=200)
    assert len(cluster.jobs()) == 1
    held = sweeping.hold(tmp_path, (1, 2))
    os.kill(held[2], signal.SIGCONT)
    wait_for(lambda: not psutil.pid_exists(held[2]), sweeping.PATIENCE, "the second run to end")
    wait_for(lambda: not psutil.pid_exists(held[1]), 5 * WAIT_SECONDS, "", strict=False)
    assert psutil.pid_exists(held[1])
    os.kill(held[1], signal.SIGCONT)
    sweeping.until_empty(cluster)
    assert {view.state for view in sweeping.views(tmp_path).values()} == {"done"}
    assert [len(sweeping.attempts(tmp_path, seed)) for seed in (1, 2)] == [1, 1]


def test_a_job_is_shown_as_completing_before_it_comes_back(cluster: Cluster) -> None:
    """So nothing else may be started for such a job, and it is not known to have ended."""
    stubborn = "trap '' TERM; sleep 60"  # until SLURM kills it
    where = ["--parsable", "--requeue", "-n", "1", "-t", "5", "-o", "/dev/null"]
    job = cluster.call("sbatch", *where, "--wrap", stubborn)
    wait_for(lambda: cluster.jobs().get(job) == "RUNNING", 60, "the job to run")
    cluster.call("scontrol", "requeue", job)
    wait_for(lambda: cluster.jobs().get(job) == "COMPLETING", 20, "the job to end")
    wait_for(lambda: cluster.jobs().get(job) in ("PENDING", "RUNNING"), 60, "it to come back")
    cluster.call("scancel", job)
    sweeping.until_empty(cluster)
