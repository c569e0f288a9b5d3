"""The paper's custom hopper task: hop backwards."""

from __future__ import annotations

from dm_control.rl import control
from dm_control.suite import hopper
from dm_control.utils import rewards

_CONTROL_TIMESTEP = 0.02  # seconds, as in the suite
_STAND_HEIGHTS = (0.6, 2)  # meters, torso above foot
_HOP_SPEED = 1  # meters per second; half of the target for hopping forwards in the suite


class BackwardsHopper(hopper.Hopper):
    """dm_control's hopper, rewarded for hopping in the direction of negative x.

    Args:
        random: seed of the task's generator.
    """

    def __init__(self, random: int) -> None:
        super().__init__(hopping=True, random=random)

    def get_reward(self, physics: hopper.Physics) -> float:
        """Return standing * hopping.

        `hopping` is linear in the backward speed: 0 at rest, 1 from 1 m/s on.
        """
        standing = rewards.tolerance(physics.height(), _STAND_HEIGHTS)
        hopping = rewards.tolerance(
            physics.speed(),
            bounds=(-float("inf"), -_HOP_SPEED),
            margin=_HOP_SPEED / 2,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        return standing * hopping


def _hop_backwards(random: int) -> control.Environment:
    physics = hopper.Physics.from_xml_string(*hopper.get_model_and_assets())
    task = BackwardsHopper(random)
    return control.Environment(physics, task, control_timestep=_CONTROL_TIMESTEP)


TASKS = {"hop_backwards": _hop_backwards}
