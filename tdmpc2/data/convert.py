"""Convert the official datasets into the format of this suite."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tdmpc2.common.system.archives import check_members
from tdmpc2.common.system.errors import UserError
from tdmpc2.data.chunks import Chunk, ChunkLayout, find_chunks, layout_of
from tdmpc2.data.dataset import Dataset
from tdmpc2.data.options import ConvertOptions
from tdmpc2.data.rows import DTYPES, RowFault
from tdmpc2.data.task_writer import TaskWriter
from tdmpc2.data.writer import DatasetWriter, refuse_finished
from tdmpc2.envs.tasks import Task, get_suite

_READ_BYTES = 1 << 22


def convert(options: ConvertOptions) -> Dataset:
    """Convert official files; an interrupted conversion starts again from the beginning.

    All files are checked before the first shard is written, and then copied block by block.

    Args:
        options: see `ConvertOptions`.

    Raises:
        UserError: a file is damaged, rejected, a copy of another, or not of the suite; a task has
            no items; a value is invalid; or the folder contains something else.
    """
    refuse_finished(options.out)
    paths, tasks = find_chunks(options.files), get_suite(options.suite)
    layout = layout_of(options.suite, tasks)
    dtype, counts = _survey(paths, layout)
    dtype = options.dtype or dtype
    files = _checksums(paths)
    plan = {
        "command": "convert",
        "name": options.suite,
        "dtype": dtype,
        "shard_mb": options.shard_mb,
        "files": files,
    }
    with DatasetWriter(
        options.out,
        options.suite,
        tasks,
        plan,
        shard_mb=options.shard_mb,
        resume=False,
    ) as writer:
        shards = {task.name: writer.open_task(task, dtype) for task in tasks}
        _copy(paths, layout, dtype, shards, total=sum(counts.values()))
        for task in tasks:
            writer.finish_task(shards[task.name])
        return writer.finish(
            {"command": "convert", "rows_per_item": layout.num_rows, "files": files}
        )


def _survey(paths: Sequence[Path], layout: ChunkLayout) -> tuple[str, Counter[int]]:
    """Return the widest dtype of all files, and the number of items of each task.

    Raises:
        UserError: a file cannot be used, or a task has no items.
    """
    dtypes, counts = {DTYPES[-1]}, Counter[int]()
    for path in tqdm(paths, desc="checking", unit=" files", leave=False, disable=None):
        chunk = Chunk(path, layout)
        dtypes.add(chunk.dtype)
        counts.update(chunk.task.tolist())
    missing = [task.name for i, task in enumerate(layout.tasks) if not counts[i]]
    if missing:
        raise UserError(
            f"{paths[0].parent}: no episodes of {', '.join(missing[:5])} "
            f"({len(missing)} of {len(layout.tasks)} tasks); give all files of the dataset"
        )
    return min(dtypes, key=DTYPES.index), counts


def _checksums(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the name, size and SHA-256 of each file.

    Raises:
        UserError: a file is damaged, or a copy of another.
    """
    files: list[dict[str, Any]] = []
    total = sum(path.stat().st_size for path in paths)
    bar = tqdm(desc="checksums", total=total, unit="B", unit_scale=True, leave=False, disable=None)
    with bar:
        for path in paths:
            check_members(path)
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while block := file.read(_READ_BYTES):
                    digest.update(block)
                    bar.update(len(block))
            size = path.stat().st_size
            same = [file["name"] for file in files if file["sha256"] == digest.hexdigest()]
            if same:
                raise UserError(f"{path}: a copy of {same[0]}; leave one of them out")
            files.append({"name": path.name, "bytes": size, "sha256": digest.hexdigest()})
    return files


def _copy(
    paths: Sequence[Path],
    layout: ChunkLayout,
    dtype: str,
    shards: dict[str, TaskWriter],
    total: int,
) -> None:
    """Append the items of every file to the shards of their tasks."""
    length = layout.num_rows - 1
    with tqdm(total=total, desc="converting", unit=" episodes", leave=False, disable=None) as bar:
        for path in paths:
            for task, items, rows in Chunk(path, layout).episodes(dtype):
                lengths = np.full(len(items), length, np.int64)
                locate = partial(_locate, path, task, items, layout.num_rows)
                shards[task.name].add(rows, lengths, np.zeros_like(lengths), locate)
                bar.update(len(items))


def _locate(path: Path, task: Task, items: np.ndarray, num_rows: int, fault: RowFault) -> str:
    """Return the location of a fault in a file, in which actions and rewards are one row later."""
    item, row = divmod(fault.row, num_rows)
    row += fault.column >= task.obs_dim
    return f"{path}: item {items[item]} ({task.name}), row {row}"
