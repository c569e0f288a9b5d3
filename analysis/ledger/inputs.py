"""Records that claims are compared with: own runs at the paper's settings, and released curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.figure_specs import Catalog
from analysis.figures.scaling_plots import paper_scores, scaling_spec
from analysis.records.evaluations import ENV_STEPS, NUM_UPDATES
from analysis.records.load import RUN_KEY, Records, load_curves, merge
from analysis.records.precisions import in_any_precision
from analysis.records.problems import Problem
from analysis.records.run_folders import load_folders
from analysis.records.sources import PUBLISHED, RUNS_SOURCE
from analysis.stats.against_published import Comparison, compare_domains, compare_tasks
from analysis.stats.coverage import Pools, coverage_of_differences, pools_of
from analysis.stats.equivalence import Difference, difference, if_spread, mean_difference
from analysis.stats.horizons import Group
from analysis.stats.margins import DOMAIN_MARGINS, TASK_MARGIN
from analysis.stats.multitask_claims import compare_agents
from analysis.stats.ragged_curves import ScoreCurves, variant_budget
from analysis.stats.rules import DEFAULT_RULE, RULES
from analysis.stats.selection import horizon_scores, select
from tdmpc2.common.run.spec import algorithm_settings
from tdmpc2.common.system.texts import span_text

DEFAULT = "default"
RULE = RULES[DEFAULT_RULE]


@dataclass(frozen=True)
class Inputs:
    """Records that claims are compared with.

    Attributes:
        runs: all own runs.
        released: the released curves; None without them.
        catalog: groups of tasks, labels and quoted numbers.
    """

    runs: Records
    released: Records | None
    catalog: Catalog

    @classmethod
    def read(cls, folders: Sequence[Path], published: Path | None, catalog: Catalog) -> Inputs:
        """Read own runs and released curves.

        Args:
            folders: folders of own runs.
            published: folder of the released curves; None without them.
            catalog: groups of tasks, labels and quoted numbers.
        """
        released = None if published is None else load_curves(published, PUBLISHED)
        return cls(load_folders(folders), released, catalog)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Records that could not be used as they are; those of the released curves are known."""
        return self.runs.problems

    def label(self, method: str) -> str:
        """Return the name of a method in figures."""
        return self.catalog.methods[method].label if method in self.catalog.methods else method

    @cached_property
    def exact(self) -> Records:
        """Own single-task runs at the paper's settings: nothing overridden but the precision.

        These are runs from states and from pixels. The precision is part of how a result is
        computed, not of the algorithm.
        """
        records = self.runs.select(step_unit=ENV_STEPS)
        facts = records.runs[["variant", "overrides"]].to_numpy()
        exact = np.array([_is_exact(*run) for run in facts], dtype=bool)
        return replace(records, runs=records.runs[exact]).select()

    @cached_property
    def pooled(self) -> Records:
        """`exact`, with runs of any precision as one series per method and observation type.

        Of runs with equal task and seed, the one that was evaluated furthest counts; of several,
        one that is completed.
        """
        last = self.exact.table.groupby(RUN_KEY, dropna=False)["step"].max().rename("last")
        runs = self.exact.runs.merge(last.reset_index(), on=RUN_KEY)
        runs["unfinished"] = runs["state"] != "COMPLETED"
        order = ["last", "unfinished", "variant"]
        furthest = runs.sort_values(order, ascending=[False, True, True])
        again = _in_any_precision(furthest).duplicated(RUN_KEY)
        kept = furthest[~again].drop(columns=["last", "unfinished"])
        pooled = replace(self.exact, runs=kept).select()
        runs, table = map(_in_any_precision, (pooled.runs, pooled.table))
        return replace(pooled, runs=runs, table=table)

    @cached_property
    def curves(self) -> dict[tuple[str, str], ScoreCurves]:
        """Curves of `pooled` and of the released curves, by source and observation type."""
        sources = {RUNS_SOURCE: self.pooled, PUBLISHED: self.released}
        return {
            (source, obs): ScoreCurves(records.select(obs=obs))
            for source, records in sources.items()
            for obs in ("state", "rgb")
            if records is not None
        }

    def mean(self, source: str, method: str, obs: str, group: Group) -> float:
        """Return the mean score in points at a group's horizon; NaN if a task has no score.

        Args:
            source: `RUNS_SOURCE` or `PUBLISHED`.
            method: method of the scores.
            obs: observation type.
            group: tasks with their horizon.
        """
        scores, _ = self._scores(source, method, obs, group)
        return float(np.mean([own.mean() for own in scores])) if scores else float("nan")

    def lead(
        self, source: str, method: str, other: str, group: Group
    ) -> tuple[Difference, float] | None:
        """Return the difference of two methods at a group's horizon, in points, from states.

        Args:
            source: `RUNS_SOURCE` or `PUBLISHED`.
            method: the method.
            other: the method that it is compared with.
            group: tasks with their horizon.

        Returns:
            Mean over tasks, and the measured coverage of its 95 % interval; None if a task has no
            score.
        """
        sides = [self._scores(source, name, "state", group) for name in (method, other)]
        (ours, our_pools), (theirs, their_pools) = sides
        if not ours or not theirs:
            return None
        both = list(zip(ours, theirs, strict=True))
        counts = [(len(mine), len(others)) for mine, others in both]
        pools = list(zip(our_pools, their_pools, strict=True))
        gap = if_spread(mean_difference([difference(*pair) for pair in both]))
        return gap, coverage_of_differences(pools, counts)

    def _scores(
        self, source: str, method: str, obs: str, group: Group
    ) -> tuple[list[np.ndarray], Pools]:
        """Return the scores in points of each task, `(num_seeds,)`, and its last scores.

        Both are empty if a task has no score.
        """
        curves = self.curves.get((source, obs))
        if curves is None:
            return [], ()
        for series, selection in select(curves, group.tasks, "", []):
            values, _ = horizon_scores(curves, selection, group, RULE)
            if series[1] == method and not np.isnan(values).any():
                until = np.array([group.steps(task) for task in selection.tasks])
                pools = pools_of(curves, selection.rows, selection.strata, until)
                tasks = range(len(group.tasks))
                return [100 * values[selection.strata == n, 0] for n in tasks], pools
        return [], ()

    @cached_property
    def compared(self) -> ScoreCurves | None:
        """Curves of `pooled` and of the released curves; None without both."""
        if self.released is None or self.pooled.table.empty:
            return None
        return ScoreCurves(merge([self.pooled, self.released]))

    @cached_property
    def comparison(self) -> Comparison | None:
        """Comparison of these runs with the released curves, as in `reproduce.py`."""
        curves = self.compared
        return None if curves is None else compare_tasks(curves, RULE, DEFAULT, TASK_MARGIN)

    def domains(self, method: str, obs: str, tasks: Sequence[str]) -> pd.DataFrame:
        """Return the verdicts of `reproduce.py methods=… tasks=…` on each domain.

        Args:
            method: method of the runs.
            obs: observation type.
            tasks: names of tasks.
        """
        found = self.comparison
        if found is None:
            return pd.DataFrame()
        table = found.tasks
        chosen = (table["method"] == method) & (table["obs"] == obs) & table["task"].isin(tasks)
        rows = np.flatnonzero(chosen.to_numpy())
        if not len(rows):
            return pd.DataFrame()
        own = Comparison(
            table.iloc[rows].reset_index(drop=True),
            tuple(found.scores[row] for row in rows),
            tuple(found.least[row] for row in rows),
            tuple(found.pools[row] for row in rows),
            (),
        )
        domains = compare_domains(own, None)
        return domains[domains["domain"] != "all"]

    @cached_property
    def agents(self) -> pd.DataFrame:
        """Comparison of multi-task agents with the paper's scores, as in `reproduce.py`."""
        curves = ScoreCurves(self.runs.select(step_unit=NUM_UPDATES), NUM_UPDATES)
        scores = paper_scores(scaling_spec(self.catalog))
        return compare_agents(curves, scores, RULE, DEFAULT, DOMAIN_MARGINS["tdmpc2"])


