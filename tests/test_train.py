"""The train command: what it refuses, skips, continues and leaves alone."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tdmpc2 import train
from tdmpc2.common.cli import schema_of
from tdmpc2.common.errors import UserError
from tdmpc2.common.files import read_json, write_json
from tdmpc2.common.protocols import Agent
from tdmpc2.common.records import read_status
from tdmpc2.common.spec import RunOptions
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.tasks import get_task
from tests.kill_driver import Blow, Command
from tests.runs import (
    agent_bytes,
    checkpoint_steps,
    evaluated_steps,
    files,
    outcome,
    run_directory,
    snapshot,
    tiny,
    words,
)

pytestmark = pytest.mark.xdist_group("train")  # one worker: the fixtures below are shared

ROOT = Path(train.__file__).parents[1]
# No update, one evaluation before and one after the only episode.
SHORT = {"env_steps": 50, "eval_every": 50, "seed_decisions": 50}
MID_EPISODE = Blow("tdmpc2.common.trainer:Trainer._choose_action", 173)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("undisturbed")
    assert tiny(runs).code == 0
    return runs


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed mid-episode, with checkpoints at 100 and 150."""
    runs = tmp_path_factory.mktemp("killed")
    assert tiny(runs, MID_EPISODE).code == -signal.SIGKILL
    assert checkpoint_steps(runs) == [100, 150]
    return runs


@pytest.fixture
def unfinished(killed: Path, tmp_path: Path) -> Path:
    """A copy of the killed run, to be changed."""
    return Path(shutil.copytree(killed, tmp_path / "unfinished"))


def refusal(runs: Path, **changes: object) -> str:
    """The one line that refuses a run; checks that only a refusal came of it."""
    done = tiny(runs, **changes)
    assert done.code == 2, done
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert len(done.err) < 2000
    return done.err


# --- the command line ----------------------------------------------------------------


def command(*line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *line], cwd=cwd, capture_output=True, text=True)


