"""Multi-task runs in the tidy table, and the problems reported for damaged ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.records.load import TABLE, load, load_curves, merge, one_per_run
from tests.analysis.multitask_files import HEADER, PAIR, eval_line, write_multitask_run
from tests.analysis.run_files import write_run, write_table

ONE, TWO = PAIR


def with_lines(tmp_path: Path, *lines: str) -> Path:
    content = f"{HEADER}\n{''.join(lines)}"
    return write_multitask_run(tmp_path, {}, eval_csv=content) / "eval.csv"


def told(runs: Path) -> list[str]:
    return [str(problem) for problem in load(runs).problems]


def test_they_are_in_the_table_of_all_runs_with_their_unit(tmp_path):
    write_run(tmp_path, {0: 10.0}, task=ONE)
    write_multitask_run(tmp_path, {0: (1.0, 0.0), 1000: (30.0, 50.0)}, seed=7, size="19")
    records = load(tmp_path)
    assert records.problems == ()
    assert list(records.table.columns) == TABLE
    name = f"{ONE}+{TWO}"
    columns = ["task_set", "task", "domain", "score", "step_unit", "seed", "model_size", "state"]
    assert sorted(records.runs[columns].to_numpy().tolist()) == [
        ["", ONE, "dmcontrol", "return", "env_steps", 1, "5", "COMPLETED"],
        [name, TWO, "metaworld", "score", "num_updates", 7, "19", "COMPLETED"],
        [name, ONE, "dmcontrol", "score", "num_updates", 7, "19", "COMPLETED"],
    ]
    units = records.table.groupby("task_set")["step_unit"].unique()
    assert {key: list(own) for key, own in units.items()} == {
        "": ["env_steps"],
        name: ["num_updates"],
    }
    own = records.table[records.table["task_set"] == name]
    found = own[own["metric"].isin(["score", "episode_return", "episode_success"])]
    found = found.pivot(index=["step", "task"], columns="metric", values="value")
    assert found.loc[[(0, ONE), (0, TWO), (1000, ONE), (1000, TWO)]].to_numpy().tolist() == [
        *([10.0, 0.0, 1.0], [0.0, 0.0, 0.0]),
        *([300.0, 0.0, 30.0], [0.0, 0.5, 50.0]),
    ]
    (run,) = one_per_run(records.runs).to_dict("records")
    assert (run["dataset"], run["checksum"], run["tasks"]) == ("", "ab" * 32, [ONE, TWO])
    assert records.multitask_summary() == f"1 multi-task run (1 on {ONE}+{TWO})"
    assert records.select(step_unit="env_steps").multitask_summary() == ""


def test_what_is_remembered_of_them_is_what_was_read(tmp_path):
    write_multitask_run(tmp_path, {0: (1.0, 2.0)}, state="FAILED")
    first, second = load(tmp_path), load(tmp_path)
    assert (tmp_path / ".records-cache.parquet").exists()
    assert first.runs.to_dict("records") == second.runs.to_dict("records")
    assert first.table.equals(second.table)
    assert len(first.runs) == 2
    assert first.problems == second.problems
    assert "FAILED, its data are kept" in str(first.problems[0])


@pytest.mark.parametrize(
    ("variant", "overrides", "expected"),
    [
        ("model_size-19", {"model_size": "19"}, "default"),
        ("model_size-19+num_q-2", {"model_size": "19", "num_q": 2}, "num_q-2"),
        ("large", {"model_size": "19"}, "large"),
        ("default", {}, "default"),
    ],
)
def test_the_size_is_no_part_of_a_derived_variant(tmp_path, variant, overrides, expected):
    write_multitask_run(tmp_path, {0: (1.0, 2.0)}, variant=variant, overrides=overrides)
    assert set(load(tmp_path).runs["variant"]) == {expected}


def test_runs_of_other_settings_are_told_apart_and_equal_ones_left_out(tmp_path):
    for tag, settings in (("a", {}), ("b", {"num_q": 2}), ("c", {"num_q": 2})):
        write_multitask_run(tmp_path, {0: (1.0, 2.0)}, tag=tag, overrides=settings, variant="x")
    records = load(tmp_path)
    assert one_per_run(records.runs)["variant"].tolist() == ["x"]
    assert [problem.severity for problem in records.problems] == ["warning", "error"]
    assert "x, x[num_q=2]" in records.problems[0].what


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (eval_line(10, "cup-catch", 1.0), "unknown task 'cup-catch', not one of the run's 2 tasks"),
        (eval_line(10, ONE, 1.0).replace(",1.0", ",nan"), "score is nan, not a finite number"),
        (
            eval_line(10, ONE, 1.0).replace("10,", "-5,", 1),
            "num_updates is -5, not a non-negative integer",
        ),
        ("10,walker-walk,3\n", "3 fields for 9 columns"),
    ],
)
def test_bad_line_is_named_and_the_rest_is_read(tmp_path, line, what):
    path = with_lines(tmp_path, eval_line(0, ONE, 1.0), eval_line(0, TWO, 2.0), line)
    assert told(tmp_path) == [f"error: {path}:4: {what}; line skipped"]
    table = load(tmp_path).table
    assert table.loc[table["metric"] == "score", "value"].tolist() == [1.0, 2.0]


def test_half_written_line_and_empty_files(tmp_path):
    path = with_lines(tmp_path, eval_line(0, ONE, 1.0), eval_line(0, TWO, 2.0), "10,walk")
    empty = write_multitask_run(tmp_path, {}, seed=2)
    assert told(tmp_path) == [
        f"warning: {path}:4: incomplete last line, skipped",
        f"warning: {empty}/eval.csv: no evaluation yet",
    ]


def test_missing_column(tmp_path):
    run = write_multitask_run(tmp_path, {}, eval_csv=f"num_updates,task\n0,{ONE}\n")
    (problem,) = load(tmp_path).problems
    assert (problem.where, problem.line) == (f"{run}/eval.csv", 1)
    assert problem.what.startswith("missing column score, episode_return")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"metric": "return"}, "unknown multi-task metric 'return' (valid: score)"),
        ({"tasks": "mt30"}, "tasks is 'mt30', not a list of names"),
        ({"tasks": []}, "tasks is empty or contains a task twice"),
        ({"tasks": [ONE, ONE]}, "tasks is empty or contains a task twice"),
    ],
)
def test_unusable_spec_leaves_the_run_out(tmp_path, change, what):
    run = write_multitask_run(tmp_path, {0: (1.0, 2.0)}, task_set="x", **{"tag": "y"})
    text = (run / "spec.json").read_text()
    (run / "spec.json").write_text(json.dumps(json.loads(text) | change))
    assert told(tmp_path) == [f"error: {run}/spec.json: {what}; run excluded"]
    assert len(load(tmp_path).runs) == 0


def test_a_task_outside_the_table_is_named(tmp_path):
    run = write_multitask_run(tmp_path, {0: (1.0, 2.0)}, tasks=(ONE, "juggle"))
    what = "juggle: not in the task table, so the domain is unknown"
    assert told(tmp_path) == [f"warning: {run}/spec.json: {what}"]


def test_selection(tmp_path):
    for size, tasks in (("5", PAIR), ("19", PAIR[:1])):
        write_multitask_run(tmp_path, {0: [1.0] * len(tasks)}, size=size, tasks=tasks)
    write_multitask_run(tmp_path, {0: (1.0, 2.0)}, method="tdmpc", variant="plain")
    records = load(tmp_path)

    def sizes(**wanted) -> list[str]:
        chosen = records.select(**wanted)
        keys = ["model_size", "task_set", "task"]
        assert set(map(tuple, chosen.table[keys].to_numpy())) == set(
            map(tuple, chosen.runs[keys].to_numpy())
        )
        return one_per_run(chosen.runs)["model_size"].tolist()

    assert sizes() == ["5", "5", "19"]
    assert sizes(methods=["tdmpc2"]) == ["5", "19"]
    assert sizes(variants=["plain"]) == ["5"]
    assert sizes(tasks=["*+mw-reach"]) == ["5", "5"]
    assert sizes(sizes=["19"]) == ["19"]
    assert sizes(obs="rgb") == []
    assert sizes(sources=["published"]) == []
    assert len(sizes(sources=["runs"])) == 3
    assert len(sizes(step_unit="num_updates")) == 3
    assert sizes(step_unit="env_steps") == []


def test_merging_keeps_them(tmp_path):
    write_multitask_run(tmp_path / "runs", {0: (1.0, 2.0)})
    curves = write_table(tmp_path / "mine.csv", "task,seed,step,return", [f"{ONE},1,0,7"])
    merged = merge([load(tmp_path / "runs"), load_curves(curves, "mine")])
    assert len(one_per_run(merged.runs)) == 1
    assert merged.runs["source"].tolist() == ["runs", "runs", "mine"]


@pytest.mark.parametrize(
    ("datasets", "labels"),
    [
        ((("aa" * 32, "mt80"), ("aa" * 32, "mt80")), ["", ""]),
        ((("aa" * 32, "mt80"), ("bb" * 32, None)), ["mt80", "bbbbbbbb"]),
        ((("aa" * 32, "mt80"), ("bb" * 32, "mt80")), ["mt80 aaaaaaaa", "mt80 bbbbbbbb"]),
    ],
)
def test_datasets_of_one_task_set_have_labels(tmp_path, datasets, labels):
    for seed, (checksum, name) in enumerate(datasets):
        facts = {"dataset": checksum, "dataset_name": name, "seed": seed, "tag": str(seed)}
        write_multitask_run(tmp_path, {0: (1.0, 2.0)}, **facts)
    runs = one_per_run(load(tmp_path).runs)
    assert runs["dataset"].tolist() == labels
    assert runs["checksum"].tolist() == [checksum for checksum, _ in datasets]
