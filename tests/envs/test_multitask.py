"""Tasks in the padded shapes of a task set."""

from __future__ import annotations

import numpy as np
import pytest

from tdmpc2.common.training.evaluation import ZeroPolicy, evaluate
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.multitask import PaddedEnv, multitask_spec
from tdmpc2.envs.tasks import get_suite, get_task


def test_shapes_of_the_published_sets():
    mt30, mt80 = (multitask_spec(get_suite(name)) for name in ("mt30", "mt80"))
    assert (mt30.num_tasks, mt30.obs_shape, mt30.action_dim) == (30, (24,), 6)
    assert (mt80.num_tasks, mt80.obs_shape, mt80.action_dim) == (80, (39,), 6)
    assert set(mt30.episode_lengths) == {500}
    assert mt80.episode_lengths == (500,) * 30 + (100,) * 50
    assert mt80.action_dims[30:] == (4,) * 50
    assert mt80.task_names[:30] == mt30.task_names
    assert not mt80.episodic


@pytest.fixture(scope="module")
def padded():
    """Make a pendulum and a Meta-World task in the shapes of mt80, each with an unpadded copy."""
    spec = multitask_spec(get_suite("mt80"))
    return {
        name: (PaddedEnv(make_env(name, seed=3), spec), make_env(name, seed=3))
        for name in ("pendulum-swingup", "mw-push")
    }


@pytest.mark.parametrize("name", ["pendulum-swingup", "mw-push"])
def test_padding_changes_nothing_else(padded, name):
    env, bare = padded[name]
    task = get_task(name)
    assert env.observation_space.shape == (39,)
    assert env.action_space.shape == (6,)
    assert env.task_index == [row.name for row in get_suite("mt80")].index(name)
    assert env.action_mask.tolist() == [i < task.action_dim for i in range(6)]
    obs, _ = env.reset(seed=1)
    expected, _ = bare.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(5):
        assert obs.dtype == np.float32
        np.testing.assert_array_equal(obs[: task.obs_dim], expected)
        np.testing.assert_array_equal(obs[task.obs_dim :], 0)
        action = rng.uniform(-1, 1, 6)
        obs, *rest = env.step(action)
        expected, *others = bare.step(action[: task.action_dim])
        assert rest == others


def test_the_generator_is_the_tasks_own(padded):
    env, bare = padded["mw-push"]
    env.set_generator_state(bare.generator_state())
    np.testing.assert_array_equal(env.reset()[0][:39], bare.reset()[0])


def test_actions_of_another_shape_are_refused(padded):
    env, _ = padded["pendulum-swingup"]
    env.reset()
    with pytest.raises(ValueError, match=r"pendulum-swingup: action has shape \(1,\)"):
        env.step(np.zeros(1))


def test_a_batch_of_tasks_keeps_their_lengths(padded):
    envs = [env for env, _ in padded.values()]
    indices = [env.task_index for env in envs]
    result = evaluate(ZeroPolicy(6), envs, [0, 0], tasks=indices)
    assert result.lengths.tolist() == [500, 100]
