"""Env steps and updates never share an axis, a comparison or a verdict."""

from __future__ import annotations

from typing import get_args

import pytest

from analysis.figures.figure_specs import FigureSpec
from analysis.figures.registry import PLOTS, select, step_unit_of
from analysis.records.evaluations import ENV_STEPS, NUM_UPDATES, StepUnit
from analysis.records.load import Records, load, load_curves, merge
from analysis.stats.against_default import against_default
from analysis.stats.against_published import compare_tasks
from analysis.stats.aggregate import group_scores
from analysis.stats.horizons import Group
from analysis.stats.multitask_claims import compare_agents
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import RULES
from tests.analysis.multitask_files import PAIR, write_multitask_run
from tests.analysis.pictures import CATALOG
from tests.analysis.run_files import write_run, write_table

UPDATES, STEPS = 10_000_000, 200_000
HOLD = RULES["hold"]


@pytest.fixture
def records(tmp_path) -> Records:
    """Return agents of one method, variant and size that learn the same tasks in both ways."""
    runs = tmp_path / "runs"
    for variant, score in (("default", 0.4), ("no-simnorm", 0.3)):
        for seed in (1, 2):
            facts = {"variant": variant, "seed": seed, "budget": STEPS}
            write_run(runs, {0: 0.0, STEPS: 1000 * score + seed}, task=PAIR[0], **facts)
            success = {"domain": "metaworld", "metric": "success"}
            write_run(runs, {0: 0.0, STEPS: score}, task=PAIR[1], **success, **facts)
            points = {0: (0.0, 0.0), UPDATES: (90.0 + seed, 90.0)}
            write_multitask_run(runs, points, variant=variant, seed=seed, num_parameters=5e6)
    for task, column, score in ((PAIR[0], "reward", 400), (PAIR[1], "success", 0.4)):
        lines = [f"{step},{score},{seed}" for step in (0, STEPS, UPDATES) for seed in (1, 2)]
        write_table(tmp_path / "paper" / "tdmpc2" / f"{task}.csv", f"step,{column},seed", lines)
    return merge([load(runs), load_curves(tmp_path / "paper", "published")])


def test_curves_have_one_unit(records):
    units = [ScoreCurves(records, unit) for unit in get_args(StepUnit)]
    assert [set(curves.runs["step_unit"]) for curves in units] == [{"env_steps"}, {"num_updates"}]
    assert sum(map(len, units)) == len(records.runs)
    assert ScoreCurves(records).step_unit == ENV_STEPS


@pytest.mark.parametrize("plot", PLOTS)
def test_figures_show_one_unit(records, plot):
    spec = FigureSpec("x", plot, statistics=("mean",))
    shown = select(spec, records, HOLD, CATALOG)
    unit = step_unit_of(spec)
    assert shown.curves.step_unit == unit
    assert set(shown.records.runs["step_unit"]) == set(shown.records.table["step_unit"]) == {unit}
    drawing = PLOTS[plot](shown)
    if not drawing.pages:
        assert drawing.numbers.empty
    elif "step_unit" in drawing.numbers:
        assert set(drawing.numbers["step_unit"]) == {unit}
    labels = [ax.get_xlabel() for page in drawing.pages for ax in page.axes]
    labels += [page.labels[0] for page in drawing.pages]  # shared by all panels
    other = "environment steps" if unit == NUM_UPDATES else "updates"
    assert not any(label.startswith(other) for label in labels)
    if plot.endswith("_curves") and plot != "training_curves":
        named = "updates" if unit == NUM_UPDATES else "environment steps"
        assert any(label.startswith(named) for label in labels)


def test_comparisons_with_the_published_curves_use_env_steps(records):
    tasks = compare_tasks(ScoreCurves(records), HOLD, "default", 10.0).tasks
    assert tasks["task"].tolist() == list(PAIR)
    assert set(tasks["env_step"]) == {STEPS}
    assert set(tasks["num_ours"]) == {2}
    assert tasks["ours"].tolist() == pytest.approx([40.15, 40.0])
    assert compare_tasks(ScoreCurves(records, NUM_UPDATES), HOLD, "default", 10.0).tasks.empty


def test_variants_and_groups_use_env_steps(records):
    (row,) = against_default(ScoreCurves(records), HOLD).to_dict("records")
    assert (row["tasks"], row["env steps"]) == (2, f"{STEPS:,}")
    group = Group("pair", "Pair", PAIR, STEPS)
    curves = ScoreCurves(records.select(sources=["runs"]))
    scores, _ = group_scores(curves, [group], HOLD, CATALOG.bootstrap, statistics=["mean"])
    assert scores["value"].tolist() == pytest.approx([0.40075, 0.30075])


def test_verdicts_on_multi_task_agents_use_updates(records):
    published = {("+".join(PAIR), "5"): 90.75}
    row, *_ = compare_agents(
        ScoreCurves(records, NUM_UPDATES), published, HOLD, "default", 3.0
    ).to_dict("records")
    assert (row["num_updates"], row["num_ours"], row["ours"]) == (UPDATES, 2, 90.75)
    assert compare_agents(ScoreCurves(records), {}, HOLD, "default", 3.0).empty
