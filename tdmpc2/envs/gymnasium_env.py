"""Adapter of registered Gymnasium environments."""

from __future__ import annotations

import contextlib
import copy
import importlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.user_code import (
    described,
    message_of,
    place_in_user_code,
    place_of_definition,
)
from tdmpc2.envs.base import ControlStep, DecisionEnv
from tdmpc2.envs.gymnasium_tasks import arguments_of
from tdmpc2.envs.quiet import quiet
from tdmpc2.envs.returned import ReturnedError, flag, items, reward_of, success_of, vector
from tdmpc2.envs.tasks import Task

SUCCESS_KEYS = ("success", "is_success")
NO_LIMIT = -1  # for gymnasium.make: no wrapper that limits the time
STEP = ("observation", "reward", "terminated", "truncated", "info")
RESET = ("observation", "info")


def make_gymnasium(recipe: str, where: str, **more: Any) -> Any:
    """Make a registered environment.

    Args:
        recipe: id of the environment, and its arguments after `?`.
        where: label of the task in messages.
        **more: further arguments of `gymnasium.make`.

    Raises:
        UserError: the environment is unknown, lacks a package, or cannot be made.
    """
    env_id, _, query = recipe.partition("?")
    module, colon, _ = env_id.rpartition(":")
    try:
        with quiet():
            if colon:
                importlib.import_module(module)
            arguments = {**arguments_of(query), **more}
            return gymnasium.make(env_id, disable_env_checker=True, **arguments)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{where}: needs the module {error.name}, which cannot be imported; install it, or add "
            "its folder to PYTHONPATH"
        ) from error
    except gymnasium.error.UnregisteredEnv as error:
        how = "use the id of a registered one"
        if not colon:
            how += (
                f", or name the module that registers it, task=my_module:{env_id}; other processes "
                "make it too, so registering it in a notebook is not enough"
            )
        raise UserError(f"{where}: {message_of(error)}; {how}") from error
    except SystemExit as error:
        raise UserError(
            f"{where}: ends the process when it is made ({described(error)}); put commands of its "
            'module below if __name__ == "__main__":'
        ) from error
    except Exception as error:
        raise UserError(f"{where}: cannot be made: {described(error)}") from error


def check_spaces(env: Any, where: str) -> tuple[int, int]:
    """Return the flat dimensions of observations and actions.

    Args:
        env: a Gymnasium environment.
        where: label of the task in messages.

    Raises:
        UserError: the spaces are not supported.
    """
    actions, observed = (getattr(env, f"{name}_space", None) for name in ("action", "observation"))
    missing = "action_space" if actions is None else "observation_space"
    if actions is None or observed is None:
        raise UserError(f"{where}: has no {missing}; set it in the class or its __init__")
    if not isinstance(actions, Box) or not np.issubdtype(actions.dtype, np.floating):
        raise UserError(
            f"{where}: has actions {actions}; only continuous actions (Box of floats) are supported"
        )
    low, high = actions.low, actions.high
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise UserError(
            f"{where}: actions must have finite bounds, low < high, not {actions}; wrap it in "
            "gymnasium.wrappers.RescaleAction or register it with bounds"
        )
    parts = list(observed.spaces.values()) if isinstance(observed, Dict) else [observed]
    boxes = [part for part in parts if isinstance(part, Box)]
    if not boxes or len(boxes) < len(parts):
        raise UserError(
            f"{where}: has observations {observed}; only a Box and a flat Dict of boxes are "
            "supported"
        )
    if any(box.dtype == np.uint8 and len(box.shape) > 1 for box in boxes):
        raise UserError(f"{where}: observes images; only vectors are supported")
    dims = sum(int(np.prod(box.shape)) for box in boxes), int(np.prod(actions.shape))
    if not all(dims):
        raise UserError(
            f"{where}: has {dims[0]} observations and {dims[1]} actions; at least one of each is "
            "needed"
        )
    return dims


