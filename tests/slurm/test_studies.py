"""Studies on a real cluster: looks as jobs that depend on the runs before them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.records.studies import RESULTS
from sweeps import launch
from tdmpc2.common.system.errors import UserError
from tests.slurm import sweeping
from tests.slurm.cluster import Cluster, wait_for

pytestmark = pytest.mark.xdist_group("slurm")

SHORT = {"env_steps": 150, "eval_every": 150}


def study(runs: Path, **more: object) -> int:
    wanted = {"variants": "default,num_q=3", "until": "decided", "looks": "2,3", **SHORT, **more}
    arguments = sweeping.arguments(runs, **wanted)
    return launch.main([one for one in arguments if not one.startswith("seeds=")])


def folder_of(runs: Path) -> Path:
    return next((runs / "studies").iterdir())


def test_each_look_is_decided_by_a_job(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same decisions as of a study on this machine; launching again while it runs is safe."""
    runs = tmp_path / "runs"
    assert study(runs) == 0
    assert "decides and starts the next look when all runs have ended" in capsys.readouterr().out
    assert study(runs) == 0  # nothing is submitted twice
    assert "submitted" not in capsys.readouterr().out
    sweeping.until_empty(cluster)
    found = (folder_of(runs) / RESULTS).read_text()
    assert "waits for runs" not in found
    assert study(tmp_path / "here", cluster="inline") == 0
    assert (folder_of(tmp_path / "here") / RESULTS).read_text() == found


def test_a_cancelled_look_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    """The next launch submits its runs and its decision again."""
    runs = tmp_path / "runs"
    assert study(runs, sbatch="hold") == 0
    held = sorted(cluster.jobs())
    assert len(held) == 5  # four runs and the decision
    for job in held:
        cluster.call("scancel", job)
    sweeping.until_empty(cluster)
    assert study(runs) == 0
    sweeping.until_empty(cluster)
    assert "waits for runs" not in (folder_of(runs) / RESULTS).read_text()


def test_cancelled_runs_are_left_to_the_user(cluster: Cluster, tmp_path: Path) -> None:
    """The job that goes on starts when the runs were cancelled, before any of them had begun."""
    runs = tmp_path / "runs"
    assert study(runs, sbatch="hold") == 0
    *held, decision = sorted(cluster.jobs(), key=lambda job: int(job.partition("_")[0]))
    for job in held:
        cluster.call("scancel", job)
    cluster.call("scontrol", "release", decision)
    sweeping.until_empty(cluster)  # nothing was submitted
    (log,) = runs.glob(f"sweeps/*/*/{decision}_0_log.out")
    assert "Look at 2 seeds: 4 runs failed or stopped" in log.read_text()
    assert not list(runs.glob("tdmpc2/*/*/*/spec.json"))


def test_a_requeued_run_and_decision(cluster: Cluster, tmp_path: Path) -> None:
    """The decisions are those of a study that nothing interrupted."""
    runs = tmp_path / "runs"
    assert study(runs) == 0
    *first, decision = sorted(cluster.jobs())
    wait_for(lambda: cluster.jobs().get(first[0]) == "RUNNING", sweeping.PATIENCE, "the first run")
    cluster.call("scontrol", "requeue", first[0])
    wait_for(lambda: cluster.jobs().get(decision) == "RUNNING", sweeping.PATIENCE, "the decision")
    cluster.call("scontrol", "requeue", decision)
    sweeping.until_empty(cluster)
    found = (folder_of(runs) / RESULTS).read_text()
    assert "waits for runs" not in found
    assert study(tmp_path / "here", cluster="inline") == 0
    assert (folder_of(tmp_path / "here") / RESULTS).read_text() == found


def test_a_study_that_was_changed_is_refused(tmp_path: Path, cluster: Cluster) -> None:
    runs = tmp_path / "runs"
    assert study(runs, sbatch="hold") == 0
    file = folder_of(runs) / "study.toml"
    file.write_text(file.read_text().replace("looks = [2, 3]", "looks = [2, 4]"))
    with pytest.raises(UserError, match="changed since the study began"):
        study(runs)
    assert json.loads((folder_of(runs) / "request.json").read_text())["parts"] == []
    for job in cluster.jobs():
        cluster.call("scancel", job)
