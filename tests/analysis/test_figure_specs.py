"""Parsing and validation of the figure catalog."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.figures.figure_specs import FigureSpec, LineStyle, quotes_of, read_catalog
from analysis.figures.registry import PLOTS
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import project_root
from tdmpc2.runners.registry import METHODS

SHIPPED = project_root() / "paper_figures" / "figures.toml"


def with_figure(tmp_path: Path, table: str) -> Path:
    path = tmp_path / "figures.toml"
    path.write_text(f"{SHIPPED.read_text()}\n[figures.mine]\n{table}\n")
    return path


def test_shipped_catalog():
    catalog = read_catalog(SHIPPED, PLOTS)
    assert set(catalog.methods) <= set(METHODS)
    assert {"learning_curves", "aggregate", "fig1", "fig4", "intervals"} <= set(catalog.figures)
    assert all(spec.title for spec in catalog.figures.values())
    assert catalog.figures["learning_curves"].only_ours
    sizes = {name: len(group.tasks) for name, group in catalog.groups.items()}
    assert sizes["all104"] == sizes["all104_full"] == 104
    assert (sizes["locomotion"], sizes["pick_ycb"], sizes["ablation"]) == (7, 1, 3)
    assert catalog.figures["learning_curves"].reference_scores
    styles = [*catalog.methods.values(), *catalog.reserve]
    for look in ("color", "marker", "hatch"):
        assert len({getattr(style, look) for style in styles}) == len(styles), look
    assert all(spec.command for spec in catalog.figures.values())


def test_a_figure_is_one_table(tmp_path):
    table = 'plot = "learning_curves"\nsuite = "smoke"\nmethods = ["sac"]'
    spec = read_catalog(with_figure(tmp_path, table), PLOTS).figures["mine"]
    assert (spec.name, spec.plot, spec.methods, spec.variants) == (
        *("mine", "learning_curves", ("sac",), ()),
    )
    assert "walker-walk" in spec.tasks
    assert not spec.reference_scores


def test_reference_scores_have_labels_and_dashes():
    reference_scores = read_catalog(SHIPPED, PLOTS).reference_scores
    assert all(isinstance(style, LineStyle) and style.dashes for style in reference_scores.values())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('plot = "learning_curve"', "did you mean 'learning_curves'"),
        ('plot = "learning_curves"\nmethod = ["sac"]', "did you mean 'methods'"),
        ('plot = "learning_curves"\nmethods = "sac"', r"methods must be a list"),
        ('plot = "multitask_bars"\nsizes = "19"', r"sizes must be a list"),
        ('plot = "learning_curves"\nsuite = "smok"', "did you mean 'smoke'"),
        ('plot = "learning_curves"\nsuite = "smoke"\ntasks = ["cup-*"]', "both a suite and tasks"),
        ("reference_scores = true", "missing .*'plot'"),
        ("plot = learning_curves", "line"),
        ('plot = "scaling"\nquoted = [{score = 1}]', "quoted numbers need quoted_from"),
        ('plot = "group_bars"\ngroups = ["dmcontrl"]', "did you mean 'dmcontrol'"),
        ('plot = "group_bars"\nstatistics = ["iqn"]', "did you mean 'iqm'"),
        ('plot = "group_bars"\n[groups.g]\nlabel = "G"', "either a suite or tasks"),
        ('plot = "group_bars"\n[groups.g]\nlabel = "G"\ntasks = ["cup-cat"]', "'cup-catch'"),
        ('plot = "aggregate_curve"\n[methods.new]\nlabel = "New"', "color"),
        ('plot = "aggregate_curve"\n[method.new]\nlabel = "New"', "did you mean 'methods'"),
    ],
)
def test_errors_name_file_and_entry(tmp_path, table, message):
    path = with_figure(tmp_path, table)
    with pytest.raises(UserError, match=message) as caught:
        read_catalog(path, PLOTS)
    text = str(caught.value)
    assert str(path) in text or "suite" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("quoted", "message"),
    [
        ({"label": "a"}, "figure x, quoted: .* lacks score"),
        ({"label": "a", "scor": 1}, "figure x, quoted: unknown key scor .did you mean 'score'"),
    ],
)
def test_quoted_numbers_have_the_keys_that_are_read(quoted, message):
    spec = FigureSpec("x", "group_bars", quoted=(quoted,))
    with pytest.raises(UserError, match=message):
        quotes_of(spec, ("label", "score"), ("by",))
    whole = {"label": "a", "score": 1, "by": "me"}
    assert quotes_of(FigureSpec("x", "y", quoted=(whole,)), ("label", "score"), ("by",)) == (whole,)


def test_missing_catalog_is_named(tmp_path):
    with pytest.raises(UserError, match=r"figures\.toml"):
        read_catalog(tmp_path / "figures.toml", PLOTS)
