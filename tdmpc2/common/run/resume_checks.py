"""What a run directory may be used for: comparing it with what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tdmpc2.common.run.provenance import git_commit, provenance
from tdmpc2.common.run.run_files import State, read_status, step_of
from tdmpc2.common.run.spec import CommonOptions, RunSpec
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.common.system.errors import UserError


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        directory: of the run.
        state: as in `status.json`.
        step: where it stands, in the unit of its budget.
        message: for people.
    """

    directory: Path
    state: State
    step: int
    message: str = ""

    def sentence(self, unit: str) -> str:
        """For people.

        Args:
            unit: of its budget, in the singular.
        """
        text = f"{self.state} at {unit} {self.step:,}: {self.directory}"
        return f"{text} ({self.message})" if self.message else text


def existing_outcome(
    directory: Path, spec: RunSpec, fixed: Mapping[str, Any], options: CommonOptions
) -> RunResult | None:
    """Compares with what the run directory holds already, before anything is touched.

    Returns:
        The record of a run that needs no more work; None if there is work.
    """
    known = read_json(directory / "spec.json")
    status = read_status(directory)
    if known is None or status is None:
        return None
    if known.get("identity") != spec.identity:
        raise UserError(f"{directory}: holds another run ({known.get('identity')})")
    for key, value in fixed.items():
        if known.get(key) != value:
            raise UserError(
                f"{directory}: was begun with {key}={known.get(key)}, not {value}; "
                f"use that, or another folder with runs="
            )
    state, step = status["state"], step_of(status)
    if state == "DIVERGED":
        return RunResult(directory, state, step, status["message"])
    if state == "COMPLETED":
        if step >= spec.budget:
            return RunResult(directory, state, step, "already finished")
        if spec.budget_unit == "num_updates":
            return None  # its dataset is still there
        if not known.get("keep_replay"):
            raise UserError(
                f"{directory}: finished at {step:,} env steps without keep_replay=true, so it "
                f"cannot go on to {spec.budget:,}; choose another folder with runs= to start anew"
            )
        if not getattr(options, "keep_replay", False):
            raise UserError(f"{directory}: keeps its replay; say keep_replay=true to continue it")
    return None


def register_attempt(directory: Path, *, allow_change: bool) -> dict[str, Any]:
    """Adds this attempt to `attempts.json`; refuses another commit than the last one's."""
    if not allow_change:
        check_commit(directory, git_commit())
    attempt = provenance(directory / "provenance")
    write_json(directory / "attempts.json", [*_attempts(directory), attempt])
    return attempt


def check_commit(directory: Path, commit: str | None) -> None:
    """Refuses to go on with a run by another commit than the last attempt's.

    Raises:
        UserError: it differs.
    """
    attempts = _attempts(directory)
    if attempts and attempts[-1]["commit"] != commit:
        raise UserError(
            f"{directory}: was run by commit {attempts[-1]['commit']}, this is "
            f"{commit}; go back to that commit, or say allow_commit_change=true"
        )


def _attempts(directory: Path) -> list[dict[str, Any]]:
    return read_json(directory / "attempts.json") or []
