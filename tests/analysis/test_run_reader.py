"""Reading of a run directory, valid and damaged."""

from __future__ import annotations

import json
import typing
from pathlib import Path

import pytest

from analysis.records.evaluations import read_evaluations
from analysis.records.problems import Problem
from analysis.records.run_reader import STATES, read_reference_scores, read_run
from tdmpc2.common.run import run_files as trainer_records
from tdmpc2.common.run.schemas import ReadState, State
from tests.analysis.run_files import HEADER, eval_line, write_reference_scores, write_run


def read(path: Path, content: str) -> tuple[dict[int, float], list[Problem]]:
    path.write_text(content, encoding="utf-8")
    problems: list[Problem] = []
    points = read_evaluations(path, problems)
    returns = points.values.get("episode_return", ())
    return dict(zip(points.steps.tolist(), returns, strict=True)), problems


def test_the_test_files_look_like_the_trainers():
    assert HEADER.split(",") == list(trainer_records.EVAL_COLUMNS)
    assert set(STATES) == set(typing.get_args(ReadState))


def test_a_state_that_is_no_longer_written_is_read(tmp_path):
    directory = write_run(tmp_path, [(0, 10.0)], state="CANCELLED")
    problems: list[Problem] = []
    run = read_run(directory, problems)
    assert run is not None
    assert run["state"] == "CANCELLED"
    assert [problem.severity for problem in problems] == ["warning"]
    assert "CANCELLED" not in typing.get_args(State)


def test_records_from_before_success_ever_are_whole(tmp_path):
    path = tmp_path / "eval.csv"
    header = HEADER.replace("episode_success_ever,", "")
    path.write_text(f"{header}\n1000,500,12.5,0.0,0.5,500,10\n")
    problems: list[Problem] = []
    metrics = set(read_evaluations(path, problems).values)
    assert "episode_success" in metrics
    assert "episode_success_ever" not in metrics
    assert problems == []


@pytest.mark.parametrize(
    ("spec", "variant"),
    [
        ({}, "default"),
        ({"obs": "state", "assets": None}, "default"),
        ({"assets": "official"}, "default"),
        ({"assets": "standin"}, "default[assets=standin]"),
        ({"task": "cup-catch", "protocol": {"physics": "paper"}}, "default"),
        ({"task": "cup-catch", "protocol": {}}, "default[physics=0.4.0]"),
        (
            {"task": "cup-catch", "protocol": {"physics": "simulator"}},
            "default[physics=simulator]",
        ),
        ({"assets": "unknown-01234567"}, "default[assets=unknown-01234567]"),
        ({"obs": "rgb", "assets": "rebuilt"}, "default[obs=rgb,assets=rebuilt]"),
    ],
)
def test_runs_off_the_papers_ground_are_marked(tmp_path, spec, variant):
    run = read_run(write_run(tmp_path, [(0, 1.0)], **spec), [])
    assert run is not None
    assert run["variant"] == variant


def test_every_metric_is_read(tmp_path):
    path = tmp_path / "eval.csv"
    path.write_text(f"{HEADER}\n{eval_line(1000, 12.5, sd=3.0, success=0.25)}")
    problems: list[Problem] = []
    points = read_evaluations(path, problems)
    assert points.steps.tolist() == [1000]
    assert {metric: values.tolist() for metric, values in points.values.items()} == {
        "episode_return": [12.5],
        "episode_return_sd": [3.0],
        "episode_success": [0.25],
        "episode_length": [500.0],
        "episode_success_ever": [0.25],
    }
    assert problems == []


@pytest.mark.parametrize("cut", ["2000,10", "2000,1000,7.0,0.0,0.0,500,10"])
def test_last_line_without_newline_is_skipped_with_file_and_line(tmp_path, cut):
    # The second line has all fields, but its last number may be truncated.
    path = tmp_path / "eval.csv"
    points, problems = read(path, f"{HEADER}\n{eval_line(0, 1.0)}{eval_line(1000, 2.0)}{cut}")
    assert points == {0: 1.0, 1000: 2.0}
    assert [(p.where, p.line, p.severity) for p in problems] == [(str(path), 4, "warning")]


def test_missing_column_is_named_and_the_others_are_read(tmp_path):
    path = tmp_path / "eval.csv"
    header = HEADER.replace("episode_success,", "")
    points, problems = read(path, f"{header}\n1000,500,7.5,0.0,0.0,500,10\n")
    assert points == {1000: 7.5}
    assert [(p.line, p.severity, p.what) for p in problems] == [
        (1, "error", "missing column episode_success")
    ]


