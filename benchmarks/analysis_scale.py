"""Measure the cost of the analysis at full size.

`python benchmarks/analysis_scale.py published=DIR` measures the first and the second load of 1,248
run directories, the bootstrap against rliable's, all figures of the published curves, and the
report with the runs and the published curves.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks import check_file, check_folder

from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.common.system.config_checks import REQUIRED, Settings, setting
from tdmpc2.common.system.paths import project_root

if TYPE_CHECKING:
    from analysis.records.load import Records

EVAL_HEADER = (
    "env_step,agent_step,episode_return,episode_return_sd,episode_success,"
    "episode_success_ever,episode_length,num_episodes\n"
)
TRAIN_HEADER = "env_step,agent_step,num_updates,episode,value_loss,grad_norm,pi_grad_norm\n"
TRAIN_ROWS = 4000
# Runs a command and prints its seconds and peak memory, in a process of its own: a process starts
# with the peak of the one that starts it, which would be that of this benchmark.
_MEASURE = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - start
process.returncode = os.waitstatus_to_exitcode(status)
print(json.dumps([seconds, usage.ru_maxrss * 1024 / 1e9]))
sys.exit(process.returncode != 0)
"""


@dataclass(frozen=True)
class Options(Settings):
    """Options of the command."""

    published: Path = setting(REQUIRED, "folder of the released curves")
    reps: int = setting(50_000, "bootstrap resamples", low=100, high=1_000_000)
    rliable_reps: int = setting(
        5000, "rliable's resamples; scaled to reps", low=100, high=1_000_000
    )
    json: Path | None = setting(None, "also write the numbers as JSON")


def parse(arguments: Sequence[str]) -> Options:
    """Return the options.

    Raises:
        UserError: an invalid option.
    """
    options = cli.parse_options(arguments, Options)
    check_folder("published", options.published)
    check_file("json", options.json)
    return options


def main(arguments: Sequence[str]) -> int:
    """Measure everything, print a table, and return the exit code.

    Raises:
        UserError: an invalid option.
    """
    options = parse(arguments)
    from analysis.records.load import load, load_curves

    rows: dict[str, Any] = {}
    published = load_curves(options.published, "published").select(obs="state")
    with tempfile.TemporaryDirectory() as scratch:
        runs = Path(scratch, "runs")
        write_runs(runs, published)
        rows["run directories"] = len(published.runs)
        rows["first load, s"] = timed(lambda: load(runs))
        rows["second load, s"] = timed(lambda: load(runs))
        rows |= bootstrap_times(options)
        rows |= command_times(options, runs, Path(scratch))
    for name, value in rows.items():
        print(f"{name:<42} {value:>10,.2f}")
    if options.json is not None:
        write_json(options.json, rows)
    return 0


def write_runs(runs: Path, published: Records) -> None:
    """Write a run directory for each published run, with training metrics of the usual length."""
    import numpy as np

    from analysis.stats.ragged_curves import ScoreCurves

    curves = ScoreCurves(published)
    steps = np.linspace(0, 1, TRAIN_ROWS)
    training = "".join(f"{int(4e6 * s)},0,0,0,{1 / (1 + s):.8g},{s:.8g},{s:.8g}\n" for s in steps)
    for run, curve in zip(curves.runs.to_dict("records"), curves.curves, strict=True):
        folder = runs / run["method"] / "default" / run["task"] / f"seed{run['seed']}-0123456789"
        folder.mkdir(parents=True)
        spec = {name: run[name] for name in ("method", "task", "domain", "seed", "budget")}
        spec |= {"format": 1, "variant": "default", "metric": run["score"], "overrides": {}}
        (folder / "spec.json").write_text(json.dumps(spec | {"budget_unit": "env_steps"}))
        (folder / "status.json").write_text(json.dumps({"state": "COMPLETED"}))
        returns = run["metric"] == "episode_return"
        lines = [
            f"{step},0,{value if returns else 0},0,{0 if returns else value},0,500,10\n"
            for step, value in sorted(dict(zip(curve.steps, curve.values, strict=True)).items())
        ]
        (folder / "eval.csv").write_text(EVAL_HEADER + "".join(lines))
        (folder / "train.csv").write_text(TRAIN_HEADER + training)


def bootstrap_times(options: Options) -> dict[str, float]:
    """Time this project's bootstrap and rliable's in turns, for 104 tasks of three seeds.

    The times include the tables of resamples.
    """
    import numpy as np

    from analysis.stats.aggregate import reference_interval
    from analysis.stats.bootstrap import Bootstrap, interval, resamples
    from analysis.stats.run_statistics import STATISTICS

    scores = np.random.default_rng(0).integers(0, 11, (3, 104)) / 10
    runs, strata = scores.T.reshape(-1, 1), np.repeat(np.arange(104), 3)
    rows = {}
    many, few = Bootstrap(options.reps), Bootstrap(options.rliable_reps)
    for name in STATISTICS:
        resamples.cache_clear()
        ours = timed(partial(interval, name, runs, strata, many))
        theirs = timed(partial(reference_interval, name, scores, few))
        theirs *= options.reps / options.rliable_reps
        rows[f"{name}: ours, s"] = ours
        rows[f"{name}: rliable, s"] = theirs
        rows[f"{name}: rliable / ours"] = theirs / ours
    return rows


def command_times(options: Options, runs: Path, scratch: Path) -> dict[str, float]:
    """Time the commands, including imports, and measure their peak memory.

    Args:
        options: options of the benchmark.
        runs: folder of the run directories.
        scratch: folder for output.
    """
    published = f"published={options.published}"
    (scratch / "none").mkdir()
    figures = ("make_figures.py", f"runs={scratch / 'none'}", published, f"out={scratch / 'out'}")
    report = ("report.py", f"runs={runs}", published, f"out={scratch / 'report.html'}")
    rows = {}
    for name, (script, *arguments) in (("figures", figures), ("report", report)):
        command = [sys.executable, str(project_root() / "analysis" / script), *arguments]
        seconds, peak = seconds_and_peak(command)
        rows[f"{name}, s"] = seconds
        rows[f"{name}, GB in the largest process"] = peak
    rows["report, MB"] = os.path.getsize(scratch / "report.html") / 1e6
    rows["report opens in, s"] = opening_time(scratch / "report.html")
    return rows


def seconds_and_peak(command: Sequence[str]) -> tuple[float, float]:
    """Return the seconds that a command takes, and its peak memory in 10⁹ bytes.

    That is the memory of its largest process: of the command itself, or of one that it has started
    and waited for.

    Raises:
        SystemExit: the command failed.
    """
    measure = [sys.executable, "-c", _MEASURE, *command]
    done = subprocess.run(measure, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    seconds, peak = json.loads(done.stdout)
    return seconds, peak


def opening_time(page: Path) -> float:
    """Return the seconds until a headless Chromium shows the report; NaN without Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return float("nan")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        taken = timed(lambda: tab.goto(page.as_uri()) and tab.wait_for_selector(".card"))
        browser.close()
    return taken


def timed(function: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def usage() -> str:
    """Return the text of `--help`."""
    return f"{__doc__}\nkeys:\n{cli.describe_fields(Options)}"


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
