"""Measure planning, submitting and monitoring of a complete reproduction.

`python benchmarks/sweep_scale.py` plans `suite=all104 seeds=3` (1,248 runs), submits it to SLURM as
held jobs if SLURM is available, cancels the jobs, and shows the status of as many run directories.
Each command runs in its own process, so that imports are included.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from checks import check_file

from sweeps.planning.request import SweepRequest
from sweeps.tracking.sweep_folder import SweepFolder, write_submission
from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.common.system.config_checks import REPETITIONS, Settings, setting

SCRIPTS = Path(__file__).parents[1] / "sweeps"


@dataclass(frozen=True)
class Options(Settings):
    """Options of the command."""

    suite: str = setting("all104", "suite of tasks")
    seeds: str = setting("3", "a count or a list")
    assets: str = setting(
        "official,unknown,rebuilt,standin",
        "accepted sources of the models, for tasks that need some",
    )
    repetitions: int = setting(3, "timed calls of each command", REPETITIONS)
    out: Path | None = setting(None, "also write everything as JSON")


def timed(script: str, *arguments: str) -> tuple[float, str]:
    """Return the seconds that a command takes, and its output.

    Raises:
        SystemExit: the command failed.
    """
    start = time.perf_counter()
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode not in (0, 1):
        raise SystemExit(f"{script} {' '.join(arguments)}: {done.stderr}")
    return seconds, done.stdout


def make_directories(arguments: Sequence[str], runs: Path) -> int:
    """Make a run directory for each run, half of them completed; return their number."""
    request = SweepRequest.from_arguments([*arguments, f"runs={runs}"])
    for place, run in enumerate(request.planned):
        run.directory.mkdir(parents=True)
        done = place % 2 == 0
        facts = {"state": "COMPLETED" if done else "INTERRUPTED", "message": ""}
        step = run.spec.budget if done else 1_000
        write_json(run.directory / "status.json", {**facts, "env_step": step})
    sweep = SweepFolder.of(runs, "all104", request.planned)
    sweep.write(request.to_json(), request.sweep.suite, request.planned)
    write_submission(sweep.new_submission(), "local")
    return len(request.planned)


def parse(arguments: Sequence[str]) -> tuple[Options, list[str]]:
    """Return the options, and the arguments of the launch.

    Raises:
        UserError: an invalid option.
    """
    options = cli.parse_options(arguments, Options)
    sweep = [f"suite={options.suite}", f"seeds={options.seeds}", f"assets={options.assets}"]
    SweepRequest.from_arguments(sweep)
    check_file("out", options.out)
    return options, sweep


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: an invalid option.
    """
    options, sweep = parse(arguments)
    from sweeps.execution import slurm_queries

    seconds: dict[str, list[float]] = {}
    folder = Path(tempfile.mkdtemp(prefix="sweep-scale-"))
    try:
        num = make_directories(sweep, folder / "status")
        for repetition in range(options.repetitions):
            fresh = folder / str(repetition)
            plan = timed("launch.py", *sweep, f"runs={fresh}", "cluster=local", "dry_run=true")
            seconds.setdefault("plan", []).append(plan[0])
            status = timed("status.py", f"runs={folder / 'status'}")
            seconds.setdefault("status", []).append(status[0])
            again = timed(
                *("launch.py", *sweep, f"runs={folder / 'status'}"),
                *("cluster=local", "dry_run=true"),
            )
            seconds.setdefault("plan of half-finished runs", []).append(again[0])
            if slurm_queries.choose("auto") == "slurm":
                held = [
                    *sweep,
                    f"runs={fresh}",
                    "cluster=slurm",
                    "sbatch=hold",
                    "gpus=0",
                    "mem_gb=1",
                ]
                submitted, printed = timed("launch.py", *held)
                seconds.setdefault("submit", []).append(submitted)
                queued = timed("status.py", f"runs={fresh}")
                seconds.setdefault("status of queued jobs", []).append(queued[0])
                timed("cancel.py", f"runs={fresh}")
                print(printed.splitlines()[-2])
    finally:
        shutil.rmtree(folder)
    print(f"| {num:,} runs | fastest, s | slowest, s |\n|---|---|---|")
    for name, each in seconds.items():
        print(f"| {name} | {min(each):.2f} | {max(each):.2f} |")
    if options.out is not None:
        options.out.write_text(json.dumps({"runs": num, "seconds": seconds}, indent=1) + "\n")
    return 0


def usage() -> str:
    """Return the text of `--help`."""
    return (
        f"usage: python benchmarks/sweep_scale.py [key=value …]\n\n{cli.describe_fields(Options)}"
    )


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
