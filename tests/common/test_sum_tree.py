"""The sum tree, compared with NumPy's cumulative sum."""

from __future__ import annotations

import numpy as np
import pytest

from tdmpc2.common.replay.sum_tree import SumTree


def filled(leaves: np.ndarray) -> SumTree:
    """Return a tree with these leaves."""
    tree = SumTree(len(leaves))
    tree.set(np.arange(len(leaves)), leaves)
    return tree


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 100])
def test_finds_what_a_cumulative_sum_finds(size: int) -> None:
    """For integer leaves (exact sums), a third of them zero, and every mass."""
    rng = np.random.default_rng(size)
    leaves = rng.integers(1, 9, size) * (rng.random(size) < 0.7)
    leaves[0] += 1
    tree = filled(leaves.astype(float))
    assert tree.total == leaves.sum()
    mass = np.arange(0, leaves.sum(), 0.25)
    expected = np.searchsorted(np.cumsum(leaves), mass, side="right")
    np.testing.assert_array_equal(tree.find(mass), expected)
    np.testing.assert_array_equal(tree.get(np.arange(size)), leaves)


def test_never_finds_an_empty_leaf() -> None:
    """Not even at the end of the range, where round-off could select an empty leaf."""
    leaves = np.zeros(100)
    leaves[[3, 40, 41]] = [0.1, 0.2, 0.3]
    tree = filled(leaves)
    total = tree.total
    mass = np.array([0.0, 0.1, 0.3, np.nextafter(total, 0), total, 2 * total])
    assert set(tree.find(mass)) <= {3, 40, 41}


def test_updates_change_the_sums() -> None:
    tree = filled(np.ones(10))
    tree.set(np.array([2, 7]), np.array([5.0, 0.0]))
    assert tree.total == 13
    np.testing.assert_array_equal(tree.find(np.array([1.9, 2.0, 6.9, 7.0, 11.0])), [1, 2, 2, 3, 8])
    tree.set(np.array([], dtype=int), np.array([]))
    assert tree.total == 13


def test_the_last_of_repeated_leaves_counts() -> None:
    tree = filled(np.zeros(4))
    tree.set(np.array([1, 1, 1]), np.array([5.0, 6.0, 7.0]))
    assert tree.total == 7


def test_many_updates_leave_no_round_off_behind() -> None:
    """The tree is a pure function of its leaves: loading them gives the same bits."""
    rng = np.random.default_rng(0)
    tree = SumTree(37)
    for _ in range(300):
        rows = rng.integers(37, size=5)
        tree.set(rows, rng.random(5) ** 8)
    restored = SumTree(37)
    restored.load(tree.leaves())
    np.testing.assert_array_equal(restored.nodes, tree.nodes)
    assert tree.total == pytest.approx(tree.leaves().sum(), rel=1e-12)


def test_leaves_are_a_copy() -> None:
    tree = filled(np.ones(3))
    tree.leaves()[:] = 9.0
    assert tree.total == 3
