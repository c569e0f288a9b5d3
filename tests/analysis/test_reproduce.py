"""`reproduce.py` from end to end: tables and exit codes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import reproduce
from analysis.records.load import load_curves
from analysis.stats.equivalence import difference, mean_difference
from analysis.stats.estimate_texts import estimate_text
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.reproduction_power import reproduction_power
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import project_root
from tests.analysis.multitask_files import write_multitask_run
from tests.analysis.run_files import write_run, write_table

STEPS = (0, 100_000, 200_000)


@pytest.fixture
def published(tmp_path) -> Path:
    for method in ("tdmpc2", "sac"):
        for task, scores in (("walker-walk", (900, 910, 920)), ("cup-catch", (500, 510, 520))):
            lines = [
                f"{step},{score * step / 200_000},{seed}"
                for step in STEPS
                for seed, score in enumerate(scores, start=1)
            ]
            path = tmp_path / "paper" / method / f"{task}.csv"
            write_table(path, "step,reward,seed", lines)
    return tmp_path / "paper"


def ours(runs: Path, task: str, scores: tuple[float, ...], *, step: int = 200_000, **facts):
    for seed, score in enumerate(scores, start=1):
        points = {0: 0.0, step // 2: score / 2, step: score}
        write_run(runs, points, task=task, seed=seed, budget=step, **facts)


def compare(tmp_path: Path, *arguments: str) -> int:
    runs, paper, out = (tmp_path / name for name in ("runs", "paper", "out"))
    return reproduce.main([f"runs={runs}", f"published={paper}", f"out={out}", *arguments])


def table(tmp_path: Path, name: str, index: str) -> pd.DataFrame:
    return pd.read_csv(tmp_path / "out" / f"reproduction_{name}.csv").set_index(index)


def test_reproduced(tmp_path, published, capsys):
    ours(tmp_path / "runs", "walker-walk", (905.0, 915.0, 901.0))
    ours(tmp_path / "runs", "cup-catch", (505.0, 515.0, 507.0))
    assert compare(tmp_path) == 0
    tasks = table(tmp_path, "tasks", "task")
    assert tasks["verdict"].to_dict() == {"walker-walk": "reproduced", "cup-catch": "reproduced"}
    walker = tasks.loc["walker-walk"]
    assert walker[["env_step", "num_ours", "num_theirs"]].tolist() == [200_000, 3, 3]
    # The mean of both common evaluations, of which the first is half of the last.
    assert walker["evaluations"] == 2
    assert walker["difference"] == pytest.approx(0.75 * (90.7 - 91.0))
    domains = table(tmp_path, "domains", "domain")
    assert domains.loc["dmcontrol", "verdict"] == "reproduced"
    assert domains.loc["dmcontrol", "difference"] == pytest.approx(tasks["difference"].mean())
    printed = capsys.readouterr().out
    assert "Walker Walk" in printed
    assert "±10" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"reproduction_{name}.{kind}"
        for name in ("tasks", "domains")
        for kind in ("csv", "md", "tex")
    }


def test_worse_is_exit_code_1_and_stands_first(tmp_path, published, capsys):
    ours(tmp_path / "runs", "walker-walk", (905.0, 915.0, 901.0))
    ours(tmp_path / "runs", "cup-catch", (205.0, 215.0, 207.0))
    assert compare(tmp_path) == 1
    assert table(tmp_path, "tasks", "task")["verdict"]["cup-catch"] == "worse"
    assert table(tmp_path, "domains", "domain").loc["dmcontrol", "worse"] == 1
    printed = capsys.readouterr().out
    assert printed.index("Cup Catch") < printed.index("Walker Walk")


def test_too_few_seeds_is_exit_code_3_and_says_how_many(tmp_path, published):
    ours(tmp_path / "runs", "walker-walk", (700.0, 1000.0))
    assert compare(tmp_path) == 3
    row = table(tmp_path, "tasks", "task").loc["walker-walk"]
    assert row["verdict"] == "not enough data"
    assert 2 < row["seeds_needed_low"] <= row["seeds_needed"] <= 100
    assert row["forecast"] in ("reproduced", "worse", "better")
    assert 0.3 <= row["forecast_probability"] <= 1


def test_better_passes(tmp_path, published):
    ours(tmp_path / "runs", "cup-catch", (905.0, 915.0, 901.0))
    assert compare(tmp_path) == 0
    assert table(tmp_path, "tasks", "task")["verdict"]["cup-catch"] == "better"


def test_between_two_published_evaluations_scores_are_interpolated(tmp_path, published):
    ours(tmp_path / "runs", "walker-walk", (680.0, 681.0, 682.0), step=150_000)
    compare(tmp_path)
    row = table(tmp_path, "tasks", "task").loc["walker-walk"]
    assert row["env_step"] == 150_000
    assert row["theirs"] == pytest.approx(91.0 * 0.75)


def test_one_unfinished_seed_is_left_out_and_named(tmp_path, published, capsys):
    runs = tmp_path / "runs"
    ours(runs, "walker-walk", (900.0, 910.0))
    write_run(runs, {0: 0.0, 100_000: 455.0}, seed=3, state="RUNNING", budget=200_000)
    compare(tmp_path)
    row = table(tmp_path, "tasks", "task").loc["walker-walk"]
    assert row[["env_step", "num_ours"]].tolist() == [200_000, 2]
    assert row["ours"] == pytest.approx(0.75 * 90.5)
    assert "seed 3 is at 100,000 env steps" in row["remark"]
    assert "walker-walk: seed 3 is at 100,000 env steps" in capsys.readouterr().out


def test_a_seed_a_little_behind_sets_the_step(tmp_path, published):
    runs = tmp_path / "runs"
    ours(runs, "walker-walk", (900.0, 910.0))
    write_run(runs, {0: 0.0, 190_000: 860.0}, seed=3, state="RUNNING", budget=200_000)
    compare(tmp_path)
    row = table(tmp_path, "tasks", "task").loc["walker-walk"]
    assert row["num_ours"] == 3
    assert row["env_step"] <= 190_000


def test_below_the_full_budget_it_is_reproduced_so_far(tmp_path, published, capsys):
    """Half of the published steps: no verdict on the paper's result, exit code 3."""
    ours(tmp_path / "runs", "walker-walk", (452.5, 457.5, 450.5), step=100_000)
    assert compare(tmp_path) == 3
    row = table(tmp_path, "tasks", "task").loc["walker-walk"]
    assert row["verdict"] == "reproduced so far"
    assert row["budget_share"] == 0.5
    domain = table(tmp_path, "domains", "domain").loc["dmcontrol"]
    assert domain[["verdict", "num_tasks", "compared"]].tolist() == ["reproduced so far", 39, 1]
    printed = capsys.readouterr().out
    assert "1 of 39" in printed
    assert "50 %" in printed


