"""Print the progress of a sweep's runs, and the table of results at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from sweeps.planning.planned_run import SPEEDS, UNITS, PlannedRun
from sweeps.tracking.run_states import STATES, RunState
from tdmpc2.common.run.lock import live_holder
from tdmpc2.common.system.atomic_files import lacks_space
from tdmpc2.common.system.regular_files import regular
from tdmpc2.common.system.texts import counted

# If the output is not a terminal, a line is printed after each 1/SHARES of a run's budget.
SHARES = 5
FILE_WIDTH = 110


def make_console() -> Console:
    """Create a console as wide as the terminal, or wide enough for the tables in a file."""
    console = Console()
    return console if console.is_terminal else Console(width=FILE_WIDTH)


Item = TypeVar("Item")


def table_of_states(
    items: Sequence[Item],
    key: Callable[[Item], tuple[str, str, RunState]],
    headings: Sequence[str],
    more: Callable[[Sequence[Item]], Sequence[str]],
    unit: str = UNITS["env_steps"],
) -> Table:
    """Build a table of run counts by state: one row per method and domain, and their total.

    For multi-task runs, the domain is the task set and the model size.

    Args:
        items: the runs.
        key: function that returns method, domain (see `PlannedRun.kind`) and state of a run.
        headings: headings of further columns.
        more: function that returns the cells of these columns for the runs of a row.
        unit: budget unit of the runs, a value of `UNITS`.
    """
    keys = [key(item) for item in items]
    present = [state for state in STATES if any(state == k[2] for k in keys)]
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("method")
    table.add_column("domain" if unit == UNITS["env_steps"] else "tasks, size")
    for name in ("runs", *present, *headings):
        table.add_column(name, justify="right")

    def add_row(method: str, domain: str, indices: Sequence[int]) -> None:
        states = [keys[index][2] for index in indices]
        counts = [len(states), *(states.count(state) for state in present)]
        cells = (f"{count:,}" if count else "" for count in counts)
        table.add_row(method, domain, *cells, *more([items[index] for index in indices]))

    groups: dict[tuple[str, str], list[int]] = {}
    for index, (method, domain, _) in enumerate(keys):
        groups.setdefault((method, domain), []).append(index)
    for (method, domain), indices in groups.items():
        add_row(method, domain, indices)
    if len(groups) > 1:
        table.add_section()
        add_row("all", "", range(len(items)))
    return table


def describe_blocked(blocked: Iterable[tuple[str, str]]) -> list[str]:
    """Describe which runs cannot start or continue, why, and what unblocks them.

    Args:
        blocked: task and missing requirement (see `PlannedRun.missing`) of each blocked run.

    Returns:
        A heading and one line per task and requirement; empty if no run is blocked.
    """
    counts = Counter(blocked)
    if not counts:
        return []
    head = f"{counted(counts.total(), 'run')} cannot start or continue yet:"
    return [head, *(f"  {counted(n, 'run')} of {task}: {why}" for (task, why), n in counts.items())]


def duration(hours: float) -> str:
    """Format an estimated time with rounded digits: `25 min`, `7.5 h`, `12 days`, `125 years`."""
    if hours < 1 / 60:
        return "1 min" if hours > 0 else "0 min"
    for unit, size, most in (("min", 1 / 60, 1.0), ("h", 1.0, 48.0), ("days", 24.0, 730 * 24.0)):
        if hours < most:
            number = hours / size
            return f"{number:,.{int(number < 9.95 and unit != 'min')}f} {unit}"
    years = hours / (365.25 * 24)
    return f"{years:,.{int(years < 9.95)}f} years"


def no_space(folder: Path) -> str:
    """Return what to do if the disk of a folder is full."""
    return (
        f"no space left on the disk of {folder}: free some and launch again; runs resume from "
        "their last checkpoints"
    )


class ProgressDisplay:
    """Progress of each run: a live bar in a terminal, else a line whenever its state changes.

    Without a terminal, a line is also printed after each 1/SHARES of a run's budget.

    Args:
        runs: runs to show.
    """

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self.console = make_console()
        self.live = self.console.is_terminal
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}% {task.fields[text]}"),
            console=self.console,
        )
        self.bars: dict[int, TaskID] = {}
        self.shown: dict[int, Any] = {}
        for run in runs:
            bar = self.progress.add_task(run.name, total=run.spec.budget, text=_describe(run))
            self.bars[id(run)] = bar

    def __enter__(self) -> ProgressDisplay:
        """Start the live display."""
        if self.live:
            self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the live display."""
        if self.live:
            self.progress.stop()

    def update(self, runs: Sequence[PlannedRun]) -> None:
        """Update the bars, or print a line for each run that has changed."""
        for run in runs:
            if self.live:
                done = min(run.step, run.spec.budget)
                self.progress.update(self.bars[id(run)], completed=done, text=_describe(run))
            elif self._is_news(run):
                print(f"  {run.name}: {_describe(run)}", flush=True)

    def _is_news(self, run: PlannedRun) -> bool:
        status = run.status or ({"state": "starting"} if run.silence else None)
        if status is None:
            return False
        share = SHARES * run.step // run.spec.budget
        key = (status["state"], share, run.exit_code or None, bool(run.silence))
        if self.shown.get(id(run)) == key:
            return False
        self.shown[id(run)] = key
        return True


