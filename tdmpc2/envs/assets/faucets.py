"""Build the stand-in faucets of TurnFaucet: Meta-World's faucet, and one made of primitives."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.assets.asset_set import STANDIN_LIST
from tdmpc2.envs.assets.folders import package_folder
from tdmpc2.envs.assets.mesh import rounded, write_hulls

_NOTE = """9001: meshes and measures of Meta-World's faucet (MIT, Farama Foundation), new layout.
9002: designed by this project. Stand-ins: NOT the 60 PartNet-Mobility faucets of the benchmark.
"""
_SCALE = 1.2  # makes both about as large as the faucets of the benchmark
_URDF = """<?xml version="1.0"?>
<robot name="faucet_{name}">
 <link name="base"/>
 <link name="link_1">
{base_visuals}
  <collision><geometry><mesh filename="convex/base.obj"/></geometry></collision>
 </link>
 <link name="link_0">
{switch_visuals}
  <collision><geometry><mesh filename="convex/switch.obj"/></geometry></collision>
 </link>
 <joint name="joint_1" type="fixed">
  <parent link="base"/><child link="link_1"/>
 </joint>
 <joint name="joint_0" type="revolute">
  <origin xyz="{origin}" rpy="0 0 0"/><axis xyz="{axis}"/>
  <parent link="link_1"/><child link="link_0"/>
  <limit lower="{low}" upper="{high}" effort="1" velocity="1"/>
 </joint>
</robot>
"""
_VISUAL = (
    '  <visual><origin xyz="{xyz}" rpy="{rpy}"/>'
    '<geometry><mesh filename="{file}"/></geometry></visual>'
)

Vector = tuple[float, float, float]
_ZERO: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class _Visual:
    """A visual mesh: its file relative to the model's folder, its position and its rotation."""

    file: str
    xyz: Vector = _ZERO
    rpy: Vector = _ZERO


@dataclass(frozen=True)
class _Faucet:
    """A faucet: a fixed base and a switch on a revolute joint.

    Attributes:
        base: the convex pieces, points `(N, 3)` in meters each.
        switch: the same, relative to the joint.
        origin: position of the joint, in meters.
        axis: axis of the joint.
        limits: limits of the joint, in radians.
        base_visuals: visual meshes; the collision pieces by default.
        switch_visuals: the same for the switch.
    """

    base: Sequence[np.ndarray]
    switch: Sequence[np.ndarray]
    origin: Vector
    axis: Vector
    limits: tuple[float, float]
    base_visuals: Sequence[_Visual] = (_Visual("convex/base.obj"),)
    switch_visuals: Sequence[_Visual] = (_Visual("convex/switch.obj"),)


def write_standins(folder: Path) -> None:
    """Write the stand-in faucets.

    Args:
        folder: folder that becomes `partnet_mobility`.

    Raises:
        UserError: Meta-World is not installed or lacks the files.
    """
    info = {}
    for name, faucet in (("9001", _metaworld_faucet()), ("9002", _drawn_faucet())):
        _write_model(folder / "dataset" / name, faucet)
        info[name] = _facts(faucet)
    _copy_visuals(folder / "dataset" / "9001" / "visual")
    (folder / STANDIN_LIST).parent.mkdir()
    write_json(folder / STANDIN_LIST, info)
    (folder / "LICENSE-and-source.txt").write_text(_NOTE, encoding="utf-8")


def _metaworld_faucet() -> _Faucet:
    """Return Meta-World's faucet: its meshes for rendering, its primitives for collisions."""
    quarter = (math.radians(90), 0.0, 0.0)
    return _Faucet(
        base=[_cylinder(0.046, 0.009, at=(0, 0, 0.009)), _cylinder(0.017, 0.044, at=(0, 0, 0.061))],
        switch=[
            _cylinder(0.012, 0.021, along=1, at=(0, -0.05, 0.001)),
            _capsule(0.017, 0.055, along=1, at=(0, -0.12, 0.001)),
            _cylinder(0.032, 0.02, at=(0, 0, 0.001)),
        ],
        origin=(0, 0, 0.124),
        axis=(0, 0, 1),
        limits=(-1.57, 1.57),
        base_visuals=[_Visual("visual/faucetbase.stl", xyz=(0, 0, 0.088))],
        switch_visuals=[
            _Visual("visual/faucethandle1.stl", xyz=(0, -0.06, 0.001), rpy=quarter),
            _Visual("visual/faucethead.stl", xyz=(0, 0, 0.001)),
            _Visual("visual/grip.obj"),
        ],
    )


