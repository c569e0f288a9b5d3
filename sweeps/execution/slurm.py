"""Resources of SLURM jobs, whether SLURM accepts them, and the submission of job arrays."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import submitit

from sweeps.execution.local_pool import THREAD_VARIABLES
from sweeps.execution.slurm_queries import error_of, run, unavailable_nodes
from tdmpc2.common.system.errors import UserError

DEFAULT_MINUTES = 24 * 60
# How long before the time limit SLURM sends the signal to save; at most half of the time limit.
SIGNAL_SECONDS = 120
# `TrainingJob` requeues its job itself. If submitit does it, the number of requeues is not limited.
ANY_NUMBER = 1_000_000
# SIGUSR2 would kill the job if it arrived before Python has installed its handler: ignore it first.
_IGNORE_USR2 = f"""sh -c 'trap "" USR2; exec "$0" "$@"' {shlex.quote(sys.executable)}"""

# A job executes its copy of the code (the current folder) and its pickle. It does not start if
# another user than root could have written either.
_CHECK_OWNERS = """
job=${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}${{SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}}
others="( ! -uid $(id -u) ! -uid 0 -o -perm -002 ) -print -quit"
found=$(set -f; find {folder} -maxdepth 0 $others; find . {folder}/"$job"_submitted.pkl $others)
if [ -n "$found" ]; then
    echo "error: $found: another user could have written it; launch again" >&2
    exit 2
fi"""


class NoAnswerError(UserError):
    """SLURM has not responded in time: it is unknown whether it has accepted the jobs."""


@dataclass(frozen=True)
class Resources:
    """Resources that each job requests.

    Attributes:
        partition: name of the partition; None for the cluster's default.
        gpus: GPUs per job.
        tasks: processes per job.
        cpus: cores per process.
        mem_gb: memory per job in GB.
        timeout_min: time limit per job in minutes, after which it is requeued.
        extra: further options of `sbatch`; True for an option without value, such as `hold`.
    """

    partition: str | None
    gpus: int
    tasks: int
    cpus: int
    mem_gb: int
    timeout_min: int
    extra: Mapping[str, str | bool] = field(default_factory=dict)

    def describe(self) -> str:
        """Describe the resources in one line."""
        gpus = f"{self.gpus} GPU{'s' * (self.gpus > 1)}, " if self.gpus else ""
        processes = f"{self.tasks} processes, " if self.tasks > 1 else ""
        hours, minutes = divmod(self.timeout_min, 60)
        cores = self.tasks * self.cpus
        return (
            f"{processes}{gpus}{cores} core{'s' * (cores > 1)}, {self.mem_gb} GB, "
            f"time limit {hours}:{minutes:02} h (then requeued)"
        )

    def options(self) -> dict[str, str | bool]:
        """Return the options of `sbatch`."""
        chosen: dict[str, str | bool] = {
            "time": str(self.timeout_min),
            "ntasks-per-node": str(self.tasks),
            "cpus-per-task": str(self.cpus),
            "mem": f"{self.mem_gb}GB",
        }
        if self.partition is not None:
            chosen["partition"] = self.partition
        if self.gpus:
            chosen["gpus-per-node"] = str(self.gpus)
        return {**chosen, **self.extra}


def check(resources: Resources) -> None:
    """Check with `sbatch --test-only` that SLURM accepts such jobs, without submitting one.

    Raises:
        UserError: SLURM refuses them; the message gives its reason.
    """
    options = [
        f"--{key}" if value is True else f"--{key}={value}"
        for key, value in resources.options().items()
    ]
    result = run(["sbatch", "--test-only", *options, "--wrap=true"])
    if result.returncode == 0:
        return
    away = unavailable_nodes(resources.partition)
    if not away:
        raise UserError(f"SLURM refuses such jobs ({resources.describe()}): {error_of(result)}")
    # `--test-only` refuses what drained nodes could run later, for which `sbatch` queues a job.
    print(
        f"warning: no node can run such jobs now ({error_of(result)}); they wait until nodes "
        f"return ({', '.join(away)})",
        flush=True,
    )


def in_arrays(num_jobs: int, size: int, left: int | None) -> list[int]:
    """Return the sizes of the arrays in which jobs are submitted.

    Args:
        num_jobs: number of jobs to submit.
        size: maximum array size of the cluster.
        left: number of jobs that the user may still submit; None for no limit.
    """
    num_jobs = num_jobs if left is None else min(num_jobs, left)
    size = min(size, num_jobs)
    return [min(size, num_jobs - start) for start in range(0, num_jobs, size)] if num_jobs else []


def shares(limit: int | None, sizes: Sequence[int]) -> list[int]:
    """Divide a limit on concurrent jobs between arrays by size, with at least one job each."""
    if limit is None or not sizes:
        return list(sizes)
    total = sum(sizes)
    each = [max(limit * size // total, 1) for size in sizes]
    for index in range(max(limit - sum(each), 0)):
        each[index % len(each)] += 1
    return each


def submit(
    jobs: Sequence[Any],
    resources: Resources,
    folder: Path,
    *,
    name: str,
    code: Path,
    at_once: int,
    comment: str,
    after: Iterable[str] = (),
) -> str:
    """Submit jobs as one array.

    Args:
        jobs: callables, one per job.
        resources: resources of each job.
        folder: folder for logs.
        name: name of the jobs.
        code: copy of the code that the jobs run.
        at_once: maximum number of jobs of the array that run at a time.
        comment: text by which the jobs are found in the queue.
        after: ids of jobs that must have ended, successfully or not.

    Returns:
        The job id of the array, or of the job if there is only one.

    Raises:
        NoAnswerError: SLURM does not respond in time.
        UserError: SLURM refuses the jobs.
    """
    executor = submitit.SlurmExecutor(folder, max_num_timeout=ANY_NUMBER, python=_IGNORE_USR2)
    threads = " ".join(f"{variable}={resources.cpus}" for variable in THREAD_VARIABLES)
    job_ids = ":".join(after)
    executor.update_parameters(
        job_name=name,
        comment=comment,
        time=resources.timeout_min,
        signal_delay_s=min(SIGNAL_SECONDS, 30 * resources.timeout_min),
        array_parallelism=at_once,
        dependency=f"afterany:{job_ids}" if job_ids else None,
        additional_parameters={"requeue": True, **resources.options()},
        # The current folder comes first on Python's path, so that jobs import the copy.
        setup=[
            f"cd {shlex.quote(str(code))} || exit 2  # deleted since the launch",
            "export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}",
            _CHECK_OWNERS.format(folder=shlex.quote(str(folder))),
            f"export {threads}",
        ],
        # srun does not inherit --cpus-per-task from sbatch. By default, a run that has failed
        # (KillOnBadExit) or has ended (WaitTime) may end the other runs of its job.
        srun_args=[f"--cpus-per-task={resources.cpus}", "--kill-on-bad-exit=0", "--wait=0"],
    )
    try:
        with executor.batch():
            submitted = [executor.submit(job) for job in jobs]
    except (
        submitit.core.utils.UncompletedJobError,
        submitit.core.utils.FailedSubmissionError,
    ) as error:
        text = " ".join(str(error).split())
        if "timed out" in text:  # it may have accepted them nevertheless
            raise NoAnswerError(
                f"SLURM did not respond in time: {text}; see `python sweeps/status.py`, which "
                "lists the jobs if they are in the queue, and launch again if they are not"
            ) from None
        raise UserError(f"SLURM refuses the jobs: {text}") from None
    return submitted[0].job_id.partition("_")[0]
