"""Run directories and sweeps as they lie on disk, made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sweeps.planning.planned_run import PlannedRun
from sweeps.tracking.sweep_folder import SweepFolder, relative, write_submission
from tdmpc2.runners.registry import make_spec


def plan(runs: Path, num: int, **settings: Any) -> list[PlannedRun]:
    """Runs of one task with seeds from 1 on."""
    specs = [make_spec("tdmpc2", "toy-pointmass", seed, **settings) for seed in range(1, num + 1)]
    return [PlannedRun(spec, spec.run_dir(runs)) for spec in specs]


def write_status(run: PlannedRun, state: str, env_step: int = 0, **more: Any) -> None:
    """A run that says where it stands."""
    run.directory.mkdir(parents=True, exist_ok=True)
    facts = {"state": state, "env_step": env_step, "message": "", **more}
    (run.directory / "status.json").write_text(json.dumps(facts))


def write_lease(run: PlannedRun, **holder: Any) -> None:
    """A run that a process of another host holds."""
    run.directory.mkdir(parents=True, exist_ok=True)
    facts = {"token": "t", "host": "elsewhere", "pid": 1, "pid_started": 0.0, **holder}
    (run.directory / "lease.json").write_text(json.dumps(facts))


def write_sweep(
    runs: Path, planned: list[PlannedRun], *, suite: str | None = None, **submission: Any
) -> SweepFolder:
    """A sweep that was launched once."""
    sweep = SweepFolder.of(runs, suite or "tasks", planned)
    arguments = ["tasks=toy-pointmass", f"seeds={len(planned)}", f"runs={runs}", "cluster=local"]
    sweep.write(arguments, suite, planned)
    write_submission(sweep.new_submission(), **{"cluster": "local", **submission})
    return sweep


def one_array(runs: Path, planned: list[PlannedRun], job: str) -> list[dict[str, Any]]:
    """An array with a job per run."""
    return [{"job": job, "elements": [[relative([run], runs)] for run in planned]}]
