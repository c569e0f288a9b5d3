"""Result files of the options files= and results=: which are read, and under which name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from analysis import export_results, import_results, leaderboard, report
from analysis.figures.figure_specs import Catalog
from analysis.figures.leaderboard_plots import efficiency_figure, method_styles
from analysis.figures.learning_plots import power_text
from analysis.figures.output import write_figure
from analysis.figures.page import paper_style
from analysis.figures.registry import shipped_catalog
from analysis.figures.styles import series_styles
from analysis.html_report.leaderboard import leaderboard_page
from analysis.records.field_results import Series, read_field, read_files
from analysis.records.load import load, load_curves
from analysis.records.problems import Problem
from analysis.stats.leaderboard import leaderboard as compare
from analysis.stats.leaderboard import methods_of
from analysis.stats.run_series import series_of
from tdmpc2.common.system.errors import UserError
from tests.analysis.run_files import write_run, write_table

HEADER = "method,task,seed,step,return"
LINES = ["sac,walker-walk,1,0,5", "sac,walker-walk,1,1000,7"]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    file = write_table(tmp_path / "lab" / "x.csv", HEADER, LINES)
    again = tmp_path / "lab" / ".." / "lab" / "x.csv"
    (one,) = read_files(f"{file},{again}", file.parent, [])
    assert (one.source, one.seed, one.steps.tolist()) == ("x", 1, [0, 1000])


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """Their curves would count as further seeds of one method."""
    first = write_table(tmp_path / "old" / "x.csv", HEADER, LINES)
    second = write_table(tmp_path / "new" / "x.csv", HEADER, LINES)
    for options in ([f"files={first},{second}"], [f"files={first}", f"results={tmp_path / 'new'}"]):
        message = f"{re.escape(f'{first}, {second}')}: both would be .*different names"
        with pytest.raises(UserError, match=message):
            leaderboard.main(["published=none", *options])


@pytest.mark.parametrize("name", ["published", "own runs", "runs"])
def test_names_of_other_sources_are_refused(tmp_path: Path, name: str) -> None:
    file = write_table(tmp_path / f"{name}.csv", HEADER, LINES)
    with pytest.raises(UserError, match=f"another source is named '{name}'"):
        leaderboard.main(["published=none", f"files={file}"])
    (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match=f"curves=.*'{name}' is the name of a source"):
        report.main([f"runs={tmp_path / 'here'}", f"curves={file}"])


def test_the_report_refuses_a_file_with_the_name_of_other_curves(tmp_path: Path) -> None:
    mine = write_table(tmp_path / "mine.csv", HEADER, LINES)
    file = write_table(tmp_path / "lab" / "mine.csv", HEADER, LINES)
    write_run(tmp_path / "here", {0: 0.0, 100_000: 30.0})
    options = [f"runs={tmp_path / 'here'}", f"curves={mine}", f"files={file}"]
    with pytest.raises(UserError, match="another source is named 'mine'"):
        report.main(options)


NESTED = {"deep": "[" * 100_000, "long number": "1" * 5000}


@pytest.mark.parametrize("text", NESTED.values(), ids=NESTED)
def test_json_that_python_cannot_read_is_one_problem(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(f'{{"sac": {text}')
    problems: list[Problem] = []
    assert read_field(file, problems) == []
    (problem,) = problems
    assert (problem.where, problem.severity) == (str(file), "error")


def test_deep_metrics_of_sacred_are_one_problem(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "config.json").write_text(json.dumps({"task": "walker-walk", "seed": 1}))
    metrics = tmp_path / "1" / "metrics.json"
    metrics.write_text("[" * 100_000)
    (problem,) = load_curves(tmp_path, "x", "sacred").problems
    assert problem.where == str(tmp_path / "1")
    deep = "[" * 700 + "]" * 700  # Python reads it, but the mean of it is nested too deeply
    metrics.write_text(f'{{"return": {{"steps": [0, 9], "values": [{deep}, 5.0]}}}}')
    records = load_curves(tmp_path, "x", "sacred")
    assert records.table["value"].tolist() == [5.0]
    assert "entry 1" in records.problems[0].what


def labels_of(series: list[Series], catalog: Catalog) -> list[str]:
    board = compare("dmcontrol", SOME_TASKS, methods_of(series), [])
    assert board is not None
    return [style.label for style in method_styles([board], catalog).values()]


SOME_TASKS = ("walker-walk", "walker-run", "cup-catch")


def curves_of(source: str, method: str, score: float) -> list[Series]:
    steps, values = np.array([0, 1000]), np.array([0.0, score])
    return [
        Series(source, method, task, seed, steps, values + seed, "return")
        for task in SOME_TASKS
        for seed in (1, 2)
    ]


def test_methods_whose_names_have_one_label_are_told_apart(tmp_path: Path) -> None:
    """The label of `sac` is SAC, which another file may call its method."""
    catalog = shipped_catalog()
    released, theirs = curves_of("published", "sac", 500), curves_of("lab", "SAC", 700)
    assert labels_of([*released, *theirs], catalog) == ["SAC (published)", "SAC (lab)"]
    own = curves_of("lab", "sac", 100)
    assert labels_of([*own, *theirs], catalog) == ["sac (lab)", "SAC (lab)"]
    page = leaderboard_page(load(tmp_path), [*released, *theirs], catalog)
    assert page is not None
    columns = page["groups"][0]["tasks"]["columns"]
    assert len(columns) == 3, columns


def test_series_whose_names_have_one_label_are_told_apart(tmp_path: Path) -> None:
    lines = ["sac,walker-walk,1,0,5", "SAC,walker-walk,1,0,5"]
    records = load_curves(write_table(tmp_path / "x.csv", HEADER, lines), "x")
    labels = [style.label for style in series_styles(records.runs, shipped_catalog()).values()]
    assert labels == ["sac", "SAC"]


@pytest.mark.parametrize("name", ["x$_{$", "cost $5 and $6"])
def test_dollar_signs_in_names_are_no_formulas(tmp_path: Path, name: str) -> None:
    series = [*curves_of("lab", name, 500), *curves_of("lab", "sac", 700)]
    board = compare("dmcontrol", SOME_TASKS, methods_of(series), [])
    assert board is not None
    with paper_style():
        page, _ = efficiency_figure([board], shipped_catalog())
        (text,) = [one for one in page.legends[0].get_texts() if "$" in one.get_text()]
        assert (text.get_text(), text.get_parse_math()) == (name, False)
        assert list(write_figure(tmp_path / "figure", [page]))


def test_ticks_of_logarithmic_axes_need_no_formulas() -> None:
    assert [power_text(value) for value in (1000, 1, 1e-12, 30)] == ["10³", "10⁰", "10⁻¹²", "30"]


def test_model_sizes_are_no_further_seeds(tmp_path: Path) -> None:
    for size in (1, 5):
        write_run(tmp_path, {0: 0.0, 100_000: 30.0}, model_size=size, tag=f"{size}123456789")
    write_run(tmp_path, {0: 0.0, 100_000: 30.0}, method="sac", model_size=5)
    found = sorted(one.method for one in series_of(load(tmp_path)))
    assert found == ["sac", "tdmpc2 (1M)", "tdmpc2 (5M)"]


def test_files_with_the_same_curves_are_not_written_as_one(tmp_path: Path) -> None:
    files = [write_table(tmp_path / name, HEADER, LINES) for name in ("a.csv", "b.csv")]
    out = tmp_path / "out.csv"
    with pytest.raises(UserError, match="sac, walker-walk, seed 1 is in a and b"):
        import_results.main([*map(str, files), f"out={out}"])
    assert not out.exists()
    assert import_results.main([str(files[0]), str(files[0]), f"out={out}"]) == 0
    assert len(out.read_text().splitlines()) == 3


def test_success_of_users_tasks_is_exported_as_success(tmp_path: Path) -> None:
    own = {"task": "my-arm", "domain": "gymnasium", "metric": "success"}
    write_run(tmp_path / "runs", {0: 0.0, 100_000: 0.5}, **own)
    out = tmp_path / "out.csv"
    assert export_results.main([f"runs={tmp_path / 'runs'}", f"out={out}"]) == 0
    assert out.read_text().splitlines()[-1] == "tdmpc2,my-arm,1,avg_success,100000,0.5"
    (series,) = read_field(out, [])
    assert series.scores.tolist() == [0, 50]


def test_repeated_steps_are_named(tmp_path: Path) -> None:
    more = [*LINES, "sac,walker-walk,1,1000,9", "sac,walker-walk,1,0,6"]
    problems: list[Problem] = []
    (series,) = read_field(write_table(tmp_path / "x.csv", HEADER, more), problems)
    assert series.values.tolist() == [5.5, 8]
    (problem,) = problems
    assert problem.severity == "warning"
    assert problem.what == (
        "sac, walker-walk, seed 1: 2 values of repeated steps; each step has the mean of its values"
    )


def test_released_curves_are_the_same_in_the_leaderboard_and_in_the_report(tmp_path: Path) -> None:
    """`leaderboard.py` reads them as result files, the report as records."""
    lines = ["0,1,1", "100,4,1", "50,2,1", "100,8,1"]
    write_table(tmp_path / "paper" / "sac" / "dog-run.csv", "step,reward,seed", lines)
    (one,) = read_field(tmp_path / "paper", [], "published")
    (other,) = series_of(load_curves(tmp_path / "paper", "published"))
    for series in (one, other):
        assert (series.steps.tolist(), series.values.tolist()) == ([0, 50, 100], [1, 2, 6])


def test_empty_names_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    curve = {"steps": [0], "values": [1]}
    file.write_text(json.dumps({"": {"walker-walk": curve}, "sac": {"": curve}}))
    table = tmp_path / "x.txt"
    table.write_text("Timestep\tSeed 0\n0\t1\n")
    problems: list[Problem] = []
    assert [*read_field(file, problems), *read_field(table, problems)] == []
    assert [problem.what.removesuffix("; skipped") for problem in problems] == [
        "file: a method without a name",
        "sac, : no name of the task",
        ", Seed 0: no name of the task",
    ]


def test_suffixes_may_be_in_capitals(tmp_path: Path) -> None:
    write_table(tmp_path / "in" / "A.CSV", HEADER, LINES)
    curve = {"steps": [0], "values": [1]}
    (tmp_path / "in" / "B.JSON").write_text(json.dumps({"b": {"walker-walk": curve}}))
    problems: list[Problem] = []
    assert {one.method for one in read_files("", tmp_path / "in", problems)} == {"sac", "b"}
    assert problems == []
    assert len(read_field(tmp_path / "in", [])) == 1  # as a folder of CSV files


def test_names_of_files_may_look_like_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(tmp_path / "num_q=2.csv", HEADER, LINES)
    monkeypatch.chdir(tmp_path)
    assert import_results.main(["num_q=2.csv", "name=lab"]) == 0
    assert "lab" in capsys.readouterr().out
    with pytest.raises(UserError, match="num_q"):
        import_results.main(["num_q=3.csv"])
