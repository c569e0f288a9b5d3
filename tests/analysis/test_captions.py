"""Captions: only what is drawn, in numbers of runs, intervals and limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib.figure
import matplotlib.style
import numpy as np
import pytest

from analysis.figures.figure_specs import FigureSpec
from analysis.figures.page import _space_markers
from analysis.figures.styles import bar
from analysis.records.load import Records, load, load_curves, merge
from analysis.stats.coverage import level_label
from analysis.stats.task_titles import task_titles
from tests.analysis.multitask_files import write_multitask_run
from tests.analysis.pictures import CATALOG, FIGURES, card_of, draw
from tests.analysis.run_files import write_run, write_table
from tests.analysis.test_plots import GROUPS, four_methods

CURVES = FigureSpec("learning_curves", "learning_curves", only_ours=True)


@pytest.fixture(autouse=True)
def _style():
    with matplotlib.style.context(FIGURES / "paper.mplstyle"):
        yield


def early_run(root: Path) -> Records:
    """Return a run that ends before the second evaluation of three published seeds."""
    write_run(root / "runs", {0: 1.0, 10_000: 50.0, 20_000: 90.0}, budget=20_000)
    lines = [f"{step},{step / 100 + seed},{seed}" for step in (0, 100_000) for seed in (1, 2, 3)]
    write_table(root / "paper" / "tdmpc2" / "walker-walk.csv", "step,reward,seed", lines)
    return merge([load(root / "runs"), load_curves(root / "paper", "published")])


def test_curves_outside_the_range_are_not_in_the_caption(tmp_path):
    (page,) = draw(early_run(tmp_path), CURVES).pages
    card = card_of(page)
    assert "1 run (1 completed) · 1 task · seed 1 ·" in card
    assert "published" not in card
    assert "confidence interval" not in card  # one seed
    assert "coverage" not in card
    assert "Lines: mean over seeds. " in card
    assert "A single seed has no interval." in card


@pytest.mark.parametrize("plot", ["group_bars", "aggregate_curve", "interval_plot", "improvement"])
def test_series_that_lack_tasks_are_not_in_the_caption(tmp_path, plot):
    records = four_methods(tmp_path)
    spec = FigureSpec("x", plot, groups=GROUPS[:1])
    before = card_of(draw(records, spec).pages[0])
    write_run(tmp_path, {0: 1.0, 1000: 2.0}, variant="partial")
    again = merge([load(tmp_path), records.select(sources=["published"])])
    assert card_of(draw(again, spec).pages[0]) == before
    assert "30 runs (24 completed here) · 2 tasks" in before


def test_runs_that_have_not_ended_are_unfinished(tmp_path):
    """A killed run stays recorded as running."""
    for seed, state in enumerate(("COMPLETED", "RUNNING", "INTERRUPTED", "FAILED"), start=1):
        write_run(tmp_path, {0: 1.0, 1000: 2.0}, seed=seed, state=state)
    (page,) = draw(load(tmp_path), CURVES).pages
    assert "4 runs (2 unfinished, 1 completed, 1 failed) · 1 task" in card_of(page)


def test_statistics_are_named_in_full(tmp_path):
    spec = FigureSpec(
        "x", "interval_plot", groups=GROUPS, statistics=("median", "iqm", "optimality_gap")
    )
    for page in draw(four_methods(tmp_path), spec).pages:
        assert "iqm" not in page.caption
        assert "optimality_gap" not in page.caption
        assert "Medians have no interval" in page.caption


@pytest.mark.parametrize(("variant", "budget", "limited"), [
    ("finetuned", 20_000, False), ("scratch", 20_000, False), ("finetuned", 10_000, True),
    ("default", 20_000, True),
])  # fmt: skip
def test_few_shot_runs_have_the_papers_budget(tmp_path, variant, budget, limited):
    write_run(tmp_path, {0: 1.0, 10_000: 2.0}, variant=variant, budget=budget)
    (page,) = draw(load(tmp_path), replace(CURVES, only_ours=False)).pages
    assert ("reduced budget" in page.caption) == limited


def test_budgets_that_were_not_recorded_are_not_counted(tmp_path):
    for seed, budget in ((1, None), (2, 100_000)):
        write_run(tmp_path / "a", {0: 1.0, 100_000: 2.0}, seed=seed, budget=budget)
    write_multitask_run(tmp_path / "b", {0: (0, 0), 1000: (1, 2)}, budget=None)
    single = draw(load(tmp_path / "a"), replace(CURVES, only_ours=False)).pages[0]
    several = draw(load(tmp_path / "b"), FigureSpec("x", "multitask_curves")).pages[0]
    assert "1 run with a reduced budget (100,000 env steps)" in single.caption
    assert "· budget not recorded ·" in several.caption


def test_small_models_are_not_the_papers_setting(tmp_path):
    write_run(tmp_path / "a", {0: 1.0, 10_000: 2.0}, model_size="smoke", variant="scratch")
    write_multitask_run(tmp_path / "b", {0: (0, 0), 1000: (1, 2)}, size="smoke")
    single = draw(load(tmp_path / "a"), replace(CURVES, only_ours=False))
    several = draw(load(tmp_path / "b"), FigureSpec("x", "multitask_curves"))
    for (page,) in (single.pages, several.pages):
        assert "1 run with a model smaller than the paper's (smoke)" in page.caption


def test_coverage_is_named_where_it_was_measured(tmp_path):
    records = four_methods(tmp_path)
    (profile,) = draw(records, FigureSpec("x", "performance_profile", groups=GROUPS)).pages
    assert "their coverage is not measured" in profile.caption
    assert "simulated" not in profile.caption
    spec = FigureSpec("x", "group_bars", groups=GROUPS, statistics=("mean",))
    lines = [f"{step},{step / 5000 + seed},{seed}" for step in (0, 4_000_000) for seed in (1, 2, 3)]
    for task in ("walker-walk", "cup-catch"):
        write_table(tmp_path / "varied" / "tdmpc2" / f"{task}.csv", "step,reward,seed", lines)
    (page,) = draw(load_curves(tmp_path / "varied", "published"), spec).pages
    assert "coverage simulated in 50 studies" in page.caption
    assert "(published)" not in page.caption  # as in the legend


@pytest.mark.parametrize("plot", ["group_bars", "learning_curves", "aggregate_curve"])
def test_equal_scores_have_neither_interval_nor_coverage(tmp_path, plot):
    for task in ("walker-walk", "cup-catch"):
        for seed in (1, 2, 3):
            points = {0: 0.0, 2_000_000: 900.0, 4_000_000: 900.0}
            write_run(tmp_path, points, task=task, seed=seed, budget=4_000_000)
    (page,) = draw(load(tmp_path), FigureSpec("x", plot, groups=GROUPS[:1])).pages
    caption = page.caption.replace("\n", " ")
    assert "Numbers that do not vary over seeds have no interval." in caption
    assert "confidence interval" not in caption
    assert "cover" not in caption


def test_probabilities_without_an_interval_are_drawn_without_a_coverage(tmp_path):
    """Each run of one method scores higher than each of the other."""
    for method, mean in (("tdmpc2", 300.0), ("sac", 700.0)):
        for seed in (1, 2, 3):
            points = {0: 0.0, 3_900_000: mean + 9 * seed, 4_000_000: mean + seed}
            write_run(tmp_path, points, method=method, seed=seed, budget=4_000_000)
    spec = FigureSpec("x", "improvement", groups=(replace(GROUPS[0], tasks=("walker-walk",)),))
    (page,) = draw(load(tmp_path), spec).pages
    (ax,) = page.axes
    (mark, _) = ax.lines
    assert mark.get_xdata().tolist() == [0, 0]
    assert ax.get_xlim()[0] < 0
    assert not ax.patches
    assert "Numbers that do not vary over seeds have no interval." in page.caption.replace(
        "\n", " "
    )
    assert "coverage" not in page.caption


def test_series_with_other_numbers_of_seeds_are_told_apart(tmp_path):
    write_run(tmp_path / "runs", {0: 1.0, 100_000: 50.0}, budget=100_000, seed=4)
    lines = [f"{step},{step / 1000 + seed},{seed}" for step in (0, 100_000) for seed in (1, 2, 3)]
    write_table(tmp_path / "paper" / "tdmpc2" / "walker-walk.csv", "step,reward,seed", lines)
    records = merge([load(tmp_path / "runs"), load_curves(tmp_path / "paper", "published")])
    (page,) = draw(records, replace(CURVES, only_ours=False)).pages
    card = card_of(page)
    assert "4 runs (1 completed here) · 1 task · " in card
    assert "· seeds of each task: 1 of TD-MPC2; 3 of TD-MPC2 (published) ·" in card


def test_agents_with_other_numbers_of_seeds(tmp_path):
    for seed in (1, 2):
        write_multitask_run(tmp_path, {0: (0, 0), 1000: (300 + seed, 0.5)}, seed=seed)
    write_multitask_run(tmp_path, {0: (0, 0), 1000: (400, 0.5)}, size="19", tag="0123456788")
    (page,) = draw(load(tmp_path), FigureSpec("x", "multitask_curves")).pages
    assert "· seeds of each agent: 1 of TD-MPC2 (19M); 2 of TD-MPC2 (5M) ·" in card_of(page)


def test_agents_with_equal_scores_have_no_coverage(tmp_path):
    for seed in (1, 2, 3):
        write_multitask_run(tmp_path, {0: (0, 0), 1000: (300, 0.5)}, seed=seed)
    for plot in ("multitask_curves", "multitask_tasks", "multitask_bars"):
        (page,) = draw(load(tmp_path), FigureSpec("x", plot)).pages
        assert "coverage is not measured" in page.caption.replace("\n", " ")
        assert "simulated" not in page.caption


def test_packages_are_named_once(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path, {0: 0.0, 1000: 10.0 * seed}, seed=seed)
    records = load(tmp_path)
    records.runs["simulators"] = ["dm_control 1.0, mujoco 3.6", "metaworld 3.0, mujoco 3.6"]
    (page,) = draw(records, replace(CURVES, only_ours=False)).pages
    assert "· dm_control 1.0, mujoco 3.6, metaworld 3.0 " in f"{card_of(page)} "


def test_tasks_with_other_numbers_of_seeds(tmp_path):
    for task, seeds in (("walker-walk", (1, 2)), ("cup-catch", (1, 2, 3))):
        for seed in seeds:
            write_run(tmp_path, {0: 0.0, 1000: 10.0 * seed}, task=task, seed=seed)
    (page,) = draw(load(tmp_path), replace(CURVES, only_ours=False)).pages
    assert "· seeds of each task: 2 to 3 ·" in card_of(page)


def test_tasks_with_the_same_title_are_told_apart(tmp_path):
    assert task_titles(["mw-reach", "walker-walk"]) == {
        "mw-reach": "Reach",
        "walker-walk": "Walker Walk",
    }
    both = task_titles(["mw-reach", "myo-hand-reach", "unknown"])
    assert list(both.values()) == ["Reach (mw-reach)", "Reach (myo-hand-reach)", "unknown"]
    for task, domain in (("mw-reach", "metaworld"), ("myo-hand-reach", "myosuite")):
        write_run(tmp_path, {0: 0.0, 1000: 0.5}, task=task, domain=domain, metric="success")
    (page,) = draw(load(tmp_path), replace(CURVES, only_ours=False)).pages
    titles = [ax.get_title(loc="left").replace("\n", " ") for ax in page.axes]
    assert titles == ["Reach (mw-reach)", "Reach (myo-hand-reach)"]


@pytest.mark.parametrize(
    ("share", "label"),
    [(0.916, "91.6 %"), (0.919, "91.9 %"), (0.912, "91 %"), (0.92, "95 %"), (0.983, "98.3 %")],
)
def test_a_label_is_never_rounded_to_a_coverage_that_is_accepted(share, label):
    assert level_label(share) == label


def test_markers_of_lines_are_apart():
    figure = matplotlib.figure.Figure()
    ax = figure.add_subplot()
    steps = np.arange(0, 4_000_001, 50_000)
    for ends in (len(steps), len(steps), len(steps) // 4, 2):
        ax.plot(steps[:ends], np.zeros(ends), marker="o")
    ax.axhline(1)
    _space_markers(ax)
    first, second, early, shortest, _ = (line.get_markevery() for line in ax.lines)
    assert len(first) in (5, 6)
    assert not set(first) & set(second)
    assert 1 <= len(early) <= 2
    assert shortest == [1]


def test_lines_of_few_points_have_a_marker_at_each():
    ax = matplotlib.figure.Figure().add_subplot()
    ax.plot([0, 10_000, 20_000], [0, 1, 2], marker="o")
    _space_markers(ax)
    assert ax.lines[0].get_markevery() is None
    for _ in range(9):
        ax.plot(range(0, 20_001, 2_000), range(11), marker="o")
    _space_markers(ax)
    assert all(len(line.get_markevery()) <= 6 for line in ax.lines)


def test_colors_of_the_catalog_have_their_own_markers():
    styles = [*CATALOG.methods.values(), *CATALOG.reserve]
    assert len({style.marker for style in styles}) == len(styles)


def test_whiskers_show_on_dark_bars():
    ax = matplotlib.figure.Figure().add_subplot()
    style = replace(CATALOG.reserve[-1], label="dark")
    assert style.color == "#000000"
    bar(ax, 0, style, 60.0, 40.0, 80.0)
    (lines,) = ax.collections
    assert lines.get_segments()[0].tolist() == [[0, 40], [0, 80]]
    assert all(artist.get_path_effects() for artist in (lines, *ax.lines[-2:]))
