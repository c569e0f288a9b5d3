"""Section `train`: real training runs, concurrently on one device, with compact records."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import IO, Any

from gpu_sections.report import Report, Settings, SkippedError
from tdmpc2.common.numerics.cpu import usable_cores
from tdmpc2.common.system.atomic_files import read_json, write_atomic
from tdmpc2.common.system.paths import project_root
from tdmpc2.envs.factory import missing_requirement
from tdmpc2.envs.tasks import get_task

TASKS = (
    *("cup-catch", "walker-walk", "walker-run"),
    *("mw-drawer-open", "mw-door-open", "myo-hand-reach"),
)
SEEDS = 3
ENV_STEPS = 100_000
RECORD = ("spec.json", "eval.csv", "train.csv", "status.json", "numeric.json", "attempts.json")
GRACE_SECONDS = 60.0
POLL_SECONDS = 2.0
BATCH_PAYS = 1.5  # minimum gain in throughput for training seeds as one batch


def run(report: Report, settings: Settings) -> None:
    """Launch the runs, stop them at the time limit, and keep their records.

    Raises:
        SkippedError: no simulator is installed.
    """
    tasks = ["toy-pointmass"] if settings.small else list(TASKS)
    missing = {task: missing_requirement(get_task(task), "official") for task in tasks}
    for task, why in missing.items():
        if why:
            report.add(f"{task}: skipped", why)
    tasks = [task for task in tasks if not missing[task]]
    if not tasks:
        raise SkippedError("no simulator is installed")
    runs, log = settings.out / "runs", settings.out / "train.log"
    together = batch_pays(settings)
    arguments = launch_arguments(settings, tasks, together)
    report.add("seeds in a process", SEEDS if together else 1, note=" ".join(arguments))
    deadline = time.monotonic() + settings.seconds - min(GRACE_SECONDS, settings.seconds / 2)
    command = [sys.executable, "-m", "sweeps.launch", *arguments]
    with open(log, "ab") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=project_root()
        )
    try:
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            keep_records(runs, settings.out)
    finally:
        in_time = process.poll() is not None
        if not in_time:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
    keep_records(runs, settings.out)
    if in_time:
        last = (log.read_text(errors="replace").splitlines() or [""])[-1]
        report.add("launcher's exit code", process.returncode, at_most=0, note=last)
    report_runs(report, runs, log, len(tasks) * SEEDS, settings)


def launch_arguments(settings: Settings, tasks: list[str], together: bool) -> list[str]:
    """Return the arguments of the launcher.

    Args:
        settings: settings of the section.
        tasks: names of the tasks.
        together: whether to train the seeds of a task as one batch.
    """
    values: dict[str, Any] = {
        "tasks": ",".join(tasks),
        "seeds": SEEDS,
        "env_steps": ENV_STEPS,
        "runs": settings.out / "runs",
        "cluster": "local",
        "max_parallel": len(tasks) if together else min(len(tasks) * SEEDS, usable_cores()),
        "seeds_per_process": SEEDS if together else 1,
        "threads": 1,
        "device": settings.device.type,
        "checkpoint_minutes": 1,
        "eval_every": 20_000,
        "eval_workers": 0,
        "yes": "true",
        "allow_commit_change": "true",
    }
    if settings.small:
        values |= {"model_size": "smoke", "seed_decisions": 100, "num_samples": 32}
        values |= {"num_elites": 8, "batch_size": 16, "pretrain_updates": 10, "compile": "false"}
        values |= {"env_steps": 400, "eval_every": 200}
    return [f"{key}={value}" for key, value in values.items()]


def batch_pays(settings: Settings) -> bool:
    """Return whether section `seeds` has measured enough gain from a batch of three seeds."""
    result = read_json(settings.out / "sections" / "seeds.json") or {}
    gains = {check["name"]: check["value"] for check in result.get("checks", ())}
    return float(gains.get(f"{SEEDS} seeds (fp32): throughput of one", 0)) > BATCH_PAYS


def keep_records(runs: Path, out: Path) -> None:
    """Copy the records of runs that have ended, and write all of them into one archive."""
    folder, new = out / "recorded", False
    for path in sorted(runs.glob("*/*/*/*/status.json")):
        target = folder / path.parent.relative_to(runs)
        if target.exists() or (read_json(path) or {}).get("state") not in ("COMPLETED", "DIVERGED"):
            continue
        target.mkdir(parents=True)
        for name in RECORD:
            shutil.copy(path.with_name(name), target / name)
        new = True
    if new:
        write_atomic(out / "records.zip", lambda file: archive(folder, file))


def archive(folder: Path, file: IO[bytes]) -> None:
    """Write every file of a folder into a zip archive."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zip_file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                zip_file.write(path, path.relative_to(folder))


def report_runs(report: Report, runs: Path, log: Path, expected: int, settings: Settings) -> None:
    """Report the state of each run.

    Args:
        report: report of the section.
        runs: folder of the runs.
        log: log of the launcher.
        expected: number of runs.
        settings: settings of the section.
    """
    ended = failed = 0
    for path in sorted(runs.glob("*/*/*/*/status.json")):
        status = read_json(path) or {}
        name = f"{path.parents[1].name} {path.parent.name.partition('-')[0]}"
        speed, score = status.get("env_steps_per_second") or 0.0, status.get("eval_return")
        ended += status.get("state") == "COMPLETED"
        failed += status.get("state") in ("FAILED", "DIVERGED")
        note = f"{status.get('state')}, {speed:.1f} env steps/s"
        note += "" if score is None else f", last return {score:.1f}"
        report.add(name, status.get("env_step", 0), "env steps", note=note)
    report.add("runs that failed", failed, at_most=0, note=f"log: {log}")
    minimum = expected if settings.small else None
    note = "" if ended == expected else "the same command again resumes the unfinished runs"
    report.add(f"runs completed, of {expected}", ended, at_least=minimum, note=note)
