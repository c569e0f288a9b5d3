"""SLURM as seen from here: what it offers, what it refuses, and handing jobs to it."""

from __future__ import annotations

import getpass
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import submitit

from sweeps.execution.local_pool import THREAD_VARIABLES
from tdmpc2.common.system.errors import UserError, did_you_mean

Cluster = Literal["auto", "slurm", "local", "inline"]
ANSWER_SECONDS = 60
DEFAULT_MINUTES = 24 * 60
# How long before a time limit a job is asked to save; a short job keeps half of its time.
SIGNAL_SECONDS = 120
# Requeues are ours; where submitit has to do one, no number of them is too many.
ANY_NUMBER = 1_000_000
# A warning that comes before Python can hear it would kill the job.
_DEAF_AT_FIRST = f"""sh -c 'trap "" USR2; exec "$0" "$@"' {shlex.quote(sys.executable)}"""


@dataclass(frozen=True)
class Resources:
    """What each job asks for.

    Attributes:
        partition: name; None for the cluster's default.
        gpus: of a job.
        tasks: processes of a job.
        cpus: of a process.
        mem_gb: of a job.
        timeout_min: of a job, after which it is requeued.
        extra: further options of `sbatch`.
    """

    partition: str | None
    gpus: int
    tasks: int
    cpus: int
    mem_gb: int
    timeout_min: int
    extra: Mapping[str, str | bool] = field(default_factory=dict)

    def describe(self) -> str:
        """For people."""
        what = f"{self.gpus} GPU, " if self.gpus else ""
        each = f", {self.tasks} processes" if self.tasks > 1 else ""
        hours, minutes = divmod(self.timeout_min, 60)
        cores = self.tasks * self.cpus
        return (
            f"{what}{cores} core{'s' * (cores > 1)}, {self.mem_gb} GB, "
            f"{hours}:{minutes:02} h before it is requeued{each}"
        )

    def options(self) -> dict[str, str | bool]:
        """Options of `sbatch`."""
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


def choose(wanted: Cluster) -> Literal["slurm", "local", "inline"]:
    """The cluster to use: SLURM where it answers, else this machine.

    Raises:
        UserError: SLURM is wanted and is not there.
    """
    if wanted in ("local", "inline"):
        return wanted
    if shutil.which("sbatch") is not None:
        done = _run(["sinfo", "--noheader", "--format=%P"])
        if done.returncode == 0:
            return "slurm"
        if wanted == "slurm":
            raise UserError(f"cluster=slurm: sinfo says: {_said(done)}")
    if wanted == "slurm":
        raise UserError(
            "cluster=slurm: there is no sbatch here; log in where it is, or use cluster=local"
        )
    return "local"


@dataclass(frozen=True)
class Partition:
    """A partition of a cluster.

    Attributes:
        name: of it.
        default: whether jobs go there that name none.
        minutes: limit on a job's time; None without one.
        has_gpus: whether some node of it has one.
    """

    name: str
    default: bool
    minutes: int | None
    has_gpus: bool


def partitions() -> dict[str, Partition]:
    """All that SLURM shows us."""
    done = _run(["sinfo", "--noheader", "--format=%P|%l|%G"])
    if done.returncode:
        raise UserError(f"sinfo does not answer: {_said(done)}")
    found: dict[str, Partition] = {}
    for line in done.stdout.splitlines():
        label, limit, gres = line.strip().split("|")
        name = label.rstrip("*")
        before = found.get(name)
        gpus = "gpu" in gres or (before is not None and before.has_gpus)
        found[name] = Partition(name, label.endswith("*"), minutes_of(limit), gpus)
    return found


def choose_partition(wanted: str | None) -> Partition | None:
    """The partition that jobs go to; None where SLURM does not say which.

    Raises:
        UserError: unknown.
    """
    known = partitions()
    if wanted is None:
        return next((p for p in known.values() if p.default), None)
    # Several may be named; the narrowest limits count.
    several = wanted.split(",")
    for name in several:
        if name not in known:
            raise UserError(f"partition={wanted}: SLURM has none{did_you_mean(name, known)}")
    chosen = [known[name] for name in several]
    limits = [p.minutes for p in chosen if p.minutes is not None]
    gpus = all(p.has_gpus for p in chosen)
    return Partition(wanted, False, min(limits, default=None), gpus)


