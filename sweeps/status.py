"""Show the state of the runs of sweeps: `python sweeps/status.py suite=all104 follow=true`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sweeps.planning.planned_run import UNITS
from sweeps.tracking.progress import describe_blocked, make_console, no_space, table_of_states
from sweeps.tracking.run_states import ACTIVE, ENDED, Observer, View
from sweeps.tracking.silence import SILENT_SECONDS
from sweeps.tracking.sweep_folder import SweepFolder, all_sweeps
from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import lacks_space
from tdmpc2.common.system.config_checks import Settings, setting
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.system.paths import default_runs_dir
from tdmpc2.common.system.streams import output_error
from tdmpc2.common.system.texts import counted


@dataclass(frozen=True)
class StatusOptions(Settings):
    """Options of `sweeps/status.py`."""

    runs: Path = setting(default_runs_dir, "folder that holds all runs")
    suite: str | None = setting(None, "only sweeps of this suite (tasks: launched with tasks=)")
    sweep: str | None = setting(None, "only this sweep: the name of its folder in <runs>/sweeps")
    follow: bool = setting(False, "update until no run is running or queued")
    every: float = setting(10.0, "seconds between updates (follow=true)", above=0, high=86_400)
    errors: int = setting(5, "maximum number of errors to show", low=0, high=1_000_000)
    list: bool = setting(False, "one line per run")


FAILED = ("failed", "stale", "damaged")
STOPPED = ("stale", "resumable")  # nothing works on them, and launching again resumes them
Row = dict[str, Any]  # one run, as recorded in `sweep.json`


def find_sweeps(runs: Path, suite: str | None, sweep: str | None) -> list[SweepFolder]:
    """Find sweeps by suite or name; all sweeps if neither is given.

    Args:
        runs: folder of all runs.
        suite: suite that the sweeps were launched with; `tasks` for sweeps of `tasks=`.
        sweep: name of one sweep.

    Raises:
        UserError: no sweep matches.
    """
    sweeps = all_sweeps(runs)
    if not sweeps:
        raise UserError(f"{runs}: no sweep found; launch one with sweeps/launch.py, or set runs=")
    if sweep is not None:
        names = [folder.name for folder in sweeps]
        sweeps = [folder for folder in sweeps if folder.name == sweep]
        if not sweeps:
            raise UserError(f"sweep={sweep}: no such sweep{did_you_mean(sweep, names)}")
    if suite is not None:
        suites = {folder.name: folder.label for folder in sweeps}
        sweeps = [folder for folder in sweeps if suites[folder.name] == suite]
        if not sweeps:
            raise UserError(f"suite={suite}: never launched{did_you_mean(suite, suites.values())}")
    return sweeps


def runs_of(sweeps: Sequence[SweepFolder]) -> list[Row]:
    """List the runs of several sweeps, each once, with its largest budget."""
    rows: dict[str, Row] = {}
    for sweep in sweeps:
        for row in sweep.rows():
            known = rows.setdefault(row["directory"], row)
            known["budget"] = max(known["budget"], row["budget"])
    return list(rows.values())


def look(runs: Path, sweeps: Sequence[SweepFolder]) -> list[tuple[Row, View]]:
    """Determine the current state of every run of some sweeps.

    The job that trains a run may belong to any sweep below `runs`.
    """
    observer = Observer(runs)
    looked_at = [(row, observer.look(row["directory"], row["budget"])) for row in runs_of(sweeps)]
    for row, view in looked_at:
        if view.state == "new" and row.get("missing"):
            view.state, view.message = "blocked", row["missing"]
    return looked_at


def blocked_of(looked_at: Sequence[tuple[Row, View]]) -> list[str]:
    """Describe the runs that cannot start or continue, and how to unblock them."""
    return describe_blocked(
        (row["task"], view.message) for row, view in looked_at if view.state == "blocked"
    )


def tables_of(looked_at: Sequence[tuple[Row, View]]) -> list[Table]:
    """Build one table per budget unit: counts, progress, speed and time left of its runs.

    Rows are methods and domains (multi-task runs: task set and model size).
    """
    by_unit: dict[str, list[tuple[Row, View]]] = {}
    for row, view in looked_at:
        by_unit.setdefault(_unit(row), []).append((row, view))
    return [
        table_of_states(
            members,
            lambda pair: (pair[0]["method"], pair[0]["domain"], pair[1].state),
            ("progress", f"{unit}/s", "h left"),
            _progress,
            unit,
        )
        for unit, members in by_unit.items()
    ]


def _unit(row: Row) -> str:
    """Return the budget unit of a run; sweeps of older versions count env steps."""
    return UNITS[row.get("unit", "env_steps")]


def _progress(members: Sequence[tuple[Row, View]]) -> list[str]:
    total = sum(row["budget"] for row, _ in members)
    left = sum(
        max(row["budget"] - view.step, 0) for row, view in members if view.state not in ENDED
    )
    speed = sum(view.speed for _, view in members)
    return [
        f"{100 * (1 - left / total):.1f} %",
        f"{speed:,.{int(speed < 10)}f}" if speed else "",
        f"{left / speed / 3600:,.1f}" if speed and left else "",
    ]


def last_errors(looked_at: Sequence[tuple[Row, View]], most: int) -> list[str]:
    """List the most recent failures, newest first: the run, its error message and its log file."""
    bad = [(row, view) for row, view in looked_at if view.state in (*FAILED, "diverged")]
    bad.sort(key=lambda pair: pair[1].status.get("updated", ""), reverse=True)
    lines = []
    for row, view in bad[:most]:
        lines.append(f"{view.state}: {_name(row)}: {view.message or 'no message'}\n    {view.log}")
    if len(bad) > most:
        lines.append(f"… and {len(bad) - most:,} more (errors=N shows more)")
    return lines


def silent_runs(looked_at: Sequence[tuple[Row, View]]) -> list[str]:
    """List the runs whose processes are alive, but have recorded no progress for long."""
    return [f"{_name(row)}: {view.silence}" for row, view in looked_at if view.silence]


def _name(row: Row) -> str:
    return f"{row['method']} {row['task']} seed {row['seed']} ({row['variant']})"


def _line(row: Row, view: View) -> str:
    steps = f"{view.step:,} of {row['budget']:,} {_unit(row)}"
    return f"{view.state:>9}  {steps:>34}  {view.job or '':>10}  {row['directory']}"


def picture(options: StatusOptions, sweeps: Sequence[SweepFolder]) -> tuple[Group, bool, bool]:
    """Render the status of some sweeps.

    Returns:
        What to print; whether a run is running or queued; whether a run has failed, has stopped
        before its budget or is damaged, or a record of the sweeps is damaged.
    """
    looked_at = look(options.runs, sweeps)
    now = datetime.now().strftime("%H:%M:%S")
    names = ", ".join(sweep.name for sweep in sweeps)
    blocks: list[Any] = [Text(f"{names} in {options.runs}, {now}"), *tables_of(looked_at)]
    if options.list:
        blocks += [
            Text(_line(row, view), no_wrap=True, overflow="ignore") for row, view in looked_at
        ]
    blocks += [Text(line) for line in blocked_of(looked_at)]
    blocks += [Text(ln, no_wrap=True, overflow="ignore") for ln in silent_runs(looked_at)]
    if lacks_space(options.runs):
        blocks.append(Text(no_space(options.runs), no_wrap=True, overflow="ignore"))
    stopped = sum(view.state in STOPPED and not view.needs_replay for _, view in looked_at)
    if stopped:
        blocks.append(Text(f"stopped before their budget: {counted(stopped, 'run')}; launch again"))
    with_replay = sum(view.needs_replay for _, view in looked_at)
    if with_replay:
        blocks.append(
            Text(
                f"completed a smaller budget: {counted(with_replay, 'run')}; launch again with "
                "keep_replay=true"
            )
        )
    damages = [line for sweep in sweeps for line in sweep.damages()]
    blocks += [Text(f"damaged: {line}", no_wrap=True, overflow="ignore") for line in damages]
    errors = last_errors(looked_at, options.errors)
    blocks += [Text(line, no_wrap=True, overflow="ignore") for line in errors]
    launches = [submission for sweep in sweeps for submission in sweep.submissions()]
    later = [found for launch in launches if (found := launch.follow_up()) and found["job"]]
    if later:
        jobs = [f"job {one['job']} {one['purpose']}" for one in later]
        blocks.append(Text(f"after all runs have ended: {', '.join(jobs)}"))
    states = {view.state for _, view in looked_at}
    failed = bool(damages) or not states.isdisjoint({*FAILED, *STOPPED})
    return Group(*blocks), not states.isdisjoint(ACTIVE), failed


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Returns:
        0 if no run is failed, stale, resumable or damaged, else 1.

    Raises:
        UserError: an option is invalid, or no sweep matches.
    """
    options = cli.parse_options(arguments, StatusOptions)
    sweeps = find_sweeps(options.runs, options.suite, options.sweep)
    console = make_console()
    shown, going_on, failed = picture(options, sweeps)
    if options.follow and console.is_terminal:
        with Live(shown, console=console, auto_refresh=False) as live:
            while going_on and output_error() is None:
                time.sleep(options.every)
                shown, going_on, failed = picture(options, sweeps)
                live.update(shown, refresh=True)
    else:
        console.print(shown, crop=False)
        while options.follow and going_on and output_error() is None:
            time.sleep(options.every)
            shown, going_on, failed = picture(options, sweeps)
            console.print(shown, crop=False)
    return int(failed)


