"""Own runs in several precisions: one series, unless they must be told apart."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from analysis import make_figures, reproduce
from analysis.records.load import SERIES, Records
from analysis.records.run_folders import load_folders
from analysis.records.source_options import SourceOptions, load_sources
from tests.analysis.multitask_files import write_multitask_run
from tests.analysis.run_files import write_run, write_table

TF32 = {"variant": "precision-tf32", "overrides": {"precision": "tf32"}}
POINTS = {0: 1.0, 1000: 2.0}


def variants(records: Records) -> list[str]:
    """Return the variants, which table and list of runs must agree on."""
    assert set(records.table["variant"]) == set(records.runs["variant"])
    return sorted(records.runs["variant"])


def test_runs_of_different_seeds_are_one_series(tmp_path: Path) -> None:
    write_run(tmp_path, POINTS, seed=1)
    write_run(tmp_path, POINTS, seed=2, **TF32)
    records = load_folders([tmp_path])
    assert variants(records) == ["default", "default"]
    assert len(records.runs[SERIES].drop_duplicates()) == 1
    assert records.problems == ()


@pytest.mark.parametrize("folders", [("runs", "runs"), ("one", "other")])
def test_the_same_seed_in_two_precisions_is_told_apart(tmp_path: Path, folders) -> None:
    """In one folder, and in two, of which the second is no copy of the first."""
    write_run(tmp_path / folders[0], POINTS, seed=1)
    write_run(tmp_path / folders[1], {0: 3.0, 1000: 4.0}, seed=1, **TF32)
    write_run(tmp_path / folders[1], POINTS, seed=2, **TF32)
    records = load_folders([tmp_path / name for name in dict.fromkeys(folders)])
    assert variants(records) == ["default", *["default[precision=tf32]"] * 2]
    (problem,) = records.problems
    assert problem.severity == "warning"
    assert "default, default[precision=tf32]" in problem.what


def test_one_task_in_two_precisions_does_not_divide_the_others(tmp_path: Path) -> None:
    for seed in (1, 2):
        facts = TF32 if seed == 2 else {}
        write_run(tmp_path, POINTS, seed=seed, **facts)
        write_run(tmp_path, POINTS, seed=seed, task="cup-catch", **facts)
    write_run(tmp_path, POINTS, seed=1, task="cup-catch", tag="tf32", **TF32)
    records = load_folders([tmp_path])
    by_task = records.runs.groupby("task")["variant"].agg(sorted).to_dict()
    assert by_task == {
        "cup-catch": ["default", *["default[precision=tf32]"] * 2],
        "walker-walk": ["default", "default"],
    }
    (problem,) = records.problems
    assert problem.what == (
        "runs in several precisions on cup-catch, distinguished as default, default[precision=tf32]"
    )


@pytest.mark.parametrize(
    ("variant", "overrides", "expected"),
    [
        ("precision-bf16", {"precision": "bf16"}, "default"),
        ("num_q-2+precision-bf16", {"precision": "bf16", "num_q": 2}, "num_q-2"),
        ("precision-tf32+no-simnorm", {"precision": "tf32", "latent_norm": "none"}, "no-simnorm"),
        ("mine", {"precision": "tf32", "lr": 1e-3}, "mine"),
        ("precision-tf32", {"precision": "tf32", "lr": 1e-3}, "precision-tf32"),
        ("precision-study", {}, "precision-study"),
    ],
)
def test_names_of_variants(tmp_path: Path, variant, overrides, expected) -> None:
    """A name that does not say all that is changed never becomes that of the paper's settings."""
    write_run(tmp_path / "runs", POINTS, variant=variant, overrides=overrides)
    write_multitask_run(
        tmp_path / "runs", {0: (1.0, 2.0)}, variant=variant, overrides={**overrides}
    )
    assert set(variants(load_folders([tmp_path / "runs"]))) == {expected}


