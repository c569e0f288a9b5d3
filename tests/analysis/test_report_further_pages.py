"""Pages of the HTML report on multi-task agents and studies, in a browser."""

from __future__ import annotations

import pytest

from analysis import report
from tests.analysis.multitask_files import write_multitask_run
from tests.analysis.report_files import headlines
from tests.analysis.run_files import write_run
from tests.analysis.study_files import write_study_folder


def test_multi_task_agents(browser, tmp_path):
    points = {0: (0.0, 0.0), 864_000: (30.0, 50.0)}
    write_multitask_run(tmp_path / "runs", points, task_set="mine", num_parameters=5_000_000)
    out = tmp_path / "report.html"
    assert report.main([f"runs={tmp_path / 'runs'}", f"out={out}", "reps=200"]) == 0
    tab = browser.new_page(viewport={"width": 360, "height": 800})
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    for name in ("overview", "tasks", "audit", "claims", "multitask"):
        tab.goto(f"{out.as_uri()}#{name}")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    assert "1 CPU-days" in tab.inner_text("main")
    tab.goto(f"{out.as_uri()}#overview")
    assert "No group of tasks can be averaged" in tab.inner_text("main")
    assert "confidence intervals" not in tab.inner_text("main")
    tab.goto(f"{out.as_uri()}#multitask")
    assert "no published score" in tab.inner_text("main")
    assert errors == []
    tab.close()


def test_studies(browser, tmp_path):
    write_run(tmp_path / "runs", {0: 0.0, 100_000: 30.0})
    write_study_folder(tmp_path / "runs")
    out = tmp_path / "report.html"
    assert report.main([f"runs={tmp_path / 'runs'}", f"out={out}", "reps=200"]) == 0
    tab = browser.new_page(viewport={"width": 390, "height": 844})
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(out.as_uri())
    tab.click("nav >> text=Studies")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shown = tab.inner_text("main")
    assert "about 4.5 core-hours saved" in shown
    assert "x is <b>needed</b>" in shown  # displayed as text
    assert "all tasks" in shown
    assert tab.locator("td.supported").count() == 2
    assert tab.locator("figcaption").all_inner_texts() == [
        "no-x: supported",
        "other-y: no difference",
    ]
    spoken = tab.get_attribute(".path svg >> nth=0", "aria-label")
    assert spoken.endswith("2 seeds: -20 [-24.3, -15.7]")
    assert tab.locator(".path >> nth=0").locator("circle").count() == 1
    assert tab.locator(".path >> nth=1").locator("circle").count() == 2
    # A region from -4 to 4 lies around the line of zero, with the height that the axis gives it.
    box, zero = (
        tab.locator(f".path >> nth=1 >> {one}").bounding_box()
        for one in (".no-difference rect", ".zero")
    )
    assert box["y"] + box["height"] / 2 == pytest.approx(zero["y"], abs=1)
    ticks = tab.locator(".path >> nth=1 >> .grid")
    first, last = ticks.first.bounding_box()["y"], ticks.last.bounding_box()["y"]
    assert box["height"] / (first - last) == pytest.approx(8 / 16, abs=0.02)  # ticks from -8 to 8
    assert errors == []
    tab.close()


def test_the_note_speaks_of_intervals_only_if_there_are_some(browser, tmp_path):
    tab = browser.new_page(viewport={"width": 1200, "height": 800})
    for seed, intervals in ((1, False), (2, True)):
        write_run(tmp_path / "runs", {0: 0.0, 100_000: 300.0 + seed}, seed=seed, budget=100_000)
        headlines(tmp_path, f"runs={tmp_path / 'runs'}")
        tab.goto((tmp_path / "report.html").as_uri())
        shown = tab.inner_text("main")
        assert "tasks run here" in shown
        assert ("A single seed has no interval." in shown) is not intervals
        assert ("with confidence intervals" in shown) is intervals
    tab.close()
