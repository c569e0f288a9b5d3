"""Budgets of the jobs and processes that work on runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.execution.process_file import write_file
from sweeps.planning.planned_run import PlannedRun
from sweeps.tracking.run_states import View
from sweeps.tracking.work_budget import WorkBudget, work_budget
from tdmpc2.common.run.run_files import RunFiles, read_status
from tdmpc2.runners.specs import make_offline_spec
from tests.sweeps.directories import plan


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("unit", ["env_steps", "num_updates"])
def test_a_process_works_towards_the_budget_of_its_status(
    kept: bool, unit: str, tmp_path: Path
) -> None:
    (run,) = plan(tmp_path, 1, env_steps=300)
    if unit == "num_updates":
        spec = make_offline_spec("tdmpc2", "mt30", 1, "none", num_updates=300)
        run = PlannedRun(spec, spec.run_dir(tmp_path), kind="mt30 5M")
    run.directory.mkdir(parents=True)
    records = RunFiles(run.directory, run.spec, {})
    records.write_spec({"keep_replay": kept})
    for state, expected in (
        ("RUNNING", WorkBudget(300, kept or unit == "num_updates")),
        ("INTERRUPTED", None),  # that of an earlier attempt
    ):
        records.set_state(state, 100)  # type: ignore[arg-type]
        status = read_status(run.directory) or {}
        assert work_budget(run.directory, View("running", status)) == expected
        assert work_budget(run.directory, View("resumable", status)) is None


def test_a_job_works_towards_the_budget_of_its_file(tmp_path: Path) -> None:
    (run,) = plan(tmp_path, 1, env_steps=300)
    file = write_file(tmp_path, 1, [run], {"keep_replay": True})
    view = View("queued", {"state": "RUNNING", "env_steps": 100}, file=file)
    assert work_budget(run.directory, view) == WorkBudget(300, True)
    file.write_text("[")
    assert work_budget(run.directory, view) is None
