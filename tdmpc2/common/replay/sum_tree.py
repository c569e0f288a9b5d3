"""Sum tree for sampling in proportion to priority, vectorized over the batch."""

from __future__ import annotations

import numpy as np


class SumTree:
    """Complete binary tree whose inner nodes are the sums of their two children.

    Inner nodes are recomputed from their children and never updated by differences. The tree is
    therefore a pure function of its leaves: restoring the leaves restores it bit for bit.

    Args:
        size: number of leaves.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.depth = max(int(size - 1).bit_length(), 1)
        self.first_leaf = 1 << self.depth
        self.nodes = np.zeros(2 * self.first_leaf)

    @property
    def total(self) -> float:
        """Sum of all leaves."""
        return float(self.nodes[1])

    @property
    def largest(self) -> float:
        """The largest leaf."""
        return float(self.nodes[self.first_leaf : self.first_leaf + self.size].max())

    def get(self, index: np.ndarray) -> np.ndarray:
        """Return the values of leaves."""
        return self.nodes[self.first_leaf + index]

    def set(self, index: np.ndarray, value: np.ndarray) -> None:
        """Set leaves and update the sums above them; for repeated leaves the last value counts."""
        node = self.first_leaf + np.asarray(index)
        self.nodes[node] = value
        for _ in range(self.depth):
            node = np.unique(node >> 1)
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1]

    def find(self, mass: np.ndarray) -> np.ndarray:
        """Return, for each mass in [0, total), the first leaf whose cumulative sum exceeds it.

        If the masses are uniform in [0, total), leaves are sampled in proportion to their values.
        """
        node = np.ones(len(mass), dtype=np.int64)
        mass = np.array(mass, dtype=np.float64)
        for _ in range(self.depth):
            left = 2 * node
            left_sum = self.nodes[left]
            # Round-off may place a mass at the end of the range; never enter an empty right child.
            right = (mass >= left_sum) & (self.nodes[left + 1] > 0)
            mass -= np.where(right, left_sum, 0.0)
            node = left + right
        return node - self.first_leaf

    def leaves(self) -> np.ndarray:
        """Return a copy of all leaves."""
        return self.nodes[self.first_leaf : self.first_leaf + self.size].copy()

    def load(self, leaves: np.ndarray) -> None:
        """Set all leaves and recompute the tree."""
        self.nodes[self.first_leaf : self.first_leaf + self.size] = leaves
        for level in range(self.depth - 1, -1, -1):
            start = 1 << level
            children = self.nodes[2 * start : 4 * start]
            self.nodes[start : 2 * start] = children[0::2] + children[1::2]
