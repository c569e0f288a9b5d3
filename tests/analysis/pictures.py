"""Helpers that draw figures for tests and return the positions of their texts."""

from __future__ import annotations

import itertools
from dataclasses import replace

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from analysis.figures.figure_specs import Catalog, FigureSpec, read_catalog
from analysis.figures.registry import PLOTS, step_unit_of
from analysis.figures.styles import Drawing, Shown
from analysis.records.load import Records
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import RULES
from tdmpc2.common.system.paths import project_root

FIGURES = project_root() / "paper_figures"
CATALOG = replace(read_catalog(FIGURES / "figures.toml", PLOTS), bootstrap=Bootstrap(reps=50))


def draw(records: Records, spec: FigureSpec, catalog: Catalog = CATALOG) -> Drawing:
    """Draw a figure of the catalog from these records."""
    unit = step_unit_of(spec)
    records = records.select(step_unit=unit)
    curves = ScoreCurves(records, unit)
    return PLOTS[spec.plot](Shown(spec, records, curves, RULES["hold"], catalog))


def texts_of(figure: Figure) -> list[tuple[str, Bbox]]:
    """Return every visible text with its bounding box in pixels."""
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
    """Check that texts are on the page and overlap neither each other nor the plots."""
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
    inside = {text.get_text() for ax in figure.axes for text in ax.texts}
    for (text, box), plot in itertools.product(texts, plots):
        assert text in inside or not box.overlaps(plot), text


def card_of(figure: Figure) -> str:
    """Return the caption below the panels, and the labels that panels share, in one line."""
    texts = " ".join(text.get_text() for text in figure.texts)
    return texts.replace("\n", " ").replace("\u00a0", " ")


def legend_of(figure: Figure) -> list[str]:
    """Return the labels of the legend above the panels."""
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]
