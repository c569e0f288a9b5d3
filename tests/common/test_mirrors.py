"""Loggers mirror the records: no point missing or repeated, and nothing of the run changes."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tdmpc2.common.run import mirrors
from tdmpc2.common.run.loggers import LOGGERS, Point
from tdmpc2.common.run.mirrors import CsvLines, Mirrors, parse_loggers
from tdmpc2.common.run.run_files import read_status
from tdmpc2.common.run.spec import RunSpec
from tdmpc2.common.system.errors import UserError
from tests.kill_driver import Blow, Command
from tests.runs import arguments, outcome, refusal, run_directory, tiny
from tests.test_architecture import ROOT

SPEC = RunSpec("tdmpc2", "toy-pointmass", 1, 200).to_json()
INSTALLED = [name for name, (package, _) in LOGGERS.items() if importlib.util.find_spec(package)]
KILL = Blow("tdmpc2.common.training.trainer:Trainer._choose_actions", 173)


class Recording:
    """A logger that remembers its points, and fails at one of them."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.points: list[Point] = []
        self.fails_at = fails_at
        self.ends: list[str] = []

    def add(self, point: Point) -> None:
        if point.number == self.fails_at:
            raise ConnectionError("no\nnetwork")
        self.points.append(point)

    def close(self, state: str) -> None:
        self.ends.append(state)


def lines_of(directory: Path) -> Counter[tuple[str, int, float]]:
    """Return the points that a complete mirror has, from the CSV files."""
    points = []
    for name in ("train", "eval"):
        with open(directory / f"{name}.csv", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                step = int(row["env_step"])
                points += [(f"{name}/{key}", step, float(value)) for key, value in row.items()]
    return Counter(points)


def test_lines_come_in_the_order_of_steps_and_once(tmp_path: Path) -> None:
    lines = CsvLines(tmp_path)
    assert list(lines.new()) == []
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "100.mp4").touch()
    (tmp_path / "eval.csv").write_text("env_step,x\n0,1.5\n100,2\n")
    (tmp_path / "train.csv").write_text("env_step,y\n50,3\n100,4\n150,")
    found = list(lines.new())
    assert [(p.number, p.step, dict(p.values)) for p in found] == [
        (0, 0, {"eval/env_step": 0, "eval/x": 1.5}),
        (1, 50, {"train/env_step": 50, "train/y": 3}),
        (2, 100, {"train/env_step": 100, "train/y": 4}),
        (3, 100, {"eval/env_step": 100, "eval/x": 2}),
    ]
    assert [p.video for p in found] == [None, None, None, tmp_path / "videos" / "100.mp4"]
    with open(tmp_path / "train.csv", "a", encoding="utf-8") as file:
        file.write("5\n")
    assert [(p.number, p.step, p.values["train/y"]) for p in lines.new()] == [(4, 150, 5)]
    assert list(lines.new()) == []


def test_lines_of_multitask_agents_are_named_by_their_task(tmp_path: Path) -> None:
    (tmp_path / "eval.csv").write_text("num_updates,task,x\n5,walker-walk,1\n5,cup-catch,2\n")
    names = [set(point.values) for point in CsvLines(tmp_path).new()]
    assert names == [
        {"eval/walker-walk/num_updates", "eval/walker-walk/x"},
        {"eval/cup-catch/num_updates", "eval/cup-catch/x"},
    ]


def test_a_logger_that_fails_is_one_warning_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = Recording(), Recording(fails_at=1)

    def unable(run: Any) -> Any:
        raise OSError("no disk")

    known = {"good": ("", lambda run: good), "bad": ("", lambda run: bad), "none": ("", unable)}
    monkeypatch.setattr(mirrors, "LOGGERS", known)
    (tmp_path / "eval.csv").write_text("env_step,x\n0,1\n10,2\n20,3\n")
    three = Mirrors(("good", "bad", "none"), tmp_path, SPEC)
    three.update()
    three.close("FAILED")
    three.close("COMPLETED")
    assert [p.step for p in good.points] == [0, 10, 20]
    assert (good.ends, bad.ends) == (["FAILED"], [])
    warned = capsys.readouterr().err.splitlines()
    assert [line.partition(" has failed")[0] for line in warned] == [
        "warning: logger=none",
        "warning: logger=bad",
    ]
    assert r"ConnectionError: no\nnetwork" in warned[1]