def test_step_0_never_counts(tmp_path, published):
    """Runs of 40,000 steps have only an untrained score in the range of the published curves."""
    ours(tmp_path / "runs", "walker-walk", (30.0, 40.0, 35.0), step=40_000)
    assert compare(tmp_path) == 3
    row = table(tmp_path, "tasks", "task").loc["walker-walk"]
    assert row["evaluations"] == 0
    assert np.isnan(row["ours"])


def test_what_is_not_compared_is_named(tmp_path, published, capsys):
    runs = tmp_path / "runs"
    ours(runs, "walker-walk", (905.0, 915.0, 901.0))
    ours(runs, "walker-walk", (5.0, 6.0), method="dreamerv3")
    ours(runs, "walker-walk", (5.0,), method="sac", variant="small")
    compare(tmp_path)
    printed = capsys.readouterr().out
    assert "runs/dreamerv3/default/5/walker-walk: no published curve of this method" in printed
    assert "runs/sac/small: 1 run on 1 task: not variant=default (variant=small)" in printed


@pytest.mark.parametrize("task", ["mw-reach", "walker-walk"])
def test_seeds_that_agree_have_a_spread(tmp_path, task):
    """Three equal scores are no proof: a least variance holds, and the table says what may hide.

    Returns take it from the domain's other tasks; without any, nothing is claimed.
    """
    success = task == "mw-reach"
    scale = 1 if success else 1000
    header = "step,success,seed" if success else "step,reward,seed"
    lines = [f"100000,{scale},{seed}" for seed in (1, 2, 3)]
    write_table(tmp_path / "paper" / "tdmpc2" / f"{task}.csv", header, lines)
    facts = {"metric": "success", "domain": "metaworld"} if success else {}
    for seed in (1, 2, 3):
        points = {100_000: 0.9 * scale}
        write_run(tmp_path / "runs", points, task=task, seed=seed, budget=100_000, **facts)
    compare(tmp_path)
    row = table(tmp_path, "tasks", "task").loc[task]
    if success:
        # p = (27 + 1/2) / 31 and (30 + 1/2) / 31 of 10 episodes per score.
        shares = np.array([27.5, 30.5]) / 31
        expected = np.sqrt(100**2 * (shares * (1 - shares) / 10).sum() / 3)
        assert row["error"] == pytest.approx(expected)
        assert "3 of 3 seeds agree: a 21 % failure rate would look like this" in row["remark"]
    else:
        assert np.isnan(row["error"])
        assert "no task of this kind shows a spread" in row["remark"]
    assert row["verdict"] == "not enough data"


