"""`make_figures.py` from end to end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import make_figures
from analysis.figures.figure_specs import read_catalog
from analysis.figures.registry import PLOTS
from analysis.records import source_options
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import project_root
from tdmpc2.envs.tasks import SUITES, get_suite
from tests.analysis.multitask_files import write_multitask_run
from tests.analysis.run_files import (
    HEADER,
    eval_line,
    write_reference_scores,
    write_run,
    write_table,
)

KINDS = ("pdf", "png", "csv", "md", "tex")
FILES = {f"{name}.{kind}" for name in ("learning_curves", "aggregate") for kind in KINDS}
LISTS = {"audit.csv", "sensitivity.csv", "problems.csv"}
OURS = "only=learning_curves,aggregate"
MT80 = [task.name for task in SUITES["mt80"]]
SCRIPT = project_root() / "analysis" / "make_figures.py"


@pytest.fixture
def runs(tmp_path) -> Path:
    folder = tmp_path / "runs"
    for task in ("cartpole-swingup", "walker-walk"):
        write_reference_scores(folder, task, (43.0, 12.0), (20.0, 5.0))
        for seed in (1, 2):
            write_run(folder, {0: 10.0, 1000: 100.0 * seed}, task=task, seed=seed)
    return folder


def draw(runs: Path, *arguments: str) -> tuple[int, Path]:
    out = runs.parent / "out"
    return make_figures.main([f"runs={runs}", f"out={out}", *arguments]), out


def _squeezed(path: Path) -> str:
    """Return a table without the blanks that align its columns."""
    return " ".join(path.read_text(encoding="utf-8").split())


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # The scripts run outside the checkout, where only an installed package would be found.
    path = os.pathsep.join(filter(None, [str(project_root()), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_figures_and_their_numbers(runs, capsys):
    code, out = draw(runs, OURS, "jobs=1")
    assert code == 0
    assert {path.name for path in out.iterdir()} == FILES | LISTS
    assert capsys.readouterr().out.split() == [
        *(f"{out}/{name}.{kind}" for name in ("learning_curves", "aggregate") for kind in KINDS),
        *(f"{out}/{name}.csv" for name in ("audit", "sensitivity")),
    ]
    assert (out / "learning_curves.pdf").read_bytes().startswith(b"%PDF")
    assert (out / "learning_curves.png").read_bytes().startswith(b"\x89PNG")

    curves = pd.read_csv(out / "learning_curves.csv")
    last = curves[(curves["task"] == "walker-walk") & (curves["step"] == 1000)].iloc[0]
    assert last[["mean", "low", "num_seeds", "reps"]].tolist() == [150, 0, 2, 1000]
    assert last["high"] == pytest.approx(150 + 50 * stats.t.ppf(0.975, 1))
    assert last[["seeds", "seed_values"]].tolist() == ["1 2", "100.0 200.0"]
    assert last[["uniform", "zero", "untrained", "threshold"]].tolist() == [43, 20, 10, 79]

    aggregate = pd.read_csv(out / "aggregate.csv").set_index("step")
    assert aggregate.loc[1000, "mean"] == pytest.approx(0.15)
    # Two tasks with two runs each of 0.1 and 0.2: two degrees of freedom.
    expected = 0.15 - 0.05 / np.sqrt(2) * stats.t.ppf(0.975, 2)
    assert aggregate.loc[1000, "low"] == pytest.approx(max(expected, 0))
    assert aggregate.loc[1000, "num_tasks"] == 2
    assert "| Walker Walk | return | 150.0 [0.0, 785.3] |" in _squeezed(out / "learning_curves.md")
    assert "Cartpole Swingup & return & 150.0 [0.0, 785.3]" in _squeezed(
        out / "learning_curves.tex"
    )
    assert pd.read_csv(out / "problems.csv").empty


def test_the_same_records_give_the_same_files(runs):
    first, second = (
        {path.name: path.read_bytes() for path in draw(runs, "only=aggregate")[1].iterdir()}
        for _ in range(2)
    )
    assert first == second


def test_only_draws_what_is_named(runs):
    _, out = draw(runs, "only=aggregate")
    assert {path.name for path in out.iterdir()} == {
        *(f"aggregate.{kind}" for kind in KINDS),
        *LISTS,
    }


def test_half_written_line_is_a_warning(runs, capsys):
    content = f"{HEADER}\n{eval_line(0, 10.0)}{eval_line(1000, 300.0)}2000,10"
    run = write_run(runs, {}, seed=3, task="walker-walk", eval_csv=content)
    code, _ = draw(runs, "only=learning_curves")
    assert code == 0
    assert f"warning: {run}/eval.csv:4: incomplete last line" in capsys.readouterr().err


def test_missing_column_costs_that_run_and_the_exit_code(runs, capsys):
    run = write_run(runs, {}, seed=3, task="walker-walk", eval_csv="env_step,score\n0,1\n")
    code, out = draw(runs, "only=learning_curves")
    assert code == 1
    assert f"error: {run}/eval.csv:1: missing column" in capsys.readouterr().err
    problems = pd.read_csv(out / "problems.csv")
    assert problems[["severity", "line"]].to_numpy().tolist() == [["error", 1]]
    curves = pd.read_csv(out / "learning_curves.csv")
    assert set(curves["seeds"]) == {"1 2"}


def test_long_lists_of_problems_are_cut_on_the_terminal_only(runs, capsys):
    for seed in range(10, 40):
        write_run(runs, {}, seed=seed, task="cup-catch")
    _, out = draw(runs, "only=learning_curves")
    error = capsys.readouterr().err.splitlines()
    error = [line for line in error if not line.startswith("audit: ")]
    assert len(error) == make_figures.SHOWN_PROBLEMS + 1
    assert error[-1] == "... and 10 more, see problems.csv"
    assert len(pd.read_csv(out / "problems.csv")) == 30


def test_figures_drawn_side_by_side_are_those_drawn_in_turn(runs, capsys):
    printed, written = [], []
    for jobs in (1, 2):
        code, out = draw(runs, OURS, f"jobs={jobs}", "reps=200")
        assert code == 0
        printed.append(capsys.readouterr())
        written.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert printed[0] == printed[1]
    assert written[0] == written[1]


def test_figures_without_runs_are_named_in_one_line(runs, capsys):
    code, out = draw(runs, "only=fig1,aggregate,visual,fig9_actor", "reps=200")
    assert code == 0
    assert not list(out.glob("fig*"))
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "warning: figures: not drawn, nothing to show: fig1, visual; run "
        "`python analysis/fetch_published.py`",
        "warning: figures: not drawn, nothing to show: fig9_actor; run "
        "`python ablations/run.py --all`",
    ]


def test_a_figure_that_no_series_can_be_drawn_in_names_the_reason(tmp_path, capsys):
    for method, task in (("sac", "cup-catch"), ("tdmpc2", "walker-walk")):
        write_run(tmp_path / "runs", {0: 0.0, 1000: 90.0}, method=method, task=task)
    assert draw(tmp_path / "runs", "only=aggregate", "reps=200")[0] == 0
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "not drawn" in line)
    assert line.startswith("warning: figure aggregate: not drawn: runs/sac/default/")
    assert "lacks 1 of 2 tasks (walker-walk); not aggregated, and 1 more" in line
    assert line.endswith("tasks= chooses tasks in common")


def test_published_and_own_curves_beside_the_runs(runs, tmp_path, capsys):
    lines = [f"{step},{step / 10},{seed}" for step in (0, 1000) for seed in (1, 2, 3)]
    write_table(tmp_path / "paper" / "tdmpc2" / "walker-walk.csv", "step,reward,seed", lines)
    mine = write_table(
        tmp_path / "mine.csv", "task,seed,step,return", ["walker-walk,1,0,7", "walker-walk,1,900,8"]
    )
    arguments = (f"published={tmp_path / 'paper'}", f"curves={mine}", "tasks=walker-*", "reps=200")
    code, out = draw(runs, "only=learning_curves", *arguments)
    assert code == 0
    table = pd.read_csv(out / "learning_curves.csv")
    assert set(table["source"]) == {"runs", "published", "mine"}
    assert set(table["task"]) == {"walker-walk"}
    last = table[(table["source"] == "published") & (table["step"] == 1000)].iloc[0]
    assert last[["mean", "low", "high", "num_seeds"]].tolist() == [100, 100, 100, 3]
    audit = pd.read_csv(out / "audit.csv")
    # The budget of imported curves is their last step, so that none of them ends early.
    assert set(audit["source"]) == {"runs", "published"}


def test_a_mistyped_folder_of_runs_is_not_passed_over(runs, tmp_path):
    mine = write_table(tmp_path / "mine.csv", "task,seed,step,return", ["walker-walk,1,0,7"])
    with pytest.raises(UserError, match=r"runs=.*missing does not exist"):
        make_figures.main([f"runs={runs.parent / 'missing'}", f"curves={mine}"])


def test_few_shot_bars_are_those_of_their_variants(tmp_path):
    folder = tmp_path / "runs"
    tasks = read_catalog(project_root() / "paper_figures" / "figures.toml", PLOTS)
    for task in tasks.groups["few_shot"].tasks:
        domain = {"domain": "metaworld", "metric": "success"} if task.startswith("mw-") else {}
        scale = 1 if domain else 1000
        for variant, score in (("scratch", 0.2), ("finetuned", 0.5), ("other", 0.9)):
            for seed in (1, 2):
                points = {0: 0.0, 20_000: scale * (score + 0.01 * seed)}
                facts = {"variant": variant, "budget": 20_000, **domain}
                write_run(folder, points, task=task, seed=seed, **facts)
    _, out = draw(folder, "only=fig8", "reps=200")
    table = pd.read_csv(out / "fig8.csv")
    assert table.loc[table["source"] == "quoted", "value"].tolist() == [0.24, 0.47]
    table = table[table["source"] == "runs"].set_index(["group", "variant"])["value"]
    assert table["few_shot"].to_dict() == pytest.approx({"scratch": 0.215, "finetuned": 0.515})
    assert set(table.index.get_level_values("group")) == {
        *("few_shot", "few_shot_dmcontrol", "few_shot_metaworld"),
    }


def test_multi_task_agents_are_kept_apart(runs):
    for variant, score in (("default", 50.0), ("no-simnorm", 25.0)):
        for size in ("5", "19"):
            points = {0: [0.0] * 80, 5_000_000: [score] * 80}
            facts = {"variant": variant, "size": size, "tag": size}
            write_multitask_run(runs, points, tasks=MT80, task_set="mt80", **facts)
    code, out = draw(runs, "only=fig9_bars,fig4,aggregate,multitask", "reps=200", "jobs=1")
    assert code == 0
    table = pd.read_csv(out / "fig9_bars.csv")
    table = table[table["source"] == "runs"].set_index("variant")["value"]
    assert table.to_dict() == pytest.approx({"default": 0.5, "no-simnorm": 0.25})
    assert not (out / "fig4.csv").exists()
    assert len(pd.read_csv(out / "aggregate.csv")) == 2
    assert set(pd.read_csv(out / "audit.csv")["task"]) == {"cartpole-swingup", "walker-walk"}
    assert "| TD-MPC2 (19M) | mt80 | 5,000,000 | 50.0 | 1 |" in _squeezed(out / "multitask.md")
    assert set(pd.read_csv(out / "problems.csv")["severity"]) == {"warning"}


def test_runs_of_several_tasks_alone_are_drawn(tmp_path):
    folder = tmp_path / "runs"
    write_multitask_run(folder, {0: (1.0, 2.0), 1000: (30.0, 50.0)}, num_parameters=5_000_000)
    code, out = draw(folder, "reps=200", "jobs=1")
    assert code == 0
    for name in ("fig7", "multitask", "multitask_tasks"):
        assert {f"{name}.{kind}" for kind in KINDS} <= {path.name for path in out.iterdir()}
    assert pd.read_csv(out / "audit.csv").empty
    with pytest.raises(UserError, match=r"no single-task run in .*, only 1 multi-task run"):
        source_options.load_sources(source_options.SourceOptions(runs=str(folder)))


def test_sets_of_tasks_are_chosen_by_name(runs):
    write_multitask_run(runs, {0: (1.0, 2.0)}, task_set="mine")
    arguments = ("only=multitask,aggregate", "reps=200", "jobs=1")
    code, out = draw(runs, "tasks=mine", *arguments)
    assert code == 0
    assert (out / "multitask.csv").exists()
    assert not (out / "aggregate.csv").exists()
    with pytest.raises(UserError, match="no record of task 'yours'"):
        draw(runs, "tasks=yours", *arguments)


def test_the_rule_is_chosen_and_named(runs):
    _, out = draw(runs, "only=aggregate", "rule=available", "reps=200")
    assert "excluded at those steps" in set(pd.read_csv(out / "audit.csv")["treatment"])
    assert "spread" in pd.read_csv(out / "sensitivity.csv").columns


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("published=missing", "published=.*missing does not exist"),
        ("curves=missing.csv", "curves=.*missing.csv does not exist"),
        ("tasks=walkr-*", "no record of task 'walkr-.'"),
        ("rule=hald", "unknown rule 'hald' .did you mean 'hold'"),
        ("reps=5", "reps=5: must lie in"),
        ("run=x", "unknown key 'run' .did you mean 'runs'"),
        ("only=aggregat", "unknown figure 'aggregat' .did you mean 'aggregate'"),
        ("aggregate", "not of the form key=value"),
    ],
)
def test_bad_arguments_write_nothing(runs, argument, message):
    with pytest.raises(UserError, match=message):
        draw(runs, argument)
    assert not (runs.parent / "out").exists()


def test_out_must_not_be_a_file(runs, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        make_figures.main([f"runs={runs}", f"out={tmp_path / 'file'}"])
    assert (tmp_path / "file").read_text() == "mine"


def test_no_run_says_what_to_run(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("missing", "does not exist"),
        ("empty", "launch.py suite=smoke seeds=2"),
    ):
        result = command(str(SCRIPT), f"runs={name}", "out=out", cwd=tmp_path)
        assert result.returncode == 2
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert str(tmp_path / name) in line
        assert message in line
    assert not (tmp_path / "out").exists()


def test_no_run_at_all_draws_the_released_curves(tmp_path, monkeypatch, capsys):
    """The released curves are drawn if they are available; else the error names the download."""
    monkeypatch.setattr(source_options, "default_runs_dir", lambda: tmp_path / "runs")
    monkeypatch.setenv("TDMPC2_PUBLISHED", str(tmp_path / "paper"))
    arguments = [f"out={tmp_path / 'out'}", "reps=200", "only=profiles,learning_curves"]
    with pytest.raises(UserError, match=r"TDMPC2_PUBLISHED=.*/paper does not exist"):
        make_figures.main(arguments)
    monkeypatch.delenv("TDMPC2_PUBLISHED")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"python analysis/fetch_published\.py"):
        make_figures.main(arguments)
    monkeypatch.setenv("TDMPC2_PUBLISHED", str(tmp_path / "paper"))
    for task in get_suite("all104"):
        column = "reward" if task.domain == "dmcontrol" else "success"
        lines = [f"{step},0.5,{seed}" for step in (0, task.env_steps) for seed in (1, 2, 3)]
        write_table(tmp_path / "paper" / "sac" / f"{task.name}.csv", f"step,{column},seed", lines)
    assert make_figures.main(arguments) == 0
    printed = capsys.readouterr()
    assert f"no run in {tmp_path / 'runs'}; using only the released curves" in printed.err
    assert "not drawn, nothing to show: learning_curves" in printed.err
    assert "profiles.png" in printed.out
    # They do not replace an explicitly given folder of runs.
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match="no run in"):
        make_figures.main([*arguments, f"runs={tmp_path / 'runs'}"])


def test_runs_without_evaluation_are_counted_and_listed(tmp_path, capsys):
    run = write_run(tmp_path / "runs", {})
    with pytest.raises(UserError, match="1 run without evaluation"):
        draw(tmp_path / "runs")
    assert capsys.readouterr().err == f"warning: {run}/eval.csv: no evaluation yet\n"


def test_script_and_module_run_from_any_directory(runs):
    arguments = ("runs=runs", "out=here", "only=aggregate")
    for start in ([str(SCRIPT)], ["-m", "analysis.make_figures"]):
        result = command(*start, *arguments, cwd=runs.parent)
        assert result.returncode == 0, result.stderr
        assert result.stdout.splitlines()[0] == str(runs.parent / "here" / "aggregate.pdf")
        (runs.parent / "here" / "aggregate.pdf").unlink()


def test_help_names_keys_and_exit_codes(tmp_path):
    result = command(str(SCRIPT), "--help", cwd=tmp_path)
    assert result.returncode == 0
    for argument in ("runs=", "out=", "only=", "Exit code"):
        assert argument in result.stdout
