"""Runs on Gymnasium environments: resuming after kills, faults, records, sweeps and learning."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.records.run_reader import read_run
from tdmpc2.common.training.evaluation import UniformPolicy, ZeroPolicy, evaluate
from tdmpc2.envs.factory import make_env
from tests.envs.test_contract import OWN
from tests.kill_driver import Blow
from tests.runs import (
    arguments,
    checkpoint_steps,
    evaluated_steps,
    files,
    outcome,
    refusal,
    run_directory,
    snapshot,
    tiny,
)
from tests.test_architecture import ROOT

LINE = "tests.envs.own_envs:Line-v0"
FAULTY = "tests.envs.own_envs:Faulty-v0?fault="
SHORT = '{"max_episode_steps": 50}'
KILL = Blow("tdmpc2.common.training.trainer:Trainer._choose_actions", 173)
FAST = ("gym:Hopper-v5", LINE)
EACH = [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in OWN]


@pytest.mark.parametrize("task", EACH)
def test_a_killed_run_repeats_byte_for_byte(task: str, tmp_path: Path) -> None:
    for runs, blow in (("whole", None), ("killed", KILL), ("killed", None)):
        done = tiny(tmp_path / runs, blow, task=task, gym_kwargs=SHORT)
        assert done.code == (-signal.SIGKILL if blow else 0), done
    assert outcome(tmp_path / "whole") == outcome(tmp_path / "killed")
    assert files(tmp_path / "whole") == files(tmp_path / "killed")


def test_the_records_name_the_environment(tmp_path: Path) -> None:
    assert tiny(tmp_path, task=LINE).code == 0
    directory = run_directory(tmp_path)
    spec = json.loads((directory / "spec.json").read_text())
    assert spec["environment"] == (
        f"{LINE}, observations 1, actions 1, action_repeat 1, episode_length 50, episodic true"
    )
    assert (spec["domain"], spec["metric"], spec["repeatable"]) == ("gymnasium", "return", True)
    problems: list = []
    run = read_run(directory, problems)
    assert problems == []
    assert run is not None
    assert (run["task"], run["domain"]) == (LINE, "gymnasium")
    assert run["simulators"].startswith("gymnasium ")


def test_another_environment_of_the_same_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, runs = tmp_path / "tasks.toml", tmp_path / "runs"
    monkeypatch.setenv("TDMPC2_TASKS", str(path))
    env = {"TDMPC2_TASKS": str(path)}
    line = [sys.executable, "-m", "tdmpc2.train", *arguments(runs, task="my-line")]
    path.write_text(f'[my-line]\nid = "{LINE}"\nscore_range = [-100, 50]')
    first = subprocess.run(line, env={**os.environ, **env}, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    before = snapshot(runs)
    path.write_text(f'[my-line]\nid = "{LINE}"\naction_repeat = 2')
    second = subprocess.run(line, env={**os.environ, **env}, capture_output=True, text=True)
    assert second.returncode == 2
    assert "was started with environment=" in second.stderr
    assert snapshot(runs) == before


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("gym:CartPole-v1", "only continuous actions"),
        ("gym:Hoper-v5", "Did you mean: `Hopper`"),
        (f"{FAULTY}raises", "step() raised ZeroDivisionError"),
        (f"{FAULTY}nan&at=0", "reset() returned NaN or Inf in an observation"),
        (f"{FAULTY}dies", "ended with exit code 3"),
    ],
)
def test_what_fails_at_once_writes_nothing(task: str, message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path / "runs", task=task)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("value", ["3", "{", "[1]"])
def test_arguments_that_are_no_object_are_refused(value: str, tmp_path: Path) -> None:
    assert "must be a JSON object" in refusal(tmp_path, task=LINE, gym_kwargs=value)
    assert "has no effect in walker-walk" in refusal(tmp_path, task="walker-walk", gym_kwargs="{}")


@pytest.mark.parametrize("fault", ["raises", "nan", "grows"])
def test_a_later_fault_ends_as_failed_with_its_data(fault: str, tmp_path: Path) -> None:
    """The environment fails late in its second episode, which no examination reaches."""
    task = f"{FAULTY}{fault}&at=70&episode=2&max_episode_steps=100"
    done = tiny(tmp_path, task=task, eval_every=200)
    assert done.code == 2, done
    assert done.err.startswith("error: task 'tests.envs.own_envs:Faulty-v0?")
    assert done.err.count("\n") == 1
    status = json.loads((run_directory(tmp_path) / "status.json").read_text())
    assert status["state"] == "FAILED"
    assert "correct the environment" in status["message"]
    assert evaluated_steps(tmp_path) == [0]
    assert checkpoint_steps(tmp_path) == [100]


def test_a_sweep_trains_and_draws_it(tmp_path: Path) -> None:
    def command(*line: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *line], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    skipped = ("task=", "runs=", "threads=")
    settings = [a for a in arguments(tmp_path, task=LINE) if not a.startswith(skipped)]
    settings += [f"tasks={LINE},toy-pointmass", "cluster=local", "max_parallel=1", "yes=true"]
    command("sweeps.launch", *settings, "seeds=2", f"runs={tmp_path}")
    assert len(list(tmp_path.rglob("eval.csv"))) == 4
    figures = (f"runs={tmp_path}", f"out={tmp_path / 'figures'}", "reps=200")
    command("analysis.make_figures", *figures, "only=learning_curves")
    assert (tmp_path / "figures" / "learning_curves.png").exists()


def test_all_environments_are_closed_so_that_every_command_ends(tmp_path: Path) -> None:
    def ran(command: str, *options: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, command, *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=200,
        )
        return done.returncode, done.stdout + done.stderr

    def train(**changes: str) -> tuple[int, str]:
        options = {"task": "tests.envs.own_envs:Threaded-v0", **changes}
        return ran("tdmpc2/train.py", *arguments(tmp_path, **options))

    assert train()[0] == 0
    code, shown = train()
    assert code == 0
    assert "already" in shown
    code, shown = train(buffer_size="10", seed="2")
    assert code == 2
    assert "one episode takes" in shown
    # The first of two seeds has an environment when the second one is refused.
    code, shown = train(seeds="2,1", eval_every="200")
    assert code == 2
    assert "eval_every" in shown
    quick = ("threads=1", "compile=false", "episodes=1")
    assert ran("tdmpc2/evaluate.py", f"run={run_directory(tmp_path)}", *quick)[0] == 0


@pytest.mark.slow
def test_pendulum_learns(tmp_path: Path) -> None:
    """Ten episodes of the trained agent exceed random and zero actions by three standard errors.

    Three standard deviations of single episodes would exceed the best possible return.
    """
    name, episodes = "gym:Pendulum-v1", 30
    envs = [make_env(name, seed=i) for i in range(episodes)]
    results = [
        evaluate(policy, envs, range(episodes))
        for policy in (UniformPolicy(1, seed=0), ZeroPolicy(1))
    ]
    done = tiny(tmp_path, task=name, **PENDULUM)
    assert done.code == 0, done
    with open(run_directory(tmp_path) / "eval.csv", encoding="utf-8") as file:
        returns = [float(row["episode_return"]) for row in csv.DictReader(file)]
    best = max(result.mean_return for result in results)
    error = max(result.sd_return for result in results) / 10**0.5
    assert returns[0] < best + 3 * error < returns[-1]


PENDULUM = {
    "env_steps": 4000,
    "enc_dim": 64,
    "mlp_dim": 128,
    "latent_dim": 64,
    "num_bins": 41,
    "horizon": 3,
    "iterations": 3,
    "num_samples": 64,
    "num_elites": 16,
    "num_pi_samples": 8,
    "batch_size": 128,
    "seed_decisions": 1000,
    "pretrain_updates": 1000,
    "lr": 1e-3,
    "eval_every": 2000,
    "eval_episodes": 10,
}
