"""Means over the environments of users, which have normalized scores or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.figures.catalog_file import catalog_path
from analysis.figures.figure_specs import FigureSpec, read_catalog
from analysis.figures.page import paper_style
from analysis.figures.registry import PLOTS
from analysis.records.load import load
from analysis.stats import selection
from analysis.stats.ablation_effects import effect_of
from analysis.stats.against_default import against_default
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.coverage import pools_of
from analysis.stats.horizons import OWN, own_environments, own_groups
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import RULES
from analysis.stats.selection import score_limits
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs import tasks
from tests.analysis.pictures import assert_nothing_overlaps_or_is_clipped, draw
from tests.analysis.report_files import content, headlines
from tests.analysis.run_files import write_run

TASKS = {
    "gym:Hopper-v5": {"score_range": [0, 3000]},
    "my-arm": {"metric": "success"},
    "gym:Pendulum-v1": {"score_range": None},  # no normalized score
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds of each environment, and one of a task of the suite."""
    for task, facts in TASKS.items():
        last = (0.4, 0.6) if "metric" in facts else (1200.0, 1800.0)
        for seed, score in enumerate(last, start=1):
            points = {0: 0.0, 100_000: score}
            write_run(tmp_path, points, task=task, seed=seed, domain="gymnasium", **facts)
    write_run(tmp_path, {0: 0.0, 100_000: 300.0})
    return tmp_path


def test_the_aggregate_has_a_panel_for_them(runs: Path) -> None:
    with paper_style():
        drawing = draw(load(runs), FigureSpec("aggregate", "aggregate_curve"))
        (page,) = drawing.pages
        assert_nothing_overlaps_or_is_clipped(page.figure)
    last = drawing.numbers[drawing.numbers["step"] == 100_000].set_index("group")
    assert last["mean"].to_dict() == pytest.approx({"dmcontrol": 0.3, OWN: 0.5})
    assert last["num_tasks"].to_dict() == {"dmcontrol": 1, OWN: 2}
    (left_out,) = [problem for problem in drawing.problems if "score_range" in problem.what]
    assert left_out.where == "gym:Pendulum-v1"


def test_scores_are_read_at_the_smallest_budget(runs: Path) -> None:
    group, left_out = own_environments(ScoreCurves(load(runs)))
    assert group is not None
    assert (group.tasks, left_out) == (("gym:Hopper-v5", "my-arm"), ("gym:Pendulum-v1",))
    assert group.horizon == 100_000
    more = {"domain": "gymnasium", "metric": "success", "budget": 50_000}
    write_run(runs, {0: 0.0, 50_000: 1.0}, task="my-leg", **more)
    group, _ = own_environments(ScoreCurves(load(runs)))
    assert group is not None
    assert group.horizon == 50_000


def test_runs_without_a_budget_count_their_last_step(tmp_path: Path) -> None:
    more = {"domain": "gymnasium", "metric": "success", "budget": None}
    write_run(tmp_path, {0: 0.0, 70_000: 1.0}, task="my-leg", **more)
    group, _ = own_environments(ScoreCurves(load(tmp_path)))
    assert group is not None
    assert group.horizon == 70_000
    with paper_style():
        drawing = draw(load(tmp_path), FigureSpec("bars", "group_bars", groups=(group,)))
    assert drawing.numbers["value"].tolist() == [1.0]


ARMS = """
[groups.arms]
label = "Arms"
tasks = ["gym:Hopper-v5", "my_module:Arm-v0"]
horizon = 50_000
"""


def test_a_group_of_the_catalog_may_hold_them(tmp_path: Path) -> None:
    for task in ("gym:Hopper-v5", "my_module:Arm-v0"):
        for seed, score in enumerate((0.4, 0.6), start=1):
            more = {"domain": "gymnasium", "metric": "success", "budget": 100_000}
            write_run(tmp_path, {0: 0.0, 50_000: score, 100_000: 1.0}, task=task, seed=seed, **more)
    file = tmp_path / "figures.toml"
    file.write_text(catalog_path().read_text() + ARMS)
    group = read_catalog(file, PLOTS).groups["arms"]
    for plot in ("group_bars", "aggregate_curve", "interval_plot"):
        with paper_style():
            drawing = draw(load(tmp_path), FigureSpec("x", plot, groups=(group,)))
        assert set(drawing.numbers["group"]) == {"arms"}
        value = "value" if "value" in drawing.numbers else "mean"
        assert drawing.numbers[value].iloc[-1] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("horizon = 50_000", "", "group arms: horizon is missing: gym:Hopper-v5 has no budget"),
        ("gym:Hopper-v5", "hoper-hop", "group arms: unknown task hoper-hop .did you mean"),
    ],
)
def test_groups_that_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "figures.toml"
    file.write_text(catalog_path().read_text() + ARMS.replace(old, new))
    with pytest.raises(UserError, match=message):
        read_catalog(file, PLOTS)


