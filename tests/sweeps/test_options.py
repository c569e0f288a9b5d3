"""Arguments of a launch, and the runs that they expand into."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps import launch
from sweeps.execution import launching
from sweeps.planning.grid import SMOKE
from sweeps.planning.request import parse_request
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.tasks import get_suite
from tdmpc2.runners.registry import METHODS
from tests.sweeps.directories import write_lease, write_status


def methods(*arguments: str) -> list[str]:
    return list(dict.fromkeys(run.spec.method for run in parse_request(arguments).planned))


def test_a_suite_means_all_methods_and_a_task_one() -> None:
    assert methods("suite=locomotion", "seeds=1") == list(METHODS)
    assert methods("tasks=walker-walk", "seeds=1") == ["tdmpc2"]
    smoke = ["tdmpc2", *(companion.method for companion in SMOKE.companions)]
    assert methods("suite=smoke", "seeds=1") == smoke
    assert methods("suite=locomotion", "methods=sac,tdmpc") == ["sac", "tdmpc"]


def test_the_command_that_this_is_for() -> None:
    arguments = ("suite=all104", "seeds=3", "assets=official,unknown,rebuilt,standin")
    planned = parse_request(arguments).planned
    number = len(METHODS) * len(get_suite("all104")) * 3
    assert len(planned) == len({run.directory for run in planned}) == number


def test_variants_are_settings_side_by_side() -> None:
    planned = parse_request(
        ("tasks=walker-walk", "seeds=2", "variants=default,num_q=2,horizon=1+num_q=2")
    )
    names = [run.spec.variant for run in planned.planned]
    assert names == ["default"] * 2 + ["num_q-2"] * 2 + ["horizon-1+num_q-2"] * 2
    assert dict(planned.planned[-1].spec.overrides) == {"horizon": 1, "num_q": 2}


def test_variants_that_are_the_same_run_once() -> None:
    assert (
        len(parse_request(("tasks=walker-walk", "seeds=1", "variants=default,num_q=5")).planned)
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
        parse_request(("tasks=walker-walk", *arguments))
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
    first = parse_request(arguments).planned[0]
    write_status(first, "RUNNING", 10)
    write_lease(first)
    assert launch.main([*arguments, "cluster=local", "dry_run=true"]) == 0
    assert "4 runs, 0 finished already, 1 queued or running, 2 to do in 1 processes" in (
        capsys.readouterr().out
    )
