"""Find the finished runs from which a dataset can be built, and read their episodes."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.run_files import read_status, step_of
from tdmpc2.common.run.schemas import Manifest, SpecFile
from tdmpc2.common.system.atomic_files import read_json, sha256_of
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.regular_files import closed_folders
from tdmpc2.envs.physics import recorded_physics
from tdmpc2.envs.task_variants import departures
from tdmpc2.envs.tasks import Task


@dataclass(frozen=True)
class SourceRun:
    """A finished run with the episodes that it has kept.

    Attributes:
        directory: the run directory.
        spec: its `spec.json`.
        env_steps: env steps at its end.
        shards: the checkpoint's entries of the files in `replay/`: name, first, count, sha256.
    """

    directory: Path
    spec: Mapping[str, Any]
    env_steps: int
    shards: Sequence[Mapping[str, Any]]

    @property
    def order(self) -> tuple[str, str, int, str]:
        """Sort key of the runs of a task: method, variant, seed and identity."""
        return tuple(self.spec[key] for key in ("method", "variant", "seed", "identity"))

    @property
    def num_lost(self) -> int:
        """Number of its episodes that had left the replay buffer before they were saved."""
        last = self.shards[-1]
        return last["first"] + last["count"] - sum(shard["count"] for shard in self.shards)

    def facts(self) -> dict[str, Any]:
        """Return the run's entry in the manifest."""
        keys = ("task", "method", "variant", "seed", "identity", "overrides")
        return {
            **{key: self.spec[key] for key in keys},
            "env_steps": self.env_steps,
            "commit": self.spec.get("commit"),
            "episodes": sum(shard["count"] for shard in self.shards),
        }

    def episodes(self, task: Task) -> Iterator[tuple[Path, dict[str, np.ndarray]]]:
        """Yield the episodes, file by file, oldest first.

        Args:
            task: the task, whose dimensions the episodes must have.

        Yields:
            The file; `obs (sum(T + 1), O)`, `action (sum(T), A)`, `reward (sum(T),)`,
            `length (E,)` and `terminated (E,)`.

        Raises:
            UserError: a file is missing, damaged, or of other dimensions.
        """
        for shard in self.shards:
            path = self.directory / "replay" / shard["name"]
            if not path.is_file() or sha256_of(path) != shard["sha256"]:
                raise UserError(
                    f"{path}: missing or damaged; move the run directory away and build again"
                )
            try:
                with np.load(path) as file:
                    arrays = {key: file[key] for key in file.files}
                rows, transitions = arrays["length"].sum() + shard["count"], arrays["length"].sum()
                expected = {
                    "obs": (rows, task.obs_dim),
                    "action": (transitions, task.action_dim),
                    "reward": (transitions,),
                    "length": (shard["count"],),
                    "terminated": (shard["count"],),
                }
            except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
                raise UserError(f"{path}: cannot be read ({error})") from None
            for key, shape in expected.items():
                if arrays[key].shape != shape:
                    raise UserError(
                        f"{path}: {key} of {task.name} has shape {arrays[key].shape}, expected "
                        f"{shape}"
                    )
            yield path, arrays


@dataclass(frozen=True)
class Found:
    """Runs that were found in a folder.

    Attributes:
        runs: the runs of each task, in order of method, variant and seed.
        left_out: runs of these tasks that cannot be used, each with the reason.
    """

    runs: Mapping[str, Sequence[SourceRun]]
    left_out: Mapping[Path, str]


def find_runs(
    folder: Path,
    tasks: Collection[str],
    *,
    method: str,
    variant: str | None = None,
    seeds: Collection[int] | None = None,
) -> Found:
    """Find the runs of some tasks.

    Args:
        folder: folder of all runs.
        tasks: names of the tasks.
        method: method of the runs.
        variant: variant of the runs; None for any.
        seeds: seeds of the runs; None for all.

    Raises:
        UserError: the folder does not exist.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of runs")
    runs: dict[str, list[SourceRun]] = {task: [] for task in tasks}
    left_out = {
        path: f"{path}: cannot be read (Permission denied)" for path in closed_folders(folder, 4)
    }
    for path in sorted(folder.glob("*/*/*/*/spec.json")):
        try:
            spec = read_json(path, SpecFile)
            if spec["task"] not in runs or spec["method"] != method:
                continue
            if variant not in (None, spec["variant"]) or (seeds and spec["seed"] not in seeds):
                continue
            run = _usable(path.parent, spec)
        except UserError as error:  # a damaged file
            run = str(error)
        if isinstance(run, str):
            left_out[path.parent] = run
        else:
            runs[spec["task"]].append(run)
    for each in runs.values():
        each.sort(key=lambda run: run.order)
    return Found(runs, left_out)


def _usable(directory: Path, spec: Mapping[str, Any]) -> SourceRun | str:
    """Return the run, or the reason why it cannot be used."""
    if spec.get("budget_unit", "env_steps") != "env_steps":
        return "trained offline, without episodes of its own"
    if spec.get("start"):
        return "starts from a pretrained model"
    if spec.get("obs", "state") != "state":
        return f"its observations are {spec['obs']}, not states"
    if spec.get("assets") not in (None, "official"):
        return f"uses {spec['assets']} assets, not the official ones"
    switches = spec.get("protocol", {})
    changed = departures(tuple(switches.items()))
    if changed:
        text = ", ".join(f"{name}={str(value).lower()}" for name, value in changed)
        return f"differs from the paper's tasks ({text})"
    if recorded_physics(spec) == "0.4.0":
        return "was trained with the physics of version 0.4.0"
    status = read_status(directory) or {"state": "not started", "env_step": 0}
    if status["state"] != "COMPLETED":
        return f"unfinished ({status['state']} at env step {step_of(status):,})"
    checkpoints = CheckpointStore(directory).existing()
    manifest = read_json(checkpoints[-1] / "manifest.json", Manifest) if checkpoints else None
    if manifest is None or not manifest["shards"]:
        return "has kept no episodes (train with keep_replay=true)"
    return SourceRun(directory, spec, step_of(status), manifest["shards"])