def test_a_domain_that_cannot_be_settled_does_not_decide(tmp_path, capsys):
    lines = [f"100000,{score},{seed}" for seed, score in enumerate((100, 500, 900))]
    write_table(tmp_path / "paper" / "tdmpc2" / "walker-walk.csv", "step,reward,seed", lines)
    ours(tmp_path / "runs", "walker-walk", (450.0, 500.0, 550.0), step=100_000)
    assert compare(tmp_path) == 3
    domain = table(tmp_path, "domains", "domain").loc["dmcontrol"]
    assert domain["verdict"] == "cannot be settled"
    assert "cannot be settled with 3 published seeds" in capsys.readouterr().out


def test_a_run_that_ends_before_the_first_published_evaluation(tmp_path, published):
    ours(tmp_path / "runs", "walker-walk", (30.0, 40.0), step=10_000)
    assert compare(tmp_path) == 3
    row = table(tmp_path, "tasks", "task").loc["walker-walk"]
    assert row["remark"] == "ends before the first published evaluation at 100,000"
    assert np.isnan(row["difference"])


def test_methods_and_variants_are_kept_apart(tmp_path, published):
    runs = tmp_path / "runs"
    ours(runs, "walker-walk", (905.0, 915.0, 901.0))
    ours(runs, "walker-walk", (105.0, 115.0, 101.0), method="sac")
    ours(runs, "walker-walk", (5.0, 6.0, 7.0), variant="no-simnorm")
    assert compare(tmp_path, "methods=tdmpc2") == 0
    assert compare(tmp_path) == 1
    assert set(table(tmp_path, "tasks", "method").index) == {"tdmpc2", "sac"}
    assert table(tmp_path, "tasks", "method")["margin"].tolist() == [10, 10]
    assert table(tmp_path, "domains", "method")["margin"].to_dict() == {"sac": 5, "tdmpc2": 3}
    assert compare(tmp_path, "variant=no-simnorm") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["variant=none"], "no run of variant 'none'"),
        (["margin=0"], "margin=0.0: must lie in"),
        (["margn=1"], "did you mean 'margin'"),
        (["tasks=acrobot-*"], "no record of task"),
    ],
)
def test_bad_arguments(tmp_path, published, arguments, message):
    ours(tmp_path / "runs", "walker-walk", (905.0, 915.0))
    with pytest.raises(UserError, match=message):
        compare(tmp_path, *arguments)


