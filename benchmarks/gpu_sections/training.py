"""Section `train`: the suite `evidence` on one device, with compact records."""

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
from tdmpc2.common.run.run_files import SETTLED
from tdmpc2.common.system.atomic_files import read_json, write_atomic
from tdmpc2.common.system.paths import project_root
from tdmpc2.envs.factory import missing_requirement
from tdmpc2.envs.tasks import get_suite, get_task

SUITE = "evidence"
SEEDS = 3
RECORD = ("spec.json", "eval.csv", "train.csv", "status.json", "numeric.json", "attempts.json")
GRACE_SECONDS = 60.0
POLL_SECONDS = 2.0
BATCH_THREADS = SEEDS + 1  # the environments of a batch then have a process each


def run(report: Report, settings: Settings) -> None:
    """Launch the runs, stop them at the time limit, and keep their records.

    Raises:
        SkippedError: no simulator is installed.
    """
    tasks = list(settings.tasks) or [task.name for task in get_suite(SUITE)]
    tasks = ["toy-pointmass"] if settings.small else tasks
    missing = {task: missing_requirement(get_task(task), "official") for task in tasks}
    for task, why in missing.items():
        if why:
            report.add(f"{task}: skipped", why)
    tasks = [task for task in tasks if not missing[task]]
    if not tasks:
        raise SkippedError("no simulator is installed")
    runs, log = settings.out / "runs", settings.out / "train.log"
    arguments = launch_arguments(settings, tasks)
    report.add("arguments", " ".join(arguments))
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
    keep_records(runs, settings.out, unfinished=True)
    if in_time:
        last = (log.read_text(errors="replace").splitlines() or [""])[-1]
        report.add("launcher's exit code", process.returncode, at_most=0, note=last)
    report_runs(report, runs, log, len(tasks) * SEEDS, settings)


def launch_arguments(settings: Settings, tasks: list[str]) -> list[str]:
    """Return the arguments of the launcher; on a GPU, the seeds of a task are one batch in TF32.

    Args:
        settings: settings of the section.
        tasks: names of the tasks.
    """
    values: dict[str, Any] = {
        "suite": SUITE,
        "tasks": ",".join(tasks),
        "seeds": SEEDS,
        "runs": settings.out / "runs",
        "cluster": "local",
        "max_parallel": min(len(tasks) * SEEDS, usable_cores()),
        "threads": 1,
        "device": settings.device.type,
        "checkpoint_minutes": 2,
        "eval_workers": 0,
        "yes": "true",
        "allow_commit_change": "true",
    }
    if settings.on_gpu:
        values |= {"seeds_per_process": SEEDS, "precision": "tf32", "max_parallel": len(tasks)}
        values["threads"] = BATCH_THREADS if usable_cores() >= BATCH_THREADS * len(tasks) else 1
    if settings.small:
        del values["suite"]
        values |= {"model_size": "smoke", "seed_decisions": 100, "num_samples": 32}
        values |= {"num_elites": 8, "batch_size": 16, "pretrain_updates": 10, "compile": "false"}
        values |= {"env_steps": 400, "eval_every": 200}
    return [f"{key}={value}" for key, value in values.items()]


def keep_records(runs: Path, out: Path, *, unfinished: bool = False) -> None:
    """Copy the records of runs that have ended, and write all of them into one archive.

    Args:
        runs: folder of the runs.
        out: folder of the results.
        unfinished: whether to include the other runs.
    """
    folder, new = out / "recorded", False
    for path in sorted(runs.glob("*/*/*/*/status.json")):
        target = folder / path.parent.relative_to(runs)
        ended, kept = (
            (read_json(file) or {}).get("state") in SETTLED
            for file in (path, target / "status.json")
        )
        if kept or not (ended or unfinished):
            continue
        target.mkdir(parents=True, exist_ok=True)
        for name in RECORD:
            if path.with_name(name).exists():
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
