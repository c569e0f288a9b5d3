"""Build the stand-in YCB objects: ten whose scans MyoSuite contains, one convex hull each."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.assets.asset_set import YCB_LIST
from tdmpc2.envs.assets.folders import package_folder
from tdmpc2.envs.assets.mesh import coordinates, rounded, write_hulls

_NOTE = """Ten objects of the YCB Object and Model Set (www.ycbbenchmarks.com, CC BY 4.0), as packed
in MyoSuite (simhive/YCB_sim, Apache-2.0). Changes: turned about z, centered, one convex hull each.
Stand-ins: NOT the objects of ManiSkill2's PickSingleYCB.
"""


class _Object(NamedTuple):
    """An object's parameters in ManiSkill2.

    Attributes:
        yaw: rotation about z, in radians, that minimizes the bounding box of the scan.
        scale: scale of the object in the task.
        density: density in kg/m³.
    """

    yaw: float
    scale: float = 1.0
    density: float = 1000.0


_OBJECTS = {
    "002_master_chef_can": _Object(-0.1859, scale=0.7),
    "003_cracker_box": _Object(0.0038, density=50.0),
    "004_sugar_box": _Object(0.0304, density=50.0),
    "005_tomato_soup_can": _Object(-0.3354),
    "006_mustard_bottle": _Object(0.4267),
    "007_tuna_fish_can": _Object(0.6161, scale=0.8),
    "008_pudding_box": _Object(-0.4816, scale=0.8, density=50.0),
    "009_gelatin_box": _Object(-0.2293, density=50.0),
    "010_potted_meat_can": _Object(-0.0461),
    "035_power_drill": _Object(-0.0222),
}


class _Scan(NamedTuple):
    """A textured mesh: vertices `(V, 3)`, texture `(V, 2)`, triangles `(F, 3)` from 0."""

    vertices: np.ndarray
    texture: np.ndarray
    triangles: np.ndarray


def write_standins(folder: Path) -> None:
    """Write the stand-in YCB objects.

    Args:
        folder: folder that becomes `mani_skill2_ycb`.

    Raises:
        UserError: MyoSuite is not installed or lacks the files.
    """
    scans = package_folder("myosuite") / "simhive" / "YCB_sim"
    info = {}
    for name, facts in _OBJECTS.items():
        try:
            scan = _read_scan(scans / "meshes" / f"{name}.msh")
            model = folder / "models" / name
            model.mkdir(parents=True)
            shutil.copyfile(scans / "textures" / f"{name}.png", model / "texture_map.png")
        except FileNotFoundError as error:
            raise UserError(
                f"{error.filename} is missing: install the pinned version of myosuite"
            ) from None
        vertices = _framed(scan.vertices, facts.yaw)
        write_hulls(model / "collision.obj", [vertices])
        _write_textured(model, scan._replace(vertices=vertices))
        info[name] = {
            "bbox": {"min": vertices.min(0).tolist(), "max": vertices.max(0).tolist()},
            "scales": [facts.scale],
            "density": facts.density,
        }
    write_json(folder / YCB_LIST, info)
    (folder / "LICENSE-and-source.txt").write_text(_NOTE, encoding="utf-8")


def _read_scan(path: Path) -> _Scan:
    """Read MuJoCo's binary mesh format: four counts, vertices, normals, texture, triangles."""
    data = path.read_bytes()
    num_vertices, num_normals, num_texture, num_triangles = np.frombuffer(data, "<i4", 4)
    assert num_texture == num_vertices, f"{path}: one texture coordinate per vertex is expected"
    texture_at = 16 + 12 * (num_vertices + num_normals)
    triangles_at = texture_at + 8 * num_texture
    return _Scan(
        np.frombuffer(data, "<f4", 3 * num_vertices, 16).reshape(-1, 3).astype(float),
        np.frombuffer(data, "<f4", 2 * num_texture, texture_at).reshape(-1, 2).astype(float),
        np.frombuffer(data, "<i4", 3 * num_triangles, triangles_at).reshape(-1, 3),
    )


def _framed(vertices: np.ndarray, yaw: float) -> np.ndarray:
    """Return vertices `(V, 3)` in ManiSkill2's frame: turned about z and centered in the box."""
    x, y, z = vertices.T
    # Written out, because a matrix product may round differently on another processor.
    cos, sin = math.cos(yaw), math.sin(yaw)
    turned = np.stack([x * cos - y * sin, x * sin + y * cos, z], axis=1)
    return rounded(turned - (turned.max(0) + turned.min(0)) / 2)


def _write_textured(model: Path, scan: _Scan) -> None:
    """Write the files for rendering; physics does not read them."""
    texture = np.stack([scan.texture[:, 0], 1 - scan.texture[:, 1]], axis=1)
    lines = ["mtllib textured.mtl", *coordinates("v", scan.vertices)]
    lines += [*coordinates("vt", texture), "usemtl material_0"]
    lines += [f"f {a}/{a} {b}/{b} {c}/{c}" for a, b, c in scan.triangles + 1]
    (model / "textured.obj").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (model / "textured.mtl").write_text(
        "newmtl material_0\nmap_Kd texture_map.png\n", encoding="utf-8"
    )
