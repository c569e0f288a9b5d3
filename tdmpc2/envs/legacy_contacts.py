"""Contact physics of MuJoCo before 3.5, which the published results rest on."""

from __future__ import annotations

import mujoco
import numpy as np


def restore_legacy_invweight(model: mujoco.MjModel) -> tuple[str, ...]:
    """Puts back the zeros that MuJoCo >= 3.5 overwrites in `body_invweight0`.

    `body_invweight0` holds, per body, the inverse weight against translation and
    against rotation. A body that can only spin about its own center has zero
    translational inverse weight, and one that can only slide zero rotational;
    MuJoCo 3.5 began to fill such a zero with the other half, which softens the
    contacts of the spinning bodies (dm_control's finger, Meta-World's dial). Call
    once, right after the model is loaded: resets do not touch the model.

    Args:
        model: a compiled model; edited in place.

    Returns:
        Names of the bodies that were changed; empty with older MuJoCo.
    """
    data = mujoco.MjData(model)  # of its own, so the Jacobians are those of the rest pose
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    translational, rotational = np.zeros((2, 3, model.nv))
    changed = []
    for body in range(1, model.nbody):
        weights = model.body_invweight0[body]
        # A filled half is an exact copy; halves that differ were both computed.
        if weights[0] == 0 or weights[0] != weights[1]:
            continue
        mujoco.mj_jacBodyCom(model, data, translational, rotational, body)
        for half, jacobian in enumerate((translational, rotational)):
            if np.abs(jacobian).max() < 1e-9:
                weights[half] = 0.0
                changed.append(model.body(body).name)
                break
    return tuple(changed)
