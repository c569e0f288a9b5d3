"""What is drawn, and that nothing overlaps or is cut off."""

from __future__ import annotations

import itertools
from dataclasses import replace

import matplotlib.style
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from analysis.aggregate import Bootstrap
from analysis.catalogue import FigureSpec, read_catalogue
from analysis.plots import PLOTS, aggregate_curve, learning_curves, series_styles
from analysis.records import load
from tdmpc2.common.paths import project_root
from tdmpc2.envs.tasks import TASKS
from tests.analysis.run_files import write_floors, write_run

FIGURES = project_root() / "paper_figures"
CATALOGUE = replace(read_catalogue(FIGURES / "figures.toml", PLOTS), bootstrap=Bootstrap(reps=50))
CURVES = FigureSpec("learning_curves", "learning_curves", floors=True)
AGGREGATE = FigureSpec("aggregate", "aggregate_curve")


@pytest.fixture(autouse=True)
def _style():
    with matplotlib.style.context(FIGURES / "paper.mplstyle"):
        yield


def texts_of(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text that is drawn, with its box in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    skipped: set[Text] = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low <= tick.get_loc() <= high:
                    skipped |= {tick.label1, tick.label2}
    return [
        (text.get_text(), text.get_window_extent(canvas.get_renderer()))
        for text in figure.findobj(Text)
        if text.get_text() and text.get_visible() and text not in skipped
    ]


def assert_nothing_overlaps_or_is_clipped(figure: Figure) -> None:
    texts = texts_of(figure)
    assert len(texts) > 10
    for text, box in texts:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1, text
        assert box.y1 <= figure.bbox.y1, text
    for (one, box), (other, other_box) in itertools.combinations(texts, 2):
        assert not box.overlaps(other_box), (one, other)
    plots = [ax.get_window_extent() for ax in figure.axes]
    for (text, box), plot in itertools.product(texts, plots):
        assert not box.overlaps(plot), text


def smoke_runs(runs):
    for task, uniform in (("cartpole-swingup", 39.0), ("walker-walk", 43.0)):
        write_floors(runs, task, (uniform, 12.0), (20.0, 5.0))
        for seed in (1, 2):
            points = {step: 30.0 + step / 50 * seed for step in range(0, 20_001, 4000)}
            write_run(runs, points, task=task, seed=seed, variant="smoke", model_size="smoke")
    return load(runs)


def test_learning_curves_draw_means_bands_seeds_and_floors(tmp_path):
    drawing = learning_curves(smoke_runs(tmp_path), CURVES, CATALOGUE)
    assert drawing.problems == ()
    assert [ax.get_title(loc="left") for ax in drawing.figure.axes] == [
        *("Cartpole Swingup", "Walker Walk"),
    ]
    ax = drawing.figure.axes[1]
    level = {
        round(float(line.get_ydata()[0]), 3) for line in ax.lines if len(set(line.get_ydata())) == 1
    }
    assert level == {43.0, 20.0, 30.0, 43.0 + 3 * 12.0}
    lines = [list(line.get_ydata()) for line in ax.lines if len(line.get_ydata()) == 6]
    assert sorted(line[-1] for line in lines) == [430.0, 630.0, 830.0]
    (band,) = ax.collections
    assert band.get_datalim(ax.transData).y1 == pytest.approx(830.0)
    assert drawing.figure.axes[0].get_ylim() == ax.get_ylim()
    numbers = drawing.numbers[drawing.numbers["task"] == "walker-walk"]
    assert numbers["threshold"].unique().tolist() == [79.0]
    assert numbers["mean"].iloc[-1] == 630.0


def test_card_states_runs_seeds_resamples_and_coverage(tmp_path):
    drawing = learning_curves(smoke_runs(tmp_path), CURVES, CATALOGUE)
    card = " ".join(text.get_text() for text in drawing.figure.texts).replace("\n", " ")
    for part in ("4 runs (4 COMPLETED)", "seeds 1, 2", "50 resamples", "75 %", "model size smoke"):
        assert part in card


def test_diverged_run_is_marked_where_it_ends(tmp_path):
    write_run(tmp_path, {0: 1.0, 1000: 2.0, 2000: 3.0}, seed=1)
    write_run(tmp_path, {0: 1.0, 1000: 7.0}, seed=2, state="DIVERGED")
    drawing = learning_curves(load(tmp_path), CURVES, CATALOGUE)
    crosses = [line for line in drawing.figure.axes[0].lines if line.get_marker() == "x"]
    assert [line.get_xydata().tolist() for line in crosses] == [[[1000.0, 7.0]]]
    assert "run diverged" in [text for text, _ in texts_of(drawing.figure)]


def test_one_seed_has_a_line_and_no_band(tmp_path):
    write_run(tmp_path, {0: 1.0, 1000: 2.0})
    drawing = learning_curves(load(tmp_path), CURVES, CATALOGUE)
    (ax,) = drawing.figure.axes
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
    drawing = learning_curves(load(tmp_path), CURVES, CATALOGUE)
    (ax,) = drawing.figure.axes
    assert ax.get_ylabel() == "success rate"
    assert ax.get_ylim()[1] > 0.9


def test_aggregate_has_a_panel_per_domain(tmp_path):
    records = smoke_runs(tmp_path)
    drawing = aggregate_curve(records, AGGREGATE, CATALOGUE)
    (ax,) = drawing.figure.axes
    assert ax.get_title(loc="left") == "dmcontrol (2 tasks)"
    assert ax.lines[0].get_ydata()[-1] == pytest.approx(0.63)


def test_nothing_to_draw_is_said(tmp_path):
    write_run(tmp_path, {0: 1.0}, task="walker-walk", seed=1)
    write_run(tmp_path, {0: 1.0}, task="cup-catch", seed=2)
    records = load(tmp_path)
    assert aggregate_curve(records, AGGREGATE, CATALOGUE).figure is None
    assert learning_curves(records.select(methods=["sac"]), CURVES, CATALOGUE).figure is None


def test_styles_follow_the_catalogue(tmp_path):
    write_run(tmp_path, {0: 1.0}, method="sac")
    write_run(tmp_path, {0: 1.0}, method="mine")
    write_run(tmp_path, {0: 1.0}, method="tdmpc2", variant="no-simnorm")
    write_run(tmp_path, {0: 1.0}, method="tdmpc2")
    styles = series_styles(load(tmp_path).runs, CATALOGUE)
    assert [style.label for style in styles.values()] == [
        *("TD-MPC2", "TD-MPC2 (no-simnorm)", "SAC", "mine"),
    ]
    colors = [style.color for style in styles.values()]
    assert colors[0] == CATALOGUE.methods["tdmpc2"].color
    assert colors[2] == CATALOGUE.methods["sac"].color
    assert [colors[1], colors[3]] == list(CATALOGUE.reserve[:2])


def test_model_size_is_named_where_there_are_several(tmp_path):
    for size in (48, 5, "smoke"):
        write_run(tmp_path, {0: 1.0}, model_size=size, tag=str(size))
    styles = series_styles(load(tmp_path).runs, CATALOGUE)
    assert [style.label for style in styles.values()] == [
        *("TD-MPC2 (5M)", "TD-MPC2 (48M)", "TD-MPC2 (smoke)"),
    ]


def test_more_series_than_colours_are_told_apart_by_dashes(tmp_path):
    for number in range(12):
        write_run(tmp_path, {0: 1.0}, variant=f"v{number:02}")
    styles = series_styles(load(tmp_path).runs, CATALOGUE)
    assert len({(to_hex(style.color), style.dashes) for style in styles.values()}) > 10


@pytest.mark.parametrize("num_tasks", [1, 2, 5, 20])
def test_nothing_overlaps_or_is_clipped(tmp_path, num_tasks):
    tasks = [name for name, task in TASKS.items() if task.domain == "dmcontrol"][:num_tasks]
    long = "latent_norm-none+regression-symlog_mse+policy_prior-gaussian_noise"
    for task in tasks:
        write_floors(tmp_path, task, (43.0, 12.0), (20.0, 5.0))
        for variant in ("default", "no-simnorm", long):
            points = {step: step / 1000 for step in range(0, 1_000_001, 250_000)}
            write_run(tmp_path, points, task=task, variant=variant, commit="0123456789abcdef")
    records = load(tmp_path)
    for drawing in (
        learning_curves(records, CURVES, CATALOGUE),
        aggregate_curve(records, AGGREGATE, CATALOGUE),
    ):
        assert_nothing_overlaps_or_is_clipped(drawing.figure)
