"""Copies among sources: methods of two sources whose curves are the same numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from analysis.records.field_results import MEAN, Series
from tdmpc2.envs.tasks import TASKS

TOLERANCE = 0.011
"""Largest difference, in points, of scores that are equal but for rounding of returns to 0.1."""
LEAST_POINTS = 30
"""Least number of shared points away from the ends of the scale that can show a copy."""
AGREEMENT = 0.9
"""Least share of such points that agree in a copy. Independent runs agree in up to 5 per cent."""

Key = tuple[str, str]
"""Source and method."""


@dataclass(frozen=True)
class Copy:
    """Curves of a method that are those of another source.

    Attributes:
        first, second: source and method.
        tasks: number of shared tasks.
        points: number of shared points that were compared.
        agreement: share of these that are equal.
    """

    first: Key
    second: Key
    tasks: int
    points: int
    agreement: float

    @property
    def found(self) -> bool:
        """Whether the second is a copy of the first."""
        return self.points >= LEAST_POINTS and self.agreement >= AGREEMENT

    def __str__(self) -> str:
        """Describe it in a sentence."""
        (source, method), (other, own) = self.first, self.second
        return (
            f"{own} of {other} is a copy of {method} of {source}: {100 * self.agreement:.0f} % of "
            f"{self.points} mean scores on {self.tasks} tasks are equal; counted once"
        )


def mean_curves(series: Sequence[Series]) -> dict[Key, dict[str, dict[int, float]]]:
    """Return the mean score over seeds at each step, by source and method, and by rated task."""
    sums: dict[Key, dict[str, dict[int, tuple[float, int]]]] = {}
    for one in series:
        if one.task not in TASKS:
            continue
        curve = sums.setdefault((one.source, one.method), {}).setdefault(one.task, {})
        for step, score in zip(one.steps.tolist(), one.scores.tolist(), strict=True):
            total, count = curve.get(step, (0.0, 0))
            curve[step] = total + score, count + 1
    return {
        key: {
            task: {step: total / count for step, (total, count) in curve.items()}
            for task, curve in tasks.items()
        }
        for key, tasks in sums.items()
    }


def compare_all(series: Sequence[Series]) -> Iterator[Copy]:
    """Yield the comparison of all pairs of methods of different sources that share tasks."""
    curves = mean_curves(series)
    for first, second in combinations(curves, 2):
        if first[0] == second[0]:
            continue
        shared = curves[first].keys() & curves[second].keys()
        pairs = np.array(
            [
                (curves[first][task][step], curves[second][task][step])
                for task in sorted(shared)
                for step in sorted(curves[first][task].keys() & curves[second][task].keys())
                if step > 0
            ]
        ).reshape(-1, 2)
        # Scores at the ends of the scale agree without being copies.
        inside = ((pairs > 1) & (pairs < 99)).all(axis=1)
        equal = np.abs(pairs[inside, 0] - pairs[inside, 1]) <= TOLERANCE
        if len(equal):
            yield Copy(first, second, len(shared), len(equal), float(equal.mean()))


def united(series: Sequence[Series]) -> tuple[list[Series], list[Copy]]:
    """Return the series without copies, and the copies.

    Copies of a method are united under the name of the first source. Of each task, the curves of
    one source are kept: those with seeds before means, then the longest, then the first.

    Args:
        series: series of all sources, in the order of preference.
    """
    copies = [found for found in compare_all(series) if found.found]
    names: dict[Key, Key] = {}
    for copy in copies:
        names.setdefault(copy.second, names.get(copy.first, copy.first))
    by_task: dict[tuple[Key, str], dict[Key, list[Series]]] = {}
    for one in series:
        own = (one.source, one.method)
        by_task.setdefault((names.get(own, own), one.task), {}).setdefault(own, []).append(one)
    kept = []
    for ((source, method), _), versions in by_task.items():
        best = max(versions.values(), key=lambda found: (found[0].seed is not MEAN, _last(found)))
        kept += [replace(one, source=source, method=method) for one in best]
    return kept, copies


def _last(series: Sequence[Series]) -> int:
    return max(int(one.steps[-1]) for one in series)
