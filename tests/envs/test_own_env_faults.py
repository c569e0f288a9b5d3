"""Faults of environments of users: one line with the place in the code, or no effect on data."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

from tdmpc2.common.system.errors import UserError
from tdmpc2.envs import probing
from tdmpc2.envs.adapters import variable_of
from tdmpc2.envs.base import ControlStep
from tdmpc2.envs.gymnasium_env import GymnasiumEnv, check_spaces
from tdmpc2.envs.gymnasium_tasks import find_task
from tdmpc2.envs.tasks import Task, get_task
from tdmpc2.envs.toy import PointMass

NAME = "OwnFault-v0"
TASK = Task(
    name=f"gym:{NAME}",
    domain="gymnasium",
    env_id=NAME,
    obs_dim=2,
    action_dim=2,
    action_repeat=1,
    episode_length=50,
    env_steps=100,
    eval_every=100,
    metric="return",
    episodic=True,
)


class Sound(gymnasium.Env):
    """An environment without a fault."""

    observation_space, action_space = Box(-9, 9, (2,)), Box(-2, 2, (2,))

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x = np.zeros(2)
        return self.seen(), {}

    def step(self, action: np.ndarray) -> Any:
        self.x = self.x + action
        return self.seen(), 0.5, False, False, {}

    def seen(self) -> Any:
        return self.x


Make = Callable[..., GymnasiumEnv]


@pytest.fixture
def made() -> Iterator[Make]:
    """Return a function that makes an environment with these members."""

    def make(*, task: Task = TASK, **members: Any) -> GymnasiumEnv:
        gymnasium.register(NAME, type("Own", (Sound,), members), max_episode_steps=50)
        return GymnasiumEnv(task, seed=1)

    gymnasium.registry.pop(NAME, None)
    yield make
    gymnasium.registry.pop(NAME, None)


def returning(**changes: Any) -> Callable[..., Any]:
    """Return a function `step` that replaces some of its values."""

    def step(self: Any, action: np.ndarray) -> Any:
        names = ("obs", "reward", "terminated", "truncated", "info")
        values = dict(zip(names, Sound.step(self, action), strict=True)) | changes
        return tuple(values[name] for name in names)

    return step


X = np.zeros(2)
RETURNED = {
    "obs of another shape": ({"obs": np.zeros(3)}, "an observation (3,), not (2,)"),
    "obs with a row": ({"obs": X[None]}, "an observation (1, 2), not (2,)"),
    "no obs": ({"obs": None}, "an observation of NoneType, not of numbers"),
    "text": ({"obs": np.array(["1", "2"])}, "an observation of <U1, not of numbers"),
    "complex": ({"obs": X.astype(complex)}, "an observation of complex128"),
    "nan": ({"obs": X * np.nan}, "NaN or Inf in an observation"),
    "beyond float32": ({"obs": X + 1e39}, "1e+39 in an observation, which is too large"),
    "no reward": ({"reward": None}, "the reward None; it must be one number"),
    "rewards": ({"reward": np.zeros(3)}, "the reward ndarray of shape (3,)"),
    "reward as text": ({"reward": "1.5"}, "the reward '1.5'"),
    "infinite reward": ({"reward": np.inf}, "the reward inf; it must be finite in float32"),
    "huge reward": ({"reward": 1e39}, "the reward 1e+39; it must be finite in float32"),
    "swapped": ({"reward": False, "terminated": 0.7}, "terminated=0.7; it must be True or False"),
    "no flag": ({"terminated": None}, "terminated=None; it must be True or False"),
    "flags": ({"truncated": np.zeros(2, bool)}, "truncated=ndarray of shape (2,)"),
    "flag as text": ({"terminated": "no"}, "terminated='no'"),
    "no info": ({"info": None}, "an info of type NoneType, not a dict"),
    "success as text": ({"info": {"success": "False"}}, "info['success']='False'; it must be"),
    "partial success": ({"info": {"success": 0.3}}, "info['success']=0.3"),
    "success nan": ({"info": {"is_success": np.nan}}, "info['is_success']=nan"),
    "successes": ({"info": {"success": np.zeros(2)}}, "info['success']=ndarray of shape (2,)"),
}


@pytest.mark.parametrize("fault", RETURNED)
def test_what_step_must_not_return_is_refused_with_its_place(fault: str, made: Make) -> None:
    changes, message = RETURNED[fault]
    step = returning(**changes)
    env = made(step=step)
    env.reset()
    with pytest.raises(UserError) as refused:
        env.step(np.zeros(2))
    assert str(refused.value).startswith(f"task 'gym:{NAME}': step() returned {message}")
    place = f"({Path(__file__).name}, line {step.__code__.co_firstlineno})"
    assert str(refused.value).endswith(f"{place}; correct the environment, then run again")


@pytest.mark.parametrize(
    ("changes", "reward", "terminated", "success"),
    [
        ({"reward": np.array([0.25])}, 0.25, False, 0.0),
        ({"reward": np.float32(0.25), "terminated": np.bool_(True)}, 0.25, True, 0.0),
        ({"reward": True, "terminated": 1, "truncated": 0}, 1.0, True, 0.0),
        ({"reward": 2, "info": {"success": np.bool_(True)}}, 2.0, False, 1.0),
        ({"reward": 2, "info": {"success": 1.0}}, 2.0, False, 1.0),
        ({"reward": 2, "info": {"success": None, "is_success": np.array([1])}}, 2.0, False, 1.0),
    ],
)
def test_numbers_of_other_types_are_converted(
    changes: dict[str, Any], reward: float, terminated: bool, success: float, made: Make
) -> None:
    env = made(step=returning(**changes))
    env.reset()
    _, got, ended, _, info = env.step(np.zeros(2))
    assert (type(got), got, ended) == (float, reward, terminated)
    assert info["success"] == success


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"step": lambda self, a: (X, 0.0, False, {})}, "step() returned 4 values, not 5: obs"),
        ({"step": lambda self, a: X}, "step() returned ndarray, not a tuple of observation, rew"),
        ({"step": lambda self, a: sys.exit(0)}, "step() raised SystemExit: 0"),
        ({"reset": lambda self, **_: X}, "reset() returned ndarray, not a tuple of observation, i"),
        ({"reset": lambda self: (X, {})}, "reset() raised TypeError: "),
        ({"reset": lambda self, **_: (X[:1], {})}, "reset() returned an observation (1,)"),
    ],
)
def test_another_interface_is_refused_with_its_place(
    members: dict[str, Any], message: str, made: Make
) -> None:
    env = made(**members)

    def play() -> None:
        env.reset()
        env.step(np.zeros(2))

    with pytest.raises(UserError) as refused:
        play()
    assert message in str(refused.value)
    assert f"({Path(__file__).name}, line " in str(refused.value)


def test_an_entry_of_a_dict_that_is_missing_is_named(made: Make) -> None:
    space = Dict({"a": Box(-1, 1, (1,)), "b": Box(-1, 1, (1,))})
    env = made(observation_space=space, seen=lambda self: {"a": self.x[:1]})
    with pytest.raises(UserError, match=r"returned the observation \['a'\], not a dict of \['a', "):
        env.reset()


@pytest.mark.parametrize("task", [{"metric": "success"}, {"success_key": "solved"}])
def test_a_success_that_is_asked_for_must_be_there(task: dict[str, Any], made: Make) -> None:
    env = made(task=dataclasses.replace(TASK, **task))
    env.reset()
    with pytest.raises(UserError, match=r"step\(\) returned an info without '"):
        env.step(np.zeros(2))


def test_a_success_of_another_key_is_not_taken(made: Make) -> None:
    def step(self: Any, action: np.ndarray) -> Any:
        return *Sound.step(self, action)[:4], {"success": True}

    env = made(step=step, task=dataclasses.replace(TASK, success_key="solved"))
    env.reset()
    with pytest.raises(UserError, match="an info without 'solved'"):
        env.step(np.zeros(2))


@pytest.mark.parametrize(("key", "success"), [("success", 0.0), ("is_success", 1.0)])
def test_the_chosen_key_of_two_counts(made: Make, key: str, success: float) -> None:
    def step(self: Any, action: np.ndarray) -> Any:
        return *Sound.step(self, action)[:4], {"success": False, "is_success": True}

    env = made(step=step, task=dataclasses.replace(TASK, success_key=key))
    env.reset()
    assert env.step(np.zeros(2))[4]["success"] == success


def test_arrays_that_are_used_again_do_not_change_what_was_returned(made: Make) -> None:
    """One array holds all observations, and the environment writes into its actions."""
    buffer = np.zeros(2, np.float32)

    def seen(self: Any) -> np.ndarray:
        buffer[:] = self.x
        return buffer

    def step(self: Any, action: np.ndarray) -> Any:
        returned = Sound.step(self, action)
        action[:] = 7
        return returned

    env = made(seen=seen, step=step)
    action = np.full(2, 0.5, np.float32)
    seen_here = [env.reset()[0], *(env.step(action)[0] for _ in range(3))]
    np.testing.assert_array_equal(np.stack(seen_here)[:, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(action, 0.5)


def test_another_action_space_in_a_later_episode_is_refused(made: Make) -> None:
    def reset(self: Any, **how: Any) -> Any:
        if hasattr(self, "x"):
            self.action_space = Box(-50, 50, (2,))
        return Sound.reset(self, **how)

    env = made(reset=reset)
    env.reset()
    with pytest.raises(UserError, match="its action space has changed"):
        env.reset()


def test_bounds_may_be_as_large_as_numbers_can_be(made: Make) -> None:
    given = []

    def step(self: Any, action: np.ndarray) -> Any:
        given.append(action)
        return Sound.step(self, np.zeros(2))

    env = made(action_space=Box(-1e308, 1.7e308, (2,), np.float64), step=step)
    env.reset()
    for action in (-1, 0, 1):
        env.step(np.full(2, action))
    assert [one[0] for one in given] == [-1e308, pytest.approx(0.35e308), 1.7e308]


def test_spaces_that_are_missing_or_empty_are_refused(made: Make) -> None:
    for name, space, message in (
        ("action_space", None, "has no action_space"),
        ("observation_space", None, "has no observation_space"),
        ("observation_space", Box(-1, 1, (0,)), "has 0 observations and 2 actions"),
        ("action_space", Box(-1, 1, (0,)), "has 2 observations and 0 actions"),
    ):
        env = type("Own", (Sound,), {name: space})()
        with pytest.raises(UserError, match=message):
            check_spaces(env, "task")


def test_an_error_of_close_is_a_warning(made: Make, capsys: pytest.CaptureFixture[str]) -> None:
    for raised in (lambda self: [][0], lambda self: sys.exit(0)):
        made(close=raised).close()
        gymnasium.registry.pop(NAME)
        err = capsys.readouterr().err
        assert err.startswith(f"warning: task 'gym:{NAME}': close() raised ")
        assert err.count("\n") == 1


class Simulated(PointMass):
    """A simulator of another package that writes into its actions."""

    changes: dict[str, Any] = {}  # noqa: RUF012  (set for a test)

    def _control_step(self, action: np.ndarray) -> ControlStep:
        outcome = super()._control_step(action)
        action[:] = 0
        return outcome._replace(**self.changes)


def test_a_simulator_cannot_change_the_action_of_its_next_control_step() -> None:
    task = dataclasses.replace(get_task("toy-pointmass"), action_repeat=3)
    seen = []
    for kind in (PointMass, Simulated):
        env = kind(task, seed=1)
        env.reset()
        seen.append(env.step(np.full(2, 0.5))[0])
    np.testing.assert_array_equal(*seen)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs": np.full(4, np.nan)}, "NaN or Inf in an observation"),
        ({"obs": np.zeros(5)}, r"an observation \(5,\), not \(4,\)"),
        ({"obs": None}, "an observation of NoneType"),
        ({"reward": None}, "the reward None"),
        ({"reward": np.nan}, "the reward nan"),
        ({"terminated": 0.5}, "terminated=0.5"),
        ({"success": 0.5}, "success=0.5"),
        ({"truncated": None}, "truncated=None"),
    ],
)
def test_what_a_simulator_must_not_return_is_refused(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Simulated, "changes", changes)
    env = Simulated(get_task("toy-pointmass"), seed=1)
    env.reset()
    with pytest.raises(UserError, match=f"^task 'toy-pointmass': its simulator returned {message}"):
        env.step(np.zeros(2))


MODULE = """
import gymnasium, os, subprocess, threading
from tests.envs.own_envs import Line