def test_a_precision_with_other_settings_stays_a_series(tmp_path: Path) -> None:
    write_run(tmp_path, POINTS, seed=1, variant="mine", overrides={"lr": 1e-3})
    write_run(tmp_path, POINTS, seed=2, variant="mine", overrides={"lr": 2e-3, "precision": "bf16"})
    records = load_folders([tmp_path])
    assert variants(records) == ["mine", "mine[precision=bf16]"]


def test_a_series_in_one_precision_is_not_said_to_have_several(tmp_path: Path) -> None:
    """Single-task and multi-task runs of one name have other settings; a third run has TF32."""
    write_run(tmp_path / "one", POINTS, variant="mine", overrides={"batch_size": 64})
    write_multitask_run(
        tmp_path / "two", {0: (1.0, 2.0)}, variant="mine", overrides={"batch_size": 32}
    )
    write_run(tmp_path / "two", POINTS, seed=2, **TF32)
    assert load_folders([tmp_path / "one", tmp_path / "two"]).problems == ()


def test_other_marks_of_a_variant_stay(tmp_path: Path) -> None:
    write_run(tmp_path, POINTS, obs="rgb", **TF32)
    assert variants(load_folders([tmp_path])) == ["default[obs=rgb]"]


def test_figures_of_the_paper_show_runs_in_any_precision(tmp_path: Path) -> None:
    """With the released curves, which a command finds by itself unless told not to."""
    write_run(tmp_path / "runs", {0: 0.0, 100_000: 945.0}, **TF32)
    lines = [f"{step},{step / 1000},{seed}" for step in (0, 100_000) for seed in (1, 2, 3)]
    write_table(tmp_path / "paper" / "sac" / "walker-walk.csv", "step,reward,seed", lines)
    out = tmp_path / "out"
    arguments = [f"runs={tmp_path / 'runs'}", f"published={tmp_path / 'paper'}", f"out={out}"]
    assert make_figures.main([*arguments, "only=learning_curves", "reps=200"]) == 0
    numbers = (out / "learning_curves.csv").read_text()
    assert "precision" not in numbers
    assert "published,sac" in numbers


@pytest.mark.parametrize("variant", [(), ("variant=default",), ("variant=precision-tf32",)])
def test_verdicts_are_on_runs_in_any_precision(tmp_path: Path, variant: tuple[str, ...]) -> None:
    """The old name of the variant is still understood."""
    for seed, score in enumerate((905.0, 915.0, 901.0), start=1):
        write_run(tmp_path / "runs", {0: 0.0, 100_000: score}, seed=seed, **TF32)
    lines = [f"{step},{step / 110 + seed},{seed}" for step in (0, 100_000) for seed in (1, 2, 3)]
    write_table(tmp_path / "paper" / "tdmpc2" / "walker-walk.csv", "step,reward,seed", lines)
    folders = [f"{name}={tmp_path / name}" for name in ("runs", "out")]
    reproduce.main([*folders, f"published={tmp_path / 'paper'}", *variant])
    text = (tmp_path / "out" / "reproduction_tasks.csv").read_text()
    (row,) = csv.DictReader(text.splitlines())
    assert (row["variant"], row["num_ours"]) == ("default", "3")


def test_released_curves_are_used_if_there_are_any(tmp_path: Path, monkeypatch) -> None:
    write_run(tmp_path / "runs", POINTS)
    write_table(tmp_path / "paper" / "sac" / "walker-walk.csv", "step,reward,seed", ["0,1.0,1"])
    monkeypatch.setenv("TDMPC2_PUBLISHED", str(tmp_path / "paper"))

    def sources(published: str = "", released="beside runs") -> set[str]:
        options = SourceOptions(runs=str(tmp_path / "runs"), published=published)
        return set(load_sources(options, released=released).runs["source"])

    assert sources() == sources(released="always") == {"runs", "published"}
    assert sources(published="none") == sources(released="never") == {"runs"}
