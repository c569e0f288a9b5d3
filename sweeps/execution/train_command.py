"""Run the train command in this process."""

from __future__ import annotations

from collections.abc import Sequence

from sweeps.tracking.reference_scores import measure_reference_scores
from tdmpc2.common.run.resume_checks import RunResult


def train(arguments: Sequence[str], *, reference_scores: bool = False) -> list[RunResult]:
    """Train one run, several seeds as one batch, or a multi-task agent from a dataset.

    Args:
        arguments: arguments of the train command.
        reference_scores: whether to also measure the reference scores of the task, which figures
            show; ignored for multi-task agents.

    Returns:
        The result of each run.

    Raises:
        UserError: invalid arguments, or run directories that cannot be used.
        StoppedError: a signal stopped a run.
    """
    from tdmpc2.envs.task_variants import task_of
    from tdmpc2.runners import offline_arguments
    from tdmpc2.runners.offline import run_offline
    from tdmpc2.runners.online import run_seeds
    from tdmpc2.train import parse

    if offline_arguments.is_meant(arguments):
        record = run_offline(*offline_arguments.parse(arguments))
        return [] if record is None else [record]
    specs, options = parse(arguments)
    ended = run_seeds(specs, options)
    if reference_scores:
        assets = (specs[0].assets or "official").partition("-")[0]
        measure_reference_scores([task_of(specs[0])], options.runs, assets=assets)
    return ended
