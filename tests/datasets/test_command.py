"""Output and exit codes of `python -m tdmpc2.data`."""

from __future__ import annotations

import csv
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tdmpc2.common.system import cli
from tdmpc2.data import __main__ as command_module
from tdmpc2.data.rows import HEADER_BYTES
from tdmpc2.data.summary import COLUMNS, NUM_BINS, sparkline, summarize
from tdmpc2.data.task_writer import TaskWriter
from tests.datasets.helpers import FOUR, episode, fake_run, four_tasks, make_dataset
from tests.datasets.official import items, save


class Done(NamedTuple):
    """Exit code and output."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process."""

    def run(*arguments: Any) -> Done:
        monkeypatch.setattr(sys, "argv", ["data", *map(str, arguments)])
        code = cli.command(command_module.main, lambda: command_module.usage(sys.argv[1:]))
        return Done(code, *capsys.readouterr())

    return run


def test_help_from_anywhere(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "tdmpc2.data", "build", "--help"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "suite=" in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", command_module.COMMANDS)
def test_help_lists_every_key(name: str, command: Run) -> None:
    assert name in command("--help").out
    done = command(name, "--help")
    listed = {line.split("=")[0].strip() for line in done.out.splitlines() if "=" in line}
    assert set(cli.schema_of(command_module.COMMANDS[name].options)) <= listed
    assert max(map(len, done.out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "no command is given (valid: build, convert, inspect, verify; see --help)"),
        (["biuld"], "'biuld': unknown command (did you mean 'build'?)"),
        (["inspect"], "data= is missing: folder of the dataset"),
        (["verify", "data=nowhere"], "nowhere: no such folder"),
        (["verify", "data=."], ": not a dataset (there is no manifest.json)"),
        (["verify", "dta=x"], "unknown key 'dta' (did you mean 'data'?)"),
        (["build", "tasks=cup-catch"], "out= is missing"),
        (["build", "out=x"], "give either suite=NAME or tasks=NAME,NAME"),
        (["convert", "files=x", "out=x", "suite=mt40"], "suite=mt40: unknown value (did you mean"),
        (["convert", "files=x", "out=x", "suite=mt30"], "use trust=true"),
        (["convert", "files=x", "out=x", "suite=mt30", "trust=yes"], "x: no such file"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], hint: str, command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command(*arguments)
    assert (done.code, done.out) == (2, "")
    assert hint in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_build_inspect_verify(command: Run, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for task in FOUR[:2]:
        fake_run(runs, task, [episode(task, i, 4) for i in range(3)])
    left = fake_run(runs, FOUR[0], [episode(FOUR[0], 1, 4)], seed=2, state="RUNNING")
    arguments = (f"tasks={','.join(FOUR[:2])}", f"runs={runs}", f"out={tmp_path / 'd'}")
    done = command("build", *arguments)
    assert (done.code, done.err) == (0, "")
    first, second = done.out.splitlines()
    assert first == f"skipped: {left}: unfinished (RUNNING at env step 1,000)"
    assert "2 tasks, 6 episodes, 24 transitions" in second
    again = command("build", *arguments)
    assert again.code == 2
    assert "contains a finished dataset" in again.err
    shown = command("inspect", f"data={tmp_path / 'd'}")
    assert shown.code == 0
    assert "built from 2 runs (" in shown.out
    assert "tdmpc2 (default): 2 runs, seed 1, 1,000 env steps" in shown.out
    whole = command("verify", f"data={tmp_path / 'd'}")
    assert (whole.code, whole.err) == (0, "")
    assert whole.out.startswith(f"no faults: {tmp_path / 'd'}: no suite, 2 tasks")


def test_seeds_without_a_run_are_named(command: Run, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for task, seed in ((FOUR[0], 1), (FOUR[0], 2), (FOUR[1], 1)):
        fake_run(runs, task, [episode(task, 0, 4)], seed=seed)
    arguments = (f"tasks={','.join(FOUR[:2])}", f"runs={runs}", f"out={tmp_path / 'd'}")
    done = command("build", *arguments, "seeds=4", "variant=other")
    assert done.code == 2
    assert "no finished tdmpc2 run of variant=other of seeds=4 with kept episodes" in done.err
    assert not (tmp_path / "d").exists()
    done = command("build", *arguments, "seeds=2")
    assert done.code == 0
    first, second = done.out.splitlines()
    assert first == f"missing: {FOUR[1]}: no usable run of seed 2"
    assert "0.00 MB" in second


def test_convert_and_inspect(command: Run, tmp_path: Path) -> None:
    file = save(tmp_path / "chunk_0.pt", items("mt30"))
    out = tmp_path / "d"
    done = command("convert", f"files={file}", "suite=mt30", f"out={out}", "trust=true")
    assert (done.code, done.err) == (0, "")
    assert "mt30, 30 tasks, 30 episodes, 15,000 transitions" in done.out
    assert "converted from 1 file" in command("inspect", f"data={out}", "task=cup-spin").out


def test_inspect_by_hand(command: Run, tmp_path: Path) -> None:
    """The table, the file and the histogram show the returns of episodes with known rewards."""
    dataset, episodes = four_tasks(tmp_path / "d", shard_bytes=600)
    out = tmp_path / "tables" / "x.csv"
    done = command("inspect", f"data={dataset.folder}", f"csv={out}")
    assert (done.code, done.err) == (0, "")
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    total = dataset.num_transitions
    for row, task in zip(rows, FOUR, strict=True):
        returns = [float(one.reward.sum()) for one in episodes[task]]
        lengths = [len(one) for one in episodes[task]]
        assert (row["task"], int(row["episodes"])) == (task, len(returns))
        assert int(row["transitions"]) == sum(lengths)
        assert float(row["share"]) == pytest.approx(sum(lengths) / total)
        assert (int(row["min_length"]), int(row["max_length"])) == (min(lengths), max(lengths))
        assert int(row["terminated"]) == (2 if task == FOUR[3] else 0)
        assert float(row["mean_return"]) == pytest.approx(np.mean(returns))
        assert float(row["sd_return"]) == pytest.approx(np.std(returns))
        assert float(row["min_return"]) == min(returns)
        assert float(row["max_return"]) == max(returns)
        assert f"{np.mean(returns):.1f}" in done.out
    (line,) = (line for line in done.out.splitlines() if line.startswith("walker-walk"))
    assert line.endswith(sparkline(np.array([one.reward.sum() for one in episodes[FOUR[0]]])))
    again = command("inspect", f"data={dataset.folder}", f"csv={out}")
    assert (again.code, again.out) == (2, "")
    assert "already exists" in again.err


def test_inspect_of_some_tasks(command: Run, tmp_path: Path) -> None:
    dataset, _ = four_tasks(tmp_path / "d")
    done = command("inspect", f"data={dataset.folder}", f"task={FOUR[2]},{FOUR[0]}")
    shown = [line.split()[0] for line in done.out.splitlines()[-2:]]
    assert shown == [FOUR[2], FOUR[0]]
    for text, message in (
        ("cup-catch", "has no task 'cup-catch'"),
        (",", "error: task=,: no task; give a list"),
        ("gym:X", "error: task=gym:X: datasets and"),
    ):
        done = command("inspect", f"data={dataset.folder}", f"task={text}")
        assert (done.code, done.out) == (2, "")
        assert message in done.err


def test_histograms() -> None:
    assert sparkline(np.arange(NUM_BINS)) == "█" * NUM_BINS
    assert sparkline(np.array([0.0, 0.0, 0.0, 0.0, 1.0])) == "█" + " " * (NUM_BINS - 2) + "▂"
    assert sparkline(np.array([3.0])).strip() == "█"
    assert len(sparkline(np.array([3.0, 3.0]))) == NUM_BINS


def test_returns_are_summed_in_double_precision(tmp_path: Path) -> None:
    one = episode(FOUR[0], 1, 300)
    one.action[:] = 0
    one.reward[:] = 2000.0
    one.reward[1::2] = 0.125
    dataset = make_dataset(tmp_path / "d", {FOUR[0]: [one]}, dtype="float16")
    assert summarize(dataset, FOUR[0]).returns.tolist() == [150 * 2000.125]


def test_verify_prints_a_line_per_fault(command: Run, tmp_path: Path) -> None:
    dataset, _ = four_tasks(tmp_path / "d")
    for shard in dataset.all_shards[1:3]:
        with open(shard.path, "r+b") as file:
            file.seek(HEADER_BYTES)
            file.write(np.float32(np.inf).tobytes())
    done = command("verify", f"data={dataset.folder}")
    assert done.code == 2
    lines = done.out.splitlines()
    assert len(lines) == 4
    for shard, pair in zip(dataset.all_shards[1:3], (lines[:2], lines[2:]), strict=True):
        assert pair[0].startswith(f"{shard.path}: its checksum differs from")
        assert pair[1] == f"{shard.path}: {shard.task}, row 0: observation 0 is inf"
    assert "4 faults in 2 of 4 shards;" in done.err
    assert done.err.count("\n") == 1


def test_a_full_disk_is_one_line(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_run(tmp_path / "runs", FOUR[0], [episode(FOUR[0], 1, 4)])

    def full(self: TaskWriter, rows: np.ndarray, pairs: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    arguments = (f"tasks={FOUR[0]}", f"runs={tmp_path / 'runs'}", f"out={tmp_path / 'd'}")
    with monkeypatch.context() as patch:
        patch.setattr(TaskWriter, "_append", full)
        done = command("build", *arguments)
    assert done.code == 2
    assert done.err.startswith("error: no space left (No space left on device)")
    assert done.err.count("\n") == 1
    assert command("build", *arguments).code == 0
