"""Arguments of a launch, and the runs that they expand into."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from sweeps import launch
from sweeps.execution import launching
from sweeps.planning.grid import SMOKE
from sweeps.planning.options import SLURM_ONLY, SweepOptions
from sweeps.planning.request import SweepRequest, Variant
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.tasks import get_suite
from tdmpc2.runners.registry import METHODS
from tests.sweeps.directories import write_lease, write_status


def methods(*arguments: str) -> list[str]:
    return list(
        dict.fromkeys(run.spec.method for run in SweepRequest.from_arguments(arguments).planned)
    )


def test_a_suite_means_all_methods_and_a_task_one() -> None:
    assert methods("suite=locomotion", "seeds=1") == list(METHODS)
    assert methods("tasks=walker-walk", "seeds=1") == ["tdmpc2"]
    smoke = ["tdmpc2", *(companion.method for companion in SMOKE.companions)]
    assert methods("suite=smoke", "seeds=1") == smoke
    assert methods("suite=evidence", "seeds=1") == ["tdmpc2"]
    assert methods("suite=locomotion", "methods=sac,tdmpc") == ["sac", "tdmpc"]


def test_the_command_that_this_is_for() -> None:
    arguments = ("suite=all104", "seeds=3", "assets=official,unknown,rebuilt,standin")
    planned = SweepRequest.from_arguments(arguments).planned
    number = len(METHODS) * len(get_suite("all104")) * 3
    assert len(planned) == len({run.directory for run in planned}) == number


def test_evidence_ends_where_released_curves_have_a_point() -> None:
    request = SweepRequest.from_arguments(("suite=evidence", "seeds=3"))
    assert len(request.planned) == 21
    assert {run.spec.variant for run in request.planned} == {"default"}
    budgets = {run.spec.task: run.spec.budget for run in request.planned}
    assert budgets.pop("myo-hand-reach") == 50_000
    assert set(budgets.values()) == {100_000}
    assert request.options["eval_every"] == 50_000
    shorter = SweepRequest.from_arguments(("suite=evidence", "env_steps=10_000"))
    assert {run.spec.budget for run in shorter.planned} == {10_000}


def test_variants_are_settings_side_by_side() -> None:
    planned = SweepRequest.from_arguments(
        ("tasks=walker-walk", "seeds=2", "variants=default,num_q=2,horizon=1+num_q=2")
    )
    names = [run.spec.variant for run in planned.planned]
    assert names == ["default"] * 2 + ["num_q-2"] * 2 + ["horizon-1+num_q-2"] * 2
    assert dict(planned.planned[-1].spec.overrides) == {"horizon": 1, "num_q": 2}


def test_variants_that_are_the_same_run_once() -> None:
    assert (
        len(
            SweepRequest.from_arguments(
                ("tasks=walker-walk", "seeds=1", "variants=default,num_q=5")
            ).planned
        )
        == 1
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["variants=num_q"], "not of the form key=value"),
        (["variants=numq=2"], "unknown key 'numq'"),
        (["variants=num_q=2", "variant=mine"], "variant= and variants= exclude each other"),
        (["methods=tdmpc2,sac", "num_q=2"], "num_q: sac has no such setting"),
        (["runs_per_gpu=0"], "runs_per_gpu=0: must lie in [1, 1024]"),
        (["gpus=-1"], "gpus=-1: must lie in [0, 1024]"),
        (["timeout_min=0"], "timeout_min=0"),
        (["cluster=moon"], "cluster=moon: unknown value"),
        (["after=party"], "after=party: unknown value"),
        (["only=lost"], "only=lost: unknown value"),
        (["yes=perhaps"], "true or false is needed"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        SweepRequest.from_arguments(("tasks=walker-walk", *arguments))
    assert message in str(refused.value)


def test_days_of_work_ask_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan is printed, nothing is written, and the exit code is 3."""
    arguments = ["tasks=walker-walk", "cluster=local", f"runs={tmp_path / 'runs'}", "seeds=1"]
    assert launch.main(arguments) == 3
    printed = capsys.readouterr().out
    assert "on one core" in printed
    assert "yes=true" in printed
    assert not (tmp_path / "runs").exists()
    started = []
    monkeypatch.setattr(
        launching.local_pool, "run_all", lambda groups, *a, **k: started.extend(groups)
    )
    monkeypatch.setattr(launching, "measure_reference_scores", lambda *a, **k: {})
    assert launch.main([*arguments, "yes=true"]) == 1  # the replaced `run_all` trains nothing
    assert len(started) == 1


