"""The HTML report: its data, and the page in a browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis import report
from analysis.records.train_csv import read_training
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import project_root
from tests.analysis.multitask_files import write_multitask_run
from tests.analysis.run_files import write_reference_scores, write_run, write_table

TRAIN = "env_step,agent_step,num_updates,episode,value_loss,grad_norm\n"
EVIL = "</script><script>document.title='evil'</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return runs of two methods and an ablation, three published methods, and damaged files."""
    root = tmp_path_factory.mktemp("report")
    runs = root / "runs"
    for task, score in (("walker-walk", 900.0), ("cup-catch", 500.0), ("mw-reach", 0.8)):
        success = {"domain": "metaworld", "metric": "success"} if task == "mw-reach" else {}
        steps = (0, 100_000, 200_000)
        for seed in (1, 2, 3):
            points = {step: score * step / 200_000 - seed * score / 100 for step in steps[1:]}
            run = write_run(
                *(runs, {0: 0.0, **points}),
                **{"task": task, "seed": seed, "budget": 200_000, "commit": "abcdef0123456"},
                **success,
            )
            lines = [f"{s},{s // 2},{s // 2},1,{1 / (1 + s)},0.5\n" for s in range(0, 200_000, 500)]
            (run / "train.csv").write_text(TRAIN + "".join(lines))
        column = "success" if success else "reward"
        lines = [f"{s},{score * s / 200_000},{seed}" for s in steps for seed in (1, 2, 3)]
        for method in ("tdmpc2", "sac", "dreamerv3"):
            write_table(root / "paper" / method / f"{task}.csv", f"step,{column},seed", lines)
    overrides = {"latent_norm": EVIL}
    variant = {"variant": "no-simnorm", "budget": 200_000, "overrides": overrides}
    write_run(runs, {0: 0.0, 200_000: 100.0}, task="walker-walk", **variant)
    write_run(runs, {}, task="walker-walk", seed=4, state="FAILED")
    write_reference_scores(runs, "walker-walk", (43.0, 12.0), (20.0, 5.0))
    arguments = [f"runs={runs}", f"published={root / 'paper'}", f"out={root / 'report.html'}"]
    assert report.main([*arguments, "reps=200"]) == 0
    return root


def content(folder: Path) -> dict[str, Any]:
    html = (folder / "report.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


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
    findings = {row[3] for row in data["audit"]["rows"]}
    assert findings == {"ends_early", "other_budget"}
    assert any("no evaluation yet" in problem[3] for problem in data["problems"])


def test_the_page_needs_nothing_from_elsewhere(folder):
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html)
    assert "@import" not in html
    assert "/*" not in re.sub(r"<script type=.*?</script>", "", html, flags=re.DOTALL)


