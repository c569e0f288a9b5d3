"""Draws a figure of your own from the records: `python -m point_study.figure RUNS FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from analysis.records.load import load


def draw(runs: Path, file: Path) -> None:
    """Draw the return of each run at each evaluation, one color for each method and variant."""
    table = load(runs).table
    returns = table[table["metric"] == "episode_return"]
    fig, ax = plt.subplots(figsize=(5, 3))
    for number, (series, rows) in enumerate(returns.groupby(["method", "variant"])):
        for place, (_, run) in enumerate(rows.groupby("seed")):
            label = " ".join(series) if place == 0 else None
            ax.plot(run["step"], run["value"], color=f"C{number}", label=label)
    ax.set(xlabel="env steps", ylabel="return")
    ax.legend()
    fig.tight_layout()
    fig.savefig(file)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
