"""Simulators of another Python: equal results, recorded versions, and messages."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sweeps.planning.options import SweepOptions
from sweeps.planning.request import SweepRequest
from tdmpc2.common.interfaces import TaskEnv
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import importable
from tdmpc2.doctor import check_simulator, check_vulkan
from tdmpc2.envs.adapters import ADAPTERS, variable_of
from tdmpc2.envs.factory import check_render, make_env, missing_requirement
from tdmpc2.envs.other_python import python_and_environment
from tdmpc2.envs.rendering import can_render_vulkan
from tdmpc2.envs.tasks import get_task
from tdmpc2.envs.worker_process import Reader
from tdmpc2.envs.workers import RemoteEnv, WorkerEnvs
from tests.kill_driver import Command
from tests.runs import arguments, outcome, run_directory


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the environments of two domains in "another" Python, which is the same one."""
    for domain in ("toy", "dmcontrol"):
        monkeypatch.setenv(variable_of(domain), sys.executable)


@pytest.fixture(scope="module")
def empty_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python without packages."""
    folder = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


def episode(env: TaskEnv) -> list[np.ndarray]:
    """Observations and rewards of a reset and a few steps, and of the same once more."""
    found = []
    state = env.generator_state()
    for _ in range(2):
        obs, info = env.reset()
        found += [obs, np.array([info["success"], info["success_ever"]])]
        for _ in range(4):
            obs, reward, terminated, truncated, info = env.step(env.action_space.high)
            found += [obs, np.array([reward, terminated, truncated, info["success"]])]
        env.set_generator_state(state)
    return found


@pytest.mark.parametrize("task", ["cartpole-swingup", "toy-pointmass-episodic"])
def test_environments_are_equal(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = make_env(task, seed=5)
    monkeypatch.setenv(variable_of(here.task.domain), sys.executable)
    there = make_env(task, seed=5)
    assert isinstance(there, RemoteEnv)
    for name in ("observation_space", "action_space", "action_repeat", "episode_length", "task"):
        assert getattr(there, name) == getattr(here, name)
    for ours, theirs in zip(episode(here), episode(there), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    there.close()


@pytest.mark.parametrize("other", ["toy-pointmass", "mw-reach"])
def test_groups_of_environments_run_there(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if one of two domains in a process has another Python."""
    expected = make_env("toy-pointmass", seed=0).reset(seed=2)[0]
    monkeypatch.setenv(variable_of("toy"), sys.executable)
    tasks = (other, "toy-pointmass")
    arguments = [{"task": get_task(task), "seed": i} for i, task in enumerate(tasks)]
    group = WorkerEnvs(arguments, num_workers=1)
    steps = group._call_all("reset", {0: 1, 1: 2})
    group.close()
    np.testing.assert_array_equal(steps[1], expected)


def test_a_run_records_the_versions_there(tmp_path: Path) -> None:
    """Its results are those of a run in one Python."""
    there = {variable_of("toy"): sys.executable}
    for name, environment in (("here", {}), ("there", there)):
        done = Command(arguments(tmp_path / name), env=environment).run()
        assert done.code == 0, done
    assert outcome(tmp_path / "there") == outcome(tmp_path / "here")
    (attempt,) = json.loads((run_directory(tmp_path / "there") / "attempts.json").read_text())
    assert attempt["packages"]["python (toy)"] == attempt["python"]


