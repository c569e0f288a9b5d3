"""A method in one file outside the suite: trained, killed and resumed, planned, swept, drawn."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tdmpc2.common.system.errors import UserError
from tdmpc2.runners.registry import agent_class
from tests.test_architecture import ROOT

METHOD = "my_method:Pursuit"
CODE = '''
"""Learns a linear policy by regression on rewarded random actions."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tdmpc2.common.training.base_agent import BaseAgent, BaseConfig


@dataclass(frozen=True)
class PursuitConfig(BaseConfig):
    lr: float = 1e-2
    batch_size: int = 8


class Pursuit(BaseAgent):
    config_class = PursuitConfig
    state_fields = ("log_weight",)

    def __init__(self, config, env, *, seed, device="cpu"):
        super().__init__(config, env, seed=seed, device=device)
        with self.parameter_seed(seed):
            self.policy = nn.Linear(env.obs_shape[0], env.action_dim).to(self.device)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=config.lr)
        self.log_weight = torch.zeros((), device=self.device, requires_grad=True)
        self.weight_optimizer = torch.optim.Adam([self.log_weight], lr=config.lr)

    @torch.no_grad()
    def act(self, obs, *, first, explore, task=None):
        action = self.policy(torch.as_tensor(obs, device=self.device))
        if explore:
            action = action + 0.3 * self.train_noise.normal(*action.shape)
        return action.clamp(-1, 1).cpu().numpy()

    def update(self, replay):
        batch = replay.sample(self.config.batch_size, 1).to(self.device)
        error = (self.policy(batch.obs[0]) - batch.action[0]).square().sum(-1)
        loss = (batch.reward[0] * error).mean() * self.log_weight.exp() - self.log_weight
        for optimizer in (self.optimizer, self.weight_optimizer):
            optimizer.zero_grad()
        loss.backward()
        for optimizer in (self.optimizer, self.weight_optimizer):
            optimizer.step()
        return {"loss": loss.detach()}
'''
TINY = ("task=toy-pointmass", "env_steps=300", "seed_decisions=110", "eval_episodes=2")
QUICK = (*TINY, "eval_every=100", "checkpoint_minutes=0", "threads=1", "device=cpu")
LAUNCH = ("tasks=toy-pointmass", "cluster=local", "max_parallel=1")
KILL = """
import os, signal, sys
import my_method
from tdmpc2.common.system import cli
from tdmpc2 import train

update, calls = my_method.Pursuit.update, []
def killed(self, replay):
    calls.append(1)
    if len(calls) == 120:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(self, replay)
my_method.Pursuit.update = killed
sys.exit(cli.command(train.main, train.usage))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file of the method."""
    path = tmp_path_factory.mktemp("own")
    (path / "my_method.py").write_text(CODE)
    return path


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the method's folder on the path."""
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def train(folder: Path, runs: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Train the method in a subprocess."""
    own = (f"method={METHOD}", f"runs={folder / runs}", *QUICK)
    return python(folder, *(arguments or ("-m", "tdmpc2.train")), *own)


def records(folder: Path, runs: str) -> list[bytes]:
    """The CSV files of the only run of a folder."""
    (spec,) = (folder / runs).rglob("spec.json")
    return [spec.with_name(name).read_bytes() for name in ("eval.csv", "train.csv")]


def test_it_trains_and_a_killed_run_resumes_to_the_same_bytes(folder: Path) -> None:
    whole = train(folder, "whole")
    assert whole.returncode == 0, whole.stderr
    killed = train(folder, "killed", "-c", KILL)
    assert killed.returncode == -9, killed.stderr
    resumed = train(folder, "killed")
    assert resumed.returncode == 0, resumed.stderr
    assert records(folder, "whole") == records(folder, "killed")


def test_its_settings_are_listed_and_checked(folder: Path) -> None:
    shown = python(folder, "-m", "tdmpc2.train", f"method={METHOD}", "--help")
    assert "batch_size=8" in shown.stdout
    refused = python(folder, "-m", "tdmpc2.train", f"method={METHOD}", *TINY, "batch_sise=4")
    assert refused.returncode == 2
    assert "did you mean 'batch_size'" in refused.stderr


def test_its_modules_may_have_the_names_of_files_of_the_suite(folder: Path) -> None:
    """Python puts the folder of a script first on the search path, before `PYTHONPATH`."""
    (folder / "agent.py").write_text(CODE)
    shown = python(folder, "tdmpc2/train.py", "method=agent:Pursuit", "--help")
    assert "batch_size=8" in shown.stdout, shown.stderr


def test_paths_and_texts_with_a_slash_are_settings(folder: Path) -> None:
    fields = "file: Path | None = None\n    kind: str = 'plain'\n    lr: float"
    check = "assert isinstance(config.file, Path)\n        super().__init__(config"
    code = CODE.replace("lr: float", fields).replace("super().__init__(config", check)
    (folder / "paths.py").write_text(
        code.replace("import numpy", "from pathlib import Path\nimport numpy")
    )
    own = ("method=paths:Pursuit", "file=/tmp/x", "kind=../../a", f"runs={folder / 'paths'}")
    for _ in range(2):
        done = python(folder, "-m", "tdmpc2.train", *own, *QUICK)
        assert done.returncode == 0, done.stderr
    assert "already finished" in done.stdout
    (spec,) = (folder / "paths").glob("*/*/*/*/spec.json")
    assert '"file": "/tmp/x"' in spec.read_text()


@pytest.mark.parametrize("command", ["tdmpc2.train", "sweeps.launch"])
def test_settings_with_the_name_of_an_option_are_refused(folder: Path, command: str) -> None:
    (folder / "twice.py").write_text(CODE.replace("lr: float = 1e-2", "seeds: int = 3"))
    method = "method" if command == "tdmpc2.train" else "methods"
    done = python(folder, "-m", command, f"{method}=twice:Pursuit", "seeds=1")
    assert done.returncode == 2
    assert "config field 'seeds' is an option of the commands; rename it" in done.stderr


def test_it_is_planned_swept_and_drawn(folder: Path) -> None:
    sweep = ("-m", "sweeps.launch", f"methods={METHOD}", "seeds=2", f"runs={folder / 'swept'}")
    sweep = (*sweep, *LAUNCH, *(a for a in QUICK if not a.startswith(("task=", "threads="))))
    plan = python(folder, *sweep, "dry_run=true")
    assert plan.returncode == 0, plan.stderr
    assert METHOD in plan.stdout
    done = python(folder, *sweep)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = ("analysis.make_figures", f"runs={folder / 'swept'}", f"out={folder / 'figures'}")
    drawn = python(folder, "-m", *figures, "only=learning_curves", "reps=200")
    assert drawn.returncode == 0, drawn.stderr
    assert (folder / "figures" / "learning_curves.png").exists()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("no_such_module:Agent", "cannot be imported"),
        ("tdmpc2.config:TDMPC2Config", "not a subclass of"),
        ("tdmpc3", "did you mean"),
    ],
)
def test_what_is_no_method_is_refused(method: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        agent_class(method)
