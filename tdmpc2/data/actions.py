"""Subcommands of `python -m tdmpc2.data`; importing them imports torch."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from tdmpc2.common.run.run_files import format_value
from tdmpc2.common.system.atomic_files import write_text
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.texts import counted
from tdmpc2.data.build import build, chosen_tasks
from tdmpc2.data.convert import convert
from tdmpc2.data.dataset import Dataset
from tdmpc2.data.options import BuildOptions, ConvertOptions, InspectOptions, VerifyOptions
from tdmpc2.data.summary import COLUMNS, HEADER, TaskSummary, origin, summarize


def build_dataset(options: BuildOptions) -> None:
    """Build a dataset."""
    print(_size(build(options)))


def convert_dataset(options: ConvertOptions) -> None:
    """Convert the files of an official dataset."""
    print(_size(convert(options)))


def _size(dataset: Dataset) -> str:
    size = dataset.num_bytes
    return (
        f"{dataset.folder}: {dataset.name or 'no suite'}, {counted(len(dataset.tasks), 'task')}, "
        f"{counted(dataset.num_episodes, 'episode')}, "
        f"{counted(dataset.num_transitions, 'transition')}, "
        f"{f'{size / 1e9:.2f} GB' if size >= 1e8 else f'{size / 1e6:.2f} MB'}, "
        f"checksum {dataset.checksum[:12]}"
    )


def inspect_dataset(options: InspectOptions) -> None:
    """Print episodes, returns and shares of the tasks of a dataset.

    Raises:
        UserError: the dataset cannot be read, or the file of `csv` already exists.
    """
    dataset = Dataset.open(options.data)
    if options.csv is not None and options.csv.exists():
        raise UserError(f"{options.csv}: already exists; choose another csv=")
    names = dataset.tasks
    if options.task is not None:
        names = tuple(task.name for task in chosen_tasks(None, options.task, "task"))
    num_rows = sum(shard.num_rows for name in names for shard in dataset.shards(name))
    with tqdm(total=num_rows, unit=" rows", unit_scale=True, leave=False, disable=None) as bar:
        rows = [summarize(dataset, name, bar.update) for name in names]
    print(_size(dataset))
    print("\n".join(origin(dataset)))
    print(HEADER)
    print("\n".join(row.line() for row in rows))
    if options.csv is not None:
        options.csv.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.csv, _as_csv(rows))


def _as_csv(rows: Sequence[TaskSummary]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: format_value(v) for k, v in row.row().items()} for row in rows)
    return text.getvalue()


def verify_dataset(options: VerifyOptions) -> None:
    """Check all checksums, episodes and values of a dataset.

    Raises:
        UserError: the dataset cannot be read, or a shard is damaged.
    """
    dataset = Dataset.open(options.data)
    num_faults = num_shards = 0
    with tqdm(total=dataset.num_bytes, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for shard, faults in dataset.verify():
            num_faults, num_shards = num_faults + len(faults), num_shards + bool(faults)
            for fault in faults:
                bar.write(fault, file=sys.stdout)
            bar.update(sum(shard.sizes.values()))
    if num_faults:
        shards, found = counted(len(dataset.all_shards), "shard"), counted(num_faults, "fault")
        raise UserError(
            f"{dataset.folder}: {found} in {num_shards} of {shards}; restore the files, or build "
            "the dataset again"
        )
    print(f"no faults: {_size(dataset)}")


ACTIONS: dict[str, Callable[[Any], None]] = {
    "build": build_dataset,
    "convert": convert_dataset,
    "inspect": inspect_dataset,
    "verify": verify_dataset,
}
