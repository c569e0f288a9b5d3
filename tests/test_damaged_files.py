"""Damaged files of a run directory: one line that names the file, and nothing is changed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tdmpc2.checkpoints.runs import model_of_run
from tdmpc2.common.run.run_files import RunFiles
from tdmpc2.common.run.spec import RunOptions
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.common.system.errors import UserError, one_line
from tdmpc2.data.sources import find_runs
from tdmpc2.evaluate import EvaluateOptions
from tdmpc2.runners.evaluate_checkpoint import evaluate_checkpoint
from tdmpc2.runners.life_cycle import LocalRun
from tdmpc2.runners.specs import make_spec
from tests.damages import DAMAGES, damage

SPEC = make_spec("tdmpc2", "toy-pointmass", 1)
FILES = ("spec.json", "status.json", "numeric.json", "attempts.json", "manifest.json")


def start(runs: Path, **options: bool) -> LocalRun:
    """Do what a start of the run does before it creates an environment and a trainer."""
    run = LocalRun(SPEC, RunOptions(runs=runs, compile=False, **options), torch.device("cpu"))
    run.agent = SimpleNamespace(  # type: ignore[assignment]
        config=SimpleNamespace(precision="fp32"),
        accelerable=lambda: SimpleNamespace(bf16_layers=None),
    )
    with contextlib.ExitStack() as stack:
        run.acquire(stack)
        run.set_up_numerics()
        run.records = RunFiles(run.directory, SPEC, {})
        if run.store.load() is None:
            run.store.save(100, {"agent": {}}, None)
        run.write_spec(keep_replay=True)
        run.records.set_state("INTERRUPTED", 100)
    return run


@pytest.fixture
def run(tmp_path: Path) -> LocalRun:
    run = start(tmp_path)
    start(tmp_path)  # a resume
    return run


def path_of(run: LocalRun, name: str) -> Path:
    folder = run.directory / "checkpoints" / f"{100:012d}"
    return (folder if name == "manifest.json" else run.directory) / name


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return names, modes and contents of the files below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (path.lstat().st_mode, content)
    return found


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", DAMAGES)
def test_a_resume_names_the_damaged_file(
    name: str, how: str, run: LocalRun, tmp_path: Path
) -> None:
    damage(path_of(run, name), how)
    before = snapshot(run.directory)
    with pytest.raises(UserError) as raised:
        start(tmp_path)
    message = str(raised.value)
    assert message == one_line(message)
    assert str(run.directory) in message
    assert snapshot(run.directory) == before


@pytest.mark.parametrize("name", ["numeric.json", "attempts.json"])
def test_a_missing_file_is_no_permission(name: str, run: LocalRun, tmp_path: Path) -> None:
    path_of(run, name).unlink()
    with pytest.raises(UserError, match=rf"{name}: missing"):
        start(tmp_path)
    start(tmp_path, allow_numeric_change=True, allow_commit_change=True)


@pytest.mark.parametrize("how", DAMAGES)
def test_other_readers_name_the_damaged_file(how: str, run: LocalRun, tmp_path: Path) -> None:
    """Evaluation and export refuse the run; a dataset leaves it out with the reason."""
    damage(path_of(run, "spec.json"), how)
    no_file = how in ("folder", "link loop", "pipe", "socket")
    text = "neither a run directory nor" if no_file else r"spec\.json: damaged"
    with pytest.raises(UserError, match=text):
        evaluate_checkpoint(EvaluateOptions(run=run.directory))
    with pytest.raises(UserError, match=text):
        model_of_run(run.directory)
    if how not in ("folder", "link loop"):
        found = find_runs(tmp_path, ["toy-pointmass"], method="tdmpc2", variant=None, seeds=())
        what = "cannot be read" if how in ("pipe", "socket") else "damaged"
        assert [str(reason).count(f"spec.json: {what}") for reason in found.left_out.values()] == [
            1
        ]


@pytest.mark.skipif(os.getuid() == 0, reason="root may read every file")
def test_a_file_without_permission(run: LocalRun, tmp_path: Path) -> None:
    path_of(run, "spec.json").chmod(0)
    with pytest.raises(UserError, match=r"spec\.json: cannot be read \(Permission denied\)"):
        start(tmp_path)


def test_further_keys_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": 1, "b": [NaN]}')
    assert set(read_json(path, dict[str, object])) == {"a", "b"}
