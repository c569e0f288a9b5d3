"""Section `resume`: a run that is killed and resumed equals an uninterrupted one."""

from __future__ import annotations

import csv
import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_sections.report import GIVEN_UP, Report, Settings
from tdmpc2.common.system.atomic_files import read_json
from tests.kill_driver import Blow, Done
from tests.runs import outcome, run_directory, tiny
from tests.test_offline import make_data, train

# Wide enough for compiled kernels.
WIDE = {"mlp_dim": 64, "latent_dim": 64, "enc_dim": 64, "num_samples": 64, "batch_size": 32}
KILL = Blow("tdmpc2.agent:TDMPC2.update", 40)  # there are updates before and after it


def run(report: Report, settings: Settings) -> None:
    """Compare runs of TD-MPC2, eager and compiled, and of several tasks."""
    cases: dict[str, dict[str, Any]] = {
        "TD-MPC2, eager": {**WIDE, "compile": "false"},
        "TD-MPC2, compiled": {**WIDE, "compile": "true"},
    }
    if settings.small:
        del cases["TD-MPC2, compiled"]
    for name, arguments in cases.items():
        compare(report, settings, name, {**arguments, "device": str(settings.device)})
    data = settings.out / "resume" / "data"
    shutil.rmtree(data, ignore_errors=True)
    start = functools.partial(train, make_data(data))
    several = {**WIDE, "device": str(settings.device)}
    compare(report, settings, "several tasks, eager", several, start)
    if not settings.small:
        several["compile"] = "true"
        compare(report, settings, "several tasks, compiled", several, start)


def compare(
    report: Report,
    settings: Settings,
    name: str,
    arguments: dict[str, Any],
    start: Callable[..., Done] = tiny,
) -> None:
    """Compare two uninterrupted runs with one that is killed and resumed, byte for byte.

    Args:
        report: report of the section.
        settings: settings of the section.
        name: name of the case.
        arguments: arguments of the runs.
        start: function that starts a run, or continues it.
    """
    folder = settings.out / "resume" / name.replace(", ", "-")
    shutil.rmtree(folder, ignore_errors=True)  # runs of an earlier attempt, which have ended
    ends = {}
    for place in ("first", "second", "killed"):
        runs = folder / place
        if place == "killed":
            done = start(runs, KILL, **arguments)
            report.add(f"{name}: exit code when killed", done.code, at_most=-9.0, at_least=-9.0)
        done = start(runs, **arguments)
        report.add(
            f"{name}: exit code, {place} run",
            done.code,
            at_most=0.0,
            at_least=0.0,
            note=done.err[-300:],
        )
        if done.code:
            return
        if arguments.get("compile") == "true":
            why = uncompiled(runs, done)
            report.add(f"{name}: {place} run is compiled", float(not why), at_least=1.0, note=why)
        ends[place] = outcome(runs)
    repeatable = ends["first"] == ends["second"]
    report.add(
        f"{name}: two uninterrupted runs are equal",
        float(repeatable),
        at_least=1.0,
        note="" if repeatable else f"not repeatable: {differences(folder)}",
    )
    same = ends["first"] == ends["killed"]
    report.add(
        f"{name}: killed and resumed run is equal",
        float(same),
        at_least=1.0,
        note="" if same else differences(folder),
    )


def uncompiled(runs: Path, done: Done) -> str:
    """Return why a run has not used all of its compiled code; empty if it has.

    Args:
        runs: folder of the run.
        done: result of its command.
    """
    given_up = [line.strip() for line in done.err.splitlines() if GIVEN_UP in line]
    numeric = read_json(run_directory(runs) / "numeric.json") or {}
    if not numeric.get("compile") and not given_up:
        return "numeric.json records no compilation"
    return "; ".join(given_up)


def differences(folder: Path) -> str:
    """Return the first line and column of train.csv that differs from the first run."""
    tables = {}
    for place in ("first", "second", "killed"):
        if (folder / place).exists():
            with open(run_directory(folder / place) / "train.csv", encoding="utf-8") as file:
                tables[place] = list(csv.DictReader(file))
    for place, table in tables.items():
        for number, (row, first_row) in enumerate(zip(table, tables["first"], strict=False), 1):
            for column, value in row.items():
                if value != first_row[column]:
                    return f"{place}: line {number}, {column}: {value} and {first_row[column]}"
    return "train.csv is equal; the weights or evaluations differ"
