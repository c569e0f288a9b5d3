"""The report on ablations, from run directories to verdicts, tables and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ablations import report
from ablations.report_files import panels_of, shown_runs
from ablations.specs import ABLATIONS
from ablations.studies import find_studies, look
from analysis.figures.effect_plots import bar_coverages, effect_bars, effect_curves
from analysis.figures.page import paper_style
from analysis.records.load import load
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.coverage import simulated
from analysis.stats.rules import RULES
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import project_root, recorded_folders
from tests.analysis.pictures import assert_nothing_overlaps_or_is_clipped
from tests.analysis.run_files import write_run
from tests.analysis.study_files import write_study_folder

BUDGET = 100_000
OFFSETS = (-10.0, 0.0, 10.0)  # of three seeds, in units of the return: 1 point


def write(
    runs: Path,
    variant: str,
    score: float,
    *,
    tasks: tuple[str, ...] = ("walker-walk", "cup-catch"),
    offsets: tuple[float, ...] = OFFSETS,
    **facts: Any,
) -> None:
    """Write runs whose returns rise linearly to `score` plus an offset per seed."""
    for task in tasks:
        for seed, offset in enumerate(offsets, start=1):
            end = score + offset
            points = {0: 0.0, BUDGET // 2: end / 2, BUDGET: end}
            tag = f"{variant}-{task}-{seed}{facts.get('obs', '')}"
            write_run(runs, points, variant=variant, task=task, seed=seed, tag=tag, **facts)


def compare(tmp_path: Path, *arguments: str) -> tuple[int, pd.DataFrame]:
    """Write the report, and return its exit code and table."""
    out = tmp_path / "out"
    code = report.main([f"runs={tmp_path / 'runs'}", f"out={out}", "reps=200", *arguments])
    return code, pd.read_csv(out / "ablations.csv").set_index("ablation")


def test_the_precision_is_no_setting_of_an_ablation(tmp_path: Path) -> None:
    """Base and ablation may have another precision; the base's name may contain it."""
    write(tmp_path / "runs", "default", 800.0)
    precise = {"precision": "tf32", "latent_norm": "none"}
    write(tmp_path / "runs", "precision-tf32+no-simnorm", 700.0, overrides=precise)
    for arguments in ((), ("base=precision-tf32",)):
        assert compare(tmp_path, *arguments)[1].loc["no-simnorm", "difference"] < 0


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Write a default at 800, and ablations that lose 100, lose nothing, and cannot be judged."""
    write(tmp_path / "runs", "default", 800.0)
    write(tmp_path / "runs", "no-simnorm", 700.0, overrides={"latent_norm": "none"})
    write(tmp_path / "runs", "anything", 800.0, overrides={"num_q": 2})
    far = {"offsets": (-300.0, -50.0, 100.0), "overrides": {"regression": "mse"}}
    write(tmp_path / "runs", "regression-mse", 750.0, **far)
    return tmp_path / "runs"


def test_effects_and_verdicts(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, table = compare(tmp_path)
    assert code == 0
    assert table.index.tolist() == ["no-simnorm", "regression-mse", "num-q-2"]
    simnorm = table.loc["no-simnorm"]
    assert simnorm["factor"] == "normalization"
    assert simnorm[["score_base", "score_variant", "difference"]].tolist() == pytest.approx(
        [80.0, 70.0, -10.0]
    )
    # By hand: variances of 1 point² on both sides of both tasks, three seeds, 8 degrees of freedom.
    error = np.sqrt(2 * 2 * (1 / 3)) / 2
    assert simnorm["welch_high"] == pytest.approx(-10 + 2.306 * error, abs=1e-3)
    assert simnorm["difference_high"] == simnorm["welch_high"]
    assert simnorm["difference_low"] == pytest.approx(-10 - 2.306 * error, abs=1e-3)
    # The means of linear curves are half of the final scores, and so are their errors.
    half = simnorm["area_difference_high"] - simnorm["area_difference"]
    assert half == pytest.approx(2.306 * error / 2, abs=1e-3)
    assert 0.8 < simnorm["difference_coverage"] <= 1
    # The curve is linear from 0, so the mean over it is half of the final score.
    assert simnorm["area_difference"] == pytest.approx(-5.0)
    assert simnorm["improvement"] == 0.0
    assert table["verdict"].to_dict() == {
        "no-simnorm": "supported",
        "num-q-2": "contradicted",  # claimed to score lower, and does not lose 5 points
        "regression-mse": "not enough seeds",
    }
    assert table.loc["regression-mse", "seeds_needed"] > 3
    assert table.loc["num-q-2", "improvement"] == 50.0
    printed = capsys.readouterr().out
    assert "num-q-2 (num_q=2): two Q-functions score lower (Figure 9)" in printed
    assert "at 100,000 env steps" in printed
    assert "Missing:" not in printed
    assert "bootstrap" not in printed
    assert "Intervals are Student's t with Welch's degrees of freedom" in " ".join(printed.split())
    tasks = pd.read_csv(tmp_path / "out" / "ablation_tasks.csv")
    assert tasks.query("ablation == 'no-simnorm'")["difference"].tolist() == [-10.0, -10.0]
    for name in ("ablations.md", "ablations.tex", "curves.pdf", "curves.png", "bars.png"):
        assert (tmp_path / "out" / name).stat().st_size > 500
    curves = pd.read_csv(tmp_path / "out" / "curves.csv")
    base = curves.query("variant == 'base' and factor == 'normalization'")
    assert base["mean"].tolist() == [0.0, 40.0, 80.0]


def test_the_same_runs_give_the_same_files(runs: Path, tmp_path: Path) -> None:
    compare(tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    compare(tmp_path)
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == []


def test_what_is_missing_is_said_and_the_rest_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, settings = tmp_path / "runs", {"overrides": {"planning": False}}
    write(runs, "default", 800.0, tasks=("walker-walk", "cup-catch", "dog-run"))
    write(runs, "no-planning", 700.0, tasks=("walker-walk",), **settings)
    going = {"state": "RUNNING", "seed": 3, "task": "cup-catch", "tag": "going"}
    write(runs, "no-planning", 700.0, tasks=("cup-catch",), offsets=OFFSETS[:2], **settings)
    write_run(runs, {0: 0.0, 40_000: 10.0}, variant="no-planning", **going, **settings)
    code, table = compare(tmp_path)
    assert code == 0
    assert table.loc["no-planning", "tasks"] == "cup-catch walker-walk"
    assert table.loc["no-planning", ["seeds_variant", "seeds_base"]].tolist() == ["2-3", 3]
    assert table.loc["no-planning", "difference"] == pytest.approx(-10.25)
    printed = capsys.readouterr().out
    assert "no-planning: dog-run: no run of the variant" in printed
    assert "cup-catch: seed 3 of no-planning is at 40,000 of 100,000 env steps" in printed
    # At an earlier step, that run is compared too.
    _, table = compare(tmp_path, "env_steps=40000")
    assert " is at " not in capsys.readouterr().out
    assert table.loc["no-planning", "seeds_variant"] == 3


def test_seeds_of_one_side_only_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "runs", "default", 800.0)
    one = {"offsets": (0.0,), "tasks": ("walker-walk",), "overrides": {"dropout": 0.0}}
    write(tmp_path / "runs", "no-dropout", 800.0, **one)
    _, table = compare(tmp_path)
    printed = capsys.readouterr().out
    assert "walker-walk: seeds 2 3 only in the base" in printed
    assert "not enough seeds (2 or more needed)" in printed
    assert np.isnan(table.loc["no-dropout", "seeds_needed"])


def test_bases_sizes_and_combinations_are_kept_apart(tmp_path: Path) -> None:
    """Runs are matched by their settings, not by the names of their variants."""
    runs = tmp_path / "runs"
    quick = {"model_size": "smoke", "batch_size": 64}
    write(runs, "default", 800.0)
    write(runs, "quick", 600.0, overrides=quick, model_size="smoke")
    both = {**quick, "latent_norm": "none", "num_q": 1}
    write(runs, "quick+x", 500.0, overrides=both, model_size="smoke")
    write(runs, "unknown", 500.0, overrides={"rho": 0.7})
    _, table = compare(tmp_path, "base=quick")
    assert table.index.tolist() == ["no-simnorm+num-q-1"]
    assert table.iloc[0]["difference"] == pytest.approx(-10.0)
    with pytest.raises(UserError, match="no runs of an ablation of 'default'"):
        compare(tmp_path)


def test_switches_of_the_protocol_are_ablations_too(tmp_path: Path) -> None:
    runs, facts = tmp_path / "runs", {"tasks": ("lift-cube",), "domain": "maniskill2"}
    write(runs, "default", 800.0, **facts)
    write(runs, "stop-at-success", 800.0, protocol={"stop_at_success": True}, **facts)
    _, table = compare(tmp_path)
    assert table["verdict"].to_dict() == {"stop-at-success": "supported"}


def test_ablations_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        "[slow-decay]\nsettings = { rho = 0.7 }\nexpected = 'same'\nclaim = 'It is robust.'\n"
    )
    write(tmp_path / "runs", "default", 800.0)
    write(tmp_path / "runs", "slow-decay", 700.0, overrides={"rho": 0.7})
    _, table = compare(tmp_path, f"spec={tmp_path / 'mine.toml'}")
    assert table["verdict"].to_dict() == {"slow-decay": "contradicted"}


def test_ablations_of_ones_own_precede_those_of_the_table(tmp_path: Path) -> None:
    """`horizon-1` of the table has the same settings, and no claim."""
    (tmp_path / "mine.toml").write_text("[short]\nsettings = { horizon = 1 }\nexpected = 'lower'\n")
    write(tmp_path / "runs", "default", 800.0)
    write(tmp_path / "runs", "short", 700.0, overrides={"horizon": 1})
    assert compare(tmp_path)[1].index.tolist() == ["horizon-1"]
    _, table = compare(tmp_path, f"spec={tmp_path / 'mine.toml'}")
    assert table["verdict"].to_dict() == {"short": "supported"}


def test_the_number_of_files_is_that_of_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "runs", "default", 800.0)
    write(tmp_path / "runs", "no-simnorm", 700.0, overrides={"latent_norm": "none"})
    compare(tmp_path)
    out = tmp_path / "out"
    assert f"wrote {len(list(out.iterdir()))} files to {out}" in capsys.readouterr().err


def test_runs_of_other_methods_only_are_no_variants(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", {0: 0.0, 20_000: 20.0}, method="sac")
    with pytest.raises(UserError, match="no run of tdmpc2; train some"):
        compare(tmp_path)


def test_equal_scores_of_all_seeds_have_no_interval_and_decide_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They do not show that the next seed would have this score."""
    flat = (0.0, 0.0, 0.0)
    write(tmp_path / "runs", "default", 800.0, offsets=flat)
    write(tmp_path / "runs", "no-simnorm", 800.0, offsets=flat, overrides={"latent_norm": "none"})
    write(tmp_path / "runs", "num_q=1", 700.0, overrides={"num_q": 1})
    code, table = compare(tmp_path)
    printed = capsys.readouterr().out
    assert code == 0
    equal, other = table.loc["no-simnorm"], table.loc["num-q-1"]
    assert (equal["difference"], equal["verdict"]) == (0.0, "not enough seeds")
    assert equal[["difference_low", "area_difference_low", "seeds_needed"]].isna().all()
    assert equal[["difference_coverage", "improvement_coverage"]].isna().all()
    (line,) = (line for line in printed.split("\n") if line.startswith("no-simnorm  "))
    assert "[" not in line
    assert line.endswith("not enough seeds (the scores of all seeds are equal)")
    # Every run of the default is better, so that the probability is 0 in all of these runs.
    assert (other["difference_low"], other["verdict"]) == (other["welch_low"], "supported")
    (line,) = (line for line in printed.split("\n") if line.startswith("num-q-1  "))
    assert " 0 " in line
    assert "[0, 0]" not in line
    assert np.isnan(other["improvement_coverage"])


