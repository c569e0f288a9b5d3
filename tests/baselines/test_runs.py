"""Test tiny runs of the baselines: killed and resumed, diverged, with several environments."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tdmpc2 import train
from tdmpc2.common.interfaces import Agent
from tdmpc2.common.run.run_files import read_status
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.tasks import get_task
from tdmpc2.runners.registry import METHODS, agent_class, has_seed_batch, make_agent
from tdmpc2.runners.setup import check_fits, env_spec, make_replay
from tdmpc2.runners.specs import make_spec
from tests.kill_driver import Blow, Command, Done
from tests.runs import TINY, checkpoint_steps, evaluated_steps, files, outcome, run_directory

TRAINER = "tdmpc2.common.training.trainer:Trainer"
# Settings of each method; an episode has 50 decisions.
COMMON: dict[str, Any] = {
    "task": "toy-pointmass",
    "eval_every": 200,
    "eval_episodes": 2,
    "checkpoint_minutes": 0,
    "threads": 1,
    "device": "cpu",
    "compile": "false",
}
SMALL: dict[str, dict[str, Any]] = {
    "sac": {"env_steps": 300, "hidden_dim": 8, "batch_size": 8, "seed_decisions": 110},
    "tdmpc": {
        "env_steps": 300,
        "enc_dim": 8,
        "mlp_dim": 8,
        "latent_dim": 4,
        "horizon": 2,
        "horizon_decisions": 200,
        "iterations": 1,
        "num_samples": 8,
        "num_pi_samples": 2,
        "num_elites": 4,
        "batch_size": 8,
        "seed_decisions": 110,
        "pretrain_updates": 8,
    },
    "dreamerv3": {
        "env_steps": 400,
        "model_size": "small",
        "deter": 8,
        "hidden": 8,
        "stoch": 3,
        "classes": 4,
        "encoder_units": 8,
        "decoder_units": 8,
        "head_units": 8,
        "num_envs": 2,
        "batch_size": 2,
        "batch_length": 8,
        "train_ratio": 8,
        "imagination": 3,
        "seed_decisions": 110,
    },
}


def small(
    method: str,
    runs: Path,
    blow: Blow | None = None,
    *,
    module: str = "tdmpc2.train",
    **changes: Any,
) -> Done:
    """Start a small run of a method."""
    values = {"method": method, **COMMON, **SMALL[method], "runs": runs, **changes}
    return Command([f"{key}={value}" for key, value in values.items()], blow, module=module).run()


def test_runs_do_not_import_the_compiler(tmp_path: Path) -> None:
    """Importing `torch._dynamo` and `sympy` takes longer than importing torch."""
    code = """
import json, sys
from tdmpc2 import train
for arguments in json.load(sys.stdin):
    assert train.main(arguments) == 0
print("imported:", *sorted({"torch._dynamo", "sympy"} & set(sys.modules)))
"""
    methods = {"tdmpc2": TINY, **{name: {**COMMON, **SMALL[name]} for name in SMALL}}
    few = {"env_steps": 200, "eval_every": 1000, "eval_episodes": 1, "runs": tmp_path}
    runs = [
        [f"{key}={value}" for key, value in {"method": name, **values, **few}.items()]
        for name, values in methods.items()
    ]
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(runs),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.splitlines()[-1].strip() == "imported:"
    assert done.stdout.count("COMPLETED") == len(methods)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return an uninterrupted run of each method."""
    found = {}
    for method in SMALL:
        found[method] = tmp_path_factory.mktemp(method)
        done = small(method, found[method])
        assert done.code == 0, done
    return found


@pytest.mark.parametrize("method", SMALL)
@pytest.mark.parametrize("wrap", [False, True], ids=["", "memory that wraps"])
def test_a_killed_run_repeats_byte_for_byte(
    method: str, wrap: bool, whole: dict[str, Path], tmp_path: Path
) -> None:
    """Kill a run during updates and, after resuming, in the middle of a later episode."""
    changes = {"buffer_size": 120} if wrap else {}
    runs = whole[method]
    if wrap:
        runs = tmp_path / "whole"
        assert small(method, runs, **changes).code == 0
    agent = METHODS[method].agent
    for blow in (Blow(f"{agent}.update", 20), Blow(f"{TRAINER}._choose_actions", 70)):
        done = small(method, tmp_path / "killed", blow, **changes)
        assert done.code == -signal.SIGKILL, done
    *_, newest = sorted(run_directory(tmp_path / "killed").glob("checkpoints/*/manifest.json"))
    assert (read_json(newest)["oldest_episode"] > 0) == wrap
    assert small(method, tmp_path / "killed", **changes).code == 0
    assert outcome(tmp_path / "killed") == outcome(runs)
    assert files(tmp_path / "killed") == files(runs)


