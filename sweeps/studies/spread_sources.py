"""Sources of the spread over seeds that a planned comparison assumes: own runs, released curves."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from analysis.records.load import load, load_curves
from analysis.records.source_options import report
from analysis.records.sources import PUBLISHED
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.seed_spreads import Spread, spread_of
from sweeps.planning.planned_run import PlannedRun
from tdmpc2.common.run.spec import RunSpec, algorithm_settings
from tdmpc2.envs.task_variants import switches_of
from tdmpc2.envs.tasks import get_task

OWN, RELEASED = "own runs", "the released curves"


@dataclass(frozen=True)
class Sourced:
    """A spread and its source.

    Attributes:
        spread: the spread.
        source: `OWN` or `RELEASED`.
    """

    spread: Spread
    source: str


class SpreadSources:
    """Spreads of the runs of a plan, from finished runs of the same settings or released curves.

    Args:
        planned: runs of the plan.
        runs: folder of all runs.
        released: folder of the released curves; if it does not exist, own runs are the only source.
    """

    def __init__(self, planned: Sequence[PlannedRun], runs: Path, released: Path) -> None:
        tasks = {run.spec.task for run in planned}
        methods = {run.spec.method for run in planned}
        self._runs = runs.resolve()
        self._own = ScoreCurves(load(self._runs).select(methods=methods, tasks=tasks))
        self._released = read_released(released, methods, tasks)

    @property
    def has_released(self) -> bool:
        """Whether released curves are available."""
        return self._released is not None

    def of(self, run: PlannedRun) -> Sourced | None:
        """Return the spread of the score at the end of a planned run, if a source has it.

        Own runs are preferred unless the released curves have more seeds. Released curves are those
        of the paper's settings, so they are used for runs with these settings only.

        Args:
            run: a run of the plan.
        """
        found = []
        spread = self._of_own_runs(run)
        if spread is not None:
            found.append(Sourced(spread, OWN))
        if self._released is not None and has_paper_settings(run):
            spread = released_spread(self._released, run.spec)
            if spread is not None:
                found.append(Sourced(spread, RELEASED))
        return max(found, key=lambda one: one.spread.freedom, default=None)

    def _of_own_runs(self, run: PlannedRun) -> Spread | None:
        """Return the spread over the completed runs that differ from a planned run in the seed."""
        spec, table = run.spec, self._own.runs
        done = table[(table["task"] == spec.task) & (table["state"] == "COMPLETED")]
        rows = [
            row
            for row, seed, directory in done[["seed", "directory"]].itertuples()
            if replace(spec, seed=seed).run_dir(self._runs) == directory
        ]
        return spread_of(self._own, np.array(rows, int), spec.budget)


def has_paper_settings(run: PlannedRun) -> bool:
    """Return whether a run has the settings of the released curves, in any precision."""
    spec = run.spec
    return (
        not (algorithm_settings(dict(spec.overrides)) or spec.start)
        and spec.task_switches == switches_of({}, get_task(spec.task))
        and spec.assets in (None, "official")
    )


def released_spread(curves: ScoreCurves, spec: RunSpec) -> Spread | None:
    """Return the spread over the released seeds of a run's method and task, near its last step.

    Args:
        curves: result of `read_released`.
        spec: the run.
    """
    return spread_of(curves, released_rows(curves, spec), spec.budget)


def released_rows(curves: ScoreCurves, spec: RunSpec) -> np.ndarray:
    """Return the row numbers of the released seeds of a run's method and task.

    Args:
        curves: result of `read_released`.
        spec: the run.
    """
    table = curves.runs
    same = (table["method"] == spec.method) & (table["task"] == spec.task)
    return table.index[same & (table["obs"] == spec.obs)].to_numpy()


def read_released(
    folder: Path, methods: Collection[str], tasks: Collection[str]
) -> ScoreCurves | None:
    """Return the released curves of some methods and tasks; None if there are none.

    Args:
        folder: folder of the released curves; it need not exist.
        methods: names of methods.
        tasks: names of tasks.
    """
    if not folder.is_dir():
        return None
    records = load_curves(folder, PUBLISHED, tasks=tasks)
    report(records.problems)
    return ScoreCurves(records.select(methods=methods))
