"""Section `seeds`: throughput of several seeds as one batch, against one seed."""

from __future__ import annotations

import numpy as np
import torch

from gpu_sections.bench import make_filled_agent, observation, seconds_of, set_up
from gpu_sections.report import Report, Settings
from tdmpc2 import acceleration
from tdmpc2.common.training.loop_requests import Act
from tdmpc2.seed_batch import SeedBatch

SIZES = (1, 8, 3, 16)  # the most important first, in case the time limit is reached


def run(report: Report, settings: Settings) -> None:
    """Measure plan and update of 1, 3, 8 and 16 seeds, in TF32 and float32."""
    for precision in ("tf32", "fp32") if settings.on_gpu else ("fp32",):
        set_up(settings, precision)
        alone = None
        for size in (1, 3) if settings.small else SIZES:
            seconds = seconds_of_batch(settings, size, precision)
            decisions = size / seconds
            alone = decisions if alone is None else alone
            report.add(f"{size} seeds ({precision}): plan and update", 1e3 * seconds, "ms")
            report.add(f"{size} seeds ({precision}): throughput of one", decisions / alone, "x")
            torch._dynamo.reset()
            if settings.on_gpu:
                torch.cuda.empty_cache()


def seconds_of_batch(settings: Settings, size: int, precision: str) -> float:
    """Return the seconds of one plan and one update of a batch of seeds.

    Args:
        settings: settings of the section.
        size: number of seeds.
        precision: `fp32` or `tf32`.

    Raises:
        RuntimeError: the batch could not be compiled.
    """
    seeds = range(size)
    pairs = [make_filled_agent(settings, seed=seed, precision=precision) for seed in seeds]
    agents, replays = [agent for agent, _ in pairs], [replay for _, replay in pairs]
    batch = SeedBatch(agents, [True] * size)
    compiler = None if settings.small else acceleration.install(batch)
    requests = [Act(observation(), np.array([False]), explore=True)] * size

    def decision() -> None:
        batch.act(requests)
        batch.update(replays)

    seconds = seconds_of(settings, decision, 3 if settings.small else 20)
    if compiler is not None and not compiler.enabled:
        raise RuntimeError("compilation failed; see the warning above")
    return seconds
