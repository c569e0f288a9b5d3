"""The data of the HTML report."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from analysis import report
from analysis.records.train_csv import read_training
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import project_root
from tests.analysis.report_files import LATE, TRAIN, content, headlines, publish, write_study
from tests.analysis.run_files import write_run, write_table
from tests.analysis.study_files import RESULTS, WAITING, write_study_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("report"))


def test_data_by_hand(folder):
    data = content(folder)
    assert [series["label"] for series in data["series"]] == [
        *("TD-MPC2", "TD-MPC2 (no-simnorm)", "TD-MPC2 (published)", "SAC (published)"),
        "DreamerV3 (published)",
    ]
    assert [task["name"] for task in data["tasks"]] == ["walker-walk", "cup-catch", "mw-reach"]
    walker = data["tasks"][0]
    ours = walker["curves"][0]
    assert data["grids"][ours["x"]] == [0, 100_000, 200_000]
    assert ours["m"] == [0, 432, 882]
    # Student's interval of three seeds: 9 / √3 · 4.303.
    assert (ours["l"], ours["h"]) == ([0, 409.6, 859.6], [0, 454.4, 904.4])
    (first, *_) = walker["runs"]
    assert (first["seed"], first["y"], first["state"]) == (1, [0, 441, 891], "COMPLETED")
    assert first["directory"].startswith(str(folder / "runs"))
    assert set(first["training"]) == {"env_step", "value_loss", "grad_norm"}
    assert len(first["training"]["value_loss"]) == 60
    assert walker["reference_scores"]["uniform"] == 43
    verdicts = data["verdicts"]["tasks"]
    found = {
        row[verdicts["columns"].index("task")]: row[verdicts["columns"].index("verdict")]
        for row in verdicts["rows"]
    }
    assert found == {
        **{"Walker Walk": "reproduced", "Cup Catch": "reproduced"},
        "Reach": "not enough data",  # success rates of 60 % in two evaluations of ten episodes
    }
    (ablation,) = data["ablations"]["rows"]
    assert ablation[:3] == ["tdmpc2", "no-simnorm", 1]
    assert {row[0] for row in data["audit"]["rows"]} <= {s["label"] for s in data["series"]}
    findings = {row[3] for row in data["audit"]["rows"]}
    assert findings == {"ends_early", "other_budget"}
    assert any("no evaluation yet" in problem[3] for problem in data["problems"])


def test_the_page_needs_nothing_from_elsewhere(folder):
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html)
    assert "@import" not in html
    assert re.findall(r"/\*[A-Z]+\*/", html) == []  # places of assets
    assert "github.com/leeoniya/uPlot (v1.6.32)" in html


def test_the_charting_library_is_the_released_one_with_its_license():
    folder = report.ASSETS / "uplot"
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in folder.iterdir()
    }
    assert found == {
        "LICENSE": "8f989229699b4fe2",
        "uPlot.iife.min.js": "19c8d4c6ad88929a",
        "uPlot.min.css": "df630c6a8d6f8eea",
    }


def test_the_summary_says_what_was_run_and_what_reproduced(folder):
    data = content(folder)
    assert data["summary"] == (
        "10 runs of TD-MPC2 on 3 of 104 tasks (DMControl, Meta-World), 1 to 3 seeds per task, all "
        "with less than the paper's budget, at commit abcdef0123. Reproduced: TD-MPC2 on DMControl "
        "(2 of 39 tasks). Cannot be settled: TD-MPC2 on Meta-World (1 of 50 tasks). Verdicts are "
        "tests at 5 % against 3 published seeds per task. They cover 3 % of the tasks of these "
        "methods and domains, and not the others."
    )
    verdicts = data["verdicts"]
    assert verdicts["counts"] == {"reproduced": 2, "not enough data": 1}
    assert verdicts["next"][-1] == [
        "Published, but not run here: DreamerV3, SAC:",
        "python sweeps/launch.py suite=all104 methods=dreamerv3,sac seeds=3",
    ]


def test_open_tasks_name_the_command_that_would_settle_them(tmp_path):
    points = {0: 5.0, 100_000: 500.0}
    write_run(tmp_path / "runs", points)
    arguments = [f"runs={tmp_path / 'runs'}", publish(tmp_path, "tdmpc2", LATE)]
    headlines(tmp_path, *arguments)
    data = content(tmp_path)
    assert "Not settled: TD-MPC2 on DMControl (1 of 39 tasks)." in data["summary"]
    assert data["verdicts"]["next"] == [
        [
            "1 undecided task of TD-MPC2 (a single seed has no interval; 3 of 3 published seeds "
            "agree: a 21 % failure rate would look like this in half of all cases):",
            "python sweeps/launch.py tasks=walker-walk methods=tdmpc2 seeds=3",
        ]
    ]
    for seed, score in ((2, 100.0), (3, 900.0)):
        write_run(tmp_path / "runs", {0: 5.0, 100_000: score}, seed=seed)
    headlines(tmp_path, *arguments)
    for _, run in content(tmp_path)["verdicts"]["next"]:
        assert "seeds=3" not in run  # they are there already
    headlines(tmp_path, arguments[0])
    assert "Without published curves, nothing was compared" in content(tmp_path)["summary"]
    (tmp_path / "none").mkdir()
    headlines(tmp_path, f"runs={tmp_path / 'none'}", arguments[1])
    only = "No run was made here; the report shows curves from elsewhere only."
    assert content(tmp_path)["summary"] == only


def test_the_summary_counts_own_environments_apart_and_names_the_compared_seeds(tmp_path):
    """Environments of users are none of the paper's tasks, and have no budget in the paper."""
    runs, arm = tmp_path / "runs", {"task": "my:Arm", "domain": "my", "score_range": [0, 3000]}
    for seed in (1, 2):
        write_run(runs, {0: 5.0, 100_000: 500.0 + seed}, seed=seed)
        write_run(runs, {0: 5.0, 100_000: 500.0}, seed=seed, **arm)
    publish(tmp_path, "tdmpc2", LATE)
    line = ["100000,300,1"]  # a method that is not compared, with one seed
    write_table(tmp_path / "paper" / "sac" / "cup-catch.csv", "step,reward,seed", line)
    headlines(tmp_path, f"runs={runs}", f"published={tmp_path / 'paper'}")
    text = content(tmp_path)["summary"]
    assert "4 runs of TD-MPC2 on 1 of 104 tasks and 1 other (" in text
    assert "2 seeds per task, 2 runs with less than the paper's budget. " in text
    assert "against 3 published seeds per task" in text
    headlines(tmp_path, f"runs={write_run(tmp_path / 'own', {0: 1.0, 9: 2.0}, **arm).parents[3]}")
    first = "1 run of TD-MPC2 on 1 task outside the paper's 104 (my), 1 seed per task. "
    assert content(tmp_path)["summary"].startswith(first)


