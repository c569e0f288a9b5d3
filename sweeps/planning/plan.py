"""Plan a launch: which runs to start, in which processes, and what they cost."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table

from sweeps.planning import costs, offline_costs
from sweeps.planning.grid import group_seeds
from sweeps.planning.planned_run import UNITS, PlannedRun, SeedGroup
from sweeps.planning.request import SweepRequest
from sweeps.tracking.progress import describe_blocked, duration, make_console, table_of_states
from sweeps.tracking.run_states import ACTIVE, ENDED, Observer, View
from sweeps.tracking.work_budget import WorkBudget, work_budget
from tdmpc2.common.run.resume_checks import existing_outcome
from tdmpc2.common.run.schemas import NumericFile, seeds_together
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.texts import counted, seeds_text
from tdmpc2.envs.task_variants import run_of_0_4_0
from tdmpc2.runners.fixed_options import fixed_options

FEW = 60  # a plan lists its runs one by one up to this number
LONG_HOURS = 24.0
"""Core-hours or GPU-hours above which a launch on this machine requires `yes=true`."""
WEEK_HOURS = 7 * 24.0


@dataclass
class SweepPlan:
    """A sweep, the current state of its runs, and what remains to be done.

    Attributes:
        request: what is to be launched.
        views: current state of each run.
        todo: runs to launch.
        blocked: runs that would be launched, but are damaged, would be refused, or need something
            that this machine lacks.
        held: runs that would be launched, but share a process with a run that is blocked, damaged
            or at work, each with the reason.
        smaller: runs that a process or job trains to a smaller budget than the request's.
        ending: runs that would be launched if their SLURM jobs, which are ending, do not come back.
        groups: runs of each process to start.
        gpu: whether the runs get a GPU.
        hours: estimated remaining hours of each run, on one core or GPU.
        costs: estimated cost of each run.
        source: basis of the estimates, as shown to the user.
    """

    request: SweepRequest
    views: list[View]
    todo: list[PlannedRun]
    blocked: list[PlannedRun]
    held: list[tuple[PlannedRun, str]]
    smaller: list[tuple[PlannedRun, WorkBudget]]
    ending: list[PlannedRun]
    groups: list[SeedGroup]
    gpu: bool
    hours: list[float]
    costs: list[costs.Cost]
    source: str

    @property
    def planned(self) -> list[PlannedRun]:
        """All runs of the sweep."""
        return self.request.planned

    @property
    def hours_to_do(self) -> float:
        """Estimated core-hours or GPU-hours of all runs to launch."""
        hours = self._hours_by_run
        return sum(hours[id(run)] for run in self.todo)

    @property
    def hours_of_processes(self) -> list[float]:
        """Estimated remaining hours of each process to start: of its seeds together."""
        hours = self._hours_by_run
        return [sum(hours[id(run)] for run in group) for group in self.groups]

    @property
    def _hours_by_run(self) -> dict[int, float]:
        return {id(run): hours for run, hours in zip(self.planned, self.hours, strict=True)}

    def describe_blocked(self) -> list[str]:
        """Describe which runs cannot start and how to unblock them; empty if all can start."""
        return describe_blocked((run.spec.task, run.missing) for run in self.blocked)

    def describe_held(self) -> list[str]:
        """Describe the runs that other seeds of their process hold back; empty if there are none.

        Returns:
            A heading and one line per process.
        """
        if not self.held:
            return []
        seeds: dict[tuple[str, str], list[int]] = {}
        for run, why in self.held:
            seeds.setdefault((run.name_but_seed, why), []).append(run.spec.seed)
        return [
            f"{counted(len(self.held), 'run')} held back by another seed of the same process; "
            "launch again when that is settled, or with seeds_per_process=1 (runs that have begun "
            "also need allow_numeric_change=true):",
            *(f"  {name} {seeds_text(found)}: {why}" for (name, why), found in seeds.items()),
        ]

    def describe_smaller(self) -> list[str]:
        """Describe the runs at work that will end at a smaller budget, and what to do, by budget.

        Returns:
            One line per budget; empty if there are none.
        """
        lines = []
        for (work, unit), number in Counter(
            (w, r.spec.budget_unit) for r, w in self.smaller
        ).items():
            runs, budget = counted(number, "run"), f"{work.budget:,} {UNITS[unit]}"
            if work.extends:
                end, advice = budget, "launch again when they have ended"
            else:
                end = f"{budget}, without keep_replay=true"
                advice = "cancel them (sweeps/cancel.py) and launch again"
            lines.append(f"{runs} at work will end at a smaller budget ({end}): {advice}")
        return lines

    def describe_ending(self) -> list[str]:
        """Describe the runs whose SLURM jobs are ending, and what to do; empty if there are none.

        Returns:
            One line.
        """
        if not self.ending:
            return []
        return [
            f"{counted(len(self.ending), 'run')} left to SLURM jobs that are ending or being "
            "requeued (squeue shows COMPLETING): launch again afterwards"
        ]

    def describe_older(self) -> str:
        """Describe runs of version 0.4.0 that differ from some to launch only in the physics."""
        found = (run_of_0_4_0(run.spec, self.request.runs) for run in self.todo)
        older = [directory for directory in found if directory is not None]
        if not older:
            return ""
        return (
            f"Runs to do that version 0.4.0 has started under other physics: {len(older):,}; those "
            f"are left as they are (docs/fidelity.md), e.g. {older[0]}"
        )

    def memory_gb(self) -> int:
        """Return the estimated memory of the largest process, in GB."""
        size = max(map(len, self.groups), default=1)
        return math.ceil(size * max(cost.memory for cost in self.costs) / 1e9)


def make_plan(request: SweepRequest, observer: Observer, *, gpu: bool) -> SweepPlan:
    """Determine which runs of a sweep to start, and estimate their costs.

    Args:
        request: what is to be launched.
        observer: reads the state of runs.
        gpu: whether the runs get a GPU.
    """
    planned, sweep = request.planned, request.sweep
    views = [
        observer.look(str(run.directory.relative_to(request.runs)), run.spec.budget)
        for run in planned
    ]
    for run, view in zip(planned, views, strict=True):
        run.status = view.status or None
    looked_at = list(zip(planned, views, strict=True))
    blocked = []
    for run, view in looked_at:
        if view.state in ("damaged", "blocked"):
            run.missing = view.message
            blocked.append(run)
        elif _is_due(view, sweep.only) and (why := run.missing or _refusal(request, run)):
            view.state, run.missing = "blocked", why
            blocked.append(run)
    wanted = {id(run) for run, view in looked_at if _is_due(view, sweep.only)}
    kept = (*ACTIVE, "damaged", "blocked")
    busy = {id(run): view.state for run, view in looked_at if view.state in kept}
    # A process is started with all of its seeds, so that each unfinished seed keeps its index in
    # the batch. It is not started while another process trains one of its seeds, or if one of them
    # is damaged or blocked.
    together = group_seeds(planned, sweep.seeds_per_process)
    due = [group for group in together if any(id(run) in wanted for run in group)]
    groups: list[SeedGroup] = []
    held: list[tuple[PlannedRun, str]] = []
    for group in due:
        holding = [run for run in group if id(run) in busy]
        if holding:
            why = f"seed {holding[0].spec.seed} is {busy[id(holding[0])]}"
            held += [(run, why) for run in group if id(run) in wanted]
        else:
            groups.append(group)
    todo = [run for group in groups for run in group if id(run) in wanted]
    at_work = [(run, work_budget(run.directory, view)) for run, view in looked_at]
    smaller = [(run, work) for run, work in at_work if work and work.budget < run.spec.budget]
    ending = [run for run, view in looked_at if view.ending and sweep.only == "all"]
    finished = [(run, *_ran_on(run)) for run, view in looked_at if view.state == "done"]
    factors = costs.corrections(finished, request.options)
    each, source = _estimate(request, len(factors), gpu=gpu)
    hours = [s / 3600 for s in costs.seconds_left(planned, each, factors, gpu=gpu)]
    return SweepPlan(
        request, views, todo, blocked, held, smaller, ending, groups, gpu, hours, each, source
    )


def _estimate(request: SweepRequest, corrected: int, *, gpu: bool) -> tuple[list[costs.Cost], str]:
    """Estimate the costs of all runs, and describe the basis of the estimates.

    Args:
        request: what is to be launched.
        corrected: number of method-domain pairs that finished runs provide corrections for.
        gpu: whether the runs get a GPU.
    """
    planned, options = request.planned, request.options
    if request.sweep.multitask:
        return offline_costs.estimate(planned, options, request.runs, gpu=gpu)
    groups = group_seeds(planned, request.sweep.seeds_per_process)
    seeds = {id(run): len(group) for group in groups for run in group}
    each = [
        costs.cost_of(run.spec, {**options, **run.options}, gpu=gpu, seeds=seeds[id(run)])
        for run in planned
    ]
    if corrected:
        pairs = f"{corrected} method-domain pair{'s' * (corrected != 1)}"
        return each, f"estimate corrected by finished runs of {pairs}"
    return each, "rough estimate; corrected once runs of the same method and domain have finished"


def _refusal(request: SweepRequest, run: PlannedRun) -> str:
    """Return why a run that was started before would be refused; empty if it would not."""
    if run.status is None:
        return ""
    options = replace(request.how, **run.options)
    try:
        existing_outcome(run.directory, run.spec, fixed_options(run.spec, options), options)
    except UserError as error:
        return str(error).removeprefix(f"{run.directory}: ")  # the same line for all seeds
    return ""


def _is_due(view: View, only: str) -> bool:
    if only == "failed":
        return view.state == "failed"
    return view.state not in (*ENDED, *ACTIVE, "damaged", "blocked")


def _ran_on(run: PlannedRun) -> tuple[bool, int]:
    """Return whether a run had a GPU, and the number of seeds in its process."""
    numeric: Mapping[str, Any] = {}
    with contextlib.suppress(UserError):  # damaged: only an estimate depends on it
        numeric = read_json(run.directory / "numeric.json", NumericFile) or {}
    return str(numeric.get("device", "cpu")).startswith("cuda"), seeds_together(numeric)


def show(plan: SweepPlan, *, parallel: int | None) -> None:
    """Print the plan: the counts of runs by state, a table of costs, and the totals.

    Args:
        plan: plan of the launch.
        parallel: processes at a time on this machine; None on a cluster.
    """
    request, sweep = plan.request, plan.request.sweep
    finished = sum(view.state in ENDED for view in plan.views)
    processes = f" in {len(plan.groups):,} processes" if sweep.seeds_per_process > 1 else ""
    at_once = f", {parallel} at a time" if parallel else ""
    busy = sum(view.state in ACTIVE for view in plan.views)
    elsewhere = f", {busy:,} queued or running" if busy else ""
    elsewhere += f", {len(plan.blocked):,} blocked" if plan.blocked else ""
    elsewhere += f", {len(plan.held):,} held back" if plan.held else ""
    named = " ".join(filter(None, (sweep.suite, sweep.tasks)))
    print(
        f"{named}: {len(plan.planned):,} runs, {finished:,} finished already"
        f"{elsewhere}, {len(plan.todo):,} to do{processes}{at_once}; "
        f"run directories in {request.runs}",
        flush=True,
    )
    for task_set in request.sets:
        print(task_set.describe(), flush=True)
    make_console().print(_table(plan))
    described = (*plan.describe_blocked(), *plan.describe_held(), *plan.describe_smaller())
    for line in filter(None, (*described, *plan.describe_ending(), plan.describe_older())):
        print(line)
    if not plan.todo:
        print("Nothing to start.", flush=True)
        return
    to_do = plan.hours_to_do
    device = "GPU" if plan.gpu else "core"
    wall = f", {duration(to_do / parallel)} on this machine" if parallel else ""
    disk, most = (
        sum(getattr(cost, name) for cost in plan.costs) / 1e9 for name in ("disk", "disk_running")
    )
    print(
        f"Remaining time: about {duration(to_do)} on one {device}{wall} ({plan.source}).\n"
        f"Disk space of all runs: at most {most:,.1f} GB while running, {disk:,.1f} GB at the end.",
        flush=True,
    )
    if to_do > LONG_HOURS * (parallel or 1):
        print(describe_scale(plan), flush=True)


def describe_scale(plan: SweepPlan) -> str:
    """Describe how many cores or GPUs finish a long plan within about a week."""
    choices = [_scale(plan.hours_of_processes, "GPU" if plan.gpu else "core")]
    if not plan.gpu:
        gpu_costs, _ = _estimate(plan.request, 0, gpu=True)
        left = costs.seconds_left(plan.planned, gpu_costs, {}, gpu=True)
        on_gpus = replace(plan, hours=[s / 3600 for s in left])
        choices.append(_scale(on_gpus.hours_of_processes, "GPU"))
    return f"With more machines: about {', or about '.join(choices)}."


def _scale(hours: Sequence[float], device: str) -> str:
    """Describe the number of devices that finish in a week, or in the time of the longest run.

    Args:
        hours: hours of each process on one device.
        device: `core` or `GPU`.
    """
    wall = min(max(WEEK_HOURS, *hours), sum(hours))
    number = min(math.ceil(sum(hours) / wall), len(hours))
    why = " (the duration of the longest run)" if wall > WEEK_HOURS else ""
    return f"{duration(wall)} on {number:,} {device}{'s' * (number > 1)}{why}"


def list_runs(plan: SweepPlan) -> None:
    """Print one line per run, unless there are more than `FEW`."""
    if len(plan.planned) <= FEW:
        for run, view in zip(plan.planned, plan.views, strict=True):
            print(f"  {run.name}: {view.state}  {run.directory}")


def _table(plan: SweepPlan) -> Table:
    """Build the table of run counts and costs by method and domain."""
    unit = "time on one GPU" if plan.gpu else "time on one core"
    rows = list(zip(plan.planned, plan.views, plan.hours, plan.costs, strict=True))

    def costs_of(members: Sequence[tuple[PlannedRun, View, float, costs.Cost]]) -> list[str]:
        hours = sum(hours for _, view, hours, _ in members if view.state not in ENDED)
        disk = sum(cost.disk for *_, cost in members) / 1e9
        return [duration(hours) if hours else "", f"{disk:,.1f}"]

    return table_of_states(
        rows,
        lambda row: (row[0].spec.method, row[0].kind, row[1].state),
        (unit, "disk GB"),
        costs_of,
        UNITS[plan.planned[0].spec.budget_unit],
    )
