"""Facts of runs of which only the curve is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from analysis.records.curve_formats import PIXELS, Identity
from analysis.records.evaluations import ENV_STEPS, OWN_RETURN, score_name
from analysis.records.run_reader import PAPER_EPISODES, Run
from analysis.records.sources import PUBLISHED
from tdmpc2.envs.tasks import PIXEL_ENV_STEPS, RETURN_RANGE, TASKS

ENDED = "ENDED"
"""State of a curve that is not continued: nothing else is known about its run."""


def facts_of(
    source: str,
    identity: Identity,
    steps: np.ndarray,
    path: Path,
    *,
    kind: str = "return",
    budget: int | None = None,
) -> Run:
    """Return the facts of a run of which only the curve is known.

    Its budget is its last recorded step, unless it is declared; that of the released curves is the
    paper's. So the last value of a curve that was cut does not represent later steps.

    Args:
        source: name of the source.
        identity: method, ending in `PIXELS` if it learned from pixels, variant, task and seed.
        steps: recorded env steps, `(num_points,)`.
        path: file or folder of the curve.
        kind: `return` or `success`, for a task that is not in the task table.
        budget: declared budget, in env steps.
    """
    pixels = identity.method.endswith(PIXELS)
    task = str(identity.task)
    known = TASKS.get(task)
    if budget is None and source == PUBLISHED and known is not None:
        budget = PIXEL_ENV_STEPS if pixels else known.env_steps
    score = OWN_RETURN if kind == "return" else kind
    if known is not None:
        ranged = known.score_range != RETURN_RANGE
        score = score_name(known.metric, known.score_range) if ranged else known.metric
    return {
        "source": source,
        "method": identity.method.removesuffix(PIXELS),
        "variant": identity.variant + ("[obs=rgb]" if pixels else ""),
        "model_size": "",
        "dataset": "",
        "task": task,
        "seed": int(str(identity.seed)),
        "domain": "other" if known is None else known.domain,
        "obs": "rgb" if pixels else "state",
        "score": score,
        "state": ENDED,
        "budget": int(np.max(steps, initial=0)) if budget is None else budget,
        "budget_unit": "env_steps",
        "overrides": {},
        "commit": "",
        "num_parameters": None,
        "simulators": "",
        "directory": path,
        "task_set": "",
        "tasks": [task],
        "step_unit": ENV_STEPS,
        "dataset_name": "",
        "checksum": "",
        "eval_episodes": PAPER_EPISODES,
    }