def test_help_lists_every_key_from_anywhere(tmp_path: Path) -> None:
    done = command(str(ROOT / "tdmpc2" / "train.py"), "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = {line.split("=")[0].strip() for line in done.stdout.splitlines() if "=" in line}
    keys = {*train.SPEC_WORDS, *schema_of(RunOptions), *schema_of(TDMPC2Config)}
    assert len(keys) > 60
    assert keys <= listed
    assert list(tmp_path.iterdir()) == []


def test_runs_as_a_script_from_another_directory(tmp_path: Path) -> None:
    line = [word for word in words(Path("here"), **SHORT) if not word.startswith("threads=")]
    done = command(os.path.relpath(ROOT / "tdmpc2" / "train.py", tmp_path), *line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar: this is no terminal
    assert done.stdout == f"COMPLETED at env step 50: {run_directory(tmp_path / 'here')}\n"


def test_runs_as_a_module_from_another_directory(tmp_path: Path) -> None:
    done = command("-m", "tdmpc2.train", "task=walker-wlak", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: unknown task 'walker-wlak' (did you mean 'walker-walk'?)\n"
    assert list(tmp_path.iterdir()) == []


BAD_WORDS = {
    "unknown key": (["sede=3"], "unknown key 'sede' (did you mean 'seed'?)"),
    "key of no resemblance": (["xyzzy=3"], "unknown key 'xyzzy' (valid: allow_commit_change, "),
    "task": (["task=toy-pointmas"], "unknown task 'toy-pointmas' (did you mean 'toy-pointmass'?)"),
    "no task": (["task="], "unknown task ''"),
    "method": (["method=tdmpc"], "unknown method 'tdmpc' (did you mean 'tdmpc2'?)"),
    "flag": (["regression=discret"], "discret: unknown value (did you mean 'discrete'?)"),
    "flag of no resemblance": (["latent_norm=x"], "(valid: layernorm, none, simnorm)"),
    "model size": (["model_size=6"], "(valid: 1, 19, 317, 48, 5, smoke)"),
    "boolean": (["planning=maybe"], "planning=maybe: true or false is needed"),
    "integer": (["seed=one"], "seed=one: a value of type int is needed"),
    "fraction": (["seed=1.5"], "seed=1.5: a value of type int is needed"),
    "infinity": (["env_steps=inf"], "env_steps=inf: a value of type int is needed"),
    "not a number": (["lr=nan"], "lr=nan: a finite number is needed"),
    "negative seed": (["seed=-1"], "seed=-1: must not be negative"),
    "no budget": (["env_steps=0"], "env_steps=0: must be at least 1"),
    "no evaluation episodes": (["eval_episodes=0"], "eval_episodes=0: must be at least 1"),
    "negative time": (["checkpoint_minutes=-1"], "checkpoint_minutes=-1.0: must not be negative"),
    "variant outside of the folder": (["variant=../x"], "must be usable as a folder's name"),
    "device": (["device=gpu"], "device=gpu: unknown device (valid: auto, cpu, cuda, cuda:1)"),
    "device of another kind": (["device=meta"], "device=meta: unknown device"),
    "device that is not there": (["device=cuda:99"], "device=cuda:99: no such CUDA device"),
    "impossible network": (["num_q=0"], "num_q=0: at least 1 Q-function is needed"),
    "too few seeding decisions": (["seed_decisions=49"], "at least 50 are needed"),
    "too small a memory": (["buffer_size=50"], "one episode takes 51 rows"),
    "too long a horizon": (["horizon=51"], "an episode has only 50 decisions"),
    "checkpoint": (["checkpoint=last"], "unknown value (did you mean 'latest'?)"),
}


@pytest.mark.parametrize("name", BAD_WORDS)
def test_bad_words_are_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    bad, hint = BAD_WORDS[name]
    assert hint in refusal(tmp_path / "runs", **dict(word.split("=") for word in bad))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("extra", "hint"),
    [
        (["seed=2"], "'seed' is given twice: seed=1 and seed=2"),
        (["walker-walk"], "'walker-walk' is not of the form key=value (see --help)"),
        (["=3"], "'=3' is not of the form key=value"),
        (["keep-replay=2"], "keep_replay=2: true or false is needed"),
    ],
)
def test_words_of_no_sense_are_refused(extra: list[str], hint: str, tmp_path: Path) -> None:
    done = Command([*words(tmp_path / "runs", seed=1), *extra]).run()
    assert done.code == 2
    assert hint in done.err
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_empty_runs_folder_is_not_the_current_directory() -> None:
    with pytest.raises(UserError, match="runs=: a path is needed"):
        train.parse(["task=walker-walk", "runs="])


def test_a_task_must_be_named(tmp_path: Path) -> None:
    assert "task= is missing" in refusal(tmp_path / "runs", task=None)


def test_a_runs_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be made (Not a directory)" in refusal(tmp_path / "file")


def test_a_progress_bar_on_demand(tmp_path: Path) -> None:
    done = tiny(tmp_path, progress="true", **SHORT)
    assert done.code == 0
    assert "toy-pointmass seed 1" in done.err
    assert "env steps" in done.err


# --- what a run is -------------------------------------------------------------------


def test_every_method_is_an_agent() -> None:
    for method in train.METHODS:
        cls = train.agent_class(method)
        assert dataclasses.is_dataclass(cls.config_class)
        task = get_task("toy-pointmass")
        spec = train.make_spec(method, task.name, 1, overrides={"model_size": "smoke"})
        env = train.env_spec(task, make_env(task, seed=0))
        assert isinstance(train.make_agent(spec, env, torch.device("cpu")), Agent)


def test_a_spec_holds_what_differs_from_the_defaults() -> None:
    spec = train.make_spec("tdmpc2", "walker-walk", 1)
    assert (spec.overrides, spec.variant, spec.budget) == ((), "default", 4_000_000)
    same = train.make_spec("tdmpc2", "walker-walk", 1, overrides={"num_q": 5, "model_size": "5"})
    assert same == spec
    other = train.make_spec(
        "tdmpc2", "walker-walk", 1, overrides={"regression": "mse", "num_q": 2, "horizon": 3}
    )
    assert other.overrides == (("num_q", 2), ("regression", "mse"))
    assert other.variant == "num_q-2+regression-mse"
    # A size brings its own number of Q-functions: only the size is named.
    small = train.make_spec("tdmpc2", "walker-walk", 1, overrides={"model_size": "1"})
    assert small.overrides == (("model_size", "1"),)


def test_an_alias_is_the_same_run() -> None:
    alias, name = (
        train.make_spec("tdmpc2", t, 1).identity for t in ("ball-in-cup-catch", "cup-catch")
    )
    assert alias == name


def test_words_become_a_spec_and_options() -> None:
    spec, options = train.parse(
        ["task=walker-walk", "seed=3", "env_steps=100_000", "lr=1e-3", "threads=2", "--planning=no"]
    )
    assert (spec.task, spec.seed, spec.budget) == ("walker-walk", 3, 100_000)
    assert dict(spec.overrides) == {"lr": 1e-3, "planning": False}
    assert options == RunOptions(threads=2)


def test_torch_threads_are_left_as_they_were(tmp_path: Path) -> None:
    spec, options = train.parse(words(tmp_path, **SHORT))
    assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    try:
        assert train.run(spec, options).state == "COMPLETED"
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert read_json(run_directory(tmp_path) / "numeric.json")["threads"] == 1


# --- finished, continued, diverged ---------------------------------------------------


def test_a_finished_run_is_skipped(undisturbed: Path) -> None:
    before = snapshot(undisturbed)
    done = tiny(undisturbed)
    assert done.code == 0
    directory = run_directory(undisturbed)
    assert done.out == f"COMPLETED at env step 200: {directory} (already finished)\n"
    assert tiny(undisturbed, env_steps=100).code == 0  # less than done is done too
    assert snapshot(undisturbed) == before


def test_a_finished_run_leaves_its_records_and_one_small_checkpoint(undisturbed: Path) -> None:
    directory = run_directory(undisturbed)
    status = read_status(directory)
    assert status is not None
    assert (status["state"], status["env_step"], status["env_steps"]) == ("COMPLETED", 200, 200)
    assert checkpoint_steps(undisturbed) == [200]
    assert not list(directory.glob("replay/*"))
    spec = read_json(directory / "spec.json")
    assert (spec["domain"], spec["metric"], spec["model_size"]) == ("toy", "return", "smoke")
    assert spec["overrides"]["num_samples"] == 8
    assert (directory / "sacred" / "1" / "run.json").exists()
    lines = (directory / "train.csv").read_text().splitlines()
    # Updates begin in the third episode: burst of 8 after decision 111, then one a decision.
    assert [line.split(",")[:4] for line in lines[1:]] == [
        ["150", "150", str(8 + 39), "3"],
        ["200", "200", str(8 + 89), "4"],
    ]


def test_a_larger_budget_continues_where_the_replay_was_kept(tmp_path: Path) -> None:
    """150 is off the evaluations' grid: the extra one there must not change later ones."""
    kept = {"keep_replay": "true"}
    assert tiny(tmp_path / "whole", **kept).code == 0
    assert tiny(tmp_path / "raised", env_steps=150, **kept).code == 0
    assert evaluated_steps(tmp_path / "raised") == [0, 100, 150]
    assert "say keep_replay=true" in refusal(tmp_path / "raised")
    assert tiny(tmp_path / "raised", **kept).code == 0

    whole, raised = run_directory(tmp_path / "whole"), run_directory(tmp_path / "raised")
    assert whole.relative_to(tmp_path / "whole") == raised.relative_to(tmp_path / "raised")
    assert agent_bytes(raised) == agent_bytes(whole)
    lines = (raised / "eval.csv").read_text().splitlines(keepends=True)
    without = "".join(line for line in lines if not line.startswith("150,"))
    assert without == (whole / "eval.csv").read_text()
    assert (raised / "train.csv").read_bytes() == (whole / "train.csv").read_bytes()
    assert len(list(raised.glob("replay/*.npz"))) == 4


def test_a_larger_budget_without_the_replay_is_refused(undisturbed: Path) -> None:
    before = snapshot(undisturbed)
    for changes in ({}, {"keep_replay": "true"}):
        hint = refusal(undisturbed, env_steps=300, **changes)
        assert "finished at 200 env steps without keep_replay=true" in hint
    assert snapshot(undisturbed) == before


def test_a_larger_budget_is_refused_where_the_kill_came_before_completed(
    undisturbed: Path, tmp_path: Path
) -> None:
    finished = Blow("tdmpc2.common.trainer:Trainer.run", 1, "after")
    assert tiny(tmp_path, finished).code == -signal.SIGKILL
    assert "finished at 200 env steps without keep_replay=true" in refusal(tmp_path, env_steps=300)
    assert tiny(tmp_path).code == 0
    assert outcome(tmp_path) == outcome(undisturbed)


def test_a_diverged_run_keeps_its_data_and_is_never_retried(tmp_path: Path) -> None:
    done = tiny(tmp_path, lr=1e9)
    assert done.code == 1, done
    assert done.err == ""
    assert done.out.startswith("DIVERGED at env step ")
    directory = run_directory(tmp_path)
    status = read_status(directory)
    assert status is not None
    assert status["state"] == "DIVERGED"
    assert evaluated_steps(tmp_path) == [0, 100]
    assert checkpoint_steps(tmp_path) == [50, 100]
    assert "nan" in (directory / "train.csv").read_text()
    before = snapshot(tmp_path)
    again = tiny(tmp_path, lr=1e9)
    assert (again.code, again.out) == (1, done.out)
    assert snapshot(tmp_path) == before


# --- run directories of other settings, damaged, full, in use --------------------------


@pytest.mark.parametrize("changes", [{"eval_every": 50}, {"eval_episodes": 3}])
def test_other_evaluation_settings_are_refused(changes: dict[str, int], killed: Path) -> None:
    ((key, value),) = changes.items()
    before = snapshot(killed)
    assert f"was begun with {key}=" in (line := refusal(killed, **changes))
    assert f", not {value}; " in line
    assert snapshot(killed) == before


def flip(path: Path) -> None:
    """Changes one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "bit flip": (
        lambda run: flip(run / "checkpoints/000000000150/state.pt"),
        "checksum of state.pt does not match",
    ),
    "truncated": (
        lambda run: os.truncate(run / "checkpoints/000000000150/state.pt", 1000),
        "checksum of state.pt does not match",
    ),
    "no state": (
        lambda run: (run / "checkpoints/000000000150/state.pt").unlink(),
        "a file is missing",
    ),
    "no manifest": (
        lambda run: (run / "checkpoints/000000000150/manifest.json").unlink(),
        "a file is missing",
    ),
    "torn manifest": (
        lambda run: os.truncate(run / "checkpoints/000000000150/manifest.json", 50),
        "manifest.json: damaged",
    ),
    "no episodes": (
        lambda run: (run / "replay/episodes-000000002-000000002.npz").unlink(),
        "episode shard episodes-000000002-000000002.npz is missing or damaged",
    ),
    "flipped episodes": (
        lambda run: flip(run / "replay/episodes-000000002-000000002.npz"),
        "episode shard episodes-000000002-000000002.npz is missing or damaged",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_offered(
    name: str, unfinished: Path, undisturbed: Path
) -> None:
    damage, hint = DAMAGES[name]
    directory = run_directory(unfinished)
    damage(directory)
    records = {n: (directory / n).read_bytes() for n in ("eval.csv", "train.csv")}
    line = refusal(unfinished)
    assert "000000000150: the checkpoint is damaged" in line
    assert hint in line
    assert "say checkpoint=previous" in line
    assert {n: (directory / n).read_bytes() for n in records} == records
    assert (directory / "checkpoints/000000000100/state.pt").exists()
    if name in ("bit flip", "no episodes"):  # the others would end alike
        assert tiny(unfinished, checkpoint="previous").code == 0
        assert outcome(unfinished) == outcome(undisturbed)
        assert files(unfinished) == files(undisturbed)


def test_damage_without_a_checkpoint_before_it(unfinished: Path) -> None:
    directory = run_directory(unfinished)
    shutil.rmtree(directory / "checkpoints/000000000100")
    assert "there is no checkpoint before the latest" in refusal(unfinished, checkpoint="previous")
    flip(directory / "checkpoints/000000000150/state.pt")
    assert "there is none before it: move the run directory aside" in refusal(unfinished)


def test_damaged_records_are_named(unfinished: Path) -> None:
    directory = run_directory(unfinished)
    os.truncate(directory / "eval.csv", 100)
    assert "eval.csv: 100 bytes, but the checkpoint knows" in refusal(unfinished)
    os.truncate(directory / "spec.json", 100)
    assert "spec.json: damaged" in refusal(unfinished)


def test_a_full_disk_costs_nothing_but_time(undisturbed: Path, tmp_path: Path) -> None:
    """The checkpoint at 150 is the first with Adam's moments, too large for the limit."""
    done = Command(words(tmp_path), file_size=60_000).run()
    assert done.code == 2, done
    assert done.err.count("\n") == 1
    assert "no space left for a checkpoint (File too large); the last one is whole" in done.err
    assert checkpoint_steps(tmp_path) == [50, 100]
    status = read_status(run_directory(tmp_path))
    assert status is not None
    assert status["state"] == "FAILED"

    assert tiny(tmp_path).code == 0
    assert outcome(tmp_path) == outcome(undisturbed)
    assert files(tmp_path) == files(undisturbed)


@pytest.mark.parametrize("file_size", [150, 300, 700, 2000])
def test_a_disk_full_from_the_start_is_one_line(
    file_size: int, undisturbed: Path, tmp_path: Path
) -> None:
    """The limits fall into the lease, the attempts, Sacred's start and the first episode."""
    done = Command(words(tmp_path), file_size=file_size).run()
    assert done.code == 2, done
    assert "no space left" in done.err
    assert done.err.count("\n") == 1
    assert tiny(tmp_path).code == 0
    assert outcome(tmp_path) == outcome(undisturbed)
    assert files(tmp_path) == files(undisturbed)


def test_a_full_file_system_costs_nothing_but_time(undisturbed: Path, tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a file system of a few kilobytes")
    try:
        done = tiny(tmp_path)
        assert done.code == 2, done
        assert done.err.count("\n") == 1
        assert "no space left for a checkpoint (No space left on device)" in done.err
        assert checkpoint_steps(tmp_path)
        subprocess.run(["mount", "-o", "remount,size=8m", str(tmp_path)], check=True)
        assert tiny(tmp_path).code == 0
        assert outcome(tmp_path) == outcome(undisturbed)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_second_process_is_refused_and_disturbs_nothing(
    undisturbed: Path, tmp_path: Path
) -> None:
    place = Blow("tdmpc2.common.trainer:Trainer._choose_action", 173, number=None)
    first = Command(words(tmp_path), place)
    pid = first.start_and_reach()
    before = files(tmp_path)
    assert f"in use by process {pid} on host " in refusal(tmp_path)
    assert files(tmp_path) == before
    assert first.go_on().code == 0
    assert outcome(tmp_path) == outcome(undisturbed)


def test_another_numeric_path_must_be_allowed(unfinished: Path, undisturbed: Path) -> None:
    line = refusal(unfinished, threads=2)
    assert "the numeric path has changed (threads 1 → 2)" in line
    assert "allow_numeric_change=true" in line
    assert tiny(unfinished, threads=None).code == 0  # the recorded number is taken over
    assert outcome(unfinished) == outcome(undisturbed)


def test_an_allowed_numeric_change_is_recorded(unfinished: Path) -> None:
    file = run_directory(unfinished) / "numeric.json"
    path = read_json(file)
    write_json(file, {**path, "cpu": "another", "threads": 2})
    line = refusal(unfinished)
    assert f"(cpu another → {path['cpu']}, threads 2 → 1)" in line
    assert tiny(unfinished, allow_numeric_change="true").code == 0
    assert read_json(file) == path
    assert evaluated_steps(unfinished) == [0, 100, 200]


def test_another_commit_must_be_allowed(unfinished: Path, undisturbed: Path) -> None:
    file = run_directory(unfinished) / "attempts.json"
    (attempt,) = read_json(file)
    write_json(file, [{**attempt, "commit": "0" * 40}])
    line = refusal(unfinished)
    assert f"was run by commit {'0' * 40}, this is {attempt['commit']}" in line
    assert "allow_commit_change=true" in line
    assert tiny(unfinished, allow_commit_change="true").code == 0
    assert outcome(unfinished) == outcome(undisturbed)
    assert [a["commit"] for a in read_json(file)] == ["0" * 40, attempt["commit"]]


def test_impossible_settings_raise_before_anything_is_written(tmp_path: Path) -> None:
    spec, options = train.parse(words(tmp_path / "runs", buffer_size=50))
    with pytest.raises(UserError, match="one episode takes 51 rows"):
        train.run(spec, options)
    assert list(tmp_path.iterdir()) == []
