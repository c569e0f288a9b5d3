"""Start a private SLURM cluster of two nodes on this machine; requires root.

One folder holds everything: configuration, key, sockets, state, logs, process ids. The nodes
declare more cores than the machine has. There is no accounting database, no cgroups, no systemd.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

WAIT_SECONDS = 2
"""How long SLURM lets the other processes of a job go on when one has ended, unless told not to."""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "sinfo")
NODES = ("n1", "n2")
GPUS = 2
# Jobs in `high` preempt and requeue those in `low`, after the signal that the jobs request.
CONF = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
# cred_expire: how long a requeued job waits before it starts again (120 s by default; 5 at least)
AuthInfo=socket={lab}/munge/socket,cred_expire=5
StateSaveLocation={lab}/state
SlurmdSpoolDir={lab}/spool/%n
SlurmctldPidFile={lab}/run/slurmctld.pid
SlurmdPidFile={lab}/run/slurmd-%n.pid
SlurmctldLogFile={lab}/log/slurmctld.log
SlurmdLogFile={lab}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
KillWait=3
WaitTime={wait}
MinJobAge=600
InactiveLimit=0
SlurmctldTimeout=30
SlurmdTimeout=5
MessageTimeout=10
TCPTimeout=2
ReturnToService=2
SlurmdParameters=config_overrides
MaxArraySize=1001
MaxJobCount=20000
DefMemPerCPU=200
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=5 PreemptMode=OFF
PartitionName=low Nodes=ALL MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=short Nodes=ALL MaxTime=5 State=UP PriorityTier=5 PreemptMode=OFF
"""


def missing() -> str:
    """Explain why no cluster can be started here; empty if one can."""
    if os.getuid() != 0:
        return "only root can start a private SLURM"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"missing: {', '.join(absent)} (apt-get install slurm-wlm munge)" if absent else ""


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        lab: folder with all of its files.
        env: environment variables with which SLURM's commands find it.
    """

    lab: Path
    env: Mapping[str, str]

    def call(self, *command: str, check: bool = True) -> str:
        """Run a SLURM command and return its output."""
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | self.env, check=False
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def jobs(self, *arguments: str) -> dict[str, str]:
        """Return the states of the jobs that have not ended."""
        lines = self.call(
            "squeue", "--noheader", "--array", "--format=%i %T", *arguments
        ).splitlines()
        return dict(line.split() for line in lines)

    def kill_node(self, node: str, job: str) -> None:
        """Kill a node: its daemon, and all processes of the job that runs on it."""
        shepherds = _processes(lambda line: line.startswith(f"slurmstepd: [{job}."))
        assert shepherds
        for pid in [*self._pids(f"slurmd-{node}.pid"), *_families(shepherds)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        (self.lab / "spool" / node).mkdir(parents=True, exist_ok=True)
        self.call("slurmd", "-f", str(self.lab / "slurm.conf"), "-N", node)

    def _pids(self, *names: str) -> list[int]:
        paths = [self.lab / "run" / name for name in names]
        return [int(path.read_text()) for path in paths if path.exists() and path.read_text()]

    def stop(self) -> None:
        """Cancel all jobs, then kill all processes of the cluster."""
        self.call("scancel", "--user=root", check=False)
        wait_for(lambda: not self.jobs(), 20, "jobs to end", strict=False)
        names = [*(f"slurmd-{node}.pid" for node in NODES), "slurmctld.pid", "munged.pid"]
        for pid in self._pids(*names):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in _processes(lambda line: str(self.lab) in line and "slurmstepd" in line):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _processes(wanted: Callable[[str], bool]) -> list[int]:
    """List the processes whose command lines satisfy a condition."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if wanted(line):
                found.append(int(path.parent.name))
    return found


def wait_for(
    condition: Callable[[], object], seconds: float, what: str, *, strict: bool = True
) -> None:
    """Wait until a condition is true.

    Raises:
        AssertionError: the condition is still false after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            assert not strict, f"waited {seconds} s for {what}"
            return
        time.sleep(0.5)  # most conditions call a command of SLURM


def _families(pids: Sequence[int]) -> list[int]:
    """List processes and all of their descendants."""
    return [
        one.pid
        for pid in pids
        for one in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))
    ]


@contextmanager
def running_cluster(lab: Path, conf_text: str = CONF) -> Iterator[Cluster]:
    """Start a cluster in a folder, and stop it on exit.

    Args:
        lab: folder of the cluster.
        conf_text: template of its `slurm.conf`.
    """
    for name in ("run", "log", "state", "munge", "spool"):
        (lab / name).mkdir(parents=True)
    lab.chmod(0o755)
    (lab / "munge").chmod(0o711)
    key = lab / "munge" / "key"
    key.touch(0o400)
    key.write_bytes(secrets.token_bytes(1024))
    ports = _free_ports(1 + len(NODES))
    conf = lab / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    gres = _fake_gpus(lab)
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=16 "
        f"RealMemory=64000 {gres} State=UNKNOWN"
        for node, port in zip(NODES, ports[1:], strict=True)
    )
    facts = {"host": host, "port": ports[0], "lab": lab, "nodes": nodes, "wait": WAIT_SECONDS}
    conf.write_text(conf_text.format(**facts))
    cluster = Cluster(lab, {"SLURM_CONF": str(conf)})
    munge = {"key-file": key, "socket": lab / "munge/socket", "log-file": lab / "log/munged.log"}
    munge |= {"pid-file": lab / "run/munged.pid", "seed-file": lab / "munge/seed"}
    cluster.call("munged", *(f"--{name}={path}" for name, path in munge.items()))
    try:
        cluster.call("slurmctld", "-f", str(conf))
        for node in NODES:
            cluster.start_node(node)
        wait_for(lambda: idle_nodes(cluster) == len(NODES), 30, f"nodes (logs in {lab / 'log'})")
        yield cluster
    finally:
        cluster.stop()


def idle_nodes(cluster: Cluster) -> int:
    """Count the nodes that accept a job."""
    lines = cluster.call("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T", check=False)
    return sum(line.endswith((" idle", " mixed")) for line in lines.splitlines())


def _fake_gpus(lab: Path) -> str:
    """Create fake GPUs for slurmd, which requires character devices: copies of /dev/null."""
    devices = [lab / f"gpu{i}" for i in range(GPUS)]
    for device in devices:
        made = subprocess.run(["mknod", str(device), "c", "1", "3"], capture_output=True)
        if made.returncode:
            return ""
    names = f"{lab}/gpu[0-{GPUS - 1}]"
    (lab / "gres.conf").write_text(f"NodeName=n[1-2] Name=gpu File={names}\n")
    return f"Gres=gpu:{GPUS}"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