def test_without_env_step_nothing_can_be_read(tmp_path):
    header = HEADER.replace("env_step,", "frame,")
    points, problems = read(tmp_path / "eval.csv", f"{header}\n{eval_line(0, 1.0)}")
    assert points == {}
    assert [p.what for p in problems] == ["missing column env_step"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("1000,500,nan,0,0,0,500,10\n", "episode_return is nan, not a finite number"),
        ("1000,500,7,0,inf,0,500,10\n", "episode_success is inf, not a finite number"),
        ("1000,500,seven,0,0,0,500,10\n", "episode_return is not a number: 'seven'"),
        ("1000,500,7\n", "3 fields for 8 columns"),
        ("1000.5,500,7,0,0,0,500,10\n", "env_step is 1000.5, not a non-negative integer"),
        ("-1,500,7,0,0,0,500,10\n", "env_step is -1, not a non-negative integer"),
    ],
)
def test_bad_line_is_named_and_the_rest_is_read(tmp_path, line, what):
    path = tmp_path / "eval.csv"
    points, problems = read(path, f"{HEADER}\n{eval_line(0, 1.0)}{line}{eval_line(2000, 3.0)}")
    assert points == {0: 1.0, 2000: 3.0}
    assert [str(p) for p in problems] == [f"error: {path}:3: {what}; line skipped"]


def test_repeated_steps_are_kept_for_the_rule(tmp_path):
    path, problems = tmp_path / "eval.csv", []
    lines = [eval_line(1000, 10.0), eval_line(0, 1.0), eval_line(1000, 30.0)]
    path.write_text(f"{HEADER}\n{''.join(lines)}")
    points = read_evaluations(path, problems)
    assert points.steps.tolist() == [1000, 0, 1000]
    assert points.values["episode_return"].tolist() == [10.0, 1.0, 30.0]
    assert problems == []


@pytest.mark.parametrize("content", [None, "", f"{HEADER}\n"])
def test_no_evaluation_yet_is_a_warning(tmp_path, content):
    path = tmp_path / "eval.csv"
    if content is not None:
        path.write_text(content)
    problems: list[Problem] = []
    points = read_evaluations(path, problems)
    assert (points.steps.tolist(), points.values) == ([], {})
    assert [(p.what, p.severity) for p in problems] == [("no evaluation yet", "warning")]


def test_facts_of_a_run(tmp_path):
    directory = write_run(
        tmp_path, {}, method="sac", seed=3, state="DIVERGED", commit="abc", model_size=None
    )
    problems: list[Problem] = []
    run = read_run(directory, problems)
    assert [str(problem) for problem in problems] == [
        f"warning: {directory}: DIVERGED, its data are kept; no message"
    ]
    assert run is not None
    assert (run["method"], run["seed"], run["state"], run["commit"]) == (
        *("sac", 3, "DIVERGED", "abc"),
    )
    assert (run["model_size"], run["dataset"], run["score"]) == ("", "", "return")


def test_a_run_resumed_by_another_commit_names_both(tmp_path):
    """Commits are listed in order; simulator versions are those of the last attempt."""
    directory = write_run(tmp_path, {}, commit="bbb")
    attempts = [
        {"commit": commit, "packages": {"dm_control": version, "mujoco": "3.6.0"}}
        for commit, version in [("aaa", "1.0"), ("aaa", "1.0"), ("bbb", "2.0")]
    ]
    (directory / "attempts.json").write_text(json.dumps(attempts))
    run = read_run(directory, [])
    assert run is not None
    assert (run["commit"], run["simulators"]) == ("aaa, bbb", "dm_control 2.0, mujoco 3.6.0")


@pytest.mark.parametrize("content", ["", "{", "{}", "3", "[3]", '[{"packages": 3}]'])
def test_attempts_that_cannot_be_read_leave_the_commit_of_the_spec(tmp_path, content):
    directory = write_run(tmp_path, {}, commit="bbb")
    (directory / "attempts.json").write_text(content)
    run = read_run(directory, [])
    assert run is not None
    assert (run["commit"], run["simulators"]) == ("bbb", "")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"metric": "reward"}, "unknown metric 'reward'"),
        ({"format": 2}, "format is 2, supported is 1"),
        ({"seed": "one"}, "seed is 'one', not of type int"),
    ],
)
def test_unusable_spec_leaves_the_run_out(tmp_path, change, what):
    problems: list[Problem] = []
    directory = write_run(tmp_path, {}, **{"seed": 1, "tag": "x"})
    spec = json.loads((directory / "spec.json").read_text()) | change
    (directory / "spec.json").write_text(json.dumps(spec))
    assert read_run(directory, problems) is None
    assert [p.where for p in problems] == [str(directory / "spec.json")]
    assert problems[0].what.startswith(what)
    assert problems[0].severity == "error"