def test_runs_before_the_first_published_evaluation_need_no_larger_margin(tmp_path):
    for seed in (1, 2, 3):
        write_run(tmp_path / "runs", {0: 5.0, 50_000: 400.0 + seed}, seed=seed, budget=50_000)
    headlines(tmp_path, f"runs={tmp_path / 'runs'}", publish(tmp_path, "tdmpc2", LATE))
    assert content(tmp_path)["verdicts"]["next"] == [
        [
            "1 undecided task of TD-MPC2 (ends before the first published evaluation at 100,000):",
            "python sweeps/launch.py tasks=walker-walk methods=tdmpc2 seeds=3",
        ]
    ]


def test_series_of_one_method_are_told_apart(tmp_path):
    for size in (1, 5):
        for seed in (1, 2, 3):
            points = {0: 5.0, 100_000: 698.0 + seed}
            write_run(tmp_path / "runs", points, seed=seed, model_size=size, tag=f"size{size}")
    headlines(tmp_path, f"runs={tmp_path / 'runs'}", publish(tmp_path, "tdmpc2", LATE))
    data = content(tmp_path)
    for kind in ("tasks", "domains"):
        rows = data["verdicts"][kind]["rows"]
        assert [row[0] for row in rows] == ["tdmpc2 (1M)", "tdmpc2 (5M)"]
    assert "TD-MPC2 (1M) on DMControl (1 of 39 tasks), TD-MPC2 (5M) on DMControl" in data["summary"]


