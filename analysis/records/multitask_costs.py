"""Cost of a multi-task run: device-days, from its measured update rate."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.records.csv_lines import fields_of, whole_lines
from analysis.records.curve_checks import number
from analysis.records.problems import Problem
from analysis.records.run_reader import read_json

SECONDS_A_DAY = 86_400
_RATE = "updates_per_second"


@dataclass(frozen=True)
class Cost:
    """Update rate of a run and its hardware.

    Attributes:
        kind: "GPU" or "CPU".
        device: name of the device.
        processes: number of processes that trained together, each on its own device.
        updates_per_second: median over the timings of the run.
    """

    kind: str
    device: str
    processes: int
    updates_per_second: float

    def days(self, num_updates: float) -> float:
        """Return the device-days that `num_updates` updates take, evaluations included."""
        return self.processes * num_updates / self.updates_per_second / SECONDS_A_DAY


def read_cost(directory: Path, problems: list[Problem]) -> Cost | None:
    """Return the cost of a run, or None if its records do not contain it.

    Args:
        directory: run directory.
        problems: list to which problems in `numeric.json` and `timing.csv` are appended.
    """
    path = directory / "numeric.json"
    numeric = read_json(path, problems)
    rate = median_rate(directory / "timing.csv", problems, _RATE)
    if numeric is None or rate is None:
        return None
    device = numeric.get("device")
    if device not in ("cpu", "cuda"):
        problems.append(Problem(str(path), None, f"unknown device {device!r} (valid: cpu, cuda)"))
        return None
    kind, key = ("GPU", "gpu") if device == "cuda" else ("CPU", "cpu")
    together = re.match(r"(\d+) processes", str(numeric.get("split", "")))
    name = str(numeric.get(key) or "unknown")
    return Cost(kind, name, int(together[1]) if together else 1, rate)


def median_rate(path: Path, problems: list[Problem], column: str) -> float | None:
    """Return the median update or step rate in `timing.csv`, or None if there is none.

    Args:
        path: the file.
        problems: list to which problems of the file are appended.
        column: name of the rate.
    """
    lines = whole_lines(path, problems, "no timing yet")
    if not lines:
        return None
    header = lines[0].strip().split(",")
    if column not in header:
        problems.append(Problem(str(path), 1, f"missing column {column}"))
        return None
    rates = []
    for place, line in enumerate(lines[1:], start=2):
        try:
            rates.append(_rate(fields_of(header, line)[column], column))
        except ValueError as error:
            problems.append(Problem(str(path), place, f"{error}; line skipped"))
    return float(np.median(rates)) if rates else None


def _rate(text: str, column: str) -> float:
    """Return a rate; raise ValueError if it is not a number above 0."""
    rate = number(text, column)
    if rate <= 0:
        raise ValueError(f"{column} is {rate:g}, must be above 0")
    return rate
