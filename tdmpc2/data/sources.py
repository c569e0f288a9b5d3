"""The finished runs that a dataset can be built of, and the episodes they keep."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.run_files import read_status
from tdmpc2.common.system.atomic_files import read_json, sha256_of
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.physics import repairs_of
from tdmpc2.envs.task_variants import departures
from tdmpc2.envs.tasks import Task


@dataclass(frozen=True)
class SourceRun:
    """A finished run with the episodes it keeps.

    Attributes:
        directory: of the run.
        spec: its `spec.json`.
        env_steps: where it ended.
        shards: the checkpoint's entries of the files in `replay/`: name, count, sha256.
    """

    directory: Path
    spec: Mapping[str, Any]
    env_steps: int
    shards: Sequence[Mapping[str, Any]]

    @property
    def order(self) -> tuple[str, str, int, str]:
        """Method, variant, seed and identity, by which the runs of a task are sorted."""
        return tuple(self.spec[key] for key in ("method", "variant", "seed", "identity"))

    def facts(self) -> dict[str, Any]:
        """What the manifest says of it."""
        keys = ("task", "method", "variant", "seed", "identity", "overrides")
        return {
            **{key: self.spec[key] for key in keys},
            "env_steps": self.env_steps,
            "commit": self.spec.get("commit"),
            "episodes": sum(shard["count"] for shard in self.shards),
        }

    def episodes(self, task: Task) -> Iterator[tuple[Path, dict[str, np.ndarray]]]:
        """The episodes, file by file, oldest first.

        Args:
            task: whose dims they must have.

        Yields:
            The file; `obs (sum(T + 1), O)`, `action (sum(T), A)`, `reward (sum(T),)`,
            `length (E,)` and `terminated (E,)`.

        Raises:
            UserError: a file is missing, damaged, or of other dims.
        """
        for shard in self.shards:
            path = self.directory / "replay" / shard["name"]
            if not path.is_file() or sha256_of(path) != shard["sha256"]:
                raise UserError(f"{path}: missing or damaged; move the run aside and build again")
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
                        f"{path}: {key} of {task.name} has shape {arrays[key].shape}, not {shape}"
                    )
            yield path, arrays


@dataclass(frozen=True)
class Found:
    """Runs below a folder.

    Attributes:
        runs: of each task, in order of method, variant and seed.
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
    """Looks for the runs of some tasks.

    Args:
        folder: that holds all runs.
        tasks: names.
        method: of the runs.
        variant: of the runs; None takes whatever there is.
        seeds: of the runs; None takes all.

    Raises:
        UserError: no such folder, or a damaged record.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of runs")
    runs: dict[str, list[SourceRun]] = {task: [] for task in tasks}
    left_out = {}
    for path in sorted(folder.glob("*/*/*/*/spec.json")):
        spec = read_json(path)
        if spec["task"] not in runs or spec["method"] != method:
            continue
        if variant not in (None, spec["variant"]) or (seeds and spec["seed"] not in seeds):
            continue
        found = _usable(path.parent, spec)
        if isinstance(found, str):
            left_out[path.parent] = found
        else:
            runs[spec["task"]].append(found)
    for each in runs.values():
        each.sort(key=lambda run: run.order)
    return Found(runs, left_out)


def _usable(directory: Path, spec: Mapping[str, Any]) -> SourceRun | str:
    """The run, or why it cannot be used."""
    if spec.get("budget_unit", "env_steps") != "env_steps":
        return "learned from a dataset and played no episodes"
    if spec.get("obs", "state") != "state":
        return f"its observations are {spec['obs']}, not states"
    if spec.get("assets") not in (None, "official"):
        return f"played with {spec['assets']} models"
    switches = spec.get("protocol", {})
    changed = departures(tuple(switches.items()))
    if changed:
        text = ", ".join(f"{name}={str(value).lower()}" for name, value in changed)
        return f"not the paper's tasks ({text})"
    if repairs_of(spec["task"]) and "physics" not in switches:
        return "trained with the physics of version 0.4.0"
    status = read_status(directory) or {"state": "not begun", "env_step": 0}
    if status["state"] != "COMPLETED":
        return f"unfinished ({status['state']} at env step {status['env_step']:,})"
    found = CheckpointStore(directory).existing()
    manifest = read_json(found[-1] / "manifest.json") if found else None
    if manifest is None or not manifest["shards"]:
        return "keeps no episodes (train with keep_replay=true)"
    return SourceRun(directory, spec, status["env_step"], manifest["shards"])