def test_the_same_records_give_the_same_page(folder, capsys):
    """Each stage prints one line, as all of them can take minutes."""
    before = (folder / "report.html").read_bytes()
    arguments = [f"runs={folder / 'runs'}", f"published={folder / 'paper'}"]
    assert report.main([*arguments, f"out={folder / 'again.html'}", "reps=200"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{folder / 'again.html'}\n"
    stages = [line for line in printed.err.splitlines() if line.startswith("report: ")]
    assert len(stages) == 6
    assert all(line.endswith(" …") for line in stages)
    assert (folder / "again.html").read_bytes() == before


def headlines(folder: Path, *arguments: str) -> dict[tuple[str, str], set[str]]:
    """Series of each table of headline numbers, by label and horizon."""
    out = folder / "report.html"
    assert report.main([f"out={out}", "reps=200", *arguments]) == 0
    data = content(folder)
    names = [series["label"] for series in data["series"]]
    return {
        (table["label"], table["horizon"]): {names[int(place)] for place in table["rows"]}
        for table in data["groups"]
    }


def publish(folder: Path, name: str, scores: dict[int, float]) -> str:
    """Write a published method's curves of walker-walk; return the argument with the folder."""
    lines = [f"{step},{score},{seed}" for step, score in scores.items() for seed in (1, 2, 3)]
    write_table(folder / "paper" / name / "walker-walk.csv", "step,reward,seed", lines)
    return f"published={folder / 'paper'}"


LATE = {0: 3.0, 100_000: 700.0, 200_000: 800.0}


def test_a_short_run_is_not_compared_with_curves_that_begin_later(tmp_path):
    """The published score at step 0 is not used at step 40,000."""
    write_run(tmp_path / "runs", {0: 5.0, 40_000: 300.0}, budget=40_000)
    arguments = [f"runs={tmp_path / 'runs'}", publish(tmp_path, "tdmpc2", LATE)]
    tables = headlines(tmp_path, *arguments)
    assert tables == {("dmcontrol, tasks run here", "40,000 env steps"): {"TD-MPC2"}}
    (table,) = content(tmp_path)["groups"]
    (left,) = table["left_out"]
    assert "published/tdmpc2" in left
    assert "only one is at step 0" in left
    assert table["wins"] == []


def test_runs_are_compared_at_the_last_step_that_curves_from_elsewhere_have(tmp_path):
    points = {0: 5.0, **{step: step / 200 for step in range(10_000, 160_000, 10_000)}}
    write_run(tmp_path / "runs", points, budget=150_000)
    arguments = [f"runs={tmp_path / 'runs'}", publish(tmp_path, "tdmpc2", LATE)]
    both = {"TD-MPC2", "TD-MPC2 (published)"}
    assert headlines(tmp_path, *arguments) == {
        ("dmcontrol, tasks run here", "100,000 env steps"): both
    }


def test_a_method_that_went_further_is_compared_there(tmp_path):
    """Our runs are compared at their shortest budget, and with others at their first step."""
    write_run(tmp_path / "runs", {0: 5.0, 40_000: 300.0}, budget=40_000)
    points = {0: 5.0, 40_000: 100.0, 100_000: 500.0}
    write_run(tmp_path / "runs", points, budget=100_000, method="sac")
    label = "dmcontrol, tasks run here"
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
    label = "dmcontrol, tasks run here"
    assert tables[f"{label}, from states", "100,000 env steps"] == {
        "TD-MPC2",
        "TD-MPC2 (published)",
    }
    pixels = tables[f"{label}, from pixels", "100,000 env steps"]
    assert len(pixels) == 1
    assert "pixels" in next(iter(pixels))
    assert len(tables) == 2


def test_pixels_alone_are_named_as_such(tmp_path):
    write_run(tmp_path / "runs", {0: 5.0, 100_000: 500.0}, obs="rgb")
    tables = headlines(tmp_path, f"runs={tmp_path / 'runs'}")
    assert list(tables) == [("dmcontrol, tasks run here, from pixels", "100,000 env steps")]


def test_the_recorded_runs_beside_the_published_curves(tmp_path, published_curves):
    """Every headline number rests on an evaluation near the step it is stated for."""
    runs = project_root() / "paper_figures" / "recorded" / "baselines"
    tables = headlines(tmp_path, f"runs={runs}", f"published={published_curves}")
    label = "dmcontrol, tasks run here"
    short = tables[label, "40,000 env steps"]
    assert len(short) == 3
    assert not any("published" in name for name in short)
    assert {"SAC", "SAC (published)", "TD-MPC2 (published)"} < tables[label, "100,000 env steps"]
    data = content(tmp_path)
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


# In a browser.


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("missing: chromium, which opens the report")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser, folder) -> Iterator[Any]:
    """Open the report; errors on the page and network requests fail the test."""
    errors: list[str] = []
    asked: list[str] = []
    tab = browser.new_page(viewport={"width": 1300, "height": 900}, color_scheme="light")
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto((folder / "report.html").as_uri())
    yield tab
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    tab.close()


def drawn(page: Any, selector: str) -> int:
    """Return the number of canvases that are not blank."""
    count = """selector => [...document.querySelectorAll(selector)].filter(c => c.width &&
        c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v)).length"""
    return page.evaluate(count, selector)


def test_overview(page):
    assert page.title() == "TD-MPC2 reproduction"
    assert page.locator("nav a").all_text_contents() == [
        *("Overview", "Tasks", "Reproduction", "Variants", "Audit"),
    ]
    card = page.locator(".card", has_text="metaworld, tasks run here")
    assert "78.4" in card.inner_text()
    assert page.locator(".bar").count() >= 6


def test_tasks_are_filtered_and_series_switched_off(page):
    page.click("nav >> text=Tasks")
    page.wait_for_function("document.querySelectorAll('.tile').length === 3")
    page.wait_for_timeout(200)
    assert drawn(page, ".tile canvas") == 3
    page.fill("input[type=search]", "walk")
    assert page.locator(".tile b").all_text_contents() == ["Walker Walk"]
    page.fill("input[type=search]", "")
    page.select_option("select", "metaworld")
    assert page.locator(".tile b").all_text_contents() == ["Reach"]
    assert "1 of 3 tasks" in page.inner_text(".controls")
    page.select_option("select", "")
    page.uncheck("label:has-text('SAC') input")
    page.hover(".tile canvas >> nth=0")
    tip = page.inner_text("#tip")
    assert "env steps" in tip
    assert "TD-MPC2" in tip
    assert "SAC" not in tip


def test_a_tile_leads_to_its_task(page):
    page.click("nav >> text=Tasks")
    page.click(".tile >> nth=0")
    page.wait_for_selector("h2 >> text=Walker Walk")
    page.wait_for_timeout(200)
    assert drawn(page, ".large canvas") == 1
    runs = page.inner_text("table")
    assert "abcdef0123" in runs
    assert EVIL in runs  # displayed as text, not executed
    assert page.title() == "TD-MPC2 reproduction"
    page.locator(".charts canvas >> nth=0").scroll_into_view_if_needed()
    page.wait_for_timeout(200)
    assert drawn(page, ".charts canvas") >= 1
    assert page.locator(".charts b").all_text_contents() == ["value loss", "grad norm"]
    page.evaluate("scrollTo(0, 0)")
    box = page.locator(".large canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 10, box["y"] + 100)
    assert "200,000 env steps" in page.inner_text("#tip")
    page.click("text=next")
    page.wait_for_selector("h2 >> text=Cup Catch")
    page.go_back()
    page.wait_for_selector("h2 >> text=Walker Walk")


def test_verdicts_variants_and_audit(page):
    page.click("nav >> text=Reproduction")
    assert page.locator("td.reproduced").count() >= 3
    page.click("td a >> nth=0")
    page.wait_for_selector(".large canvas")
    page.click("nav >> text=Variants")
    assert "no-simnorm" in page.inner_text("main")
    page.click("nav >> text=Audit")
    page.click("button:has-text('budget other')")
    assert "200,000 instead of 4,000,000" in page.inner_text("main")
    assert "no evaluation yet" in page.inner_text("main")


def test_multi_task_agents(browser, tmp_path):
    points = {0: (0.0, 0.0), 864_000: (30.0, 50.0)}
    write_multitask_run(tmp_path / "runs", points, task_set="mine", num_parameters=5_000_000)
    out = tmp_path / "report.html"
    assert report.main([f"runs={tmp_path / 'runs'}", f"out={out}", "reps=200"]) == 0
    tab = browser.new_page(viewport={"width": 360, "height": 800})
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    for name in ("overview", "tasks", "audit", "multitask"):
        tab.goto(f"{out.as_uri()}#{name}")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    assert "1 CPU-days" in tab.inner_text("main")
    assert "no published score" in tab.inner_text("main")
    assert errors == []
    tab.close()


def test_dark_and_light(page):
    back = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(back) == "rgb(255, 255, 255)"
    page.click("#theme")
    assert page.evaluate(back) == "rgb(20, 23, 27)"
    page.emulate_media(color_scheme="dark")
    page.reload()
    assert page.evaluate(back) == "rgb(20, 23, 27)"


@pytest.mark.parametrize("width", [360, 800, 2200])
def test_every_page_fits_from_phone_to_wide_screen(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    for name in ("overview", "tasks", "task/walker-walk", "verdicts", "ablations", "audit", "no"):
        page.goto(page.url.split("#")[0] + f"#{name}")
        page.wait_for_timeout(100)
        inside = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert inside, name
