"""Open a dataset on disk, check it against its manifest, and read its facts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.data.shard import Shard, check_files
from tdmpc2.envs.tasks import TASKS, Task

FORMAT = 1
MANIFEST, UNFINISHED, SHARDS = "manifest.json", "unfinished.json", "shards"
_NAMED = 5  # missing tasks that an error message lists
FACTS = ("obs_dim", "action_dim", "episode_length", "action_repeat")


class Dataset:
    """A finished dataset, opened for reading.

    Attributes:
        folder: folder of the dataset.
        name: its suite, for example `mt30`; None for other task sets.
        tasks: names of the tasks, in the dataset's order.
        checksum: checksum of its content; it does not depend on the folder.
        manifest: contents of `manifest.json`.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.name: str | None = manifest["name"]
        self.checksum: str = manifest["checksum"]
        self._tasks = {each["name"]: each for each in manifest["tasks"]}
        self.tasks = tuple(self._tasks)

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Open a dataset after checks that do not read the shards.

        Args:
            folder: the folder that contains `manifest.json`.

        Raises:
            UserError: there is no dataset, or it is unfinished; the manifest is damaged or of
                another format; a file is missing or of another size; or the dimensions of a task
                differ from the task table.
        """
        manifest = read_json(folder / MANIFEST)
        if manifest is None:
            if (folder / UNFINISHED).is_file():
                raise UserError(f"{folder}: unfinished: run the command that writes it again")
            if not folder.is_dir():
                raise UserError(f"{folder}: no such folder")
            raise UserError(f"{folder}: not a dataset (there is no {MANIFEST})")
        try:
            if manifest["format"] != FORMAT:
                raise UserError(
                    f"{folder}: format {manifest['format']}, but this version reads {FORMAT}"
                )
            dataset = cls(folder, manifest)
            dataset._check()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{folder / MANIFEST}: damaged ({error or type(error).__name__}); restore it, or "
                "build the dataset again"
            ) from None
        return dataset

    def _check(self) -> None:
        """Compare the manifest with its checksum, the task table and the sizes of the files."""
        if self.checksum != checksum_of(self.manifest["tasks"]):
            raise ValueError("its checksum does not match")
        for name, facts in self._tasks.items():
            row = TASKS.get(name)
            if row is None:
                raise UserError(f"{self.folder}: contains the unknown task '{name}'")
            for fact, value in task_facts(row).items():
                if facts[fact] != value:
                    raise UserError(
                        f"{self.folder}: {name} has {fact} {facts[fact]} in the dataset, but "
                        f"{value} in the task table"
                    )
            shards = self.shards(name)
            for shard in shards:
                check_files(shard)
            counted = (sum(s.num_episodes for s in shards), sum(s.num_transitions for s in shards))
            if counted != (facts["episodes"], facts["transitions"]):
                raise ValueError(f"the counts of {name} do not match those of its shards")

    def shards(self, task: str) -> list[Shard]:
        """Return the shards of a task, in order.

        Raises:
            UserError: the dataset has no such task; the message suggests the closest name.
        """
        facts = self.facts(task)
        return [
            Shard(
                task=task,
                path=self.folder / SHARDS / entry["file"],
                obs_dim=facts["obs_dim"],
                action_dim=facts["action_dim"],
                num_rows=entry["rows"],
                num_episodes=entry["episodes"],
                dtype=entry["dtype"],
                sha256=entry["sha256"],
                episodes_sha256=entry["episodes_sha256"],
            )
            for entry in facts["shards"]
        ]

    def require(self, tasks: Sequence[str]) -> None:
        """Check that the dataset contains the tasks.

        Raises:
            UserError: tasks are missing; the message lists the first few.
        """
        missing = [task for task in tasks if task not in self._tasks]
        if missing:
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            raise UserError(f"{self.folder}: has no data of {', '.join(missing[:_NAMED])}{more}")

    def facts(self, task: str) -> dict[str, Any]:
        """Return the manifest's entry of a task: dimensions, episodes, transitions and shards.

        Raises:
            UserError: the dataset has no such task; the message suggests the closest name.
        """
        if task not in self._tasks:
            hint = did_you_mean(task, self.tasks)
            raise UserError(f"{self.folder}: has no task '{task}'{hint}")
        return self._tasks[task]

    @cached_property
    def all_shards(self) -> tuple[Shard, ...]:
        """The shards of all tasks, in order."""
        return tuple(shard for task in self.tasks for shard in self.shards(task))

    @property
    def num_transitions(self) -> int:
        """Number of transitions of all tasks."""
        return sum(shard.num_transitions for shard in self.all_shards)

    @property
    def num_episodes(self) -> int:
        """Number of episodes of all tasks."""
        return sum(shard.num_episodes for shard in self.all_shards)

    @property
    def num_bytes(self) -> int:
        """Size of all shards in bytes."""
        return sum(sum(shard.sizes.values()) for shard in self.all_shards)

    def verify(self) -> Iterator[tuple[Shard, list[str]]]:
        """Read the whole dataset and check checksums, episodes, rows and values.

        Yields:
            Each shard after it has been read, with its faults: one line each that names file, task
            and row; an empty list if there are none.
        """
        for shard in self.all_shards:
            yield shard, shard.faults()


def task_facts(task: Task) -> dict[str, int]:
    """Return the facts that a dataset and the task table must agree on."""
    return {fact: getattr(task, fact) for fact in FACTS}


def checksum_of(tasks: Sequence[Mapping[str, Any]]) -> str:
    """Compute the checksum of a dataset's content: the tasks, their order, and their shards.

    Args:
        tasks: entries of the manifest.
    """
    content = [
        [
            each["name"],
            *(each[fact] for fact in FACTS),
            [[shard["sha256"], shard["episodes_sha256"]] for shard in each["shards"]],
        ]
        for each in tasks
    ]
    return hashlib.sha256(json.dumps([FORMAT, content]).encode()).hexdigest()