def test_diverged_runs_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """But not the score of the untrained agent, if there is no other."""
    write(tmp_path / "runs", "default", 800.0)
    settings = {"overrides": {"hidden_norm": "none"}, "state": "DIVERGED"}
    for task in ("walker-walk", "cup-catch"):
        for seed, last in ((1, 20_000), (2, 20_000), (3, 20_000), (4, 0)):
            facts = {"variant": "simnorm-only", "task": task, "seed": seed, "tag": f"{task}{seed}"}
            write_run(tmp_path / "runs", {0: 0.0, last: 20.0 * seed}, **facts, **settings)
    _, table = compare(tmp_path)
    assert table.loc["simnorm-only", "score_variant"] == pytest.approx(4.0)
    assert table.loc["simnorm-only", "verdict"] == "supported"
    assert "cup-catch: seed 4 of simnorm-only ended at 0 of 100,000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["margin=0"], "margin=0.0: must lie in (0, 100]"),
        (["env_steps=-1"], "env_steps=-1: must lie in [1, 10_000_000_000]"),
        (["marge=3"], "unknown key 'marge' (did you mean 'margin'?)"),
        (["curves=mine.csv"], "unknown key 'curves'"),
        (["base=quick"], "no runs of the variant 'quick' (available:"),
        (["rule=guess"], "unknown rule 'guess'"),
        (["spec=none.toml"], "cannot be read"),
        (["runs=/dev/null/runs"], "runs=/dev/null/runs does not exist"),
    ],
)
def test_bad_input(runs: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    given = [f"runs={runs}", f"out={tmp_path / 'out'}", *arguments]
    if arguments[0].startswith("runs="):
        given.pop(0)
    with pytest.raises(UserError) as refused:
        report.main(given)
    assert message in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_studies_are_listed_and_drawn(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study_folder(runs)
    damaged = runs / "studies" / "tasks-damaged"
    damaged.mkdir()
    (damaged / "registered.toml").write_text("looks = 3")
    compare(tmp_path)
    printed = capsys.readouterr()
    assert "Study tasks-0123abcd, registered (" in printed.out
    assert "cite the decisions of a study for its claims" in printed.out
    assert "about 4.5 core-hours saved" in printed.out
    assert "study tasks-damaged cannot be read" in printed.err
    assert (tmp_path / "out" / "study-tasks-0123abcd.png").stat().st_size > 500


def test_curves_and_bars_speak_of_their_own_panels(tmp_path: Path) -> None:
    write(tmp_path / "runs", "default", 800.0)
    for name, overrides in (("a", {"num_q": 2}), ("b", {"num_q": 1}), ("c", {"dropout": 0})):
        write(tmp_path / "runs", name, 700.0, overrides=overrides)
    records = load(tmp_path / "runs")
    studies = find_studies(records.runs, "default", ABLATIONS)
    shown = shown_runs(records, studies, RULES["hold"], 100)
    found = [look(study, shown.curves, shown.rule, shown.bootstrap) for study in studies]
    panels = panels_of(found, shown.curves)
    assert [panel.title for panel in panels] == ["Q-functions", "extras"]
    with paper_style():
        page, _ = effect_curves(panels, shown, "default")
        FigureCanvasAgg(page).draw()
        for ax in page.axes:  # legends hide no line
            top = ax.transData.transform((0, ax.dataLim.y1))[1]
            assert ax.get_legend().get_window_extent().y0 > top
            assert max(ax.get_yticks()) <= 100
        assert_nothing_overlaps_or_is_clipped(effect_bars(panels, shown, "default"))
    assert "DMControl" not in page.caption  # intervals are those of the panels


HOPPER = {"task": "gym:Hopper-v5", "domain": "gymnasium", "score_range": [0, 1000]}


@pytest.mark.parametrize(("task", "expected"), [({}, [0, 100]), (HOPPER, [-321.2, 441.2])])
def test_whiskers_of_bars_end_at_the_range_of_scores(
    tmp_path: Path, task: dict[str, Any], expected: list[float]
) -> None:
    """Two seeds far apart have an interval of t that reaches far beyond it, 60 ± 12.706 · 30."""
    for name, overrides in (("default", {}), ("num-q-1", {"num_q": 1})):
        for seed, value in ((1, 900.0), (2, 300.0)):
            facts = {"variant": name, "overrides": overrides, "seed": seed, **task}
            facts["tag"] = f"{name}{seed}"
            write_run(tmp_path / "runs", {0: 0.0, 20_000: value}, budget=20_000, **facts)
    records = load(tmp_path / "runs")
    studies = find_studies(records.runs, "default", ABLATIONS)
    shown = shown_runs(records, studies, RULES["hold"], 100)
    found = [look(study, shown.curves, shown.rule, shown.bootstrap) for study in studies]
    page = effect_bars(panels_of(found, shown.curves), shown, "default")
    (ax,) = page.axes
    ends = [line.get_segments()[0][:, 1].tolist() for line in ax.collections]
    assert ends == [pytest.approx(expected, abs=0.1)] * 2
    low, high = ax.get_ylim()
    assert low <= expected[0] < expected[1] < high


def test_the_coverage_of_bars_is_that_of_the_runs_they_show(tmp_path: Path) -> None:
    """An unfinished seed has no score at the compared step, and tasks have their own steps."""
    for name, overrides in (("default", {}), ("num-q-1", {"num_q": 1})):
        for task, end in (("walker-walk", 20_000), ("cup-catch", 40_000)):
            for seed, value in ((1, 900.0), (2, 500.0), (3, 700.0)):
                facts = {"variant": name, "overrides": overrides, "seed": seed, "budget": end}
                points = {0: 0.0, 20_000: value / 2, end: value}
                write_run(tmp_path / "runs", points, task=task, tag=f"{name}{seed}", **facts)
    write_run(tmp_path / "runs", {0: 0.0, 10_000: 1.0}, seed=4, state="RUNNING", budget=20_000)
    records = load(tmp_path / "runs")
    studies = find_studies(records.runs, "default", ABLATIONS)
    shown = shown_runs(records, studies, RULES["hold"], 200)
    found = [look(study, shown.curves, shown.rule, shown.bootstrap) for study in studies]
    pools = ((0.45, 0.9, 0.25, 0.5, 0.35, 0.7), (0.9, 0.5, 0.7))
    expected = simulated("mean", pools, (3, 3), Bootstrap(200))
    covered = bar_coverages(panels_of(found, shown.curves), shown)
    assert [(one.series[2], one.num_seeds) for one in covered] == [
        ("default", (3, 3)),
        ("num-q-1", (3, 3)),
    ]
    assert [one.share for one in covered] == [expected, expected]


def test_the_table_of_the_documentation_is_that_of_the_recorded_runs(tmp_path: Path) -> None:
    """If this fails: copy the printed table to docs/ablations.md."""
    (runs,) = (folder for folder in recorded_folders() if folder.name == "ablations-quick")
    assert report.main([f"runs={runs}", "base=quick", f"out={tmp_path}", "reps=200"]) == 0
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (tmp_path / "ablations.md").read_text().splitlines()
    ]
    head, _, *rows = lines
    text = (project_root() / "docs" / "ablations.md").read_text()
    shown = [head.index(name) for name in _DOCUMENTED]
    for row in (head, *rows):
        assert f"| {' | '.join(row[place] for place in shown)} |" in text


_DOCUMENTED = ["ablation", "default", "variant", "difference", "area", "P(better) %", "verdict"]
