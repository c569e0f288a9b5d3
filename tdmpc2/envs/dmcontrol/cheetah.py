"""Cheetah tasks of the paper that dm_control lacks."""

from __future__ import annotations

from functools import partial

from dm_control.rl import control
from dm_control.suite import cheetah
from dm_control.utils import rewards

_RUN_SPEED = 10  # meters per second, as in the suite
_BACKWARDS_SPEED = 0.8 * _RUN_SPEED
_ONE_FOOT_SPEED = 0.6 * _RUN_SPEED
_JUMP_SPEED = 0.5
_FLOOR = 200  # meters to each side, so that there is some behind the start
_HEIGHT = 1.2  # meters; of a raised foot and of the torso
_FEET = ("bfoot", "ffoot")


def _height(physics: cheetah.Physics, body: str) -> float:
    return physics.named.data.xpos[body, "z"]


def _height_reward(height: float) -> float:
    return rewards.tolerance(height, bounds=(_HEIGHT, float("inf")), margin=_HEIGHT / 2)


class BackwardsCheetah(cheetah.Cheetah):
    """The suite's cheetah, rewarded for running in the direction of negative x."""

    def get_reward(self, physics: cheetah.Physics) -> float:
        """Linear in the backward speed, full from 8 m/s on."""
        return rewards.tolerance(
            physics.speed(),
            bounds=(-float("inf"), -_BACKWARDS_SPEED),
            margin=_BACKWARDS_SPEED,
            value_at_margin=0,
            sigmoid="linear",
        )


class OneFootCheetah(cheetah.Cheetah):
    """A cheetah that runs forward on one foot, the other foot and the torso held high."""

    def __init__(self, raised_foot: str, random: int) -> None:
        """`raised_foot` is the body that must leave the ground."""
        super().__init__(random=random)
        self._raised_foot = raised_foot

    def get_reward(self, physics: cheetah.Physics) -> float:
        """Reward up * (5 * run + 1) / 6, up = (3 * foot + 2 * torso) / 5."""
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
        """Mean over the feet of (5 * up + stay) / 6, up for the mean height of torso and foot."""
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
    physics.named.model.geom_size["ground", "x"] = _FLOOR  # as drawn; contacts know no end of it
    return control.Environment(physics, task(random=random, **kwargs))


TASKS = {
    "run_backwards": partial(_environment, task=BackwardsCheetah),
    "run_front": partial(_environment, task=OneFootCheetah, raised_foot="bfoot"),
    "run_back": partial(_environment, task=OneFootCheetah, raised_foot="ffoot"),
    "jump": partial(_environment, task=JumpingCheetah),
}
