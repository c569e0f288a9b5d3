"""The GPU acceptance test, run on the CPU with tiny models."""

from __future__ import annotations

import importlib
import json
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tdmpc2.common.system.errors import UserError
from tdmpc2.runners.registry import METHODS
from tests.kill_driver import Command, Done
from tests.runs import run_directory

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_acceptance.py"


def accept(out: Path, *arguments: str) -> Done:
    """Runs the command to its end; each of its sections is a process started anew."""
    line = ["small=true", "device=cpu", f"out={out}", *arguments]
    return Command(line, env={"PYTHONPATH": str(SCRIPT.parent)}, module=SCRIPT.stem).run()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("gpu_acceptance")


def test_sections_pass_and_are_not_repeated(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = accept(out, "sections=sync,memory", "parallel=2")
    assert done.code == 0, done
    assert "No GPU is used" in done.out
    found = json.loads((out / "acceptance.json").read_text())
    assert [one["section"] for one in found["sections"]] == ["sync", "memory"]
    for one in found["sections"]:
        assert one["status"] == "passed"
        assert one["key"] == found["facts"]
        assert any(check["ok"] for check in one["checks"])
    waits = [check["name"] for check in found["sections"][0]["checks"]]
    for method in METHODS:
        assert f"{method}, eager: update: waits" in waits
    assert "| tdmpc2, eager: plan: waits | 0 | ≤ 0 |" in (out / "acceptance.md").read_text()
    again = accept(out, "sections=sync,memory")
    assert again.code == 0
    assert again.out.count("passed before") == 2


def test_a_section_that_takes_too_long_is_stopped_and_named(tmp_path: Path) -> None:
    done = accept(tmp_path / "out", "sections=memory", "limits=memory=0.1")
    assert done.code == 1
    assert "**memory**: timed out: after 0 s" in done.out
    assert "not passed: memory" in done.out
    assert accept(tmp_path / "out", "sections=memory").code == 0  # and repeated


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("sections=speed", "no section 'speed'"),
        ("limits=tran=3", "did you mean 'train'?"),
        ("limits=train=soon", "a finite number is needed"),
        ("limits=train=0", "more than 0 seconds"),
        ("tasks=walker-stand", "walker-stand is not a task of evidence"),
        ("parallel=0", "must lie in [1, 1024]"),
        ("device=tpu", "unknown device"),
        ("smal=true", "did you mean 'small'?"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, argument: str, message: str, command: ModuleType
) -> None:
    with pytest.raises(UserError) as refused:
        command.main([f"out={tmp_path / 'out'}", argument])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_every_section(tmp_path: Path, command: ModuleType) -> None:
    """All sections run on the CPU."""
    out = tmp_path / "out"
    done = accept(out)
    assert done.code == 0, done
    sections = json.loads((out / "acceptance.json").read_text())["sections"]
    passed = dict.fromkeys(command.SECTIONS, "passed")
    assert {one["section"]: one["status"] for one in sections} == passed
    with zipfile.ZipFile(out / "records.zip") as archive:
        names = [Path(name).name for name in archive.namelist()]
    assert names.count("eval.csv") == 3
    recorded = out / "recorded" / "tdmpc2"
    assert recorded.exists()
    assert run_directory(out / "resume" / "TD-MPC2-eager" / "killed").exists()


def test_a_record_of_an_unfinished_run_is_replaced_when_it_ends(
    tmp_path: Path, command: ModuleType
) -> None:
    training = importlib.import_module("gpu_sections.training")
    run = tmp_path / "runs" / "tdmpc2" / "default" / "cup-catch" / "seed1-0123456789"
    run.mkdir(parents=True)
    kept = tmp_path / "recorded" / run.relative_to(tmp_path / "runs") / "status.json"
    for state, unfinished in (("RUNNING", False), ("RUNNING", True), ("COMPLETED", False)):
        (run / "status.json").write_text(json.dumps({"state": state}))
        training.keep_records(tmp_path / "runs", tmp_path, unfinished=unfinished)
        assert kept.exists() == (unfinished or state == "COMPLETED")
    assert json.loads(kept.read_text()) == {"state": "COMPLETED"}
