"""Write artificial run directories and sweep folders for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sweeps.planning.options import SweepOptions
from sweeps.planning.planned_run import PlannedRun
from sweeps.planning.request import SweepRequest
from sweeps.tracking.sweep_folder import SweepFolder, relative, write_submission
from tdmpc2.runners.specs import make_spec


def plan(runs: Path, num: int, **settings: Any) -> list[PlannedRun]:
    """Plan runs of one task with seeds 1, 2, …, `num`."""
    specs = [make_spec("tdmpc2", "toy-pointmass", seed, **settings) for seed in range(1, num + 1)]
    return [PlannedRun(spec, spec.run_dir(runs)) for spec in specs]


def write_status(run: PlannedRun, state: str, env_step: int = 0, **more: Any) -> None:
    """Write the `status.json` of a run."""
    run.directory.mkdir(parents=True, exist_ok=True)
    facts = {"state": state, "env_step": env_step, "message": "", **more}
    (run.directory / "status.json").write_text(json.dumps(facts))


def write_lease(run: PlannedRun, **holder: Any) -> None:
    """Write a lease of a run that a process on another host holds."""
    run.directory.mkdir(parents=True, exist_ok=True)
    facts = {"token": "t", "host": "elsewhere", "pid": 1, **holder}
    (run.directory / "lease.json").write_text(json.dumps(facts))


def write_sweep(
    runs: Path, planned: list[PlannedRun], *, suite: str | None = None, **submission: Any
) -> SweepFolder:
    """Write the folder of a sweep that was launched once."""
    sweep = SweepFolder.of(runs, suite or "tasks", planned)
    options = SweepOptions(tasks="toy-pointmass", seeds=str(len(planned)), cluster="local")
    cluster = submission.setdefault("cluster", "local")
    request = SweepRequest(options, {"runs": runs}).to_json()
    sweep.write(request, suite, planned, cluster=cluster)
    write_submission(sweep.new_submission(), **submission)
    return sweep


def one_array(runs: Path, planned: list[PlannedRun], job: str) -> list[dict[str, Any]]:
    """Build the record of a job array with one job per run."""
    return [{"job": job, "elements": [[relative([run], runs)] for run in planned]}]
