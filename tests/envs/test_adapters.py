"""Simulators from outside: one file is enough for every command, and mistakes are refused."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tdmpc2.common.system.errors import UserError
from tdmpc2.envs import factory
from tdmpc2.envs.adapters import ADAPTERS, GROUP, Adapter, recorded_distributions, register
from tdmpc2.envs.base import DecisionEnv
from tdmpc2.envs.tasks import SUITES, TASKS, Task, get_task
from tdmpc2.envs.toy import PointMass
from tests.runs import TINY, run_directory
from tests.test_architecture import ROOT

PLUGIN = '''
"""A simulator in one file: a point that moves on a line."""

import numpy as np

from tdmpc2.envs.adapters import Adapter, Simulator, register
from tdmpc2.envs.base import ControlStep, DecisionEnv
from tdmpc2.envs.tasks import Task


class Line(DecisionEnv):
    def __init__(self, task, *, seed, render=False):
        super().__init__(task)
        self._seed(seed)
        self._position = 0.0

    def generator_state(self):
        return dict(self._rng.bit_generator.state)

    def set_generator_state(self, state):
        self._rng.bit_generator.state = state

    def _seed(self, seed):
        self._rng = np.random.default_rng(seed)

    def _begin_episode(self):
        self._position = self._rng.uniform(-1, 1)
        return np.array([self._position, 1.0])

    def _control_step(self, action):
        self._position = float(np.clip(self._position + 0.1 * action[0], -1, 1))
        reward = 1 - abs(self._position)
        return ControlStep(np.array([self._position, 1.0]), reward, False, float(reward > 0.9))


ADAPTER = Adapter(
    domain="line",
    target="line_plugin:Line",
    seconds_per_decision=36.0,
    packages=("line_plugin",),
    distributions=("line-simulator",),
    install="pip install line-simulator",
    probe="line-reach",
)
REACH = Task(
    name="line-reach",
    domain="line",
    env_id="reach",
    obs_dim=2,
    action_dim=1,
    action_repeat=2,
    episode_length=50,
    env_steps=1_000,
    eval_every=100,
    metric="return",
    score_range=(0.0, 200.0),
    tags=frozenset({"line"}),
)
SIMULATOR = Simulator(ADAPTER, (REACH,))
'''


class Outside:
    """A folder with the plugin, and commands that run with it on Python's path.

    Args:
        folder: a new folder.
        mechanism: `variable` names the module in `TDMPC2_PLUGINS`; `entry point` declares it in
            the metadata of an installed distribution.
    """

    def __init__(self, folder: Path, mechanism: str) -> None:
        named = mechanism == "variable"
        text = PLUGIN + "register(*SIMULATOR)\n" * named
        (folder / "line_plugin.py").write_text(text)
        metadata = folder / "line_simulator-1.2.3.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Name: line-simulator\nVersion: 1.2.3\n")
        if not named:
            text = f"[{GROUP}]\nline = line_plugin:SIMULATOR\n"
            (metadata / "entry_points.txt").write_text(text)
        path = f"{folder}{os.pathsep}{ROOT}"
        self.env = {**os.environ, "PYTHONPATH": path, "TDMPC2_PLUGINS": "line_plugin" * named}

    def run(self, *arguments: str | Path) -> str:
        """Run Python with arguments, and return what it prints."""
        line = [sys.executable, *map(str, arguments)]
        done = subprocess.run(line, cwd=ROOT, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module", params=["variable", "entry point"])
def outside(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outside:
    return Outside(tmp_path_factory.mktemp("outside"), request.param)


def test_the_doctor_probes_it(outside: Outside) -> None:
    code = (
        "from tdmpc2.doctor import checks, check_simulator\n"
        "for check in checks():\n"
        "    if getattr(check, 'args', ()) and check.args[0].domain == 'line':\n"
        "        print(check())\n"
    )
    printed = outside.run("-c", code)
    assert printed.startswith("Check(what='line (1 task)', state='ok', found='line-reach: ten dec")


def test_it_passes_the_contract(outside: Outside) -> None:
    arguments = ("-q", "-k", "line", "-p", "no:cacheprovider", "-n", "0")
    printed = outside.run("-m", "pytest", *arguments, "tests/envs/test_contract.py")
    assert re.search(r"^\d\d passed", printed, re.MULTILINE)


def test_a_sweep_of_its_suite_is_planned_with_its_cost(outside: Outside, tmp_path: Path) -> None:
    """The simulator's 36 seconds per decision make up nearly all of the time."""
    evaluations, decisions = 1 + 36_000 // 100, 36_000 // 2
    hours = (decisions + evaluations * 10 * 50) / 100
    arguments = ("suite=line", "seeds=1", "methods=sac", "env_steps=36000", "dry_run=true")
    printed = outside.run("sweeps/launch.py", *arguments, f"runs={tmp_path}")
    assert "line-reach" in printed
    assert f"{hours / 24:.0f} days on one core" in printed


