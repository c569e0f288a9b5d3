"""Multi-task runs of a sweep: their tasks, datasets and sizes, and rejected arguments."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sweeps.execution.process_file import write_file
from sweeps.launch import main, usage
from sweeps.planning.grid import group_seeds
from sweeps.planning.options import SIZES
from sweeps.planning.request import SweepRequest
from tdmpc2.common.run import spec_file
from tdmpc2.common.run.spec import OfflineOptions
from tdmpc2.common.system import cli
from tdmpc2.data.dataset import Dataset
from tdmpc2.runners.offline_arguments import dataset_of
from tdmpc2.runners.registry import multitask_methods
from tests.sweeps.datasets import suite_dataset, toy_dataset
from tests.test_offline import TASKS


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Datasets of two named suites, and one of the toy tasks."""
    root = tmp_path_factory.mktemp("datasets")
    found = {suite: suite_dataset(root / suite, suite) for suite in ("mt30", "smoke")}
    return {**found, "toy": toy_dataset(root / "toy")}


def ask(*arguments: object) -> SweepRequest:
    return SweepRequest.from_arguments([str(argument) for argument in arguments])


def test_a_scaling_study(folders: dict[str, Path], tmp_path: Path) -> None:
    data = f"data=mt30={folders['mt30']},smoke={folders['smoke']}"
    request = ask("suite=scaling", data, "seeds=2", f"runs={tmp_path}", "num_updates=1e6")
    found = [(run.spec.method, run.spec.task, run.kind, run.spec.seed) for run in request.planned]
    assert found == [
        (method, name, f"{name} {size}M", seed)
        for method in multitask_methods()
        for name in ("mt30", "smoke")
        for size in SIZES
        for seed in (1, 2)
    ]
    assert {run.spec.budget for run in request.planned} == {1_000_000}
    assert {run.spec.budget_unit for run in request.planned} == {"num_updates"}
    assert len({run.directory for run in request.planned}) == len(found)
    first, *_, last = request.planned
    assert (first.spec.variant, last.spec.variant) == tuple(
        f"model_size-{size}" for size in (SIZES[0], SIZES[-1])
    )
    assert first.spec.tasks == Dataset.open(folders["mt30"]).tasks
    assert [one.label for one in request.sets] == ["mt30", "smoke"]


def test_the_path_of_a_dataset_may_contain_commas(tmp_path: Path) -> None:
    folder = suite_dataset(tmp_path / "a,b=c", "smoke")
    for text in (f"smoke={folder}", str(folder)):
        request = ask("suite=scaling", f"data={text}", "seeds=1", f"runs={tmp_path}")
        again = SweepRequest.from_json(json.loads(json.dumps(request.to_json())))
        for one in (request, again):
            assert {run.options["data"] for run in one.planned} == {folder}


def test_a_scaling_study_narrowed(folders: dict[str, Path]) -> None:
    """Restricted by sizes, methods, tasks and seeds; the manifest names the task set."""
    data = f"data={folders['mt30']}"
    (one, two) = ask("suite=scaling", data, "sizes=5,19", "methods=tdmpc2", "seeds=7,").planned
    assert [run.spec.variant for run in (one, two)] == ["default", "model_size-19"]
    assert (one.spec.task, one.spec.seed, one.spec.budget) == ("mt30", 7, 10_000_000)
    (part,) = ask(
        "suite=scaling", data, "sizes=1", "methods=tdmpc2", "seeds=1", "tasks=cup-spin,cup-catch"
    ).planned
    assert part.spec.tasks == ("cup-spin", "cup-catch")
    assert part.kind == "2 tasks 1M"


@pytest.mark.parametrize(
    "arguments",
    [["suite=mt30"], ["tasks=cup-spin,cup-catch"], ["suite=mt30", "tasks=cup-spin,cup-catch"]],
)
def test_a_suite_or_tasks_with_data_are_a_run_per_seed(
    arguments: list[str], folders: dict[str, Path]
) -> None:
    planned = ask(*arguments, f"data={folders['mt30']}", "model_size=1").planned
    assert [(r.spec.method, r.spec.seed) for r in planned] == [("tdmpc2", s) for s in (1, 2, 3)]
    assert {r.kind.split()[-1] for r in planned} == {"1M"}
    assert len(planned[0].spec.tasks) == (30 if arguments == ["suite=mt30"] else 2)


def test_a_suite_without_data_is_a_run_per_task() -> None:
    planned = ask("suite=mt30", "methods=tdmpc2", "seeds=1").planned
    assert len(planned) == 30
    assert not any(run.spec.tasks for run in planned)


def test_variants_of_several_sizes_are_kept_apart(folders: dict[str, Path]) -> None:
    """Figures average runs with equal variant names; settings that methods share apply to both."""
    planned = ask(
        "suite=scaling",
        f"data={folders['toy']}",
        "sizes=1,5",
        "seeds=1",
        "variants=default,short:horizon=2+lr=1e-3",
    ).planned
    names = [run.spec.variant for run in planned if run.spec.method == "tdmpc2"]
    assert names == ["model_size-1", "default", "short+model_size-1", "short+model_size-5"]
    short = {tuple(sorted(dict(r.spec.overrides))) for r in planned if "short" in r.spec.variant}
    assert short == {("horizon", "lr"), ("horizon", "lr", "model_size")}