class GymnasiumEnv(DecisionEnv):
    """A registered environment; its seed at each episode comes from one generator of this object.

    Every episode therefore depends on the state of that generator alone, in any environment whose
    randomness is controlled by `reset(seed=)`. Actions in [-1, 1] are rescaled to the environment's
    bounds. The time limit is that of the task instead of the environment's. Success is read from
    `info`: `task.success_key`; if that is one of `SUCCESS_KEYS`, the other one where it is missing.

    Args:
        task: a task of `gymnasium_tasks`.
        seed: seed of the generator.
        render: whether `render` will be called.

    Raises:
        UserError: the environment cannot be made, or its spaces are not those of the task.
    """

    def __init__(self, task: Task, *, seed: int, render: bool = False) -> None:
        super().__init__(task)
        self._where = f"task '{task.name}'"
        more = {"render_mode": "rgb_array"} if render else {}
        self._env = make_gymnasium(task.env_id, self._where, max_episode_steps=NO_LIMIT, **more)
        try:
            if check_spaces(self._env, self._where) != (task.obs_dim, task.action_dim):
                self._fail("its spaces are not the same each time it is made")
        except UserError:
            self.close()
            raise
        self._space = copy.deepcopy(self._env.action_space)
        low, high = (b.astype(np.float64) for b in (self._space.low, self._space.high))
        self._center, self._half = high / 2 + low / 2, high / 2 - low / 2  # cannot overflow
        self._rng = np.random.default_rng(seed)

    def generator_state(self) -> dict[str, Any]:
        """Return the state of the NumPy generator, a nested dict of names and integers."""
        return dict(self._rng.bit_generator.state)

    def set_generator_state(self, state: dict[str, Any]) -> None:
        """Restore a state that `generator_state` returned."""
        self._rng.bit_generator.state = state

    def render(self) -> np.ndarray:  # type: ignore[override]
        """Render the scene, `(H, W, 3)` uint8 with even H and W, as videos need them."""
        with self._blamed("render()"):
            frame = np.asarray(self._env.render())
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            self._fail(f"render() returned an array {frame.shape} of {frame.dtype}, not an image")
        height, width, _ = frame.shape
        return np.ascontiguousarray(frame[: height - height % 2, : width - width % 2])

    def close(self) -> None:
        """Close the environment; an error of its code is only reported, as no result needs it."""
        try:
            with self._blamed("close()"):
                self._env.close()
        except UserError as error:
            print(f"warning: {error}", file=sys.stderr)

    def _seed(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def _begin_episode(self) -> np.ndarray:
        with self._blamed("reset()"):
            returned = self._env.reset(seed=int(self._rng.integers(2**31)))
            obs, _ = items(returned, RESET)
            flat = self._flat(obs)
        if self._env.action_space != self._space:
            self._fail("its action space has changed", place=self._place("reset()"))
        return flat

    def _control_step(self, action: np.ndarray) -> ControlStep:
        scaled = self._center + self._half * action.reshape(self._space.shape)
        bounded = scaled.astype(self._space.dtype).clip(self._space.low, self._space.high)
        with self._blamed("step()"):
            obs, reward, *ends, info = items(self._env.step(bounded), STEP)
            terminated, truncated = map(flag, ends, STEP[2:4])
            outcome = ControlStep(
                self._flat(obs), reward_of(reward), terminated, self._success(info), truncated
            )
        if (terminated or truncated) and not self.task.episodic:
            self._fail(
                "step() ended an episode; use episodic=true in the table of the task",
                place=self._place("step()"),
            )
        return outcome

    def _success(self, info: Any) -> float:
        """Return the success in an info; 0 if the info has none and the task requires none."""
        if not isinstance(info, Mapping):
            raise ReturnedError(f"an info of type {type(info).__name__}, not a dict")
        own = self.task.success_key
        for key in (own, *SUCCESS_KEYS) if own in SUCCESS_KEYS else (own,):
            if info.get(key) is not None:
                return success_of(info[key], f"info['{key}']")
        if self.task.metric == "success" or own not in SUCCESS_KEYS:
            raise ReturnedError(f"an info without '{own}'")
        return 0.0

    def _flat(self, obs: Any) -> np.ndarray:
        """Return an observation as one vector `(O,)` after checking it."""
        space = self._env.observation_space
        named = {"": space}
        if isinstance(space, Dict):
            named = space.spaces
            if not (isinstance(obs, Mapping) and named.keys() <= obs.keys()):
                got = sorted(map(str, obs)) if isinstance(obs, Mapping) else type(obs).__name__
                raise ReturnedError(f"the observation {got}, not a dict of {sorted(named)}")
        parts = [vector(obs[k] if k else obs, box.shape, k) for k, box in named.items()]
        flat = np.concatenate(parts)
        if flat.size != self.task.obs_dim:
            raise ReturnedError(f"an observation of {flat.size} numbers: its space has changed")
        return flat

    def _fail(self, what: str, *, place: str | None = None) -> NoReturn:
        shown = f" ({place})" if place else ""
        raise UserError(f"{self._where}: {what}{shown}; correct the environment, then run again")

    def _place(self, call: str) -> str | None:
        """Return the place of `step` or another function in the user's code, if it is there."""
        layer: Any = self._env
        while layer is not None:
            place = place_of_definition(getattr(type(layer), call.removesuffix("()"), None))
            if place is not None:
                return place
            layer = getattr(layer, "env", None)
        return None

    @contextlib.contextmanager
    def _blamed(self, call: str) -> Iterator[None]:
        """Turn any error of the environment into one line that names the place in its code."""
        try:
            yield
        except UserError:
            raise
        except ReturnedError as error:
            self._fail(f"{call} returned {error}", place=self._place(call))
        except (Exception, SystemExit) as error:
            place = place_in_user_code(error) or self._place(call)
            self._fail(f"{call} raised {type(error).__name__}: {message_of(error)}", place=place)