def test_a_task_whose_range_has_changed_is_left_out(runs: Path) -> None:
    other = {"domain": "gymnasium", "score_range": [0, 4000]}
    write_run(runs, {0: 0.0, 100_000: 1500.0}, task="gym:Hopper-v5", seed=3, **other)
    group, left_out = own_environments(ScoreCurves(load(runs)))
    assert group is not None
    assert (group.tasks, left_out) == (("my-arm",), ("gym:Hopper-v5", "gym:Pendulum-v1"))


def test_groups_of_the_report_have_only_tasks_with_scores(runs: Path) -> None:
    groups = {group.name: group.tasks for group in own_groups(ScoreCurves(load(runs)), {})}
    assert groups["ours_gymnasium_100000"] == ("gym:Hopper-v5", "my-arm")


def test_without_them_there_is_no_panel_and_no_message(tmp_path: Path) -> None:
    write_run(tmp_path, {0: 0.0, 100_000: 300.0})
    assert own_environments(ScoreCurves(load(tmp_path))) == (None, ())
    drawing = draw(load(tmp_path), FigureSpec("aggregate", "aggregate_curve"))
    assert set(drawing.numbers["group"]) == {"dmcontrol"}
    assert not [problem for problem in drawing.problems if "score_range" in problem.what]


def test_their_intervals_have_a_measured_coverage(runs: Path) -> None:
    """Except for returns without a range, which the caption says."""
    for task, facts in TASKS.items():
        score = 0.5 if "metric" in facts else 1500.0
        points = {0: 0.0, 100_000: score}
        write_run(runs, points, task=task, seed=3, domain="gymnasium", **facts)
    with paper_style():
        drawing = draw(load(runs), FigureSpec("curves", "learning_curves"))
    measured = drawing.numbers.groupby("task")["coverage"].first()
    assert sorted(measured.dropna().index) == ["gym:Hopper-v5", "my-arm"]
    caption = " ".join(drawing.pages[0].caption.split())
    assert "simulated on these runs, they cover the true value in" in caption
    assert caption.endswith("intervals of returns without score_range is not measured.")


def test_coverages_rest_on_scores_from_0_to_1(tmp_path: Path) -> None:
    """A range that does not begin at 0 changes which scores an interquartile mean leaves out."""
    for task, low in (("gym:A-v0", -1000), ("gym:B-v0", 0)):
        for seed, score in enumerate((0.0, 300.0, 600.0), start=1):
            points = {0: float(low), 100_000: low + score}
            ranged = {"domain": "gymnasium", "score_range": [low, low + 1000]}
            write_run(tmp_path, points, task=task, seed=seed, **ranged)
    curves = ScoreCurves(load(tmp_path))
    rows = curves.runs.sort_values(["task", "seed"]).index.to_numpy()
    pools = pools_of(curves, rows, np.array([0, 0, 0, 1, 1, 1]), np.full(6, 100_000))
    assert pools == (pytest.approx((0.0, 0.3, 0.6)),) * 2