def test_a_seed_batch_waits_for_its_busy_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seeds 1 and 2 would share a process, but another process trains seed 1."""
    arguments = ["tasks=toy-pointmass", "seeds=4", "seeds_per_process=2", f"runs={tmp_path}"]
    first = SweepRequest.from_arguments(arguments).planned[0]
    write_status(first, "RUNNING", 10)
    write_lease(first)
    assert launch.main([*arguments, "cluster=local", "dry_run=true"]) == 0
    assert (
        "4 runs, 0 finished already, 1 queued or running, 1 held back, 2 to do in 1 processes"
        in (capsys.readouterr().out)
    )


def test_a_request_is_stored_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose arguments change the last request, as for a retry."""
    monkeypatch.chdir(tmp_path)
    arguments = ["tasks=walker-walk", "seeds=2", "lr=1e-4", "variants=default,mine:num_q=2"]
    first = SweepRequest.from_arguments([*arguments, "runs=here", "eval_every=500", "mem_gb=3"])
    read = SweepRequest.from_json(json.loads(json.dumps(first.to_json())))
    assert read == first
    assert [run.directory for run in read.planned] == [run.directory for run in first.planned]
    assert read.runs == tmp_path / "here"
    changed = SweepRequest.from_arguments(["lr=1e-3", "mem_gb=4", "eval_every=600"], read)
    assert (changed.settings, changed.sweep.mem_gb) == ({"lr": 1e-3}, 4)
    assert changed.given == {**first.given, "eval_every": 600}
    assert changed.variants == first.variants


def test_typed_values_are_the_same_as_arguments() -> None:
    options = SweepOptions(tasks="walker-walk", seeds="2", env_steps=1000)
    more: tuple[Variant, ...] = ((None, {}), ("mine", {"num_q": 2}))
    typed = SweepRequest(options, {"device": "cpu"}, {"lr": 1e-4}, more)
    text = ["tasks=walker-walk", "seeds=2", "env_steps=1e3", "device=cpu", "lr=1e-4"]
    parsed = SweepRequest.from_arguments([*text, "variants=default,mine:num_q=2"])
    assert parsed == typed
    with pytest.raises(UserError, match="exclude each other"):
        dataclasses.replace(typed, sweep=SweepOptions(tasks="cup-catch", variant="x")).check()


def test_every_option_of_slurm_is_refused_without_slurm(tmp_path: Path) -> None:
    kinds = cli.schema_of(SweepOptions)
    for f in dataclasses.fields(SweepOptions):
        value: object = "x" if kinds[f.name].type is str else 7
        if f.name in SLURM_ONLY:
            assert f.metadata["meaning"].startswith("SLURM: ")
            arguments = ["tasks=toy-pointmass", "cluster=inline", f"{f.name}={value}"]
            with pytest.raises(UserError) as refused:
                launch.main([*arguments, f"runs={tmp_path / 'runs'}"])
            assert str(refused.value) == (
                f"{f.name}={value}: applies to SLURM jobs only, and here cluster=inline; omit it "
                "(sweeps/retry.py omits it with cluster=local)"
            )
        else:
            meaning = f.metadata["meaning"]
            assert not str(meaning() if callable(meaning) else meaning).startswith("SLURM: ")
    with pytest.raises(UserError, match=r"mem_gb=7: .* here there is no SLURM"):
        SweepOptions(tasks="walker-walk", mem_gb=7).check_cluster("local")
    SweepOptions(tasks="walker-walk", mem_gb=7).check_cluster("slurm")
    assert not (tmp_path / "runs").exists()


def test_runs_of_0_4_0_are_named_in_the_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["tasks=dog-run,cup-catch", "seeds=2", "cluster=local", f"runs={tmp_path}"]
    run = SweepRequest.from_arguments(arguments).planned[0]
    assert dict(run.spec.task_switches) == {"physics": "paper"}
    older = dataclasses.replace(run.spec, task_switches=()).run_dir(tmp_path)
    assert launch.main([*arguments, "dry_run=true"]) == 0
    assert "0.4.0" not in capsys.readouterr().out
    older.mkdir(parents=True)
    (older / "spec.json").write_text("{}")
    assert launch.main([*arguments, "dry_run=true"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "0.4.0" in line)
    assert "has started under other physics: 1; those are left as they are" in line
    assert line.endswith(f"e.g. {older}")
