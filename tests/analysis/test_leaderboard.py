"""Leaderboard: readers of result files, copies among sources, and tables by hand."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import export_results, import_results, leaderboard
from analysis.figures.leaderboard_plots import coverage_text, method_styles
from analysis.figures.registry import shipped_catalog
from analysis.records import curve_checks
from analysis.records.field_results import Series, read_field, report_field
from analysis.records.interchange import write_interchange
from analysis.records.load import load
from analysis.records.problems import Problem
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.copies import compare_all, united
from analysis.stats.coverage import level_label, simulated
from analysis.stats.leaderboard import leaderboard as compare
from analysis.stats.leaderboard import methods_of, text_table
from analysis.stats.run_series import series_of
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.tasks import TASKS
from tests.test_architecture import ROOT

TASKS_BY_HAND = ("walker-walk", "walker-run", "cup-catch")
FIELD = Path(os.environ.get("TDMPC2_FIELD_RESULTS", ROOT.parent / "shared/data/field_results"))
PUBLISHED = os.environ.get("TDMPC2_PUBLISHED")
needs_data = pytest.mark.skipif(
    not (FIELD.is_dir() and PUBLISHED), reason="the result files of other methods are not here"
)


def curve(
    method: str, task: str, seed: int | None, values: list[float], source: str = "hand"
) -> Series:
    """A curve with evaluations every 100,000 env steps."""
    steps = 100_000 * np.arange(len(values))
    kind = TASKS[task].metric if task in TASKS else "return"
    return Series(source, method, task, seed, steps, np.array(values), kind)


def by_hand() -> list[Series]:
    """Three methods on three tasks: `b` has only means, and `c` ends after 100,000 env steps."""
    found = []
    for place, task in enumerate(TASKS_BY_HAND):
        found += [curve("tdmpc2", task, seed, [0, 500, 600 + 100 * seed]) for seed in (1, 2)]
        found += [curve("b", task, None, [0, 400, 900 - 100 * place])]
    found += [curve("c", task, seed, [0, 300]) for task in TASKS_BY_HAND for seed in (1, 2)]
    return found


def test_a_table_by_hand() -> None:
    problems: list[Problem] = []
    board = compare("dmcontrol", TASKS_BY_HAND, methods_of(by_hand()), problems)
    assert board is not None
    assert (board.step, board.tasks, board.group_size) == (100_000, TASKS_BY_HAND, 3)
    assert board.table["method"].tolist() == ["tdmpc2", "b", "c"]
    assert board.table["mean"].tolist() == [50, 40, 30]
    assert board.table["seeds"].tolist() == ["2", "unknown", "2"]
    assert np.isnan(board.table["mean_low"]).all()  # seeds agree: no spread, no interval
    assert board.table["improvement"].tolist()[2] == 0
    assert not problems


def test_a_later_step_without_the_short_method() -> None:
    pair = [one for one in by_hand() if one.method != "c"]
    board = compare("dmcontrol", TASKS_BY_HAND, methods_of(pair), [])
    assert board is not None
    assert board.step == 200_000
    by_method = board.table.set_index("method")
    # Seeds at 700 and 800 on each task: the mean 75, its standard error 5 / sqrt(3) points.
    assert by_method.loc["tdmpc2", "mean"] == pytest.approx(75)
    half = (by_method.loc["tdmpc2", "mean_high"] - by_method.loc["tdmpc2", "mean_low"]) / 2
    assert half == pytest.approx(3.182446 * 5 / np.sqrt(3), rel=1e-4)  # t with 3 degrees of freedom
    assert by_method.loc["b", "mean"] == pytest.approx(80)
    assert np.isnan(by_method.loc["b", "iqm"])
    assert board.per_task["b (hand)"].tolist() == [90, 80, 70]
    assert board.curves["tdmpc2 (hand)"].tolist() == [50, 75]


def test_the_table_names_the_method_that_probabilities_compare_with() -> None:
    def column(series: list[Series]) -> tuple[str, list[str]]:
        board = compare("dmcontrol", TASKS_BY_HAND, methods_of(series), [])
        assert board is not None
        table = text_table(board)
        return str(table.columns[-1]), table.set_index("method").iloc[:, -1].to_list()

    everything = by_hand()
    assert column(everything) == ("P(better than tdmpc2) [95 %]", ["—", "—", "0.00"])
    others = [one for one in everything if one.method != "tdmpc2"]
    # Means without seeds have no probability, so `b` cannot be the reference.
    assert column(others) == ("P(better than c) [95 %]", ["—", "—"])
    again = [curve("tdmpc2", t, s, [0, 900], "other") for t in TASKS_BY_HAND for s in (1, 2)]
    name, cells = column([*everything, *again])
    assert name == "P(better than tdmpc2 (hand)) [95 %]"
    assert cells[0] == "1.00"
    means = [curve("tdmpc2", task, None, [0, 500]) for task in TASKS_BY_HAND]
    assert column([*means, *others, *again])[0] == "P(better than tdmpc2 (other)) [95 %]"


def test_levels_are_those_of_the_intervals() -> None:
    """No interval is called one of 95 % where all have another coverage."""
    low = [
        curve(name, task, seed, [0, 1000 * (seed > 1)])
        for name in ("tdmpc2", "b")
        for task in TASKS_BY_HAND
        for seed in range(1, 7)
    ]
    board = compare("dmcontrol", TASKS_BY_HAND, methods_of(low), [])
    assert board is not None
    styles = method_styles([board], shipped_catalog())
    for shares, text in (
        ([0.95, 0.95], "95 %"),
        ([0.95, 0.8], "95 %; measured coverage of the others: b, DMControl: 80 %"),
        ([0.7, 0.8], "measured coverage: TD-MPC2, DMControl: 70 %; b, DMControl: 80 %"),
    ):
        rows = board.table.assign(mean_coverage=shares)
        assert coverage_text([replace(board, table=rows)], styles, shipped_catalog()) == text


def test_intervals_end_at_possible_scores_and_state_their_coverage() -> None:
    wide = [
        curve(name, task, seed, [0, value])
        for name in ("tdmpc2", "b")
        for task in TASKS_BY_HAND
        for seed, value in ((1, 0), (2, 1000), (3, 1000))
    ]
    board = compare("dmcontrol", TASKS_BY_HAND, methods_of(wide), [])
    assert board is not None
    row = board.table.iloc[0]
    assert row["mean"] == pytest.approx(200 / 3)
    assert row["mean_high"] == 100
    pools = ((0.0, 1.0, 1.0),) * 3
    expected = simulated("mean", pools, (3, 3, 3), Bootstrap(1000))
    assert row["mean_coverage"] == expected
    shown = text_table(board)["mean [95 %]"].iloc[0]
    label = level_label(expected)
    assert shown.endswith("100.0]" if label == "95 %" else f"100.0] ({label})")
    assert level_label(0.8) == "80 %"


def test_legends_name_methods_once_and_sources_where_needed() -> None:
    series = [*by_hand(), *(curve("tdmpc2", t, 1, [0, 1], "other") for t in TASKS_BY_HAND)]
    board = compare("dmcontrol", TASKS_BY_HAND, methods_of(series), [])
    assert board is not None
    styles = method_styles([board], shipped_catalog())
    labels = [style.label for style in styles.values()]
    assert labels == ["TD-MPC2 (hand)", "TD-MPC2 (other)", "b", "c"]
    looks = {(style.color, style.marker, style.dashes) for style in styles.values()}
    assert len(looks) == len(styles)


def test_thirty_methods_have_different_looks() -> None:
    series = [curve(f"m{n}", task, 1, [0, 1]) for n in range(30) for task in TASKS_BY_HAND]
    board = compare("dmcontrol", TASKS_BY_HAND, methods_of(series), [])
    assert board is not None
    styles = method_styles([board], shipped_catalog()).values()
    assert len({(style.color, style.marker, style.dashes) for style in styles}) == 30


def test_missing_tasks_are_named_and_never_filled() -> None:
    few = [*by_hand(), *(curve("d", task, 1, [0, 900]) for task in TASKS_BY_HAND[:2])]
    problems: list[Problem] = []
    board = compare("dmcontrol", TASKS_BY_HAND, methods_of(few), problems)
    assert board is not None
    assert "d" not in board.table["method"].tolist()
    assert "d (hand) left out: 2 of 3 tasks, 2 in common with the others" in problems[0].what


def test_copies_are_united_and_independent_runs_are_not() -> None:
    generator = np.random.default_rng(0)
    names = list(TASKS)[:6]
    values = {name: (900 * generator.random((3, 12)) + 50) for name in names}
    scale = {name: 1 if TASKS[name].metric == "return" else 1e-3 for name in names}

    def source(name: str, numbers: dict[str, np.ndarray], tasks: list[str]) -> list[Series]:
        return [
            curve("sac", task, seed, (row * scale[task]).tolist(), name)
            for task in tasks
            for seed, row in enumerate(numbers[task])
        ]

    original = source("original", values, names[:5])
    rounded = source("copy", {task: x.round(1) for task, x in values.items()}, names)
    other = source("other", {task: x + 5 for task, x in values.items()}, names)
    kept, copies = united([*original, *rounded, *other])
    assert [(copy.first[0], copy.second[0]) for copy in copies] == [("original", "copy")]
    assert {one.source for one in kept} == {"original", "other"}
    assert {one.task for one in kept if one.source == "original"} == set(names)
    assert len(kept) == 2 * 6 * 3


BROKEN: dict[str, tuple[str, str, str]] = {
    "missing column": ("a.csv", "exp_name,env_name,metric,env_step,value\n", "a.csv:1: .*seed"),
    "unknown metric": (
        "a.csv",
        "exp_name,env_name,seed,metric,env_step,value\nx,walker-walk,1,loss,0,1\n",
        "a.csv:2: unknown metric 'loss'",
    ),
    "not a number": (
        "a.csv",
        "exp_name,env_name,seed,metric,env_step,value\nx,walker-walk,1,avg_return,0,many\n",
        "a.csv:2: .*many",
    ),
    "beyond the scale": (
        "a.json",
        json.dumps({"x": {"walker-walk": {"steps": [0], "values": [1e6]}}}),
        "a.json: x, walker-walk: .*skipped",
    ),
    "unequal lengths": (
        "a.json",
        json.dumps({"x": {"walker-walk": {"steps": [0, 1], "values": [1]}}}),
        "2 steps for 1 values",
    ),
    "no curve": ("a.json", json.dumps({"x": {"walker-walk": [1, 2]}}), "no lists 'steps'"),
    "no object": ("a.json", "[1]", "not an object"),
    "cut JSON": ("a.json", '{"x": {', "a.json:1: not JSON"),
    "ragged text": (
        "a.txt",
        "-----\nEnv: Dmc-walker-walk\nTimestep\tSeed 0\n0\t1.0\n5000\n",
        "a.txt:5: 1 fields",
    ),
    "text without a task": ("a.txt", "hello\n", "a.txt:1: no line Env"),
}


@pytest.mark.parametrize(("name", "text", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_refused_is_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    problems: list[Problem] = []
    read_field(path, problems)
    assert any(re.search(message, str(problem)) for problem in problems), problems


def test_duplicate_seeds_are_named_and_the_first_is_used(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    block = "-----\nEnv: Dmc-walker-walk\nTimestep\tSeed 0\tSeed 1\n0\t{}\t2.0\n5000\t3.0\t4.0\n"
    path.write_text(block.format("1.0") + block.format("9.0"))
    problems: list[Problem] = []
    first, second = read_field(path, problems)
    assert (first.task, first.seed, first.values.tolist()) == ("walker-walk", 0, [1.0, 3.0])
    assert (second.seed, second.steps.tolist()) == (1, [0, 5000])
    assert sum("occurs twice" in problem.what for problem in problems) == 2


def test_names_of_other_projects_are_those_of_the_task_table(tmp_path: Path) -> None:
    names = (
        "ball_in_cup-catch",
        "cartpole-swingup_sparse",
        "assembly-v2",
        "myo-reach",
        "Hopper-v4",
    )
    tasks = {name: {"steps": [0], "values": [0.5]} for name in names}
    (tmp_path / "a.json").write_text(json.dumps({"x": tasks}))
    found = [one.task for one in read_field(tmp_path / "a.json", [])]
    assert found == [
        *("cup-catch", "cartpole-swingup-sparse", "mw-assembly", "myo-hand-reach", "Hopper-v4")
    ]


def test_export_and_import_give_the_same_curves(tmp_path: Path) -> None:
    runs = ROOT / "paper_figures" / "recorded" / "walker-walk-5m"
    out = tmp_path / "own.csv"
    assert export_results.main([f"out={out}", f"runs={runs}"]) == 0
    (one,) = series_of(load(runs))
    (again,) = read_field(out, [])
    assert (again.method, again.task, again.seed) == (one.method, one.task, one.seed)
    assert np.array_equal(again.steps, one.steps)
    assert np.array_equal(again.values, one.values)


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "field.csv"
    write_interchange([one for one in by_hand() if one.seed is not None], file)
    assert import_results.main([str(file), "name=mine"]) == 0
    assert "mine" in capsys.readouterr().out
    options = [f"files={file}", f"published={file}", "groups=dmcontrol", f"out={tmp_path / 'out'}"]
    assert leaderboard.main(options) == 0
    assert "3 of 39" in capsys.readouterr().out
    assert (tmp_path / "out" / "dmcontrol.csv").exists()
    for name in ("sample_efficiency.png", "sample_efficiency.pdf"):
        assert (tmp_path / "out" / name).stat().st_size > 500
    drawn = pd.read_csv(tmp_path / "out" / "sample_efficiency.csv").set_index(
        ["method", "env_step"]
    )
    # `c` ends after 100,000 env steps, and its curve too; the others go on.
    assert drawn["mean"].to_dict() == {
        **{("tdmpc2", 100_000): 50, ("tdmpc2", 200_000): 75, ("c", 100_000): 30},
    }
    assert set(drawn["tasks"]) == {3}
    assert set(drawn["tasks_of_group"]) == {39}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["files=none.csv"], "none.csv: no such file"),
        (["groups=dmcontrl"], "no such suite .*dmcontrol"),
        (["results=/nowhere"], "results=/nowhere: no such folder"),
        (["methods=nobody"], "methods=nobody: no such method"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    file = tmp_path / "field.csv"
    write_interchange([one for one in by_hand() if one.seed is not None], file)
    with pytest.raises(UserError, match=message):
        leaderboard.main([f"published={file}", *arguments])


@needs_data
def test_the_field() -> None:
    """Copies are found without hints, and at least seven methods are compared."""
    problems: list[Problem] = []
    series = read_field(Path(str(PUBLISHED)), problems, "published")
    for path in sorted(FIELD.iterdir()):
        if path.suffix in (".csv", ".json"):
            series += read_field(path, problems)
    found = {(copy.first, copy.second) for copy in compare_all(series) if copy.found}
    assert (("published", "tdmpc2"), ("TD-MPC2", "tdmpc2")) in found
    assert (("published", "sac"), ("bmpc_1m", "sac")) in found
    assert not {
        pair for pair in found if ("bmpc_1m", "tdmpc2") in pair and "bmpc_4m" not in pair[1]
    }
    kept, _ = united(series)
    tasks = [name for name, task in TASKS.items() if task.domain == "dmcontrol"]
    board = compare("dmcontrol", tasks, methods_of(kept), problems)
    assert board is not None
    assert board.table["method"].nunique() >= 7
    assert not [problem for problem in problems if problem.severity == "error"]


def test_unknown_tasks_take_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    problems = [curve_checks.own_task(name, "a.csv", None) for name in ("it's", "b", "it's")]
    report_field([Problem("a.csv", 1, "unknown task 'x' in a sentence", "warning"), *problems])
    assert capsys.readouterr().err.splitlines() == [
        "warning: a.csv:1: unknown task 'x' in a sentence",
        "2 tasks without a normalized score: it's, b",
    ]
