"""Query SLURM's partitions and limits, check job resources, and submit job arrays."""

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
# How long before the time limit SLURM sends the signal to save; at most half of the time limit.
SIGNAL_SECONDS = 120
# `TrainingJob` requeues its job itself. If submitit does it, the number of requeues is not limited.
ANY_NUMBER = 1_000_000
# Message of SLURM's commands on a machine that belongs to no cluster.
UNCONFIGURED = "Could not establish a configuration source"
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


def choose(wanted: Cluster) -> Literal["slurm", "local", "inline"]:
    """Choose where to run: for `auto`, SLURM if this machine has it configured, else this machine.

    Raises:
        UserError: SLURM is requested, but not installed, or the cluster does not respond.
    """
    if wanted in ("local", "inline"):
        return wanted
    if shutil.which("sbatch") is not None:
        result = _run(["sinfo", "--noheader", "--format=%P"])
        if result.returncode == 0:
            return "slurm"
        if wanted == "auto" and UNCONFIGURED in result.stderr:
            print("SLURM is installed here, but not configured: training on this machine")
            return "local"
        raise UserError(
            f"cluster={wanted}: SLURM does not respond (sinfo: {_error_of(result)}); try again "
            "later, or use cluster=local to train on this machine"
        )
    if wanted == "slurm":
        raise UserError(
            "cluster=slurm: sbatch not found; launch on a login node of the cluster, or use "
            "cluster=local"
        )
    return "local"


@dataclass(frozen=True)
class Partition:
    """A partition of a cluster, or several partitions as one request.

    Attributes:
        name: name of the partition; several are separated by commas.
        default: whether jobs without a partition go to it.
        minutes: time limit of its jobs in minutes; None if unlimited.
        has_gpus: whether any of its nodes has GPUs.
    """

    name: str
    default: bool
    minutes: int | None
    has_gpus: bool


def partitions() -> dict[str, Partition]:
    """Return all partitions that SLURM lists, by name.

    Raises:
        UserError: `sinfo` failed.
    """
    result = _run(["sinfo", "--noheader", "--format=%P|%l|%G"])
    if result.returncode:
        raise UserError(f"sinfo failed: {_error_of(result)}")
    by_name: dict[str, Partition] = {}
    for line in result.stdout.splitlines():
        label, limit, gres = line.strip().split("|")
        name = label.rstrip("*")
        previous = by_name.get(name)  # sinfo prints several lines for nodes that differ
        gpus = "gpu" in gres or (previous is not None and previous.has_gpus)
        by_name[name] = Partition(name, label.endswith("*"), minutes_of(limit), gpus)
    return by_name


def choose_partition(wanted: str | None) -> Partition | None:
    """Return the partition that jobs go to; None if SLURM does not report a default.

    Raises:
        UserError: the partition does not exist.
    """
    known = partitions()
    if wanted is None:
        return next((p for p in known.values() if p.default), None)
    # SLURM accepts several names; the strictest limits apply.
    names = wanted.split(",")
    for name in names:
        if name not in known:
            raise UserError(f"partition={wanted}: unknown partition{did_you_mean(name, known)}")
    chosen = [known[name] for name in names]
    limits = [p.minutes for p in chosen if p.minutes is not None]
    gpus = all(p.has_gpus for p in chosen)
    return Partition(wanted, False, min(limits, default=None), gpus)


