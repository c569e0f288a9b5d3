"""Every task of the table keeps the `TaskEnv` contract."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from tdmpc2.common.interfaces import TaskEnv
from tdmpc2.envs.gymnasium_tasks import DOMAIN as GYMNASIUM
from tdmpc2.envs.tasks import TASKS, get_task
from tests.envs.making import make

OWN = (
    *("gym:Hopper-v5", "gym:HalfCheetah-v5", "gym:Walker2d-v5", "gym:Pendulum-v1"),
    *("gym:MountainCarContinuous-v0", "tests.envs.own_envs:Line-v0"),
    "tests.envs.own_envs:ns/Frame-v0",
)
"""Gymnasium environments, which are in no table."""
DOMAINS = sorted({task.domain for task in TASKS.values()} | {GYMNASIUM})
# Making an environment takes up to a second, so all tests of a task run in one process.
EVERY_TASK = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in (*TASKS, *OWN)]


def rollout(env: TaskEnv, *, decisions: int = 8, seed: int | None = None) -> list[np.ndarray]:
    """Return observations `(<= decisions + 1, O)` and rewards from the beginning of an episode."""
    actions = np.random.default_rng(0)
    obs, _ = env.reset(seed=seed)
    observations, rewards = [obs], []
    for _ in range(decisions):
        action = actions.uniform(-1, 1, env.action_space.shape)
        obs, reward, terminated, truncated, _ = env.step(action)
        observations.append(obs)
        rewards.append(reward)
        if terminated or truncated:
            break
    return [np.array(observations), np.array(rewards)]


def assert_same(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    """Check equality bit for bit."""
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module", params=EVERY_TASK)
def task(request):
    return get_task(request.param)


@pytest.fixture(scope="module")
def env(task):
    """Make an environment after some episodes, the last of them unfinished."""
    env = make(task, seed=7)
    rollout(env)
    rollout(env)
    return env


def test_spaces(task, env):
    assert isinstance(env, TaskEnv)
    assert env.action_repeat == task.action_repeat
    assert env.episode_length == task.episode_length
    assert env.frame_stack == 1
    assert env.observation_space.shape == (task.obs_dim,)
    assert env.observation_space.dtype == np.float32
    assert env.action_space.shape == (task.action_dim,)
    assert env.action_space.dtype == np.float32
    np.testing.assert_array_equal(env.action_space.low, -1)
    np.testing.assert_array_equal(env.action_space.high, 1)


def test_reset_and_step(task, env, capfd):
    obs, info = env.reset()
    assert obs.dtype == np.float32
    assert env.observation_space.contains(obs)
    assert info == {"success": 0.0, "success_ever": 0.0}
    action = np.zeros(env.action_space.shape, dtype=np.float32)
    following, reward, terminated, truncated, info = env.step(action)
    assert following.dtype == np.float32
    assert env.observation_space.contains(following)
    assert np.isfinite(following).all()
    assert type(reward) is float
    assert np.isfinite(reward)
    if task.metric == "return" and task.domain != GYMNASIUM:
        assert 0 <= reward <= env.action_repeat
    assert terminated is False
    assert truncated is False
    assert set(info) == {"success", "success_ever"}
    for value in info.values():
        assert type(value) is float
        assert value in (0.0, 1.0)
    # The simulator must not write into observations that it has returned.
    kept = following.copy()
    env.step(np.ones(env.action_space.shape))
    np.testing.assert_array_equal(following, kept)
    assert capfd.readouterr() == ("", "")


def test_a_seed_means_the_same_in_a_new_and_in_a_used_environment(task, env):
    assert_same(rollout(make(task, seed=3)), rollout(env, seed=3))


def test_seeds_and_episodes_differ_where_the_task_is_random(task, env):
    first, _ = env.reset(seed=1)
    second, _ = env.reset()
    other, _ = env.reset(seed=2)
    assert np.array_equal(first, second) == task.fixed_start
    assert np.array_equal(first, other) == task.fixed_start


def test_the_generator_state_is_all_that_a_new_environment_needs(task, env):
    state = pickle.loads(pickle.dumps(env.generator_state()))
    expected = [rollout(env), rollout(env)]
    fresh = make(task, seed=99)
    fresh.set_generator_state(state)
    assert_same(rollout(fresh), expected[0])
    assert_same(rollout(fresh), expected[1])


def test_reading_the_generator_draws_nothing(env):
    env.reset(seed=5)
    obs, _ = env.reset()
    env.reset(seed=5)
    state = env.generator_state()
    env.step(np.zeros(env.action_space.shape))
    np.testing.assert_array_equal(env.reset()[0], obs)
    env.set_generator_state(state)
    np.testing.assert_array_equal(env.reset()[0], obs)


def test_an_episode_is_truncated_on_its_last_decision(task, env):
    env.reset()
    action = np.zeros(env.action_space.shape)
    ends, ever = [], []
    for _ in range(task.episode_length):
        _, _, *end, info = env.step(action)
        ends.append(tuple(end))
        ever.append(info["success_ever"])
        assert info["success"] <= info["success_ever"]
        if any(end) and task.domain == GYMNASIUM:
            break
    if ends[-1] == (True, False) and task.domain == GYMNASIUM:
        assert task.episodic
        ends[-1] = (False, True)
    else:
        assert len(ends) == task.episode_length
    assert ends == [(False, False)] * (len(ends) - 1) + [(False, True)]
    assert ever == sorted(ever)
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        env.step(action)
    assert env.reset()[1]["success_ever"] == 0.0
    env.step(action)


def test_bad_actions_are_refused(env):
    env.reset()
    size = env.action_space.shape[0]
    with pytest.raises(ValueError, match="action has shape"):
        env.step(np.zeros(size + 1))
    with pytest.raises(ValueError, match="action has shape"):
        env.step(np.array(0.0))
    with pytest.raises(ValueError, match="not finite"):
        env.step(np.full(size, np.nan))


def test_actions_beyond_the_range_count_as_its_bound(env):
    ones = np.ones(env.action_space.shape)
    env.reset(seed=0)
    expected = env.step(ones)
    env.reset(seed=0)
    beyond = env.step(5 * ones)
    np.testing.assert_array_equal(beyond[0], expected[0])
    assert beyond[1] == expected[1]


def test_the_actions_array_may_be_used_again(env):
    """An environment keeps no reference to an action or a generator state that it was given."""
    action = np.full(env.action_space.shape, 0.5, dtype=np.float32)
    env.reset(seed=0)
    expected = [env.step(action.copy())[0] for _ in range(2)]
    env.reset(seed=0)
    first = env.step(action)[0]
    action[:] = 0.5
    np.testing.assert_array_equal([first, env.step(action)[0]], expected)
    np.testing.assert_array_equal(action, 0.5)


def test_step_before_the_first_reset_is_refused():
    env = make("toy-pointmass", seed=0)
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        env.step(np.zeros(2))


def fingerprints(domain: str) -> dict[str, str]:
    """Return a checksum over all tasks of a domain: an episode and the start of the next."""
    found = {}
    for task in (task for task in map(get_task, (*TASKS, *OWN)) if task.domain == domain):
        env = make(task, seed=11)
        arrays = [*rollout(env, decisions=20), *rollout(env, decisions=2)]
        found[task.name] = hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()
    return found


@pytest.mark.parametrize("domain", DOMAINS)
def test_another_process_sees_the_same(domain):
    """The process prints only the answer: banners would precede it."""
    code = (
        "import json; from tests.envs.test_contract import fingerprints; "
        f"print(json.dumps(fingerprints({domain!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == fingerprints(domain)
