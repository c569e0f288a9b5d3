"""Write a dataset task by task, and its manifest when all tasks are complete."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tdmpc2.common.run.lock import Lease
from tdmpc2.common.run.provenance import installed_version
from tdmpc2.common.run.source_version import git_commit
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
MB = 10**6  # bytes


class DatasetWriter:
    """Writer of a dataset; a context manager that holds the lease of the folder.

    `unfinished.json` contains the plan and the complete tasks. A writer with the same plan
    continues from there and removes shards that are not listed. `manifest.json` is written last.

    Args:
        folder: destination; must be new, empty, or left by an interrupted writer.
        name: name of the dataset: a suite, or None.
        tasks: the tasks, in the dataset's order.
        plan: everything that determines the content, as JSON.
        shard_mb: maximum size of a shard, in 10^6 bytes; a larger episode gets its own shard.
        resume: whether to keep the tasks that an interrupted writer has completed.

    Raises:
        UserError: on entering, if the folder contains something else (or a finished dataset), or
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
        self.plan: Any = json.loads(json.dumps(plan))  # equal to what is read from the file later
        self.shard_bytes, self.resume = int(shard_mb * MB), resume
        self.done: dict[str, list[dict[str, Any]]] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> DatasetWriter:
        """Acquire the folder, and resume the work of an interrupted writer with the same plan."""
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
        """Remove incomplete shards and release the folder."""
        with self._stack:
            remove_leftovers(self.folder / SHARDS)

    def _begin(self) -> None:
        refuse_finished(self.folder)
        earlier = read_json(self.folder / UNFINISHED)
        if earlier is None:
            # Hidden files are ignored: a process killed here leaves temporary files.
            names = {path.name for path in self.folder.iterdir() if path.name[0] != "."}
            if names - {"lease.json"}:
                raise UserError(f"{self.folder}: not empty; choose another out=")
        elif earlier.get("format") != FORMAT or earlier.get("plan") != self.plan:
            raise UserError(
                f"{self.folder}: contains an unfinished dataset of other sources or settings; "
                "remove it, or choose another out="
            )
        elif self.resume:
            self.done = earlier["tasks"]
        remove_leftovers(self.folder)
        self._save()
        shards = self.folder / SHARDS
        shards.mkdir(exist_ok=True)
        complete = {entry["file"] for entries in self.done.values() for entry in entries}
        for path in shards.iterdir():
            if path.name.replace(".episodes.npy", ".npy") not in complete:
                path.unlink()

    def _save(self) -> None:
        write_json(
            self.folder / UNFINISHED, {"format": FORMAT, "plan": self.plan, "tasks": self.done}
        )

    def open_task(self, task: Task, dtype: str) -> TaskWriter:
        """Return a writer of the shards of a task; several may be open at a time.

        Args:
            task: a task that is not in `done`.
            dtype: `float32` or `float16`.
        """
        return TaskWriter(self.folder / SHARDS, task, dtype, self.shard_bytes)

    def finish_task(self, writer: TaskWriter) -> None:
        """Record that a task is complete."""
        self.done[writer.task.name] = writer.close()
        if self.resume:
            self._save()

    def finish(self, provenance: Mapping[str, Any]) -> Dataset:
        """Write the manifest and return the dataset.

        Args:
            provenance: sources of the content; date, package version and commit are added.
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
                "version": installed_version(DISTRIBUTION),
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
    """Check that a folder does not contain a finished dataset.

    Raises:
        UserError: it does.
    """
    if (folder / MANIFEST).exists():
        raise UserError(
            f"{folder}: contains a finished dataset, which is never overwritten; choose another "
            "out="
        )
