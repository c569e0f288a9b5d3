"""Writes a dataset: one task after the other, and the manifest when all are whole."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tdmpc2.common.run.lock import Lease
from tdmpc2.common.run.provenance import git_commit
from tdmpc2.common.system.atomic_files import full_disk, read_json, remove_leftovers, write_json
from tdmpc2.common.system.errors import UserError
from tdmpc2.data.dataset import (
    FORMAT,
    MANIFEST,
    SHARDS,
    UNFINISHED,
    Dataset,
    checksum_of,
    task_facts,
)
from tdmpc2.data.task_writer import TaskWriter
from tdmpc2.envs.tasks import Task

DISTRIBUTION = "tdmpc2-repro"
MB = 10**6


class DatasetWriter:
    """A dataset on its way into a folder, which is this process's own while entered.

    `unfinished.json` says what is being written and which tasks are whole. A writer of the same
    plan goes on from there: shards it does not list are removed. `manifest.json` comes last.

    Args:
        folder: where to; must be new, empty, or hold what an earlier writer left.
        name: of the dataset: a suite, or None.
        tasks: in the dataset's order.
        plan: everything that decides the content, as JSON.
        shard_mb: most of a shard, in 10^6 bytes, unless one episode is larger.
        resume: whether tasks that an earlier writer has finished stay.

    Raises:
        UserError: on entering: the folder holds something else, a finished dataset included, or
            is in use.
    """

    def __init__(
        self,
        folder: Path,
        name: str | None,
        tasks: Sequence[Task],
        plan: Mapping[str, Any],
        *,
        shard_mb: float,
        resume: bool = True,
    ) -> None:
        self.folder, self.name, self.tasks = folder, name, tuple(tasks)
        self.plan: Any = json.loads(json.dumps(plan))  # as it will be read back
        self.shard_bytes, self.resume = int(shard_mb * MB), resume
        self.done: dict[str, list[dict[str, Any]]] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> DatasetWriter:
        """Takes the folder, and what an earlier writer of the same plan has done."""
        refuse_finished(self.folder)
        with contextlib.ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(Lease(self.folder))
            except OSError as error:
                if full_disk(error):
                    raise
                raise UserError(
                    f"{self.folder}: cannot be written ({error.strerror}); choose another out="
                ) from None
            self._begin()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        """Removes half-written shards and gives the folder back."""
        with self._stack:
            remove_leftovers(self.folder / SHARDS)

    def _begin(self) -> None:
        refuse_finished(self.folder)
        earlier = read_json(self.folder / UNFINISHED)
        if earlier is None:
            # Hidden: what a process killed at this very place was about to write.
            found = {path.name for path in self.folder.iterdir() if path.name[0] != "."}
            if found - {"lease.json"}:
                raise UserError(f"{self.folder}: not empty; choose another out=")
        elif earlier.get("format") != FORMAT or earlier.get("plan") != self.plan:
            raise UserError(
                f"{self.folder}: holds an unfinished dataset of other sources or settings; "
                "remove it, or choose another out="
            )
        elif self.resume:
            self.done = earlier["tasks"]
        remove_leftovers(self.folder)
        self._save()
        shards = self.folder / SHARDS
        shards.mkdir(exist_ok=True)
        whole = {entry["file"] for entries in self.done.values() for entry in entries}
        for path in shards.iterdir():
            if path.name.replace(".episodes.npy", ".npy") not in whole:
                path.unlink()

    def _save(self) -> None:
        write_json(
            self.folder / UNFINISHED, {"format": FORMAT, "plan": self.plan, "tasks": self.done}
        )

    def open_task(self, task: Task, dtype: str) -> TaskWriter:
        """The shards of a task, to be filled; several may be open at a time.

        Args:
            task: one that is not in `done`.
            dtype: `float32` or `float16`.
        """
        return TaskWriter(self.folder / SHARDS, task, dtype, self.shard_bytes)

    def finish_task(self, writer: TaskWriter) -> None:
        """Takes note that a task is whole."""
        self.done[writer.task.name] = writer.close()
        if self.resume:
            self._save()

    def finish(self, provenance: Mapping[str, Any]) -> Dataset:
        """Writes the manifest.

        Args:
            provenance: where the content comes from; date, package version and commit are added.
        """
        entries = [self._entry(task) for task in self.tasks]
        manifest = {
            "format": FORMAT,
            "name": self.name,
            "tasks": entries,
            "checksum": checksum_of(entries),
            "provenance": {
                **provenance,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "version": importlib.metadata.version(DISTRIBUTION),
                "commit": git_commit(),
            },
        }
        write_json(self.folder / MANIFEST, manifest)
        (self.folder / UNFINISHED).unlink()
        return Dataset.open(self.folder)

    def _entry(self, task: Task) -> dict[str, Any]:
        shards = self.done[task.name]
        episodes = sum(shard["episodes"] for shard in shards)
        rows = sum(shard["rows"] for shard in shards)
        counts = {"episodes": episodes, "transitions": rows - episodes}
        return {"name": task.name, **task_facts(task), **counts, "shards": shards}


def refuse_finished(folder: Path) -> None:
    """Refuses a folder that holds a finished dataset.

    Raises:
        UserError: it does.
    """
    if (folder / MANIFEST).exists():
        raise UserError(
            f"{folder}: holds a finished dataset, which is never overwritten; choose another out="
        )
