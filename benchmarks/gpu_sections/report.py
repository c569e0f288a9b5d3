"""Settings and report of a section of the acceptance test."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tdmpc2.common.system.atomic_files import write_json

# Part of each warning of the project that code goes on without compiled functions, recorded steps
# or native kernels.
GIVEN_UP = "continuing without"


class SkippedError(Exception):
    """The section cannot run on this machine; the message gives the reason."""


@dataclass(frozen=True)
class Settings:
    """Settings of a section.

    Attributes:
        device: device to use.
        small: small models and few repetitions, to test the script itself.
        out: folder of all results.
        seconds: time limit of the section.
        tasks: tasks of section `train`; all if empty.
    """

    device: torch.device
    small: bool
    out: Path
    seconds: float
    tasks: tuple[str, ...] = ()

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    @property
    def agent_settings(self) -> dict[str, Any]:
        """Overrides of TD-MPC2's configuration: the paper's 5M model, or a tiny one."""
        if not self.small:
            return {"model_size": "5"}
        return {"model_size": "smoke", "num_samples": 64, "num_elites": 8, "batch_size": 32}


@dataclass
class Report:
    """Checks of one section, written to disk after each check.

    Args:
        path: path of the JSON file, which contains all checks made so far.
        section: name of the section.
        key: facts on which the validity of an earlier result depends.
        checks: checks made so far.
        unfinished: why the section is incomplete; empty if it is complete.
        started: start of the section, by the monotonic clock.
    """

    path: Path
    section: str
    key: dict[str, Any]
    checks: list[dict[str, Any]] = field(default_factory=list)
    unfinished: str = ""
    started: float = field(default_factory=time.monotonic)

    def add(
        self,
        name: str,
        value: float | str,
        unit: str = "",
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        note: str = "",
    ) -> None:
        """Record a value; with a bound, it is a check that can fail.

        Args:
            name: name of the measured quantity.
            value: number or text.
            unit: unit of the number.
            at_most: largest value that passes.
            at_least: smallest value that passes.
            note: explanation of the value.
        """
        ok: bool | None = None
        if at_most is not None or at_least is not None:
            number = float(value)
            ok = math.isfinite(number)
            ok = ok and (at_most is None or number <= at_most)
            ok = ok and (at_least is None or number >= at_least)
        bound = {"at_most": at_most, "at_least": at_least}
        check = {"name": name, "value": value, "unit": unit, "ok": ok, "note": note}
        self.checks.append(check | {k: v for k, v in bound.items() if v is not None})
        self.write("running")

    def write(self, status: str, message: str = "") -> None:
        """Write all checks made so far.

        Args:
            status: running, passed, failed, incomplete, skipped or crashed.
            message: reason of the status, if the checks do not show it.
        """
        seconds = round(time.monotonic() - self.started, 1)
        result = {"section": self.section, "status": status, "message": message, "key": self.key}
        write_json(self.path, {**result, "seconds": seconds, "checks": self.checks})

    def close(self) -> None:
        """End the section: passed if no check failed and nothing is unfinished."""
        failed = [check["name"] for check in self.checks if check["ok"] is False]
        if failed:
            self.write("failed", f"{len(failed)} checks failed: {', '.join(failed[:5])}")
        else:
            self.write("incomplete" if self.unfinished else "passed", self.unfinished)
