"""Multi-task runs on a real cluster: requeued after a signal, they end with the same results."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from sweeps import launch, status
from tests.slurm import sweeping
from tests.slurm.cluster import Cluster, wait_for
from tests.sweeps.datasets import arguments, toy_dataset

pytestmark = pytest.mark.xdist_group("slurm")


def sweep(data: Path, runs: Path, **changes: Any) -> int:
    on_slurm = {"gpus": 0, "mem_gb": 1} if "cluster" not in changes else {}
    return launch.main(arguments(data, runs, **{**on_slurm, "seeds": 1, **changes}))


def test_a_warned_run_goes_on(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, runs, alone = toy_dataset(tmp_path / "data"), tmp_path / "runs", tmp_path / "alone"
    assert sweep(data, runs) == 0
    assert "1 jobs, as arrays of 1" in capsys.readouterr().out
    (job,) = cluster.jobs()
    learned = "*/*/*/seed*/checkpoints/0*[1-9]*"  # a checkpoint with an update
    wait_for(lambda: any(runs.glob(learned)), sweeping.PATIENCE, "it to learn")
    pid = sweeping.lease(runs, 1)["pid"]
    os.kill(pid, signal.SIGSTOP)
    cluster.call("scancel", "--signal=USR2", job)
    wait_for(lambda: sweeping.is_warned(pid), 60, "it to be warned")
    assert status.main([f"runs={runs}", "list=true"]) == 0
    assert "of 45 updates" in capsys.readouterr().out
    os.kill(pid, signal.SIGCONT)
    sweeping.until_empty(cluster)
    assert sweeping.views(runs)[1].state == "done"
    assert len(sweeping.attempts(runs, 1)) == 2
    assert "stopped at update" in sweeping.views(runs)[1].log.read_text()
    assert not (runs / "floors").exists()
    assert sweep(data, alone, cluster="inline") == 0
    assert sweeping.same_as(runs, alone, 1)
    assert sweeping.evaluated(runs, 1) == [0, 0, 20, 20, 40, 40, 45, 45]
