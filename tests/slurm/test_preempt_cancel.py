"""A cluster that cancels preempted jobs (`PreemptMode=CANCEL`): the next launch resumes the run."""

from __future__ import annotations

import contextlib
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from sweeps import status
from tests.slurm import sweeping
from tests.slurm.cluster import CONF, Cluster, wait_for

pytestmark = pytest.mark.xdist_group("slurm")

LONG = {"env_steps": 400, "eval_every": 200}

CANCELLING = CONF.replace("PreemptMode=REQUEUE", "PreemptMode=CANCEL")
WITHOUT_WARNING = CANCELLING.replace("SlurmctldParameters=preempt_send_user_signal", "")


def preempt(cluster: Cluster, runs: Path, *, warned: bool) -> None:
    """Preempt the job that trains seed 1, during training, and wait until no job is left."""
    held = sweeping.hold(runs, (1,))
    where = ["-p", "high", "-N", "2", "--exclusive", "-t", "5", "-o", "/dev/null"]
    cluster.call("sbatch", *where, "--wrap", "sleep 1")
    if warned:
        wait_for(partial(sweeping.is_warned, held[1]), 90, "the warning")
        with contextlib.suppress(ProcessLookupError):
            os.kill(held[1], signal.SIGCONT)
    sweeping.until_empty(cluster)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert sweeping.sweep(folder, seeds=1, cluster="inline", **LONG) == 0
    return folder


@pytest.mark.parametrize("configured", [CANCELLING], indirect=True, ids=["warned"])
def test_a_warned_job_saves_and_requeues_itself(
    configured: Cluster, undisturbed: Path, tmp_path: Path
) -> None:
    """SLURM signals it at the beginning of the grace time (`preempt_send_user_signal`)."""
    sweeping.sweep(tmp_path, seeds=1, partition="low", **LONG)
    preempt(configured, tmp_path, warned=True)
    assert len(sweeping.attempts(tmp_path, 1)) == 2
    assert status.main([f"runs={tmp_path}"]) == 0
    assert sweeping.same_as(tmp_path, undisturbed, 1)


@pytest.mark.parametrize("configured", [WITHOUT_WARNING], indirect=True, ids=["not warned"])
def test_a_job_without_a_warning_ends_and_the_next_launch_resumes_it(
    configured: Cluster, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweeping.sweep(tmp_path, seeds=1, partition="low", **LONG)
    assert "warning: SLURM cancels preempted jobs here" in capsys.readouterr().out
    preempt(configured, tmp_path, warned=False)
    (ended,) = configured.jobs("--states=all", "--partition=low").values()
    assert ended == "PREEMPTED"
    assert status.main([f"runs={tmp_path}"]) == 1
    assert sweeping.views(tmp_path)[1].state == "resumable"
    assert "stopped before their budget: 1 run; launch again\n" in capsys.readouterr().out
    sweeping.sweep(tmp_path, seeds=1, partition="high", **LONG)
    sweeping.until_empty(configured)
    assert len(sweeping.attempts(tmp_path, 1)) == 2
    assert status.main([f"runs={tmp_path}"]) == 0
    assert sweeping.same_as(tmp_path, undisturbed, 1)