class Harmful:
    """A logger that does something wrong at some call, and closes without a state.

    Args:
        run: the run.
        at: the call: `made`, `add` or `close`.
    """

    def __init__(self, run: Any, at: str) -> None:
        self.at = at
        run.config.clear()
        self.harm("made")

    def add(self, point: Point) -> None:
        self.harm("add")
        point.values.clear()  # type: ignore[attr-defined]

    def close(self) -> None:
        self.harm("close")

    def harm(self, call: str) -> None:
        if call == self.at:
            sys.exit(0)


@pytest.mark.parametrize("at", ["made", "add", "close", "never"])
def test_a_logger_neither_ends_the_run_nor_changes_what_others_log(
    at: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good, config = Recording(), {}

    def remembering(run: Any) -> Any:
        config.update(run.config)
        return good

    known = {"bad": ("", lambda run: Harmful(run, at)), "good": ("", remembering)}
    monkeypatch.setattr(mirrors, "LOGGERS", known)
    (tmp_path / "eval.csv").write_text("env_step,x\n0,1\n10,2\n")
    both = Mirrors(("bad", "good"), tmp_path, SPEC)
    both.update()
    both.close("COMPLETED")
    assert [point.values["eval/x"] for point in good.points] == [1, 2]
    assert config == SPEC
    err = capsys.readouterr().err
    line = f"warning: logger=bad has failed and is left out (SystemExit: 0 ({Path(__file__).name}"
    assert err.startswith("" if at == "never" else line)
    assert err.count("\n") == (at != "never")


def test_a_function_that_makes_no_logger_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mirrors, "LOGGERS", {"none": ("", lambda run: None)})
    Mirrors(("none",), tmp_path, SPEC)
    assert (
        "(TypeError: it made NoneType, which has no method add); train.py"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensorbord", "unknown logger 'tensorbord' (did you mean 'tensorboard'?)"),
        ("tensorboard,tensorboard", "tensorboard is named twice"),
    ],
)
def test_invalid_names_are_refused(text: str, message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path / "runs", logger=text)
    assert not (tmp_path / "runs").exists()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs wandb, which is not installed: pip install"):
        parse_loggers("wandb")
    assert parse_loggers(None) == parse_loggers("") == ()


def lines_module(folder: Path) -> str:
    """Write the module of the example in docs/runs.md, and return its code."""
    text = (ROOT / "docs" / "runs.md").read_text()
    code = text.partition("```python\nclass Lines:")[2].partition("```")[0]
    (folder / "my_lines.py").write_text(f"class Lines:{code}")
    return code


def test_a_logger_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of the documentation, in the train command."""
    assert lines_module(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    line = [sys.executable, "-m", "tdmpc2.train", *arguments(tmp_path / "runs")]
    done = subprocess.run([*line, "logger=my_lines:Lines"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    directory = run_directory(tmp_path / "runs")
    with open(directory / "eval.csv", encoding="utf-8") as file:
        expected = [
            (int(row["env_step"]), float(row["episode_return"])) for row in csv.DictReader(file)
        ]
    shown = [line.split() for line in (directory / "lines.txt").read_text().splitlines()]
    assert [(int(step), float(value)) for step, value in shown] == expected
    assert len(expected) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Logger", "cannot be imported.*PYTHONPATH"),
        (f"{__name__}:NoSuchClass", f"{__name__} has no 'NoSuchClass'"),
        (":Logger", "'' is no name of a module"),
        (f"{__name__}:Blow", "Blow has no method add and close"),
    ],
)
def test_an_unusable_logger_of_ones_own_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=f"logger={name}: {message}") as caught:
        parse_loggers(name)
    assert "\n" not in str(caught.value)


def read_tensorboard(directory: Path) -> Counter[tuple[str, int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(directory / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    assert "config/text_summary" in board.Tags()["tensors"]
    tags = board.Tags()["scalars"]
    return Counter((tag, e.step, e.value) for tag in tags for e in board.Scalars(tag))


def read_mlflow(directory: Path) -> Counter[tuple[str, int, float]]:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{directory / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'tdmpc2'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["task"] == "toy-pointmass"
    histories = (client.get_metric_history(run.info.run_id, key) for key in run.data.metrics)
    return Counter((m.key, m.step, m.value) for history in histories for m in history)


def wandb_records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a .wandb file: a header of 7 bytes, then the log format of LevelDB."""
    place, record, block = 7, b"", 32768
    while place + 7 <= len(content):
        if block - place % block < 7:  # the rest of a block is too short for another record
            place += block - place % block
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            yield record
            record = b""