def test_a_sweep_trains_it_in_local_processes(outside: Outside, tmp_path: Path) -> None:
    """Training and evaluation workers are child processes; records name version and scores."""
    settings = [f"{key}={value}" for key, value in TINY.items() if key != "task"]
    arguments = ["tasks=line-reach", "seeds=1", "cluster=local", "eval_workers=1", "yes=true"]
    outside.run("sweeps/launch.py", *arguments, *settings, f"runs={tmp_path}")
    directory = run_directory(tmp_path)
    assert json.loads((directory / "status.json").read_text())["state"] == "COMPLETED"
    (attempt,) = json.loads((directory / "attempts.json").read_text())
    assert attempt["packages"]["line-simulator"] == "1.2.3"
    code = (
        "import pathlib, sys; from analysis.records.run_reader import read_run\n"
        "run = read_run(pathlib.Path(sys.argv[1]), [])\n"
        "print(run['simulators'], run['score'])"
    )
    assert outside.run("-c", code, directory) == "line-simulator 1.2.3 return 0 to 200\n"


def test_curves_of_other_files_have_its_range_of_scores(outside: Outside, tmp_path: Path) -> None:
    (tmp_path / "curve.csv").write_text(
        "method,task,seed,env_step,episode_return\nmine,line-reach,1,100,100\n",
        encoding="utf-8",
    )
    code = (
        "import sys; from analysis.records.load import load_curves\n"
        "from pathlib import Path; from analysis.stats.ragged_curves import ScoreCurves\n"
        "curves = ScoreCurves(load_curves(Path(sys.argv[1]), 'mine'))\n"
        "run = curves.runs.iloc[0]\n"
        "print((curves.curves[0].values[0] - run['offset']) * run['scale'])"
    )
    assert outside.run("-c", code, tmp_path / "curve.csv") == "0.5\n"


@pytest.mark.parametrize(
    ("plugins", "command", "message"),
    [
        (
            "no_such_module",
            ["tdmpc2.train", "task=line-reach"],
            "TDMPC2_PLUGINS=no_such_module: cannot be imported (No module named",
        ),
        (
            "line_plugin",
            ["sweeps.launch", "suite=line"],
            "simulator 'line': has no tasks; register at least one",
        ),
    ],
)
def test_a_broken_plugin_is_refused_in_one_line(
    tmp_path: Path, plugins: str, command: list[str], message: str
) -> None:
    text = PLUGIN.replace("(REACH,)", "()") + "register(*SIMULATOR)\n"
    (tmp_path / "line_plugin.py").write_text(text)
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "TDMPC2_PLUGINS": plugins}
    line = [sys.executable, "-m", *command]
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


MINE = Adapter("mine", "my_module:Env", seconds_per_decision=0.01)


def mine(**changes: Any) -> Task:
    row = dataclasses.replace(get_task("toy-pointmass"), name="mine-reach", domain="mine")
    return dataclasses.replace(row, **changes)


