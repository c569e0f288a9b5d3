"""A retry changes one launch, not the request of its sweep, and one sweep does not stop others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps import retry, status
from sweeps.execution import launching
from sweeps.planning.request import SweepRequest
from sweeps.tracking.sweep_folder import SweepFolder, write_submission
from tdmpc2.common.system.errors import UserError
from tests.sweeps.directories import one_array, plan, write_status, write_sweep


def failed_sweep(runs: Path, num: int, **submission: Any) -> SweepFolder:
    """A sweep of seeds 1 to `num`, of which the first has failed."""
    planned = plan(runs, num)
    write_status(planned[0], "FAILED", 10)
    if submission.get("cluster") == "slurm":
        submission["arrays"] = one_array(runs, planned, "7")
    return write_sweep(runs, planned, **submission)


def edit(sweep: SweepFolder, *, of_0_4_0: bool = False, **options: Any) -> dict[str, Any]:
    """Change options of the last launch, or write them as version 0.4.0 did; return the record."""
    path = sweep.path / "sweep.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    if of_0_4_0:
        del facts["request"], facts["cluster"]
        given = [f"{key}={value}" for key, value in options.items()]
        facts["words"] = ["tasks=toy-pointmass", f"seeds={len(facts['runs'])}", *given]
    else:
        for key, value in options.items():
            facts["request"]["given" if key.startswith("allow") else "sweep"][key] = value
    path.write_text(json.dumps(facts))
    return facts


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[SweepRequest]:
    """The requests that are launched, of which nothing is started."""
    requests: list[SweepRequest] = []

    def launch(request: SweepRequest) -> int:
        requests.append(request)
        return 0

    monkeypatch.setattr(launching, "launch", launch)
    return requests


@pytest.mark.parametrize("of_0_4_0", [False, True])
def test_a_limit_on_jobs_is_no_number_of_local_processes(
    of_0_4_0: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = failed_sweep(tmp_path, 2, cluster="slurm")
    edit(sweep, of_0_4_0=of_0_4_0, cluster="slurm", max_parallel=200)
    assert retry.again(sweep, {"cluster": "local"}).sweep.max_parallel is None
    assert "cluster=local: without max_parallel=200, which" in capsys.readouterr().out
    given = {"cluster": "local", "max_parallel": "4"}
    assert retry.again(sweep, given).sweep.max_parallel == 4
    assert capsys.readouterr().out == ""
    request = retry.again(sweep, {})
    assert request.sweep.max_parallel == 200
    launching._record(request, sweep, "local")  # a retry, which leaves the request as it is
    write_submission(sweep.new_submission(), "local")
    assert retry.again(sweep, {"cluster": "local"}).sweep.max_parallel is None
    everything = replace(request, sweep=replace(request.sweep, only="all"))
    launching._record(everything, sweep, "local")  # so it was meant for this machine
    assert retry.again(sweep, {"cluster": "local"}).sweep.max_parallel == 200


def test_a_retry_with_another_budget_leaves_that_of_the_sweep(tmp_path: Path) -> None:
    planned = plan(tmp_path, 2, env_steps=100)
    write_status(planned[0], "FAILED", 10)
    write_status(planned[1], "COMPLETED", 100)
    sweep = write_sweep(tmp_path, planned)
    edit(sweep, env_steps=100)
    request = retry.again(sweep, {"env_steps": "200"})
    assert {run.spec.budget for run in request.planned} == {200}
    launching._record(request, sweep, "local")
    assert [view.state for _, view in status.look(tmp_path, [sweep])] == ["failed", "done"]
    (sweep.path / "sweep.json").write_text("{")
    launching._record(request, sweep, "local")
    assert [row["budget"] for row in sweep.rows()] == [200, 200]


@pytest.mark.parametrize("of_0_4_0", [False, True])
def test_what_a_retry_is_given_holds_for_it_alone(
    of_0_4_0: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = failed_sweep(tmp_path, 2)
    before = edit(sweep, of_0_4_0=of_0_4_0, cluster="local")
    groups: list[Any] = []
    monkeypatch.setattr(launching.local_pool, "run_all", lambda some, *a, **k: groups.extend(some))
    monkeypatch.setattr(launching, "measure_reference_scores", lambda *a, **k: {})
    changes = ["max_parallel=1", "yes=true", "allow_numeric_change=true"]
    retry.main([f"runs={tmp_path}", *changes])
    assert len(groups) == 1
    after = sweep.read()
    key = "words" if of_0_4_0 else "request"
    assert after[key] == before[key]
    assert [row["seed"] for row in after["runs"]] == [1, 2]
    former, last = sweep.submissions()
    assert "ended" in last.facts
    assert "ended" not in former.facts


@pytest.mark.parametrize("of_0_4_0", [False, True])
def test_consent_is_not_taken_over_from_the_last_launch(of_0_4_0: bool, tmp_path: Path) -> None:
    sweep = failed_sweep(tmp_path, 2)
    allowed = {"allow_commit_change": True, "allow_numeric_change": True}
    edit(sweep, of_0_4_0=of_0_4_0, yes=True, **allowed)
    again = retry.again(sweep, {})
    assert not again.sweep.yes
    assert not again.how.allow_commit_change
    assert not again.how.allow_numeric_change
    again = retry.again(sweep, {"yes": "true", "allow_commit_change": "true"})
    assert again.sweep.yes
    assert again.how.allow_commit_change


def test_an_error_of_one_sweep_does_not_keep_others_from_a_retry(
    tmp_path: Path, launched: list[SweepRequest], capsys: pytest.CaptureFixture[str]
) -> None:
    sweeps = sorted((failed_sweep(tmp_path, num) for num in (1, 3)), key=lambda one: one.name)
    edit(sweeps[0], tasks="no-such-task")
    assert retry.main([f"runs={tmp_path}"]) == 2
    printed = capsys.readouterr()
    assert printed.out.count("1 failed") == 2
    assert printed.err.startswith(f"error: {sweeps[0].name}: ")
    assert len(launched) == 1
    with pytest.raises(UserError, match="no-such-task"):
        retry.main([f"runs={tmp_path}", f"sweep={sweeps[0].name}"])


@pytest.mark.parametrize("known", [False, True])
def test_failed_runs_that_the_arguments_no_longer_name_are_listed(
    known: bool, tmp_path: Path, launched: list[SweepRequest], capsys: pytest.CaptureFixture[str]
) -> None:
    """Version 0.4.0 trained some tasks under other physics, in other run directories."""
    (other,) = plan(tmp_path, 1, overrides={"num_q": 3})
    planned = [*plan(tmp_path, int(known)), other]
    for run in planned:
        write_status(run, "FAILED", 10)
    write_sweep(tmp_path, planned)
    assert retry.main([f"runs={tmp_path}"]) == 1
    printed = capsys.readouterr().out
    assert f"{1 + known} failed\n" in printed
    assert "not started: 1 failed run, since these arguments now name other runs" in printed
    assert f"e.g. {other.directory}\n" in printed
    assert len(launched) == known