def minutes_of(text: str) -> int | None:
    """Convert SLURM's `[days-]hours:minutes:seconds` to minutes; None for `infinite`."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(digits or 0) for digits in match.groups())
    return 1440 * days + 60 * hours + minutes + (seconds > 0)


def max_array_size() -> int:
    """Return the cluster's `MaxArraySize`, the maximum number of jobs in an array.

    Raises:
        UserError: `scontrol` does not report it.
    """
    result = _run(["scontrol", "show", "config"])
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", result.stdout, re.MULTILINE)
    if match is None:
        raise UserError(f"scontrol show config does not report MaxArraySize: {_error_of(result)}")
    return int(match[1])


def jobs_left() -> int | None:
    """Return the number of jobs that this user may still submit; None if no limit is known."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        return None
    command = ["sacctmgr", "--noheader", "--parsable2", "show", "assoc", f"user={user}"]
    try:
        result = _run([*command, "format=MaxSubmitJobs"])
    except UserError:  # no accounting tools on this machine
        return None
    limits = [int(line) for line in result.stdout.split() if line.isdigit()]
    if result.returncode or not limits:
        return None
    waiting = _run(["squeue", "--noheader", "--array", f"--user={user}", "--format=%i"])
    return max(max(limits) - len(waiting.stdout.split()), 0)


def check(resources: Resources) -> None:
    """Check with `sbatch --test-only` that SLURM accepts such jobs, without submitting one.

    Raises:
        UserError: SLURM refuses them; the message gives its reason.
    """
    options = [
        f"--{key}" if value is True else f"--{key}={value}"
        for key, value in resources.options().items()
    ]
    result = _run(["sbatch", "--test-only", *options, "--wrap=true"])
    if result.returncode == 0:
        return
    away = unavailable_nodes(resources.partition)
    if not away:
        raise UserError(f"SLURM refuses such jobs ({resources.describe()}): {_error_of(result)}")
    # `--test-only` refuses what drained nodes could run later, for which `sbatch` queues a job.
    print(
        f"warning: no node can run such jobs now ({_error_of(result)}); they wait until nodes "
        f"return ({', '.join(away)})",
        flush=True,
    )


def unavailable_nodes(partition: str | None) -> list[str]:
    """Return the nodes of a partition that are down, drained or reserved, with their states.

    Args:
        partition: name of the partition; None for all nodes.
    """
    where = [] if partition is None else [f"--partition={partition}"]
    result = _run(["sinfo", "--noheader", "--Node", "--format=%N %T", *where])
    nodes = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    states = ("down", "drain", "fail", "maint", "reserved", "unknown", "boot", "power")
    return [f"{node} {state}" for node, state in nodes.items() if state.startswith(states)]


def preemption_of(partition: str | None) -> str:
    """Return what SLURM does with preempted jobs: `CANCEL`, `REQUEUE`, `SUSPEND`, … or `OFF`.

    Args:
        partition: name of a partition, whose own setting applies; None for the cluster's setting.
    """
    shown = [_run(["scontrol", "show", "config"]).stdout]
    if partition is not None:
        names = partition.split(",")
        shown += [_run(["scontrol", "show", "partition", "-o", name]).stdout for name in names]
    found = [mode for text in shown for mode in re.findall(r"PreemptMode\s*=\s*(\S+)", text)]
    modes = [mode for mode in found if mode != "NONE"]
    return modes[-1].upper() if modes else "OFF"


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
    if limit is None:
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
        # srun does not inherit --cpus-per-task from sbatch. Without --kill-on-bad-exit=0, a failed
        # run could end the other runs of its job.
        srun_args=[f"--cpus-per-task={resources.cpus}", "--kill-on-bad-exit=0"],
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
            raise UserError(
                f"SLURM did not respond in time: {text}; see `python sweeps/status.py`, which "
                "lists the jobs if they are in the queue, and launch again if they are not"
            ) from None
        raise UserError(f"SLURM refuses the jobs: {text}") from None
    return submitted[0].job_id.partition("_")[0]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except OSError as error:
        raise UserError(f"{command[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]} did not respond within {ANSWER_SECONDS} s") from None


def _error_of(result: subprocess.CompletedProcess[str]) -> str:
    """Return the error messages of a failed SLURM command in one line."""
    lines = [line.split("error: ")[-1].strip() for line in result.stderr.splitlines()]
    messages = "; ".join(dict.fromkeys(line for line in lines if line))
    return messages or f"exit code {result.returncode}"
