"""The launch and the SLURM job to which each run was last assigned."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from sweeps.tracking.sweep_folder import Submission, process_file

Assignment = tuple[str, int, Submission]
"""Job id, rank of the process in the job, and launch."""


class Assignments:
    """Assignments of runs to jobs and processes, from the records of all launches.

    Args:
        runs: folder of all runs.
        submissions: the launches.
        queue: job id → state of the jobs in the queue; None if it is unknown.
        unlisted: folders of the launches whose jobs this queue does not list.

    Attributes:
        logs: run directory → that of the log of its process on this machine, which seeds may share.
        files: run directory and job id → file of the process.
    """

    def __init__(
        self,
        runs: Path,
        submissions: Iterable[Submission],
        queue: Mapping[str, str] | None,
        unlisted: Collection[Path],
    ) -> None:
        self.logs: dict[str, str] = {}
        self.files: dict[tuple[str, str], Path] = {}
        self._runs, self._queue, self._unlisted = runs, queue, unlisted
        self._jobs: dict[str, list[Assignment]] = {}
        self._last_of_id: dict[str, Submission] = {}
        self._local: set[str] = set()  # run directories whose last launch was without SLURM
        for submission in sorted(submissions, key=lambda s: s.facts["launched"]):
            for number, (job, rank, directories) in enumerate(submission.jobs(), 1):
                if submission.folder not in unlisted:
                    self._last_of_id[job] = submission
                for directory in directories:
                    self._jobs.setdefault(directory, []).append((job, rank, submission))
                    self.files[directory, job] = process_file(submission.folder, number)
                self._local.difference_update(directories)
            local = dict(submission.local_logs())
            self.logs.update(local)
            self._local.update(local)

    def last(self, directory: str) -> Assignment | None:
        """Return the job to which a run was last assigned; None if that was not on SLURM.

        A job in the queue counts before a later one that is not: launches on machines whose clocks
        disagree have times in another order. It also counts before a later launch without SLURM,
        and so does a job that has ended if that launch was stopped before it started the run.

        Args:
            directory: run directory, relative to the folder of all runs.
        """
        jobs = self._jobs.get(directory, [])
        queues = [self.queue_of(one) for one in jobs]
        queued = [one for one, queue in zip(jobs, queues, strict=True) if one[0] in (queue or {})]
        if queued:
            return queued[-1]
        if not jobs or (queues[-1] is not None and self._begun_here(directory, jobs[-1])):
            return None
        return jobs[-1]

    def _begun_here(self, directory: str, assignment: Assignment) -> bool:
        """Return whether a launch without SLURM was the last one to start a run.

        Args:
            directory: run directory, relative to the folder of all runs.
            assignment: its last job, which has ended.
        """
        if directory not in self._local:
            return False
        job, rank, submission = assignment
        try:
            end = submission.log(job, rank).stat().st_mtime
        except OSError:  # the job has not started it
            return True
        for name in ("log.txt", "status.json"):  # inline launches write no log
            with contextlib.suppress(OSError):
                if (self._runs / self.logs[directory] / name).stat().st_mtime >= end:
                    return True
        return False

    def queue_of(self, assignment: Assignment) -> Mapping[str, str] | None:
        """Return the queue that lists a job unless it has ended; None if that is unknown.

        After a new installation, SLURM uses job ids again: an id is that of the last launch.
        """
        job, _, submission = assignment
        if submission.folder in self._unlisted:
            return None
        return {} if self._last_of_id[job] is not submission else self._queue
