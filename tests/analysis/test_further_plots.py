"""Wall time, distributions, gallery, and the layout options of all figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.text import Text

from analysis import make_figures
from analysis.figures.figure_specs import FigureSpec
from analysis.figures.line_plots import pages_of
from analysis.figures.page import paper_style
from analysis.figures.registry import PLOTS, select
from analysis.figures.styles import Layout
from analysis.records.load import load
from analysis.stats.rules import RULES
from tdmpc2 import frames
from tdmpc2.common.system.errors import UserError
from tests.analysis.pictures import CATALOG, assert_nothing_overlaps_or_is_clipped, card_of, draw
from tests.analysis.run_files import write_run
from tests.analysis.test_plots import GROUPS, four_methods

WALL_TIME = FigureSpec("wall_time", "wall_time")
DISTRIBUTION = FigureSpec("distribution", "score_distribution", groups=GROUPS)
GALLERY = FigureSpec("gallery", "gallery")
LEAST_SIZE = 7


@pytest.fixture(autouse=True)
def _style():
    with paper_style():
        yield


def timed_run(runs: Path, rates: tuple[float, ...], **facts: object) -> None:
    run = write_run(runs, {0: 1.0, 7200: 10.0, 14_400: 20.0}, **facts)  # type: ignore[arg-type]
    lines = [f"{1000 * i},10,{rate}\n" for i, rate in enumerate(rates)]
    (run / "timing.csv").write_text("env_step,seconds,env_steps_per_second\n" + "".join(lines))


def test_hours_are_steps_by_the_median_speed(tmp_path):
    timed_run(tmp_path, (1.0, 2.0, 900.0), seed=1)
    timed_run(tmp_path, (4.0,), method="sac")
    write_run(tmp_path, {0: 1.0, 7200: 10.0}, method="tdmpc")
    drawing = draw(load(tmp_path), WALL_TIME)
    hours = drawing.numbers.groupby("method")["hours"].max().to_dict()
    assert hours == {"tdmpc2": pytest.approx(2.0), "sac": pytest.approx(1.0)}
    (page,) = drawing.pages
    assert "hours" in card_of(page)
    assert_nothing_overlaps_or_is_clipped(page)
    write_run(tmp_path / "untimed", {0: 1.0, 7200: 10.0})
    assert draw(load(tmp_path / "untimed"), WALL_TIME).pages == ()


def test_a_distribution_shows_every_run_at_its_horizon(tmp_path):
    drawing = draw(four_methods(tmp_path), DISTRIBUTION)
    ours = drawing.numbers[(drawing.numbers["source"] == "runs")]
    assert len(ours) == 4 * 3 * 3
    of_sac = ours[(ours["method"] == "sac") & (ours["task"] == "mw-reach")]
    assert sorted(of_sac["value"]) == pytest.approx([0.35, 0.4, 0.45])
    dm = drawing.pages[0].axes[0]
    points = np.concatenate([dots.get_offsets() for dots in dm.collections])
    assert sorted(set(np.round(points[:, 0], 6)))[-1] == pytest.approx(96)
    assert_nothing_overlaps_or_is_clipped(drawing.pages[0])


def test_the_gallery_shows_the_frames_of_a_folder(tmp_path, capsys):
    for name in ("mw-reach", "walker-walk", "cup-catch", "other"):
        matplotlib.image.imsave(tmp_path / f"{name}.png", np.zeros((8, 8, 3), np.uint8))
    write_run(tmp_path / "runs", {0: 1.0, 1000: 2.0})
    arguments = [f"runs={tmp_path / 'runs'}", f"out={tmp_path / 'out'}", "only=appendix_gallery"]
    assert make_figures.main([*arguments, f"frames={tmp_path}"]) == 0
    table = (tmp_path / "out" / "appendix_gallery.csv").read_text().split()
    assert table[1:] == [
        *("walker-walk,dmcontrol,walker-walk.png", "cup-catch,dmcontrol,cup-catch.png"),
        "mw-reach,metaworld,mw-reach.png",
    ]
    assert (tmp_path / "out" / "appendix_gallery-2.png").exists()
    with pytest.raises(UserError, match=r"frames=.*none is not a folder"):
        make_figures.main([*arguments, f"frames={tmp_path / 'none'}"])
    (tmp_path / "empty").mkdir()
    assert make_figures.main([*arguments, f"frames={tmp_path / 'empty'}"]) == 1
    assert "no <task>.png of a task of the suite" in capsys.readouterr().err


def test_frames_are_rendered_where_there_is_a_renderer(tmp_path, capsys):
    with pytest.raises(UserError, match="no task can be rendered here") as refused:
        frames.main([f"out={tmp_path / 'out'}", "tasks=toy-pointmass"])
    assert "not rendered: toy-pointmass: task has nothing to render" in str(refused.value)
    try:
        frames.main([f"out={tmp_path / 'out'}", "tasks=walker-walk"])
    except UserError:
        pytest.skip("missing: a renderer")
    image = matplotlib.image.imread(tmp_path / "out" / "walker-walk.png")
    assert image.shape[2] == 3
    assert image.std() > 0.01


@pytest.mark.parametrize("width", [3.3, 5.5, 8.0])
@pytest.mark.parametrize("plot", ["learning_curves", "aggregate_curve", "group_bars"])
def test_text_fits_the_column_and_is_readable(tmp_path, plot, width):
    records = four_methods(tmp_path)
    spec = FigureSpec(plot, plot, groups=GROUPS)
    shown = select(spec, records, RULES["hold"], CATALOG, layout=Layout(width, captions=False))
    for page in PLOTS[plot](shown).pages:
        assert page.get_figwidth() == width
        assert_nothing_overlaps_or_is_clipped(page)
        sizes = [text.get_fontsize() for text in page.findobj(Text) if text.get_text()]
        assert min(sizes) >= LEAST_SIZE


def test_captions_can_be_left_out(tmp_path):
    records = four_methods(tmp_path)
    spec = FigureSpec("bars", "group_bars", groups=GROUPS)
    pages = []
    for captions in (True, False):
        layout = Layout(captions=captions)
        shown = select(spec, records, RULES["hold"], CATALOG, layout=layout)
        (page,) = PLOTS["group_bars"](shown).pages
        pages.append(page)
    with_caption, without = pages
    assert "seeds 1, 2, 3" in card_of(with_caption)
    assert "seeds 1, 2, 3" not in card_of(without)
    assert without.get_figheight() < with_caption.get_figheight()
    assert without.caption == with_caption.caption


def test_labels_that_panels_share_are_written_once(tmp_path):
    for task in ("walker-walk", "walker-run", "cup-catch", "cheetah-run", "fish-swim"):
        write_run(tmp_path, {0: 1.0, 1000: 2.0}, task=task)
    (page,) = draw(load(tmp_path), FigureSpec("x", "learning_curves")).pages
    assert [ax.get_ylabel() for ax in page.axes] == [""] * 5
    assert card_of(page).count("episode return") == 1
    numbered = [any(label.get_visible() for label in ax.get_yticklabels()) for ax in page.axes]
    assert numbered == [True, False, False, True, False]


@pytest.mark.parametrize(
    ("count", "most", "sizes"),
    [(39, 28, [20, 19]), (50, 28, [28, 22]), (3, 28, [3]), (2, 1, [1, 1])],
)
def test_pages_are_filled_evenly(count, most, sizes):
    assert [len(page) for page in pages_of([str(i) for i in range(count)], most)] == sizes


def test_training_curves_have_pages_for_each_quantity(tmp_path):
    run = write_run(tmp_path, {0: 1.0, 4000: 2.0})
    (run / "train.csv").write_text("env_step,a,b\n1000,1,5\n2000,2,6\n")
    spec = FigureSpec("x", "training_curves", quantities=("b", "c", "a"))
    drawing = draw(load(tmp_path), spec)
    assert [page.labels[1] for page in drawing.pages] == ["b", "a"]
    assert drawing.numbers["value"].tolist() == [5, 6, 1, 2]
    assert draw(load(tmp_path), replace(spec, quantities=("c",))).pages == ()
