"""Signals, requeues, preemption, time limits and dead nodes do not change the results of runs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.slurm import sweeping
from tests.slurm.cluster import Cluster, wait_for

pytestmark = pytest.mark.xdist_group("slurm")

LONG = {"env_steps": 400, "eval_every": 200}
SEEDS = {"user signal": 1, "requeued by hand": 2, "kill -9": 3, "preempted": 4, "time limit": 5}
DEAD_NODE = 6


@pytest.fixture(scope="module")
def runs(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that were each interrupted once during training; no job is left."""
    folder = tmp_path_factory.mktemp("faults")
    on_n1 = {**LONG, "sbatch": "nodelist=n1"}
    sweeping.sweep(folder, seeds="5,", timeout_min=2, **on_n1)
    sweeping.sweep(folder, seeds="4,", partition="low", **on_n1)
    sweeping.sweep(folder, seeds="1,2,3", **on_n1)
    sweeping.sweep(folder, seeds="6,", sbatch="nodelist=n2", **LONG)
    held = sweeping.hold(folder, (1, 2, 3, 4, 5, 6))
    views = sweeping.views(folder)
    cluster.call("scancel", "--signal=USR2", str(views[1].job))
    cluster.call("scontrol", "requeue", str(views[2].job))
    os.kill(held[3], signal.SIGKILL)
    # 14 of 16 cores can be allocated only if the job in the lower partition is preempted: those of
    # seeds 2 and 3 may be free already.
    where = ["-p", "high", "-w", "n1", "-n", "14", "-t", "5", "-o", "/dev/null"]
    cluster.call("sbatch", *where, "--wrap", "sleep 1")
    on_n2 = sweeping.lease(folder, 6)["slurm_job"]
    cluster.kill_node("n2", on_n2)
    for seed in (1, 4, 5):
        wait_for(partial(sweeping.is_warned, held[seed]), 90, f"seed {seed} to be warned")
        with contextlib.suppress(ProcessLookupError):
            os.kill(held[seed], signal.SIGCONT)
    wait_for(lambda: "n2 down" in cluster.call("sinfo", "-hNo", "%N %T"), 60, "n2 to be missed")
    # The job was restricted to the dead node; without this update, SLURM would wait for that node.
    cluster.call("scontrol", "update", f"jobid={on_n2}", "reqnodelist=")
    sweeping.until_empty(cluster)
    cluster.start_node("n2")
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the same runs without interruption in this process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert sweeping.sweep(folder, seeds=6, cluster="inline", **LONG) == 0
    return folder


def log(folder: Path, seed: int) -> str:
    return sweeping.views(folder)[seed].log.read_text()


@pytest.mark.parametrize("fault", [name for name in SEEDS if name != "kill -9"])
def test_the_cluster_brings_the_run_back(fault: str, runs: Path, undisturbed: Path) -> None:
    seed = SEEDS[fault]
    tried = sweeping.attempts(runs, seed)
    assert len(tried) >= 2
    assert len({attempt["slurm_job"] for attempt in tried}) == 1
    assert sweeping.views(runs)[seed].state == "done"
    assert sweeping.evaluated(runs, seed) == [0, 200, 400]
    assert sweeping.same_as(runs, undisturbed, seed)


@pytest.mark.parametrize("fault", ["user signal", "preempted", "time limit"])
def test_a_warning_is_used_to_save(fault: str, runs: Path) -> None:
    found = re.search(
        r"stopped at env step (\d+), between episodes \(signal 12\)", log(runs, SEEDS[fault])
    )
    assert found is not None
    assert int(found[1]) % 50 == 0


def test_a_dead_node_costs_nothing_but_time(runs: Path, undisturbed: Path) -> None:
    assert len(sweeping.attempts(runs, DEAD_NODE)) == 2
    assert sweeping.views(runs)[DEAD_NODE].state == "done"
    assert sweeping.evaluated(runs, DEAD_NODE) == [0, 200, 400]
    assert sweeping.same_as(runs, undisturbed, DEAD_NODE)


def test_the_next_launch_finds_what_was_killed(
    runs: Path, undisturbed: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = SEEDS["kill -9"]
    assert len(sweeping.attempts(runs, seed)) == 1
    assert sweeping.views(runs)[seed].state == "stale"
    capsys.readouterr()
    assert sweeping.sweep(runs, seeds=6, **LONG) == 0
    printed = capsys.readouterr().out
    assert "6 runs, 5 finished already, 1 to do" in printed
    assert "1 jobs, as arrays of 1" in printed
    sweeping.until_empty(cluster)
    assert sweeping.views(runs)[seed].state == "done"
    assert sweeping.evaluated(runs, seed) == [0, 200, 400]
    assert sweeping.same_as(runs, undisturbed, seed)