def coverage(records: Records, method: str, obs: str, group: Group) -> str:
    """Return how many tasks, steps and seeds of a group were run; empty if none was.

    Steps are the last ones of the runs, and the budgets of their tasks in the paper.

    Args:
        records: own runs.
        method: method of the runs.
        obs: observation type.
        group: tasks.
    """
    chosen = records.select(methods=[method], obs=obs, tasks=group.tasks, step_unit=ENV_STEPS)
    if chosen.table.empty:
        return ""
    curves = ScoreCurves(chosen)
    tasks = curves.runs["task"].unique()
    seeds = curves.runs.groupby("task")["seed"].nunique()
    full = [variant_budget(run.task, run.obs, run.variant) for run in curves.runs.itertuples()]
    return (
        f"{len(tasks)} of {len(group.tasks)} task{'s' * (len(group.tasks) > 1)}, "
        f"{span_text(curves.last_steps.min(), curves.last_steps.max())} of "
        f"{span_text(min(full), max(full))} env steps, "
        f"{span_text(seeds.min(), seeds.max())} seed{'s' * (seeds.max() > 1)}"
    )


def _in_any_precision(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose variants do not state the precision."""
    return table.assign(variant=[in_any_precision(name) for name in table["variant"]])


def _is_exact(variant: str, overrides: Mapping[str, Any]) -> bool:
    """Return whether a run has the paper's settings, whatever its precision and observations."""
    named = in_any_precision(variant) in (DEFAULT, f"{DEFAULT}[obs=rgb]")
    return named and not algorithm_settings(overrides)