def test_its_processes_have_their_own_packages(
    monkeypatch: pytest.MonkeyPatch, elsewhere: None
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/packages/of/this/python")
    python, environment = python_and_environment("toy")
    assert python == sys.executable
    assert "/packages/of/this/python" not in environment["PYTHONPATH"]
    assert variable_of("toy") not in environment
    assert python_and_environment("metaworld")[1]["PYTHONPATH"] == "/packages/of/this/python"


PLUGIN = """
from dataclasses import replace
from tdmpc2.envs.adapters import Adapter, register
from tdmpc2.envs.tasks import TASKS
task = replace(TASKS["toy-pointmass"], name="own-toy", domain="own", tags=frozenset({"own-suite"}))
register(Adapter("own", "own_toy:Own", 1e-4), (task,))
"""
OWN = "from tdmpc2.envs.toy import PointMass\nclass Own(PointMass):\n    pass\n"


@pytest.mark.parametrize("task", ["toy-pointmass", "own-toy"])
def test_simulators_of_this_project_need_no_plugin_there_and_those_of_plugins_are_found(
    task: str, tmp_path: Path
) -> None:
    (tmp_path / "own_plugin.py").write_text(PLUGIN)
    (tmp_path / "own_toy.py").write_text(OWN)
    code = (
        "import sys; from tdmpc2.envs.factory import make_env; env = make_env(sys.argv[1], seed=0);"
        "env.reset(); print(type(env).__name__); env.close()"
    )
    variables = {
        "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}",
        "TDMPC2_PLUGINS": "own_plugin",
        variable_of(task.split("-")[0]): sys.executable,
    }
    command = [sys.executable, "-c", code, task]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("RemoteEnv\n", "")


def test_modules_of_users_are_found_there_but_no_installed_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable_of("gymnasium"), sys.executable)
    monkeypatch.setenv("PYTHONPATH", "/own/folder::/lib/python3.12/site-packages/")
    _, environment = python_and_environment("gymnasium")
    assert environment["PYTHONPATH"] == f"{importable()}:/own/folder"


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    empty_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TDMPC2_PYTHON_MANISKILL2", str(empty_python))
    message = (
        "task 'lift-cube' needs numpy, which $TDMPC2_PYTHON_MANISKILL2 does not have: "
        f"{empty_python} -m pip install -e '.[maniskill2]'"
    )
    assert missing_requirement(get_task("lift-cube"), "official") == message
    with pytest.raises(UserError) as refused:
        make_env("lift-cube", seed=0)
    assert str(refused.value) == message
    (run,) = SweepRequest(SweepOptions(tasks="lift-cube", seeds="1")).planned
    assert run.missing == message
    check = check_simulator(ADAPTERS["maniskill2"])
    assert check.state == "FAIL"
    assert "needs numpy" in check.found


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("/nowhere/python", "TDMPC2_PYTHON_TOY=/nowhere/python: no such program"),
        ("false", "false: does not start: exit code 1"),
    ],
)
def test_what_is_no_python_is_one_line(
    python: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TDMPC2_PYTHON_TOY", python)
    with pytest.raises(UserError) as refused:
        make_env("toy-pointmass", seed=0)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_rendering_is_tried_in_the_python_of_the_simulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a program that succeeds with anything."""
    can_render_vulkan.cache_clear()
    monkeypatch.setenv(variable_of("maniskill2"), "true")
    check_render(get_task("lift-cube"))
    assert check_vulkan().state == "ok"
    can_render_vulkan.cache_clear()
    monkeypatch.setenv(variable_of("maniskill2"), str(tmp_path / "python"))
    assert check_vulkan().found == "not checked"


def test_what_needs_this_process_is_refused(
    elsewhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="obs=rgb: not with TDMPC2_PYTHON_DMCONTROL"):
        make_env("walker-walk", seed=0, obs="rgb")
    monkeypatch.setenv("TDMPC2_PYTHON_METAWORLD", sys.executable)
    task = replace(get_task("mw-reach"), seeded_resets=False)
    with pytest.raises(UserError, match="seeded_resets=false: not with TDMPC2_PYTHON_METAWORLD"):
        make_env(task, seed=0)


def test_arrays_of_numpy_2_are_read() -> None:
    """Pickles of NumPy 2 name the package `numpy._core`, which NumPy 1 does not have."""
    array = np.arange(3, dtype=np.float32)
    pickled = pickle.dumps(array, protocol=0).replace(b"numpy.core", b"numpy._core")
    assert b"numpy._core" in pickled
    np.testing.assert_array_equal(Reader(io.BytesIO(pickled)).load(), array)