def read_wandb(directory: Path) -> Counter[tuple[str, int, float]]:
    from wandb.proto import wandb_internal_pb2

    (path,) = (directory / "wandb").glob("offline-run-*/*.wandb")
    points: list[tuple[str, int, float]] = []
    for content in wandb_records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(content)
        items = record.history.item
        row = {"/".join([*i.nested_key] or [i.key]): json.loads(i.value_json) for i in items}
        points += [(k, row["step"], v) for k, v in row.items() if "/" in k]
    return Counter(points)


READERS = {"tensorboard": read_tensorboard, "wandb": read_wandb, "mlflow": read_mlflow}


def rounded(points: Counter[tuple[str, int, float]]) -> Counter[tuple[str, int, float]]:
    """Return points with values in float32, as TensorBoard stores them."""
    return Counter(
        (name, step, float(np.float32(value))) for name, step, value in points.elements()
    )


def test_a_run_with_loggers_is_the_same_and_mirrored_once_after_a_kill(tmp_path: Path) -> None:
    assert tiny(tmp_path / "plain").code == 0
    logger = ",".join(INSTALLED)
    # Modules of a folder on PYTHONPATH must be found by the command, too.
    env = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "WANDB_SILENT": "true"}
    for runs, blow in (("whole", None), ("killed", KILL), ("killed", None)):
        line = arguments(tmp_path / runs, logger=logger)
        done = Command(line, blow, env=env).run()
        assert done.code == (-signal.SIGKILL if blow else 0), done
        assert "has failed" not in done.err
        if blow is None:
            assert outcome(tmp_path / runs) == outcome(tmp_path / "plain")
            directory = run_directory(tmp_path / runs)
            for name in INSTALLED:
                found = rounded(READERS[name](directory))
                assert found == rounded(lines_of(directory)), name


def test_seeds_of_one_process_are_mirrored_apart(tmp_path: Path) -> None:
    """Loggers of several runs are open at the same time."""
    folders = [tmp_path / str(seed) for seed in (1, 2)]
    for seed, folder in enumerate(folders, 1):
        folder.mkdir()
        for name in ("train", "eval"):
            (folder / f"{name}.csv").write_text(f"env_step,x\n0,{seed}\n10,{seed + 0.5}\n")
    runs = [RunSpec("tdmpc2", "toy-pointmass", seed, 200).to_json() for seed in (1, 2)]
    every = [Mirrors(INSTALLED, *run) for run in zip(folders, runs, strict=True)]
    for one in (*every, *every):
        one.update()
    for one in every:
        one.close("COMPLETED")
    for folder in folders:
        for name in INSTALLED:
            assert rounded(READERS[name](folder)) == rounded(lines_of(folder)), name


@pytest.mark.slow
def test_a_sweep_with_loggers_gives_the_same_evaluations(tmp_path: Path) -> None:
    """The smoke suite, short: one seed of each run until shortly after its first updates.

    The launch may end with exit code 1, because nothing learns that early.
    """
    settings = ["suite=smoke", "seeds=1", "env_steps=6000", "cluster=local", "yes=true"]
    environment = {**os.environ, "WANDB_SILENT": "true"}
    found = {}
    for name, more in (("plain", []), ("mirrored", [f"logger={','.join(INSTALLED)}"])):
        line = [sys.executable, "-m", "sweeps.launch", *settings, f"runs={tmp_path / name}", *more]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stderr
        runs = [path.parent for path in (tmp_path / name).rglob("eval.csv")]
        assert [(read_status(run) or {})["state"] for run in runs] == ["COMPLETED"] * 5, done.stdout
        evaluations = {str(run.relative_to(tmp_path / name)): run / "eval.csv" for run in runs}
        found[name] = {run: path.read_bytes() for run, path in evaluations.items()}
    assert found["mirrored"] == found["plain"]
    for directory in (path.parent for path in (tmp_path / "mirrored").rglob("eval.csv")):
        assert {path.name for path in directory.iterdir()} >= {MIRRORS[name] for name in INSTALLED}


MIRRORS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow.db"}
"""File or folder of each logger in a run directory."""


def test_every_logger_has_a_reader() -> None:
    assert READERS.keys() == MIRRORS.keys() == LOGGERS.keys()


@pytest.mark.parametrize("name", LOGGERS)
def test_every_logger_is_tested(name: str) -> None:
    """The tests above go through those that are installed; in CI, all are."""
    pytest.importorskip(LOGGERS[name][0])
