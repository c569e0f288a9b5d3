"""Converts the official datasets into this format."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from tdmpc2.common.system.errors import UserError
from tdmpc2.data.chunks import Chunk, ChunkLayout, find_chunks, layout_of
from tdmpc2.data.dataset import Dataset
from tdmpc2.data.rows import DTYPES, RowFault
from tdmpc2.data.task_writer import TaskWriter
from tdmpc2.data.writer import DatasetWriter, refuse_finished
from tdmpc2.envs.tasks import Task, get_suite

_READ_BYTES = 1 << 22


@dataclass(frozen=True)
class ConvertOptions:
    """What to convert."""

    files: str | None = field(
        default=None, metadata={"help": "chunk_0.pt,chunk_1.pt …, or the folder that holds them"}
    )
    suite: Literal["mt30", "mt80"] | None = field(
        default=None, metadata={"help": "mt30 | mt80: which official dataset it is"}
    )
    out: Path | None = field(default=None, metadata={"help": "folder of the dataset, a new one"})
    trust: bool = field(default=False, metadata={"help": "true: I trust whoever made the files"})
    dtype: Literal["float16", "float32"] | None = field(
        default=None, metadata={"help": "float16 | float32; default: as stored"}
    )
    shard_mb: int = field(default=256, metadata={"help": "most of a shard, in 10^6 bytes"})

    def __post_init__(self) -> None:
        """Rejects what cannot be carried out."""
        for name in ("files", "suite", "out"):
            if getattr(self, name) is None:
                raise UserError(f"{name}= is missing (see convert --help)")
        if self.shard_mb < 1:
            raise UserError(f"shard_mb={self.shard_mb}: must be at least 1")
        if not self.trust:
            raise UserError(
                f"files={self.files}: not opened: the official files are pickles, and a pickle "
                "can run any program when it is opened. If you trust whoever made them, say "
                "trust=true; even then, whatever they name but tensors is refused"
            )


def convert(options: ConvertOptions) -> Dataset:
    """Converts official files; a conversion that was killed begins again.

    Every file is checked before the first shard is written, then copied block by block.

    Args:
        options: see `ConvertOptions`.

    Raises:
        UserError: a file that is damaged, refused, or not of that suite; a task without items; a
            value that no dataset may hold; a folder that holds something else.
    """
    assert options.files is not None
    assert options.suite is not None
    assert options.out is not None
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
    """The widest dtype of all files, and the items of each task.

    Raises:
        UserError: a file that cannot be used, or a task without items.
    """
    dtypes, counts = {DTYPES[-1]}, Counter[int]()
    for path in tqdm(paths, desc="looking through", unit=" files", leave=False, disable=None):
        chunk = Chunk(path, layout)
        dtypes.add(chunk.dtype)
        counts.update(chunk.task.tolist())
    missing = [task.name for i, task in enumerate(layout.tasks) if not counts[i]]
    if missing:
        raise UserError(
            f"{paths[0].parent}: no episodes of {', '.join(missing[:5])} "
            f"({len(missing)} of {len(layout.tasks)} tasks): are these all files of the dataset?"
        )
    return min(dtypes, key=DTYPES.index), counts


def _checksums(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of each file."""
    found = []
    total = sum(path.stat().st_size for path in paths)
    bar = tqdm(desc="checksums", total=total, unit="B", unit_scale=True, leave=False, disable=None)
    with bar:
        for path in paths:
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while block := file.read(_READ_BYTES):
                    digest.update(block)
                    bar.update(len(block))
            size = path.stat().st_size
            found.append({"name": path.name, "bytes": size, "sha256": digest.hexdigest()})
    return found


def _copy(
    paths: Sequence[Path],
    layout: ChunkLayout,
    dtype: str,
    shards: dict[str, TaskWriter],
    total: int,
) -> None:
    """Appends the items of every file to the shards of their tasks."""
    length = layout.num_rows - 1
    with tqdm(total=total, desc="converting", unit=" episodes", leave=False, disable=None) as bar:
        for path in paths:
            for task, items, rows in Chunk(path, layout).episodes(dtype):
                lengths = np.full(len(items), length, np.int64)
                locate = partial(_locate, path, task, items, layout.num_rows)
                shards[task.name].add(rows, lengths, np.zeros_like(lengths), locate)
                bar.update(len(items))


def _locate(path: Path, task: Task, items: np.ndarray, num_rows: int, fault: RowFault) -> str:
    """Where in a file a fault is: actions and rewards lie a row further down there."""
    item, row = divmod(fault.row, num_rows)
    row += fault.column >= task.obs_dim
    return f"{path}: item {items[item]} ({task.name}), row {row}"
