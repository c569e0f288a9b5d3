"""Findings of the audit and their reported treatment."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.records.load import load, load_curves
from analysis.stats.audit import AUDIT, FINDINGS, audit, audit_all, sensitivity, summary
from analysis.stats.horizons import Group
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import RULES
from tests.analysis.multitask_files import HEADER as MULTITASK_HEADER
from tests.analysis.multitask_files import PAIR, write_multitask_run
from tests.analysis.multitask_files import eval_line as line
from tests.analysis.run_files import write_run, write_table

FULL = 4_000_000


def found(curves: ScoreCurves, rule: str = "hold") -> list[tuple[object, ...]]:
    table = audit(curves, RULES[rule])
    assert list(table.columns) == AUDIT
    assert set(table["finding"]) <= set(FINDINGS)
    columns = ["finding", "method", "task", "seed", "count", "detail", "treatment"]
    return [tuple(row) for row in table[columns].to_numpy().tolist()]


def test_nothing_is_found_where_nothing_is_ragged(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path, {0: 1.0, FULL: 2.0}, seed=seed, budget=FULL)
    assert found(ScoreCurves(load(tmp_path))) == []
    assert summary(audit(ScoreCurves(load(tmp_path)), RULES["hold"])) == []


def test_findings_by_hand(tmp_path):
    steps = [0, FULL // 2, FULL]
    lines = [f"{step},1,1" for step in steps]
    lines += [f"{step},1,2" for step in (0, FULL)]  # seed 2 lacks the middle step
    lines += [f"{step},1,3" for step in (0, 0, FULL // 2)]  # seed 3 repeats a step and stops early
    write_table(tmp_path / "tdmpc" / "walker-walk.csv", "step,reward,seed", lines)
    two = [f"{step},1,{seed}" for step in steps for seed in (1, 2)]
    write_table(tmp_path / "tdmpc" / "walker-run.csv", "step,reward,seed", two)
    curves = ScoreCurves(load_curves(tmp_path, "published"))
    assert found(curves) == [
        ("repeated_steps", "tdmpc", "walker-walk", 3, 1, "0", "averaged"),
        ("missing_steps", "tdmpc", "walker-walk", 2, 1, "2,000,000", "previous value held"),
        *[
            (
                *("ends_early", "tdmpc", "walker-walk", 3, 1),
                *("2,000,000 of 4,000,000", "last value carried forward"),
            )
        ],
        ("missing_seed", "tdmpc", "walker-run", 3, 1, "no curve", "mean over the other seeds"),
    ]
    treatments = {name: treatment for name, *_, treatment in found(curves, "available")}
    assert treatments["missing_steps"] == treatments["ends_early"] == "excluded at those steps"
    assert {name: t for name, *_, t in found(curves, "hold_last")}["repeated_steps"] == (
        "last value used"
    )
    assert summary(audit(curves, RULES["hold"]))[0] == "1 run: steps recorded more than once"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"state": "DIVERGED", "budget": FULL}, ["ends_early", "diverged"]),
        ({"state": "RUNNING", "budget": FULL}, ["not_ended"]),
        ({"state": "FAILED", "budget": FULL}, ["not_ended"]),
        ({"state": "COMPLETED", "budget": 1000}, ["other_budget"]),
        ({"variant": "finetuned", "budget": 20_000}, ["ends_early"]),
        ({"variant": "finetuned[precision=bf16]", "budget": 20_000}, ["ends_early"]),
        ({"variant": "finetuned", "budget": 1000}, ["other_budget"]),
        ({"state": "COMPLETED", "budget": None}, []),
        ({"state": "COMPLETED", "budget": 1000, "budget_unit": "num_updates"}, []),
    ],
)
def test_states_and_budgets(tmp_path, facts, expected):
    write_run(tmp_path, {0: 1.0, 1000: 2.0}, **facts)
    assert [name for name, *_ in found(ScoreCurves(load(tmp_path)))] == expected


@pytest.mark.parametrize(
    ("facts", "finding", "rule", "treatment"),
    [
        ({"state": "DIVERGED", "budget": FULL}, "diverged", "hold", "last value carried forward"),
        ({"state": "DIVERGED", "budget": FULL}, "diverged", "available", "excluded at those steps"),
        ({"state": "DIVERGED", "budget": None}, "diverged", "hold", "not carried forward"),
        (
            *({"budget": 1050}, "other_budget", "linear"),
            "last value carried forward to its own budget only",
        ),
        ({"budget": 1050}, "other_budget", "available", "excluded at those steps"),
        ({"budget": 2000}, "other_budget", "hold", "not carried forward"),
        ({"budget": 2000}, "ends_early", "hold", "not carried forward"),
        (
            *({"state": "DIVERGED", "budget": 2 * FULL}, "other_budget", "hold"),
            "last value carried forward",
        ),
        (
            *({"variant": "scratch", "state": "DIVERGED", "budget": 40_000}, "other_budget"),
            *("hold", "last value carried forward to its own budget only"),
        ),
        ({"state": "RUNNING", "budget": 2000}, "other_budget", "hold", "not carried forward"),
    ],
)
def test_treatments_are_those_of_the_rule(tmp_path, facts, finding, rule, treatment):
    """The value one step after the last recorded one exists only if the table says so."""
    write_run(tmp_path, {0: 1.0, 1000: 2.0}, **facts)
    curves = ScoreCurves(load(tmp_path))
    assert {name: told for name, *_, told in found(curves, rule)}[finding] == treatment
    known = not np.isnan(curves.values([0], np.array([1001]), RULES[rule]))[0, 0]
    assert known == ("last value carried forward" in treatment)


def test_multi_task_runs(tmp_path):
    """What all tasks of a run share is reported once; what one task lacks, with its name."""
    one, two = PAIR
    lines = [MULTITASK_HEADER + "\n", line(0, one, 1.0), line(0, two, 2.0), line(0, two, 4.0)]
    lines += [line(10, two, 5.0), line(20, two, 5.0), line(20, one, 5.0)]
    facts = {"state": "DIVERGED", "budget": 1000, "task_set": "set"}
    write_multitask_run(tmp_path, {}, eval_csv="".join(lines), **facts)
    write_multitask_run(tmp_path, {0: (1.0, 2.0), 20: (3.0, 4.0)}, task_set="set", seed=2)
    curves = ScoreCurves(load(tmp_path), "num_updates")
    at = "20 of 1,000 updates"
    assert found(curves) == [
        ("repeated_steps", "tdmpc2", f"set: {two}", 1, 1, "0", "averaged"),
        ("missing_steps", "tdmpc2", "set", 2, 1, "10", "previous value held"),
        ("missing_steps", "tdmpc2", f"set: {one}", 1, 1, "10", "previous value held"),
        ("ends_early", "tdmpc2", "set", 1, 0, at, "last value carried forward"),
        ("diverged", "tdmpc2", "set", 1, 1, f"at {at}", "last value carried forward"),
    ]
    table = audit(curves, RULES["hold"])
    assert summary(table)[1] == "2 runs: steps of the evaluation grid not recorded"
    both = audit_all([ScoreCurves(load(tmp_path)), curves], RULES["hold"])
    pd.testing.assert_frame_equal(both, table)


def test_the_released_curves(published_curves):
    table = audit(ScoreCurves(load_curves(published_curves, "published")), RULES["hold"])
    count = table.groupby(["finding", "method"])["count"].sum()
    assert count["repeated_steps"].to_dict() == {"tdmpc": 697}
    early = table[(table["finding"] == "ends_early") & (table["count"] > 1)]
    known = {
        *(("tdmpc", "pick-ycb", 3), ("tdmpc", "lift-cube", 3), ("tdmpc", "pick-cube", 3)),
        *(("tdmpc", "turn-faucet", 3), ("tdmpc", "walker-run-backwards", 1)),
        *(("sac", "dog-stand", 1), ("sac", "dog-stand", 2), ("sac", "turn-faucet", 2)),
        *(("sac", "turn-faucet", 3), ("sac", "pick-ycb", 3)),
    }
    others = early[early["method"] != "dreamerv3"]
    assert set(others[["method", "task", "seed"]].itertuples(index=False, name=None)) == known
    assert "missing_seed" not in set(table["finding"])


def test_sensitivity_by_hand(tmp_path):
    lines = ["0,0,1", f"{FULL},400,1", "1000,0,2", "1000,200,2"]
    write_table(tmp_path / "tdmpc" / "walker-walk.csv", "step,reward,seed", lines)
    group = Group("one", "One", ("walker-walk",), FULL)
    (row,) = sensitivity(ScoreCurves(load_curves(tmp_path, "published")), [group]).to_dict(
        "records"
    )
    means = {name: row[name] for name in RULES}
    assert means == pytest.approx(
        {"hold": 25.0, "hold_first": 20.0, "hold_last": 30.0, "linear": 25.0, "available": 40.0}
    )
    assert row["spread"] == pytest.approx(20.0)
    (tmp_path / "tdmpc" / "walker-walk.csv").write_text("step,reward,seed\n9,400,1\n")
    nothing = Group("one", "One", ("walker-walk",), 5)
    (row,) = sensitivity(ScoreCurves(load_curves(tmp_path, "published")), [nothing]).to_dict(
        "records"
    )
    assert np.isnan(row["available"])
    assert isinstance(
        sensitivity(ScoreCurves(load_curves(tmp_path, "published")), []), pd.DataFrame
    )
