"""Nominal levels of the looks of a group-sequential test that spends its level as planned."""

from __future__ import annotations

import functools

import numpy as np

_GRID = 400
"""Nodes of each quadrature."""


@functools.cache
def nominal_levels(
    level: float, fractions: tuple[float, ...], exponent: float
) -> tuple[float, ...]:
    """Return the one-sided nominal level of each look, such that the level is spent as planned.

    With S_k = √f_k Z_k a Brownian motion at the times f_k, the boundary of look k is the value that
    S_k exceeds, without an earlier crossing, with the probability spent at that look.

    Args:
        level: probability of any crossing if nothing differs.
        fractions: share of the seeds at each look, ascending to 1.
        exponent: ρ of the spending function level · f^ρ.
    """
    from scipy import optimize, special  # here, so that --help is fast

    spent = level * np.array(fractions) ** exponent
    out = [float(spent[0])]
    bound = -np.sqrt(fractions[0]) * float(special.ndtri(spent[0]))
    nodes, weights = _grid(bound, np.sqrt(fractions[0]))
    density = _normal(nodes / np.sqrt(fractions[0])) / np.sqrt(fractions[0])
    for k in range(1, len(fractions)):
        step = np.sqrt(fractions[k] - fractions[k - 1])
        masses, goal = weights * density, float(spent[k] - spent[k - 1])

        def excess(
            value: float,
            masses: np.ndarray = masses,
            nodes: np.ndarray = nodes,
            step: float = step,
            goal: float = goal,
        ) -> float:
            return float(masses @ special.ndtr((nodes - value) / step)) - goal

        bound = float(optimize.brentq(excess, -10.0, 10.0, xtol=1e-10))
        out.append(float(special.ndtr(-bound / np.sqrt(fractions[k]))))
        following, weights_k = _grid(bound, np.sqrt(fractions[k]))
        density = _normal((following[:, None] - nodes) / step) @ masses / step
        nodes, weights = following, weights_k
    return tuple(out)


def _grid(upper: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of Gauss–Legendre quadrature below a boundary."""
    lower = -8.0 * scale
    nodes, weights = np.polynomial.legendre.leggauss(_GRID)
    half = (upper - lower) / 2
    return lower + half * (nodes + 1), half * weights


def _normal(value: np.ndarray) -> np.ndarray:
    """Return the density of the standard normal distribution."""
    return np.exp(-(value**2) / 2) / np.sqrt(2 * np.pi)
