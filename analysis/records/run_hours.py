"""Device time of a finished single-task run: core-hours or GPU-hours, from its recorded speed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from analysis.records.run_reader import read_json
from tdmpc2.common.run.run_files import SETTLED
from tdmpc2.common.run.schemas import seeds_together

CORE_HOURS, GPU_HOURS = "core-hours", "GPU-hours"


def read_hours(directory: Path) -> tuple[float, str] | None:
    """Return the device time of a finished run and its unit; None if its records lack it.

    The time is that of all env steps at the run's last recorded speed, which includes all
    evaluations but the one at the end. Core-hours are hours times threads. Seeds that train in one
    process have equal shares of its time.

    Args:
        directory: run directory, with `status.json` and `numeric.json`.
    """
    status, numeric = (read_json(directory / name, []) for name in ("status.json", "numeric.json"))
    if not status or not numeric or status.get("state") not in SETTLED:
        return None
    on_gpu = str(numeric.get("device")).startswith("cuda")
    values = (status.get("env_step"), status.get("env_steps_per_second"))
    step, speed, devices = map(_positive, (*values, 1 if on_gpu else numeric.get("threads")))
    if step is None or speed is None or devices is None:
        return None
    hours = step / speed * devices / 3600 / seeds_together(numeric)
    return hours, GPU_HOURS if on_gpu else CORE_HOURS


def _positive(value: Any) -> float | None:
    """Return a number; None if the value is not a number above 0."""
    is_number = isinstance(value, int | float) and math.isfinite(value) and value > 0
    return float(value) if is_number else None
