"""Records of a run directory: `spec.json`, `status.json`, `eval.csv`, `train.csv`, `timing.csv`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from tdmpc2.common.run.schemas import State, StatusFile
from tdmpc2.common.run.spec import RunSpec
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.file_errors import naming

# States in which starting the run again does no work. A COMPLETED run may be continued with a
# larger budget.
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
# Keys in `status.json` for the progress and the budget of a run, by unit of the budget.
PROGRESS_KEYS = {"env_steps": ("env_step", "env_steps"), "num_updates": ("num_updates", "budget")}


class Mark(TypedDict):
    """Content of a CSV file up to a checkpoint: its size in bytes and its SHA-256 checksum."""

    size: int
    sha256: str | None


def format_value(value: float | int | str) -> str:
    """Return a value as the CSV files write it: floats with 8 significant digits, no locale."""
    return f"{value:.8g}" if isinstance(value, float) else str(value)


class CsvRecord:
    """An append-only CSV file; each line is flushed when it is written.

    The header is written with the first line. All lines must have the same columns.

    Args:
        path: path of the file.
        check: called before each write, see `RunFiles`.
    """

    def __init__(self, path: Path, check: Callable[[], None] = lambda: None) -> None:
        self.path, self.check = path, check
        self.columns: list[str] | None = None
        if path.exists() and path.stat().st_size:
            with naming(path):
                self.columns = path.read_text(encoding="utf-8").splitlines()[0].split(",")

    def append(self, row: Mapping[str, float | int | str]) -> None:
        """Append one line with a single `write`.

        Raises:
            UserError: the columns differ from those of the file.
        """
        self.check()
        text = ""
        if self.columns is None:
            self.columns = list(row)
            text = ",".join(self.columns) + "\n"
        if set(row) != set(self.columns):
            other = ", ".join(sorted(set(row) ^ set(self.columns)))
            raise UserError(
                f"{self.path}: only some of its lines would have the columns {other}; every update "
                "must return the same metrics"
            )
        text += ",".join(format_value(row[column]) for column in self.columns) + "\n"
        with naming(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(text)
            file.flush()

    def mark(self) -> Mark:
        """Flush the file to disk, and return what a checkpoint relies on: its present content."""
        if not self.path.exists():
            return {"size": 0, "sha256": None}
        with naming(self.path), open(self.path, "rb") as file:
            content = file.read()
            os.fsync(file.fileno())
        return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def cut_back(self, mark: Mark | int) -> None:
        """Truncate the file to its content at a mark.

        Args:
            mark: what `mark` returned; in checkpoints of version 0.4.0, the size only.

        Raises:
            UserError: that content has changed or is no longer there.
        """
        self.check()
        size, checksum = (mark, None) if isinstance(mark, int) else (mark["size"], mark["sha256"])
        if size == 0:
            self.path.unlink(missing_ok=True)
            self.columns = None
            return
        with naming(self.path):
            content = self.path.read_bytes()[:size] if self.path.is_file() else b""
        if len(content) < size:
            raise UserError(
                f"{self.path}: {len(content)} bytes, but the checkpoint recorded {size}; the file "
                "was shortened by hand or by a full disk: restore it, or move the run directory "
                "away"
            )
        if checksum is not None and hashlib.sha256(content).hexdigest() != checksum:
            raise UserError(
                f"{self.path}: its lines before the checkpoint have changed since it was saved; "
                "restore the file, or move the run directory away"
            )
        os.truncate(self.path, size)


class RunFiles:
    """`spec.json`, `status.json` and the three CSV files of one run.

    `eval.csv` and `train.csv` contain no times, so that repeated and resumed runs can be compared
    byte for byte. Times are written to `timing.csv`.

    Args:
        directory: the run directory.
        spec: specification of the run.
        facts: further entries of `spec.json` for readers of the records: domain and metric of the
            task, and the agent's model size.
        check: function that raises an error if this process may no longer write to the directory;
            called before each write.
    """

    def __init__(
        self,
        directory: Path,
        spec: RunSpec,
        facts: Mapping[str, Any],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.directory, self.spec, self.facts, self.check = directory, spec, dict(facts), check
        self.csv = {
            name: CsvRecord(directory / f"{name}.csv", check)
            for name in ("eval", "train", "timing")
        }
        self._last_status = 0.0

    def write_spec(self, options: Mapping[str, Any]) -> None:
        """Write `spec.json`: the specification, the facts, and these options."""
        self.check()
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
        """Write `status.json`.

        Args:
            state: state of the run.
            step: progress in the unit of the budget.
            message: explanation for readers.
            **extra: further entries, e.g. the latest returns.
        """
        self.check()
        self._last_status = time.monotonic()
        progress_key, budget_key = PROGRESS_KEYS[self.spec.budget_unit]
        write_json(
            self.directory / "status.json",
            {
                "state": state,
                progress_key: step,
                budget_key: self.spec.budget,
                "message": message,
                "updated": datetime.now(UTC).isoformat(timespec="seconds"),
                "pid": os.getpid(),
                **extra,
            },
        )

    def set_progress(self, step: int, **extra: Any) -> None:
        """Update `status.json` of a running run, at most every two seconds.

        An error of the file system, such as a full disk, leaves the old file: the run does not
        depend on it, and tries again two seconds later.
        """
        if time.monotonic() - self._last_status >= STATUS_SECONDS:
            with contextlib.suppress(OSError):
                self.set_state("RUNNING", step, **extra)

    def marks(self) -> dict[str, Mark]:
        """Flush each CSV file to disk and return its mark, for a checkpoint."""
        return {name: record.mark() for name, record in self.csv.items()}

    def cut_back(self, marks: Mapping[str, Mark | int]) -> None:
        """Truncate each CSV file to its content at a checkpoint.

        The work after the checkpoint is redone, and its lines are then written again.

        Args:
            marks: result of `marks`.

        Raises:
            UserError: the content of a file has changed or is no longer there.
        """
        for name, record in self.csv.items():
            record.cut_back(marks.get(name, 0))


def read_status(directory: Path) -> dict[str, Any] | None:
    """Return the contents of `status.json`; None if it does not exist.

    Raises:
        UserError: the file is damaged.
    """
    path = directory / "status.json"
    status = read_json(path, StatusFile)
    if status is not None and not any(key in status for key, _ in PROGRESS_KEYS.values()):
        raise UserError(f"{path}: damaged (no progress); restore it or move it away")
    return status


def step_of(status: Mapping[str, Any]) -> int:
    """Return the progress of a run from its status, in the unit of its budget."""
    return next(int(status[key]) for key, _ in PROGRESS_KEYS.values() if key in status)


def recorded_budget(status: Mapping[str, Any]) -> int | None:
    """Return the budget of a run's last attempt from its status; None if it is not recorded."""
    return next((int(status[key]) for _, key in PROGRESS_KEYS.values() if key in status), None)
