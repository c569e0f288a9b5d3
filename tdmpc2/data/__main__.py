"""Build, convert, inspect and verify multi-task datasets: `python -m tdmpc2.data`."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from tdmpc2.common.run.run_files import format_value
from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import write_text
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.data.options import BuildOptions, ConvertOptions, InspectOptions, VerifyOptions

if TYPE_CHECKING:
    from tdmpc2.data.dataset import Dataset
    from tdmpc2.data.summary import TaskSummary


class _Command(NamedTuple):
    """One subcommand."""

    run: Callable[[Any], None]
    options: type
    text: str


def _build(options: BuildOptions) -> None:
    from tdmpc2.data.build import build

    print(_size(build(options)))


def _convert(options: ConvertOptions) -> None:
    from tdmpc2.data.convert import convert

    print(_size(convert(options)))


def _size(dataset: Dataset) -> str:
    return (
        f"{dataset.folder}: {dataset.name or 'no suite'}, {len(dataset.tasks)} tasks, "
        f"{dataset.num_episodes:,} episodes, {dataset.num_transitions:,} transitions, "
        f"{dataset.num_bytes / 1e9:.2f} GB, checksum {dataset.checksum[:12]}"
    )


def _inspect(options: InspectOptions) -> None:
    from tdmpc2.data.build import chosen_tasks
    from tdmpc2.data.summary import HEADER, origin, summarize

    dataset = _open(options.data)
    if options.csv is not None and options.csv.exists():
        raise UserError(f"{options.csv}: already exists; choose another csv=")
    names = dataset.tasks
    if options.task is not None:
        names = tuple(task.name for task in chosen_tasks(None, options.task))
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
    from tdmpc2.data.summary import COLUMNS

    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: format_value(v) for k, v in row.row().items()} for row in rows)
    return text.getvalue()


def _verify(options: VerifyOptions) -> None:
    dataset = _open(options.data)
    num_faults = num_shards = 0
    with tqdm(total=dataset.num_bytes, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for shard, faults in dataset.verify():
            num_faults, num_shards = num_faults + len(faults), num_shards + bool(faults)
            for fault in faults:
                bar.write(fault, file=sys.stdout)
            bar.update(sum(shard.sizes.values()))
    if num_faults:
        raise UserError(
            f"{dataset.folder}: {num_shards} of {len(dataset.all_shards)} shards are damaged "
            f"({num_faults} faults); restore them, or build the dataset again"
        )
    print(f"no faults: {_size(dataset)}")


def _open(folder: Path | None) -> Dataset:
    if folder is None:
        raise UserError("data= is missing: give the folder of a dataset")
    from tdmpc2.data.dataset import Dataset

    return Dataset.open(folder)


COMMANDS = {
    "build": _Command(
        _build, BuildOptions, "build a dataset from the replay data of finished runs"
    ),
    "convert": _Command(_convert, ConvertOptions, "convert the files of an official dataset"),
    "inspect": _Command(_inspect, InspectOptions, "show episodes, returns and shares of the tasks"),
    "verify": _Command(_verify, VerifyOptions, "check all checksums, episodes and values"),
}

_DETAILS = {
    "build": (
        "Train the runs with keep_replay=true. Every task needs at least one finished run; runs",
        "that cannot be used are listed and skipped. If the build is interrupted, run the same",
        "command again to continue it.",
    ),
    "convert": (
        "All files are checked before the first shard is written. The pickles in the files may",
        "refer only to tensors and TensorDicts; the tensordict package is not needed.",
    ),
    "inspect": ("All rewards are read. The last column is a histogram of returns.",),
    "verify": ("One line is printed per fault; the exit code is 2 if there is any.",),
}


def usage(arguments: Sequence[str] = ()) -> str:
    """Return the text of `--help` for the subcommand in the arguments, or the overview."""
    name = next((argument for argument in arguments if argument in COMMANDS), None)
    if name is None:
        return "\n".join(
            [
                f"usage: python -m tdmpc2.data {'|'.join(COMMANDS)} key=value …",
                "       python -m tdmpc2.data COMMAND --help",
                "",
                "Manage multi-task datasets for offline training.",
                "",
                *(f"  {name:<9}{each.text}" for name, each in COMMANDS.items()),
            ]
        )
    return "\n".join(
        [
            f"usage: python -m tdmpc2.data {name} key=value …",
            "",
            f"{COMMANDS[name].text.capitalize()}.",
            *_DETAILS[name],
            "",
            cli.describe_fields(COMMANDS[name].options),
        ]
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: a missing or unknown subcommand, or an invalid option.
    """
    if not arguments:
        raise UserError(f"no command is given (valid: {', '.join(COMMANDS)}; see --help)")
    name, *rest = arguments
    if name not in COMMANDS:
        raise UserError(f"'{name}': unknown command{did_you_mean(name, COMMANDS)}")
    run, options, _ = COMMANDS[name]
    run(options(**cli.parse_arguments(rest, cli.schema_of(options))))
    return 0


if __name__ == "__main__":
    sys.exit(cli.command(main, lambda: usage(sys.argv[1:])))
