"""The paper's custom walker tasks: walk and run backwards."""

from __future__ import annotations

from functools import partial

from dm_control.rl import control
from dm_control.suite import walker
from dm_control.utils import rewards

_CONTROL_TIMESTEP = 0.025  # seconds, as in the suite
_STAND_HEIGHT = 1.2  # meters
_FLOOR = 500  # meters to each side of the start, so that the floor extends behind it


class BackwardsWalker(walker.PlanarWalker):
    """dm_control's walker, rewarded for moving in the direction of negative x."""

    def get_reward(self, physics: walker.Physics) -> float:
        """Return stand * (5 * move + 1) / 6 with stand = (3 * standing + upright) / 4.

        `move` is linear in the backward speed: 0 at rest, 1 from the target speed on.
        """
        standing = rewards.tolerance(
            physics.torso_height(), bounds=(_STAND_HEIGHT, float("inf")), margin=_STAND_HEIGHT / 2
        )
        upright = (1 + physics.torso_upright()) / 2
        stand = (3 * standing + upright) / 4
        move = rewards.tolerance(
            physics.horizontal_velocity(),
            bounds=(-float("inf"), -self._move_speed),
            margin=self._move_speed / 2,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        return stand * (5 * move + 1) / 6


def _environment(random: int, *, move_speed: float) -> control.Environment:
    physics = walker.Physics.from_xml_string(*walker.get_model_and_assets())
    # The size matters only for rendering: for contacts, the floor is an infinite plane.
    physics.named.model.geom_size["floor", "x"] = _FLOOR
    task = BackwardsWalker(move_speed, random=random)
    return control.Environment(physics, task, control_timestep=_CONTROL_TIMESTEP)


TASKS = {
    "walk_backwards": partial(_environment, move_speed=1),
    "run_backwards": partial(_environment, move_speed=8),
}