def test_lines_without_an_update_of_the_actor(tmp_path: Path) -> None:
    """Lines have 40, 50, 50 and 50 updates; the run is killed in the second line and resumed."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    changes = {"actor_every": 120}
    assert small("sac", whole, **changes).code == 0
    train = pd.read_csv(run_directory(whole) / "train.csv")
    first, second, third, _ = train.entropy
    assert second == pytest.approx(first, rel=1e-5)
    assert third != pytest.approx(first, rel=1e-5)
    done = small("sac", killed, Blow("baselines.sac:SAC.update", 60), **changes)
    assert done.code == -signal.SIGKILL, done
    assert small("sac", killed, **changes).code == 0
    assert outcome(killed) == outcome(whole)


@pytest.mark.parametrize("method", SMALL)
def test_records_of_a_run(method: str, whole: dict[str, Path]) -> None:
    directory = run_directory(whole[method])
    budget, num_envs = SMALL[method]["env_steps"], SMALL[method].get("num_envs", 1)
    assert read_status(directory)["state"] == "COMPLETED"
    assert evaluated_steps(whole[method]) == sorted({0, 200, budget})
    assert checkpoint_steps(whole[method]) == [budget]
    train = pd.read_csv(directory / "train.csv")
    assert (np.diff(train.env_step) == 50 * num_envs).all()
    assert (train.episode == train.env_step / 50).all()
    norms = train[["grad_norm", "pi_grad_norm"]]
    assert (norms > 0).all(axis=None)
    expected = {
        "sac": [budget - 110],
        "tdmpc": [8 + (budget - 150)],
        "dreamerv3": [(budget - 110) // 2],
    }[method]
    assert train.num_updates.iloc[-1:].tolist() == expected
    spec = read_json(directory / "spec.json")
    assert spec["method"] == method


def test_each_line_of_several_environments_is_their_mean(tmp_path: Path) -> None:
    """Create two environments whose first episodes are known."""
    assert small("dreamerv3", tmp_path, keep_replay="true", seed_decisions=330).code == 0
    shards = sorted(run_directory(tmp_path).glob("replay/*.npz"))
    rewards = np.concatenate([np.load(shard)["reward"] for shard in shards]).reshape(-1, 50)
    assert len(rewards) == 8
    assert not np.array_equal(rewards[0], rewards[1])
    train = pd.read_csv(run_directory(tmp_path) / "train.csv")
    last = rewards[6:].sum(1).mean()
    assert train.episode_return.iloc[-1] == pytest.approx(last, rel=1e-4)


@pytest.mark.parametrize("method", SMALL)
def test_a_run_that_diverges_keeps_its_data_and_is_never_retried(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parameters become infinite in the 20th update."""
    cls, updates = agent_class(method), itertools.count(1)
    update = cls.update

    def broken(self: Any, replay: Any) -> Any:
        metrics = update(self, replay)
        if next(updates) == 20:
            modules = [value for value in vars(self).values() if isinstance(value, nn.Module)]
            for parameter in modules[0].parameters():
                parameter.data.fill_(math.inf)
        return metrics

    monkeypatch.setattr(cls, "update", broken)
    values = {"method": method, **COMMON, **SMALL[method], "runs": tmp_path}
    arguments = [f"{key}={value}" for key, value in values.items()]
    assert train.main(arguments) == 1
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].startswith("DIVERGED at env step ")
    directory = run_directory(tmp_path)
    assert read_status(directory)["state"] == "DIVERGED"
    assert evaluated_steps(tmp_path)[0] == 0
    assert train.main(arguments) == 1
    assert capsys.readouterr().out == printed.splitlines()[-1] + "\n"


@pytest.mark.parametrize("method", SMALL)
def test_episodes_of_unequal_length(method: str, tmp_path: Path) -> None:
    done = small(method, tmp_path, task="toy-pointmass-episodic", buffer_size=400)
    assert done.code == 0, done
    assert len(evaluated_steps(tmp_path)) == 3


@pytest.mark.parametrize("method", SMALL)
def test_another_seed_is_another_run(method: str, whole: dict[str, Path], tmp_path: Path) -> None:
    assert small(method, tmp_path, seed=2).code == 0
    ours, theirs = outcome(tmp_path), outcome(whole[method])
    assert all(a != b for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("method", SMALL)
@pytest.mark.parametrize("task", ["cartpole-swingup", "mw-push", "dog-run", "humanoid-walk"])
def test_real_tasks_fit(method: str, task: str) -> None:
    """The default settings fit the task and the memory, and a small agent can act in it."""
    env, device = make_env(task, seed=0), torch.device("cpu")
    shapes = env_spec(get_task(task), env)
    spec = make_spec(method, task, 1)
    agent = make_agent(spec, shapes, device)
    assert isinstance(agent, Agent)
    assert not has_seed_batch(method)
    make_replay(agent, shapes, 1, check_fits(agent, shapes, spec.budget, device))
    settings = {k: v for k, v in SMALL[method].items() if k != "env_steps"}
    agent = make_agent(make_spec(method, task, 1, overrides=settings), shapes, device)
    obs, first = env.reset()[0][None], np.array([True])
    action = agent.act(obs, first=first, explore=False)
    assert action.shape == (1, shapes.action_dim)
    env.step(action[0])
    env.close()


def test_a_buffer_holds_an_episode_and_a_sequence(tmp_path: Path) -> None:
    changes = {"batch_length": 60, "seed_decisions": 120}
    done = small("dreamerv3", tmp_path, buffer_size=219, **changes)
    assert done.code == 2
    assert done.err == (
        "error: buffer_size=219: an episode and a sequence of 60 take 110 rows, those of 2 "
        "environments 220; use at least 220\n"
    )
    assert list(tmp_path.iterdir()) == []
    assert small("dreamerv3", tmp_path, buffer_size=220, **changes).code == 0


@pytest.mark.parametrize("method", SMALL)
def test_images_are_refused_in_a_line(method: str, tmp_path: Path) -> None:
    done = small(method, tmp_path, task="reacher-easy", obs="rgb")
    assert done.code == 2
    assert done.err.startswith(f"error: method={method}: supports")
    assert list(tmp_path.iterdir()) == []
