"""Rules for missing and repeated evaluations, against hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.records.load import load, load_curves, merge
from analysis.stats.ragged_curves import Curve, ScoreCurves
from analysis.stats.rules import RULES, get_rule
from tdmpc2.common.system.errors import UserError
from tests.analysis.run_files import HEADER, eval_line, write_run, write_table

# Step 20 occurs twice, 30 is missing, and the run ended at 40 of 60.
STEPS, VALUES = np.array([10, 20, 20, 40]), np.array([1.0, 4.0, 6.0, 9.0])
WANTED = np.array([0, 10, 20, 30, 40, 50])
NAN = float("nan")
EXPECTED = {
    "hold": [1.0, 1.0, 5.0, 5.0, 9.0, 9.0],
    "hold_first": [1.0, 1.0, 4.0, 4.0, 9.0, 9.0],
    "hold_last": [1.0, 1.0, 6.0, 6.0, 9.0, 9.0],
    "linear": [1.0, 1.0, 5.0, 7.0, 9.0, 9.0],
    "available": [NAN, 1.0, 5.0, NAN, 9.0, NAN],
}


def test_every_rule_is_tested():
    assert set(EXPECTED) == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_rule_by_hand(name):
    curve = Curve(STEPS, VALUES, carried_to=60)
    np.testing.assert_array_equal(RULES[name].at(curve, WANTED), EXPECTED[name])


def test_steps_out_of_order_are_put_in_order():
    curve = Curve(STEPS[[3, 0, 1, 2]], VALUES[[3, 0, 1, 2]], carried_to=60)
    for name, expected in EXPECTED.items():
        np.testing.assert_array_equal(RULES[name].at(curve, WANTED), expected)


@pytest.mark.parametrize("name", ["hold", "linear"])
def test_a_run_that_goes_on_is_not_carried(name):
    curve = Curve(STEPS, VALUES, carried_to=-np.inf)
    assert RULES[name].at(curve, np.array([40, 41])).tolist()[0] == 9.0
    assert np.isnan(RULES[name].at(curve, np.array([40, 41]))[1])


def test_a_few_finer_grids_do_not_set_the_common_one(tmp_path):
    for seed in range(5):
        write_run(tmp_path, {0: 1.0, 100: 1.0, 200: 1.0}, seed=seed)
    write_run(tmp_path, dict.fromkeys((0, 50, 100, 150, 200, 250), 1.0), seed=9)
    curves = ScoreCurves(load(tmp_path))
    # Only the last run continues beyond 200.
    assert curves.common_grid(range(6)).tolist() == [0, 100, 200, 250]
    assert curves.common_grid(range(6), until=100).tolist() == [0, 100]


def test_unknown_rule_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'linear'"):
        get_rule("liner")


@pytest.mark.parametrize(
    ("state", "budget", "last", "at_its_budget", "beyond"),
    [
        ("COMPLETED", 4_000_000, 3_700_000, 2.0, 2.0),
        ("COMPLETED", 8_000_000, 3_700_000, 2.0, 2.0),  # the paper's budget is evaluated
        ("DIVERGED", 4_000_000, 1000, 2.0, 2.0),
        ("COMPLETED", 100_000, 95_000, 2.0, NAN),  # below the paper's budget, not carried to 4M
        ("COMPLETED", 4_000_000, 3_500_000, NAN, NAN),  # the evaluation at the end is missing
        ("COMPLETED", 100_000, 50_000, NAN, NAN),
        ("FAILED", 4_000_000, 3_999_000, NAN, NAN),
        ("RUNNING", 4_000_000, 3_999_000, NAN, NAN),
        ("INTERRUPTED", 100_000, 99_000, NAN, NAN),
    ],
)
def test_how_far_a_run_is_carried(tmp_path, state, budget, last, at_its_budget, beyond):
    write_run(tmp_path, {0: 1.0, last: 2.0}, state=state, budget=budget)
    curves = ScoreCurves(load(tmp_path))
    found = curves.values([0], np.array([budget, 9_000_000]), RULES["hold"])
    np.testing.assert_array_equal(found, [[at_its_budget, beyond]])


def test_scores_are_those_of_each_tasks_metric(tmp_path):
    write_run(tmp_path, {0: 250.0}, task="walker-walk")
    write_run(tmp_path, {0: 0.4}, task="mw-reach", domain="metaworld", metric="success")
    curves = ScoreCurves(load(tmp_path))
    assert curves.runs["task"].tolist() == ["mw-reach", "walker-walk"]
    values = curves.values([0, 1], np.array([0]), RULES["hold"], normalized=True)
    assert values.tolist() == [[0.4], [0.25]]


def test_each_run_keeps_its_own_curve(tmp_path):
    for seed, points in ((1, {0: 1.0}), (2, {}), (3, {0: 3.0, 500: 5.0})):
        write_run(tmp_path, points, seed=seed)
    content = eval_line(0, 4.0) + eval_line(0, 8.0)
    write_run(tmp_path, {}, method="sac", eval_csv=f"{HEADER}\n{content}")
    table = write_table(tmp_path / "mine.csv", "task,seed,step,return", ["walker-walk,7,0,9"])
    curves = ScoreCurves(merge([load(tmp_path), load_curves(table, "mine")]))
    found = {
        (run.source, run.method, run.seed): curve.values.tolist()
        for run, curve in zip(curves.runs.itertuples(), curves.curves, strict=True)
    }
    assert found == {
        ("runs", "sac", 1): [4.0, 8.0],
        ("runs", "tdmpc2", 1): [1.0],
        ("runs", "tdmpc2", 3): [3.0, 5.0],
        ("mine", "mine", 7): [9.0],
    }
    assert curves.grid([0, 1, 2]).tolist() == [0, 500]
    assert curves.grid([0, 1, 2], until=100).tolist() == [0]
    assert curves.last_steps.tolist() == [0, 0, 500, 0]


def test_returns_are_normalized_by_the_range_of_the_task_or_not_at_all(tmp_path):
    ranges = {"gym:A-v0": [-50, 150], "gym:B-v0": None}
    for task, score_range in ranges.items():
        write_run(tmp_path, {0: 100.0}, task=task, domain="gymnasium", score_range=score_range)
    write_run(tmp_path, {0: 100.0}, task="walker-walk")
    curves = ScoreCurves(load(tmp_path))
    values = curves.values(range(3), np.array([0]), RULES["hold"], normalized=True)[:, 0]
    found = dict(zip(curves.runs["task"], values.tolist(), strict=True))
    assert (found["gym:A-v0"], found["walker-walk"]) == (0.75, 0.1)
    assert np.isnan(found["gym:B-v0"])
    plain = curves.values(range(3), np.array([0]), RULES["hold"])
    assert (plain == 100.0).all()
