"""One damaged file hides neither a sweep nor the other runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps import launch, retry, status
from sweeps.tracking.progress import print_multitask_summary, print_summary
from sweeps.tracking.sweep_folder import SweepFolder, all_sweeps
from tdmpc2.common.system.errors import UserError
from tests.damages import DAMAGES, damage
from tests.sweeps.directories import plan, write_status, write_sweep

EVERY_WAY = pytest.mark.parametrize("how", DAMAGES)


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    """A sweep of three runs: one completed, one failed, one never started."""
    planned = plan(tmp_path, 3, env_steps=100)
    write_status(planned[0], "COMPLETED", 100)
    write_status(planned[1], "FAILED", 50)
    return write_sweep(tmp_path, planned)


def shown(runs: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return exit code and output of `status.py`."""
    capsys.readouterr()
    code = status.main([f"runs={runs}", "list=true"])
    return code, capsys.readouterr().out


def planned(runs: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return exit code and output of a launch that only plans."""
    capsys.readouterr()
    arguments = ["tasks=toy-pointmass", "seeds=3", "env_steps=100", f"runs={runs}"]
    code = launch.main([*arguments, "cluster=local", "dry_run=true"])
    return code, capsys.readouterr().out


@EVERY_WAY
def test_a_damaged_run_is_shown_and_not_launched(
    how: str, sweep: SweepFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    path = plan(sweep.runs, 3, env_steps=100)[0].directory / "status.json"
    damage(path, how)
    code, printed = shown(sweep.runs, capsys)
    assert code == 1
    assert [line.split()[0] for line in printed.splitlines() if "toy-pointmass/seed" in line][
        :3
    ] == ["damaged", "failed", "new"]
    assert f"{path}: " in printed
    _, printed = planned(sweep.runs, capsys)
    assert "2 to do" in printed
    assert f"{path}: " in printed


@EVERY_WAY
@pytest.mark.parametrize("name", ["submission.json", "sweep.json"])
def test_a_damaged_record_is_named(
    name: str, how: str, sweep: SweepFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sweep.path if name == "sweep.json" else sweep.path / "0001"
    other = write_sweep(sweep.runs, plan(sweep.runs, 1, env_steps=100))
    assert len(all_sweeps(sweep.runs)) == 2
    damage(folder / name, how)
    if (folder / name).exists() or name == "submission.json":
        code, printed = shown(sweep.runs, capsys)
        assert code == 1
        assert f"damaged: {folder / name}: " in printed
    assert planned(sweep.runs, capsys)[0] == 0
    assert other.rows()
    if name == "sweep.json":
        assert retry.main([f"runs={sweep.runs}", f"sweep={other.name}"]) == 0


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("status.json", '"message"', '"updated": 5, "message"'),
        ("status.json", '"message"', '"env_steps_per_second": "fast", "message"'),
        ("sweep.json", '"method"', '"methods"'),
        ("sweep.json", '"budget": ', '"budget": "about", "former": '),
    ],
)
def test_a_record_with_a_key_of_another_type_is_named(
    name: str, old: str, new: str, sweep: SweepFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run = plan(sweep.runs, 3, env_steps=100)[1]
    path = (run.directory if name == "status.json" else sweep.path) / name
    path.write_text(path.read_text().replace(old, new, 1))
    code, printed = shown(sweep.runs, capsys)
    assert code == 1
    assert f"{path}: damaged" in printed


def test_a_damaged_numeric_json_of_a_finished_run_does_not_end_a_launch(
    sweep: SweepFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run = plan(sweep.runs, 3, env_steps=100)[0]
    write_status(run, "COMPLETED", 100, env_steps_per_second=10.0)
    for content in ("{", "[]"):
        (run.directory / "numeric.json").write_text(content)
        code, printed = planned(sweep.runs, capsys)
        assert (code, "2 to do" in printed) == (0, True)


def test_seeds_that_another_one_holds_back_are_named(
    sweep: SweepFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(plan(sweep.runs, 3, env_steps=100)[0].directory / "status.json", "half")
    arguments = ["tasks=toy-pointmass", "env_steps=100", f"runs={sweep.runs}", "cluster=local"]
    together = [*arguments, "seeds=3", "seeds_per_process=3", "yes=true"]
    assert launch.main([*together, "dry_run=true"]) == 0
    printed = capsys.readouterr().out
    assert "1 blocked, 2 held back, 0 to do" in printed
    line = "  tdmpc2 toy-pointmass seeds 2, 3: seed 1 is damaged\n"
    assert printed.count(line) == 1
    assert launch.main(together) == launch.LEFT_OUT
    printed = capsys.readouterr().out
    assert printed.count(line) == 2  # with the plan, and at the end
    assert not (sweep.path / "0002").exists()


def test_an_empty_eval_csv_is_damage(
    sweep: SweepFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a completed run; one that has just started has none."""
    path = plan(sweep.runs, 3, env_steps=100)[0].directory / "eval.csv"
    path.touch()
    code, printed = shown(sweep.runs, capsys)
    assert code == 1
    assert f"damaged: tdmpc2 toy-pointmass seed 1 (default): {path}: empty" in printed
    code, printed = planned(sweep.runs, capsys)
    assert code == 0
    assert "2 to do" in printed


LINE = b"env_step,episode_return,episode_return_sd,episode_success\n100,5.0,1.0,0.0\n"


@pytest.mark.parametrize("how", [*DAMAGES, "other columns", "text in a number"])
def test_a_damaged_eval_csv_does_not_hide_the_summary(
    how: str, sweep: SweepFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = plan(sweep.runs, 2, env_steps=100)
    for run in runs:
        run.directory.mkdir(parents=True, exist_ok=True)
        run.status, run.must_learn = {"state": "COMPLETED", "env_step": run.spec.budget}, None
        (run.directory / "eval.csv").write_bytes(LINE)
    assert print_summary(runs, [None, None]) == 0
    capsys.readouterr()
    path = runs[0].directory / "eval.csv"
    if how == "other columns":
        path.write_bytes(LINE.replace(b"env_step", b"step"))
    elif how == "text in a number":
        path.write_bytes(LINE.replace(b"5.0", b"5.0x"))
    else:
        damage(path, how)
    assert print_summary(runs, [None, None]) == 1
    printed = capsys.readouterr().out
    assert printed.count("eval.csv is damaged") == 1
    assert printed.count("5.0 ± 1.0") == 1
    assert print_multitask_summary(runs[:1]) == 1
    assert "eval.csv is damaged" in capsys.readouterr().out


def test_a_retry_without_failures_still_refuses_unknown_keys(
    sweep: SweepFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    write_status(plan(sweep.runs, 3, env_steps=100)[1], "COMPLETED", 100)
    assert retry.main([f"runs={sweep.runs}", "mem_gb=3"]) == 0
    assert "0 failed" in capsys.readouterr().out
    with pytest.raises(UserError, match="unknown key 'mem_gbb' \\(did you mean 'mem_gb'"):
        retry.main([f"runs={sweep.runs}", "mem_gbb=3"])


def test_other_folders_beside_the_launches_are_ignored(
    sweep: SweepFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    (sweep.path / "0001.bak").mkdir()
    (sweep.path / "0001.bak" / "submission.json").write_text("[")
    assert shown(sweep.runs, capsys)[0] == 1  # a failed run
    assert sweep.new_submission().name == "0002"
    assert sweep.damages() == []
