"""The point mass: its equations, and that zero and random actions score low."""

from __future__ import annotations

import numpy as np
import pytest

from tdmpc2.envs.factory import make_env


def start(env, position, velocity=(0.0, 0.0)):
    """Start an episode and set the position and velocity of the point."""
    env.reset(seed=0)
    env._position = np.array(position)
    env._velocity = np.array(velocity)


def mean_return(name, policy, episodes=40):
    env = make_env(name, seed=0)
    total = 0.0
    for _ in range(episodes):
        obs, _ = env.reset()
        done = False
        while not done:
            obs, reward, terminated, truncated, _ = env.step(policy(obs))
            total += reward
            done = terminated or truncated
    return total / episodes


def test_one_step_by_hand():
    env = make_env("toy-pointmass", seed=0)
    start(env, (0.5, 0.0), (0.0, -0.1))
    obs, reward, _, _, info = env.step(np.array([-1.0, 0.5]))
    # v = 0.3 * (0, -0.1) + 0.7 * 0.2 * (-1, 0.5) = (-0.14, 0.04), p = (0.36, 0.04)
    np.testing.assert_allclose(obs, [0.36, 0.04, -0.14, 0.04], atol=1e-7)
    assert reward == pytest.approx(1 / (1 + (0.36**2 + 0.04**2) / 0.04))
    assert info == {"success": 0.0, "success_ever": 0.0}


def test_the_origin_is_the_optimum():
    env = make_env("toy-pointmass", seed=0)
    start(env, (0.0, 0.0))
    _, reward, _, _, info = env.step(np.zeros(2))
    assert reward == 1.0
    assert info == {"success": 1.0, "success_ever": 1.0}


def test_walls_stop_the_point_and_end_the_episodic_task():
    env = make_env("toy-pointmass", seed=0)
    start(env, (0.95, 0.2))
    obs, reward, terminated, _, _ = env.step(np.array([1.0, 0.0]))
    np.testing.assert_allclose(obs, [1.0, 0.2, 0.0, 0.0], atol=1e-7)
    assert reward > 0
    assert not terminated

    env = make_env("toy-pointmass-episodic", seed=0)
    start(env, (0.95, 0.2))
    _, reward, terminated, truncated, info = env.step(np.array([1.0, 0.0]))
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert info == {"success": 0.0, "success_ever": 0.0}
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        env.step(np.zeros(2))


def test_starts_lie_on_a_ring_at_rest():
    env = make_env("toy-pointmass", seed=0)
    obs = np.array([env.reset()[0] for _ in range(100)])
    radius = np.linalg.norm(obs[:, :2], axis=1)
    assert radius.min() >= 0.6
    assert radius.max() <= 0.9
    assert (obs[:, :2].min(axis=0) < -0.5).all()
    assert (obs[:, :2].max(axis=0) > 0.5).all()
    np.testing.assert_array_equal(obs[:, 2:], 0)


@pytest.mark.parametrize("name", ["toy-pointmass", "toy-pointmass-episodic"])
def test_only_a_policy_that_looks_scores(name):
    rng = np.random.default_rng(0)
    length = make_env(name, seed=0).episode_length
    assert mean_return(name, lambda obs: np.zeros(2)) < 0.12 * length
    assert mean_return(name, lambda obs: rng.uniform(-1, 1, 2)) < 0.15 * length
    assert mean_return(name, lambda obs: np.full(2, 0.5)) < 0.12 * length
    assert mean_return(name, lambda obs: -5 * obs[:2] - 1.5 * obs[2:]) > 0.9 * length


def test_random_actions_end_most_episodic_episodes_early():
    env = make_env("toy-pointmass-episodic", seed=0)
    rng = np.random.default_rng(0)
    terminations = 0
    for _ in range(40):
        env.reset()
        terminated = truncated = False
        while not (terminated or truncated):
            *_, terminated, truncated, _ = env.step(rng.uniform(-1, 1, 2))
        terminations += terminated
    assert 20 < terminations < 40
