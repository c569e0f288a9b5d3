"""Environments of a user, registered when this module is imported; some of them are faulty."""

from __future__ import annotations

import os
import random
import threading
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete


class Line(gymnasium.Env):
    """A complete environment in ten lines: a point moves on a line towards the origin."""

    observation_space, action_space = Box(-9, 9, (1,)), Box(-2, 6, (1,))

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1)
        return np.array([self.x], np.float32), {}

    def step(self, action: np.ndarray) -> Any:
        self.x += 0.1 * (float(action[0]) - 2)
        far, near = abs(self.x) > 8, abs(self.x) < 0.1
        return np.array([self.x], np.float32), 1 - abs(self.x), far, False, {"is_success": near}


class Frame(Line):
    """The point as a dictionary of observations; the actions are a matrix."""

    observation_space: Any = Dict({"x": Box(-9, 9, (1,)), "image": Box(-1, 1, (2, 2))})
    action_space = Box(-1, 1, (2, 1))
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}

    def __init__(self, size: int = 33, render_mode: str | None = None) -> None:
        self.size, self.render_mode = size, render_mode

    def reset(self, **kwargs: Any) -> Any:
        return self.seen(super().reset(**kwargs)[0]), {}

    def step(self, action: np.ndarray) -> Any:
        obs, *others = super().step(action.ravel())
        return self.seen(obs), *others

    def seen(self, obs: np.ndarray) -> dict[str, np.ndarray]:
        return {"x": obs, "image": np.full((2, 2), 0.5, np.float32)}

    def render(self) -> np.ndarray:
        return np.full((self.size, self.size, 3), 200, np.uint8)


class Endless(Line):
    """Only the time limit ends an episode, as the code of `step` shows."""

    def step(self, action: np.ndarray) -> Any:
        obs, reward, *_ = super().step(action)
        return obs, reward, False, False, {}


class Short(Line):
    """Cuts episodes off by itself after five steps."""

    def reset(self, **kwargs: Any) -> Any:
        self.count = 0
        return super().reset(**kwargs)

    def step(self, action: np.ndarray) -> Any:
        self.count += 1
        obs, reward, *_ = super().step(action)
        return obs, reward, False, self.count == 5, {}


class Faulty(Line):
    """Does something wrong at a step of an episode and of all that follow.

    Args:
        fault: what it does.
        at: number of the step; 0 for the reset.
        episode: number of the first such episode.
    """

    def __init__(self, fault: str, at: int = 3, episode: int = 1) -> None:
        self.fault, self.at, self.sane_episodes = fault, at, episode

    def reset(self, **kwargs: Any) -> Any:
        self.count = 0
        self.sane_episodes -= 1
        obs, info = super().reset(**kwargs)
        return self.spoiled(obs, 0.0)[0], info

    def step(self, action: np.ndarray) -> Any:
        self.count += 1
        obs, reward, *others = super().step(action)
        return *self.spoiled(obs, reward), *others

    def spoiled(self, obs: np.ndarray, reward: float) -> tuple[np.ndarray, float]:
        if self.count != self.at or self.sane_episodes > 0:
            return obs, reward
        if self.fault == "raises":
            raise ZeroDivisionError("one\nline")
        if self.fault == "dies":
            os._exit(3)
        changed = {"nan": obs * np.nan, "grows": np.zeros(2, np.float32)}
        return changed.get(self.fault, obs), np.nan if self.fault == "reward" else reward


class Unseeded(Line):
    """Uses a generator that no seed controls."""

    def reset(self, **kwargs: Any) -> Any:
        super().reset(**kwargs)
        self.x = random.uniform(-1, 1)
        return np.array([self.x], np.float32), {}


class Spaces(Line):
    """Has spaces that are not supported."""

    def __init__(self, kind: str) -> None:
        spaces = {"discrete": Discrete(3), "infinite": Box(-np.inf, np.inf, (1,))}
        self.action_space = spaces.get(kind, Line.action_space)
        seen = {"image": Box(0, 255, (8, 8, 3), np.uint8), "discrete obs": Discrete(4)}
        self.observation_space = seen.get(kind, Line.observation_space)


def broken() -> gymnasium.Env:
    """Raise an error instead of making an environment."""
    raise ValueError("no such file")


OWN = {
    "Line-v0": Line,
    "ns/Frame-v0": Frame,
    "Endless-v0": Endless,
    "Short-v0": Short,
    "Faulty-v0": Faulty,
    "Unseeded-v0": Unseeded,
    "Spaces-v0": Spaces,
    "Broken-v0": broken,
}
for name, maker in OWN.items():
    gymnasium.register(name, maker, max_episode_steps=50)
gymnasium.register("Unlimited-v0", Line)


class Threaded(Endless):
    """Has a thread that only `close` ends, and without which the process does not end."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self.closed.wait)
        self.thread.start()

    def close(self) -> None:
        self.closed.set()
        self.thread.join()


gymnasium.register("Threaded-v0", Threaded, max_episode_steps=50)
