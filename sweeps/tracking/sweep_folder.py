"""What is known of a sweep on disk: its runs, and who was asked to carry them out."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweeps.planning.planned_run import PlannedRun, SeedGroup
from tdmpc2.common.run.lock import process_started
from tdmpc2.common.system.atomic_files import read_json, write_json

FOLDER = "sweeps"


@dataclass(frozen=True)
class Submission:
    """What one launch has handed over.

    Attributes:
        folder: with the logs of its jobs.
        facts: as written: cluster, host, process, commit, arrays of jobs.
    """

    folder: Path
    facts: Mapping[str, Any]

    def jobs(self) -> Iterator[tuple[str, int, list[str]]]:
        """Job id as `squeue` shows it, rank in the job, and run directories of each process."""
        for array in self.facts.get("arrays", ()):
            alone = len(array["elements"]) == 1
            for place, processes in enumerate(array["elements"]):
                job = array["job"] if alone else f"{array['job']}_{place}"
                for rank, directories in enumerate(processes):
                    yield job, rank, directories

    def log(self, job: str, rank: int) -> Path:
        """Where the process of a job writes errors."""
        return self.folder / f"{job}_{rank}_log.err"


@dataclass(frozen=True)
class SweepFolder:
    """`<runs>/sweeps/<name>`: `sweep.json`, and a folder per launch.

    Attributes:
        runs: folder of all runs.
        name: of the sweep: its suite, and a hash over its runs.
    """

    runs: Path
    name: str

    @classmethod
    def of(cls, runs: Path, label: str, planned: Sequence[PlannedRun]) -> SweepFolder:
        """The folder of the sweep that consists of these runs."""
        where = sorted(str(run.directory.relative_to(runs)) for run in planned)
        digest = hashlib.sha256("\n".join(where).encode()).hexdigest()[:8]
        return cls(runs, f"{label}-{digest}")

    @property
    def path(self) -> Path:
        """Of the folder."""
        return self.runs / FOLDER / self.name

    def write(
        self, arguments: Sequence[str], suite: str | None, planned: Sequence[PlannedRun]
    ) -> None:
        """Writes what the sweep consists of, and the arguments that launched it."""
        self.path.mkdir(parents=True, exist_ok=True)
        rows = [
            {
                "directory": str(run.directory.relative_to(self.runs)),
                "method": run.spec.method,
                "domain": run.kind,
                "task": run.spec.task,
                "seed": run.spec.seed,
                "variant": run.spec.variant,
                "budget": run.spec.budget,
                "unit": run.spec.budget_unit,
                "missing": run.missing,
            }
            for run in planned
        ]
        write_json(
            self.path / "sweep.json", {"words": list(arguments), "suite": suite, "runs": rows}
        )

    def read(self) -> dict[str, Any]:
        """What `write` wrote."""
        return read_json(self.path / "sweep.json") or {"words": [], "suite": None, "runs": []}

    def new_submission(self) -> Path:
        """Makes a folder for one launch, numbered."""
        number = 1 + max((int(path.name) for path in self.path.glob("[0-9]*")), default=0)
        while True:
            folder = self.path / f"{number:04}"
            try:
                folder.mkdir(parents=True)
                return folder
            except FileExistsError:  # of a launch at the same moment
                number += 1

    def submissions(self) -> list[Submission]:
        """Of all launches, oldest first."""
        found = ((path, read_json(path)) for path in sorted(self.path.glob("*/submission.json")))
        return [Submission(path.parent, facts) for path, facts in found if facts is not None]


def write_submission(folder: Path, cluster: str, **facts: Any) -> None:
    """Writes what a launch has handed over; again, when it has handed over more."""
    common = {
        "cluster": cluster,
        "host": socket.gethostname(),
        "user": os.environ.get("USER") or str(os.getuid()),
        "pid": os.getpid(),
        "pid_started": process_started(),
        "launched": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(folder / "submission.json", {**common, **facts})


def all_sweeps(runs: Path) -> list[SweepFolder]:
    """Every sweep below a folder of runs."""
    found = sorted((runs / FOLDER).glob("*/sweep.json"))
    return [SweepFolder(runs, path.parent.name) for path in found]


def relative(group: SeedGroup, runs: Path) -> list[str]:
    """Directories of the runs of a process, as submissions name them."""
    return [str(run.directory.relative_to(runs)) for run in group]


def job_name(sweep: str) -> str:
    """What `squeue` calls the jobs of a sweep."""
    return f"tdmpc2-{sweep}"
