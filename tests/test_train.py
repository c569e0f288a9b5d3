"""The train command: invalid input, finished and diverged runs, and larger budgets."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tdmpc2 import train
from tdmpc2.common.interfaces import Agent
from tdmpc2.common.run.run_files import read_status
from tdmpc2.common.run.spec import RunOptions
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.common.system.cli import schema_of
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.tasks import get_task
from tdmpc2.runners import registry, specs
from tdmpc2.runners.online import run
from tdmpc2.runners.setup import env_spec
from tests.kill_driver import Blow, Command
from tests.runs import (
    DIVERGING,
    agent_bytes,
    arguments,
    checkpoint_steps,
    evaluated_steps,
    outcome,
    refusal,
    run_directory,
    snapshot,
    tiny,
)

ROOT = Path(train.__file__).parents[1]
# One episode without updates, with one evaluation before and one after it.
SHORT = {"env_steps": 50, "eval_every": 50, "seed_decisions": 50}


# --- the command line ----------------------------------------------------------------


def command(*line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *line], cwd=cwd, capture_output=True, text=True)


def test_help_lists_every_key_from_anywhere(tmp_path: Path) -> None:
    done = command(str(ROOT / "tdmpc2" / "train.py"), "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = {line.split("=")[0].strip() for line in done.stdout.splitlines() if "=" in line}
    keys = {*schema_of(train.SpecOptions), *schema_of(RunOptions), *schema_of(TDMPC2Config)}
    assert len(keys) > 60
    assert keys <= listed
    assert list(tmp_path.iterdir()) == []


def test_runs_as_a_script_from_another_directory(tmp_path: Path) -> None:
    line = [
        argument
        for argument in arguments(Path("here"), **SHORT)
        if not argument.startswith("threads=")
    ]
    done = command(os.path.relpath(ROOT / "tdmpc2" / "train.py", tmp_path), *line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar without a terminal
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("toy-pointmass seed 1: 0 of 50 env steps, eval=")
    assert last == f"COMPLETED at env step 50: {run_directory(tmp_path / 'here')}"


def test_runs_as_a_module_from_another_directory(tmp_path: Path) -> None:
    done = command("-m", "tdmpc2.train", "task=walker-wlak", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: unknown task 'walker-wlak' (did you mean 'walker-walk'?)\n"
    assert list(tmp_path.iterdir()) == []


BAD_ARGUMENTS = {
    "unknown key": (["sede=3"], "unknown key 'sede' (did you mean 'seed'?)"),
    "key of no resemblance": (["xyzzy=3"], "unknown key 'xyzzy' (valid: allow_commit_change, "),
    "task": (["task=toy-pointmas"], "unknown task 'toy-pointmas' (did you mean 'toy-pointmass'?)"),
    "no task": (["task="], "unknown task ''"),
    "a suite": (
        ["task=mt30"],
        "task=mt30: names several tasks; train one multi-task agent from a dataset",
    ),
    "method": (["method=scac"], "unknown method 'scac' (did you mean 'sac'?)"),
    "flag": (["regression=discret"], "discret: unknown value (did you mean 'discrete'?)"),
    "flag of no resemblance": (["latent_norm=x"], "(valid: layernorm, none, simnorm)"),
    "model size": (["model_size=6"], "(valid: 1, 19, 317, 48, 5, smoke)"),
    "boolean": (["planning=maybe"], "planning=maybe: true or false is needed"),
    "integer": (["seed=one"], "seed=one: an integer in [0, 4_294_967_295] is needed"),
    "fraction": (["seed=1.5"], "seed=1.5: an integer in [0, 4_294_967_295] is needed"),
    "infinity": (["env_steps=inf"], "env_steps=inf: an integer in [1, 10_000_000_000] is needed"),
    "not a number": (["lr=nan"], "lr=nan: a number in [0, 1] is needed"),
    "negative seed": (["seed=-1"], "seed=-1: must lie in [0, 4_294_967_295]"),
    "large seed": (["seed=4294967296"], "seed=4294967296: must lie in [0, 4_294_967_295]"),
    "no budget": (["env_steps=0"], "env_steps=0: must lie in [1, 10_000_000_000]"),
    "no evaluation episodes": (["eval_episodes=0"], "eval_episodes=0: must lie in [1, 10_000]"),
    "negative time": (
        ["checkpoint_minutes=-1"],
        "checkpoint_minutes=-1.0: must lie in [0, 1_000_000]",
    ),
    "variant outside of the folder": (["variant=../x"], "must be usable as a folder's name"),
    "endless variant": (["variant=" + 101 * "x"], "must be usable as a folder's name"),
    "device": (["device=gpu"], "device=gpu: unknown device (valid: auto, cpu, cuda, cuda:1)"),
    "device of another kind": (["device=meta"], "device=meta: unknown device"),
    "device that is not there": (["device=cuda:99"], "device=cuda:99: no such CUDA device"),
    "impossible network": (["num_q=0"], "num_q=0: must lie in [1, 100]"),
    "too few seeding decisions": (
        ["seed_decisions=49"],
        "a whole episode of 50 decisions; use at least 50",
    ),
    "too small a memory": (["buffer_size=50"], "one episode takes 51 rows"),
    "too long a horizon": (["horizon=51"], "an episode has only 50 decisions"),
    "checkpoint": (["checkpoint=last"], "unknown value (did you mean 'latest'?)"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_are_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    bad, hint = BAD_ARGUMENTS[name]
    assert hint in refusal(tmp_path / "runs", **dict(argument.split("=") for argument in bad))
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
def test_contradictory_arguments_are_refused(extra: list[str], hint: str, tmp_path: Path) -> None:
    done = Command([*arguments(tmp_path / "runs", seed=1), *extra]).run()
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
    assert "cannot be created (Not a directory)" in refusal(tmp_path / "file")


def test_a_progress_bar_on_demand(tmp_path: Path) -> None:
    done = tiny(tmp_path, progress="true", **SHORT)
    assert done.code == 0
    assert "toy-pointmass seed 1" in done.err
    assert "env steps" in done.err


# --- run specifications -------------------------------------------------------------------


def test_every_method_is_an_agent() -> None:
    for method in registry.METHODS:
        cls = registry.agent_class(method)
        assert dataclasses.is_dataclass(cls.config_class)
        task = get_task("toy-pointmass")
        spec = specs.make_spec(method, task.name, 1)
        env = env_spec(task, make_env(task, seed=0))
        assert isinstance(registry.make_agent(spec, env, torch.device("cpu")), Agent)


def test_a_whole_number_for_a_fraction_makes_the_same_run() -> None:
    one, other = (
        specs.make_spec("dreamerv3", "walker-walk", 1, overrides={"train_ratio": value})
        for value in (8, 8.0)
    )
    assert one.identity == other.identity
    assert dict(one.overrides) == {"train_ratio": 8.0}
    assert type(dict(one.overrides)["train_ratio"]) is float


def test_a_spec_holds_what_differs_from_the_defaults() -> None:
    spec = specs.make_spec("tdmpc2", "walker-walk", 1)
    assert (spec.overrides, spec.variant, spec.budget) == ((), "default", 4_000_000)
    same = specs.make_spec("tdmpc2", "walker-walk", 1, overrides={"num_q": 5, "model_size": "5"})
    assert same == spec
    other = specs.make_spec(
        "tdmpc2", "walker-walk", 1, overrides={"regression": "mse", "num_q": 2, "horizon": 3}
    )
    assert other.overrides == (("num_q", 2), ("regression", "mse"))
    assert other.variant == "num_q-2+regression-mse"
    # The model size sets num_q, so that num_q is not listed as an override.
    small = specs.make_spec("tdmpc2", "walker-walk", 1, overrides={"model_size": "1"})
    assert small.overrides == (("model_size", "1"),)


def test_an_alias_is_the_same_run() -> None:
    alias, name = (
        specs.make_spec("tdmpc2", t, 1).identity for t in ("ball-in-cup-catch", "cup-catch")
    )
    assert alias == name


def test_arguments_become_a_spec_and_options() -> None:
    (spec,), options = train.parse(
        ["task=walker-walk", "seed=3", "env_steps=100_000", "lr=1e-3", "threads=2", "--planning=no"]
    )
    assert (spec.task, spec.seed, spec.budget) == ("walker-walk", 3, 100_000)
    assert dict(spec.overrides) == {"lr": 1e-3, "planning": False}
    assert options == RunOptions(threads=2)


def test_torch_threads_are_left_as_they_were(tmp_path: Path) -> None:
    (spec,), options = train.parse(arguments(tmp_path, **SHORT))
    assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    try:
        assert run(spec, options).state == "COMPLETED"
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
    assert tiny(undisturbed, env_steps=100).code == 0  # a smaller budget counts as finished too
    assert snapshot(undisturbed) == before


def test_an_unfinished_run_that_is_past_a_smaller_budget_keeps_its_own(
    undisturbed: Path, tmp_path: Path
) -> None:
    """Otherwise it would end at the smaller one, and its episodes would be removed."""
    stop = Blow(
        "tdmpc2.common.training.trainer:Trainer._choose_actions", 160, number=signal.SIGTERM
    )
    assert tiny(tmp_path, stop).code == 130
    before = snapshot(tmp_path)
    done = tiny(tmp_path, env_steps=100)
    assert done.code == 0
    assert done.out.startswith("COMPLETED at env step 160: ")
    assert done.out.endswith(" (already past this budget)\n")
    assert snapshot(tmp_path) == before
    assert tiny(tmp_path).code == 0
    assert outcome(tmp_path) == outcome(undisturbed)


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
    # Updates begin in the third episode: 8 after decision 141, then one per decision.
    assert [line.split(",")[:4] for line in lines[1:]] == [
        ["150", "150", str(8 + 9), "3"],
        ["200", "200", str(8 + 59), "4"],
    ]


def test_a_larger_budget_continues_where_the_replay_was_kept(tmp_path: Path) -> None:
    """An extra evaluation at 150, not a multiple of eval_every, does not change later ones."""
    kept = {"keep_replay": "true"}
    assert tiny(tmp_path / "whole", **kept).code == 0
    assert tiny(tmp_path / "raised", env_steps=150, **kept).code == 0
    assert evaluated_steps(tmp_path / "raised") == [0, 100, 150]
    assert "use keep_replay=true" in refusal(tmp_path / "raised")
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
    finished = Blow("tdmpc2.common.run.checkpoint:CheckpointStore.forget_history", 1, "after")
    assert tiny(tmp_path, finished).code == -signal.SIGKILL
    assert "finished at 200 env steps without keep_replay=true" in refusal(tmp_path, env_steps=300)
    assert tiny(tmp_path).code == 0
    assert outcome(tmp_path) == outcome(undisturbed)


def test_a_diverged_run_keeps_its_data_and_is_never_retried(tmp_path: Path) -> None:
    done = tiny(tmp_path, **DIVERGING)
    assert done.code == 1, done
    assert done.err == ""
    assert done.out.splitlines()[-1].startswith("DIVERGED at env step ")
    directory = run_directory(tmp_path)
    status = read_status(directory)
    assert status is not None
    assert status["state"] == "DIVERGED"
    assert evaluated_steps(tmp_path) == [0, 100]
    assert checkpoint_steps(tmp_path) == [50, 100]
    assert "nan" in (directory / "train.csv").read_text()
    before = snapshot(tmp_path)
    again = tiny(tmp_path, **DIVERGING)
    assert (again.code, again.out) == (1, done.out.splitlines()[-1] + "\n")
    assert snapshot(tmp_path) == before


def test_impossible_settings_raise_before_anything_is_written(tmp_path: Path) -> None:
    (spec,), options = train.parse(arguments(tmp_path / "runs", buffer_size=50))
    with pytest.raises(UserError, match="one episode takes 51 rows"):
        run(spec, options)
    assert list(tmp_path.iterdir()) == []
