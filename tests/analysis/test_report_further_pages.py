"""Pages of the HTML report on multi-task agents and studies, in a browser."""

from __future__ import annotations

import pytest

from analysis import report
from tests.analysis.multitask_files import write_multitask_run
from tests.analysis.report_files import choose, headlines, show, write_study
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
        show(tab, out.as_uri(), name)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    assert "1 CPU-days" in tab.inner_text("main")
    show(tab, out.as_uri(), "overview")
    assert "No group of tasks can be averaged" in tab.inner_text("main")
    assert "confidence intervals" not in tab.inner_text("main")
    show(tab, out.as_uri(), "multitask")
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
    choose(tab, "Studies")
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


def test_texts_speak_of_comparisons_only_if_there_are_some(browser, tmp_path):
    """Differences of single seeds have no interval; without runs on mt80 there is no difference."""
    runs = tmp_path / "runs"
    points = {0: (0.0, 0.0), 1000: (30.0, 50.0)}
    write_multitask_run(runs, points, task_set="mine", num_parameters=5_000_000)
    tab = browser.new_page(viewport={"width": 1200, "height": 800})
    for seed, intervals in ((1, False), (2, True)):
        for variant in ("default", "x"):
            points = {0: 0.0, 100_000: 300.0 + seed}
            write_run(runs, points, seed=seed, variant=variant, budget=100_000)
        headlines(tmp_path, f"runs={runs}")
        show(tab, (tmp_path / "report.html").as_uri(), "ablations")
        tab.reload()
        assert ("with Welch's 95" in tab.inner_text("main")) is intervals
        assert ("as one side has a single seed" in tab.inner_text("main")) is not intervals
    show(tab, (tmp_path / "report.html").as_uri(), "multitask")
    assert "Open: not judged" in tab.inner_text("main")
    assert "Our mean minus" not in tab.inner_text("main")
    tab.close()


def test_problems_and_chosen_findings_on_a_phone(browser, tmp_path):
    """What is wrong is visible without scrolling; lines do not break inside TD-MPC2."""
    runs = tmp_path / "runs"
    write_run(runs, {0: 0.0, 100_000: 30.0}, budget=100_000)
    write_run(runs, {}, seed=2)
    headlines(tmp_path, f"runs={runs}")
    tab = browser.new_page(viewport={"width": 390, "height": 844})
    show(tab, (tmp_path / "report.html").as_uri(), "audit")
    heads = tab.locator("table").last.locator("th:visible")
    assert heads.all_text_contents()[:2] == ["severity", "what"]
    assert tab.locator("button[aria-pressed=true]").count() == 1
    tab.locator(".controls button").last.click()
    assert tab.locator(".controls button").last.get_attribute("aria-pressed") == "true"
    assert tab.locator("button[aria-pressed=true]").count() == 1
    show(tab, (tmp_path / "report.html").as_uri(), "claims")
    assert "TD-MPC2" in tab.locator(".word").all_text_contents()
    tab.close()


def test_paper(browser, tmp_path):
    """A printed page is light, as wide as paper, and shows every chart; the screen returns."""
    write_study(tmp_path)
    tab = browser.new_page(viewport={"width": 1200, "height": 500}, color_scheme="dark")
    missing = (
        "[...document.querySelectorAll('.chart')].filter((box) => !box.querySelector('canvas'))"
    )
    wide = "Math.max(...[...document.querySelectorAll('table')].map((one) => one.scrollWidth))"
    for name in ("overview", "tasks", "task/walker-walk", "leaderboard"):
        tab.goto((tmp_path / "report.html").as_uri())
        show(tab, (tmp_path / "report.html").as_uri(), name)
        tab.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert tab.evaluate("document.documentElement.dataset.theme") == "light"
        assert tab.evaluate(f"{missing}.length") == 0, name
        assert tab.evaluate("document.querySelector('main').clientWidth") == 700
        if name != "tasks":
            assert tab.evaluate(wide) <= 700, name
        assert tab.locator("nav").is_hidden()
        tab.evaluate("dispatchEvent(new Event('afterprint'))")
        assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
        assert tab.evaluate("document.querySelector('main').clientWidth") > 1000
    tab.close()