def minutes_of(text: str) -> int | None:
    """SLURM's `[days-]hours:minutes:seconds`, or `infinite`."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 1440 * days + 60 * hours + minutes + (seconds > 0)


def max_array_size() -> int:
    """Elements that an array may have."""
    done = _run(["scontrol", "show", "config"])
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    if found is None:
        raise UserError(f"scontrol show config does not say MaxArraySize: {_said(done)}")
    return int(found[1])


def jobs_left() -> int | None:
    """Jobs that this user may still submit; None where no limit is known."""
    user = getpass.getuser()
    command = ["sacctmgr", "--noheader", "--parsable2", "show", "assoc", f"user={user}"]
    try:
        done = _run([*command, "format=MaxSubmitJobs"])
    except UserError:  # no accounting tools here
        return None
    limits = [int(line) for line in done.stdout.split() if line.isdigit()]
    if done.returncode or not limits:
        return None
    waiting = _run(["squeue", "--noheader", "--array", f"--user={user}", "--format=%i"])
    return max(max(limits) - len(waiting.stdout.split()), 0)


def check(resources: Resources) -> None:
    """Asks SLURM whether it would take such a job, without submitting one.

    Raises:
        UserError: it says no, and why.
    """
    options = [
        f"--{key}" if value is True else f"--{key}={value}"
        for key, value in resources.options().items()
    ]
    done = _run(["sbatch", "--test-only", *options, "--wrap=true"])
    if done.returncode:
        raise UserError(f"SLURM refuses such jobs ({resources.describe()}): {_said(done)}")


def in_arrays(num_jobs: int, size: int, left: int | None) -> list[int]:
    """Sizes of the arrays that jobs are handed over in.

    Args:
        num_jobs: to hand over.
        size: of the largest array that the cluster takes.
        left: jobs that the user may still submit.
    """
    num_jobs = num_jobs if left is None else min(num_jobs, left)
    size = min(size, num_jobs)
    return [min(size, num_jobs - start) for start in range(0, num_jobs, size)] if num_jobs else []


def shares(limit: int | None, sizes: Sequence[int]) -> list[int]:
    """Jobs of each array that may run at a time, so that all of them stay within a limit."""
    if limit is None:
        return list(sizes)
    total = sum(sizes)
    each = [max(limit * size // total, 1) for size in sizes]
    for place in range(max(limit - sum(each), 0)):
        each[place % len(each)] += 1
    return each


def submit(
    jobs: Sequence[Any],
    resources: Resources,
    folder: Path,
    *,
    name: str,
    code: Path,
    at_once: int,
    after: Iterable[str] = (),
) -> str:
    """Hands jobs over as one array.

    Args:
        jobs: callables.
        resources: of each.
        folder: for logs.
        name: of the jobs.
        code: copy of the code that they run.
        at_once: how many may run at a time.
        after: jobs that must have ended, well or not.

    Returns:
        The array's job id (of a single job: its id).

    Raises:
        UserError: SLURM says no.
    """
    executor = submitit.SlurmExecutor(folder, max_num_timeout=ANY_NUMBER, python=_DEAF_AT_FIRST)
    threads = " ".join(f"{variable}={resources.cpus}" for variable in THREAD_VARIABLES)
    waits = ":".join(after)
    executor.update_parameters(
        job_name=name,
        time=resources.timeout_min,
        signal_delay_s=min(SIGNAL_SECONDS, 30 * resources.timeout_min),
        array_parallelism=at_once,
        dependency=f"afterany:{waits}" if waits else None,
        additional_parameters={"requeue": True, **resources.options()},
        # Python puts the folder it is started in before everything else.
        setup=[f"cd {shlex.quote(str(code))}", "export PYTHONPATH=$PWD", f"export {threads}"],
        # srun does not take this over from sbatch; and one run's end must not be that of others.
        srun_args=[f"--cpus-per-task={resources.cpus}", "--kill-on-bad-exit=0"],
    )
    try:
        with executor.batch():
            handed = [executor.submit(job) for job in jobs]
    except (
        submitit.core.utils.UncompletedJobError,
        submitit.core.utils.FailedSubmissionError,
    ) as error:
        raise UserError(f"SLURM refuses: {' '.join(str(error).split())}") from None
    return handed[0].job_id.partition("_")[0]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except OSError as error:
        raise UserError(f"{command[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]} does not answer within {ANSWER_SECONDS} s") from None


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """What a command of SLURM said on its failure, in one line."""
    lines = [line.split("error: ")[-1].strip() for line in done.stderr.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line)) or f"exit {done.returncode}"
