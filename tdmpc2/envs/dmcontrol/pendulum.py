"""The paper's custom pendulum task: spin."""

from __future__ import annotations

from dm_control.rl import control
from dm_control.suite import pendulum
from dm_control.utils import rewards

_SPIN_SPEED = 9  # radians per second, in either direction


class SpinningPendulum(pendulum.SwingUp):
    """dm_control's pendulum, rewarded for its angular speed."""

    def get_reward(self, physics: pendulum.Physics) -> float:
        """Return a reward linear in the angular speed: 0 at rest, 1 from 9 rad/s on."""
        return rewards.tolerance(
            abs(physics.angular_velocity()).item(),
            bounds=(_SPIN_SPEED, float("inf")),
            margin=_SPIN_SPEED / 2,
            value_at_margin=0.5,
            sigmoid="linear",
        )


def _spin(random: int) -> control.Environment:
    physics = pendulum.Physics.from_xml_string(*pendulum.get_model_and_assets())
    return control.Environment(physics, SpinningPendulum(random))


TASKS = {"spin": _spin}
