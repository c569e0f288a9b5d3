"""`benchmarks/bf16_acceptance.py`: which cases it judges, what it saves, and its exit codes."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))  # as if they were started as scripts


ERRORS = {"value_std": 1e-4, "value_bias": 0.0, "overlap": 1.0}
ERRORS |= {"model_gradient": 0.001, "policy_gradient": 0.001}


def judged(
    monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], *, fails: str = "", plan: float = 1.0
) -> int:
    """Run `bf16_acceptance.py` on a CPU with AMX; return its exit code.

    Args:
        monkeypatch: used for the measurements.
        arguments: arguments of the command.
        fails: precision of the case that cannot be measured.
        plan: multiple of the lower bound of each plan.
    """
    script = importlib.import_module("bf16_acceptance")
    targets = importlib.import_module("bf16_targets")
    values = {"plan_ms": 1.0, "update_ms": 1.0, "plan_ratio_torch": plan, "loop_ratio": 1.0}
    values |= {"update_ratio_torch": 1.0}

    def run_case(case: Mapping[str, Any]) -> Any:
        if "updates" in case:
            return {"bf16": ERRORS}
        measured = {**case, **values, "gflops_of": {"torch": 1.0}, "compiled": True}
        return None if case["precision"] == fails else measured

    monkeypatch.setattr(script, "run_case", run_case)
    monkeypatch.setattr(script, "kind_of_cpu", lambda: targets.AMX)
    return script.main(arguments)


@pytest.mark.parametrize(
    ("arguments", "number", "code"),
    [
        ([], 10, 0),
        (["threads=2"], 4, 0),
        (["updates=2"], 6, 0),
        (["task=dog-run"], 0, 3),
        (["model_size=1"], 0, 3),
        (["compile=false"], 0, 3),
    ],
)
def test_only_the_cases_of_the_targets_are_judged(
    arguments: list[str],
    number: int,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert judged(monkeypatch, arguments) == code
    printed = capsys.readouterr().out
    assert printed.count(" met |") == number
    assert f"\n{number} targets judged. Targets hold for walker-walk, model_size=5, " in printed


def test_a_missed_target_is_another_exit_code_than_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was measured is judged and written."""
    out = tmp_path / "out.json"
    arguments = ["threads=1", f"out={out}"]
    assert judged(monkeypatch, arguments, plan=9.0) == 1
    assert judged(monkeypatch, arguments, fails="fp32", plan=9.0) == 1
    capsys.readouterr()
    assert judged(monkeypatch, arguments, fails="bf16") == 3
    printed = capsys.readouterr().out
    assert "bf16, threads=1: could not be measured" in printed
    assert "\n7 targets judged." in printed
    found = json.loads(out.read_text())
    assert [row["precision"] for row in found["rows"]] == ["fp32"]
    assert found["errors"] == {"bf16": ERRORS}