def test_broken_json_is_named_with_its_line(tmp_path):
    directory = write_run(tmp_path, {})
    (directory / "spec.json").write_text('{\n"format": 1,\n')
    problems: list[Problem] = []
    assert read_run(directory, problems) is None
    assert (problems[0].where, problems[0].line) == (str(directory / "spec.json"), 3)


def test_evaluations_without_spec_are_an_error_but_an_empty_folder_is_not(tmp_path):
    problems: list[Problem] = []
    (tmp_path / "seed1-a").mkdir()
    assert read_run(tmp_path / "seed1-a", problems) is None
    (tmp_path / "seed1-a" / "eval.csv").write_text(f"{HEADER}\n")
    assert read_run(tmp_path / "seed1-a", problems) is None
    assert [p.severity for p in problems] == ["warning", "error"]


def test_reference_scores_are_read(tmp_path):
    problems: list[Problem] = []
    path = write_reference_scores(tmp_path, "walker-walk", (43.0, 12.0), (20.0, 5.0))
    assert read_reference_scores(path, problems) == [
        ("walker-walk", "uniform", 43.0, 12.0, 10),
        ("walker-walk", "zero", 20.0, 5.0, 10),
    ]
    assert problems == []


@pytest.mark.parametrize(
    "content",
    [
        '{"task": "walker-walk", "episodes": 10}',
        '{"task": "cup-catch", "episodes": 10, "uniform": {"mean": 1, "sd": 1}, '
        '"zero": {"mean": 1, "sd": 1}}',
        '{"task": "walker-walk", "episodes": 10, "uniform": {"mean": NaN, "sd": 1}, '
        '"zero": {"mean": 1, "sd": 1}}',
        "[]",
    ],
)
def test_unusable_reference_scores_are_named(tmp_path, content):
    path = tmp_path / "walker-walk.json"
    path.write_text(content)
    problems: list[Problem] = []
    assert read_reference_scores(path, problems) == []
    assert [p.where for p in problems] == [str(path)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 10**30),
        ("seed", -1),
        ("protocol", None),
        ("budget", "many"),
        ("budget", 10**30),
        ("dataset", ["a"]),
        ("obs", {}),
        ("score_range", [1]),
        ("score_range", ["a", "b"]),
        ("score_range", [1, 1]),
        ("score_range", [1, 10**400]),
        ("eval_episodes", -1),
    ],
)
def test_a_run_whose_spec_has_impossible_values_is_left_out(tmp_path, key, value):
    write_run(tmp_path / "good", [(0, 10.0)], seed=2)
    directory = write_run(tmp_path, [(0, 10.0)])
    spec = directory / "spec.json"
    content = {**json.loads(spec.read_text()), "metric": "return", key: value}
    spec.write_text(json.dumps(content))
    problems: list[Problem] = []
    assert read_run(directory, problems) is None
    assert len(problems) == 1
    assert key in problems[0].what


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"seed": ' + "1" * 5000 + "}"], ids=["brackets", "digits"]
)
@pytest.mark.parametrize("name", ["spec.json", "status.json", "attempts.json"])
def test_json_that_python_refuses(tmp_path, name, content):
    directory = write_run(tmp_path, [(0, 10.0)])
    (directory / name).write_text(content)
    problems: list[Problem] = []
    run = read_run(directory, problems)
    assert (run is None) == (name == "spec.json")
    assert any(name in problem.where for problem in problems) or name == "attempts.json"


def test_a_file_saved_with_a_byte_order_mark_is_read(tmp_path):
    points, problems = read(tmp_path / "eval.csv", f"\ufeff{HEADER}\n{eval_line(0, 5.0)}")
    assert (points, problems) == ({0: 5.0}, [])


@pytest.mark.parametrize("damaged", ["5_0.0", "\uff150.0", "50.0\u2028"])
def test_damaged_digits_are_no_numbers(tmp_path, damaged):
    text = f"{HEADER}\n" + eval_line(0, 10.0) + eval_line(1000, 50.0).replace("50.0", damaged)
    points, problems = read(tmp_path / "eval.csv", text)
    assert points == {0: 10.0}
    assert [problem.line for problem in problems] == [3]


def test_a_column_that_occurs_twice_is_not_guessed(tmp_path):
    header = HEADER.replace("episode_return_sd", "episode_return")
    points, problems = read(tmp_path / "eval.csv", f"{header}\n{eval_line(0, 5.0)}")
    assert points == {}
    assert "column episode_return occurs twice" in str(problems[-1])
