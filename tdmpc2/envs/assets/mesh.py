"""Convex hulls and Wavefront files, byte-identical on every machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.spatial import ConvexHull

DIGITS = 6  # decimals of coordinates in meters


def rounded(points: np.ndarray) -> np.ndarray:
    """Return coordinates as they are written to files, without negative zeros."""
    return np.round(points, DIGITS) + 0.0


def convex_hull(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the vertices and outward triangles of the convex hull.

    The points are rounded first, so that the last bits of sines and cosines, which depend on
    the machine, cannot change the hull.

    Args:
        points: `(N, 3)` in meters.

    Returns:
        Vertices `(V, 3)` and triangles `(F, 3)`, indices from 0.
    """
    points = rounded(points)
    hull = ConvexHull(points)
    corners = points[hull.simplices]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inward = (normals * hull.equations[:, :3]).sum(axis=1) < 0
    triangles = np.where(inward[:, None], hull.simplices[:, ::-1], hull.simplices)
    return points[hull.vertices], np.searchsorted(hull.vertices, triangles)


def coordinates(keyword: str, rows: np.ndarray) -> Iterable[str]:
    """Yield lines such as `v 0.100000 0.200000 0.300000`."""
    for row in rows:
        yield " ".join([keyword, *(f"{value:.{DIGITS}f}" for value in row)])


def write_hulls(path: Path, pieces: Sequence[np.ndarray]) -> None:
    """Write the convex hull of each piece as a separate object of a Wavefront file.

    Args:
        path: path of the file.
        pieces: points `(N, 3)` of each piece, in meters.
    """
    lines, first = [], 1
    for index, points in enumerate(pieces):
        vertices, triangles = convex_hull(points)
        lines += [f"o hull_{index}", *coordinates("v", vertices)]
        lines += [f"f {a} {b} {c}" for a, b, c in triangles + first]
        first += len(vertices)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