def test_without_published_curves_the_error_names_the_download(tmp_path, published, monkeypatch):
    with pytest.raises(UserError, match="fetch_published"):
        reproduce.main([f"runs={tmp_path}"])
    ours(tmp_path / "runs", "walker-walk", (905.0,))
    for arguments in ((), ("published=none",)):
        with pytest.raises(UserError, match="the released curves are missing"):
            reproduce.main([f"runs={tmp_path / 'runs'}", *arguments])
        monkeypatch.setenv("TDMPC2_PUBLISHED", str(published))
    assert reproduce.main([f"runs={tmp_path / 'runs'}"]) == 3


def agents(runs: Path, scores: tuple[float, ...], *, updates: int = 10_000_000, **facts) -> None:
    for seed, score in enumerate(scores, start=1):
        points = {0: (0.0, 0.0), updates: (score, score)}
        write_multitask_run(runs, points, task_set="mt80", size="5", seed=seed, **facts)


@pytest.mark.parametrize(
    ("scores", "facts", "code", "verdict"),
    [
        ((49.4, 49.6, 49.5), {}, 0, "reproduced"),
        ((39.4, 39.6, 39.5), {}, 1, "worse"),
        ((39.5, 59.5), {}, 3, "not enough data"),
        ((49.4, 49.6), {"updates": 1000}, 3, "open"),
    ],
)
def test_multi_task_agents_need_no_published_curves(tmp_path, capsys, scores, facts, code, verdict):
    """The score of the 5M agent in Table 1 is 49.5."""
    agents(tmp_path / "runs", scores, **facts)
    arguments = [f"runs={tmp_path / 'runs'}", f"out={tmp_path / 'out'}"]
    assert reproduce.main(arguments) == code
    claims = table(tmp_path, "multitask", "model_size")
    assert claims.loc[5, "verdict"] == verdict
    assert claims.drop(index=5)["remark"].tolist() == ["no run"] * 4
    assert "TD-MPC2" not in capsys.readouterr().err
    assert not (tmp_path / "out" / "reproduction_tasks.csv").exists()


def test_multi_task_agents_beside_others(tmp_path, published, capsys):
    ours(tmp_path / "runs", "walker-walk", (905.0, 915.0, 901.0))
    assert compare(tmp_path) == 0
    printed = capsys.readouterr().out
    assert printed.count("no run") == 5
    agents(tmp_path / "runs", (39.4, 39.6, 39.5))
    assert compare(tmp_path) == 1
    assert compare(tmp_path, "tasks=walker-walk") == 0
    assert compare(tmp_path, "methods=sac,tdmpc2", "domain_margin=15") == 0
    assert set(table(tmp_path, "tasks", "task").index) == {"walker-walk"}
    capsys.readouterr()
    agents(tmp_path / "runs", (10.0, 11.0), variant="no-simnorm")
    assert compare(tmp_path, "variant=no-simnorm") == 3
    assert "no run" not in capsys.readouterr().out


def test_the_published_curves_reproduce_themselves(published_curves, tmp_path):
    """Compared with themselves, released curves are reproduced or, with high variance, open."""
    arguments = [f"curves={published_curves}", f"published={published_curves}", "tasks=mw-*"]
    with pytest.raises(UserError, match="same source"):
        reproduce.main([f"runs={tmp_path}", *arguments])
    mine = tmp_path / "mine"
    shutil.copytree(published_curves, mine)
    arguments[0] = f"curves={mine}"
    (tmp_path / "none").mkdir()
    assert reproduce.main([f"runs={tmp_path / 'none'}", f"out={tmp_path / 'out'}", *arguments]) == 0
    verdicts = table(tmp_path, "tasks", "task")["verdict"].value_counts()
    assert set(verdicts.index) <= {"reproduced", "not enough data"}
    assert verdicts["reproduced"] == 108  # of 200: three seeds do not settle the others


def test_the_plan_states_losses_and_seeds_before_any_run(tmp_path, published, capsys):
    arguments = ["plan=true", f"published={published}", f"runs={tmp_path / 'nowhere'}"]
    assert reproduce.main([*arguments, "methods=tdmpc2", "seeds=5"]) == 0
    title, line = capsys.readouterr().out.splitlines()
    assert "80 % probability" in title
    assert line.startswith("tdmpc2, dmcontrol (2 tasks): 5 seeds find a loss of 1.4 points (")
    assert line.endswith("; equal within ±3 needs 2 seeds (2 to over 100)")
    assert reproduce.main([*arguments, "tasks=cup-*"]) == 0
    assert capsys.readouterr().out.count("(1 task): 3 seeds") == 2


