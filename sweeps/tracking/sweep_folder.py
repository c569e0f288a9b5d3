"""Records of sweeps on disk: the runs of each sweep, and the jobs that each launch submitted."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from sweeps.planning.planned_run import PlannedRun, SeedGroup
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.processes import identity_of
from tdmpc2.common.system.regular_files import can_list

FOLDER = "sweeps"
DRAWS_FIGURES = "draws the figures"
"""Purpose of the job after the runs, if it does not go on with a study."""


class RunRecord(TypedDict):
    """Entry of a `sweep.json`: one run."""

    directory: str
    method: str
    domain: str
    task: str
    seed: int
    variant: str
    budget: int
    unit: NotRequired[Literal["env_steps", "num_updates"]]
    missing: NotRequired[str]


class SweepFile(TypedDict):
    """`sweep.json`: the keys that every version has written."""

    suite: str | None
    runs: list[RunRecord]


class ArrayRecord(TypedDict):
    """Entry of a `submission.json`: the run directories of each process of each job."""

    job: str | None
    elements: list[list[list[str]]]


class FollowUpRecord(TypedDict):
    """Entry of a `submission.json`: the job after the runs, and the ids of the jobs before it."""

    job: str | None
    comment: str
    purpose: str
    after: list[str]


class SubmissionFile(TypedDict):
    """`submission.json`: one launch of a sweep."""

    cluster: Literal["local", "slurm"]
    launched: str
    slurm_cluster: NotRequired[str]
    arrays: NotRequired[list[ArrayRecord]]
    follow_up: NotRequired[FollowUpRecord]
    processes: NotRequired[list[list[str]]]
    ended: NotRequired[str]


@dataclass(frozen=True)
class Submission:
    """Record of one launch of a sweep.

    Attributes:
        folder: folder with the logs of its jobs.
        facts: content of `submission.json`: cluster, host, process, commit, job arrays.
    """

    folder: Path
    facts: Mapping[str, Any]

    def jobs(self) -> Iterator[tuple[str, int, list[str]]]:
        """Yield job id (as shown by `squeue`), rank and run directories of each process."""
        for array in self.arrays():
            single = len(array["elements"]) == 1
            for index, processes in enumerate(array["elements"]):
                job = array["job"] if single else f"{array['job']}_{index}"
                for rank, directories in enumerate(processes):
                    yield job, rank, directories

    def local_logs(self) -> Iterator[tuple[str, str]]:
        """Yield each run directory of a launch on this machine, and that of its process's log."""
        for directories in self.facts.get("processes", ()):
            for directory in directories:
                yield directory, directories[0]

    def job_ids(self) -> list[str]:
        """Return the ids of its jobs that SLURM has accepted: of arrays and the job after them."""
        return [record["job"] for record in self._records() if record["job"] is not None]

    def lost(self) -> list[dict[str, Any]]:
        """Return the records of its jobs of which it is unknown whether SLURM has accepted them.

        Jobs are recorded before they are submitted, so that they are found again if the launch
        ends between the two (see `run_states.find_lost_arrays`).
        """
        return [record for record in self._records() if record["job"] is None]

    def complete(self, comments: Mapping[str, str]) -> bool:
        """Complete the records of lost jobs that are in the queue; return whether there are any.

        Args:
            comments: comment of the jobs in the queue → id of their array.
        """
        found = [record for record in self.lost() if record.get("comment") in comments]
        for record in found:
            record["job"] = comments[record["comment"]]
        return bool(found)

    def arrays(self) -> list[dict[str, Any]]:
        """Return its job arrays that SLURM has accepted."""
        return [array for array in self.facts.get("arrays", ()) if array["job"] is not None]

    def follow_up(self) -> dict[str, Any] | None:
        """Return the record of the job after the runs; None without one.

        Earlier versions have recorded its id as `figures`, some of them without its purpose.
        """
        if "figures" not in self.facts:
            return self.facts.get("follow_up")
        purpose = self.facts.get("purpose", DRAWS_FIGURES)
        after = [array["job"] for array in self.arrays()]
        return {"job": self.facts["figures"], "comment": "", "purpose": purpose, "after": after}

    def _records(self) -> list[dict[str, Any]]:
        follow_up = self.follow_up()
        return [*self.facts.get("arrays", ()), *([] if follow_up is None else [follow_up])]

    def log(self, job: str, rank: int) -> Path:
        """Return the file with the standard error of a job's process.

        A job writes to that of its first process until `srun` starts them all.
        """
        first, own = (self.folder / f"{job}_{number}_log.err" for number in (0, rank))
        return own if rank == 0 or os.path.exists(own) else first