class Own(Line):
    def __init__(self):
        {init}
    def close(self):
        {close}

gymnasium.register("Own-v0", Own, max_episode_steps=50)
"""


def asked(folder: Path, monkeypatch: pytest.MonkeyPatch, init: str, close: str = "pass") -> Task:
    """Return the task of an environment with this code."""
    name = f"own_probed_{abs(hash((init, close)))}"
    (folder / f"{name}.py").write_text(MODULE.format(init=init, close=close))
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{Path(__file__).parents[2]}")
    monkeypatch.setattr(probing, "END_SECONDS", 2.0)
    find_task.cache_clear()
    return get_task(f"{name}:Own-v0")


def test_processes_and_threads_that_close_ends_are_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = "self.e = threading.Event(); threading.Thread(target=self.e.wait).start()"
    assert asked(tmp_path, monkeypatch, wait, "self.e.set()").obs_dim == 1
    # A process that outlives the environment holds its output open, but blocks nothing.
    assert asked(tmp_path, monkeypatch, "subprocess.Popen(['sleep', '999'])").obs_dim == 1
    assert asked(tmp_path, monkeypatch, r"os.write(1, b'\xff'); os.write(2, b'\xfe')").obs_dim == 1


def test_a_time_limit_is_a_number() -> None:
    with pytest.raises(UserError, match="max_episode_steps=True must be a positive integer"):
        get_task("gym:Pendulum-v1?max_episode_steps=true")


def test_another_python_answers_the_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs the environments, so it may have packages that this one lacks."""
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\ntouch {tmp_path}/used\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    monkeypatch.setenv(variable_of("gymnasium"), str(other))
    find_task.cache_clear()
    assert get_task("gym:Pendulum-v1").obs_dim == 3
    assert (tmp_path / "used").exists()


@pytest.mark.parametrize(
    ("init", "close", "message"),
    [
        ("threading.Thread(target=threading.Event().wait).start()", "pass", "does not end, so a"),
        ("pass", "raise OSError('no viewer')", r"close\(\) raised OSError: no viewer \(own_prob"),
        ("raise SystemExit(3)", "pass", r"ends the process when it is made \(SystemExit: 3 \(own"),
        (r"os.write(2, b'\xfe\n'); os._exit(4)", "pass", "ended with exit code 4"),
    ],
)
def test_what_would_end_or_block_a_run_is_found_before_it(
    init: str, close: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=message):
        asked(tmp_path, monkeypatch, init, close)
