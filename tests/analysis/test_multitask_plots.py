"""Figures of multi-task agents: plotted values, and no overlapping or clipped text."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.style
import pytest

from analysis.figures.figure_specs import FigureSpec
from analysis.figures.multitask_plots import MULTITASK_PLOTS
from analysis.records.load import load
from tdmpc2.envs.tasks import SUITES
from tests.analysis.multitask_files import write_multitask_run
from tests.analysis.pictures import (
    CATALOG,
    FIGURES,
    assert_nothing_overlaps_or_is_clipped,
    card_of,
    draw,
    legend_of,
)
from tests.analysis.run_files import write_reference_scores

CURVES = FigureSpec("curves", "multitask_curves")
BARS = FigureSpec("bars", "multitask_bars")
TASKS = FigureSpec("tasks", "multitask_tasks", reference_scores=True)
QUOTED = ({"task_set": "mt80", "label": "default", "score": 57.1},)


@pytest.fixture(autouse=True)
def _style():
    with matplotlib.style.context(FIGURES / "paper.mplstyle"):
        yield


def titles(figure) -> list[str]:
    return [ax.get_title(loc="left") for ax in figure.axes]


def both_sets(runs) -> None:
    """Two agent sizes on two task sets with two seeds each, and a variant."""
    for name in ("mt30", "mt80"):
        tasks = [task.name for task in SUITES[name]]
        for size, variant, score in (
            *(("1", "default", 10.0), ("19", "default", 50.0)),
            ("19", "no-simnorm", 30.0),
        ):
            for seed in (1, 2):
                points = {0: [1.0] * len(tasks), 5_000_000: [score + 10 * seed] * len(tasks)}
                facts = {"size": size, "variant": variant, "seed": seed, "dataset_name": name}
                write_multitask_run(
                    runs, points, tasks=tasks, task_set=name, tag=f"{size}{seed}", **facts
                )


def test_curves_have_a_panel_per_set_and_a_line_per_agent(tmp_path):
    both_sets(tmp_path)
    drawing = draw(load(tmp_path), CURVES)
    (page,) = drawing.pages
    assert titles(page) == ["mt30 (30 tasks)", "mt80 (80 tasks)"]
    for ax in page.axes:
        assert sorted(line.get_ydata()[-1] for line in ax.lines) == pytest.approx([25, 45, 65])
    assert legend_of(page) == ["TD-MPC2 (1M)", "TD-MPC2 (19M)", "TD-MPC2 (no-simnorm, 19M)"]
    card = card_of(page)
    assert "updates (M)" in card
    for part in ("12 runs (12 completed)", "mt80 (80 tasks)", "model size 1M, 19M", "seeds 1, 2"):
        assert part in card
    assert "budget 5,000,000 updates" in card
    table = drawing.table
    assert table["agents"].unique().tolist() == legend_of(page)
    row = table[(table["agents"] == "TD-MPC2 (19M)") & (table["tasks"] == "mt80")].iloc[0]
    assert row["score (%)"].startswith("65.0 [")
    assert row["updates"] == "5,000,000"


def test_a_diverged_run_is_marked_where_it_ends(tmp_path):
    write_multitask_run(tmp_path, {0: (0.0, 0.0), 1000: (10.0, 20.0), 2000: (5.0, 5.0)}, seed=1)
    points = {0: (0.0, 0.0), 1000: (30.0, 50.0)}
    write_multitask_run(tmp_path, points, seed=2, state="DIVERGED", budget=2000)
    (page,) = draw(load(tmp_path), CURVES).pages
    crosses = [line for line in page.axes[0].lines if line.get_marker() == "x"]
    assert [line.get_xydata().tolist() for line in crosses] == [[[1000, pytest.approx(40)]]]
    assert legend_of(page) == ["TD-MPC2", "run diverged"]


def test_an_unfinished_run_says_where_its_score_is_read(tmp_path):
    write_multitask_run(tmp_path, {0: (0.0, 0.0), 1000: (1.0, 2.0)}, state="RUNNING", budget=9000)
    drawing = draw(load(tmp_path), CURVES)
    assert drawing.table["updates"].tolist() == ["1,000 of 9,000"]
    assert drawing.table["score (%)"].tolist() == ["1.5"]
    assert "A single seed has no interval." in card_of(drawing.pages[0])


@pytest.mark.parametrize(
    ("datasets", "labels"),
    [
        ((("aa" * 32, "mt80"),), ["TD-MPC2"]),
        ((("aa" * 32, "mt80"), ("bb" * 32, None)), ["TD-MPC2 (bbbbbbbb)", "TD-MPC2 (mt80)"]),
        (
            (("aa" * 32, "mt80"), ("bb" * 32, "mt80")),
            ["TD-MPC2 (mt80 aaaaaaaa)", "TD-MPC2 (mt80 bbbbbbbb)"],
        ),
    ],
)
def test_datasets_of_one_set_are_told_apart(tmp_path, datasets, labels):
    for checksum, name in datasets:
        facts = {"dataset": checksum, "dataset_name": name, "tag": checksum[:4]}
        write_multitask_run(tmp_path, {0: (1.0, 2.0)}, **facts)
    drawing = draw(load(tmp_path), CURVES)
    assert legend_of(drawing.pages[0]) == labels
    assert set(drawing.numbers["checksum"]) == {checksum for checksum, _ in datasets}


def test_bars_stand_beside_quoted_ones(tmp_path):
    both_sets(tmp_path)
    records = load(tmp_path).select(tasks=["mt80"], sizes=["19"])
    drawing = draw(records, replace(BARS, quoted=QUOTED, quoted_from="Table 1"))
    (page,) = drawing.pages
    assert [bar.get_height() for bar in page.axes[0].patches] == pytest.approx([65, 45, 57.1])
    assert legend_of(page) == ["TD-MPC2", "TD-MPC2 (no-simnorm)", "default (quoted)"]
    assert drawing.numbers["value"].tolist() == pytest.approx([0.65, 0.45, 0.571])
    alone = replace(BARS, quoted=QUOTED, quoted_from="Table 1")
    assert draw(load(tmp_path / "none"), alone).pages == ()


def test_every_task_has_a_bar_beside_what_doing_nothing_scores(tmp_path):
    tasks = ("walker-walk", "cup-catch", "mw-reach")
    for seed in (1, 2):
        points = {0: (4.0, 0.0, 10.0 * seed), 1000: (60.0 + seed, 20.0, 80.0)}
        write_multitask_run(tmp_path, points, tasks=tasks, seed=seed)
    write_reference_scores(tmp_path, "walker-walk", (43.0, 12.0), (20.0, 5.0))
    drawing = draw(load(tmp_path), TASKS)
    (page,) = drawing.pages
    assert titles(page) == [
        "DMControl: mean 40.8 over 2 tasks",
        "Meta-World: mean 80.0 over 1 task",
    ]
    dmcontrol, metaworld = page.axes
    assert [bar.get_height() for bar in dmcontrol.patches] == pytest.approx([61.5, 20])
    assert [tick.get_text() for tick in metaworld.get_xticklabels()] == ["Reach"]
    numbers = drawing.numbers.set_index("task")
    reference_scores = numbers.loc["walker-walk", ["uniform", "zero", "untrained"]].tolist()
    assert reference_scores == pytest.approx([0.043, 0.02, 0.04])
    assert numbers.loc["mw-reach", ["uniform", "zero"]].isna().all()
    assert numbers.loc["mw-reach", "untrained"] == pytest.approx(0.2)
    assert legend_of(page)[1:] == ["uniform actions", "zero action", "untrained agent (best)"]
    assert "2 runs (2 completed)" in card_of(page)
    assert drawing.table.iloc[0].tolist()[2:] == ["Walker Walk", "61.5 [55.1, 67.9]"]
    plain = draw(load(tmp_path), replace(TASKS, reference_scores=False))
    assert len(legend_of(plain.pages[0])) == 1


@pytest.mark.parametrize(("scores", "top"), [((60.0, 8.0), 104), ((40.0, 8.0), 42)])
def test_pages_of_tasks_have_the_whole_axis_unless_scores_are_low(tmp_path, scores, top):
    write_multitask_run(tmp_path, {0: (0.0, 0.0), 1000: scores}, tasks=("walker-walk", "mw-reach"))
    (page,) = draw(load(tmp_path), TASKS).pages
    assert [ax.get_ylim() for ax in page.axes] == [pytest.approx((0, top))] * 2


def test_captions_do_not_break_inside_names(tmp_path):
    both_sets(tmp_path)
    for page in draw(load(tmp_path), TASKS).pages:
        (caption,) = (text for text in page.texts if "runs (" in text.get_text())
        assert "TD-\n" not in caption.get_text()
        assert "TD-MPC2" in caption.get_text()


def test_tasks_without_reference_scores_or_outside_the_table_are_drawn(tmp_path):
    write_multitask_run(tmp_path, {0: (1.0, 2.0)}, tasks=("walker-walk", "juggle"))
    (page,) = draw(load(tmp_path), TASKS).pages
    assert titles(page)[1] == "other: mean 2.0 over 1 task"
    assert legend_of(page)[1:] == ["untrained agent (best)"]


def test_nothing_is_drawn_without_runs(tmp_path):
    for plot in MULTITASK_PLOTS:
        drawing = draw(load(tmp_path), FigureSpec("x", plot))
        assert (tuple(drawing.pages), len(drawing.numbers)) == ((), 0)


def test_nothing_overlaps_or_is_clipped(tmp_path):
    both_sets(tmp_path)
    for name in {task.name for task in SUITES["mt30"]}:
        write_reference_scores(tmp_path, name, (43.0, 12.0), (20.0, 5.0))
    records = load(tmp_path)
    large = records.select(sizes=["19"], variants=["default"])
    for shown, spec in (
        *((records, CURVES), (records, replace(BARS, quoted=QUOTED, quoted_from="Table 1"))),
        (large, TASKS),
    ):
        for page in draw(shown, spec).pages:
            assert_nothing_overlaps_or_is_clipped(page)


def test_long_names_of_sets_are_cut(tmp_path):
    tasks = ("walker-walk-backwards", "walker-run-backwards", "cheetah-run-backwards")
    write_multitask_run(tmp_path, {0: (1.0, 2.0, 3.0), 1000: (4.0, 5.0, 6.0)}, tasks=tasks)
    (page,) = draw(load(tmp_path), CURVES).pages
    assert titles(page) == ["walker-walk-backwards+walke… (3 tasks)"]
    assert_nothing_overlaps_or_is_clipped(page)


def test_the_shipped_figures_show_them(tmp_path):
    both_sets(tmp_path)
    records = load(tmp_path)
    figures = CATALOG.figures
    assert len(draw(records, figures["multitask"]).pages) == 1
    assert len(draw(records, figures["multitask_tasks"]).pages) == 6
