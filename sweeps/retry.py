"""Launches failed runs again: `python sweeps/retry.py suite=all104`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sweeps import launch, status
from sweeps.tracking.sweep_folder import SweepFolder
from tdmpc2.common.system import cli
from tdmpc2.common.system.paths import default_runs_dir

# Of the arguments of a launch, those that a retry is not to repeat.
ONCE = ("dry_run", "only")


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit code: the largest of the launches'."""
    pairs = cli.split_arguments(arguments)
    runs = cli.parse_value("runs", pairs.pop("runs", str(default_runs_dir())), Path)
    suite, sweep = pairs.pop("suite", None), pairs.pop("sweep", None)
    codes = [0]
    for found in status.find_sweeps(runs, suite, sweep):
        views = [(row, view) for row, view in status.look(runs, [found]) if view.state == "failed"]
        print(f"{found.name}: {len(views):,} failed")
        if views:
            codes.append(launch.main(again(found, pairs)))
    return max(codes)


def again(sweep: SweepFolder, changes: dict[str, str]) -> list[str]:
    """The arguments that launch the failed runs of a sweep once more.

    Args:
        sweep: as it was launched last.
        changes: arguments that differ this time.
    """
    before = cli.split_arguments(sweep.read()["words"])
    kept = {key: value for key, value in before.items() if key not in ONCE}
    changed = {**kept, "runs": str(sweep.runs), **changes, "only": "failed"}
    return [f"{key}={value}" for key, value in changed.items()]


def usage() -> str:
    """Text of `--help`."""
    return "\n".join(
        [
            "usage: python sweeps/retry.py [runs=DIR] [suite=SUITE] [sweep=NAME] [key=value …]",
            "",
            "Launches the failed runs of sweeps again, with the arguments of their last launch.",
            "Further arguments override those (mem_gb=32, partition=long). Diverged runs are",
            "results and are not repeated. sweeps/launch.py resumes runs that are unfinished.",
        ]
    )


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
