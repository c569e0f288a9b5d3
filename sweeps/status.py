"""Where the runs of sweeps stand: `python sweeps/status.py suite=all104 follow=true`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sweeps.planning.planned_run import UNITS
from sweeps.tracking.progress import describe_blocked, make_console, table_of_states
from sweeps.tracking.run_states import ACTIVE, ENDED, Observer, View
from sweeps.tracking.sweep_folder import SweepFolder, all_sweeps
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.system.paths import default_runs_dir


@dataclass(frozen=True)
class StatusOptions:
    """What to show."""

    runs: Path = field(
        default_factory=default_runs_dir, metadata={"help": "folder that holds all runs"}
    )
    suite: str | None = field(default=None, metadata={"help": "only sweeps of this suite"})
    sweep: str | None = field(default=None, metadata={"help": "only this sweep (its folder)"})
    follow: bool = field(default=False, metadata={"help": "go on until everything has ended"})
    every: float = field(default=10.0, metadata={"help": "seconds between looks, when following"})
    errors: int = field(default=5, metadata={"help": "last errors to show"})
    list: bool = field(default=False, metadata={"help": "a line per run"})


FAILED = ("failed", "stale")
Row = dict[str, Any]  # of `sweep.json`


def find_sweeps(runs: Path, suite: str | None, sweep: str | None) -> list[SweepFolder]:
    """Sweeps by suite or name; all if neither is given.

    Raises:
        UserError: there is none.
    """
    known = all_sweeps(runs)
    if not known:
        raise UserError(f"{runs}: holds no sweep; sweeps/launch.py begins one, or use runs=")
    if sweep is not None:
        known = [one for one in known if one.name == sweep]
        if not known:
            names = [one.name for one in all_sweeps(runs)]
            raise UserError(f"sweep={sweep}: there is none{did_you_mean(sweep, names)}")
    if suite is not None:
        suites = {one.name: one.read()["suite"] or "tasks" for one in known}
        known = [one for one in known if suites[one.name] == suite]
        if not known:
            raise UserError(f"suite={suite}: never launched{did_you_mean(suite, suites.values())}")
    return known


def runs_of(sweeps: Sequence[SweepFolder]) -> list[Row]:
    """Runs of several sweeps, each once, with its largest budget."""
    rows: dict[str, Row] = {}
    for sweep in sweeps:
        for row in sweep.read()["runs"]:
            known = rows.setdefault(row["directory"], row)
            known["budget"] = max(known["budget"], row["budget"])
    return list(rows.values())


def look(runs: Path, sweeps: Sequence[SweepFolder]) -> list[tuple[Row, View]]:
    """Every run of these sweeps as it stands; any sweep's job may be at it."""
    observer = Observer(runs)
    looked_at = [(row, observer.look(row["directory"], row["budget"])) for row in runs_of(sweeps)]
    for row, view in looked_at:
        if view.state == "new" and row.get("missing"):
            view.state = "blocked"
    return looked_at


def blocked_of(looked_at: Sequence[tuple[Row, View]]) -> list[str]:
    """Which runs could not start when they were last launched, and what to type."""
    return describe_blocked(
        (row["task"], row["missing"]) for row, view in looked_at if view.state == "blocked"
    )


def tables_of(looked_at: Sequence[tuple[Row, View]]) -> list[Table]:
    """Counts, progress, speed and time left by method and domain, for each unit of budgets."""
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
    """What the budget of a run is counted in; sweeps of before do not say."""
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
    """What went wrong last, newest first: run, what it said, and where to read on."""
    bad = [(row, view) for row, view in looked_at if view.state in ("failed", "stale", "diverged")]
    bad.sort(key=lambda pair: pair[1].status.get("updated", ""), reverse=True)
    lines = []
    for row, view in bad[:most]:
        name = f"{row['method']} {row['task']} seed {row['seed']} ({row['variant']})"
        lines.append(f"{view.state}: {name}: {view.message or 'nothing said'}\n    {view.log}")
    if len(bad) > most:
        lines.append(f"… and {len(bad) - most:,} more (errors=)")
    return lines


def _line(row: Row, view: View) -> str:
    steps = f"{view.step:,} of {row['budget']:,} {_unit(row)}"
    return f"{view.state:>9}  {steps:>34}  {view.job or '':>10}  {row['directory']}"


def picture(options: StatusOptions, sweeps: Sequence[SweepFolder]) -> tuple[Group, bool, bool]:
    """All that is shown; whether anything still runs or waits; whether anything has failed."""
    looked_at = look(options.runs, sweeps)
    now = datetime.now().strftime("%H:%M:%S")
    names = ", ".join(sweep.name for sweep in sweeps)
    parts: list[Any] = [Text(f"{names} in {options.runs}, {now}"), *tables_of(looked_at)]
    if options.list:
        parts += [
            Text(_line(row, view), no_wrap=True, overflow="ignore") for row, view in looked_at
        ]
    parts += [Text(line) for line in blocked_of(looked_at)]
    errors = last_errors(looked_at, options.errors)
    parts += [Text(line, no_wrap=True, overflow="ignore") for line in errors]
    launches = [submission.facts for sweep in sweeps for submission in sweep.submissions()]
    figures = [facts["figures"] for facts in launches if "figures" in facts]
    if figures:
        parts.append(Text(f"figures: job {', '.join(figures)}, after all runs"))
    states = {view.state for _, view in looked_at}
    return Group(*parts), not states.isdisjoint(ACTIVE), not states.isdisjoint(FAILED)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit code.

    Returns:
        0 if nothing has failed, else 1.
    """
    options = StatusOptions(**cli.parse_arguments(arguments, cli.schema_of(StatusOptions)))
    if options.every <= 0:
        raise UserError(f"every={options.every}: must be positive")
    sweeps = find_sweeps(options.runs, options.suite, options.sweep)
    console = make_console()
    shown, going_on, failed = picture(options, sweeps)
    if options.follow and console.is_terminal:
        with Live(shown, console=console, auto_refresh=False) as live:
            while going_on:
                time.sleep(options.every)
                shown, going_on, failed = picture(options, sweeps)
                live.update(shown, refresh=True)
    else:
        console.print(shown, crop=False)
        while options.follow and going_on:
            time.sleep(options.every)
            shown, going_on, failed = picture(options, sweeps)
            console.print(shown, crop=False)
    return int(failed)


def usage() -> str:
    """Text of `--help`."""
    return "\n".join(
        [
            "usage: python sweeps/status.py [key=value …]",
            "",
            "Shows where the runs of sweeps stand, by the run directories and squeue; works while",
            "they run, and from any machine that sees the directories. Exit code 1 if a run has",
            "failed or its process is gone.",
            "",
            cli.describe_fields(StatusOptions),
        ]
    )


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
