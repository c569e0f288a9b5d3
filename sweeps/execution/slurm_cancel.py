"""Cancel the SLURM jobs of a sweep, and wait until they have left the queue."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sweeps.execution import slurm_queries
from sweeps.execution.submission_lease import submission_lease
from sweeps.tracking.run_states import find_lost_arrays, read_queue
from sweeps.tracking.sweep_folder import FOLDER, SweepFolder, job_name
from tdmpc2.common.system.errors import UserError

# How long cancelled jobs, which save first, may take to leave the queue.
END_SECONDS = 60.0
POLL_SECONDS = 2.0


@dataclass
class Cancelled:
    """What is known of the SLURM jobs of a sweep after they were cancelled.

    Attributes:
        found: whether jobs are, or may be, in the queue.
        complete: whether all of them are known and were cancelled.
        ids: ids of the job arrays that were cancelled.
        at_work: directories of the runs whose jobs are, or may be, in the queue.
    """

    found: bool = False
    complete: bool = True
    ids: Collection[str] = ()
    at_work: Collection[str] = ()


@contextlib.contextmanager
def submissions_held_back(runs: Path) -> Iterator[bool]:
    """Keep launches from submitting jobs meanwhile; yield whether that is possible.

    Args:
        runs: folder of all runs.

    Raises:
        InUseError: a launch has been submitting jobs for long.
    """
    with contextlib.ExitStack() as stack:
        locked = True
        try:
            stack.enter_context(submission_lease(runs / FOLDER))
        except OSError as error:  # such as a full disk, a reason to cancel
            locked = False
            print(
                f"{runs / FOLDER} cannot be locked ({error.strerror}); jobs that a launch submits "
                "at this moment are not cancelled",
                flush=True,
            )
        yield locked


def cancel_jobs(sweep: SweepFolder, *, locked: bool) -> Cancelled:
    """Cancel the user's jobs of a sweep, by id.

    Args:
        sweep: the sweep.
        locked: whether no launch can submit more of them (see `submissions_held_back`).
    """
    on_slurm = [s for s in sweep.submissions() if s.facts["cluster"] == "slurm"]
    if not on_slurm:
        return Cancelled()
    names = [job_name(sweep.name)]
    own = read_queue(names, user=os.getuid())
    find_lost_arrays(on_slurm, locked=locked)
    everyone = read_queue(names)
    runs = [(job, directories) for s in on_slurm for job, _, directories in s.jobs()]
    if own is None or everyone is None:
        print(
            f"{sweep.name}: squeue does not respond on this machine; cancel its SLURM jobs from a "
            "machine of their cluster",
            flush=True,
        )
        at_work = {directory for _, directories in runs for directory in directories}
        return Cancelled(found=True, complete=False, at_work=at_work)
    submitted = {job for submission in on_slurm for job in submission.job_ids()}
    jobs, others = (
        [job for job in queue if _array_of(job) in submitted]
        for queue in (own, everyone.keys() - own.keys())
    )
    ids = sorted({_array_of(job) for job in jobs}, key=int)
    failure = _scancel(ids) if ids else ""
    if failure:
        print(f"{sweep.name}: {failure} (jobs {', '.join(ids)})", flush=True)
    elif ids:
        print(f"{sweep.name}: {len(jobs):,} jobs cancelled ({', '.join(ids)})", flush=True)
    if others:
        print(
            f"{sweep.name}: {len(others):,} jobs of other users are left; they can cancel them",
            flush=True,
        )
    queued = {*jobs, *others}
    at_work = {directory for job, found in runs if job in queued for directory in found}
    return Cancelled(bool(queued), not (failure or others), () if failure else ids, at_work)


def _array_of(job: str) -> str:
    """Return the id of the array of a job, or of the job itself if it is in none."""
    return job.partition("_")[0]


def _scancel(ids: Iterable[str]) -> str:
    """Cancel job arrays; return why this has failed for some, or an empty text."""
    try:
        result = slurm_queries.run(["scancel", *ids])
    except UserError as error:  # no answer
        return str(error)
    return f"scancel failed: {slurm_queries.error_of(result)}" if result.returncode else ""


def wait_until_ended(sweeps: Iterable[str], ids: Collection[str]) -> bool:
    """Wait until the user's cancelled jobs have left the queue.

    Until then, a launch would take them for running jobs, and not submit their runs.

    Args:
        sweeps: names of the sweeps.
        ids: ids of the job arrays.

    Returns:
        Whether they have left it within `END_SECONDS`.
    """
    names = [job_name(sweep) for sweep in sweeps]
    deadline = time.monotonic() + END_SECONDS
    announced = False
    while True:
        queue = read_queue(names, user=os.getuid())
        if queue is not None and not any(_array_of(job) in ids for job in queue):
            return True
        if time.monotonic() > deadline:
            state = "does not respond" if queue is None else "still lists jobs"
            print(f"squeue {state} after {END_SECONDS:.0f} s; launch again when all have ended")
            return False
        if not announced:
            print("waiting until the jobs have saved and ended", flush=True)
        announced = True
        time.sleep(POLL_SECONDS)
