"""Studies on a simulated SLURM: the jobs of their looks, and those that go on with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.records.studies import FILE, REGISTERED
from sweeps import launch, status
from sweeps.execution import slurm_queries
from sweeps.execution.slurm_queries import Partition
from sweeps.planning.request import SweepRequest
from sweeps.studies import go_on
from sweeps.studies.running import read_request
from sweeps.studies.study import Study
from sweeps.tracking.sweep_folder import all_sweeps
from tests.analysis.run_files import write_run
from tests.sweeps.simulated_slurm import SETTINGS, Simulated, simulate

STUDY = ["tasks=toy-pointmass", *SETTINGS, "variants=default,num_q=3", "until=decided", "looks=2,3"]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Simulated:
    return simulate(monkeypatch)


def test_a_study_names_the_command_that_goes_on(
    cluster: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if another launch has submitted the runs, but not the job after them."""
    for refused, code, num_jobs in (("#look", 4, 4), ("#look", 4, 4), ("#none", 0, 5)):
        cluster.refused = refused
        assert launch.main([*STUDY, f"runs={tmp_path}"]) == code
        (study,) = (tmp_path / "studies").iterdir()
        command = f"run `python -m sweeps.studies.go_on study={study}` when all runs have ended"
        assert (command in capsys.readouterr().out) == (code == 4)
        assert cluster.num_jobs == num_jobs
    status.main([f"runs={tmp_path}"])
    line = "after all runs have ended: job 2 decides and starts the next look\n"
    assert line in capsys.readouterr().out


