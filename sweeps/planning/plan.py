"""What a launch would do: which runs, what they cost, and how they are handed over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.table import Table

from sweeps.planning import costs, offline_costs
from sweeps.planning.grid import group_seeds
from sweeps.planning.planned_run import UNITS, PlannedRun, SeedGroup
from sweeps.planning.request import Request
from sweeps.tracking.progress import describe_blocked, duration, make_console, table_of_states
from sweeps.tracking.run_states import ACTIVE, ENDED, Observer, View
from tdmpc2.common.system.atomic_files import read_json

FEW = 60  # runs that a plan lists one by one
LONG_HOURS = 24.0
"""Of a core or GPU: a launch on one machine that takes longer asks first."""
WEEK_HOURS = 7 * 24.0


@dataclass
class SweepPlan:
    """A sweep, looked at.

    Attributes:
        request: what was asked for.
        views: of the runs, as they stand.
        todo: runs to launch.
        blocked: runs that were to be launched too, but need what this machine lacks.
        groups: processes to start.
        gpu: whether they get one.
        hours: that each run still takes, as estimated.
        costs: of each run.
        source: of the estimates, for people.
    """

    request: Request
    views: list[View]
    todo: list[PlannedRun]
    blocked: list[PlannedRun]
    groups: list[SeedGroup]
    gpu: bool
    hours: list[float]
    costs: list[costs.Cost]
    source: str

    @property
    def planned(self) -> list[PlannedRun]:
        """Every run."""
        return self.request.planned

    @property
    def hours_to_do(self) -> float:
        """Of a GPU or a core, for everything to be launched."""
        return sum(self.hours_of(self.todo))

    def hours_of(self, runs: Sequence[PlannedRun]) -> list[float]:
        """Of a GPU or a core, for each of some runs, in the order of the plan."""
        chosen = {id(run) for run in runs}
        return [h for run, h in zip(self.planned, self.hours, strict=True) if id(run) in chosen]

    def describe_blocked(self) -> list[str]:
        """Lines that say which runs cannot start, and what to type; none if all can."""
        return describe_blocked((run.spec.task, run.missing) for run in self.blocked)

    def memory_gb(self) -> int:
        """What the largest process takes."""
        size = self.request.sweep.seeds_per_process
        return math.ceil(size * max(cost.memory for cost in self.costs) / 1e9)


def make_plan(request: Request, observer: Observer, *, gpu: bool) -> SweepPlan:
    """Looks at every run of a sweep.

    Args:
        request: what was asked for.
        observer: of the run directories.
        gpu: whether runs get one.
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
        if run.missing and _is_due(view, sweep.only):
            view.state = "blocked"
            blocked.append(run)
    wanted = {id(run) for run, view in looked_at if _is_due(view, sweep.only)}
    busy = {id(run) for run, view in looked_at if view.state in ACTIVE}
    # A group is started with all of its seeds, so that those left over keep their places in it;
    # and waits for those of its seeds that somebody else is at.
    groups = [
        group
        for group in group_seeds(planned, sweep.seeds_per_process)
        if any(id(run) in wanted for run in group) and not any(id(run) in busy for run in group)
    ]
    todo = [run for group in groups for run in group if id(run) in wanted]
    finished = [(run, _ran_on_gpu(run)) for run, view in looked_at if view.state == "done"]
    factors = costs.corrections(finished, request.options)
    each, source = _estimate(request, len(factors), gpu=gpu)
    hours = [s / 3600 for s in costs.seconds_left(planned, each, factors, gpu=gpu)]
    return SweepPlan(request, views, todo, blocked, groups, gpu, hours, each, source)


def _estimate(request: Request, corrected: int, *, gpu: bool) -> tuple[list[costs.Cost], str]:
    """Costs of all runs, and where they come from.

    Args:
        request: what was asked for.
        corrected: kinds of runs whose estimate finished ones will correct.
        gpu: whether runs get one.
    """
    planned, options = request.planned, request.options
    if request.sweep.multitask:
        return offline_costs.estimate(planned, options, request.runs, gpu=gpu)
    each = [costs.cost_of(run.spec, {**options, **run.options}, gpu=gpu) for run in planned]
    if corrected:
        return each, f"corrected by finished runs of {corrected} of the kinds"
    return each, "a rough estimate, until runs of this kind have finished"


def _is_due(view: View, only: str) -> bool:
    if only == "failed":
        return view.state == "failed"
    return view.state not in (*ENDED, *ACTIVE, "blocked")


def _ran_on_gpu(run: PlannedRun) -> bool:
    numeric = read_json(run.directory / "numeric.json") or {}
    return str(numeric.get("device", "cpu")).startswith("cuda")


def show(plan: SweepPlan, *, parallel: int | None) -> None:
    """Prints the plan.

    Args:
        plan: of the launch.
        parallel: processes at a time on this machine; None on a cluster.
    """
    request, sweep = plan.request, plan.request.sweep
    finished = sum(view.state in ENDED for view in plan.views)
    processes = f" in {len(plan.groups):,} processes" if sweep.seeds_per_process > 1 else ""
    at_once = f", {parallel} at a time" if parallel else ""
    busy = sum(view.state in ACTIVE for view in plan.views)
    elsewhere = f", {busy:,} queued or running" if busy else ""
    elsewhere += f", {len(plan.blocked):,} blocked" if plan.blocked else ""
    print(
        f"{sweep.suite or sweep.tasks}: {len(plan.planned):,} runs, {finished:,} finished already"
        f"{elsewhere}, {len(plan.todo):,} to do{processes}{at_once}; records in {request.runs}",
        flush=True,
    )
    for one in request.sets:
        print(one.describe(), flush=True)
    make_console().print(_table(plan))
    for line in plan.describe_blocked():
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
        f"To do: about {duration(to_do)} on one {device}{wall} ({plan.source}). Disk: "
        f"{disk:,.1f} GB when all is done, at most {most:,.1f} GB before.",
        flush=True,
    )
    if to_do > LONG_HOURS * (parallel or 1):
        print(describe_scale(plan), flush=True)


def describe_scale(plan: SweepPlan) -> str:
    """How many cores or GPUs bring a long plan down to days, and to how many."""
    choices = [_scale(plan.hours_of(plan.todo), "GPU" if plan.gpu else "core")]
    if not plan.gpu:
        gpu_costs, _ = _estimate(plan.request, 0, gpu=True)
        left = costs.seconds_left(plan.planned, gpu_costs, {}, gpu=True)
        on_gpus = replace(plan, hours=[s / 3600 for s in left])
        choices.append(_scale(on_gpus.hours_of(plan.todo), "GPU"))
    return f"With more machines: about {', or about '.join(choices)}."


def _scale(hours: Sequence[float], device: str) -> str:
    """The shortest time worth paying for: a week, or the longest run's, and the devices it takes.

    Args:
        hours: of each run, on one device.
        device: core or GPU.
    """
    wall = max(WEEK_HOURS, *hours)
    number = min(math.ceil(sum(hours) / wall), len(hours))
    why = " (what the longest run takes)" if wall > WEEK_HOURS else ""
    return f"{duration(wall)} on {number:,} {device}{'s' * (number > 1)}{why}"


def list_runs(plan: SweepPlan) -> None:
    """Prints every run, unless they are too many to read."""
    if len(plan.planned) <= FEW:
        for run, view in zip(plan.planned, plan.views, strict=True):
            print(f"  {run.name}: {view.state}  {run.directory}")


def _table(plan: SweepPlan) -> Table:
    """Runs by method and domain, with what they cost."""
    unit = "on one GPU" if plan.gpu else "on one core"
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
