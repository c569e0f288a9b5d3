"""Checks before a run starts: does its run directory hold the same run, and is work left?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tdmpc2.common.run.checkpoint_folders import existing_checkpoints
from tdmpc2.common.run.provenance import provenance
from tdmpc2.common.run.run_files import read_status, recorded_budget, step_of
from tdmpc2.common.run.schemas import Attempt, Manifest, SpecFile, State
from tdmpc2.common.run.source_version import git_commit
from tdmpc2.common.run.spec import CommonOptions, RunSpec
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.common.system.errors import UserError


@dataclass(frozen=True)
class RunResult:
    """Final state of a run.

    Attributes:
        directory: the run directory.
        state: state as in `status.json`.
        step: progress in the unit of the budget (env steps or updates).
        message: explanation, e.g. the reason for a divergence; may be empty.
    """

    directory: Path
    state: State
    step: int
    message: str = ""

    def sentence(self, unit: str) -> str:
        """Return a one-line summary to print.

        Args:
            unit: unit of the budget, in the singular, e.g. `env step`.
        """
        text = f"{self.state} at {unit} {self.step:,}: {self.directory}"
        return f"{text} ({self.message})" if self.message else text


def existing_outcome(
    directory: Path, spec: RunSpec, fixed: Mapping[str, Any], options: CommonOptions
) -> RunResult | None:
    """Compare a run with the contents of its run directory; nothing is written.

    Args:
        directory: the run directory.
        spec: the run to start.
        fixed: options that must stay the same for the whole run, e.g. `eval_every`.
        options: the other options.

    Returns:
        The result of a run that needs no more work; None if there is work to do.

    Raises:
        UserError: the directory holds another run or was started with other fixed options, or the
            run is finished and cannot be continued to a larger budget.
    """
    saved_spec = read_json(directory / "spec.json", SpecFile)
    status = read_status(directory)
    if saved_spec is None or status is None:
        return None
    if saved_spec.get("identity") != spec.identity:
        raise UserError(
            f"{directory}: contains a run with other settings (identity "
            f"{saved_spec.get('identity')}, not {spec.identity}); use another folder with runs="
        )
    for key, value in fixed.items():
        if saved_spec.get(key) != value:
            raise UserError(
                f"{directory}: was started with {key}={saved_spec.get(key)}, not {value}; "
                f"use that value, or another folder with runs="
            )
    state, step = status["state"], step_of(status)
    if state == "DIVERGED":
        return RunResult(directory, state, step, status["message"])
    completed = state == "COMPLETED"
    if completed and step >= spec.budget:
        return RunResult(directory, state, step, "already finished")
    if is_past(status, spec.budget):
        return RunResult(directory, "COMPLETED", step, "already past this budget")
    if reason := why_ended(directory, status, spec.budget):
        raise UserError(f"{directory}: {reason}")
    online = spec.budget_unit == "env_steps"
    if completed and online and not getattr(options, "keep_replay", False):
        raise UserError(
            f"{directory}: was run with keep_replay=true; use keep_replay=true to continue it"
        )
    return None


def is_past(status: Mapping[str, Any], budget: int) -> bool:
    """Return whether an unfinished run of a larger budget has reached a smaller one.

    It is then finished as far as the smaller budget is concerned. Were it continued, it would end
    there, and could not continue to its own budget.

    Args:
        status: content of its `status.json`.
        budget: the smaller budget, in the unit of the run.
    """
    own = recorded_budget(status)
    return own is not None and budget < own and step_of(status) >= budget


def why_ended(directory: Path, status: Mapping[str, Any], budget: int) -> str:
    """Return why a run has ended and cannot continue to a larger budget; empty if it can.

    Args:
        directory: the run directory.
        status: content of its `status.json`.
        budget: the budget, in the unit of the run; larger than that of a completed run.

    Raises:
        UserError: `spec.json` of a completed run is damaged.
    """
    if status.get("state") != "COMPLETED":
        return _why_finished(directory, status, budget)
    online = "env_step" in status
    finished = f"finished at {step_of(status):,} {'env steps' if online else 'updates'}"
    cannot = f"so it cannot continue to {budget:,}"
    other = "another folder with runs= to start again"
    spec = read_json(directory / "spec.json", SpecFile) or {}
    if online and not spec.get("keep_replay"):  # training from a dataset needs no saved episodes
        return f"{finished} without keep_replay=true, {cannot}; use {other}"
    # Without a checkpoint, it would start again and remove the records of what it has finished.
    if not existing_checkpoints(directory):
        return f"{finished}, but has no checkpoint left, {cannot}; restore it, or use {other}"
    return ""


def _why_finished(directory: Path, status: Mapping[str, Any], budget: int) -> str:
    """Return why a run that is not recorded as completed cannot continue to a larger budget.

    A process that is killed between its last checkpoint and its last status has finished the
    budget of its status. Without `keep_replay`, the checkpoint then has no episodes.
    """
    ended = status.get("env_steps", budget)  # training from a dataset needs no saved episodes
    if ended >= budget:
        return ""
    manifests = []
    for checkpoint in existing_checkpoints(directory):
        with contextlib.suppress(UserError):  # damaged: the process says so
            manifests.append(read_json(checkpoint / "manifest.json", Manifest))
    if not manifests or any(manifest is None or manifest["shards"] for manifest in manifests):
        return ""
    return (
        f"finished at {ended:,} env steps without keep_replay=true, though its process "
        f"was killed before it recorded that, so it cannot continue to {budget:,}; use another "
        "folder with runs= to start again"
    )


def new_attempt(
    directory: Path,
    *,
    simulators: Iterable[str],
    allow_change: bool,
    study: str | None = None,
    elsewhere: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """Return the provenance of this attempt, for `record_attempt`.

    An attempt is one start of the command; a resumed run has several.

    Args:
        directory: the run directory.
        simulators: distributions whose versions are recorded.
        allow_change: whether the commit may differ from that of the last attempt. If not, a
            difference raises `UserError`.
        study: hash of the registered study that started it; None without one.
        elsewhere: versions in other Pythons; see `provenance`.
    """
    if not allow_change:
        check_commit(directory, git_commit())
    attempt = provenance(simulators, directory / "provenance", elsewhere)
    if study is not None:
        attempt["study"] = study
    return attempt


def record_attempt(directory: Path, attempt: Mapping[str, Any]) -> None:
    """Append an attempt to `attempts.json`."""
    write_json(directory / "attempts.json", [*_attempts(directory), attempt])


def check_commit(directory: Path, commit: str | None) -> None:
    """Check that a commit is that of the run's last attempt.

    Raises:
        UserError: the commits differ, or that of a run that was started before is unknown.
    """
    attempts = _attempts(directory)
    if not attempts and (directory / "spec.json").exists():
        raise UserError(
            f"{directory / 'attempts.json'}: missing or empty, so the commit of the run is "
            "unknown; restore the file, or use allow_commit_change=true"
        )
    if attempts and attempts[-1]["commit"] != commit:
        raise UserError(
            f"{directory}: was run with commit {attempts[-1]['commit']}, this is "
            f"{commit}; check out that commit, or use allow_commit_change=true"
        )


def num_attempts(directory: Path) -> int:
    """Return how often a run has been started."""
    return len(_attempts(directory))


def _attempts(directory: Path) -> list[dict[str, Any]]:
    return read_json(directory / "attempts.json", list[Attempt]) or []
