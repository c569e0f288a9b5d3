"""The paper's custom cheetah tasks."""

from __future__ import annotations

from functools import partial

from dm_control.rl import control
from dm_control.suite import cheetah
from dm_control.utils import rewards

_RUN_SPEED = 10  # meters per second, as in the suite
_BACKWARDS_SPEED = 0.8 * _RUN_SPEED
_ONE_FOOT_SPEED = 0.6 * _RUN_SPEED
_JUMP_SPEED = 0.5  # meters per second; fastest horizontal speed with full reward
_FLOOR = 200  # meters to each side of the start, so that the floor extends behind it
_HEIGHT = 1.2  # meters; target of a raised foot and of the torso
_FEET = ("bfoot", "ffoot")


def _height(physics: cheetah.Physics, body: str) -> float:
    return physics.named.data.xpos[body, "z"]


def _height_reward(height: float) -> float:
    return rewards.tolerance(height, bounds=(_HEIGHT, float("inf")), margin=_HEIGHT / 2)


class BackwardsCheetah(cheetah.Cheetah):
    """dm_control's cheetah, rewarded for running in the direction of negative x."""

    def get_reward(self, physics: cheetah.Physics) -> float:
        """Return a reward linear in the backward speed: 0 at rest, 1 from 8 m/s on."""
        return rewards.tolerance(
            physics.speed(),
            bounds=(-float("inf"), -_BACKWARDS_SPEED),
            margin=_BACKWARDS_SPEED,
            value_at_margin=0,
            sigmoid="linear",
        )


class OneFootCheetah(cheetah.Cheetah):
    """A cheetah that runs forward on one foot, with the other foot and the torso held high.

    Args:
        raised_foot: the body that must leave the ground.
        random: seed of the task's generator.
    """

    def __init__(self, raised_foot: str, random: int) -> None:
        super().__init__(random=random)
        self._raised_foot = raised_foot

    def get_reward(self, physics: cheetah.Physics) -> float:
        """Return up * (5 * run + 1) / 6 with up = (3 * foot + 2 * torso) / 5.

        `foot` and `torso` reward heights of at least 1.2 m; `run` is linear in the forward speed:
        0 at rest, 1 from 6 m/s on.
        """
        foot = _height_reward(_height(physics, self._raised_foot))
        torso = _height_reward(_height(physics, "torso"))
        up = (3 * foot + 2 * torso) / 5
        run = rewards.tolerance(
            physics.speed(),
            bounds=(_ONE_FOOT_SPEED, float("inf")),
            margin=_ONE_FOOT_SPEED,
            value_at_margin=0,
            sigmoid="linear",
        )
        return up * (5 * run + 1) / 6


class JumpingCheetah(cheetah.Cheetah):
    """A cheetah that jumps on the spot."""

    def get_reward(self, physics: cheetah.Physics) -> float:
        """Return the mean over the two feet of (5 * up + stay) / 6.

        `up` rewards a mean height of torso and foot of at least 1.2 m; `stay` is 1 up to a
        horizontal speed of 0.5 m/s and falls linearly to 0 at 1 m/s.
        """
        stay = rewards.tolerance(
            physics.speed(),
            bounds=(-_JUMP_SPEED, _JUMP_SPEED),
            margin=_JUMP_SPEED,
            value_at_margin=0,
            sigmoid="linear",
        )
        torso = _height(physics, "torso")
        ups = [_height_reward((torso + _height(physics, foot)) / 2) for foot in _FEET]
        return sum((5 * up + stay) / 6 for up in ups) / len(ups)


def _environment(random: int, *, task: type[cheetah.Cheetah], **kwargs: str) -> control.Environment:
    physics = cheetah.Physics.from_xml_string(*cheetah.get_model_and_assets())
    # The size matters only for rendering: for contacts, the floor is an infinite plane.
    physics.named.model.geom_size["ground", "x"] = _FLOOR
    return control.Environment(physics, task(random=random, **kwargs))


TASKS = {
    "run_backwards": partial(_environment, task=BackwardsCheetah),
    "run_front": partial(_environment, task=OneFootCheetah, raised_foot="bfoot"),
    "run_back": partial(_environment, task=OneFootCheetah, raised_foot="ffoot"),
    "jump": partial(_environment, task=JumpingCheetah),
}
