"""Training in this process what the words of the train command say."""

from __future__ import annotations

from collections.abc import Sequence

from sweeps.tracking.reference_scores import measure_reference_scores
from tdmpc2.common.run.resume_checks import RunResult


def train(words: Sequence[str], *, floors: bool = False) -> list[RunResult]:
    """Trains one run, or several seeds as one batch; agents of several tasks from a dataset.

    Args:
        words: of the train command.
        floors: also measure what doing nothing scores, for the figures. Agents of several tasks
            are not compared with that.

    Returns:
        How each ended.

    Raises:
        UserError: bad words, or run directories that cannot be used.
        StoppedError: a run was asked to stop.
    """
    from tdmpc2.runners import offline
    from tdmpc2.runners.online import run_seeds
    from tdmpc2.train import parse

    if offline.is_meant(words):
        record = offline.run_offline(*offline.parse(words))
        return [] if record is None else [record]
    specs, options = parse(words)
    ended = run_seeds(specs, options)
    if floors:
        assets = (specs[0].assets or "official").partition("-")[0]
        measure_reference_scores([specs[0].task], options.runs, assets=assets)
    return ended
