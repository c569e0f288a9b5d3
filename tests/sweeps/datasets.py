"""Tiny datasets, and the arguments that launch tiny multi-task agents on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.envs.tasks import get_suite
from tests.datasets.helpers import episode, make_dataset
from tests.test_offline import OFFLINE, TASKS

SETTINGS = {key: value for key, value in OFFLINE.items() if key != "task"}


def dataset(folder: Path, tasks: Sequence[str], *, name: str | None = None) -> Path:
    """Write a dataset with a few short episodes of each task, and return its folder."""
    episodes = {task: [episode(task, i, 12) for i in range(3)] for task in tasks}
    make_dataset(folder, episodes)
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", {**manifest, "name": name})
    return folder


def suite_dataset(folder: Path, suite: str) -> Path:
    """Write a tiny dataset of all tasks of a suite."""
    return dataset(folder, [task.name for task in get_suite(suite)], name=suite)


def toy_dataset(folder: Path) -> Path:
    """Write a tiny dataset of the two toy tasks, which do not form a suite."""
    return dataset(folder, TASKS)


def arguments(data: Path, runs: Path, **changes: Any) -> list[str]:
    """Build the arguments that launch tiny agents; a change to None omits an argument."""
    values = {"tasks": ",".join(TASKS), "data": data, "runs": runs, **SETTINGS, **changes}
    return [f"{key}={value}" for key, value in values.items() if value is not None]
