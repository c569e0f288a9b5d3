"""The evaluate command on a finished run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.common.system.errors import UserError
from tdmpc2.evaluate import main, usage
from tdmpc2.runners.specs import make_spec
from tests.envs.test_assets import YCB, change, write_ycb
from tests.kill_driver import Command, Done
from tests.runs import outcome, run_directory, tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a completed tiny run."""
    runs = tmp_path_factory.mktemp("evaluate")
    tiny(runs)
    return run_directory(runs)


def evaluate(*arguments: str) -> Done:
    """Runs the command to its end."""
    return Command(["threads=1", "compile=false", *arguments], module="tdmpc2.evaluate").run()


def test_run_and_checkpoint_give_the_same_repeatable_result(run: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    (checkpoint,) = (run / "checkpoints").iterdir()
    outcomes = []
    for i, path in enumerate((run, run, checkpoint)):
        out = tmp_path / f"{i}.json"
        done = evaluate(f"run={path}", "episodes=3", f"out={out}")
        assert done.code == 0, done
        assert "return" in done.out
        outcomes.append(json.loads(out.read_text()))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0]["returns"] == outcomes[2]["returns"]
    assert len(outcomes[0]["returns"]) == 3
    assert outcomes[0]["agent_step"] == 200
    assert outcomes[0]["episode_success_ever"] >= outcomes[0]["episode_success"]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_workers_change_nothing(run: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        out = tmp_path / str(workers)
        assert evaluate(f"run={run}", "episodes=3", f"workers={workers}", f"out={out}").err == ""
    assert (tmp_path / "0").read_text() == (tmp_path / "2").read_text()


@pytest.mark.slow
def test_a_run_with_videos_and_workers_is_the_same_run(tmp_path: Path) -> None:
    """The evaluate command can write a video as well."""
    changes = {
        "task": "mw-push",
        "env_steps": 400,
        "seed_decisions": 100,
        "planning": "false",
        "eval_every": 400,
        "eval_episodes": 2,
    }
    assert tiny(tmp_path / "plain", **changes).code == 0
    filmed = tiny(tmp_path / "filmed", save_video="true", eval_workers=2, **changes)
    assert (filmed.code, filmed.err) == (0, "")
    assert outcome(tmp_path / "plain") == outcome(tmp_path / "filmed")
    videos = run_directory(tmp_path / "filmed") / "videos"
    assert sorted(path.name for path in videos.iterdir()) == ["0.mp4", "400.mp4"]
    assert not (run_directory(tmp_path / "plain") / "videos").exists()
    done = evaluate(f"run={run_directory(tmp_path / 'plain')}", "episodes=1", "save_video=true")
    assert done.code == 0, done
    (video,) = (run_directory(tmp_path / "plain") / "videos").iterdir()
    assert video.name == "evaluate-200-seed0.mp4"
    assert str(video) in done.out


def test_another_seed_gives_other_episodes(run: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        evaluate(f"run={run}", "episodes=2", f"seed={seed}", f"out={tmp_path / str(seed)}")
    first, second = (json.loads((tmp_path / str(s)).read_text()) for s in (0, 1))
    assert first["returns"] != second["returns"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run= is missing"),
        (["run=/"], "neither a run directory nor a checkpoint"),
        (["run=/", "episodse=3"], "did you mean 'episodes'?"),
        (["run=/", "episodes=0"], "must lie in [1, 10_000]"),
        (["run=/", "out=/"], "out=/: is a folder; name a file"),
        (["run=/", "out=/dev/null/x.json"], "out=/dev/null/x.json: cannot be written ("),
        (["run=/", "out=/proc/x.json"], "out=/proc/x.json: cannot be written ("),
        (["run=/etc/hosts"], "python -m tdmpc2.checkpoints evaluate"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
    assert cli.command(main, usage) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1


def test_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    tiny(tmp_path)
    directory = run_directory(tmp_path)
    (state,) = directory.rglob("state.pt")
    state.write_bytes(state.read_bytes()[:-10])
    done = evaluate(f"run={directory}")
    assert done.code == 2
    assert "the checkpoint is damaged (checksum of state.pt does not match)" in done.err


def test_other_models_than_those_of_the_run_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told apart by their checksum, also if the source of both is unknown."""
    monkeypatch.setenv("MS2_ASSET_DIR", str(tmp_path))
    mesh = write_ycb(tmp_path, "011_banana") / YCB / "models/011_banana/collision.obj"
    spec = make_spec("tdmpc2", "pick-ycb", 1, assets="unknown")
    run = spec.run_dir(tmp_path / "runs")
    (run / "checkpoints/000000000100").mkdir(parents=True)
    write_json(run / "spec.json", spec.to_json())
    change(mesh)
    now = make_spec("tdmpc2", "pick-ycb", 1, assets="unknown").assets
    with pytest.raises(UserError, match=f"contains {now} assets, but the run uses {spec.assets};"):
        main([f"run={run}", "compile=false"])