def test_returns_outside_their_range_do_not_cut_intervals(tmp_path: Path) -> None:
    """The mean of 1.2, 1.5 and 1.9 with Student's interval of three seeds."""
    hopper = {"task": "gym:Hopper-v5", "domain": "gymnasium", "score_range": [0, 1000]}
    for seed, score in enumerate((1200.0, 1500.0, 1900.0), start=1):
        write_run(tmp_path, {0: 0.0, 100_000: score}, seed=seed, **hopper)
    with paper_style():
        bars = draw(load(tmp_path), FigureSpec("bars", "group_bars"))
        lines = draw(load(tmp_path), FigureSpec("lines", "aggregate_curve"))
    (row,) = bars.numbers.to_dict("records")
    half = 4.3027 * np.std([1.2, 1.5, 1.9], ddof=1) / np.sqrt(3)
    expected = pytest.approx([4.6 / 3, 4.6 / 3 - half, 4.6 / 3 + half], abs=1e-4)
    assert [row["value"], row["low"], row["high"]] == expected
    assert lines.numbers[["mean", "low", "high"]].iloc[-1].tolist() == expected
    (ax,) = bars.pages[0].axes
    assert ax.get_ylim()[1] > 100 * row["high"]


def test_the_limits_of_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a plugin's task do not depend on whether the plugin is loaded."""
    plugin = replace(tasks.TASKS["walker-walk"], name="my-walk", tags=frozenset({"my-suite"}))
    monkeypatch.setattr(selection, "TASKS", {**tasks.TASKS, "my-walk": plugin})

    def limits(task: str, score: str, statistic: str = "mean") -> tuple[float, float]:
        return score_limits(pd.DataFrame({"task": [task], "score": [score]}), statistic)

    assert limits("walker-walk", "return") == limits("my-arm", "success") == (0, 1)
    assert limits("my-walk", "return") == limits("not-loaded", "return") == (-np.inf, np.inf)
    assert limits("gym:Hopper-v5", "return 0 to 3000") == (-np.inf, np.inf)
    assert limits("gym:Hopper-v5", "return 0 to 3000", "optimality_gap") == (0, np.inf)


def test_their_returns_have_a_value_axis_of_their_own(runs: Path) -> None:
    write_run(runs, {0: 0.0, 100_000: 500.0}, task="cup-catch")
    with paper_style():
        drawing = draw(load(runs), FigureSpec("curves", "learning_curves"))
        (page,) = drawing.pages
        assert_nothing_overlaps_or_is_clipped(page.figure)
    top = {ax.get_title(loc="left"): ax.get_ylim()[1] for ax in page.axes}
    assert top["gym:Hopper-v5"] > 1800
    assert top["Walker Walk"] == top["Cup Catch"] == pytest.approx(500 * 1.04)


def test_variants_are_compared_on_tasks_with_a_normalized_score(runs: Path) -> None:
    own = {"domain": "gymnasium", "variant": "no-simnorm"}
    write_run(runs, {0: 0.0, 100_000: 100.0}, variant="no-simnorm")
    for task, score_range in (("gym:Pendulum-v1", None), ("gym:Hopper-v5", [0, 4000])):
        points = {0: 0.0, 100_000: 2000.0}
        write_run(runs, points, task=task, score_range=score_range, **own)
    curves = ScoreCurves(load(runs))
    (row,) = against_default(curves, RULES["hold"]).to_dict("records")
    assert (row["tasks"], row["score"], row["default"]) == (1, 10.0, 30.0)
    reasons = (
        "gym:Hopper-v5: scores of several kinds (return 0 to 3000, return 0 to 4000)",
        "gym:Pendulum-v1: returns without score_range",
    )
    assert row["left out"] == "; ".join(reasons)
    sides = [rows.index.to_numpy() for _, rows in curves.runs.groupby("variant")]
    effect, missing = effect_of(curves, *sides, RULES["hold"], Bootstrap(reps=10))
    assert effect is not None
    assert effect.tasks == ("walker-walk",)
    assert set(reasons) < set(missing)


def test_a_variant_without_any_such_task_is_named_in_the_report(tmp_path: Path) -> None:
    own = {"task": "gym:Pendulum-v1", "domain": "gymnasium", "score_range": None}
    for variant in ("default", "no-simnorm"):
        write_run(tmp_path / "runs", {0: -900.0, 100_000: -200.0}, variant=variant, **own)
    headlines(tmp_path, f"runs={tmp_path / 'runs'}")
    page = content(tmp_path)["ablations"]
    (row,) = [dict(zip(page["columns"], row, strict=True)) for row in page["rows"]]
    assert (row["tasks"], row["score"], row["difference"]) == (0, "", "")
    assert row["left out"] == "gym:Pendulum-v1: returns without score_range"
