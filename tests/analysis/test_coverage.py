"""Coverage of the intervals, on the published pools and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.figures.figure_specs import read_catalog
from analysis.figures.multitask_plots import score_text
from analysis.figures.registry import PLOTS
from analysis.records.load import load, load_curves
from analysis.stats.aggregate import improvements
from analysis.stats.bootstrap import Bootstrap, probability_of_improvement
from analysis.stats.coverage import (
    Coverage,
    coverage_of,
    coverage_of_pair,
    coverages,
    pools_of,
    simulated,
)
from analysis.stats.estimate_texts import coverage_note
from analysis.stats.horizons import Group
from analysis.stats.intervals import has_width
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import RULES
from analysis.stats.run_statistics import iqm as bootstrap_iqm
from analysis.stats.t_intervals import improvement_interval, t_interval
from tdmpc2.common.system.paths import project_root
from tdmpc2.envs.tasks import TASKS
from tests.analysis.run_files import write_run

STUDIES = Bootstrap(2000)
SERIES = ("published", "tdmpc2", "default", "", "")


@pytest.fixture(scope="module")
def curves(published_curves) -> ScoreCurves:
    return ScoreCurves(load_curves(published_curves, "published").select(obs="state"))


def test_one_task_is_students():
    scores = np.array([[0.1], [0.4], [0.5]])
    found = t_interval("mean", scores, np.zeros(3, int))
    expected = stats.t.interval(0.95, 2, scores.mean(), stats.sem(scores))
    np.testing.assert_allclose([found.low, found.high], expected)


def test_a_task_with_one_run_takes_the_variance_of_the_others():
    scores, strata = np.array([[0.1], [0.3], [0.6]]), np.array([0, 0, 1])
    found = t_interval("mean", scores, strata)
    error = np.sqrt(0.02 / 2 + 0.02) / 2
    freedom = (0.01 + 0.02) ** 2 / (0.01**2 + 0.02**2)
    assert found.high[0] - found.point[0] == pytest.approx(error * stats.t.ppf(0.975, freedom))


def test_the_interquartile_mean_is_the_bootstraps():
    rng = np.random.default_rng(0)
    scores, strata = rng.uniform(size=(11, 3)), np.array([0] * 3 + [1] * 5 + [2] * 3)
    expected = bootstrap_iqm(scores, strata, np.ones((11, 1)))[0]
    np.testing.assert_allclose(t_interval("iqm", scores, strata).point, expected)


def test_the_probability_of_improvement_is_mann_whitneys():
    rng = np.random.default_rng(0)
    strata = np.repeat([0, 1], 3)
    ours, theirs = rng.uniform(size=(2, 6, 1))
    found = improvement_interval((ours, strata), (theirs, strata))
    sides = ((ours[:, 0], strata), (theirs[:, 0], strata))
    assert found.point == pytest.approx(probability_of_improvement(*sides, Bootstrap(10)).point)
    assert 0 <= found.low[0] <= found.point[0] <= found.high[0] <= 1


def test_a_median_has_no_interval():
    found = t_interval("median", np.random.default_rng(0).uniform(size=(6, 1)), np.arange(6) // 2)
    assert np.isnan([found.low, found.high]).all()
    assert np.isfinite(found.point).all()


@pytest.mark.parametrize("num_seeds", [3, 5, 10])
@pytest.mark.parametrize("group", ["dmcontrol", "all104"])
@pytest.mark.parametrize("statistic", ["mean", "iqm", "optimality_gap"])
def test_intervals_labeled_95_percent_cover_so(curves, group, num_seeds, statistic):
    """Groups of 39 and 104 tasks, of every method."""
    tasks = read_catalog(project_root() / "paper_figures" / "figures.toml", PLOTS).groups[group]
    for method in ("tdmpc2", "tdmpc", "sac", "dreamerv3"):
        own = curves.runs[(curves.runs["method"] == method) & curves.runs["task"].isin(tasks.tasks)]
        own = own.sort_values(["task", "seed"])
        strata = np.unique(own["task"], return_inverse=True)[1]
        until = np.array([tasks.steps(task) for task in own["task"]])
        pools = pools_of(curves, own.index.to_numpy(), strata, until)
        share = simulated(statistic, pools, (num_seeds,) * len(pools), STUDIES)
        assert 0.92 <= share <= 0.98


def test_other_coverages_are_the_label(curves):
    """SAC on five ManiSkill2 tasks covers in about 80 % of cases."""
    catalog = read_catalog(project_root() / "paper_figures" / "figures.toml", PLOTS)
    found = list(coverages(curves, [catalog.groups["maniskill2"]], ["mean"], STUDIES))
    sac = next(one for one in found if one.series[1] == "sac")
    assert 0.72 < sac.share < 0.86
    assert sac.label == f"{100 * sac.share:.0f} %"
    note = coverage_note(found, {})
    assert f"sac, ManiSkill2 ({sac.num_tasks} tasks, 3 seeds, mean): {sac.label}" in note


@pytest.mark.parametrize("num_seeds", [3, 5, 10])
@pytest.mark.parametrize("domain", ["dmcontrol", "metaworld", "maniskill2", "myosuite"])
def test_labels_of_four_tasks_are_what_other_studies_find(curves, domain, num_seeds):
    """No interval covers groups of four tasks in 92 to 98 % of cases; the label says how many."""
    off = {series: [] for series in ("tdmpc2", "tdmpc", "sac", "dreamerv3")}
    for method, gaps in off.items():
        own = curves.runs[(curves.runs["method"] == method) & (curves.runs["domain"] == domain)]
        chosen = np.random.default_rng(0).choice(sorted(set(own["task"])), 4, replace=False)
        own = own[own["task"].isin(chosen)].sort_values(["task", "seed"])
        strata = np.unique(own["task"], return_inverse=True)[1]
        budget = np.array([TASKS[task].env_steps for task in own["task"]])
        pools = pools_of(curves, own.index.to_numpy(), strata, budget)
        for statistic in ("mean", "iqm", "optimality_gap"):
            stated, again = (
                simulated(statistic, pools, (num_seeds,) * 4, Bootstrap(1000, seed))
                for seed in (0, 1)
            )
            series = ("published", method, "default", "", "")
            label = Coverage(series, domain, 4, (num_seeds,) * 2, statistic, stated).label
            low, high = (0.9, 0.99) if label == "95 %" else (stated - 0.05, stated + 0.05)
            assert low <= again <= high, (method, statistic, label)
            gaps.append(again - stated)
    assert np.abs(np.mean([*off.values()])) < 0.02


def test_comparisons_that_do_not_vary_have_no_coverage():
    flat, wide = ((0.0, 0.0, 0.0),), ((0.0, 0.5, 1.0),)
    same = (flat, ((1.0, 1.0, 1.0),))
    sizes = ((3,), (3,))
    assert np.isnan(coverage_of_pair("difference", same, sizes, STUDIES))
    assert np.isnan(coverage_of_pair("improvement", same, sizes, STUDIES))
    above = (wide, ((2.0, 3.0, 4.0),))
    assert np.isnan(coverage_of_pair("improvement", above, sizes, STUDIES))
    assert np.isfinite(coverage_of_pair("difference", above, sizes, STUDIES))
    assert np.isfinite(coverage_of_pair("improvement", (wide, wide), sizes, STUDIES))


def test_bounds_of_an_interval_differ():
    assert has_width(0.1, 0.2)
    assert not has_width(0.2, 0.2)
    assert not has_width(float("nan"), float("nan"))
    assert score_text({"value": 0.5, "low": 0.4, "high": 0.6}) == "50.0 [40.0, 60.0]"
    assert score_text({"value": 1.0, "low": 1.0, "high": 1.0}) == "100.0"


def test_labels():
    def made(share: float) -> Coverage:
        return Coverage(SERIES, "DMControl", 39, (3, 3), "mean", share)

    assert [made(share).label for share in (0.91, 0.92, 0.98, 0.99)] == [
        *("91 %", "95 %", "95 %", "99 %"),
    ]
    assert "cover the true value in 93 to 96 % of cases" in coverage_note(
        [made(0.93), made(0.96)], {}
    )
    mixed = coverage_note([made(0.93), *(made(0.6 + n / 100) for n in range(8))], {})
    assert "; simulated on these runs, 1 of 9 covers the true value in 93 % of cases." in mixed
    assert "The others are not 95 % intervals, but have a measured coverage of: " in mixed
    assert mixed.endswith("(39 tasks, 3 seeds, mean): 65 %; and 2 more: 66 % to 67 %.")
    low = coverage_note([made(0.6) for _ in range(8)], {})
    assert ". Not 95 % intervals, but with a measured coverage of: " in low
    assert low.endswith("; and 2 more: 60 %.")
    assert coverage_note([], {}).endswith("of 95 %; their coverage is not measured.")


def test_equal_scores_have_no_coverage():
    assert np.isnan(simulated("mean", ((1.0, 1.0), (0.5, 0.5)), (3, 3), STUDIES))
    assert np.isnan(simulated("mean", ((1.0, 1.0 + 1e-13),), (3,), STUDIES))
    assert simulated("mean", ((1.0, 1.0), (0.5, 0.7)), (3, 3), STUDIES) > 0


def test_an_unfinished_run_ends_the_pools_of_all(tmp_path):
    """The mean is shown up to its last step, so later scores of the other runs do not count."""
    for seed in (1, 2, 3):
        points = {0: 0.0, 1000: 300.0 + seed, 2000: 900.0 + seed}
        write_run(tmp_path, points, seed=seed, budget=2000)
    write_run(tmp_path, {0: 0.0, 1000: 304.0}, seed=4, budget=2000, state="RUNNING")
    curves = ScoreCurves(load(tmp_path))
    chosen = (np.arange(4), np.zeros(4, int))
    pool = tuple((0.001 * np.array([301.0, 302.0, 303.0, 304.0])).tolist())
    expected = simulated("mean", (pool,), (4,), Bootstrap(1000))
    assert coverage_of("mean", curves, chosen, np.inf, Bootstrap(1000)) == expected


def test_a_probability_without_an_interval_has_no_coverage(tmp_path):
    """A single seed, and sides of which one always wins in the scores that are compared."""
    for method, scores in (("tdmpc2", (400.0, 410.0, 420.0)), ("sac", (500.0,)), ("x", (1.0, 2.0))):
        for seed, score in enumerate(scores, start=1):
            points = {0: 0.0, 1000: 1000.0 - score, 2000: score}
            write_run(tmp_path, points, method=method, seed=seed, budget=2000)
    group = Group("one", "One", ("walker-walk",), 2000)
    curves = ScoreCurves(load(tmp_path))
    table, _ = improvements(curves, group, RULES["hold"], Bootstrap(100))
    assert len(table) == 6
    assert table["coverage"].isna().all()
