"""Reports for tests: a small study, and the data inside a report."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis import report
from tests.analysis.run_files import write_reference_scores, write_run, write_table

TRAIN = "env_step,agent_step,num_updates,episode,value_loss,grad_norm\n"
EVIL = "</script><script>document.title='evil'</script>"


def write_study(root: Path) -> Path:
    """Write a report of two methods and an ablation, three published methods, and damaged files.

    Args:
        root: an empty folder, which is returned.
    """
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
    arguments.append(f"files={write_field(root / 'field.json')}")
    assert report.main([*arguments, "reps=200"]) == 0
    return root


def write_field(path: Path) -> Path:
    """Write result files of three methods, of which only means are known, on three tasks."""
    tasks = ("walker-walk", "walker-run", "cup-catch")
    found = {
        name: {
            task: {"steps": [0, 100_000, 200_000], "values": [0, top / 2, top]} for task in tasks
        }
        for name, top in (("Other", 300), ("Third", 400), ("Fourth", 500))
    }
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def content(folder: Path) -> dict[str, Any]:
    html = (folder / "report.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


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


@contextlib.contextmanager
def opened(browser: Any, url: str, **view: Any) -> Iterator[Any]:
    """Open a report; errors on its pages and network requests fail the test.

    Args:
        browser: the browser.
        url: address of the report.
        **view: arguments of the new page.
    """
    errors: list[str] = []
    asked: list[str] = []
    tab = browser.new_page(**view)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(url)
    yield tab
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    tab.close()


def choose(tab: Any, title: str) -> None:
    """Open a page from the menu of a report, and wait until it is shown."""
    tab.click(f"nav >> text={title}")
    tab.wait_for_selector(f"nav a[aria-current] >> text={title}")


def show(tab: Any, url: str, name: str) -> None:
    """Open a page of a report by its address, and wait until it is shown.

    The page is drawn by an event that comes after the change of the address.
    """
    tab.goto(f"{url}#{name}")
    here = "tasks" if name.startswith("task/") else name
    tab.wait_for_function(
        """here => [...document.querySelectorAll('nav a')].some((link) => link.hash === here)
            ? document.querySelector('nav a[aria-current]')?.hash === here
            : document.querySelector('h2')?.innerText === 'Page not found'""",
        arg=f"#{here}",
    )