def test_the_same_records_give_the_same_page(folder, capsys):
    """Each stage prints one line, as all of them can take minutes."""
    before = (folder / "report.html").read_bytes()
    arguments = [f"runs={folder / 'runs'}", f"published={folder / 'paper'}"]
    arguments.append(f"files={folder / 'field.json'}")
    assert report.main([*arguments, f"out={folder / 'again.html'}", "reps=200"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{folder / 'again.html'}\n"
    assert sum(line.endswith(" …") for line in printed.err.splitlines()) == 8
    assert (folder / "again.html").read_bytes() == before


def test_a_short_run_is_not_compared_with_curves_that_begin_later(tmp_path):
    """The published score at step 0 is not used at step 40,000."""
    write_run(tmp_path / "runs", {0: 5.0, 40_000: 300.0}, budget=40_000)
    arguments = [f"runs={tmp_path / 'runs'}", publish(tmp_path, "tdmpc2", LATE)]
    tables = headlines(tmp_path, *arguments)
    assert tables == {("DMControl, tasks run here", "40,000 env steps"): {"TD-MPC2"}}
    (table,) = content(tmp_path)["groups"]
    (left,) = table["left_out"]
    assert "published/tdmpc2" in left
    assert "only one is at step 0" in left
    assert table["wins"] == []
    summary = content(tmp_path)["summary"]
    assert "1 seed per task, with less than the paper's budget" in summary
    assert "No task has an evaluation that could be compared" in summary
    assert " 0 % of the tasks" not in summary


def test_runs_are_compared_at_the_last_step_that_curves_from_elsewhere_have(tmp_path):
    points = {0: 5.0, **{step: step / 200 for step in range(10_000, 160_000, 10_000)}}
    write_run(tmp_path / "runs", points, budget=150_000)
    arguments = [f"runs={tmp_path / 'runs'}", publish(tmp_path, "tdmpc2", LATE)]
    both = {"TD-MPC2", "TD-MPC2 (published)"}
    assert headlines(tmp_path, *arguments) == {
        ("DMControl, tasks run here", "100,000 env steps"): both
    }


def test_a_method_that_went_further_is_compared_there(tmp_path):
    """Our runs are compared at their shortest budget, and with others at their first step."""
    write_run(tmp_path / "runs", {0: 5.0, 40_000: 300.0}, budget=40_000)
    points = {0: 5.0, 40_000: 100.0, 100_000: 500.0}
    write_run(tmp_path / "runs", points, budget=100_000, method="sac")
    label = "DMControl, tasks run here"
    arguments = [f"runs={tmp_path / 'runs'}", publish(tmp_path, "tdmpc2", LATE)]
    assert headlines(tmp_path, *arguments) == {
        (label, "40,000 env steps"): {"TD-MPC2", "SAC"},
        (label, "100,000 env steps"): {"SAC", "TD-MPC2 (published)"},
    }


def test_states_and_pixels_have_tables_of_their_own(tmp_path):
    points = {0: 5.0, 100_000: 500.0}
    write_run(tmp_path / "runs", points)
    write_run(tmp_path / "runs", points, seed=2, tag="rgb", obs="rgb", variant="pixels")
    arguments = [f"runs={tmp_path / 'runs'}", publish(tmp_path, "tdmpc2", LATE)]
    tables = headlines(tmp_path, *arguments)
    label = "DMControl, tasks run here"
    assert tables[f"{label}, from states", "100,000 env steps"] == {
        "TD-MPC2",
        "TD-MPC2 (published)",
    }
    pixels = tables[f"{label}, from pixels", "100,000 env steps"]
    assert len(pixels) == 1
    assert "pixels" in next(iter(pixels))
    assert len(tables) == 2


def test_variants_with_the_papers_budget_are_compared_at_their_end(tmp_path):
    for variant, score in (("default", 900.0), ("no-simnorm", 600.0)):
        for seed in (1, 2):
            points = {0: 0.0, 4_000_000: score + seed}
            facts = {"variant": variant, "seed": seed, "budget": 4_000_000}
            write_run(tmp_path / "runs", points, **facts)
    headlines(tmp_path, f"runs={tmp_path / 'runs'}")
    table = content(tmp_path)["ablations"]
    (row,) = (dict(zip(table["columns"], row, strict=True)) for row in table["rows"])
    assert (row["env steps"], row["seeds"]) == ("4,000,000", "2/2")
    assert re.fullmatch(r"-30\.0 \[-30\.3, -29\.7\]( \(\d+ %\))?", row["difference"])


def test_variants_of_one_seed_have_no_interval(folder):
    table = content(folder)["ablations"]
    (row,) = (dict(zip(table["columns"], row, strict=True)) for row in table["rows"])
    assert row["seeds"] == "1/3"
    assert re.fullmatch(r"-[\d.]+", row["difference"])


def test_pixels_alone_are_named_as_such(tmp_path):
    write_run(tmp_path / "runs", {0: 5.0, 100_000: 500.0}, obs="rgb")
    tables = headlines(tmp_path, f"runs={tmp_path / 'runs'}")
    assert list(tables) == [("DMControl, tasks run here, from pixels", "100,000 env steps")]


def test_the_recorded_runs_beside_the_published_curves(tmp_path, published_curves):
    """Every headline number rests on an evaluation near the step it is stated for."""
    runs = project_root() / "paper_figures" / "recorded" / "baselines"
    tables = headlines(tmp_path, f"runs={runs}", f"published={published_curves}")
    label = "DMControl, tasks run here"
    short = tables[label, "40,000 env steps"]
    assert len(short) == 3
    assert not any("published" in name for name in short)
    assert {"SAC", "SAC (published)", "TD-MPC2 (published)"} < tables[label, "100,000 env steps"]
    data = content(tmp_path)
    # The mean in the paper is 75.2; numbers with few digits would be rounded twice.
    (table,) = (table for table in data["groups"] if table["label"] == "DMControl")
    labels = [series["label"] for series in data["series"]]
    assert f"{table['rows'][str(labels.index('TD-MPC (published)'))]['mean'][0]:.3f}" == "75.249"
    for table in data["groups"]:
        assert all(row["median"][1:] == [None, None] for row in table["rows"].values())
    assert (
        "1,284 runs, published: 104 tasks, 225 end before the task's full budget" in data["facts"]
    )
    assert tables["Visual RL, from pixels", "2,000,000 env steps"].isdisjoint(
        tables["Visual RL, from states", "2,000,000 env steps"]
    )


def test_training_records_damaged_or_missing(tmp_path):
    problems: list[Any] = []
    assert read_training(tmp_path, problems).empty
    (tmp_path / "train.csv").write_text(f"{TRAIN}1,1,1,1,0.5,2\n2,1,1,1,nan,4\n3,1,1")
    table = read_training(tmp_path, problems)
    assert table["env_step"].tolist() == [1, 2]
    assert table["grad_norm"].tolist() == [2, 4]
    assert problems == []
    (tmp_path / "train.csv").write_text("")
    assert read_training(tmp_path, problems).empty
    (tmp_path / "train.csv").write_text("a,b\n1,2\n")
    assert read_training(tmp_path, problems).empty
    assert len(problems) == 2


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("reps=3", "reps=3: must lie in"),
        ("out=.", "is a folder; name a file"),
        ("rep=1", "did you mean"),
    ],
)
def test_bad_arguments(folder, argument, message):
    with pytest.raises(UserError, match=message):
        report.main([f"runs={folder / 'runs'}", argument])
    assert "out=" in report.usage()


