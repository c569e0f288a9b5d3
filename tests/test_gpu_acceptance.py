"""The GPU acceptance test, run on the CPU with tiny models."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tdmpc2.common.numerics import native_build
from tdmpc2.common.numerics.compile import Compiler
from tdmpc2.common.numerics.recorded_steps import WARM_CALLS, StepRecorder
from tdmpc2.common.system.errors import UserError
from tdmpc2.runners.registry import METHODS
from tests.kill_driver import Command, Done
from tests.runs import run_directory
from tests.tape import Tape

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_acceptance.py"
CPU = torch.device("cpu")
FACTS = {"device": "cpu", "torch": "2", "python": "3", "commit": "a" * 40, "small": True}


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
    assert done.out.endswith(f"results in {out}; passed: sync, memory\n")
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
    assert again.out.count("passed before") == (0 if found["facts"]["commit"] is None else 2)


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
        ("limits=sync=0", "more than 0 seconds"),
        ("limits=train=60", "more than 60 seconds"),
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
    (recorded,) = (out / "recorded").glob("*/tdmpc2")
    assert (out / "runs" / recorded.relative_to(out / "recorded")).exists()
    assert run_directory(out / "resume" / "TD-MPC2-eager" / "killed").exists()


# --- results -------------------------------------------------------------------------


def plan_of(command: ModuleType, out: Path, seconds: float = 60.0) -> Any:
    limits = dict.fromkeys(command.SECTIONS, seconds)
    return command.Plan(command.Options(out=out), limits, CPU, FACTS)


def write_result(plan: Any, name: str, **changes: Any) -> None:
    result = {"section": name, "status": "passed", "message": "", "key": plan.key(name)}
    plan.path(name).parent.mkdir(exist_ok=True, parents=True)
    plan.path(name).write_text(json.dumps({**result, "seconds": 1, "checks": [], **changes}))


def test_the_summary_holds_all_results_after_each_section(
    tmp_path: Path, command: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of earlier commands, each with what it was obtained under."""
    start_group, seen = command.start_group, []

    def start(_: list[str], log: Path) -> subprocess.Popen[bytes]:
        seen.append((tmp_path / "acceptance.json").exists())
        return start_group([sys.executable, "-c", ""], log)

    monkeypatch.setattr(command, "start_group", start)
    plan = plan_of(command, tmp_path)
    write_result(plan, "memory", key={**FACTS, "commit": "b" * 40})
    command.run_all(["parity", "sync"], 1, plan)
    assert seen == [False, True]
    found = json.loads((tmp_path / "acceptance.json").read_text())
    assert found["facts"] == FACTS
    statuses = {one["section"]: one["status"] for one in found["sections"]}
    assert statuses == {"parity": "crashed", "sync": "crashed", "memory": "passed"}
    page = (tmp_path / "acceptance.md").read_text()
    assert f"**memory**: passed (1 s), with commit {'b' * 40}\n" in page
    assert page.count("with commit") == 1


def test_the_last_line_names_the_sections_by_outcome(command: ModuleType) -> None:
    statuses = {"parity": "crashed", "sync": "passed", "memory": "skipped", "resume": "failed"}
    statuses |= {"latency": "passed", "train": "incomplete"}
    assert command.outcome_of(statuses) == (
        "passed: sync, latency; skipped: memory; incomplete: train; not passed: parity, resume"
    )


@pytest.fixture
def trained(
    tmp_path: Path, command: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, list[str]]]:
    """Runs the command after `train` has passed; returns its exit code and what it would run."""
    key = command.key_of("train", FACTS, "cup-catch")
    name = importlib.import_module("gpu_sections.facts").runs_name(key)
    for folder in ("runs", "recorded"):
        (tmp_path / folder / name).mkdir(parents=True)
    monkeypatch.setattr(command, "facts_of", lambda device, small: FACTS)
    monkeypatch.setattr(command, "interrupt_on_signals", lambda: None)
    plan = command.Plan(command.Options(out=tmp_path), {}, CPU, FACTS)
    write_result(plan, "train", key=key)

    def run(*arguments: str) -> tuple[int, list[str]]:
        todo: list[str] = []
        monkeypatch.setattr(command, "run_all", lambda names, at_once, plan: todo.extend(names))
        line = [f"out={tmp_path}", "device=cpu", "sections=train", *arguments]
        return command.main(line), todo

    return run


