"""What SLURM says of itself: whether it is there, its partitions, limits and nodes."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tdmpc2.common.system.errors import UserError, did_you_mean

Cluster = Literal["auto", "slurm", "local", "inline"]
ANSWER_SECONDS = 60
# Message of SLURM's commands on a machine that belongs to no cluster.
UNCONFIGURED = "Could not establish a configuration source"


def choose(wanted: Cluster) -> Literal["slurm", "local", "inline"]:
    """Choose where to run: for `auto`, SLURM if this machine has it configured, else this machine.

    Raises:
        UserError: SLURM is requested, but not installed, or the cluster does not respond.
    """
    if wanted in ("local", "inline"):
        return wanted
    if shutil.which("sbatch") is not None:
        result = run(["sinfo", "--noheader", "--format=%P"])
        if result.returncode == 0:
            return "slurm"
        if wanted == "auto" and UNCONFIGURED in result.stderr:
            print("SLURM is installed here, but not configured: training on this machine")
            return "local"
        raise UserError(
            f"cluster={wanted}: SLURM does not respond (sinfo: {error_of(result)}); try again "
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
    result = run(["sinfo", "--noheader", "--format=%P|%l|%G"])
    if result.returncode:
        raise UserError(f"sinfo failed: {error_of(result)}")
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
    return int(_configured("MaxArraySize", r"\d+"))


def cluster_name() -> str:
    """Return the name of the cluster.

    Raises:
        UserError: `scontrol` does not report it.
    """
    return _configured("ClusterName", r"\S+")


def _configured(name: str, pattern: str) -> str:
    """Return a value of the cluster's configuration.

    Args:
        name: its name.
        pattern: pattern of the value.

    Raises:
        UserError: `scontrol` does not report it.
    """
    result = run(["scontrol", "show", "config"])
    match = re.search(rf"^{name} *= *({pattern})", result.stdout, re.MULTILINE)
    if match is None:
        raise UserError(f"scontrol show config does not report {name}: {error_of(result)}")
    return match[1]


def jobs_left() -> int | None:
    """Return the number of jobs that this user may still submit; None if no limit is known.

    Raises:
        UserError: `squeue` failed, so that the number of jobs in the queue is unknown.
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        return None
    command = ["sacctmgr", "--noheader", "--parsable2", "show", "assoc", f"user={user}"]
    try:
        result = run([*command, "format=MaxSubmitJobs"])
    except UserError:  # no accounting tools on this machine
        return None
    limits = [int(line) for line in result.stdout.split() if line.isdigit()]
    if result.returncode or not limits:
        return None
    waiting = run(["squeue", "--noheader", "--array", f"--user={user}", "--format=%i"])
    if waiting.returncode:
        raise UserError(f"squeue failed: {error_of(waiting)}; try again")
    return max(max(limits) - len(waiting.stdout.split()), 0)


def unavailable_nodes(partition: str | None) -> list[str]:
    """Return the nodes of a partition that are down, drained or reserved, with their states.

    Args:
        partition: name of the partition; None for all nodes.
    """
    where = [] if partition is None else [f"--partition={partition}"]
    result = run(["sinfo", "--noheader", "--Node", "--format=%N %T", *where])
    nodes = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    states = ("down", "drain", "fail", "maint", "reserved", "unknown", "boot", "power")
    return [f"{node} {state}" for node, state in nodes.items() if state.startswith(states)]


def preemption_of(partition: str | None) -> str:
    """Return what SLURM does with preempted jobs: `CANCEL`, `REQUEUE`, `SUSPEND`, … or `OFF`.

    Args:
        partition: name of a partition, whose own setting applies; None for the cluster's setting.
    """
    shown = [run(["scontrol", "show", "config"]).stdout]
    if partition is not None:
        names = partition.split(",")
        shown += [run(["scontrol", "show", "partition", "-o", name]).stdout for name in names]
    found = [mode for text in shown for mode in re.findall(r"PreemptMode\s*=\s*(\S+)", text)]
    modes = [mode for mode in found if mode != "NONE"]
    return modes[-1].upper() if modes else "OFF"


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command of SLURM.

    Raises:
        UserError: it cannot be started, or does not respond within `ANSWER_SECONDS`.
    """
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except OSError as error:
        raise UserError(f"{command[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]} did not respond within {ANSWER_SECONDS} s") from None


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """Return the error messages of a failed SLURM command in one line."""
    lines = [line.split("error: ")[-1].strip() for line in result.stderr.splitlines()]
    messages = "; ".join(dict.fromkeys(line for line in lines if line))
    return messages or f"exit code {result.returncode}"
