"""Properties of the dm_control adapter: contacts, action scale and repeat, processes, noise."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import os
import subprocess
import sys

import numpy as np
import pytest

from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.dmcontrol.adapter import CUSTOM, DMControlEnv, load_raw
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.tasks import get_suite, get_task

# dm_control 1.0.16 with MuJoCo 3.1.2: finger turn_easy, seed 0, 200 control steps with
# default_rng(1).uniform(-1, 1, (20, 2)), each action held for ten steps.
FINGER_RETURN = 151.0
FINGER_LAST_OBS = [
    *(-1.20186975, 0.84054623, -0.02207809, 0.12811151, -0.82871858, -5.25171262),
    *(0.0, 0.0, 0.0, 0.03924939, 0.12393339, -0.00853037),
]


def flat(observation):
    return np.concatenate([np.ravel(part) for part in observation.values()])


def finger_rollout(env):
    env.task.random.seed(0)
    env.reset()
    total = 0.0
    for action in np.repeat(np.random.default_rng(1).uniform(-1, 1, (20, 2)), 10, axis=0):
        step = env.step(action)
        total += step.reward
    return total, flat(step.observation)


def unrestored(task):
    from dm_control import (
        suite,
    )  # imported after the adapter, which suppresses the import's warnings

    return suite.load(*task.env_id.split("/"), task_kwargs={"random": 0})


def test_finger_has_the_contacts_of_the_published_results():
    env = load_raw(get_task("finger-turn-easy"), 0)
    for _ in range(3):  # the fix must survive resets
        total, last = finger_rollout(env)
        assert total == FINGER_RETURN
        np.testing.assert_allclose(last, FINGER_LAST_OBS, atol=1e-7)


def test_finger_without_the_fix_is_another_task():
    total, last = finger_rollout(unrestored(get_task("finger-turn-easy")))
    assert total < 30
    assert np.abs(last - FINGER_LAST_OBS).max() > 1e-3


def test_a_decision_is_two_control_steps_of_the_concatenated_observation():
    task = get_task("walker-walk")
    raw, env = load_raw(task, 4), make_env(task, seed=4)
    expected = raw.reset().observation
    assert list(expected) == ["orientations", "height", "velocity"]
    np.testing.assert_array_equal(env.reset()[0], flat(expected).astype(np.float32))
    actions = np.random.default_rng(0).uniform(-1, 1, (5, task.action_dim))
    for action in actions:
        first, second = raw.step(action), raw.step(action)
        obs, reward, *_ = env.step(action)
        np.testing.assert_array_equal(obs, flat(second.observation).astype(np.float32))
        assert reward == first.reward + second.reward


def test_actions_are_scaled_to_the_simulators_range():
    raw, env = load_raw(get_task("quadruped-walk"), 0), make_env("quadruped-walk", seed=0)
    spec = raw.action_spec()
    assert not np.array_equal(spec.maximum, np.ones(12))  # otherwise the test would prove nothing
    raw.reset()
    env.reset()
    for fraction in (0.0, 0.5, 1.0):
        action = spec.minimum + fraction * (spec.maximum - spec.minimum)
        for _ in range(2):
            expected = raw.step(action)
        obs, *_ = env.step(np.full(12, 2 * fraction - 1))
        np.testing.assert_allclose(obs, flat(expected.observation), rtol=1e-5, atol=1e-5)


def test_the_suite_never_ends_an_episode_itself():
    env = load_raw(get_task("pendulum-swingup"), 0)
    env.reset()
    assert not any(env.step(np.zeros(1)).last() for _ in range(1500))


def test_a_table_that_disagrees_with_the_simulator_is_refused():
    env = DMControlEnv(dataclasses.replace(get_task("walker-walk"), obs_dim=23), seed=0)
    message = r"returned an observation \(24,\), not \(23,\); correct .* the task's row"
    with pytest.raises(UserError, match=message):
        env.reset()


def test_customs_are_the_tasks_tagged_so_and_no_stock_ones():
    from dm_control import suite

    assert set(CUSTOM) == {task.env_id for task in get_suite("custom")}
    assert not set(CUSTOM) & {"/".join(pair) for pair in suite.ALL_TASKS}


def digest(name):
    """Return a hash of all bits of observations and rewards of two episodes' beginnings."""
    env = make_env(name, seed=3)
    actions = np.random.default_rng(0)
    sha = hashlib.sha256()
    for _ in range(2):
        sha.update(env.reset()[0].tobytes())
        for _ in range(10):
            obs, reward, *_ = env.step(actions.uniform(-1, 1, env.action_space.shape))
            sha.update(obs.tobytes() + np.float64(reward).tobytes())
    return sha.hexdigest()


def test_another_process_repeats_it_without_a_word():
    names = ["finger-turn-easy", "cup-spin", "dog-run", "humanoid-walk"]
    code = (
        "import hashlib, warnings\n"
        "import gymnasium\n"  # adds a filter for warnings of its own modules
        "import numpy as np\n"
        "from tdmpc2.envs.factory import make_env\n"
        f"{inspect.getsource(digest)}"
        "before = list(warnings.filters)\n"
        f"for name in {names}: print(digest(name))\n"
        "assert warnings.filters == before, 'warning filters changed'\n"
    )
    # Without a display and without a selected renderer, dm_control would print a warning.
    hidden = {"DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL", "PYTHONWARNINGS"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert result.stderr == ""
    assert result.stdout.split() == [digest(name) for name in names]
