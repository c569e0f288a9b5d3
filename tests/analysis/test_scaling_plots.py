"""Scaling figure and Table 1, against hand-computed values."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.style
import numpy as np
import pytest

from analysis.figures.figure_specs import FigureSpec
from analysis.figures.scaling_plots import Fit
from analysis.records.load import load
from tests.analysis.multitask_files import write_multitask_run
from tests.analysis.pictures import (
    CATALOG,
    FIGURES,
    assert_nothing_overlaps_or_is_clipped,
    card_of,
    draw,
    legend_of,
)

FIG7 = CATALOG.figures["fig7"]
SCALING = FigureSpec("scaling", "scaling")
H200 = {"device": "cuda", "gpu": "NVIDIA H200"}
SIZES = (("1", 1e6, 20.0), ("19", 1e7, 40.0), ("317", 1e8, 60.0))


@pytest.fixture(autouse=True)
def _style():
    with matplotlib.style.context(FIGURES / "paper.mplstyle"):
        yield


def write_sizes(runs, sizes=SIZES, **more) -> None:
    """One agent of each size on a task set named mt80, with 864,000 updates at 10 per second."""
    for size, parameters, score in sizes:
        facts = {"num_parameters": parameters, "task_set": "mt80", "tag": size, **more}
        points = {0: (0.0, 0.0), 864_000: (score - 5, score + 5)}
        write_multitask_run(runs, points, size=size, **facts)


def test_fit_by_hand():
    fit = Fit.of(np.array([1e6, 1e7, 1e8]), np.array([20.0, 40.0, 60.0]))
    assert (fit.start, fit.slope) == (pytest.approx(-100), pytest.approx(20))
    assert str(fit) == "−100.0 + 20.0·log₁₀(parameters)"
    assert str(Fit(70.0, -2.5)) == "70.0 − 2.5·log₁₀(parameters)"
    assert fit.at(np.array([1e9])) == pytest.approx([80])
    assert Fit.of(np.array([1e6, 1e6, 1e8]), np.array([1.0, 2.0, 3.0])) is None


def test_runs_are_fitted_and_quoted_numbers_are_not(tmp_path):
    write_sizes(tmp_path)
    drawing = draw(load(tmp_path), FIG7)
    (page,) = drawing.pages
    assert drawing.numbers["score"].tolist()[:4] == pytest.approx([20, 40, 60, 16])
    assert legend_of(page) == [
        "mt80, paper",
        *("mt80, third party (PWM)", "mt30, third party (PWM)", "mt30, third party (TD-MPC-Opt)"),
        "TD-MPC2 (mt80), run here: −100.0 + 20.0·log₁₀(parameters)",
    ]
    (ax,) = page.axes
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "none"]
    assert [len(line.get_xdata()) for line in hollow] == [5, 1, 1, 1]
    filled = [line for line in ax.lines if line.get_marker() == "o" and line not in hollow]
    assert [line.get_ydata().tolist() for line in filled] == [pytest.approx([20, 40, 60])]
    assert len({line.get_marker() for line in hollow}) == 4
    assert [line.get_linestyle() for line in ax.lines].count("--") == 1
    assert ax.get_xscale() == "log"
    assert "Gray marks: quoted from Table 1 of the paper" in card_of(page)
    assert_nothing_overlaps_or_is_clipped(page)


def test_two_sizes_are_not_fitted(tmp_path):
    write_sizes(tmp_path, SIZES[:2])
    (page,) = draw(load(tmp_path), SCALING).pages
    assert legend_of(page) == ["TD-MPC2 (mt80), run here"]
    assert "quoted" not in card_of(page)


def test_table_one_by_hand(tmp_path):
    write_sizes(tmp_path, SIZES[:2], numeric=H200)
    write_sizes(tmp_path, (("5", 5e6, 30.0),), rates=(20.0,))
    write_sizes(tmp_path, (("5", 5e6, 34.0),), rates=(5.0,), seed=2)
    table = draw(load(tmp_path), FIG7).table.set_index(["agents", "tasks", "size"])
    ours = table.iloc[:3].droplevel(["agents", "tasks"])
    assert ours.index.tolist() == ["1M", "5M", "19M"]
    assert ours["parameters"].tolist() == ["1,000,000", "5,000,000", "10,000,000"]
    # 864,000 updates take one day at 10 per second, and half a day and two days at 20 and 5.
    assert ours["days"].tolist() == ["1 GPU-days", "1.25 CPU-days", "1 GPU-days"]
    assert ours["updates/s"].tolist() == ["10", "12.5", "10"]
    assert ours["device"].tolist() == ["NVIDIA H200", "AMD EPYC", "NVIDIA H200"]
    assert ours["score (%)"].tolist()[::2] == ["20.0", "40.0"]
    assert ours["score (%)"].iloc[1].startswith("32.0 [6.6, 57.4]")
    assert ours["seeds"].tolist() == ["1", "2", "1"]
    assert ours["quoted days"].tolist() == ["3.7 GPU-days", "4.2 GPU-days", "5.3 GPU-days"]
    assert ours["quoted score"].tolist() == ["16.0", "49.5", "57.1"]
    rest = table.iloc[3:]
    assert rest["quoted score"].tolist() == ["68.0", "70.6", "67.8", "59.8", "18.9"]
    assert [agents for agents, *_ in rest.index] == [
        *("TD-MPC2 (paper)", "TD-MPC2 (paper)", "TD-MPC2 (PWM)", "TD-MPC2 (PWM)"),
        "TD-MPC2 (TD-MPC-Opt)",
    ]
    assert (rest["score (%)"] == "").all()


def test_a_run_without_parameters_is_in_the_table_only(tmp_path):
    write_multitask_run(tmp_path, {0: (10.0, 30.0)}, size="48")
    drawing = draw(load(tmp_path), SCALING)
    assert legend_of(drawing.pages[0]) == []
    card = card_of(drawing.pages[0]).strip()
    assert card == "No number of parameters is recorded, so no mark is drawn."
    assert drawing.table[["size", "parameters", "score (%)"]].to_numpy().tolist() == [
        ["48M", "", "20.0"]
    ]
    assert "number of parameters not recorded" in " ".join(p.what for p in drawing.problems)


def test_other_variants_do_not_stand_beside_the_papers_numbers(tmp_path):
    write_sizes(tmp_path, (("19", 1e7, 40.0),), variant="no-simnorm")
    table = draw(load(tmp_path), FIG7).table
    assert table.iloc[0][["agents", "quoted score"]].tolist() == ["TD-MPC2 (no-simnorm)", ""]
    assert (table["quoted score"] != "").sum() == 8


def test_quoted_numbers_stand_alone_and_nothing_without_them(tmp_path):
    drawing = draw(load(tmp_path), FIG7)
    assert drawing.table["quoted days"].tolist()[:5] == [
        *("3.7 GPU-days", "4.2 GPU-days", "5.3 GPU-days", "12 GPU-days", "33 GPU-days"),
    ]
    assert drawing.numbers["by"].tolist()[-1] == "TD-MPC-Opt"
    assert draw(load(tmp_path), replace(FIG7, quoted=())).pages == ()