def _drawn_faucet() -> _Faucet:
    """Return a spout on a column, with a lever on its side that turns about x."""
    return _Faucet(
        base=[
            _cylinder(0.05, 0.01, at=(0, 0, 0.01)),
            _cylinder(0.02, 0.09, at=(0, 0, 0.11)),
            _cylinder(0.014, 0.07, along=0, at=(-0.07, 0, 0.19)),
            _cylinder(0.014, 0.02, at=(-0.13, 0, 0.165)),
        ],
        switch=[
            _cylinder(0.018, 0.02, along=0),
            _box((0.02, 0.02, 0.13), at=(0.02, 0, 0.07)),
        ],
        origin=(0.03, 0, 0.14),
        axis=(1, 0, 0),
        limits=(-0.1, 1.4),
    )


def _copy_visuals(folder: Path) -> None:
    """Copy the visual meshes of Meta-World's faucet."""
    meshes = package_folder("metaworld") / "assets" / "objects" / "meshes" / "faucet"
    folder.mkdir()
    for name in ("faucetbase", "faucethandle1", "faucethead"):
        try:
            shutil.copyfile(meshes / f"{name}.stl", folder / f"{name}.stl")
        except FileNotFoundError as error:
            raise UserError(
                f"{error.filename} is missing: install the pinned version of metaworld"
            ) from None
    write_hulls(folder / "grip.obj", [_capsule(0.017, 0.055, along=1, at=(0, -0.12, 0.001))])


def _write_model(folder: Path, faucet: _Faucet) -> None:
    """Write a faucet in the layout of PartNet-Mobility."""
    (folder / "convex").mkdir(parents=True)
    write_hulls(folder / "convex" / "base.obj", faucet.base)
    write_hulls(folder / "convex" / "switch.obj", faucet.switch)
    low, high = faucet.limits
    text = _URDF.format(
        name=folder.name,
        base_visuals=_visuals(faucet.base_visuals),
        switch_visuals=_visuals(faucet.switch_visuals),
        origin=_vector(faucet.origin),
        axis=_vector(faucet.axis),
        low=low,
        high=high,
    )
    (folder / "mobility_cvx.urdf").write_text(text, encoding="utf-8")


def _visuals(visuals: Sequence[_Visual]) -> str:
    return "\n".join(
        _VISUAL.format(file=v.file, xyz=_vector(v.xyz), rpy=_vector(v.rpy)) for v in visuals
    )


def _vector(values: Vector) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def _facts(faucet: _Faucet) -> dict[str, Any]:
    """Return a faucet's entry in ManiSkill2's model list: bounding box, scale, offset and links."""
    points = np.concatenate(
        [*faucet.base, *(piece + np.array(faucet.origin) for piece in faucet.switch)]
    )
    low, high = rounded(points.min(0)), rounded(points.max(0))
    return {
        "bbox": {"min": low.tolist(), "max": high.tolist()},
        "scale": _SCALE,
        "offset": rounded(-low * _SCALE).tolist(),
        "semantics": [["link_0", "hinge", "switch"], ["link_1", "fixed", "faucet_base"]],
    }


def _ring(radius: float, height: float, *, sections: int = 24) -> np.ndarray:
    """Return the points `(sections, 3)` of a circle about z."""
    angles = [2 * math.pi * k / sections for k in range(sections)]
    return np.array([[radius * math.cos(a), radius * math.sin(a), height] for a in angles])


def _placed(points: np.ndarray, along: int, at: Vector) -> np.ndarray:
    """Return points, given about z, turned to lie about axis `along` and then moved to `at`."""
    return np.roll(points, along - 2, axis=1) + np.array(at)


def _cylinder(radius: float, half: float, *, along: int = 2, at: Vector = _ZERO) -> np.ndarray:
    """Return the points of a cylinder of half length `half` about an axis (0, 1, 2 for x, y, z)."""
    rings = [_ring(radius, -half), _ring(radius, half)]
    return _placed(np.concatenate(rings), along, at)


def _capsule(radius: float, half: float, *, along: int = 2, at: Vector = _ZERO) -> np.ndarray:
    """Return the points of a cylinder of half length `half` with round ends."""
    rings = [np.array([[0, 0, half + radius], [0, 0, -half - radius]])]
    for degrees in (0, 30, 60):
        across = radius * math.cos(math.radians(degrees))
        height = half + radius * math.sin(math.radians(degrees))
        rings += [_ring(across, height), _ring(across, -height)]
    return _placed(np.concatenate(rings), along, at)


def _box(size: Vector, *, at: Vector = _ZERO) -> np.ndarray:
    """Return the eight corners of a box with full side lengths `size`."""
    signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), axis=-1).reshape(-1, 3)
    return signs * np.array(size) / 2 + np.array(at)