@dataclass(frozen=True)
class SweepFolder:
    """Folder `<runs>/sweeps/<name>` with `sweep.json` and one subfolder per launch.

    Attributes:
        runs: folder of all runs.
        name: name of the sweep: its suite and a hash of its run directories.
    """

    runs: Path
    name: str

    @classmethod
    def of(cls, runs: Path, label: str, planned: Sequence[PlannedRun]) -> SweepFolder:
        """Return the folder of the sweep that consists of the given runs.

        Args:
            runs: folder of all runs.
            label: suite of the sweep, or `tasks`.
            planned: the runs.
        """
        directories = sorted(str(run.directory.relative_to(runs)) for run in planned)
        digest = hashlib.sha256("\n".join(directories).encode()).hexdigest()[:8]
        return cls(runs, f"{label}-{digest}")

    @property
    def label(self) -> str:
        """Suite of the sweep, or `tasks`."""
        return self.name.rpartition("-")[0]

    @property
    def path(self) -> Path:
        """Path of the folder."""
        return self.runs / FOLDER / self.name

    def write(
        self,
        request: Mapping[str, Any],
        suite: str | None,
        planned: Sequence[PlannedRun],
        *,
        cluster: Literal["local", "slurm"],
        keep: bool = False,
    ) -> None:
        """Write the runs of the sweep, and the request of its last launch, to `sweep.json`.

        Args:
            request: the request as values of JSON (see `SweepRequest.to_json`).
            suite: suite of the sweep; None if it was launched with `tasks=`.
            planned: the runs.
            cluster: where the request is launched.
            keep: whether to leave the file of an earlier launch as it is, if there is one.
        """
        if keep:
            with contextlib.suppress(UserError):  # damaged: written anew
                if self.read()["runs"]:
                    return
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
        launched = {"request": request, "cluster": cluster, "suite": suite}
        write_json(self.path / "sweep.json", {**launched, "runs": rows})

    def read(self) -> dict[str, Any]:
        """Read `sweep.json`; without it, return an empty sweep.

        Sweeps of version 0.4.0 have the arguments of their last launch (`words`), not a `request`
        and its `cluster`.

        Raises:
            UserError: the file is damaged.
        """
        return read_json(self.path / "sweep.json", SweepFile) or {"suite": None, "runs": []}

    def rows(self) -> list[dict[str, Any]]:
        """Return the runs of the sweep; none if `sweep.json` is damaged."""
        with contextlib.suppress(UserError):
            return self.read()["runs"]
        return []

    def new_submission(self) -> Path:
        """Create a numbered folder for one launch."""
        number = 1 + max((int(path.name) for path in self._launches()), default=0)
        while True:
            folder = self.path / f"{number:04}"
            try:
                folder.mkdir(parents=True)
                return folder
            except FileExistsError:  # created by a concurrent launch
                number += 1

    def submissions(self) -> list[Submission]:
        """Read the records of all launches, oldest first, but not damaged ones."""
        return [found for found in self.records() if isinstance(found, Submission)]

    def damages(self) -> list[str]:
        """Describe the damaged records of the sweep and of its launches."""
        found = [str(record) for record in self.records() if isinstance(record, UserError)]
        try:
            self.read()
        except UserError as error:
            advice = " (launching the sweep again writes a new one)" if can_list(self.path) else ""
            found.append(f"{error}{advice}")
        return found

    def records(self) -> Iterator[Submission | UserError]:
        """Yield the record of each launch, oldest first, or the error of one that is damaged."""
        for folder in sorted(self._launches(), key=lambda folder: int(folder.name)):
            try:
                facts = read_json(folder / "submission.json", SubmissionFile)
            except UserError as error:
                yield error
            else:
                if facts is not None:
                    yield Submission(folder, facts)

    def _launches(self) -> list[Path]:
        """Return the numbered folders of all launches."""
        return [path for path in self.path.glob("[0-9]*") if path.name.isdigit()]


def write_submission(folder: Path, cluster: str, **facts: Any) -> None:
    """Write the record of a launch; call it again after each further submission.

    Args:
        folder: folder of the launch.
        cluster: `local` or `slurm`.
        **facts: further facts, such as commit and job arrays.
    """
    common = {
        "cluster": cluster,
        "user": os.environ.get("USER") or str(os.getuid()),
        **identity_of(),
        "launched": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(folder / "submission.json", {**common, **facts})


def record_end(folder: Path) -> None:
    """Record that a launch without SLURM has ended; its process may go on with another one.

    Args:
        folder: folder of the launch.
    """
    path = folder / "submission.json"
    with contextlib.suppress(UserError, OSError):  # such as a full disk
        facts = read_json(path, SubmissionFile)
        if facts is not None:
            write_json(path, {**facts, "ended": datetime.now(UTC).isoformat(timespec="seconds")})


def process_file(folder: Path, number: int) -> Path:
    """Return the file with the runs and options of a process of a launch.

    Args:
        folder: folder of the launch.
        number: number of the process in the launch, from 1.
    """
    return folder / f"process-{number:05}.json"


def all_sweeps(runs: Path) -> list[SweepFolder]:
    """List all sweeps below a folder of runs, also those that this user may not read."""
    folders = sorted(path for path in (runs / FOLDER).glob("*") if path.is_dir())
    shown = [path for path in folders if not can_list(path) or (path / "sweep.json").exists()]
    return [SweepFolder(runs, path.name) for path in shown if path.name != "code"]


def relative(group: SeedGroup, runs: Path) -> list[str]:
    """Return the run directories of a process, relative to the folder of all runs."""
    return [str(run.directory.relative_to(runs)) for run in group]


def job_name(sweep: str) -> str:
    """Return the SLURM job name of a sweep."""
    return f"tdmpc2-{sweep}"
