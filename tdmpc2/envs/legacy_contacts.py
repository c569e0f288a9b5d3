"""Restore the contact physics of MuJoCo < 3.5, with which the published results were obtained."""

from __future__ import annotations

import mujoco
import numpy as np


def restore_legacy_invweight(model: mujoco.MjModel) -> tuple[str, ...]:
    """Restore the zeros in `body_invweight0` that MuJoCo >= 3.5 overwrites.

    `body_invweight0` holds two values per body: the inverse weight against translation and
    against rotation. The translational value of a body that can only spin about its own
    center is zero, and so is the rotational value of a body that can only slide. MuJoCo 3.5
    began to replace such a zero by the other value, which softens the contacts of spinning
    bodies (the finger of dm_control, the dial of Meta-World). Call once, right after the
    model is loaded: resets do not change the model.

    Args:
        model: a compiled model; edited in place.

    Returns:
        Names of the bodies that were changed; empty with older MuJoCo.
    """
    data = mujoco.MjData(model)  # new data, so that the Jacobians are those of the rest pose
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    translational, rotational = np.zeros((2, 3, model.nv))
    changed = []
    for body in range(1, model.nbody):
        weights = model.body_invweight0[body]
        # A replaced zero is an exact copy of the other value; unequal values were both computed.
        if weights[0] == 0 or weights[0] != weights[1]:
            continue
        mujoco.mj_jacBodyCom(model, data, translational, rotational, body)
        for half, jacobian in enumerate((translational, rotational)):
            if np.abs(jacobian).max() < 1e-9:
                weights[half] = 0.0
                changed.append(model.body(body).name)
                break
    return tuple(changed)