@pytest.mark.parametrize(
    ("adapter", "tasks", "message"),
    [
        ({"domain": "toy"}, [mine(domain="toy")], "'toy': the domain is taken; choose another"),
        ({}, [], "simulator 'mine': has no tasks; register at least one"),
        ({"probe": "mine-reach"}, [mine()], "no command installs it; set install="),
        ({"probe": "other"}, [mine()], "the probe 'other' is not its task"),
        ({}, [mine(domain="toy")], "task 'mine-reach' has domain='toy', not 'mine'"),
        ({}, [mine(name="walker-walk")], "task 'walker-walk': the name is taken"),
        ({}, [mine(name="myo-reach")], "task 'myo-reach': the name is taken"),
        ({}, [mine(name="custom")], "task 'custom': the name is taken"),
        ({}, [mine(tags=frozenset({"mine-reach"}))], "tag mine-reach is the name of a task"),
        ({}, [mine(), mine(obs_dim=3)], "task 'mine-reach': the name is taken"),
        ({}, mine(), "tasks must be a tuple of Task, not Task"),
        ({"target": "my_module.Env"}, [mine()], "target='my_module.Env' must be written as"),
        ({"seconds_per_decision": 0}, [mine()], "seconds_per_decision=0 must be a number above 0"),
        ({}, [mine(obs_dim="4")], "task 'mine-reach': obs_dim='4' must be an integer ≥ 1"),
        ({}, [mine(action_repeat=-2)], "action_repeat=-2 must be an integer ≥ 1"),
        ({}, [mine(episode_length=50.5)], "episode_length=50.5 must be an integer ≥ 1"),
        ({}, [mine(metric="reward")], "metric='reward' must be return or success"),
        ({}, [mine(tags=["mine"])], "tags=['mine'] must be a frozenset of texts"),
        ({}, [mine(score_range=(2, 1))], "score_range=(2, 1) must be two increasing, finite num"),
        ({}, [mine(name="mine/reach")], "names may contain only letters, digits, - and _"),
        ({}, [mine(tags=frozenset({"mt80"}))], "the tasks of suite mt80 are fixed; use other"),
    ],
)
def test_registrations_that_do_not_fit_are_refused(
    adapter: dict[str, Any], tasks: list[Task], message: str
) -> None:
    before = list(ADAPTERS), list(TASKS), dict(SUITES)
    with pytest.raises(UserError) as error:
        register(dataclasses.replace(MINE, **adapter), tasks)
    assert message in str(error.value)
    assert (list(ADAPTERS), list(TASKS), dict(SUITES)) == before


def test_a_missing_package_is_found_by_its_top_level_name() -> None:
    changes = {"packages": ("numpy.random", "no_such.core"), "install": "pip install no-such"}
    adapter = dataclasses.replace(MINE, **changes)
    assert adapter.missing_package() == "no_such"


class NoEnv:
    """A class that is no environment."""

    def __init__(self, task: Task, *, seed: int, render: bool) -> None:
        pass


class OtherArguments(PointMass):
    """A class that the suite cannot call."""

    def __init__(self, task: Task, seed: int) -> None:
        super().__init__(task, seed=seed)


class Unfinished(DecisionEnv):
    """A class that lacks functions."""


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module:Env", "simulator 'toy' (no_such_module:Env): cannot be imported (No mod"),
        (f"{__name__}:NoSuch", f"simulator 'toy' ({__name__}:NoSuch): {__name__} has no 'NoSuch'"),
        (f"{__name__}:NoEnv", "task 'toy-pointmass': NoEnv made NoEnv, which is no DecisionEnv"),
        (f"{__name__}:OtherArguments", "OtherArguments(task, seed=seed, render=render) cannot be"),
        (f"{__name__}:Unfinished", "Unfinished lacks _begin_episode, _control_step, _seed, gen"),
        ("leaving_simulator:Env", "(leaving_simulator:Env): ends the process when it is imported"),
    ],
)
def test_a_class_that_is_no_environment_is_refused(
    target: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaving_simulator.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    changed = dataclasses.replace(ADAPTERS["toy"], target=target)
    monkeypatch.setattr(factory, "ADAPTERS", {**ADAPTERS, "toy": changed})
    with pytest.raises(UserError) as error:
        factory.make_env("toy-pointmass", seed=1)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_adapters_of_this_project_have_facts_that_exist() -> None:
    for domain, adapter in ADAPTERS.items():
        assert adapter.domain == domain
        assert adapter.probe is None or get_task(adapter.probe).domain == domain
        always = domain == "gymnasium"  # every installation has it
        packages, install = bool(adapter.packages) or always, bool(adapter.install) or always
        assert packages == install == bool(adapter.distributions)
        assert adapter.seconds_per_decision > 0
    assert {"mani_skill2", "sapien", "mujoco"} <= set(recorded_distributions())


def test_the_table_imports_no_simulator() -> None:
    code = (
        "import sys; from tdmpc2.envs.adapters import ADAPTERS\n"
        "heavy = {'torch', 'gymnasium'}.union(*(row.packages for row in ADAPTERS.values()))\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
