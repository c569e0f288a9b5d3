"""Launch sweeps of tiny runs on a cluster, and inspect and compare their runs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeps import launch, status
from sweeps.tracking.run_states import View
from sweeps.tracking.sweep_folder import all_sweeps
from tests.runs import TINY, outcome_of
from tests.slurm.cluster import Cluster, wait_for

# Seconds to wait; a machine under load needs some minutes.
PATIENCE = 300.0


def arguments(runs: Path, **changes: Any) -> list[str]:
    """Build the arguments that launch tiny runs; those of SLURM jobs only if it is used."""
    values = {key: value for key, value in TINY.items() if key != "task"}
    values |= {"tasks": "toy-pointmass", "runs": runs, **changes}
    if "cluster" not in changes:
        values = {"gpus": 0, "mem_gb": 1, **values}
    return [f"{key}={value}" for key, value in values.items()]


def sweep(runs: Path, **changes: Any) -> int:
    """Launch tiny runs and return the exit code."""
    return launch.main(arguments(runs, **changes))


def views(runs: Path) -> dict[int, View]:
    """Return the states of all runs of all sweeps of a folder, by seed."""
    return {row["seed"]: view for row, view in status.look(runs, all_sweeps(runs))}


def directory(runs: Path, seed: int) -> Path:
    """Return the run directory of a seed."""
    (spec,) = runs.glob(f"*/*/*/seed{seed}-*/spec.json")
    return spec.parent


def attempts(runs: Path, seed: int) -> list[dict[str, Any]]:
    """Read the records of all attempts at a run."""
    return json.loads((directory(runs, seed) / "attempts.json").read_text())


def until_empty(cluster: Cluster) -> None:
    """Wait until no job is left."""
    wait_for(lambda: not cluster.jobs(), PATIENCE, f"the queue: {cluster.jobs()}")


def hold(runs: Path, seeds: Sequence[int]) -> dict[int, int]:
    """Pause each of some runs with SIGSTOP, after a checkpoint with gradient updates.

    This is not the option `sbatch=hold`, which keeps a job from starting.

    Returns:
        Seed → id of its paused process.
    """
    held: dict[int, int] = {}

    def learning(seed: int) -> bool:
        saved = runs.glob(f"*/*/*/seed{seed}-*/checkpoints/0*")
        return any(int(path.name) > TINY["seed_decisions"] for path in saved)

    def all_held() -> bool:
        for seed in seeds:
            if seed not in held and learning(seed):
                with contextlib.suppress(FileNotFoundError):  # requeued after its time limit
                    pid = lease(runs, seed)["pid"]
                    os.kill(pid, signal.SIGSTOP)
                    held[seed] = pid
        return len(held) == len(seeds)

    wait_for(all_held, PATIENCE, f"runs to learn, of {seeds}")
    return held


def lease(runs: Path, seed: int) -> dict[str, Any]:
    """Read the lease of a run: host, process and SLURM job that hold it."""
    return json.loads((directory(runs, seed) / "lease.json").read_text())


def is_warned(pid: int) -> bool:
    """Return whether a paused process has received SIGUSR2, or has ended."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        pending = [int(mask, 16) for mask in re.findall(r"^(?:Shd|Sig)Pnd:\s*(\w+)", text, re.M)]
        return any(mask >> (signal.SIGUSR2 - 1) & 1 for mask in pending)
    return True


def same_as(runs: Path, other: Path, seed: int) -> bool:
    """Return whether two folders contain the same run, byte for byte."""
    return outcome_of(directory(runs, seed)) == outcome_of(directory(other, seed))


def evaluated(runs: Path, seed: int) -> list[int]:
    """Return the env steps of the lines of `eval.csv`."""
    lines = (directory(runs, seed) / "eval.csv").read_text().splitlines()[1:]
    return [int(line.split(",")[0]) for line in lines]
