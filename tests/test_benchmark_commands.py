"""What the benchmarks save when they are interrupted, and what `speed.py` refuses."""

from __future__ import annotations

import csv
import importlib
import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tdmpc2.common.system.errors import UserError

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))  # as if they were started as scripts


def once(result: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose second call is interrupted by Ctrl-C."""
    calls = iter([result])

    def call(*args: Any, **kwargs: Any) -> Any:
        for first in calls:
            return first(*args, **kwargs)
        raise KeyboardInterrupt

    return call


def saved(script: ModuleType, out: Path, *arguments: str) -> str:
    """Return what a command has written when it is interrupted."""
    with pytest.raises(KeyboardInterrupt):
        script.main([*arguments, f"out={out}"])
    return out.read_text(encoding="utf-8")


def as_process(measure: Callable[[Sequence[str]], Any]) -> SimpleNamespace:
    """Return a stand-in for the module `subprocess` whose processes print a result as JSON."""

    def run(command: Sequence[str], **_: Any) -> SimpleNamespace:
        return SimpleNamespace(returncode=0, stdout=json.dumps(measure(command)), stderr="")

    return SimpleNamespace(PIPE=subprocess.PIPE, run=run)


def test_speed_saves_each_row_and_the_facts_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speed = importlib.import_module("speed")
    numbers = dict.fromkeys(speed.COLUMNS, 1.0)

    def measure(command: Sequence[str]) -> dict[str, Any]:
        return {**numbers, **json.loads(command[-1]), "compiled": True}

    monkeypatch.setattr(speed, "subprocess", as_process(once(measure)))
    arguments = ["tasks=toy-pointmass", "model_sizes=smoke", "threads=1,2", "device=cpu"]
    found = json.loads(saved(speed, tmp_path / "out.json", *arguments))
    assert [row["threads"] for row in found["rows"]] == [1]
    assert {"device", "torch", "cpu", "commit", "python"} <= found["machine"].keys()
    assert found["machine"].keys().isdisjoint(speed.OF_CASES)
    printed = capsys.readouterr().out
    assert "compile False" not in printed
    assert "| tdmpc2 | toy-pointmass | smoke | 1 | fp32 | True |" in printed


def test_seed_batches_saves_each_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = importlib.import_module("seed_batches")
    monkeypatch.setattr(script, "measure", once(lambda *_: defaultdict(float, task="x")))
    found = saved(script, tmp_path / "out.json", "model_sizes=smoke,1", "device=cpu")
    assert [row["task"] for row in json.loads(found)["rows"]] == ["x"]


def test_multitask_saves_each_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = importlib.import_module("multitask")

    class Here:
        """Stands for a pool of processes; calls functions in this one."""

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def __enter__(self) -> Here:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def submit(self, function: Callable[..., Any], *args: Any) -> SimpleNamespace:
            return SimpleNamespace(result=lambda: function(*args))

    def measure(options: Any, size: str, folder: Path) -> Mapping[str, Any]:
        return defaultdict(lambda: 1.0, model_size=size)

    monkeypatch.setattr(script, "make_dataset", lambda *_: None)
    monkeypatch.setattr(script, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(script, "measure", once(measure))
    found = json.loads(saved(script, tmp_path / "out.json", "model_sizes=1,5", "device=cpu"))
    assert [row["model_size"] for row in found["rows"]] == ["1"]
    assert found["options"]["task"] == "mt80"


def test_environments_saves_each_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = importlib.import_module("environments")
    monkeypatch.setattr(script, "subprocess", as_process(once(lambda command: {"memory_mb": 7})))
    text = saved(script, tmp_path / "out.csv", "suite=smoke")
    (row,) = csv.DictReader(text.splitlines())
    assert row["memory_mb"] == "7"
    assert row["task"] in {"walker-walk", "cartpole-swingup"}


def test_sequential_saves_each_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = importlib.import_module("sequential")
    counts = script.Counts(claims=1000, studies=1000, supported=3, any_supported=3, seeds=2500.0)
    monkeypatch.setattr(script, "simulate", once(lambda *_: counts))
    found = json.loads(saved(script, tmp_path / "out.json", "studies=1000"))
    (row,) = found["rows"]
    assert (row["expected"], row["scores"], row["loss"]) == ("lower", "spread 3", 0.0)
    assert (row["studies"], row["supported"], row["base_seeds"]) == (1000, 3, None)
    assert found["options"]["studies"] == 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["tasks=walker-walk,toy-pointmass", "replay_rows=500"],
            "replay_rows=500: an episode of walker-walk takes 501 rows; use at least 501",
        ),
        (
            ["tasks=walker-walk", "methods=tdmpc2,dreamerv3", "replay_rows=2_003"],
            "replay_rows=2003: an episode of walker-walk takes 501 rows in each of 4 environments; "
            "use at least 2004",
        ),
        (["precision=fp32,tf32"], "precision=tf32: only NVIDIA GPUs have TF32 arithmetic"),
    ],
)
def test_speed_refuses_what_no_case_could_measure(arguments: list[str], message: str) -> None:
    speed = importlib.import_module("speed")
    with pytest.raises(UserError, match=re.escape(message)):
        speed.parse([*arguments, "device=cpu"])


def test_speed_accepts_a_replay_buffer_of_one_episode() -> None:
    speed = importlib.import_module("speed")
    arguments = ["tasks=walker-walk", "methods=dreamerv3", "replay_rows=2_004", "device=cpu"]
    _, cases = speed.parse(arguments)
    assert {case["replay_rows"] for case in cases} == {2004}
