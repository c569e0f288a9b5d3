"""Evaluation of a batch of environments, with results that are computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tdmpc2.common.interfaces import TaskEnv
from tdmpc2.common.system.errors import DivergedError
from tdmpc2.common.training.evaluation import Evaluation, UniformPolicy, ZeroPolicy, evaluate
from tdmpc2.envs.factory import make_env


class Counter(TaskEnv):
    """Episode of a given length; reward is action + seed; success at the last step only."""

    def __init__(self, length: int, *, terminates: bool = False) -> None:
        self.episode_length, self.terminates = length, terminates
        self.action_repeat = 2
        self.decisions = 0

    def reset(self, *, seed=None, options=None):
        self.seed, self.decisions = seed, 0
        return np.array([seed, 0], dtype=np.float32), {"success": 0.0, "success_ever": 0.0}

    def step(self, action):
        assert self.decisions < self.episode_length, "stepped beyond its end"
        self.decisions += 1
        over = self.decisions == self.episode_length
        obs = np.array([self.seed, self.decisions], dtype=np.float32)
        reward = float(action[0]) + self.seed
        info = {"success": float(over), "success_ever": float(over)}
        return obs, reward, over and self.terminates, over and not self.terminates, info

    def generator_state(self):
        return None

    def set_generator_state(self, state):
        assert state is None  # it uses no random numbers


class Recorder:
    """Returns the action 0.5 and records its arguments."""

    def __init__(self) -> None:
        self.seen: list[tuple[np.ndarray, np.ndarray, bool]] = []

    def act(self, obs, *, first, explore, task=None):
        self.seen.append((obs.copy(), first.copy(), explore))
        return np.full((len(obs), 1), 0.5, dtype=np.float32)


def test_episodes_of_unequal_length_in_one_batch() -> None:
    envs = [Counter(3), Counter(1), Counter(2, terminates=True)]
    actor, pauses = Recorder(), []
    result = evaluate(actor, envs, [10, 20, 30], lambda: pauses.append(len(actor.seen)))
    assert result.returns.tolist() == [3 * 10.5, 20.5, 2 * 30.5]
    assert result.lengths.tolist() == [3, 1, 2]
    assert result.successes.tolist() == [1, 1, 1]
    assert pauses == [0, 1, 2]  # before every decision
    assert [len(obs) for obs, _, _ in actor.seen] == [3, 3, 3]  # the batch keeps its size
    assert [first.tolist() for _, first, _ in actor.seen] == [[True] * 3, [False] * 3, [False] * 3]
    assert not any(explore for _, _, explore in actor.seen)
    assert actor.seen[1][0].tolist() == [[10, 1], [20, 1], [30, 1]]


def test_figures_of_an_evaluation() -> None:
    result = Evaluation(
        returns=np.array([1.0, 2.0, 6.0]),
        successes=np.array([1.0, 0.0, 0.0]),
        successes_ever=np.array([1.0, 0.0, 1.0]),
        lengths=np.array([5, 5, 8]),
    )
    assert result.row() == {
        "episode_return": 3.0,
        "episode_return_sd": pytest.approx(7**0.5),  # ((−2)² + (−1)² + 3²) / 2
        "episode_success": pytest.approx(1 / 3),
        "episode_success_ever": pytest.approx(2 / 3),
        "episode_length": 6.0,
        "num_episodes": 3,
    }
    assert Evaluation(np.array([1.0]), np.zeros(1), np.zeros(1), np.ones(1)).sd_return == 0.0


def test_success_is_that_of_the_last_step() -> None:
    class Passing(Counter):
        def step(self, action):
            obs, reward, terminated, truncated, info = super().step(action)
            info = {"success": 1.0 - info["success"], "success_ever": 1.0}
            return obs, reward, terminated, truncated, info

    result = evaluate(Recorder(), [Passing(3)], [0])
    assert result.successes.tolist() == [0]
    assert result.successes_ever.tolist() == [1]


def test_the_first_episode_is_filmed_to_its_end() -> None:
    class Filmed(Counter):
        def render(self):
            return np.full((2, 2, 3), self.decisions, dtype=np.uint8)

    frames: list[int] = []
    evaluate(
        Recorder(),
        [Filmed(2), Filmed(4)],
        [0, 1],
        film=lambda frame: frames.append(int(frame[0, 0, 0])),
    )
    assert frames == [0, 1, 2]


def test_tasks_reach_the_actor() -> None:
    class OfTasks(Recorder):
        def act(self, obs, *, first, explore, task=None):
            assert task is not None
            tasks.append(task.tolist())
            return super().act(obs, first=first, explore=explore)

    tasks: list[list[int]] = []
    evaluate(OfTasks(), [Counter(1), Counter(2)], [0, 1], tasks=[7, 3])
    assert tasks == [[7, 3], [7, 3]]


class NaN(Recorder):
    """Returns NaN in the second environment from its second decision on."""

    def act(self, obs, *, first, explore, task=None):
        actions = super().act(obs, first=first, explore=explore)
        if len(self.seen) > 1:
            actions[1] = np.nan
        return actions


def test_a_diverged_actor_is_told_from_a_broken_one() -> None:
    with pytest.raises(DivergedError, match="non-finite action in an evaluation"):
        evaluate(NaN(), [Counter(3), Counter(3)], [0, 1])
    assert evaluate(NaN(), [Counter(3), Counter(1)], [0, 1]).lengths.tolist() == [3, 1]


def test_one_seed_per_environment() -> None:
    with pytest.raises(ValueError, match="1 seeds for 2 environments"):
        evaluate(Recorder(), [Counter(1), Counter(1)], [0])


def test_a_pause_may_stop_it() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(Recorder(), [Counter(1)], [0], stop)


def test_policies_that_learn_nothing() -> None:
    obs, first = np.zeros((1000, 4), dtype=np.float32), np.ones(1000, dtype=bool)
    assert (ZeroPolicy(2).act(obs, first=first, explore=False) == np.zeros((1000, 2))).all()
    uniform = UniformPolicy(2, seed=0).act(obs, first=first, explore=False)
    assert (uniform.dtype, uniform.shape) == (np.float32, (1000, 2))
    assert -1 <= uniform.min() < -0.99
    assert 0.99 < uniform.max() <= 1
    assert abs(uniform.mean()) < 0.1
    again = UniformPolicy(2, seed=0).act(obs, first=first, explore=False)
    assert (uniform == again).all()


def test_the_same_seeds_give_the_same_episodes() -> None:
    def run(seeds: list[int]) -> list[float]:
        envs = [make_env("toy-pointmass", seed=9) for _ in seeds]
        return evaluate(ZeroPolicy(2), envs, seeds).returns.tolist()

    assert run([1, 2, 3]) == run([1, 2, 3])
    assert run([1, 2, 3])[::-1] == run([3, 2, 1])
    assert run([1, 2, 3]) != run([4, 5, 6])
