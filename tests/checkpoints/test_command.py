"""The command line: output of each action, and one line for bad input."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tdmpc2.checkpoints.__main__ import main, usage
from tdmpc2.checkpoints.model_file import load_model, save_model
from tdmpc2.common.system import cli
from tests.checkpoints.models import TASKS, model, official_file, same
from tests.runs import run_directory


def lines(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return the lines that `inspect` prints."""
    pairs = (line.partition("  ") for line in capsys.readouterr().out.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def test_inspect_tells_an_official_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extra = {"_Qs.module.0.weight": torch.zeros(1), "_decoder.0.weight": torch.zeros(1)}
    path = official_file(tmp_path / "a.pt", model(model_size="5"), "old", **extra)
    assert main(["inspect", str(path)]) == 0
    said = lines(capsys)
    assert said["format"] == "official, old keys (2023)"
    assert said["model"] == "single-task, size 5"
    assert said["parameters"] == "4,960,618 (without target networks)"
    assert said["tasks"].startswith("one of walker-stand, walker-walk, walker-run")
    assert said["unknown keys"] == "_decoder.0.weight"
    assert len(said["sha256"]) == 64


def test_inspect_tells_sets_of_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = official_file(tmp_path / "a.pt", model(*TASKS))
    assert main(["inspect", f"file={path}"]) == 0
    said = lines(capsys)
    assert (said["model"], said["tasks"]) == ("3 tasks, size smoke", "unknown")
    assert "task embedding 96" in said["dimensions"]
    save_model(tmp_path / "b.pt", load_model(path, tasks=",".join(TASKS)))
    assert main(["inspect", str(tmp_path / "b.pt")]) == 0
    said = lines(capsys)
    assert (said["format"], said["origin"]) == ("model file", "official checkpoint a.pt")
    assert said["tasks"] == "toy-pointmass, cartpole-balance, mw-reach"


def test_inspect_tells_runs(undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_directory(undisturbed)
    assert main(["inspect", str(run)]) == 0
    said = lines(capsys)
    assert said["format"] == "run of this project"
    assert said["origin"].endswith("seed 1), 200 decisions")
    assert said["tasks"] == "toy-pointmass"
    assert "fits no model size" in said["model"]


def test_inspect_tells_odd_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = official_file(tmp_path / "a.pt", model(num_q=3), "old")
    assert main(["inspect", str(path)]) == 0
    assert (
        "the nearest is smoke, but _Qs.params.0 is 3x64x70, not 2x64x70" in lines(capsys)["model"]
    )


def test_import_then_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = model(*TASKS)
    source = official_file(tmp_path / "a.pt", original, "old")
    imported, exported = tmp_path / "new" / "b.pt", tmp_path / "c.pt"
    assert main(["import", str(source), f"task={','.join(TASKS)}", f"out={imported}"]) == 0
    assert capsys.readouterr().out == f"{imported}: TD-MPC2 of size smoke on 3 tasks\n"
    assert main(["export", str(imported), f"out={exported}", "format=official"]) == 0
    assert "the file does not contain these settings" in capsys.readouterr().out
    assert same(load_model(exported, tasks=",".join(TASKS)).weights, original.weights)


def test_import_a_run(undisturbed: Path, tmp_path: Path) -> None:
    run, out = run_directory(undisturbed), tmp_path / "a.pt"
    assert main(["import", str(run), f"out={out}"]) == 0
    ours, theirs = load_model(out), load_model(run)
    assert (ours.config, ours.env, ours.facts) == (theirs.config, theirs.env, theirs.facts)
    assert same(ours.weights, theirs.weights)


def test_export_a_run(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.pt"
    assert main(["export", str(run_directory(undisturbed)), f"out={out}"]) == 0
    assert load_model(out, tasks="toy-pointmass", any_size=True).env.task_names == (
        "toy-pointmass",
    )


def test_a_path_may_hold_an_equals_sign(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    official_file(tmp_path / "seed=1", model())
    assert main(["inspect", "seed=1"]) == 0
    assert lines(capsys)["model"] == "single-task, size smoke"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "'': unknown action"),
        (["inspekt"], "did you mean 'inspect'?"),
        (["inspect"], "file= is missing"),
        (["inspect", "none.pt"], "No such file"),
        (["inspect", "fiel=a"], "did you mean 'file'?"),
        (["import", "a.pt", "task=walker-walk"], "out= is missing"),
        (["import", "a.pt", "out=b.pt"], "give it with task="),
        (["import", "a.pt", "task=walker-walk", "out=b.zip"], "must end in .pt or .safetensors"),
        (["import", "a.pt", "task=walker-walk", "out=a.pt"], "already exists"),
        (["import", "own.pt", "task=dog-run", "out=b.pt"], "a model of walker-walk, not of dog"),
        (["import", "a.pt", "task=dog-run", "out=b.pt"], "dog-run has 223 and 38"),
        (["export", "a.pt", "out=b.pt"], "give it with task="),
        (["export", "own.pt", "out=b.pt", "format=onnx"], "format=onnx: unknown value"),
        (["export", "own.pt", "out=b.pt", "format=safetensors"], "must end in .safetensors"),
        (["evaluate", "own.pt", "task=cheetah-run"], "was not trained on this task"),
        (["evaluate", "own.pt", "episodes=0"], "must lie in [1, 10_000]"),
        (["evaluate", "a.pt"], "give it with task="),
        (["evaluate", "set.pt"], "task= is missing: one of the model's 3 tasks, or all"),
        (["evaluate", "set.pt", "task=mw-reach,mw-reach"], "mw-reach is named twice"),
        (["evaluate", "own.pt", "out=own.pt"], "already exists"),
        (["evaluate", "own.pt", "device=tpu"], "unknown device"),
        (["fetch"], "name= is missing"),
        (["fetch", "walker-wakl"], "did you mean 'walker-walk'?"),
        (["fetch", "all", "sha256=ab"], "64 hexadecimal digits and a single file"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    official_file(tmp_path / "a.pt", model())
    save_model(tmp_path / "own.pt", model())
    save_model(tmp_path / "set.pt", model(*TASKS))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["checkpoints", *arguments])
    assert cli.command(main, usage) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_help_says_what_is_inferred() -> None:
    assert "the default patterns are inferred" in " ".join(usage().split())
