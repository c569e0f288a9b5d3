"""Section `train`: the suite `evidence` on one device, with compact records."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

from gpu_sections.facts import runs_name
from gpu_sections.processes import STOP_SECONDS, TRAIN_STOP_SECONDS
from gpu_sections.report import Report, Settings, SkippedError
from tdmpc2.common.numerics.cpu import usable_cores
from tdmpc2.common.run.run_files import SETTLED
from tdmpc2.common.system.atomic_files import (
    read_json,
    remove_leftovers,
    write_atomic,
    write_bytes,
)
from tdmpc2.common.system.paths import project_root
from tdmpc2.envs.factory import missing_requirement
from tdmpc2.envs.tasks import get_suite, get_task

SUITE = "evidence"
SEEDS = 3
# The status comes last: a record with a settled status is complete.
RECORD = ("spec.json", "eval.csv", "train.csv", "numeric.json", "attempts.json", "status.json")
POLL_SECONDS = 2.0
BATCH_THREADS = SEEDS + 1  # the environments of a batch then have a process each


def run(report: Report, settings: Settings) -> None:
    """Launch the runs, stop them before the time limit, and keep their records.

    The runs are in a folder of their own for each version of the code and each device, see
    `runs_name`: those of another one neither count nor resume.

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
    name, log = runs_name(report.key), settings.out / "train.log"
    runs, recorded = settings.out / "runs" / name, settings.out / "recorded" / name
    arguments = launch_arguments(settings, tasks, runs)
    report.add("arguments", " ".join(arguments))
    deadline = time.monotonic() + settings.seconds - TRAIN_STOP_SECONDS
    keep_records(runs, recorded, at_end=True)  # of an attempt that was killed
    command = [sys.executable, "-m", "sweeps.launch", *arguments]
    with open(log, "ab") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=project_root()
        )
    try:
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            keep_records(runs, recorded)
    finally:
        in_time = process.poll() is not None
        if not in_time:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
    keep_records(runs, recorded, at_end=True)
    if in_time:
        last = (log.read_text(errors="replace").splitlines() or [""])[-1]
        report.add("launcher's exit code", process.returncode, at_most=0, at_least=0, note=last)
    report_runs(report, runs, log, tasks)


def launch_arguments(settings: Settings, tasks: list[str], runs: Path) -> list[str]:
    """Return the arguments of the launcher; on a GPU, the seeds of a task are one batch in TF32.

    Args:
        settings: settings of the section.
        tasks: names of the tasks.
        runs: folder of the runs.
    """
    values: dict[str, Any] = {
        "suite": SUITE,
        "tasks": ",".join(tasks),
        "seeds": SEEDS,
        "runs": runs,
        "cluster": "local",
        "max_parallel": min(len(tasks) * SEEDS, usable_cores()),
        "threads": 1,
        "device": settings.device,
        "checkpoint_minutes": 2,
        "eval_workers": 0,
        "yes": "true",
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


def keep_records(runs: Path, recorded: Path, *, at_end: bool = False) -> None:
    """Copy the records of runs that have ended, and write all of them into one archive.

    The archive is `records.zip` in the folder of the results. It is written if a record is new, and
    `at_end` in any case, because it may be that of other runs.

    Args:
        runs: folder of the runs.
        recorded: folder of their records.
        at_end: whether no run is at work, so that unfinished runs are included.
    """
    new = False
    for path in sorted(runs.glob("*/*/*/*/status.json")):
        target = recorded / path.parent.relative_to(runs)
        ended, kept = (
            (read_json(file) or {}).get("state") in SETTLED
            for file in (path, target / "status.json")
        )
        if kept or not (ended or at_end):
            continue
        target.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        for name in RECORD:
            if path.with_name(name).exists():
                write_bytes(target / name, path.with_name(name).read_bytes())
        new = True
    if new or at_end:
        zip_file = recorded.parents[1] / "records.zip"
        write_atomic(zip_file, lambda file: archive(recorded, file))


def archive(folder: Path, file: IO[bytes]) -> None:
    """Write every file of a folder into a zip archive."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zip_file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                zip_file.write(path, path.relative_to(folder))


def report_runs(report: Report, runs: Path, log: Path, tasks: Collection[str]) -> None:
    """Report the state of each run; the section is incomplete if one has not been completed.

    Args:
        report: report of the section.
        runs: folder of the runs.
        log: log of the launcher.
        tasks: names of the tasks whose runs count.
    """
    expected, ended, failed = len(tasks) * SEEDS, 0, 0
    for path in sorted(runs.glob("*/*/*/*/status.json")):
        task = path.parents[1].name
        if task not in tasks:
            continue
        status = read_json(path) or {}
        name = f"{task} {path.parent.name.partition('-')[0]}"
        speed, score = status.get("env_steps_per_second") or 0.0, status.get("eval_return")
        ended += status.get("state") == "COMPLETED"
        failed += status.get("state") in ("FAILED", "DIVERGED")
        note = f"{status.get('state')}, {speed:.1f} env steps/s"
        note += "" if score is None else f", last return {score:.1f}"
        report.add(name, status.get("env_step", 0), "env steps", note=note)
    report.add("runs that failed", failed, at_most=0, note=f"log: {log}")
    report.add(f"runs completed, of {expected}", ended)
    if ended < expected:
        known = report.key["commit"] is not None
        advice = "resumes the others" if known else "trains all anew (unknown version of the code)"
        report.unfinished = f"{ended} of {expected} runs completed; the same command {advice}"
