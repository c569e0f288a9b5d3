"""Power of a planned comparison with the published curves, by method and domain."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.records.sources import PUBLISHED
from analysis.stats.equivalence import LEVEL, MOST_SEEDS
from analysis.stats.margins import domain_margin, level_for_loss, smallest_margin
from analysis.stats.multiplicity import level_shares
from analysis.stats.power import Sides, points_text, seeds_needed, smallest_effect, spread_factors
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.task_variances import TaskVariances

COLUMNS = [
    *("method", "obs", "domain", "num_tasks", "num_ours", "loss", "loss_low", "loss_high"),
    *("margin", "settled", "seeds_needed", "seeds_low", "seeds_high"),
]


@dataclass(frozen=True)
class _Domain:
    """Published spreads of one domain.

    Attributes:
        name: method, observation type and domain.
        variances: variance of each task's published seeds, with its smallest value, `(num_tasks,)`.
        least: smallest variance of each task, `(num_tasks,)`.
        counts: number of published seeds, `(num_tasks,)`.
    """

    name: tuple[str, str, str]
    variances: np.ndarray
    least: np.ndarray
    counts: np.ndarray

    def sides(self, num_ours: int) -> Sides:
        """Return the comparison of equal agents with the published seeds."""
        counts = np.array([np.full_like(self.counts, num_ours), self.counts])
        return Sides(np.array([self.variances] * 2), counts, np.array([self.least] * 2))

    def factors(self, num_ours: int) -> tuple[float, float]:
        """Return `spread_factors`; both sides have the published spread."""
        terms = self.variances * (1 / num_ours + 1 / self.counts)
        return spread_factors(terms, self.counts - 1)


def reproduction_power(
    curves: ScoreCurves, num_ours: int, margin: float | None, tasks: Collection[str] = ()
) -> pd.DataFrame:
    """Return which losses our seeds would find, and how many seeds settle the margins.

    Our runs are assumed to have the published spread, at the full budget. A loss is found at the
    level that Holm's correction gives the domain first; "reproduced" is the equivalence test. Both
    have the probability `margins.POWER`.

    Args:
        curves: the published curves.
        num_ours: planned seeds of each task.
        margin: equivalence margin of the means over domains; None for the default of each method.
        tasks: only these tasks; all if empty.

    Returns:
        One row per method, observation type and domain, columns `COLUMNS`: loss in points with its
        95 % interval, margin, whether it can be settled, seeds that settle it with their interval
        (`MOST_SEEDS` + 1 if these do not suffice).
    """
    runs = curves.runs[curves.runs["source"] == PUBLISHED]
    groups = runs.groupby(["method", "obs", "domain"], sort=False)
    published = TaskVariances(curves)
    found = [
        _domain(published, (str(method), str(obs), str(domain)), members, tasks)
        for (method, obs, domain), members in groups
    ]
    domains = [domain for domain in found if domain is not None]
    margins = [
        domain_margin(one.name[0], float(smallest_margin(one.variances, one.counts)), margin)
        for one in domains
    ]
    needs = [
        float(level_for_loss(one.variances, one.counts, np.full_like(one.counts, num_ours)))
        if settled
        else np.inf
        for one, (_, settled) in zip(domains, margins, strict=True)
    ]
    if not domains:
        return pd.DataFrame(columns=COLUMNS)
    levels = LEVEL * level_shares(np.array(needs), LEVEL)
    rows = [
        _row(domain, num_ours, *own_margin, float(level))
        for domain, own_margin, level in zip(domains, margins, levels, strict=True)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def power_lines(table: pd.DataFrame) -> list[str]:
    """Return a line for each row of `reproduction_power`."""
    lines = []
    for row in table.to_dict("records"):
        pixels = "" if row["obs"] == "state" else f" ({row['obs']})"
        tasks = f"{row['num_tasks']} task{'s' * (row['num_tasks'] > 1)}"
        if row["settled"]:
            low, count, high = (
                f"over {MOST_SEEDS}" if number > MOST_SEEDS else str(number)
                for number in (row["seeds_low"], row["seeds_needed"], row["seeds_high"])
            )
            span = "" if low == high else f" ({low} to {high})"
            needed = f"equal within ±{row['margin']:g} needs {count} seeds{span}"
        else:
            needed = f"equal within ±{row['margin']:g} cannot be settled with the published seeds"
        loss, *ends = map(points_text, (row["loss"], row["loss_low"], row["loss_high"]))
        lines.append(
            f"{row['method']}{pixels}, {row['domain']} ({tasks}): {row['num_ours']} seeds find a "
            f"loss of {loss} points ({' to '.join(ends)}); {needed}"
        )
    return lines


def _domain(
    published: TaskVariances,
    name: tuple[str, str, str],
    members: pd.DataFrame,
    tasks: Collection[str],
) -> _Domain | None:
    """Return the published spreads of a domain; None if no chosen task has two seeds."""
    spreads = [
        published.published(own.index.to_numpy())
        for task, own in members.groupby("task", sort=False)
        if not tasks or task in tasks
    ]
    known = [spread for spread in spreads if spread is not None]
    return _Domain(name, *map(np.array, zip(*known, strict=True))) if known else None


def _row(
    domain: _Domain, num_ours: int, margin: float, settled: bool, level: float
) -> tuple[object, ...]:
    """Return the row of one domain."""
    sides, factors = domain.sides(num_ours), domain.factors(num_ours)
    loss = smallest_effect(sides, None, level)
    low, high = (factor * loss for factor in factors)
    counts = [
        seeds_needed(sides.scaled(factor), margin, "same", both=False) or MOST_SEEDS + 1
        for factor in (1.0, *factors)
    ]
    size = len(domain.variances)
    return (*domain.name, size, num_ours, loss, low, high, margin, settled, *counts)