def test_studies_by_hand(tmp_path):
    write_run(tmp_path / "runs", {0: 0.0, 100_000: 30.0})
    arguments = [f"runs={tmp_path / 'runs'}", f"out={tmp_path / 'report.html'}", "reps=200"]
    assert report.main(arguments) == 0
    assert content(tmp_path)["studies"] is None
    folder = write_study_folder(tmp_path / "runs")
    assert report.main(arguments) == 0
    (study,) = content(tmp_path)["studies"]["studies"]
    assert study["design"] == "Looks at 2, 3 seeds on each side. Every claim is decided."
    assert study["tasks"] == ["walker-walk: 200,000 env steps"]
    assert study["claims"]["rows"][0][2:] == [
        *("x is <b>needed</b>", "tdmpc2 no-x", "tdmpc2 default", "all tasks", "5"),
    ]
    assert study["changed"] == []
    assert study["tests"] == ["family_level = 0.05"]
    assert [row[-1] for row in study["results"]["rows"]] == ["pre-registered"] * 2
    assert study["looks"]["rows"][1] == [2, "other-y", "+1.0", "[-7.6, +9.6]", "next look"]
    first, second = study["paths"]
    # The only look of the first claim sets its range by the estimate; regions end there.
    assert first["bound"] == pytest.approx(1.15 * 20)
    assert first["points"] == [[2, -20, -24.3, -15.7]]
    assert first["regions"] == [[2, "supported", -23, -15], [2, "contradicted", 20, 23]]
    # At least 8 points are shown; what begins beyond is left out.
    assert second["bound"] == pytest.approx(1.15 * 8)
    assert second["regions"] == [[3, "no difference", -4, 4], [3, "higher", 9, 9.2]]
    results = RESULTS[: RESULTS.index("3,other-y")] + WAITING
    (folder / "decisions.csv").write_text(results)
    assert report.main(arguments) == 0
    (study,) = content(tmp_path)["studies"]["studies"]
    assert study["design"].endswith("In progress.")
    assert study["looks"]["rows"][-1] == [3, "other-y", "", "", "waits for runs (2)"]


