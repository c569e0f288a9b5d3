"""Options that select the sources of records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis import make_figures, report, reproduce
from analysis.records import source_options
from analysis.records.load import Records
from analysis.records.problems import Problem
from analysis.records.run_folders import load_folders
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import recorded_folders
from tests.analysis.run_files import write_run, write_table

COMMANDS = {
    "make_figures": (make_figures.main, ("only=aggregate", "reps=200", "jobs=1")),
    "report": (report.main, ("reps=200",)),
    "reproduce": (reproduce.main, ()),
}


@pytest.fixture
def sources(tmp_path) -> list[str]:
    """Return options that name an empty folder of runs and two sources of curves."""
    (tmp_path / "runs").mkdir()
    lines = [f"{step},{step / 1000},{seed}" for step in (0, 100_000) for seed in (1, 2, 3)]
    for source in ("paper", "mine"):
        write_table(tmp_path / source / "tdmpc2" / "walker-walk.csv", "step,reward,seed", lines)
    named = (("runs", "runs"), ("published", "paper"), ("curves", "mine"))
    return [f"{option}={tmp_path / folder}" for option, folder in named]


def warning(runs: Path) -> str:
    return f"warning: runs={runs}: no runs there"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_without_runs_is_named_beside_other_sources(tmp_path, sources, capsys, name):
    main, arguments = COMMANDS[name]
    out = tmp_path / ("report.html" if name == "report" else "out")
    assert main([*sources, f"out={out}", *arguments]) in (0, 3)
    assert capsys.readouterr().err.splitlines().count(warning(tmp_path / "runs")) == 1


@pytest.mark.parametrize(
    ("released", "available", "advice"),
    [
        ("always", True, "or use the released curves with published="),
        ("always", False, "or download the paper's released curves"),
        ("beside runs", True, "first or name the folder of your runs with runs=DIR"),
        ("beside runs", False, "with runs=DIR; the released curves are missing"),
    ],
)
def test_without_any_record_the_advice_is_one_that_helps(
    tmp_path, sources, monkeypatch, released, available, advice
):
    if available:
        monkeypatch.setenv("TDMPC2_PUBLISHED", str(tmp_path / "paper"))
    else:
        monkeypatch.setattr(source_options, "cache_dir", lambda: tmp_path / "cache")
    options = source_options.SourceOptions(runs=str(tmp_path / "runs"))
    with pytest.raises(UserError) as refused:
        source_options.load_sources(options, released=released)
    assert advice in str(refused.value)
    if available and released == "always":
        named = source_options.SourceOptions(
            runs=str(tmp_path / "runs"), published=str(refused.value).partition("published=")[2]
        )
        assert len(source_options.load_sources(named, released=released).table)


def test_a_folder_with_a_run_or_the_default_one_is_not_named(tmp_path, sources, monkeypatch):
    runs, paper = tmp_path / "runs", tmp_path / "paper"
    options = source_options.SourceOptions(runs=str(runs), published=str(paper))

    def problems() -> list[str]:
        return [
            str(problem)
            for problem in source_options.load_sources(options, released="beside runs").problems
        ]

    assert problems() == [warning(runs)]
    write_run(runs, {})
    assert [line for line in problems() if "no runs there" in line] == []
    monkeypatch.setattr(source_options, "default_runs_dir", lambda: tmp_path / "paper" / ".." / "x")
    (tmp_path / "x").mkdir()
    options = source_options.SourceOptions(runs=str(tmp_path / "x"), published=str(paper))
    assert problems() == []


@pytest.mark.parametrize("name", COMMANDS)
def test_recorded_runs_and_a_folder_exclude_each_other(tmp_path, name):
    main, arguments = COMMANDS[name]
    with pytest.raises(UserError, match=r"runs= and recorded=true exclude each other"):
        main([f"runs={tmp_path}", "recorded=true", f"out={tmp_path / 'out'}", *arguments])
    assert not (tmp_path / "out").exists()


def test_recorded_runs_are_those_of_all_their_folders():
    """A run of a folder is there, or a longer record of it from another folder.

    Runs in two precisions are told apart only where one task and seed has both.
    """
    options = source_options.SourceOptions(recorded=True)
    found = source_options.load_sources(options, multitask=True)
    key = ["method", "variant", "model_size", "task", "seed"]

    def runs_of(records: Records) -> set[tuple[Any, ...]]:
        runs = records.runs[key].fillna("")
        runs["variant"] = runs["variant"].str.replace(r"\[precision=\w+\]", "", regex=True)
        return set(map(tuple, runs.to_numpy()))

    together = runs_of(found)
    for folder in recorded_folders():
        alone = runs_of(load_folders([folder]))
        assert alone
        assert alone <= together


def test_figures_of_the_recorded_runs(tmp_path, capsys):
    arguments = ["recorded=true", f"out={tmp_path}", "only=multitask_tasks", "tables=true"]
    assert make_figures.main(arguments) == 0
    assert "cheetah-run-backwards" in (tmp_path / "multitask_tasks.csv").read_text()
    assert str(tmp_path / "multitask_tasks.csv") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("listed", "last"), [("", "... and 2 more"), ("see problems.csv", "... and 2 more, see p")]
)
def test_a_file_that_lists_all_problems_is_named_if_there_is_one(capsys, listed, last):
    source_options.report([Problem(f"run {n}", None, "damaged") for n in range(22)], listed)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == source_options.SHOWN_PROBLEMS + 1
    assert lines[-1].startswith(last)
    assert bool(listed) == ("problems.csv" in lines[-1])


def test_runs_of_several_folders_are_shown_together(tmp_path):
    """A folder with a comma in its name is one folder."""
    folders = [tmp_path / "one", tmp_path / "a, b"]
    for seed, folder in enumerate(folders, start=1):
        write_run(folder, {0: 1.0, 1000: 2.0}, seed=seed)

    def seeds(text: str) -> list[int]:
        options = source_options.SourceOptions(runs=text)
        return sorted(source_options.load_sources(options).runs["seed"])

    write_run(tmp_path / "two", {0: 1.0, 1000: 2.0}, seed=3)
    assert seeds(f"{tmp_path / 'one'},{tmp_path / 'two'}") == [1, 3]
    assert seeds(str(folders[1])) == [2]
    with pytest.raises(UserError, match=r"runs=.*/three does not exist"):
        seeds(f"{tmp_path / 'one'},{tmp_path / 'three'}")
