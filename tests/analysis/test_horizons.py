"""Horizons of comparisons, by hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from analysis import make_figures
from analysis.records.load import load
from analysis.stats.against_default import against_default
from analysis.stats.horizons import common_budget, own_horizons, side_of
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import RULES, is_near
from tests.analysis.report_files import publish
from tests.analysis.run_files import write_run
from tests.test_architecture import ROOT

FULL = {0: 5.0, 100_000: 500.0, 200_000: 800.0}


@pytest.fixture
def curves(tmp_path: Path) -> ScoreCurves:
    """Three finished seeds of the default, and two finished and one unfinished of a variant."""
    for seed in (1, 2, 3):
        write_run(tmp_path / "runs", FULL, seed=seed, budget=200_000)
        short = seed == 3
        points = {0: 5.0, 100_000: 100.0} if short else {step: x / 2 for step, x in FULL.items()}
        state = "RUNNING" if short else "COMPLETED"
        write_run(
            tmp_path / "runs", points, seed=seed, budget=200_000, variant="no-simnorm", state=state
        )
    return ScoreCurves(load(tmp_path / "runs"))


def test_near_is_a_tenth_and_never_step_0():
    last = np.array([0, 89, 90, 100])
    np.testing.assert_array_equal(is_near(last, 100), [False, False, True, True])
    assert is_near(0, 0)
    assert not is_near(-1, 0)


def test_an_unfinished_seed_takes_no_part(curves: ScoreCurves) -> None:
    rows = curves.runs.index[curves.runs["variant"] == "no-simnorm"].to_numpy()
    side = side_of(curves, rows, 200_000)
    assert side.last == 200_000
    assert curves.runs.loc[side.rows, "seed"].tolist() == [1, 2]
    assert side.left_out == ("seed 3 is at 100,000 env steps",)
    assert side_of(curves, rows, 100_000).left_out == ()


def test_seeds_before_the_first_step_that_counts_take_no_part(tmp_path: Path) -> None:
    """If another one has reached it, also if most have not."""
    for seed, last in ((1, 100_000), (2, 50_000), (3, 50_000), (4, 95_000)):
        write_run(tmp_path, {0: 5.0, last: 500.0}, seed=seed, state="RUNNING")
    curves, rows = ScoreCurves(load(tmp_path)), np.arange(4)
    side = side_of(curves, rows, 200_000, since=100_000)
    assert (side.rows.tolist(), side.last) == ([0], 100_000)
    assert len(side.left_out) == 3
    for side in (side_of(curves, rows, 200_000, since=150_000), side_of(curves, rows, 200_000)):
        assert side.rows.tolist() == [0, 1, 2, 3]


def test_variants_are_compared_where_the_other_seeds_are(curves: ScoreCurves) -> None:
    (row,) = against_default(curves, RULES["hold"]).to_dict("records")
    assert (row["env steps"], row["score"], row["default"]) == ("200,000", 40.0, 80.0)
    assert row["left out"] == "walker-walk, no-simnorm: seed 3 is at 100,000 env steps"


@pytest.mark.parametrize("state", ["RUNNING", "DIVERGED"])
def test_a_variant_is_not_compared_where_it_was_evaluated_untrained_only(
    tmp_path: Path, state: str
) -> None:
    for task, last in (("walker-walk", 100_000), ("cup-catch", 0)):
        write_run(tmp_path, {0: 0.0, 100_000: 500.0}, task=task)
        facts = {"task": task, "variant": "no-simnorm", "state": state}
        write_run(tmp_path, {0: 0.0, last: 200.0}, **facts)
    (row,) = against_default(ScoreCurves(load(tmp_path)), RULES["hold"]).to_dict("records")
    assert (row["tasks"], row["env steps"], row["difference"]) == (1, "100,000", -30.0)
    assert row["left out"] == "cup-catch: no evaluation after step 0 on both sides"


def test_ablations_end_at_the_smaller_budget(curves: ScoreCurves) -> None:
    rows = [own.index.to_numpy() for _, own in curves.runs.groupby("variant")]
    assert common_budget(curves, rows) == 200_000


def test_own_runs_are_compared_at_the_budget_that_a_method_completed(curves: ScoreCurves) -> None:
    assert own_horizons(curves, ["walker-walk"]) == [200_000]
    assert own_horizons(curves, ["cup-catch"]) == []


def test_tables_of_figures_name_steps_that_differ(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", {0: 5.0, 100_000: 500.0}, budget=100_000)
    paper = publish(tmp_path, "tdmpc2", {0: 1.0, 100_000: 400.0, 200_000: 900.0})
    out = tmp_path / "out"
    arguments = [f"runs={tmp_path / 'runs'}", paper, "only=appendix_dmcontrol", f"out={out}"]
    assert make_figures.main([*arguments, "tables=true"]) == 0
    text = (out / "appendix_dmcontrol.md").read_text()
    assert re.search(r"500\.0 at 100,000 steps", text)
    assert "at 200,000 steps" not in text


def test_only_one_module_knows_how_near_is_near_enough() -> None:
    users = [
        path.name
        for path in (ROOT / "analysis").rglob("*.py")
        if re.search(r"\(1 - NEAR\)", path.read_text(encoding="utf-8"))
    ]
    assert users == ["rules.py"]