def test_a_job_that_goes_on_leaves_cancelled_runs_to_the_user(
    cluster: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They had not begun when they were cancelled, so they look like runs that were never due."""
    assert launch.main([*STUDY, f"runs={tmp_path}"]) == 0
    (study,) = (tmp_path / "studies").iterdir()
    for num_jobs in (5, 10):  # four runs and the job after them
        assert cluster.num_jobs == num_jobs
        cluster.queue.clear()
        capsys.readouterr()
        assert go_on.main([f"study={study}"]) == 1
        assert "Look at 2 seeds: 4 runs failed or stopped" in capsys.readouterr().out
        assert cluster.num_jobs == num_jobs
        assert launch.main([*STUDY, f"runs={tmp_path}"]) == 0


def test_a_job_that_goes_on_submits_what_the_submit_limit_has_left_out(
    cluster: Simulated, tmp_path: Path
) -> None:
    """Also runs that a cancelled launch had submitted, as the user has launched them again."""
    assert launch.main([*STUDY, f"runs={tmp_path}"]) == 0
    cluster.queue.clear()
    cluster.limit = cluster.num_jobs + 3  # two runs and the job after them
    assert launch.main([*STUDY, f"runs={tmp_path}"]) == 0
    cluster.limit = None
    cluster.queue.clear()
    (sweep_folder,) = all_sweeps(tmp_path)
    ended = {place for *_, places in sweep_folder.submissions()[-1].jobs() for place in places}
    assert len(ended) == 2
    for run in SweepRequest.from_arguments([*STUDY, f"runs={tmp_path}", "seeds=2"]).planned:
        if str(run.directory.relative_to(tmp_path)) in ended:
            tag = run.directory.name.partition("-")[2]
            write_run(tmp_path, {}, variant=run.spec.variant, task=run.spec.task,
                      seed=run.spec.seed, tag=tag, budget=run.spec.budget,
                      state="DIVERGED")  # fmt: skip
    (study,) = (tmp_path / "studies").iterdir()
    assert go_on.main([f"study={study}"]) == 0
    assert cluster.num_jobs == 5 + 3 + 3


def test_a_look_whose_runs_can_have_no_score_is_not_submitted(
    cluster: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in SweepRequest.from_arguments([*STUDY, f"runs={tmp_path}", "seeds=2"]).planned:
        write_run(tmp_path, {}, variant=run.spec.variant, task=run.spec.task, seed=run.spec.seed,
                  tag=run.directory.name.partition("-")[2], budget=run.spec.budget,
                  state="DIVERGED")  # fmt: skip
    message = "Look at 2 seeds: 4 runs have no score at the step of the study"
    assert launch.main([*STUDY, f"runs={tmp_path}"]) == 1
    assert message in capsys.readouterr().out
    (study,) = (tmp_path / "studies").iterdir()
    assert go_on.main([f"study={study}"]) == 1
    assert message in capsys.readouterr().out
    assert cluster.num_jobs == 0


def test_a_job_that_goes_on_leaves_a_failed_run_to_the_user(
    cluster: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main([*STUDY, f"runs={tmp_path}"]) == 0
    cluster.queue.clear()
    for number, run in enumerate(
        SweepRequest.from_arguments([*STUDY, f"runs={tmp_path}", "seeds=2"]).planned
    ):
        write_run(tmp_path, {0: 1.0}, variant=run.spec.variant, task=run.spec.task,
                  seed=run.spec.seed, tag=run.directory.name.partition("-")[2], budget=200,
                  state="DIVERGED" if number else "FAILED")  # fmt: skip
    (study,) = (tmp_path / "studies").iterdir()
    capsys.readouterr()
    assert go_on.main([f"study={study}"]) == 1
    assert "Look at 2 seeds: 1 run failed or stopped" in capsys.readouterr().out
    assert cluster.num_jobs == 5


def complete_two_seeds(runs: Path) -> None:
    """Write completed runs of the first look, whose scores decide nothing."""
    for run in SweepRequest.from_arguments([*STUDY, f"runs={runs}", "seeds=2"]).planned:
        place = write_run(runs, {0: 1.0, 100: 20.0 * run.spec.seed, 200: 30.0 * run.spec.seed},
                          variant=run.spec.variant, task=run.spec.task, seed=run.spec.seed,
                          budget=200, tag=run.directory.name.partition("-")[2])  # fmt: skip
        ended = {"state": "COMPLETED", "env_step": 200, "message": ""}
        (place / "status.json").write_text(json.dumps(ended))


def test_a_batch_has_seeds_of_one_look(
    cluster: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Places of seeds that have ended would be computed for nothing."""
    complete_two_seeds(tmp_path)
    arguments = [*STUDY, f"runs={tmp_path}", "seeds_per_process=3"]
    assert launch.main([*arguments, "dry_run=true"]) == 0
    assert "Seeds of different looks are not trained as one batch" in capsys.readouterr().out
    assert launch.main(arguments) == 0
    (sweep_folder,) = all_sweeps(tmp_path)
    (submission,) = sweep_folder.submissions()
    assert [len(places) for *_, places in submission.jobs()] == [1, 1]


def test_a_look_whose_runs_end_while_it_is_launched_is_followed_by_the_next(
    cluster: Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No job of this look is submitted, so none would go on."""
    partition = slurm_queries.choose_partition(None)

    def choose_partition(wanted: str | None) -> Partition | None:  # before the plan
        if not any(tmp_path.glob("tdmpc2/*")):
            complete_two_seeds(tmp_path)
        return partition

    monkeypatch.setattr(slurm_queries, "choose_partition", choose_partition)
    assert launch.main([*STUDY, f"runs={tmp_path}"]) == 0
    assert cluster.num_jobs == 3  # two runs of the second look, and the job after them


def test_a_study_goes_on_where_its_folder_was_moved_to(cluster: Simulated, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    assert launch.main([*STUDY, f"runs={old}"]) == 0
    old.rename(new)
    (study,) = (new / "studies").iterdir()
    assert read_request(study).launch.runs == new
    assert go_on.main([f"study={study}"]) == 0  # submits the next job after the runs
    assert cluster.comments[-1] == f"{study}#look"
    assert not old.exists()


def test_a_study_of_an_earlier_version_goes_on(cluster: Simulated, tmp_path: Path) -> None:
    """It has no limit for nearly equal returns, and keeps its name and tests."""
    assert launch.main([*STUDY, f"runs={tmp_path}"]) == 0
    (begun,) = (tmp_path / "studies").iterdir()
    for name in (FILE, REGISTERED):
        text = (begun / name).read_text()
        (begun / name).write_text(text.replace('"tied_within" = 0.15\n', ""))
    study = begun.rename(begun.with_name(Study.read(begun / REGISTERED).name))
    assert launch.main([*STUDY, f"runs={tmp_path}"]) == 0
    assert go_on.main([f"study={study}"]) == 0
    assert list((tmp_path / "studies").iterdir()) == [study] != [begun]


def test_runs_of_an_earlier_launch_that_were_cancelled_are_left_to_the_user(
    cluster: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The study was launched again meanwhile, since a run of the look had failed."""
    assert launch.main([*STUDY, f"runs={tmp_path}"]) == 0
    (sweep_folder,) = all_sweeps(tmp_path)
    jobs = {job: tmp_path / places[0] for job, _, places in sweep_folder.submissions()[0].jobs()}
    failed, cancelled, *others = jobs
    del cluster.queue[failed]
    jobs[failed].mkdir(parents=True)
    status_file = {"state": "FAILED", "env_step": 10, "message": ""}
    (jobs[failed] / "status.json").write_text(json.dumps(status_file))
    assert launch.main([*STUDY, f"runs={tmp_path}"]) == 0
    last = sweep_folder.submissions()[-1]
    assert len(list(last.jobs())) == 1
    assert (last.follow_up() or {})["after"] == ["3", cancelled, *others]
    del cluster.queue[cancelled]
    capsys.readouterr()
    (study,) = (tmp_path / "studies").iterdir()
    assert go_on.main([f"study={study}"]) == 1
    assert "Look at 2 seeds: 1 run failed or stopped" in capsys.readouterr().out
    assert cluster.num_jobs == 5 + 2


def test_no_job_follows_runs_that_no_job_trains(
    cluster: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are trained by hand: such a job would start at once, and submit itself again."""
    assert launch.main([*STUDY, f"runs={tmp_path}"]) == 0
    cluster.queue.clear()
    (sweep_folder,) = all_sweeps(tmp_path)
    for row in sweep_folder.rows():
        (tmp_path / row["directory"]).mkdir(parents=True)
        (tmp_path / row["directory"] / "lease.json").write_text('{"token": "t"}')
    (study,) = (tmp_path / "studies").iterdir()
    capsys.readouterr()
    assert go_on.main([f"study={study}"]) == launch.LEFT_OUT
    line = "so none decides and starts the next look; run `python -m sweeps.studies.go_on study="
    assert line in capsys.readouterr().out
    assert cluster.num_jobs == 5
    assert len(sweep_folder.submissions()) == 1
