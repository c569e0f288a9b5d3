"""Options that are not part of a run's identity, but must stay the same for the whole run."""

from __future__ import annotations

from typing import Any

from tdmpc2.common.run.spec import CommonOptions, OfflineOptions, RunSpec
from tdmpc2.envs import gymnasium_tasks
from tdmpc2.envs.task_variants import task_of

OFFLINE_EVAL_EVERY = 100_000
"""Default number of updates between evaluations of a run that trains from a dataset."""


def fixed_options(spec: RunSpec, options: CommonOptions) -> dict[str, Any]:
    """Return what `spec.json` records, and a resume must repeat: the evaluations and records.

    Args:
        spec: the run.
        options: its options; `OfflineOptions` if it trains from a dataset.
    """
    if isinstance(options, OfflineOptions):
        return {
            "eval_every": options.eval_every or OFFLINE_EVAL_EVERY,
            "eval_episodes": options.eval_episodes,
            "log_every": options.log_every,
        }
    task = task_of(spec)
    return {
        "eval_every": options.eval_every or task.eval_every,
        "eval_episodes": options.eval_episodes,
        **gymnasium_tasks.recorded(task),
    }
