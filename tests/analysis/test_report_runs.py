"""Runs and curves in the data of the HTML report."""

from __future__ import annotations

from pathlib import Path

from tests.analysis.report_files import LATE, TRAIN, content, headlines, publish
from tests.analysis.run_files import write_run, write_table


def test_the_video_is_that_of_the_last_evaluation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", {0: 0.0, 100_000: 500.0})
    (run / "videos").mkdir()
    for name in ("50000", "100000", "9000", "copy"):
        (run / "videos" / f"{name}.mp4").touch()
    headlines(tmp_path, f"runs={tmp_path / 'runs'}")
    (found,) = content(tmp_path)["tasks"][0]["runs"]
    assert found["video"] == (run / "videos" / "100000.mp4").as_uri()


def test_runs_without_a_budget_are_shown_beside_others(tmp_path: Path) -> None:
    for seed, budget in ((1, 100_000), (2, None)):
        points = {0: 0.0, 100_000: 500.0}
        write_run(tmp_path / "runs", points, seed=seed, budget=budget)
    headlines(tmp_path, f"runs={tmp_path / 'runs'}")
    assert len(content(tmp_path)["tasks"][0]["runs"]) == 2


def test_steps_of_training_charts_are_exact(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", {0: 0.0, 1_234_567: 500.0}, budget=1_234_567)
    (run / "train.csv").write_text(f"{TRAIN}1234567,617283,617283,1234,0.123456,0.5\n")
    headlines(tmp_path, f"runs={tmp_path / 'runs'}")
    training = content(tmp_path)["tasks"][0]["runs"][0]["training"]
    assert (training["env_step"], training["value_loss"]) == ([1_234_567], [0.1235])


def test_curves_of_users_tasks_end_before_no_budget(tmp_path: Path) -> None:
    """Their tasks have no budget in the paper."""
    write_run(tmp_path / "runs", {0: 0.0, 100_000: 500.0})
    header = "method,task,seed,step,reward"
    own = ["mine,my-arm,1,0,5", "mine,my-arm,1,1000,50"]
    both = [*own, "mine,walker-walk,1,0,5", "mine,walker-walk,1,1000,50"]
    arguments = [f"runs={tmp_path / 'runs'}"]
    for name, lines in (("alone", own), ("mixed", both)):
        file = write_table(tmp_path / f"{name}.csv", header, lines)
        headlines(tmp_path, *arguments, f"curves={file}")
        facts = content(tmp_path)["facts"]
        (line,) = [line for line in facts if "from " in line and "run" in line][:1]
        expected = {
            "alone": "1 run, from alone: 1 task",
            "mixed": "2 runs, from mixed: 2 tasks, 1 end before the task's full budget",
        }
        assert line == expected[name]


def test_claims_are_judged_on_all_tasks_or_not_at_all(tmp_path: Path) -> None:
    """Without the other tasks of a group, nothing follows from the released curves."""
    arguments = [publish(tmp_path, "tdmpc2", LATE), f"runs={tmp_path / 'runs'}"]
    write_run(tmp_path / "runs", {0: 5.0, 100_000: 700.0})
    headlines(tmp_path, *arguments)
    assert content(tmp_path)["claims"]["rows"]
    headlines(tmp_path, *arguments, "tasks=walker-*")
    data = content(tmp_path)
    assert data["claims"] is None
    assert data["facts"][-1] == "Only tasks=walker-* are shown, so no claim of the paper is judged"
