"""Charts, tables and addresses of the HTML report in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.report_files import choose, headlines, opened, show
from tests.analysis.run_files import write_run, write_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of the suite, users' tasks, and a curve of another source."""
    folder = tmp_path_factory.mktemp("charts")
    runs = folder / "runs"
    write_run(runs, {0: 5.0, 50_000: 300.0, 100_000: 500.0})
    write_run(runs, {0: 5.0}, task="cup-catch", state="RUNNING")
    for task, scores in (("gym:A-v0", (1200.0, 1900.0)), ("gym:B-v0", (-400.0, -300.0))):
        for seed, score in enumerate(scores, start=1):
            points = {0: 0.0, 100_000: score}
            own = {"task": task, "domain": task, "score_range": [0, 1000]}
            write_run(runs, points, seed=seed, **own)
    lines = ["mine,walker-walk,1,0,5", "mine,walker-walk,1,100000,900"]
    file = write_table(folder / "theirs.csv", "method,task,seed,step,reward", lines)
    headlines(folder, f"runs={runs}", f"curves={file}")
    return folder


@pytest.fixture
def page(browser: Any, folder: Path) -> Iterator[Any]:
    view = {"width": 1000, "height": 800}
    with opened(browser, (folder / "report.html").as_uri(), viewport=view) as tab:
        yield tab


def task(page: Any, name: str) -> None:
    """Open the page of a task, and wait until its chart is drawn."""
    show(page, page.url.split("#")[0], f"task/{name}")
    page.wait_for_selector(".large canvas")


X_SCALE = """() => { const { min, max } = document.querySelector('.large .chart').plot.scales.x;
    return [min, max]; }"""


def test_texts_with_units_are_sorted_by_size(page: Any) -> None:
    texts = ["950", "12.5k", "1.25M", "3.0e-4", "−20 [−21, −19]", "3 MB", "87.8 %"]
    numbers = [950, 12_500, 1_250_000, 3e-4, -20, 3, 87.8]
    assert page.evaluate("texts => texts.map(numberOf)", texts) == numbers


def test_bars_stay_in_their_cards(page: Any) -> None:
    widths = """() => [...document.querySelectorAll('.card')].flatMap(card =>
        [...card.querySelectorAll('.bar > *')].map(bar => {
            const [inner, outer] = [bar, bar.parentNode].map(one => one.getBoundingClientRect());
            return inner.left >= outer.left - 0.5 && inner.right <= outer.right + 0.5; }))"""
    found = page.evaluate(widths)
    assert len(found) >= 4
    assert all(found)
    cards = page.locator(".card", has_text="gym:B-v0")
    assert cards.locator(".bar i").bounding_box()["width"] == 0
    assert "-35.0" in cards.inner_text()


@pytest.mark.parametrize(
    ("low", "high"), [(-200, -200), (-1_000_100, -1_000_020), (3e-4, 3e-4), (12_340, 12_340)]
)
def test_ticks_of_nearly_constant_curves_differ(page: Any, low: float, high: float) -> None:
    chart = """async ([low, high, zero]) => {
        const lines = [{ x: [0, 1000], y: [low, high], dashes: [], color: '#0072B2', label: 'x' }];
        const box = chart({ lines, zero, metric: 'return' });
        box.style.height = '300px';
        document.getElementById('main').append(box);
        draw(box, { lines, zero, metric: 'return' });
        await new Promise(requestAnimationFrame);
        const { min, max } = box.plot.scales.y, axis = box.plot.axes[1];
        return [max - min, axis._values, axis._size];
    }"""
    for zero in (True, False):
        span, texts, width = page.evaluate(chart, [low, high, zero])
        assert span >= 1e-3 * abs(high)
        assert len(texts) == len(set(texts)) >= 3
        assert width > 7 * max(map(len, texts))


def test_ticks_in_one_unit(page: Any) -> None:
    def texts(*values: float | None) -> list[str]:
        return page.evaluate("values => tickTexts(values)", list(values))

    assert texts(0, 200, 400) == ["0", "200", "400"]
    assert texts(0, 50_000, 100_000) == ["0", "50k", "100k"]
    assert texts(None, 1_000_000, None, 2_000_000) == ["", "1M", "", "2M"]
    assert texts(-1_000_040, -1_000_020, -1_000_000) == ["-1.00004M", "-1.00002M", "-1M"]
    assert texts(12_310, 12_320, 12_330) == ["12.31k", "12.32k", "12.33k"]


def test_keys_with_modifiers_belong_to_the_browser(page: Any) -> None:
    task(page, "walker-walk")
    page.focus(".large .chart")
    for key in ("Control++", "Alt+ArrowLeft", "Meta+-"):
        page.evaluate(
            """key => { const [name, rest] = key.split(/\\+(.*)/s);
            const event = new KeyboardEvent('keydown', { key: rest, cancelable: true,
                [{ Control: 'ctrlKey', Alt: 'altKey', Meta: 'metaKey' }[name]]: true });
            document.querySelector('.large .chart').dispatchEvent(event);
            window.prevented = event.defaultPrevented; }""",
            key,
        )
        assert page.evaluate("prevented") is False
        assert page.evaluate(X_SCALE) == [0, 100_000]
    page.keyboard.press("+")
    page.wait_for_timeout(100)
    assert page.evaluate(X_SCALE) == [25_000, 75_000]


def test_an_address_that_is_not_valid_is_a_page_not_found(page: Any) -> None:
    page.evaluate("location.hash = '#task/%E0%A4%A'")
    page.wait_for_selector("h2 >> text=Page not found")


def test_an_evaluation_at_step_0_has_no_logarithmic_axis(page: Any) -> None:
    task(page, "cup-catch")
    page.check("input[name=log]")
    page.wait_for_timeout(200)
    assert "TD-MPC2: 5 at 0" in page.get_attribute(".large canvas", "aria-label")
    task(page, "walker-walk")
    page.check("input[name=log]")
    page.wait_for_timeout(200)
    assert page.evaluate(X_SCALE) == [50_000, 100_000]


def test_a_change_of_the_height_keeps_the_zoom(page: Any) -> None:
    task(page, "walker-walk")
    page.focus(".large .chart")
    page.keyboard.press("+")
    page.wait_for_timeout(100)
    page.set_viewport_size({"width": 1000, "height": 740})
    page.wait_for_timeout(300)
    assert page.evaluate(X_SCALE) == [25_000, 75_000]
    page.set_viewport_size({"width": 900, "height": 740})
    page.wait_for_timeout(300)
    assert page.evaluate(X_SCALE) == [0, 100_000]


def test_runs_of_other_sources_name_them(page: Any) -> None:
    task(page, "walker-walk")
    row = page.locator("tbody tr", has_text="mine").inner_text()
    assert "theirs" in row
    assert "published" not in row


def test_the_audit_says_how_many_problems_it_leaves_out(page: Any) -> None:
    page.evaluate("data.problems = Array.from({ length: 403 }, (_, i) => ['error', 'x', i, 'y'])")
    choose(page, "Audit")
    assert "and 3 more" in page.inner_text("main")
    page.evaluate("data.problems.length = 400")
    choose(page, "Overview")
    choose(page, "Audit")
    assert " more" not in page.locator("main > *").last.inner_text()
