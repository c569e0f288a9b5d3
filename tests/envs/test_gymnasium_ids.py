"""The tasks of the suite under Gymnasium: its checker, loops, vectors and seeds."""

from __future__ import annotations

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from tdmpc2.envs.gymnasium_ids import id_of
from tdmpc2.envs.tasks import Task, get_suite, get_task
from tests.envs.making import assets_of, make

TASKS = get_suite("all104")
FIRST = {task.domain: task for task in reversed(TASKS)}
EACH = [
    pytest.param(task, id=task.name, marks=[] if task in FIRST.values() else [pytest.mark.slow])
    for task in TASKS
]
ONE_PER_DOMAIN = [pytest.param(task, id=domain) for domain, task in FIRST.items()]


def made(task: Task, **kwargs) -> gymnasium.Env:
    return gymnasium.make(id_of(task.name), assets=assets_of(task), **kwargs)


@pytest.mark.parametrize("task", EACH)
def test_the_checker_of_gymnasium_finds_nothing(task):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Observations are unbounded, which the checker points out.
        warnings.filterwarnings("ignore", message=".*(infinity|out of the unit|normalized)")
        env = made(task)
        # `spec.make` would make it without the models that this machine has.
        check_env(env.unwrapped, skip_render_check=True, skip_close_check=True)
        env.close()


@pytest.mark.parametrize("task", ONE_PER_DOMAIN)
def test_a_loop_of_random_actions(task):
    env = made(task)
    env.action_space.seed(0)
    obs, info = env.reset(seed=3)
    expected, _ = make(task, seed=3).reset(seed=3)
    np.testing.assert_array_equal(obs, expected)
    assert info == {"success": 0.0, "success_ever": 0.0}
    for step in range(1, task.episode_length + 1):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(obs)
        assert np.isfinite(reward)
        assert (terminated, truncated) == (False, step == task.episode_length)
    env.reset()
    env.close()


@pytest.mark.parametrize("task", ONE_PER_DOMAIN)
def test_a_vector_of_environments(task):
    envs = gymnasium.make_vec(id_of(task.name), num_envs=2, assets=assets_of(task))
    obs, _ = envs.reset(seed=5)
    assert obs.shape == (2, task.obs_dim)
    single, _ = make(task, seed=5).reset(seed=5)
    np.testing.assert_array_equal(obs[0], single)
    for _ in range(3):
        obs, reward, *_ = envs.step(envs.action_space.sample())
    assert reward.shape == (2,)
    envs.close()


def test_episodes_differ_without_a_seed():
    task = get_task("walker-walk")
    starts = [made(task).reset()[0] for _ in range(2)]
    assert not np.array_equal(*starts)
    assert made(task).unwrapped.render() is None


def test_the_id_alone_is_enough_in_a_new_process():
    code = (
        "import gymnasium\n"
        "env = gymnasium.make('tdmpc2.envs.gymnasium_ids:tdmpc2/cup-catch-v0')\n"
        "print(env.reset(seed=1)[0].shape, env.spec.id)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "(8,) tdmpc2/cup-catch-v0\n", done.stderr
