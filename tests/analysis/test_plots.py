"""Figures of single-task runs: plotted values, and no overlapping or clipped text."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.style
import pytest
from matplotlib.colors import to_hex

from analysis.figures.figure_specs import FigureSpec
from analysis.figures.registry import PLOTS
from analysis.figures.stat_plots import STAT_PLOTS
from analysis.figures.styles import bar_look, series_styles
from analysis.records.load import Records, load, load_curves, merge
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.horizons import Group
from analysis.stats.run_statistics import STATISTICS
from tdmpc2.envs.tasks import TASKS
from tests.analysis.pictures import (
    CATALOG,
    FIGURES,
    assert_nothing_overlaps_or_is_clipped,
    card_of,
    draw,
    texts_of,
)
from tests.analysis.run_files import write_reference_scores, write_run, write_table

CURVES = FigureSpec("learning_curves", "learning_curves", reference_scores=True, seeds=True)
AGGREGATE = FigureSpec("aggregate", "aggregate_curve")


@pytest.fixture(autouse=True)
def _style():
    with matplotlib.style.context(FIGURES / "paper.mplstyle"):
        yield


def smoke_runs(runs):
    for task, uniform in (("cartpole-swingup", 39.0), ("walker-walk", 43.0)):
        write_reference_scores(runs, task, (uniform, 12.0), (20.0, 5.0))
        for seed in (1, 2):
            points = {step: 30.0 + step / 50 * seed for step in range(0, 20_001, 4000)}
            write_run(runs, points, task=task, seed=seed, variant="smoke", model_size="smoke")
    return load(runs)


def test_learning_curves_draw_means_bands_seeds_and_reference_scores(tmp_path):
    drawing = draw(smoke_runs(tmp_path), CURVES)
    assert drawing.problems == ()
    ax, other = drawing.pages[0].axes
    assert [ax.get_title(loc="left"), other.get_title(loc="left")] == [
        *("Walker Walk", "Cartpole Swingup"),
    ]
    level = {
        round(float(line.get_ydata()[0]), 3) for line in ax.lines if len(set(line.get_ydata())) == 1
    }
    assert level == {43.0, 20.0, 30.0, 43.0 + 3 * 12.0}
    lines = [list(line.get_ydata()) for line in ax.lines if len(line.get_ydata()) == 6]
    assert sorted(line[-1] for line in lines) == [430.0, 630.0, 830.0]
    (band,) = ax.collections
    assert band.get_datalim(ax.transData).y1 == pytest.approx(1000.0)  # the largest return
    assert other.get_ylim() == ax.get_ylim()
    numbers = drawing.numbers[drawing.numbers["task"] == "walker-walk"]
    assert numbers["threshold"].unique().tolist() == [79.0]
    assert numbers["mean"].iloc[-1] == 630.0


def test_card_states_runs_seeds_resamples_and_coverage(tmp_path):
    drawing = draw(smoke_runs(tmp_path), CURVES)
    card = card_of(drawing.pages[0])
    for part in (
        "4 runs (4 completed)",
        "seeds 1, 2",
        "50 studies",
        "2 seeds, mean): ",
        "size smoke",
    ):
        assert part in card


def test_diverged_run_is_marked_where_it_ends(tmp_path):
    write_run(tmp_path, {0: 1.0, 1000: 2.0, 2000: 3.0}, seed=1)
    write_run(tmp_path, {0: 1.0, 1000: 7.0}, seed=2, state="DIVERGED")
    drawing = draw(load(tmp_path), CURVES)
    crosses = [line for line in drawing.pages[0].axes[0].lines if line.get_marker() == "x"]
    assert [line.get_xydata().tolist() for line in crosses] == [[[1000.0, 7.0]]]
    assert "run diverged" in [text for text, _ in texts_of(drawing.pages[0])]


def test_one_seed_has_a_line_and_no_band(tmp_path):
    write_run(tmp_path, {0: 1.0, 1000: 2.0})
    drawing = draw(load(tmp_path), CURVES)
    (ax,) = drawing.pages[0].axes
    assert any(list(line.get_ydata()) == [1.0, 2.0] for line in ax.lines)
    assert all(
        not collection.get_paths()[0].vertices.size
        for collection in ax.collections
        if collection.get_paths()
    )
    assert drawing.numbers["low"].isna().all()


def test_success_rates_of_zero_keep_a_readable_axis(tmp_path):
    for seed in (1, 2):
        points = {0: 0.0, 1000: 0.0}
        write_run(
            tmp_path, points, task="mw-reach", seed=seed, domain="metaworld", metric="success"
        )
    drawing = draw(load(tmp_path), CURVES)
    (ax,) = drawing.pages[0].axes
    assert "success (%)" in card_of(drawing.pages[0])
    assert ax.get_ylim()[1] > 0.9


def test_success_rates_are_drawn_in_percent(tmp_path):
    for seed in (1, 2):
        points = {0: 0.0, 1000: 0.4}
        facts = {"domain": "metaworld", "metric": "success"}
        write_run(tmp_path, points, task="mw-reach", seed=seed, **facts)
        write_run(tmp_path, {0: 5.0, 1000: 7.0}, seed=seed)
    drawing = draw(load(tmp_path), CURVES)
    of_returns, of_success = drawing.pages[0].axes
    assert (of_returns.get_ylabel(), of_success.get_ylabel()) == ("episode return", "success (%)")
    assert max(line.get_ydata()[-1] for line in of_success.lines) == pytest.approx(40)
    assert drawing.numbers["mean"].max() == 7.0
    success = drawing.numbers[drawing.numbers["task"] == "mw-reach"]
    assert success["mean"].max() == pytest.approx(0.4)  # the file keeps the recorded unit


def test_aggregate_has_a_panel_per_domain(tmp_path):
    records = smoke_runs(tmp_path)
    drawing = draw(records, AGGREGATE)
    (ax,) = drawing.pages[0].axes
    assert ax.get_title(loc="left") == "DMControl\n2 tasks"
    assert ax.lines[0].get_ydata()[-1] == pytest.approx(63.0)


def test_nothing_to_draw_is_said(tmp_path):
    write_run(tmp_path, {0: 1.0}, task="walker-walk", seed=1)
    write_run(tmp_path, {0: 1.0}, task="cup-catch", method="sac")
    for plot in PLOTS:
        if plot in (*STAT_PLOTS, "aggregate_curve"):
            drawing = draw(load(tmp_path), FigureSpec("x", plot))
            assert len(drawing.pages) == 0
            assert "lacks 1 of 2 tasks" in drawing.problems[0].what


def four_methods(runs) -> Records:
    """Two domains, four methods and three seeds, from runs and published."""
    scores = {"tdmpc2": 0.9, "tdmpc": 0.7, "sac": 0.5, "dreamerv3": 0.3}
    success = {"domain": "metaworld", "metric": "success"}
    for method, score in scores.items():
        for seed in (1, 2, 3):
            for task in ("walker-walk", "cup-catch"):
                points = {0: 0.0, 4_000_000: 1000 * score + 20 * seed}
                write_run(runs, points, method=method, task=task, seed=seed, budget=4_000_000)
            points = {0: 0.0, 2_000_000: score - 0.05 * seed}
            more = {"task": "mw-reach", "budget": 2_000_000, **success}
            write_run(runs, points, method=method, seed=seed, **more)
    lines = [f"{step},{step / 5000},{seed}" for step in (0, 4_000_000) for seed in (1, 2, 3)]
    for task in ("walker-walk", "cup-catch"):
        write_table(runs / "paper" / "tdmpc2" / f"{task}.csv", "step,reward,seed", lines)
    return merge([load(runs), load_curves(runs / "paper", "published")])


GROUPS = (
    Group("dm", "DMControl", ("walker-walk", "cup-catch"), 4_000_000),
    Group("mw", "Meta-World", ("mw-reach",), 2_000_000),
)


def test_bars_by_hand(tmp_path):
    many = replace(CATALOG, bootstrap=Bootstrap(reps=5000))
    drawing = draw(four_methods(tmp_path), FigureSpec("bars", "group_bars", groups=GROUPS), many)
    dm, mw = drawing.pages[0].axes
    assert [bar.get_height() for bar in dm.patches] == pytest.approx([94, 74, 54, 34, 80])
    assert [bar.get_height() for bar in mw.patches] == pytest.approx([80, 60, 40, 20])
    hatches = [bar.get_hatch() for bar in dm.patches]
    assert len(set(hatches[:4])) == 4  # methods differ without color
    assert hatches[4] == hatches[0]
    opacity = [bar.get_facecolor()[3] for bar in dm.patches]
    assert opacity[:4] == [1.0] * 4
    assert opacity[4] < 1
    assert drawing.table.columns.tolist() == [
        *("group", "statistic", "TD-MPC2", "TD-MPC", "SAC", "DreamerV3", "TD-MPC2 (published)"),
    ]
    assert drawing.table.iloc[0]["TD-MPC2"] == "94.0 [91.7, 96.3]"
    assert drawing.table.iloc[1]["TD-MPC2 (published)"] == ""


def test_interval_plot_has_a_page_per_group_and_a_panel_per_statistic(tmp_path):
    spec = FigureSpec("i", "interval_plot", groups=GROUPS, statistics=tuple(STATISTICS))
    drawing = draw(four_methods(tmp_path), spec)
    assert len(drawing.pages) == 2
    assert [ax.get_title(loc="left") for ax in drawing.pages[0].axes] == [
        *("Mean", "Median", "Interquartile mean", "Optimality gap"),
    ]
    assert [page.get_suptitle() for page in drawing.pages] == [
        *("DMControl, 2 tasks, 4M steps", "Meta-World, 1 task, 2M steps"),
    ]
    assert [ax.get_xlabel() for ax in drawing.pages[0].axes] == ["", "", "", "lower is better"]
    labels = [text.get_text() for text in drawing.pages[0].axes[0].get_yticklabels()]
    assert labels == ["TD-MPC2", "TD-MPC", "SAC", "DreamerV3", "TD-MPC2 (published)"]


def test_profile_starts_at_all_and_ends_at_none(tmp_path):
    spec = FigureSpec("p", "performance_profile", groups=GROUPS)
    drawing = draw(four_methods(tmp_path), spec)
    for ax in drawing.pages[0].axes:
        for line in ax.lines:
            assert line.get_ydata()[0] == pytest.approx(100)
            assert line.get_ydata()[-1] == 0


def test_improvement_is_that_of_the_first_series(tmp_path):
    drawing = draw(four_methods(tmp_path), FigureSpec("x", "improvement", groups=GROUPS))
    assert drawing.table.columns[1:].tolist() == [
        *("TD-MPC2", "TD-MPC", "SAC", "DreamerV3", "TD-MPC2 (published)"),
    ]
    assert drawing.table.iloc[0].tolist()[1:] == ["", *["100.0"] * 4]


def test_our_tasks_are_shown_no_further_than_we_went(tmp_path):
    write_run(tmp_path, {0: 1.0, 200_000: 90.0}, task="walker-walk", budget=200_000)
    lines = [f"{step},{step / 5000},1" for step in range(0, 4_000_001, 100_000)]
    for task in ("walker-walk", "cup-catch"):
        write_table(tmp_path / "paper" / "tdmpc2" / f"{task}.csv", "step,reward,seed", lines)
    write_table(
        tmp_path / "paper" / "sac" / "walker-walk.csv", "step,reward,seed", ["0,1,1", "900000,2,1"]
    )
    records = merge([load(tmp_path), load_curves(tmp_path / "paper", "published")])
    spec = replace(CURVES, only_ours=True)
    drawing = draw(records.select(tasks=["walker-walk"]), spec)
    last = drawing.numbers.groupby("source")["step"].max()
    assert last.to_dict() == {"published": 200_000, "runs": 200_000}
    # A published curve with only one point in this range is not drawn.
    assert set(drawing.numbers["method"]) == {"tdmpc2"}


def test_pages(tmp_path):
    records = smoke_runs(tmp_path)
    drawing = draw(records, replace(CURVES, per_page=1))
    assert [len(page.axes) for page in drawing.pages] == [1, 1]


def test_card_marks_what_is_not_the_papers_setting(tmp_path):
    write_run(
        tmp_path, {0: 1.0}, task="pick-ycb", assets="standin", budget=1000, domain="maniskill2"
    )
    (page,) = draw(load(tmp_path), CURVES).pages
    card = card_of(page)
    assert "1 run with assets other than the official ones" in card
    assert "1 run with a reduced budget (1,000 env steps)" in card


def test_styles_follow_the_catalog(tmp_path):
    write_run(tmp_path, {0: 1.0}, method="sac")
    write_run(tmp_path, {0: 1.0}, method="mine")
    write_run(tmp_path, {0: 1.0}, method="tdmpc2", variant="no-simnorm")
    write_run(tmp_path, {0: 1.0}, method="tdmpc2")
    styles = series_styles(load(tmp_path).runs, CATALOG)
    assert [style.label for style in styles.values()] == [
        *("TD-MPC2", "TD-MPC2 (no-simnorm)", "SAC", "mine"),
    ]
    colors = [style.color for style in styles.values()]
    assert colors[0] == CATALOG.methods["tdmpc2"].color
    assert colors[2] == CATALOG.methods["sac"].color
    assert [colors[1], colors[3]] == [style.color for style in CATALOG.reserve[:2]]
    assert len({style.marker for style in styles.values()}) == 4


def test_model_size_is_named_where_there_are_several(tmp_path):
    for size in (48, 5, "smoke"):
        write_run(tmp_path, {0: 1.0}, model_size=size, tag=str(size))
    styles = series_styles(load(tmp_path).runs, CATALOG)
    assert [style.label for style in styles.values()] == [
        *("TD-MPC2 (5M)", "TD-MPC2 (48M)", "TD-MPC2 (smoke)"),
    ]


def test_more_series_than_colors_are_told_apart_by_dashes(tmp_path):
    for number in range(30):
        write_run(tmp_path, {0: 1.0}, variant=f"v{number:02}")
    styles = series_styles(load(tmp_path).runs, CATALOG).values()
    assert len({(to_hex(style.color), style.dashes) for style in styles}) == 30
    bars = {(bar["facecolor"], bar["hatch"]) for bar in map(bar_look, styles)}
    assert len(bars) == 30


def test_published_curves_are_dashed_in_our_color_beside_ours(tmp_path):
    records = four_methods(tmp_path)
    styles = {style.label: style for style in series_styles(records.runs, CATALOG).values()}
    ours, theirs = styles["TD-MPC2"], styles["TD-MPC2 (published)"]
    assert ours.color == theirs.color
    assert (ours.dashes, theirs.dashes) == ((), CATALOG.sources["published"].dashes)
    alone = series_styles(records.select(sources=["published"]).runs, CATALOG)
    (style,) = alone.values()
    assert (style.label, style.color, style.dashes) == ("TD-MPC2", ours.color, ())


def with_training(runs) -> Records:
    """Two seeds whose gradient norm is 1, and 1000 from the middle on."""
    for seed in (1, 2):
        run = write_run(runs, {0: 1.0, 4000: 2.0}, seed=seed)
        lines = [f"{step},{1 if step < 2000 else 1000}\n" for step in range(0, 4000, 10)]
        (run / "train.csv").write_text("env_step,grad_norm\n" + "".join(lines))
    write_run(runs, {0: 1.0}, seed=3)
    return load(runs)


def test_training_curves_by_hand(tmp_path):
    spec = FigureSpec("x", "training_curves", quantities=("grad_norm",))
    drawing = draw(with_training(tmp_path), spec)
    (ax,) = drawing.pages[0].axes
    assert [set(line.get_ydata()) for line in ax.lines] == [{1.0, 1000.0}] * 2
    assert len(ax.lines[0].get_ydata()) == 200
    assert ax.get_yscale() == "log"
    assert {label.get_text() for label in ax.get_yticklabels()} >= {"10⁰", "10³"}
    assert "resamples" not in " ".join(text.get_text() for text in drawing.pages[0].texts)
    assert draw(load(tmp_path), replace(spec, quantities=("pi_loss",))).pages == ()


def test_quoted_bars_stand_beside_ours_only(tmp_path):
    quoted = ({"group": "dm", "label": "default", "score": 57.1},)
    spec = FigureSpec("x", "group_bars", groups=GROUPS, quoted=quoted, quoted_from="Table 1")
    drawing = draw(four_methods(tmp_path).select(sources=["runs"]), spec)
    dm, mw = drawing.pages[0].axes
    assert [bar.get_height() for bar in dm.patches] == pytest.approx([94, 74, 54, 34, 57.1])
    assert len(mw.patches) == 4
    assert drawing.numbers["value"].iloc[-1] == pytest.approx(0.571)
    assert "Gray bars: quoted from Table 1, not measured here." in card_of(drawing.pages[0])
    assert draw(load(tmp_path / "none"), spec).pages == ()


@pytest.mark.parametrize("plot", sorted({*PLOTS} - {"task_embeddings"}))
def test_nothing_overlaps_or_is_clipped_with_four_methods(tmp_path, plot):
    quoted = CATALOG.figures["fig7"].quoted if plot == "scaling" else ()
    spec = FigureSpec(plot, plot, groups=GROUPS, statistics=tuple(STATISTICS), quoted=quoted)
    for page in draw(four_methods(tmp_path), spec).pages:
        assert_nothing_overlaps_or_is_clipped(page)


@pytest.mark.parametrize("num_tasks", [1, 2, 5, 20])
def test_nothing_overlaps_or_is_clipped(tmp_path, num_tasks):
    tasks = [name for name, task in TASKS.items() if task.domain == "dmcontrol"][:num_tasks]
    long = "latent_norm-none+regression-symlog_mse+policy_prior-gaussian_noise"
    for task in tasks:
        write_reference_scores(tmp_path, task, (43.0, 12.0), (20.0, 5.0))
        for variant in ("default", "no-simnorm", long):
            points = {step: step / 1000 for step in range(0, 1_000_001, 250_000)}
            write_run(tmp_path, points, task=task, variant=variant, commit="0123456789abcdef")
    records = load(tmp_path)
    for drawing in (
        draw(records, CURVES),
        draw(records, AGGREGATE),
    ):
        assert_nothing_overlaps_or_is_clipped(drawing.pages[0])
