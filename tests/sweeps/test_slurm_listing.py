"""Jobs that squeue does not list here, on another cluster or of other users, may still be there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sweeps.tracking import run_states, slurm_listing
from sweeps.tracking.run_states import Observer
from sweeps.tracking.slurm_listing import unlisted
from tests.sweeps.directories import one_array, plan, write_status, write_sweep

SCONTROL = """#!/bin/sh
[ "$*" = "show config" ] || exit 1
echo 'Configuration data as of 2026-01-01T00:00:00'
echo 'PrivateData             = {private}'
echo 'ClusterName             = lab'
"""
BUDGET = 5_000


def configure(folder: Path, private: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate the configuration of a cluster."""
    folder.mkdir(exist_ok=True)
    (folder / "scontrol").write_text(SCONTROL.format(private=private))
    (folder / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


def states(runs: Path, num: int) -> list[str]:
    observer = Observer(runs)
    places = [str(run.directory.relative_to(runs)) for run in plan(runs, num)]
    return [observer.look(place, BUDGET).state for place in places]


def test_jobs_of_another_cluster_may_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever jobs have the same ids here. Versions that recorded no cluster knew only one."""
    runs = tmp_path / "runs"
    for run, cluster in zip(plan(runs, 4), (None, "lab", "other", "other"), strict=True):
        named = {} if cluster is None else {"slurm_cluster": cluster}
        write_sweep(runs, [run], cluster="slurm", arrays=one_array(runs, [run], "7"), **named)
    write_status(plan(runs, 4)[3], "RUNNING", 100)  # nothing holds it: its process has ended
    configure(tmp_path / "bin", "none", monkeypatch)
    queue: dict[str, str] = {}
    monkeypatch.setattr(run_states, "read_queue", lambda names: queue)
    assert states(runs, 4) == ["new", "new", "queued", "stale"]
    queue["7"] = "RUNNING"  # of the later of the first two launches
    assert states(runs, 4).count("running") == 1
    assert states(runs, 4)[2:] == ["queued", "stale"]


@pytest.mark.parametrize(
    ("private", "user", "state"),
    [
        ("none", "other", "new"),
        ("accounts,jobs", "other", "queued"),
        ("accounts", "other", "new"),
        ("jobs", "own", "new"),
        ("jobs", "root", "new"),
    ],
)
def test_jobs_of_other_users_may_be_hidden(
    private: str, user: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    planned = plan(runs, 1)
    write_sweep(runs, planned, cluster="slurm", arrays=one_array(runs, planned, "7"))
    configure(tmp_path / "bin", private, monkeypatch)
    monkeypatch.setattr(run_states, "read_queue", lambda names: {})
    ids = {"other": os.getuid() + 1, "own": os.getuid(), "root": 0}
    monkeypatch.setattr(slurm_listing.os, "getuid", lambda: ids[user])
    assert states(runs, 1) == [state]


def test_slurm_is_asked_only_if_it_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer, nothing is known of any job."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(run_states, "read_queue", lambda names: {})
    runs = tmp_path / "runs"
    planned = plan(runs, 1)
    record = {"cluster": "slurm", "arrays": one_array(runs, planned, "7")}
    write_sweep(runs, planned, **record)
    assert states(runs, 1) == ["new"]
    write_sweep(runs, planned, slurm_cluster="lab", **record)
    assert states(runs, 1) == ["queued"]
    assert unlisted([]) == set()