def test_processes_are_told_exactly_this(folders: dict[str, Path], tmp_path: Path) -> None:
    for data in ("mt30", "toy"):
        request = ask("suite=scaling", f"data={folders[data]}", "seeds=1", f"runs={tmp_path}")
        for run in request.planned:
            (spec,), options = spec_file.read(write_file(tmp_path, 1, [run], request.options))
            assert spec == run.spec
            assert isinstance(options, OfflineOptions)
            assert (options.runs, dataset_of(spec, options).folder) == (tmp_path, folders[data])
        groups = group_seeds(request.planned, 3)
        assert [len(group) for group in groups] == [1] * len(request.planned)


def test_requests_hold_in_any_folder(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry repeats the request, possibly from another folder."""
    monkeypatch.chdir(folders["mt30"].parent)
    facts = ask("suite=scaling", "data=mt30=mt30,./smoke", "seeds=1").to_json()
    monkeypatch.chdir("/")
    assert facts["sweep"]["data"] == f"mt30={folders['mt30']},{folders['smoke']}"
    planned = SweepRequest.from_json(facts).planned
    assert len(planned) == 2 * len(multitask_methods()) * len(SIZES)


REFUSED = {
    "scaling without data": (["suite=scaling"], "data= is missing, e.g. data=mt30=DIR"),
    "updates without data": (["suite=mt30", "num_updates=5"], "num_updates=5: only for multi-task"),
    "sizes without data": (["suite=mt30", "sizes=1"], "sizes=1: only for multi-task training"),
    "no folder": (["suite=scaling", "data="], "data=: the folder of a dataset is needed"),
    "no such folder": (["suite=scaling", "data=NOWHERE"], "nowhere: no such folder"),
    "a set without a folder": (["suite=scaling", "data=mt30="], "a folder is missing"),
    "no such set": (["suite=scaling", "data=mt31=MT30"], "unknown task set 'mt31' (did you mean"),
    "a set twice": (["suite=scaling", "data=mt30=MT30,MT30"], "mt30 is given twice"),
    "too few tasks": (["suite=scaling", "data=mt80=MT30"], "no data of mw-assembly, mw-basketball"),
    "another suite": (["suite=smoke", "data=mt30=MT30"], "suite=smoke needs a dataset of smoke"),
    "no such suite": (["suite=scalling", "data=MT30"], "did you mean 'scaling'?"),
    "no suite": (["data=MT30"], "suite= or tasks= is needed"),
    "no such task": (["tasks=walker-wolk,cup-spin", "data=MT30"], "did you mean 'walker-walk'?"),
    "a task without data": (["tasks=cup-spin,dog-run", "data=SMOKE"], "not a task of smoke"),
    "toys without data": (["tasks=cup-spin,cup-catch", "data=TOY"], "no data of cup-spin, cup-cat"),
    "one task": (["tasks=cup-spin", "data=MT30"], "needs at least two tasks"),
    "a task twice": (["tasks=cup-spin,cup-spin", "data=MT30"], "cup-spin is named twice"),
    "no such size": (["suite=scaling", "data=TOY", "sizes=1,2"], "no model of size '2' (valid:"),
    "a size of one": (["suite=scaling", "data=TOY", "sizes=smoke"], "tdmpc has no model of size"),
    "sizes elsewhere": (["suite=mt30", "data=MT30", "sizes=1"], "use model_size= instead"),
    "a size": (["suite=scaling", "data=TOY", "model_size=1"], "use sizes= with suite=scaling"),
    "another method": (["suite=scaling", "data=TOY", "methods=sac"], "learns one task at a time"),
    "no such method": (["suite=scaling", "data=TOY", "methods=td"], "unknown method 'td'"),
    "one's setting": (["suite=scaling", "data=TOY", "num_q=2"], "tdmpc has no such setting"),
    "env_steps": (["suite=mt30", "data=MT30", "env_steps=5"], "with num_updates="),
    "pixels": (["suite=mt30", "data=MT30", "obs=rgb"], "datasets hold state observations only"),
    "a protocol": (["suite=mt30", "data=MT30", "seeded_resets=false"], "unknown key"),
    "seeds as one": (["suite=mt30", "data=MT30", "seeds_per_process=3"], "not trained as one"),
    "no updates": (["suite=mt30", "data=MT30", "num_updates=0"], "num_updates=0"),
    "micro-batches": (["suite=mt30", "data=MT30", "accumulate=3"], "1024 is not a multiple of it"),
    "of TD-MPC": (["suite=scaling", "data=TOY", "accumulate=2"], "use methods=tdmpc2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line_and_writes_nothing(
    case: str,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments, message = REFUSED[case]
    for name, folder in {**folders, "nowhere": tmp_path / "nowhere"}.items():
        arguments = [argument.replace(name.upper(), str(folder)) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["launch.py", f"runs={tmp_path / 'runs'}", *arguments])
    assert cli.command(main, usage) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""
    assert not (tmp_path / "runs").exists()


def test_help_tells_both_meanings_of_a_suite() -> None:
    text = usage()
    assert "suite=scaling data=mt30=DIR,mt80=DIR" in text
    assert "Without data=, suite=mt30 is 30 runs" in text
    assert "torchrun" in text
    assert TASKS[0] not in text
