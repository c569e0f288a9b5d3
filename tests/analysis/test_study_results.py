"""Recorded studies: reading, registration, and the time that looks have saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.records.run_hours import CORE_HOURS, GPU_HOURS, read_hours
from analysis.records.studies import read_studies, read_study
from analysis.stats.study_results import (
    StudyCosts,
    costs_of,
    describe_costs,
    describe_study,
    result_texts,
)
from tdmpc2.common.system.errors import UserError
from tests.analysis.study_files import HOURS, RESULTS, WAITING, run_lines, write_study_folder

STATUS = {"state": "COMPLETED", "env_step": 7200, "env_steps_per_second": 2.0}


@pytest.mark.parametrize(
    ("status", "numeric", "hours"),
    [
        ({}, {"threads": 1}, (1.0, CORE_HOURS)),
        ({}, {"threads": 4}, (4.0, CORE_HOURS)),
        ({}, {"threads": 4, "seed_batch": "2 of 3"}, (4 / 3, CORE_HOURS)),
        ({}, {"threads": 4, "pack": "1 of 2"}, (2.0, CORE_HOURS)),
        ({}, {"threads": 4, "device": "cuda"}, (1.0, GPU_HOURS)),
        ({"state": "DIVERGED", "env_step": 3600}, {"threads": 1}, (0.5, CORE_HOURS)),
        ({"state": "RUNNING"}, {"threads": 1}, None),
        ({"env_steps_per_second": None}, {"threads": 1}, None),
        ({"env_steps_per_second": 0}, {"threads": 1}, None),
        ({}, {}, None),
        (None, {"threads": 1}, None),
    ],
)
def test_time_of_a_run(
    tmp_path: Path,
    status: dict[str, Any] | None,
    numeric: dict[str, Any],
    hours: tuple[float, str] | None,
) -> None:
    if status is not None:
        (tmp_path / "status.json").write_text(json.dumps(STATUS | status))
    (tmp_path / "numeric.json").write_text(json.dumps({"device": "cpu"} | numeric))
    found = read_hours(tmp_path)
    assert found == (None if hours is None else (pytest.approx(hours[0]), hours[1]))


def test_costs_by_hand(tmp_path: Path) -> None:
    """Nine runs of the fixed design, of which the third of no-x is not needed: 4.5 hours."""
    study = read_study(write_study_folder(tmp_path))
    used = 1 + 2 + 3 + 4 + 5 + 3 * 0.5
    assert costs_of(study) == StudyCosts(8, 9, {CORE_HOURS: used}, {CORE_HOURS: 4.5}, 0, 0)
    assert describe_costs(study) == (
        "Runs: 8 of 9 with 3 seeds for every claim (11 % saved). Time: 16.5 core-hours, about "
        "4.5 core-hours saved (at the mean time of the runs of each series and task)."
    )


def test_runs_without_a_time_are_counted_as_such(tmp_path: Path) -> None:
    rows = run_lines("default", (1.0, None, 3.0)) + run_lines("no-x", (None, None))
    study = read_study(write_study_folder(tmp_path, run_rows=rows + run_lines("other-y", (1.0,))))
    costs = costs_of(study)
    assert costs.used == {CORE_HOURS: 5.0}
    assert (costs.unknown, costs.unknown_saved) == (5, 1)
    assert describe_costs(study).endswith(
        "Time: 5.0 core-hours. Not counted: 5 runs without a recorded time and 1 run saved by "
        "series without any."
    )


def test_time_on_cores_and_gpus_is_not_added(tmp_path: Path) -> None:
    rows = run_lines("no-x", (4.0, 2.0)).replace("2.0,core-hours", "2.0,GPU-hours")
    costs = costs_of(read_study(write_study_folder(tmp_path, run_rows=rows)))
    assert costs.used == {CORE_HOURS: 4.0, GPU_HOURS: 2.0}
    assert costs.saved == {CORE_HOURS: 2.0, GPU_HOURS: 1.0}
    assert costs.unknown == 6  # of the series without runs in the file


def test_released_curves_cost_nothing_and_claims_have_tasks_of_their_own(tmp_path: Path) -> None:
    """Of the claims, one compares with the released curves, and on one of two tasks."""
    file = write_study_folder(tmp_path) / "registered.toml"
    text = file.read_text().replace('"walker-walk" = 200000', '"walker-walk" = 1\n"cup-catch" = 1')
    first, second = text.split('name = "other-y"')
    second = second.replace('base = "default"', 'base = "published"\ntasks = ["walker-walk"]')
    file.write_text(f'{first}name = "other-y"{second}')
    costs = costs_of(read_study(file.parent))
    # Two seeds of two series on two tasks, and three of one series on one; of five cells.
    assert (costs.runs, costs.fixed) == (2 * 2 * 2 + 3, 5 * 3)
    assert costs.used == {CORE_HOURS: 1 + 2 + 4 + 5 + 1.5}
    assert (costs.unknown, costs.unknown_saved) == (4, 2)  # none ran on cup-catch


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "Time: unknown, as runs.csv is missing; launching the study again writes it."),
        (run_lines("no-x", (None, None)), "Time: unknown, as no run has a recorded one."),
    ],
)
def test_an_unknown_time_is_not_guessed(tmp_path: Path, rows: str | None, message: str) -> None:
    assert describe_costs(read_study(write_study_folder(tmp_path, run_rows=rows))).endswith(message)


def test_a_study_that_waits_has_saved_nothing_yet(tmp_path: Path) -> None:
    results = RESULTS[: RESULTS.index("3,other-y")] + WAITING
    study = read_study(write_study_folder(tmp_path, results=results))
    # Two seeds of three series; third seeds do not count before their look is complete.
    assert describe_costs(study) == "Runs of the complete looks: 6. Time: 13.0 core-hours."
    assert "other-y: next look at 2 seeds" in describe_study(study)


def test_results_and_registration(tmp_path: Path) -> None:
    rows = run_lines("default", HOURS["default"]) + run_lines("no-x", (4.0, 5.0), registered=False)
    study = read_study(write_study_folder(tmp_path, run_rows=rows))
    texts = result_texts(study)
    assert texts["registered"].tolist() == [
        "no: 2 runs were not started by this study",
        "pre-registered",
    ]
    assert texts.drop(columns="registered").to_numpy().tolist() == [
        ["no-x", "supported", 2, "-20.0* [-24.3, -15.7]", "-20.0 [-24.3, -15.7]"],
        ["other-y", "no difference", 3, "+0.5 [-2.3, +3.3]", "+1.0 [-7.6, +9.6]"],
    ]


def test_what_was_changed_later_is_listed(tmp_path: Path) -> None:
    folder = write_study_folder(tmp_path)
    file = folder / "study.toml"
    file.write_text(file.read_text().replace("margin = 5.0", "margin = 9.0"))
    ((study,), problems) = read_studies([tmp_path])
    assert problems == []
    assert "no-x: supported at 2 seeds" in describe_study(study)
    assert "Its file was changed later: margin: 5.0 is now 9.0." in describe_study(study)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("decisions.csv", "-20.0", "twenty"),
        ("decisions.csv", "no-x", "unknown"),
        ("decisions.csv", "decision,", ""),
        ("boundaries.csv", "seeds,", ""),
        ("runs.csv", "True", "perhaps"),
        ("registered.toml", "[tasks]", ""),
        ("registered.toml", "looks = [2, 3]", ""),
    ],
)
def test_a_damaged_study_is_a_problem(tmp_path: Path, name: str, before: str, after: str) -> None:
    file = write_study_folder(tmp_path) / name
    file.write_text(file.read_text().replace(before, after))
    studies, (problem,) = read_studies([tmp_path])
    assert studies == []
    assert problem.what.startswith("study tasks-0123abcd cannot be read (")
    with pytest.raises(UserError, match="cannot be read"):
        read_study(file.parent)


def test_no_study_is_no_problem(tmp_path: Path) -> None:
    assert read_studies([tmp_path]) == ([], [])