def _describe(run: PlannedRun) -> str:
    """Describe the progress of a run: state, steps, last evaluation, speed and time left."""
    if run.obstacle:
        return f"could not be started: {run.obstacle}"
    if _has_failed(run):
        return f"ended with exit code {run.exit_code}; see {run.log}"
    if run.silence:
        return run.silence
    status = run.status
    if status is None:
        return "starting" if run.started else "waiting"
    unit, speed = (names[run.spec.budget_unit] for names in (UNITS, SPEEDS))
    parts = [status["state"].lower(), f"{run.step:,} of {run.spec.budget:,} {unit}"]
    if "eval_return" in status:
        parts.append(f"return {status['eval_return']:.0f}")
    if "eval_score" in status:
        parts.append(f"score {status['eval_score']:.1f}")
    if status["state"] == "RUNNING" and "doing" in status:
        parts.append(status["doing"])
    elif status["state"] == "RUNNING" and status.get(speed):
        left = (run.spec.budget - run.step) / status[speed]
        parts.append(f"{status[speed]:.{int(status[speed] < 10)}f} {unit}/s, {_left(left)} left")
    return ", ".join(parts)


def _left(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds > 36_000 else f"{seconds / 60:.0f} min"


def print_summary(runs: Sequence[PlannedRun], thresholds: Sequence[float | None]) -> int:
    """Print the results of a sweep of single-task runs.

    Args:
        runs: all runs that could start.
        thresholds: return above which each run counts as learned (see
            `reference_scores.threshold`); None before its first evaluation.

    Returns:
        Exit code: 0 if every run completed or diverged, and those that must learn ended above
        their thresholds; else 1.
    """
    table = Table(title="Sweep", title_justify="left")
    for column in (
        "run",
        "state",
        "env steps",
        "return ± sd",
        "success",
        "reference + 3 sd",
        "learned",
    ):
        table.add_column(column, justify="left" if column in ("run", "state") else "right")
    failures = 0
    for run, threshold in zip(runs, thresholds, strict=True):
        status = run.status or {}
        state = status.get("state", "NOT STARTED")
        lines = evaluations_of(run, SINGLE_TASK)
        if lines is None or lines.empty:
            state = "eval.csv is damaged" if lines is None else state
            table.add_row(run.name, state, "0", "", "", "", "")
            failures += 1
            continue
        last = lines.iloc[-1]
        learned = threshold is not None and last.episode_return > threshold
        failures += not _has_ended(run) or bool(run.must_learn and not learned)
        table.add_row(
            run.name,
            state,
            f"{int(last.env_step):,}",
            f"{last.episode_return:.1f} ± {last.episode_return_sd:.1f}",
            f"{last.episode_success:.2f}",
            "" if threshold is None else f"{threshold:.1f}",
            "" if run.must_learn is None else "yes" if learned else "no",
        )
    make_console().print(table)
    print("return ± sd: mean and standard deviation over the episodes of the last evaluation.")
    print("reference + 3 sd: best mean return of uniform random actions, zero actions and the")
    print("untrained agent (10 episodes each), plus 3 times the largest of their standard")
    print("deviations. learned: whether the return exceeds it.")
    _print_unfinished(runs)
    return 1 if failures else 0


def print_multitask_summary(runs: Sequence[PlannedRun]) -> int:
    """Print the results of a sweep of multi-task runs.

    Returns:
        Exit code: 0 if every run completed or diverged, else 1.
    """
    table = Table(title="Sweep", title_justify="left")
    for column in ("run", "state", "updates", "score"):
        table.add_column(column, justify="left" if column in ("run", "state") else "right")
    failures = 0
    for run in runs:
        state = (run.status or {}).get("state", "NOT STARTED")
        lines = evaluations_of(run, MULTITASK)
        updates, score = 0, ""
        if lines is None:
            state = "eval.csv is damaged"
        elif len(lines):
            updates = int(lines.num_updates.max())
            score = f"{lines.score[lines.num_updates == updates].mean():.1f}"
        failures += lines is None or not _has_ended(run)
        table.add_row(run.name, state, f"{updates:,}", score)
    make_console().print(table)
    print("score: return / 10 or 100 x success at the last evaluation, mean over the tasks.")
    _print_unfinished(runs)
    return 1 if failures else 0


def _has_ended(run: PlannedRun) -> bool:
    """Return whether a run has diverged or completed its budget, not a smaller one."""
    state = (run.status or {}).get("state")
    return state == "DIVERGED" or (state == "COMPLETED" and run.step >= run.spec.budget)


def _has_failed(run: PlannedRun) -> bool:
    """Return whether the process of a run has failed, before the run had ended.

    The exit code belongs to all seeds of the process: that of a diverged one is 1.
    """
    return run.exit_code not in (None, 0) and not _has_ended(run)


SINGLE_TASK = {"env_step": int, "episode_return": float, "episode_return_sd": float}
SINGLE_TASK |= {"episode_success": float}
MULTITASK = {"num_updates": int, "score": float}


def evaluations_of(run: PlannedRun, columns: Mapping[str, type]) -> Any | None:
    """Return the evaluations of a run as a DataFrame; None if its `eval.csv` is damaged.

    Args:
        run: the run; without `eval.csv` it has no evaluations.
        columns: columns to read, with their types: `SINGLE_TASK` or `MULTITASK`.
    """
    import pandas as pd

    try:
        return pd.read_csv(
            regular(run.directory / "eval.csv"), usecols=list(columns), dtype=dict(columns)
        )
    except FileNotFoundError:
        return pd.DataFrame(columns=list(columns))
    except (OSError, ValueError):  # also of an empty file, other columns, and other bytes
        return None


def _print_unfinished(runs: Sequence[PlannedRun]) -> None:
    """Print the exit codes of processes that failed, and count the runs that others train."""
    for run in runs:
        if run.obstacle:
            print(f"{run.name} could not be started: {run.obstacle}; correct it and launch again")
        elif _has_failed(run):
            print(f"{run.name} ended with exit code {run.exit_code}: {run.log}")
    # The log of a run may be empty because of a full disk.
    failed = [run.directory for run in runs if run.obstacle or _has_failed(run)]
    if failed and lacks_space(failed[0]):
        print(no_space(failed[0]))
    going_on = sum(not run.started and bool(live_holder(run.directory)) for run in runs)
    if going_on:
        print(
            f"{counted(going_on, 'run')} not finished: trained by other processes, which this "
            "launch has not started; launch again when these have ended."
        )
