"""The page of the HTML report in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.report_files import (
    EVIL,
    LATE,
    choose,
    headlines,
    opened,
    publish,
    show,
    write_study,
)
from tests.analysis.run_files import write_reference_scores, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("report"))


@pytest.fixture
def page(browser, folder) -> Iterator[Any]:
    view = {"viewport": {"width": 1300, "height": 900}, "color_scheme": "light"}
    with opened(browser, (folder / "report.html").as_uri(), **view) as tab:
        yield tab


def drawn(page: Any, selector: str) -> int:
    """Return the number of canvases that are not blank."""
    count = """selector => [...document.querySelectorAll(selector)].filter(c => c.width &&
        c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v)).length"""
    return page.evaluate(count, selector)


def test_overview(page):
    assert page.title() == "TD-MPC2 reproduction"
    assert page.locator("nav a").all_text_contents() == [
        *("Overview", "Tasks", "Reproduction", "Variants", "Leaderboard", "Claims", "Audit"),
    ]
    card = page.locator(".card", has_text="Meta-World, tasks run here")
    assert "78.4" in card.inner_text()
    assert page.locator(".bar").count() >= 6


def test_tasks_are_filtered_and_series_switched_off(page):
    choose(page, "Tasks")
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
    page.hover(".tile .u-over >> nth=0")
    tip = page.inner_text("#tip")
    assert "env steps" in tip
    assert "TD-MPC2" in tip
    assert "SAC" not in tip


def test_a_tile_leads_to_its_task(page):
    choose(page, "Tasks")
    page.click(".tile >> nth=0")
    page.wait_for_selector("h2 >> text=Walker Walk")
    page.wait_for_timeout(200)
    assert drawn(page, ".large canvas") == 1
    label = page.get_attribute(".large canvas", "aria-label")
    assert label.startswith("Walker Walk, episode return, env steps; TD-MPC2: 882 at 200,000; ")
    assert "threshold: 79" in label
    runs = page.inner_text("table")
    assert "abcdef0123" in runs
    assert EVIL in runs  # displayed as text, not executed
    assert page.title() == "TD-MPC2 reproduction"
    page.locator(".charts .chart >> nth=0").scroll_into_view_if_needed()
    page.wait_for_timeout(200)
    assert drawn(page, ".charts canvas") >= 1
    assert page.locator(".charts b").all_text_contents() == ["value loss", "grad norm"]
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(200)  # charts are drawn again when they come into view
    box = page.wait_for_selector(".large canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 24, box["y"] + 100)
    assert "200,000 env steps" in page.inner_text("#tip")
    page.click("text=next")
    page.wait_for_selector("h2 >> text=Cup Catch")
    page.go_back()
    page.wait_for_selector("h2 >> text=Walker Walk")


def test_verdicts_variants_and_audit(page):
    choose(page, "Reproduction")
    assert page.locator("td.reproduced").count() >= 3
    assert "TD-MPC2 on DMControl (2 of 39 tasks)" in page.inner_text(".lead")
    assert "methods=dreamerv3,sac" in page.inner_text(".next")
    page.click("td a >> nth=0")
    page.wait_for_selector(".large canvas")
    choose(page, "Variants")
    assert "no-simnorm" in page.inner_text("main")
    choose(page, "Audit")
    page.click("button:has-text('budget other')")
    assert "200,000 instead of 4,000,000" in page.inner_text("main")
    assert "no evaluation yet" in page.inner_text("main")


def test_leaderboard(page):
    choose(page, "Leaderboard")
    assert "DMControl: 3 of 39 tasks, after 200,000 env steps" in page.inner_text("main")
    table = page.locator("table >> nth=0")
    assert table.locator("tbody tr").count() == 3
    row = table.locator("tbody tr", has_text="Other")
    # Only means are known: a point without an interval.
    assert row.locator("td").all_inner_texts()[2:6] == ["3 of 39", "unknown", "30.0", "—"]
    page.wait_for_timeout(200)
    assert drawn(page, ".large canvas") == 1
    assert "Other: 30 at 200,000" in page.get_attribute(".large canvas", "aria-label")
    page.uncheck("label:has-text('Other') input")
    assert "Other" not in page.get_attribute(".large canvas", "aria-label")
    scores = page.locator("table >> nth=1").inner_text()
    assert "Walker Walk" in scores
    assert "Walker Run" in scores


def test_claims(page):
    choose(page, "Claims")
    assert "TD-MPC2 scores 87.8 on DMControl" in page.inner_text("main")
    page.select_option("select[aria-label='Select status']", "quoted")
    assert "GPU-days" in page.inner_text("main")
    assert "TD-MPC2 scores 87.8" not in page.inner_text("main")


def test_columns_of_numbers_are_aligned_and_empty_ones_hidden(page):
    choose(page, "Variants")
    row = page.locator("tbody tr >> nth=0")
    classes = [cell.get_attribute("class") for cell in row.locator("td").all()]
    heads = page.locator("th").all()
    names = [head.text_content() for head in heads]
    assert classes[names.index("difference")] == classes[names.index("tasks")] == "number"
    assert classes[names.index("variant")] != "number"
    for place, head in enumerate(heads):
        texts = page.locator(f"tbody td:nth-child({place + 1})").all_text_contents()
        assert head.is_visible() == any(texts), names[place]
    choose(page, "Audit")
    assert "finding" not in page.locator("th").all_inner_texts()


def test_curves_differ_without_color(page):
    choose(page, "Tasks")
    texts = page.locator(".controls label").all_inner_texts()
    shapes = page.evaluate(
        """[...document.querySelectorAll('.controls .swatch')].map(one => [
            one.querySelector('path').getAttribute('d'),
            one.querySelector('line').getAttribute('stroke-dasharray')].join())"""
    )
    assert len(texts) == len(set(shapes)) >= 5
    # Of few points all are marked, of many about one in ten, of a second line other ones.
    steps = [10 * place for place in range(101)]
    marked = "([steps, number, count]) => markedPlaces(steps, steps, number, count, 0, 1000, 10)"
    assert page.evaluate(marked, [[0, 500, 1000], 0, 2]) == [0, 1, 2]
    first, second = (page.evaluate(marked, [steps, number, 2]) for number in (0, 1))
    assert first == list(range(10, 101, 10))
    assert second == list(range(5, 101, 10))


def test_black_curves_are_light_on_a_dark_page(page):
    assert page.evaluate("ink('#000000')") == page.evaluate("css('--text')")
    page.click("#theme")
    assert page.evaluate("ink('#000000')") == "#e6e9ed"
    assert page.evaluate("ink('#0072B2')") == "#0072B2"


def test_commands_break_between_arguments_and_signed_numbers_are_numbers(page):
    choose(page, "Claims")
    parts = page.locator("td code >> nth=0").locator("span").all_inner_texts()
    assert parts[:2] == ["python", "sweeps/launch.py"]
    texts = ["+1.7 [-5.0, +8.5]", "[-5.0, +8.5]", "-11.0* [-17.6, -4.3]", "+8.8", "next look"]
    found = page.evaluate("texts => texts.map(text => [NUMBER.test(text), numberOf(text)])", texts)
    assert found == [[True, 1.7], [True, -5], [True, -11], [True, 8.8], [False, None]]


def test_tables_are_sorted_and_filtered(page):
    rows = page.locator("tbody tr")
    count = rows.count()
    assert count >= 8
    page.fill("input[aria-label='Filter rows']", "meta-world")
    found = rows.count()
    assert 0 < found < count
    assert f"{found} of {count} rows" in page.inner_text("main")
    page.fill("input[aria-label='Filter rows']", "")
    page.select_option("select[aria-label='Select group']", "Meta-World, tasks run here")
    assert set(page.locator("tbody td:first-child").all_inner_texts()) == {
        "Meta-World, tasks run here"
    }
    page.select_option("select[aria-label='Select group']", "")
    for direction in ("ascending", "descending"):
        page.click("th button:text-is('mean')")
        assert page.get_attribute("th:has(button:text-is('mean'))", "aria-sort") == direction
        texts = page.locator("tbody td:nth-child(7)").all_inner_texts()
        means = [float(text.split()[0]) for text in texts]
        assert means == sorted(means, reverse=direction == "descending")
        assert len(set(means)) > 3


SCALES = """() => { const plot = document.querySelector('.large .chart').plot;
    return [plot.scales.x.min, plot.scales.x.max, plot.scales.y.min, plot.scales.y.max]; }"""


@pytest.fixture
def short(browser, tmp_path) -> Iterator[Any]:
    """Open the page of a task whose run ends long before the published curve."""
    write_run(tmp_path / "runs", {0: 5.0, 20_000: 200.0, 40_000: 300.0}, budget=40_000)
    write_reference_scores(tmp_path / "runs", "walker-walk", (43.0, 12.0), (20.0, 5.0))
    late = {0: 3.0, 20_000: 90.0, 4_000_000: 900.0}
    headlines(tmp_path, f"runs={tmp_path / 'runs'}", publish(tmp_path, "tdmpc2", late))
    url = f"{(tmp_path / 'report.html').as_uri()}#task/walker-walk"
    with opened(browser, url, viewport={"width": 390, "height": 844}, has_touch=True) as tab:
        tab.wait_for_selector(".large canvas")
        yield tab


def test_a_task_opens_at_the_range_of_its_runs(short):
    assert short.evaluate(SCALES)[:2] == [0, 40_000]
    short.check("input[name=all]")
    short.wait_for_timeout(200)
    assert short.evaluate(SCALES)[:2] == [0, 4_000_000]
    short.check("input[name=fixed]")
    short.wait_for_timeout(200)
    assert short.evaluate(SCALES)[2:] == [0, 1000]
    short.check("input[name=log]")
    short.wait_for_timeout(200)
    assert short.evaluate(SCALES)[0] == 20_000
    assert short.evaluate("document.querySelector('.large .chart').plot.scales.x.distr") == 3


@pytest.fixture
def early(browser, tmp_path) -> Iterator[Any]:
    """Open the page of a task whose runs end before the second published evaluation."""
    for seed in (1, 2):
        points = {0: 5.0, 20_000: 200.0 + seed, 40_000: 300.0}
        write_run(tmp_path / "runs", points, budget=40_000, seed=seed)
    headlines(tmp_path, f"runs={tmp_path / 'runs'}", publish(tmp_path, "tdmpc2", LATE))
    url = f"{(tmp_path / 'report.html').as_uri()}#task/walker-walk"
    with opened(browser, url, viewport={"width": 1200, "height": 844}) as tab:
        tab.wait_for_selector(".large canvas")
        yield tab


def test_curves_without_two_evaluations_in_the_range_are_not_drawn(early):
    """A line from step 0 to an evaluation outside of the range would say more than the data."""
    assert "published" not in early.get_attribute(".large canvas", "aria-label")
    note = "main > p.soft >> nth=-1"
    assert "not drawn: TD-MPC2 (published)." in early.inner_text(note)
    assert "measured coverage: TD-MPC2 " in early.inner_text(note)
    early.check("input[name=all]")
    early.wait_for_timeout(200)
    assert "TD-MPC2 (published): 800" in early.get_attribute(".large canvas", "aria-label")
    assert "not drawn" not in early.inner_text(note)


def test_charts_follow_keys_touch_and_zoom(short):
    short.focus(".large .chart")
    short.keyboard.press("ArrowRight")
    short.keyboard.press("ArrowRight")
    assert "20,000 env steps" in short.inner_text("#tip")
    assert "TD-MPC2: 200" in short.inner_text("#tip")
    short.keyboard.press("+")
    short.wait_for_timeout(100)
    low, high, *_ = short.evaluate(SCALES)
    assert (low, high) == (10_000, 30_000)
    short.keyboard.press("0")
    short.wait_for_timeout(100)
    assert short.evaluate(SCALES)[:2] == [0, 4_000_000]
    assert not short.is_visible("#tip")
    short.click("text=reset zoom")
    short.wait_for_timeout(200)
    box = short.locator(".large .u-over").bounding_box()
    short.touchscreen.tap(box["x"] + box["width"] - 3, box["y"] + 50)
    assert "40,000 env steps" in short.inner_text("#tip")
    short.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 50)
    short.mouse.down()
    short.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 60, steps=4)
    short.mouse.up()
    short.wait_for_timeout(100)
    low, high, *_ = short.evaluate(SCALES)
    assert (low, high) == (pytest.approx(10_000, abs=300), pytest.approx(20_000, abs=300))


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
    for name in (
        "overview",
        "tasks",
        "task/walker-walk",
        "verdicts",
        "ablations",
        "claims",
        "audit",
        "no",
    ):
        show(page, page.url.split("#")[0], name)
        page.wait_for_timeout(100)  # charts are drawn when they come into view
        inside = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert inside, name
