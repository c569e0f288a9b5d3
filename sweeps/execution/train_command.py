"""Training in this process what the arguments of the train command say."""

from __future__ import annotations

from collections.abc import Sequence

from sweeps.tracking.reference_scores import measure_reference_scores
from tdmpc2.common.run.resume_checks import RunResult


def train(arguments: Sequence[str], *, reference_scores: bool = False) -> list[RunResult]:
    """Trains one run, or several seeds as one batch; agents of several tasks from a dataset.

    Args:
        arguments: of the train command.
        reference_scores: also measure the reference scores of the tasks, for the figures; not for
            multi-task agents.

    Returns:
        How each ended.

    Raises:
        UserError: bad arguments, or run directories that cannot be used.
        StoppedError: a run was asked to stop.
    """
    from tdmpc2.envs.task_variants import task_of
    from tdmpc2.runners import offline
    from tdmpc2.runners.online import run_seeds
    from tdmpc2.train import parse

    if offline.is_meant(arguments):
        record = offline.run_offline(*offline.parse(arguments))
        return [] if record is None else [record]
    specs, options = parse(arguments)
    ended = run_seeds(specs, options)
    if reference_scores:
        assets = (specs[0].assets or "official").partition("-")[0]
        measure_reference_scores([task_of(specs[0])], options.runs, assets=assets)
    return ended
