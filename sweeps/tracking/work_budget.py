"""The budget at which the job or process that works on a run ends, from its file or its status."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from sweeps.tracking.run_states import ACTIVE, View
from tdmpc2.common.run import spec_file
from tdmpc2.common.run.run_files import recorded_budget
from tdmpc2.common.run.schemas import SpecFile
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.common.system.errors import UserError


@dataclass(frozen=True)
class WorkBudget:
    """Budget of the work that is going on or queued.

    Attributes:
        budget: the budget in the unit of the run.
        extends: whether the run can be continued to a larger budget afterwards.
    """

    budget: int
    extends: bool


def work_budget(directory: Path, view: View) -> WorkBudget | None:
    """Return the budget of the work on a run; None if there is none, or if it is unknown.

    Args:
        directory: the run directory.
        view: current state of the run.
    """
    if view.state not in ACTIVE:
        return None
    with contextlib.suppress(UserError):  # damaged, or of an older version
        return _of_status(directory, view) if view.file is None else _of_file(view.file)
    return None


def _of_file(file: Path) -> WorkBudget:
    specs, options = spec_file.read(file)
    return WorkBudget(specs[0].budget, bool(specs[0].tasks or getattr(options, "keep_replay", 0)))


def _of_status(directory: Path, view: View) -> WorkBudget | None:
    if view.status.get("state") != "RUNNING":  # that of an earlier attempt
        return None
    budget = recorded_budget(view.status)
    if budget is None:
        return None
    spec = read_json(directory / "spec.json", SpecFile) or {}
    online = "env_step" in view.status  # training from a dataset needs no saved episodes
    return WorkBudget(budget, not online or bool(spec.get("keep_replay")))
