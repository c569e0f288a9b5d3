"""Sections of the GPU acceptance test: what they check, and which runs count."""

from __future__ import annotations

import contextlib
import importlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from tests.common.test_recorded_steps import record
from tests.kill_driver import Blow, Done
from tests.tape import Tape

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RUN = Path("tdmpc2") / "default" / "cup-catch" / "seed1-0123456789"
KEY = {"device": "cpu", "torch": "2", "python": "3", "commit": "a" * 40, "small": True}
NOT_RECORDED = (
    "agent.py:9: RuntimeWarning: a step could not be recorded as a CUDA graph (RuntimeError: no); "
    "continuing without, more slowly\n"
)


@pytest.fixture
def section(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports a module of the sections."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return lambda name: importlib.import_module(f"gpu_sections.{name}")


def a_report(section: Callable[[str], Any], folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    return section("report").Report(folder / "section.json", "section", KEY)


def settings_of(section: Callable[[str], Any], out: Path, device: str = "cpu") -> Any:
    return section("report").Settings(torch.device(device), True, out, 100.0)


def failed(report: Any) -> list[str]:
    return [check["name"] for check in report.checks if check["ok"] is False]


# --- parity, sync, latency -----------------------------------------------------------


@pytest.mark.parametrize("fault", [False, True])
def test_recorded_steps_are_compared_with_eager_ones(
    section: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: bool
) -> None:
    parity, tapes = section("parity"), []

    def install(agent: Any) -> Any:
        record(agent, tapes)
        if fault:  # other noise than that of the eager agent
            agent.train_noise.generator.manual_seed(7)
        return SimpleNamespace(enabled=True)

    monkeypatch.setattr(parity.acceleration, "install", install)
    found = parity.recorded_against_eager(settings_of(section, tmp_path))
    assert len(tapes) == 2  # decision and update
    assert all(isinstance(tape, Tape) and not tape.fresh for tape in tapes)  # and replayed
    assert all((value > parity.FAST_BOUND) == fault for value in found.values()), found


@pytest.mark.parametrize(("message", "note"), [("", "RuntimeError"), ("\nit waits\n", "it waits")])
def test_a_step_waits_whatever_the_message_of_the_error(
    section: Callable[[str], Any], tmp_path: Path, message: str, note: str
) -> None:
    sync, report, calls = section("sync"), a_report(section, tmp_path), []

    def step() -> None:
        calls.append(1)
        if len(calls) > 3:  # after the calls that warm up
            raise RuntimeError(message)

    sync.check(report, settings_of(section, tmp_path), "step", step)
    assert (report.checks[0]["ok"], report.checks[0]["note"]) == (False, note)


@pytest.mark.parametrize("enabled", [True, False])
def test_steps_that_were_compiled_are_so_after_the_checks(
    section: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: bool
) -> None:
    sync, report = section("sync"), a_report(section, tmp_path)
    config = SimpleNamespace(batch_size=2, batch_length=1)
    agent = SimpleNamespace(config=config, update=lambda replay: None)
    replay = SimpleNamespace(sample=lambda *size: None)
    compiler = SimpleNamespace(enabled=enabled)
    monkeypatch.setattr(sync, "METHODS", ("sac",))
    monkeypatch.setattr(sync, "set_up", lambda settings: None)
    monkeypatch.setattr(sync, "make_filled_agent", lambda settings, method: (agent, replay))
    monkeypatch.setattr(sync, "watched", lambda settings, lifts: contextlib.nullcontext())
    monkeypatch.setattr(sync.acceleration, "install", lambda agent: compiler)
    sync.run(report, settings_of(section, tmp_path, "cuda"))
    assert failed(report) == ([] if enabled else ["sac, compiled: still compiled"])


def test_only_kernels_are_counted(
    section: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = torch.profiler.DeviceType
    events = [(kinds.CUDA, False), (kinds.CUDA, True), (kinds.CUDA, False), (kinds.CPU, False)]
    listed = [SimpleNamespace(device_type=kind, is_user_annotation=ours) for kind, ours in events]
    profile = SimpleNamespace(events=lambda: listed)
    monkeypatch.setattr(
        torch.profiler, "profile", lambda activities: contextlib.nullcontext(profile)
    )
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    settings = settings_of(section, tmp_path, "cuda")
    assert section("latency").count_kernels(settings, lambda: None) == 2


# --- resume --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compiler", "errors", "fine"),
    [("g++ 13", "", True), (False, "", False), ("g++ 13", NOT_RECORDED, False)],
    ids=["compiled", "compilation failed", "not recorded"],
)
def test_a_run_that_gave_up_compilation_does_not_count_as_compiled(
    section: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compiler: str | bool,
    errors: str,
    fine: bool,
) -> None:
    resume, report = section("resume"), a_report(section, tmp_path)

    def start(runs: Path, blow: Blow | None = None, **arguments: Any) -> Done:
        runs.mkdir(parents=True, exist_ok=True)
        (runs / "spec.json").write_text("{}")
        (runs / "numeric.json").write_text(json.dumps({"compile": compiler}))
        return Done(0 if blow is None else -9, "", errors)

    monkeypatch.setattr(resume, "outcome", lambda runs: "the same")
    settings = settings_of(section, tmp_path)
    resume.compare(report, settings, "eager", {"compile": "false"}, start)
    assert failed(report) == []
    resume.compare(report, settings, "compiled", {"compile": "true"}, start)
    runs = [f"compiled: {place} run is compiled" for place in ("first", "second", "killed")]
    assert failed(report) == ([] if fine else runs)


# --- train ---------------------------------------------------------------------------


def write_status(run: Path, state: str) -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / "status.json").write_text(json.dumps({"state": state}))


def test_a_record_of_an_unfinished_run_is_replaced_when_it_ends(
    section: Callable[[str], Any], tmp_path: Path
) -> None:
    runs, recorded = tmp_path / "runs" / "abc", tmp_path / "recorded" / "abc"
    kept = recorded / RUN / "status.json"
    for state, at_end in (("RUNNING", False), ("RUNNING", True), ("COMPLETED", False)):
        write_status(runs / RUN, state)
        section("training").keep_records(runs, recorded, at_end=at_end)
        assert kept.exists() == (at_end or state == "COMPLETED")
    assert json.loads(kept.read_text()) == {"state": "COMPLETED"}


def test_a_record_that_was_interrupted_is_completed(
    section: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = section("training")
    runs, recorded = tmp_path / "runs" / "abc", tmp_path / "recorded" / "abc"
    write_status(runs / RUN, "COMPLETED")
    for name in ("numeric.json", "attempts.json"):
        (runs / RUN / name).write_text("{}")
    write_bytes = training.write_bytes

    def interrupted(path: Path, content: bytes) -> None:
        if path.name == "attempts.json":
            raise KeyboardInterrupt
        write_bytes(path, content)

    with monkeypatch.context() as during:
        during.setattr(training, "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            training.keep_records(runs, recorded)
    training.keep_records(runs, recorded)
    names = {"numeric.json", "attempts.json", "status.json"}
    assert {path.name for path in (recorded / RUN).iterdir()} == names


def test_the_archive_is_made_anew_at_the_end(section: Callable[[str], Any], tmp_path: Path) -> None:
    """It may be that of other runs, or an interruption may have come before it."""
    runs, recorded = tmp_path / "runs" / "abc", tmp_path / "recorded" / "abc"
    write_status(recorded / RUN, "COMPLETED")
    write_status(recorded.with_name("other") / RUN, "COMPLETED")
    write_status(runs / RUN, "COMPLETED")
    section("training").keep_records(runs, recorded)  # nothing new
    assert not (tmp_path / "records.zip").exists()
    section("training").keep_records(runs, recorded, at_end=True)
    with zipfile.ZipFile(tmp_path / "records.zip") as archive:
        assert archive.namelist() == [str(RUN / "status.json")]


def test_only_runs_of_the_chosen_tasks_count(section: Callable[[str], Any], tmp_path: Path) -> None:
    training = section("training")
    runs, log = tmp_path / "runs", tmp_path / "train.log"
    for task in ("cup-catch", "mw-drawer-open"):
        for seed in (1, 2, 3):
            write_status(runs / "tdmpc2" / "default" / task / f"seed{seed}-0123456789", "COMPLETED")
    write_status(runs / RUN, "STOPPED")
    statuses = {}
    for tasks in (["mw-drawer-open"], ["cup-catch"], ["cup-catch", "mw-drawer-open"], ["x"]):
        report = a_report(section, tmp_path)
        training.report_runs(report, runs, log, tasks)
        report.close()
        result = json.loads(report.path.read_text())
        statuses[",".join(tasks)] = result["status"], result["message"][:7]
    assert statuses == {
        "mw-drawer-open": ("passed", ""),
        "cup-catch": ("incomplete", "2 of 3 "),
        "cup-catch,mw-drawer-open": ("incomplete", "5 of 6 "),
        "x": ("incomplete", "0 of 3 "),
    }


def test_runs_are_launched_on_the_chosen_gpu(section: Callable[[str], Any], tmp_path: Path) -> None:
    settings = settings_of(section, tmp_path, "cuda:1")
    arguments = section("training").launch_arguments(settings, ["cup-catch"], tmp_path / "runs")
    assert "device=cuda:1" in arguments
    assert f"runs={tmp_path / 'runs'}" in arguments
    assert not any("allow" in argument for argument in arguments)


# --- facts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("commit", "patch", "version"),
    [
        ("a" * 40, b"", "a" * 40),
        ("a" * 40, b"diff", "a" * 40 + "+df087996d4"),
        ("a" * 40, None, None),
        (None, None, None),
    ],
)
def test_uncommitted_changes_are_another_version(
    section: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    commit: str | None,
    patch: bytes | None,
    version: str | None,
) -> None:
    facts: ModuleType = section("facts")
    here = SimpleNamespace(here=lambda: SimpleNamespace(commit=commit, patch=patch))
    monkeypatch.setattr(facts, "SourceVersion", here)
    assert facts.source_version() == version


def test_only_results_under_the_same_known_facts_count(section: Callable[[str], Any]) -> None:
    facts = section("facts")
    passed = {"status": "passed", "key": KEY}
    assert facts.is_passed(passed, KEY)
    assert not facts.is_passed({**passed, "status": "incomplete"}, KEY)
    assert not facts.is_passed(passed, {**KEY, "commit": "b" * 40})
    assert not facts.is_passed({}, KEY)
    unknown = {**KEY, "commit": None}
    assert not facts.is_passed({**passed, "key": unknown}, unknown)
    assert facts.key_of("sync", KEY, "cup-catch") == KEY
    assert facts.key_of("train", KEY, "cup-catch") != facts.key_of("train", KEY, "")


def test_runs_under_other_facts_have_another_folder(
    section: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts, times = section("facts"), iter(["unknown-1", "unknown-2"])
    monkeypatch.setattr(facts, "time", SimpleNamespace(strftime=lambda form: next(times)))
    keys = [KEY, *({**KEY, name: "other"} for name in ("commit", "device", "torch", "python"))]
    keys += [{**KEY, "commit": None}] * 2
    names = [facts.runs_name(key) for key in keys]
    assert len(set(names)) == len(keys)
    assert names[0].startswith("a" * 10 + "-")
    assert facts.runs_name({**KEY, "tasks": "cup-catch"}) == names[0]