def test_the_plan_of_the_documentation_is_current(published_curves, capsys):
    """If this fails: copy the printed lines to docs/analysis.md."""
    assert reproduce.main(["plan=true", "seeds=5", f"published={published_curves}"]) == 0
    printed = capsys.readouterr().out.splitlines()
    text = (project_root() / "docs" / "analysis.md").read_text()
    shown = [line for line in text.splitlines() if ": 5 seeds find a loss of" in line]
    assert len(shown) == 2
    assert set(shown) <= set(printed)


def test_the_plan_finds_what_the_comparison_finds(published):
    """Our seeds against the published ones, drawn from the spread that the plan assumes."""
    curves = ScoreCurves(load_curves(published, "published").select(methods=["tdmpc2"]))
    (row,) = reproduction_power(curves, 4, None).to_dict("records")
    # Means of the evaluations at 100k and 200k: ¾ of 90, 91 and 92 points, a spread of 0.75.
    rng = np.random.default_rng(0)
    found = []
    for _ in range(2000):
        tasks = [
            difference(
                0.75 * rng.standard_normal(4) - row["loss"],
                0.75 * rng.standard_normal(3),
                (0.75**2, 0.75**2),  # the lower quartile of the tasks' variances
            )
            for _ in range(2)
        ]
        found.append(mean_difference(tasks).p_value < 0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


def test_a_plan_without_published_curves_is_refused(tmp_path, published):
    with pytest.raises(UserError, match="does not exist"):
        reproduce.main(["plan=true", f"published={tmp_path / 'nowhere'}"])
    with pytest.raises(UserError, match="no curves of the chosen methods"):
        reproduce.main(["plan=true", f"published={published}", "methods=dreamerv3"])


def test_an_interval_that_does_not_cover_95_percent_says_what_it_covers(
    tmp_path, published, capsys
):
    """Pools of two far-apart values: two of three seeds often agree, so intervals are too short."""
    for seed, score in ((1, 0.0), (2, 0.0), (3, 1000.0)):
        write_run(tmp_path / "runs", {0: 0.0, 200_000: score}, seed=seed, budget=200_000)
    compare(tmp_path)
    tasks = table(tmp_path, "tasks", "task")
    share = tasks.loc["walker-walk", "coverage"]
    assert 0.4 < share < 0.92
    shown = re.search(r"\[.*?\] \((\d+) %\)", capsys.readouterr().out)
    assert shown is not None
    assert int(shown[1]) == round(100 * share)


@pytest.mark.parametrize(
    ("coverage", "text"),
    [(0.95, "1.0 [0.0, 2.0]"), (float("nan"), "1.0 [0.0, 2.0]"), (0.8, "1.0 [0.0, 2.0] (80 %)")],
)
def test_texts_of_differences(coverage, text):
    assert estimate_text(1.0, 0.0, 2.0, coverage) == text


def test_a_difference_without_an_interval():
    assert estimate_text(1.0, float("nan"), float("nan"), float("nan")) == "1.0"


def test_coverage_is_that_of_the_evaluations_compared(tmp_path, published):
    """Our evaluation at half of the only common step, by far the worst, does not count."""
    found = []
    for early in (True, False):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        for seed, score in ((1, 440.0), (2, 450.0), (3, 470.0)):
            scores = {0: 0.0, **({50_000: 10.0 * seed} if early else {}), 100_000: score}
            write_run(tmp_path / "runs", scores, seed=seed, budget=100_000)
        compare(tmp_path)
        found.append(table(tmp_path, "tasks", "task").loc["walker-walk"])
    assert [row["evaluations"] for row in found] == [1, 1]
    assert found[0]["coverage"] == found[1]["coverage"] > 0.8
