"""Scores of multi-task agents, against hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.records.load import load
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.multitask_scores import final_scores, set_curves, task_scores
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import RULES
from tests.analysis.multitask_files import HEADER, PAIR, eval_line, write_multitask_run

HOLD, BOOT = RULES["hold"], Bootstrap(reps=4000)


def agents(runs) -> ScoreCurves:
    return ScoreCurves(load(runs), "num_updates")


def told(problems) -> list[str]:
    return [str(problem) for problem in problems]


def test_the_score_of_a_set_is_the_mean_over_its_tasks(tmp_path):
    write_multitask_run(tmp_path, {0: (0.0, 2.0), 100: (10.0, 20.0)}, seed=1)
    write_multitask_run(tmp_path, {0: (0.0, 6.0), 100: (30.0, 40.0)}, seed=2)
    records = agents(tmp_path)
    curves, problems = set_curves(records, HOLD, BOOT)
    assert problems == ()
    assert curves["step"].tolist() == [0, 100]
    assert curves["mean"].tolist() == pytest.approx([0.02, 0.25])
    # Each seed is a sample: 0.15 and 0.35, an error of 0.1 with one degree of freedom, whose
    # quantile is 12.7; the interval ends at the range of scores.
    assert curves[["low", "high"]].to_numpy()[1].tolist() == pytest.approx([0, 1])
    # At the start, 0.01 and 0.03.
    expected = [0, 0.02 + 0.01 * stats.t.ppf(0.975, 1)]
    assert curves[["low", "high"]].to_numpy()[0].tolist() == pytest.approx(expected)
    assert curves[["num_seeds", "seeds", "num_tasks"]].to_numpy()[0].tolist() == [2, "1 2", 2]
    assert set(curves["step_unit"]) == {"num_updates"}
    tasks, _ = task_scores(records, HOLD, BOOT)
    assert tasks["task"].tolist() == list(PAIR)
    assert tasks[["value", "low", "high"]].to_numpy().tolist() == [
        pytest.approx([0.2, 0.0, 1.0]),
        pytest.approx([0.3, 0.0, 1.0]),
    ]
    assert tasks["untrained"].tolist() == pytest.approx([0.0, 0.06])


def test_one_seed_has_no_interval_and_says_so(tmp_path):
    write_multitask_run(tmp_path, {0: (0.0, 2.0)})
    scores, problems = final_scores(agents(tmp_path), HOLD, BOOT)
    assert scores["value"].tolist() == [0.01]
    assert scores[["low", "high"]].isna().all(axis=None)
    name = f"tdmpc2/default/5/{'+'.join(PAIR)}"
    assert told(problems) == [f"warning: {name}: one seed: its score has no interval"]


def test_a_diverged_run_is_carried_and_a_running_one_is_not(tmp_path):
    write_multitask_run(tmp_path, {0: (0.0, 0.0), 100: (10.0, 10.0), 200: (30.0, 30.0)}, seed=1)
    write_multitask_run(
        tmp_path, {0: (0.0, 0.0), 100: (20.0, 20.0)}, seed=2, state="DIVERGED", budget=200
    )
    records = agents(tmp_path)
    curves, problems = set_curves(records, HOLD, BOOT)
    assert curves["mean"].tolist() == pytest.approx([0, 0.15, 0.25])
    assert problems == ()
    write_multitask_run(
        tmp_path, {0: (0.0, 0.0), 100: (60.0, 60.0)}, seed=3, state="RUNNING", budget=200
    )
    records = agents(tmp_path)
    curves, problems = set_curves(records, HOLD, BOOT)
    assert curves["mean"].tolist() == pytest.approx([0, 0.3])
    assert "1 of 3 steps not averaged: seed 3 lacks 1 (200)" in problems[0].what
    scores, problems = final_scores(records, HOLD, BOOT)
    assert scores[["num_updates", "budget", "value"]].to_numpy().tolist() == [
        pytest.approx([100, 200, 0.3])
    ]
    assert "seed 3 (RUNNING); scores are those at update 100" in problems[0].what


def test_a_finished_run_of_a_smaller_budget_ends_the_comparison(tmp_path):
    write_multitask_run(tmp_path, {0: (0.0, 0.0), 100: (10.0, 10.0)}, seed=1)
    write_multitask_run(tmp_path, {0: (0.0, 0.0), 100: (20.0, 20.0), 200: (90.0, 90.0)}, seed=2)
    scores, problems = final_scores(agents(tmp_path), HOLD, BOOT)
    assert scores[["num_updates", "value"]].to_numpy().tolist() == [[100, pytest.approx(0.15)]]
    assert "budget of 200 updates not reached: seed 1 (COMPLETED)" in problems[0].what


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("hold", [0.05, 0.1, 0.3]), ("linear", [0.05, 0.175, 0.3]), ("hold_last", [0.1, 0.15, 0.3])],
)
def test_missing_and_repeated_evaluations_are_left_to_the_rule(tmp_path, rule, expected):
    one, two = PAIR
    lines = [eval_line(0, one, 0.0), eval_line(0, one, 20.0), eval_line(0, two, 0.0)]
    lines += [eval_line(100, two, 10.0)]
    lines += [eval_line(200, one, 40.0), eval_line(200, two, 20.0)]
    content = f"{HEADER}\n{''.join(lines)}"
    write_multitask_run(tmp_path, {}, eval_csv=content, budget=200)
    curves, _ = set_curves(agents(tmp_path), RULES[rule], BOOT)
    assert curves["mean"].tolist() == pytest.approx(expected)


def test_nothing_is_filled_in_where_the_rule_says_so(tmp_path):
    one, two = PAIR
    text = eval_line(0, one, 10.0) + eval_line(0, two, 30.0) + eval_line(100, two, 10.0)
    write_multitask_run(tmp_path, {}, eval_csv=f"{HEADER}\n{text}", budget=100, seed=1)
    write_multitask_run(tmp_path, {0: (20.0, 40.0), 100: (0.0, 50.0)}, seed=2)
    curves, problems = set_curves(agents(tmp_path), RULES["available"], BOOT)
    # At 100, only the second seed has a score of the first task.
    assert curves["mean"].tolist() == pytest.approx([0.25, (0 + 0.3) / 2])
    assert curves["seeds"].tolist() == ["1 2", "2"]
    assert problems == ()


def test_a_run_that_never_saw_a_task_is_left_out(tmp_path):
    content = f"{HEADER}\n{eval_line(0, PAIR[0], 10.0)}"
    write_multitask_run(tmp_path, {}, eval_csv=content, seed=1)
    write_multitask_run(tmp_path, {0: (20.0, 40.0)}, seed=2)
    scores, problems = final_scores(agents(tmp_path), HOLD, BOOT)
    assert scores["value"].tolist() == pytest.approx([0.3])
    assert "1 of 2 tasks never evaluated; excluded" in problems[0].what
    assert problems[0].severity == "error"


def test_sets_of_one_name_and_other_tasks_are_not_mixed(tmp_path):
    write_multitask_run(tmp_path, {0: (20.0, 40.0)}, seed=1, task_set="mine")
    write_multitask_run(tmp_path, {0: (20.0, 40.0)}, seed=2, task_set="mine", tasks=("a", "b"))
    scores, problems = final_scores(agents(tmp_path), HOLD, BOOT)
    assert scores.empty
    assert "runs on different tasks under the same name mine; excluded" in problems[0].what


def test_no_run_gives_empty_tables(tmp_path):
    records = agents(tmp_path)
    for make in (set_curves, final_scores, task_scores):
        table, problems = make(records, HOLD, BOOT)
        assert table.empty
        assert problems == ()


def test_the_interval_of_many_tasks_is_that_of_the_seeds(tmp_path):
    tasks = [f"task-{i}" for i in range(20)]
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 100, (3, 20))
    for seed, own in enumerate(values, start=1):
        write_multitask_run(tmp_path, {0: own.tolist()}, tasks=tasks, task_set="many", seed=seed)
    scores, _ = final_scores(agents(tmp_path), HOLD, BOOT)
    row = scores.iloc[0]
    assert row["value"] == pytest.approx(values.mean() / 100)
    # Each seed is one sample, because the tasks of one agent are not independent.
    means = values.mean(axis=1) / 100
    expected = stats.t.interval(0.95, 2, means.mean(), stats.sem(means))
    assert row[["low", "high"]].tolist() == pytest.approx(expected)
    assert row["coverage"] == pytest.approx(np.nan, nan_ok=True)  # evaluated only before training
