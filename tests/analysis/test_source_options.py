"""Options that select the sources of records."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis import make_figures, report, reproduce
from analysis.records import source_options
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


def test_a_folder_with_a_run_or_the_default_one_is_not_named(tmp_path, sources, monkeypatch):
    runs, paper = tmp_path / "runs", tmp_path / "paper"
    options = source_options.SourceOptions(runs=runs, published=paper)

    def problems() -> list[str]:
        return [str(problem) for problem in source_options.load_sources(options).problems]

    assert problems() == [warning(runs)]
    write_run(runs, {})
    assert [line for line in problems() if "no runs there" in line] == []
    monkeypatch.setattr(source_options, "default_runs_dir", lambda: tmp_path / "paper" / ".." / "x")
    (tmp_path / "x").mkdir()
    options = source_options.SourceOptions(runs=tmp_path / "x", published=paper)
    assert problems() == []
