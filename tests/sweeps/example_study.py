"""A study of one claim on two tasks, and scores of its runs."""

from __future__ import annotations

import numpy as np

from analysis.stats.group_sequential import Design
from sweeps.studies.scores import Scores
from sweeps.studies.study import Claim, Study

CLAIM = Claim("no-x", "tdmpc2", "no-x", "tdmpc2", "default", "lower", "scores lower")
DESIGN = Design((2, 3, 5))
STUDY = Study("tasks", {"a": 100, "b": 200}, (1, 2, 3, 4, 5), DESIGN, 5.0, (CLAIM,))


def scores(
    loss: float, *, spread: float = 1.0, until: int = 5, episodes: int | None = None
) -> Scores:
    """Scores of all runs, of which the seeds up to `until` have ended."""
    rng = np.random.default_rng(0)
    points = {}
    for variant, mean in (("default", 60.0), ("no-x", 60.0 - loss)):
        for task in STUDY.tasks:
            own = mean + spread * rng.standard_normal(5)
            own[until:] = np.nan
            points["tdmpc2", variant, task] = own
    return Scores(points, dict.fromkeys(STUDY.tasks, episodes))
