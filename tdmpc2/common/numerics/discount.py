"""TD-MPC2's rule for the discount factor."""

from __future__ import annotations


def episode_discount(
    episode_length: int, denominator: float = 5.0, least: float = 0.95, most: float = 0.995
) -> float:
    """Return the discount of TD-MPC2 for episodes of T decisions: clip((T/5 − 1)/(T/5), .95, .995).

    Args:
        episode_length: T, in decisions.
        denominator: the divisor of T, 5 in the paper.
        least: lower bound.
        most: upper bound.
    """
    fraction = episode_length / denominator
    return min(max((fraction - 1) / fraction, least), most)
