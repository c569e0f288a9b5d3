"""The files of a run directory that people and the analysis read."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tdmpc2.common.run.spec import RunSpec
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.common.system.errors import UserError

State = Literal["RUNNING", "INTERRUPTED", "COMPLETED", "DIVERGED", "FAILED", "CANCELLED"]
# States that launching again does not change; COMPLETED may be continued with a larger budget.
SETTLED: tuple[State, ...] = ("COMPLETED", "DIVERGED")

EVAL_COLUMNS = (
    "env_step",
    "agent_step",
    "episode_return",
    "episode_return_sd",
    "episode_success",
    "episode_success_ever",
    "episode_length",
    "num_episodes",
)
STATUS_SECONDS = 2.0
# Names in `status.json` of where a run stands and of its budget.
PROGRESS_KEYS = {"env_steps": ("env_step", "env_steps"), "num_updates": ("num_updates", "budget")}


def format_value(value: float | int | str) -> str:
    """A number as the records write it: 8 significant digits, no clock, no locale."""
    return f"{value:.8g}" if isinstance(value, float) else str(value)


class CsvRecord:
    """An append-only CSV file, one flushed line at a time.

    The header is written with the first line, whose columns then stay fixed.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] | None = None
        if path.exists() and path.stat().st_size:
            self.columns = path.read_text().splitlines()[0].split(",")

    def append(self, row: Mapping[str, float | int | str]) -> None:
        """Writes one line in a single `write`."""
        text = ""
        if self.columns is None:
            self.columns = list(row)
            text = ",".join(self.columns) + "\n"
        if set(row) != set(self.columns):
            raise ValueError(f"{self.path}: columns {list(row)} instead of {self.columns}")
        text += ",".join(format_value(row[column]) for column in self.columns) + "\n"
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(text)
            file.flush()

    def size(self) -> int:
        """Bytes written."""
        return self.path.stat().st_size if self.path.exists() else 0

    def sync(self) -> None:
        """Makes what is written durable, so that a checkpoint never knows more than the file."""
        if self.path.exists():
            with open(self.path, "rb") as file:
                os.fsync(file.fileno())

    def cut_back(self, size: int) -> None:
        """Forgets everything after the first `size` bytes."""
        if size == 0:
            self.path.unlink(missing_ok=True)
            self.columns = None
        elif self.size() < size:
            raise UserError(
                f"{self.path}: {self.size()} bytes, but the checkpoint knows {size}; the record "
                "was shortened by hand or by a full disk; restore it, or move the run aside"
            )
        else:
            os.truncate(self.path, size)


class RunFiles:
    """`spec.json`, `status.json` and the three CSV files of one run.

    `eval.csv` and `train.csv` hold no clock values, so that repeated and resumed runs can
    be compared byte for byte; those go to `timing.csv`.

    Args:
        directory: the run directory.
        spec: of the run.
        facts: what else readers of the records need: domain and metric of the task, and the
            agent's model size.
    """

    def __init__(self, directory: Path, spec: RunSpec, facts: Mapping[str, Any]) -> None:
        self.directory, self.spec, self.facts = directory, spec, dict(facts)
        self.csv = {
            name: CsvRecord(directory / f"{name}.csv") for name in ("eval", "train", "timing")
        }
        self._last_status = 0.0

    def write_spec(self, options: Mapping[str, Any]) -> None:
        """Writes what the run is."""
        spec = self.spec
        write_json(
            self.directory / "spec.json",
            {
                "format": 1,
                "method": spec.method,
                "variant": spec.variant,
                "task": spec.task,
                **self.facts,
                "obs": spec.obs,
                "assets": spec.assets,
                "protocol": dict(spec.task_switches),
                "seed": spec.seed,
                "budget": spec.budget,
                "budget_unit": spec.budget_unit,
                "overrides": dict(spec.overrides),
                "identity": spec.identity,
                **({"tasks": spec.tasks, "dataset": spec.dataset} if spec.tasks else {}),
                **({"start": dict(spec.start)} if spec.start else {}),
                **options,
            },
        )

    def set_state(self, state: State, step: int, message: str = "", **extra: Any) -> None:
        """Writes `status.json`.

        Args:
            state: of the run.
            step: where it stands, in the unit of its budget.
            message: for people.
            **extra: figures.
        """
        self._last_status = time.monotonic()
        now, budget = PROGRESS_KEYS[self.spec.budget_unit]
        write_json(
            self.directory / "status.json",
            {
                "state": state,
                now: step,
                budget: self.spec.budget,
                "message": message,
                "updated": datetime.now(UTC).isoformat(timespec="seconds"),
                "pid": os.getpid(),
                **extra,
            },
        )

    def set_progress(self, step: int, **extra: Any) -> None:
        """Refreshes `status.json` of a running run, at most every two seconds."""
        if time.monotonic() - self._last_status >= STATUS_SECONDS:
            self.set_state("RUNNING", step, **extra)

    def sizes(self) -> dict[str, int]:
        """Bytes of each CSV file, all of them on disk, for a checkpoint."""
        for record in self.csv.values():
            record.sync()
        return {name: record.size() for name, record in self.csv.items()}

    def cut_back(self, sizes: Mapping[str, int]) -> None:
        """Cuts each CSV file back to a checkpoint, so that each line stands exactly once."""
        for name, record in self.csv.items():
            record.cut_back(sizes.get(name, 0))


def read_status(directory: Path) -> dict[str, Any] | None:
    """`status.json` of a run directory; None if there is none."""
    return read_json(directory / "status.json")


def step_of(status: Mapping[str, Any]) -> int:
    """Where a run stands, in the unit of its budget."""
    return next(int(status[now]) for now, _ in PROGRESS_KEYS.values() if now in status)
