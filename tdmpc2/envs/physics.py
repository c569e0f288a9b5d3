"""The paper's physics: what newer MuJoCo releases changed, written back into compiled models.

The paper's experiments ran on MuJoCo 2.3.1 (DMControl) and earlier. Each row of `REPAIRS` undoes
one later change in the tasks that it affects. `docs/fidelity.md` lists what cannot be restored.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # tables and plans need neither a simulator nor NumPy
    import mujoco
    import numpy as np

Physics = Literal["paper", "simulator"]
OLD_ARRAYS = Path(__file__).with_name("mujoco_2_3_1.npz")
"""Arrays of MuJoCo 2.3.1: `dog/<array>` of the whole model, `thermos/<array>` of one body."""

_INERTIA = ("body_mass", "body_inertia", "body_ipos", "body_iquat")


@dataclass(frozen=True)
class Repair:
    """One change of the simulator that is undone.

    Attributes:
        tasks: names of the affected tasks; `*` matches any characters.
        changed: what changed in the compiled model or in the simulator.
        cause: why.
        since: first release with the change.
        restore: edits a compiled model in place; None if the adapter restores it.
        exact: whether the affected quantities equal those of MuJoCo 2.3.1 to rounding. Otherwise
            the repair moves toward it, and other changes remain.
    """

    tasks: tuple[str, ...]
    changed: str
    cause: str
    since: str
    restore: Callable[[mujoco.MjModel], None] | None
    exact: bool = False

    def applies_to(self, task: str) -> bool:
        """Whether a task is affected."""
        return any(fnmatch.fnmatchcase(task, pattern) for pattern in self.tasks)


def restore_dog(model: mujoco.MjModel) -> None:
    """Write the dog's masses, inertias and tail springs of MuJoCo 2.3.1 into a model.

    The total mass becomes 10.81 kg instead of 10.24 kg.

    Args:
        model: the compiled dog; edited in place.

    Raises:
        ValueError: the model is not the dog of the suite.
    """
    old = {key: value for key, value in _old_arrays().items() if key.startswith("dog/")}
    if model.nbody != len(old["dog/body_mass"]) or model.nv != len(old["dog/dof_damping"]):
        raise ValueError("the model is not dm_control's dog")
    for key, value in old.items():
        getattr(model, key.partition("/")[2])[:] = value
    _set_constants(model)


def restore_thermos(model: mujoco.MjModel) -> None:
    """Write the thermos' inertia of MuJoCo 2.3.1 into a model (3.330 kg instead of 3.268 kg).

    Args:
        model: a compiled model of `mw-stick-push` or `mw-stick-pull`; edited in place.
    """
    import numpy as np

    (thermos,) = np.flatnonzero(model.body_parentid == model.body("object").id)
    for name in _INERTIA:
        getattr(model, name)[thermos] = _old_arrays()[f"thermos/{name}"]
    _set_constants(model)


def restore_inverse_weights(model: mujoco.MjModel) -> None:
    """Recompute `body_invweight0` and `dof_invweight0` as MuJoCo did before 3.0.

    At `qpos0`, with the Jacobians J_t and J_r (3, nv) of the body's center of mass, a body gets
    (tr(J_t M⁻¹ J_tᵀ) / 3, tr(J_r M⁻¹ J_rᵀ) / 3), and a degree of freedom the mean of M⁻¹'s
    diagonal over the axes of its joint. These scale the softness of contacts and joint limits.

    Args:
        model: a compiled model; edited in place.
    """
    import mujoco
    import numpy as np

    data = mujoco.MjData(model)  # at qpos0
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_makeM(model, data)
    mujoco.mj_factorM(model, data)
    jacobians, solved = np.zeros((2, 3, model.nv)), np.zeros((3, model.nv))
    for body in range(1, model.nbody):
        if model.body_weldid[body] == 0:  # static
            continue
        mujoco.mj_jacBodyCom(model, data, *jacobians, body)
        for half, jacobian in enumerate(jacobians):
            mujoco.mj_solveM(model, data, solved, jacobian)
            model.body_invweight0[body, half] = np.sum(jacobian * solved) / 3
    inverse = np.zeros((model.nv, model.nv))
    mujoco.mj_solveM(model, data, inverse, np.eye(model.nv))
    diagonal = np.diagonal(inverse)
    for kind, first in zip(model.jnt_type, model.jnt_dofadr, strict=True):
        free, ball = mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtJoint.mjJNT_BALL
        sizes = (3, 3) if kind == free else (3,) if kind == ball else (1,)
        for size in sizes:
            model.dof_invweight0[first : first + size] = diagonal[first : first + size].mean()
            first += size


def disable_native_collision(model: mujoco.MjModel) -> None:
    """Use the convex collision detection of MuJoCo before 3.3.

    Args:
        model: a compiled model; edited in place.
    """
    import mujoco

    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_NATIVECCD


_SLIDING = ("cup-*", "mw-plate-slide*")
_FILLED = (
    *("finger-*", "cup-*", "mw-dial-turn", "mw-button-press*", "mw-coffee-*", "mw-drawer-*"),
    *("mw-hammer", "mw-handle-*", "mw-window-*", "mw-stick-*"),
)
_CONVEX = (
    *("mw-coffee-*", "mw-hammer", "mw-peg-unplug-side", "mw-pick-out-of-hole", "mw-pick-place"),
    *("mw-pick-place-wall", "mw-push", "mw-push-wall", "mw-reach", "mw-reach-wall"),
    *("mw-box-close", "myo-*"),
)
BUTTONS = ("mw-button-press-topdown", "mw-button-press-topdown-wall")
_MESH_MASS = "mass of a mesh: volume of the mesh instead of the box with its inertia"

REPAIRS: tuple[Repair, ...] = (
    Repair(("dog-*",), "body_mass and five more arrays", _MESH_MASS, "3.0.1", restore_dog, True),
    Repair(("mw-stick-*",), "inertia of the thermos", _MESH_MASS, "3.0.1", restore_thermos),
    Repair(
        (*_SLIDING, "dog-*"),
        "body_invweight0, dof_invweight0",
        "1 / mass for bodies with slide joints only, instead of a mean over three axes",
        "3.0.0",
        restore_inverse_weights,
        True,
    ),
    Repair(
        _FILLED,
        "body_invweight0",
        "zeros (bodies that only spin or only slide) filled with the other half",
        "3.5.0",
        restore_inverse_weights,
        True,
    ),
    Repair(
        ("dog-*",), "contacts", "native convex collision", "3.3.0", disable_native_collision, True
    ),
    Repair(_CONVEX, "contacts", "native convex collision", "3.3.0", disable_native_collision),
    Repair(
        BUTTONS,
        "success within 0.024 instead of 0.02",
        "Meta-World 3.0",
        "Meta-World 3.0",
        None,
        True,
    ),
)


@cache
def repairs_of(task: str) -> tuple[Repair, ...]:
    """The repairs that affect a task, in the order in which they are made.

    Args:
        task: name in the task table.
    """
    return tuple(repair for repair in REPAIRS if repair.applies_to(task))


def recorded_physics(spec: Mapping[str, Any]) -> str:
    """Return the physics of a recorded run.

    Args:
        spec: content of its `spec.json`.

    Returns:
        `paper` or `simulator`; `0.4.0` if the record states none although a repair affects it.
    """
    affected = any(repairs_of(task) for task in spec.get("tasks") or [spec["task"]])
    return spec.get("protocol", {}).get("physics", "0.4.0" if affected else "paper")


def restore(model: mujoco.MjModel, task: str) -> None:
    """Make the repairs of a task.

    Args:
        model: its compiled model; edited in place. Resets keep the edits.
        task: name in the task table.
    """
    for function in dict.fromkeys(repair.restore for repair in repairs_of(task)):
        if function is not None:
            function(model)


@lru_cache(maxsize=1)
def _old_arrays() -> dict[str, np.ndarray]:
    import numpy as np

    with np.load(OLD_ARRAYS) as file:
        return dict(file)


def _set_constants(model: mujoco.MjModel) -> None:
    """Recompute what the compiler derives from masses, but not the scales used for rendering."""
    import mujoco

    stat = model.stat
    kept = stat.extent, stat.center.copy(), stat.meansize
    mujoco.mj_setConst(model, mujoco.MjData(model))
    stat.extent, stat.center[:], stat.meansize = kept