def test_undecided_claims_of_a_finished_study_are_counted(tmp_path):
    write_run(tmp_path / "runs", {0: 0.0, 100_000: 30.0})
    open_end = RESULTS.replace("no difference", "not enough seeds")
    write_study_folder(tmp_path / "runs", results=open_end)
    headlines(tmp_path, f"runs={tmp_path / 'runs'}")
    (study,) = content(tmp_path)["studies"]["studies"]
    assert study["design"].endswith(" Finished; undecided: 1 of 2 claims.")


def test_a_study_that_cannot_be_read_is_a_problem(tmp_path, capsys):
    write_run(tmp_path / "runs", {0: 0.0, 100_000: 30.0})
    folder = write_study_folder(tmp_path / "runs")
    (folder / "boundaries.csv").unlink()
    out = tmp_path / "report.html"
    assert report.main([f"runs={tmp_path / 'runs'}", f"out={out}", "reps=200"]) == 1
    assert "study tasks-0123abcd cannot be read" in capsys.readouterr().err
    data = content(tmp_path)
    assert data["studies"] is None
    assert any("tasks-0123abcd" in problem[1] for problem in data["problems"])


def test_tasks_with_the_same_title_have_their_own_links(tmp_path):
    for task, domain in (("mw-reach", "metaworld"), ("myo-hand-reach", "myosuite")):
        facts = {"task": task, "domain": domain, "metric": "success", "budget": 200_000}
        for seed in (1, 2):
            scores = {0: 0.0, 100_000: 0.5, 200_000: seed / 3}
            write_run(tmp_path / "runs", scores, seed=seed, **facts)
        lines = [f"{step},{step / 2e5 / seed},{seed}" for step in (0, 200_000) for seed in (1, 2)]
        write_table(tmp_path / "paper" / "tdmpc2" / f"{task}.csv", "step,success,seed", lines)
    headlines(tmp_path, f"runs={tmp_path / 'runs'}", f"published={tmp_path / 'paper'}")
    data = content(tmp_path)
    titles = {task["title"]: task["name"] for task in data["tasks"]}
    assert titles == {
        "Reach (mw-reach)": "mw-reach",
        "Reach (myo-hand-reach)": "myo-hand-reach",
    }
    assert data["verdicts"]["names"] == titles
    levels = {curve["level"] for task in data["tasks"] for curve in task["curves"]}
    assert all(level.endswith(" %") for level in levels)