def usage() -> str:
    """Return the text of `--help`."""
    return "\n".join(
        [
            "usage: python sweeps/status.py [key=value …]",
            "",
            "Shows the state of the runs of sweeps, read from the run directories and from squeue.",
            "Works at any time and on any machine that can read the run directories.",
            "",
            "Options:",
            cli.describe_fields(StatusOptions),
            "",
            "States:",
            "  done       reached its budget",
            "  diverged   stopped at a NaN or Inf; counts as a result and is not retried",
            "  running    a process holds its lease, or its SLURM job is running. It is named if",
            f"             nothing is recorded for {SILENT_SECONDS / 60:.0f} minutes: its process "
            "hangs, or was killed",
            "             while other runs of its job go on",
            "  queued     its SLURM job is waiting or held (sbatch=hold); if squeue here does not",
            "             list its job: it was submitted and has not shown activity",
            "  failed     ended with an error; sweeps/retry.py launches it again",
            "  stale      its process or job ended without recording a result (killed, out of",
            "             memory, node failure, no Python on the node); launching again resumes it",
            "  resumable  stopped before its budget; launching again resumes it",
            "  damaged    one of its files is damaged: restore it, or move the run directory away,",
            "             and launch again; or it cannot be read at present",
            "  blocked    cannot start: this machine lacks its simulator or object models; or it",
            "             cannot continue to a larger budget, e.g. as its episodes were not kept",
            "  new        never started",
            "",
            "Exit code: 0 if no run is failed, stale, resumable or damaged, else 1.",
        ]
    )


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
