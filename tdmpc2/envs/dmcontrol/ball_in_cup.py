"""The paper's custom ball-in-cup task: spin the ball around the cup."""

from __future__ import annotations

import numpy as np
from dm_control.rl import control
from dm_control.suite import ball_in_cup, base
from dm_control.utils import rewards

_CONTROL_TIMESTEP = 0.02  # seconds, as in the suite
_DISTANCE = 0.5  # meters between ball and target
_SPEED = 6  # meters per second
_ANYWHERE_PROBABILITY = 0.1


class SpinningBall(ball_in_cup.BallInCup):
    """dm_control's ball in cup, rewarded for a ball that moves fast outside the cup."""

    def initialize_episode(self, physics: ball_in_cup.Physics) -> None:
        """Sample the initial position of the ball: in the cup, or anywhere with probability 0.1."""
        anywhere = self.random.rand() < _ANYWHERE_PROBABILITY
        while True:
            physics.named.data.qpos["ball_x"] = self.random.uniform(-0.2, 0.2)
            physics.named.data.qpos["ball_z"] = self.random.uniform(0.2, 0.5)
            physics.after_reset()
            if physics.data.ncon == 0 and (anywhere or physics.in_target()):
                break
        # The direct parent class would sample the position again.
        base.Task.initialize_episode(self, physics)

    def get_reward(self, physics: ball_in_cup.Physics) -> float:
        """Return (distance + 2 * speed) / 3 of the ball, or 0 while it is in the cup.

        `distance` (to the target) and `speed` are linear: 0 at 0, 1 from 0.5 m and 6 m/s on.
        """
        distance = rewards.tolerance(
            np.linalg.norm(physics.ball_to_target()),
            bounds=(_DISTANCE, float("inf")),
            margin=_DISTANCE / 2,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        speed = rewards.tolerance(
            np.linalg.norm(physics.named.data.qvel[["ball_x", "ball_z"]]),
            bounds=(_SPEED, float("inf")),
            margin=_SPEED / 2,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        return (1 - physics.in_target()) * (distance + 2 * speed) / 3


def _spin(random: int) -> control.Environment:
    physics = ball_in_cup.Physics.from_xml_string(*ball_in_cup.get_model_and_assets())
    task = SpinningBall(random=random)
    return control.Environment(physics, task, control_timestep=_CONTROL_TIMESTEP)


TASKS = {"spin": _spin}
