"""Loading of run folders into one tidy table."""

from __future__ import annotations

from pathlib import Path

from analysis.records.load import REFERENCE_SCORES, RUNS, TABLE, load
from tdmpc2.common.run.run_files import RunFiles
from tdmpc2.common.run.spec import RunSpec
from tests.analysis.run_files import eval_line, write_reference_scores, write_run


def test_runs_become_one_tidy_table(tmp_path):
    write_run(tmp_path, {0: 10.0, 1000: 20.0}, task="walker-walk", seed=1, sd=2.0)
    write_run(tmp_path, {0: 0.25}, task="mw-reach", domain="metaworld", metric="success")
    write_reference_scores(tmp_path, "walker-walk", (43.0, 12.0), (20.0, 5.0))
    records = load(tmp_path)

    assert list(records.table.columns) == TABLE
    walker = records.table[records.table["task"] == "walker-walk"]
    returns = walker[walker["metric"] == "episode_return"]
    assert returns[["step", "step_unit", "value"]].to_numpy().tolist() == [
        [0, "env_steps", 10.0],
        [1000, "env_steps", 20.0],
    ]
    assert set(walker["metric"]) == {
        *("episode_return", "episode_return_sd", "episode_success", "episode_success_ever"),
        "episode_length",
    }
    assert records.runs[["task", "score"]].to_numpy().tolist() == [
        ["mw-reach", "success"],
        ["walker-walk", "return"],
    ]
    assert records.reference_scores["mean"].tolist() == [43.0, 20.0]
    assert records.problems == ()


def test_what_the_trainer_writes_is_read(tmp_path):
    spec = RunSpec("tdmpc2", "walker-walk", 4, 1000, overrides=(("num_q", 2),), variant="two-q")
    directory = spec.run_dir(tmp_path)
    directory.mkdir(parents=True)
    facts = {"domain": "dmcontrol", "metric": "return", "model_size": 5}
    writer = RunFiles(directory, spec, facts)
    writer.write_spec({"commit": "abc"})
    line = {"env_step": 0, "agent_step": 0, "episode_return": 1.5, "episode_return_sd": 0.5}
    rest = {"episode_success": 0.0, "episode_length": 500.0, "num_episodes": 10}
    writer.csv["eval"].append(line | rest)
    writer.set_state("COMPLETED", 1000)

    records = load(tmp_path)
    assert records.problems == ()
    run = records.runs.iloc[0]
    assert run[["method", "variant", "model_size", "seed", "state", "commit"]].tolist() == [
        *("tdmpc2", "two-q", "5", 4, "COMPLETED", "abc"),
    ]
    values = records.table.set_index("metric")["value"]
    assert values["episode_return"] == 1.5
    assert values["episode_return_sd"] == 0.5


def test_empty_or_missing_folder_gives_empty_records(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        records = load(folder)
        assert list(records.table.columns) == TABLE
        assert list(records.runs.columns) == RUNS
        assert list(records.reference_scores.columns) == REFERENCE_SCORES
        assert len(records.table) == len(records.runs) == len(records.reference_scores) == 0
        assert records.select(methods=["sac"]).table.empty


def test_a_broken_run_is_named_and_the_others_are_read(tmp_path):
    broken = write_run(tmp_path, {}, seed=1, eval_csv="frame,score\n0,1\n")
    write_run(tmp_path, {0: 5.0}, seed=2)
    records = load(tmp_path)
    assert set(records.table["seed"]) == {2}
    assert [(p.where, p.line) for p in records.problems] == [(str(broken / "eval.csv"), 1)]


def test_runs_of_one_key_are_listed_and_none_is_used(tmp_path):
    first = write_run(tmp_path, {0: 1.0}, seed=1, tag="aaaa")
    second = write_run(tmp_path, {0: 9.0}, seed=1, tag="bbbb")
    write_run(tmp_path, {0: 5.0}, seed=2)
    records = load(tmp_path)
    assert set(records.table["seed"]) == set(records.runs["seed"]) == {2}
    (problem,) = records.problems
    assert problem.severity == "error"
    assert problem.where == str(first)
    assert str(second) in problem.what


def test_runs_of_different_settings_under_one_variant_are_kept_apart(tmp_path):
    write_run(tmp_path, {0: 1.0}, seed=1, tag="aaaa", overrides={"batch_size": 64})
    write_run(
        *(tmp_path, {0: 2.0}),
        seed=1,
        tag="bbbb",
        overrides={"batch_size": 64, "regression": "mse", "compile": True},
    )
    # Different seeds do not make different settings equal.
    write_run(tmp_path, {0: 3.0}, seed=2, tag="cccc", overrides={"batch_size": 32})
    records = load(tmp_path)
    table = records.table[records.table["metric"] == "episode_return"]
    assert dict(zip(table["variant"], table["value"], strict=True)) == {
        "default[batch_size=64]": 1.0,
        "default[batch_size=64,compile=true,regression=mse]": 2.0,
        "default[batch_size=32]": 3.0,
    }
    (problem,) = records.problems
    assert problem.severity == "warning"
    assert problem.where == str(tmp_path / "tdmpc2" / "default")


def test_model_sizes_are_series_of_their_own(tmp_path):
    write_run(tmp_path, {0: 1.0}, tag="aaaa", model_size=1, overrides={"model_size": 1})
    write_run(tmp_path, {0: 2.0}, tag="bbbb", model_size=5)
    records = load(tmp_path)
    assert set(records.runs["model_size"]) == {"1", "5"}
    assert set(records.runs["variant"]) == {"default"}
    assert records.problems == ()


def test_diverged_run_keeps_its_data_and_its_mark(tmp_path):
    write_run(tmp_path, {0: 1.0, 1000: 2.0}, state="DIVERGED")
    records = load(tmp_path)
    assert records.runs["state"].tolist() == ["DIVERGED"]
    assert sorted(records.table["step"].unique()) == [0, 1000]


def test_select_filters_runs_and_rows(tmp_path: Path):
    for method in ("tdmpc2", "sac"):
        for task in ("walker-walk", "walker-run", "cup-catch"):
            write_run(tmp_path, {0: 1.0}, method=method, task=task)
    write_run(tmp_path, {0: 1.0}, variant="no-simnorm", task="walker-walk")
    records = load(tmp_path)

    def found(**filters: list[str]) -> set[tuple[str, str, str]]:
        part = records.select(**filters)
        key = ["method", "variant", "task"]
        rows = {tuple(row) for row in part.table[key].to_numpy()}
        assert rows == {tuple(row) for row in part.runs[key].to_numpy()}
        return rows

    assert len(found()) == 7
    assert found(methods=["sac"], tasks=["walker-*"]) == {
        ("sac", "default", "walker-walk"),
        ("sac", "default", "walker-run"),
    }
    assert found(variants=["no-simnorm"]) == {("tdmpc2", "no-simnorm", "walker-walk")}
    assert found(methods=["dreamerv3"]) == set()


def test_select_by_variant_finds_its_settings_too(tmp_path):
    for number, tag in ((1, "aaaa"), (2, "bbbb")):
        write_run(tmp_path, {}, tag=tag, overrides={"num_q": number}, eval_csv=eval_line(0, 1.0))
    assert len(load(tmp_path).select(variants=["default"]).runs) == 2
