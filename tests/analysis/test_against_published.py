"""Comparison with the published curves: which runs and evaluations its numbers rest on."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from analysis.records.load import load, load_curves, merge
from analysis.stats.against_published import Comparison, compare_domains, compare_tasks
from analysis.stats.common_evaluations import common_scores
from analysis.stats.equivalence import difference
from analysis.stats.equivalence_tables import forecast_text
from analysis.stats.least_variance import binomial_variance
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.reproduction_power import reproduction_power
from analysis.stats.rules import RULES
from analysis.stats.task_variances import TaskVariances
from tdmpc2.envs.tasks import SUITES
from tests.analysis.run_files import write_run, write_table

BUDGET = 1_000_000
STEPS = (0, 200_000, 400_000, 600_000, 800_000, BUDGET)


def succeed(
    root: Path, ours: tuple[float, ...], theirs: tuple[float, ...], *, steps: tuple[int, ...]
) -> None:
    """Write success rates of mw-reach in percent, of our and published seeds, equal at all steps.

    Args:
        root: folder of `runs` and `paper`.
        ours: success rate of each of our seeds.
        theirs: success rate of each published seed.
        steps: evaluations.
    """
    lines = [
        f"{step},{score / 100},{seed}"
        for step in steps
        for seed, score in enumerate(theirs, start=1)
    ]
    write_table(root / "paper" / "tdmpc2" / "mw-reach.csv", "step,success,seed", lines)
    facts = {"task": "mw-reach", "domain": "metaworld", "metric": "success", "budget": steps[-1]}
    for seed, score in enumerate(ours, start=1):
        write_run(root / "runs", dict.fromkeys(steps, score / 100), seed=seed, **facts)


def publish(root: Path, scores: tuple[float, ...], *, steps: tuple[int, ...] = STEPS) -> None:
    """Write published seeds of walker-walk, whose scores differ a little between steps."""
    lines = [
        f"{step},{(score + step / 1e5) * (step > 0)},{seed}"
        for step in steps
        for seed, score in enumerate(scores, start=1)
    ]
    write_table(root / "paper" / "tdmpc2" / "walker-walk.csv", "step,reward,seed", lines)


def read(root: Path) -> ScoreCurves:
    return ScoreCurves(merge([load(root / "runs"), load_curves(root / "paper", "published")]))


def compare(root: Path) -> Comparison:
    return compare_tasks(read(root), RULES["hold"], "default", 10.0)


def test_a_seed_that_is_left_out_does_not_count_in_the_coverage(tmp_path):
    publish(tmp_path, (900.0, 910.0, 920.0))
    for seed, score in enumerate((902.0, 911.0, 917.0), start=1):
        points = {step: (score + step / 1e5) * (step > 0) for step in STEPS}
        write_run(tmp_path / "runs", points, seed=seed, budget=BUDGET)
    before = compare(tmp_path)
    early = {0: 0.0, 200_000: 300.0}
    write_run(tmp_path / "runs", early, seed=4, budget=BUDGET, state="RUNNING")
    after = compare(tmp_path)
    assert after.left_out
    assert after.tasks["num_ours"].tolist() == [3]
    assert after.pools == before.pools
    assert after.tasks["coverage"].tolist() == before.tasks["coverage"].tolist()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [((100, 100, 100), (100, 100, 90)), ((30, 0, 90), (100, 100, 100)), ((100,) * 3, (100,) * 3)],
)
def test_the_coverage_is_that_of_the_interval_with_its_least_variances(tmp_path, ours, theirs):
    """Studies of three seeds are few enough to be counted: 27 of our side, 27 of the other."""
    succeed(tmp_path, ours, theirs, steps=(100_000,))
    comparison = compare(tmp_path)
    truth, covered = np.mean(ours) - np.mean(theirs), []
    for mine in itertools.product(map(float, ours), repeat=3):
        for others in itertools.product(map(float, theirs), repeat=3):
            sides = np.array(mine), np.array(others)
            least = tuple(float(binomial_variance(side, 10)) for side in sides)
            low, high = difference(*sides, least).interval(0.95)
            covered.append(low <= truth <= high)
    share = comparison.coverage([0])
    assert share == pytest.approx(np.mean(covered), abs=0.03)
    assert share > 0.9


def test_the_margin_of_a_domain_is_the_one_that_the_plan_settles(tmp_path):
    """Three published seeds that agree do not settle ±3, whatever the number of ours."""
    succeed(tmp_path, (100,) * 40, (100,) * 3, steps=(100_000,))
    curves = read(tmp_path)
    (plan,) = reproduction_power(curves, 3, None).to_dict("records")
    (row,) = compare_domains(compare(tmp_path), None).to_dict("records")
    assert row["margin"] == plan["margin"] == pytest.approx(9.7)
    assert (row["decides"], row["verdict"]) == (plan["settled"], "reproduced")


@pytest.mark.parametrize(
    ("ours", "agree"), [((50, 50, 60), False), ((100, 100, 100), True), ((100, 90, 100), False)]
)
def test_only_equal_seeds_agree(tmp_path, ours, agree):
    succeed(tmp_path, ours, (50, 60, 50), steps=(100_000,))
    (remark,) = compare(tmp_path).tasks["remark"]
    assert ("3 of 3 seeds agree" in remark) == agree
    assert "published seeds agree" not in remark


def test_equal_scores_have_no_interval_in_spite_of_rounding(tmp_path):
    """The variance of three equal numbers can be 1e-28 instead of 0."""
    score = next(x for x in np.arange(500.0, 900.0, 0.1) if np.var([x / 10] * 3, ddof=1) > 0)
    for folder in ("paper", "runs"):
        (tmp_path / folder).mkdir()
    lines = [f"{step},{score},{seed}" for step in (BUDGET,) for seed in (1, 2, 3)]
    write_table(tmp_path / "paper" / "tdmpc2" / "walker-walk.csv", "step,reward,seed", lines)
    for seed in (1, 2, 3):
        write_run(tmp_path / "runs", {0: 0.0, BUDGET: score}, seed=seed, budget=BUDGET)
    (row,) = compare(tmp_path).tasks.to_dict("records")
    assert row["verdict"] == "not enough data"
    assert np.isnan([row["error"], row["low"], row["p_value"]]).all()
    assert "no task of this kind shows a spread" in row["remark"]
    assert "3 of 3 seeds agree" in row["remark"]


def test_step_0_does_not_count_in_the_least_variance(tmp_path):
    publish(tmp_path, (900.0, 910.0, 920.0), steps=(0, BUDGET))
    write_run(tmp_path / "runs", {0: 0.0, BUDGET: 900.0}, budget=BUDGET)
    curves = read(tmp_path)
    ours, theirs = (np.flatnonzero(curves.runs["source"] == name) for name in ("runs", "published"))
    common = common_scores(curves, ours, theirs, RULES["hold"])
    for least in TaskVariances(curves).of(common, theirs):
        assert least.of(common.ours) == pytest.approx(1.0)


@pytest.mark.parametrize("healthy", [0, 1])
def test_a_seed_that_diverged_before_its_first_evaluation_takes_no_part(tmp_path, healthy):
    """Its untrained score is not that of the full budget."""
    publish(tmp_path, (900.0, 910.0, 920.0))
    for seed in (1, 2, 3)[healthy:]:
        facts = {"seed": seed, "budget": 4_000_000, "state": "DIVERGED"}
        write_run(tmp_path / "runs", {0: 31.0}, **facts)
    if healthy:
        write_run(tmp_path / "runs", dict.fromkeys(STEPS, 905.0), budget=BUDGET)
    (row,) = compare(tmp_path).tasks.to_dict("records")
    assert row["verdict"] == "not enough data"
    assert "seed 2 diverged at 0 env steps; seed 3 diverged at 0 env steps" in row["remark"]
    assert (row["num_ours"], row["ours"]) == (1, 90.5) if healthy else np.isnan(row["ours"])


def test_a_seed_that_diverged_later_keeps_its_score_and_is_named(tmp_path):
    publish(tmp_path, (900.0, 910.0, 920.0))
    for seed in (1, 2, 3):
        facts = {"seed": seed, "budget": BUDGET}
        if seed == 3:
            write_run(tmp_path / "runs", {0: 0.0, 400_000: 50.0}, state="DIVERGED", **facts)
        else:
            write_run(tmp_path / "runs", dict.fromkeys(STEPS, 905.0), **facts)
    comparison = compare(tmp_path)
    (row,) = comparison.tasks.to_dict("records")
    assert row["num_ours"] == 3
    assert "seed 3 diverged at 400,000 env steps and keeps its score" in row["remark"]
    assert comparison.left_out == ()


def test_forecasts_know_of_the_correction_for_the_other_tasks(tmp_path):
    """A task that is far below is open because of the others, and stays so with more seeds."""
    others = [task.name for task in SUITES["dmcontrol"] if task.name != "walker-walk"][:19]
    for task in ("walker-walk", *others):
        gap = -180 if task == "walker-walk" else 30
        lines = [f"{BUDGET},{score},{seed}" for seed, score in ((1, 440), (2, 500), (3, 560))]
        path = tmp_path / "paper" / "tdmpc2" / f"{task}.csv"
        write_table(path, "step,reward,seed", lines)
        for seed, score in ((1, 440), (2, 500), (3, 560)):
            points = {0: 0.0, BUDGET: float(score + gap)}
            write_run(tmp_path / "runs", points, task=task, seed=seed, budget=BUDGET)
    row = compare(tmp_path).tasks.set_index("task").loc["walker-walk"]
    assert row["p_value"] < 0.05 < row["adjusted_p"]
    assert forecast_text(row.to_dict()) == "over 100"