def test_training_of_other_tasks_is_another_result(
    trained: Callable[..., tuple[int, list[str]]],
) -> None:
    assert trained("tasks=cup-catch") == (0, [])
    assert trained()[1] == ["train"]
    assert trained("tasks=mw-drawer-open,cup-catch")[1] == ["train"]


def test_training_again_starts_anew(
    tmp_path: Path, trained: Callable[..., tuple[int, list[str]]]
) -> None:
    (name,) = (path.name for path in (tmp_path / "runs").iterdir())
    assert trained("tasks=cup-catch", "again=true")[1] == ["train"]
    for folder in ("runs", "recorded"):
        assert [path.name for path in (tmp_path / folder).iterdir()] == [f"{name}.1"]
    (tmp_path / "runs" / name).mkdir()
    assert trained("again=true")[1] == ["train"]  # of all tasks: not passed before, so resumed
    assert (tmp_path / "runs" / name).exists()


def test_an_incomplete_section_is_not_passed(
    tmp_path: Path, command: ModuleType, trained: Callable[..., tuple[int, list[str]]]
) -> None:
    plan = command.Plan(command.Options(out=tmp_path, tasks="cup-catch"), {}, CPU, FACTS)
    write_result(plan, "train", status="incomplete")
    assert trained("tasks=cup-catch") == (1, ["train"])
    write_result(plan, "train", status="skipped")
    assert trained("tasks=cup-catch") == (0, ["train"])


def test_tasks_have_one_order(command: ModuleType) -> None:
    options, *_ = command.parse(["tasks=mw-drawer-open, cup-catch", "device=cpu"])
    assert options.tasks == "cup-catch,mw-drawer-open"


# --- a section -----------------------------------------------------------------------


def run_fake(
    command: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    out: Path,
    function: Callable[[], object],
    device: str = "cpu",
) -> dict[str, Any]:
    """Runs a function as section `sync` and returns the result of the section."""
    module = ModuleType("fake_section")
    module.run = lambda report, settings: function()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_section", module)
    monkeypatch.setitem(command.SECTIONS, "sync", command.Section("fake_section", 1))
    (out / "sections").mkdir(exist_ok=True)
    case = {"device": device, "small": True, "out": str(out), "seconds": 1.0, "tasks": ""}
    command.run_section("sync", {**case, "key": FACTS})
    result: dict[str, Any] = json.loads((out / "sections" / "sync.json").read_text())
    return result


def not_recorded() -> None:
    step = StepRecorder((), (), Tape).recorded(lambda x: x * float(x.sum()))
    for _ in range(WARM_CALLS + 1):
        step(torch.ones(2))


def not_compiled() -> None:
    def double(x: torch.Tensor) -> torch.Tensor:
        if compiler.enabled:
            raise ValueError("no such thing")
        return 2 * x

    compiler = Compiler(CPU)
    compiler.enabled = True
    compiler.protect(double)(torch.ones(2))


def not_built() -> None:
    native_build.load(Path("/nowhere/kernel.cpp"))


@pytest.mark.parametrize("function", [not_recorded, not_compiled, not_built])
def test_a_section_ends_where_the_project_only_warns(
    tmp_path: Path,
    command: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    function: Callable[[], None],
) -> None:
    def no_compiler(source: Path) -> Path:
        raise OSError("no compiler\nanywhere")

    monkeypatch.setattr(native_build, "build", no_compiler)
    with pytest.warns(RuntimeWarning, match="continuing without"):
        function()
    result = run_fake(command, monkeypatch, tmp_path, function)
    assert result["status"] == "crashed"
    assert result["message"].startswith("RuntimeWarning: ")


def test_other_warnings_do_not_end_a_section(
    tmp_path: Path, command: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warn() -> None:
        warnings.warn("no bf16 instructions", RuntimeWarning, stacklevel=2)

    with pytest.warns(RuntimeWarning, match="bf16"):
        assert run_fake(command, monkeypatch, tmp_path, warn)["status"] == "passed"


def test_a_section_uses_the_chosen_gpu(
    tmp_path: Path, command: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for device in ("cpu", "cuda", "cuda:1"):
        result = run_fake(command, monkeypatch, tmp_path, lambda: None, device)
        assert result["status"] == "passed"
    assert chosen == [torch.device("cuda:1")]
