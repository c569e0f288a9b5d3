"""Estimate the error rates of verdicts by simulation.

Without an option, verdicts on ablations: Gaussian scores with the same spread on both sides; the
paper's Figure 9 has three tasks and three seeds. The verdicts use Welch's intervals; a second table
shows the error rates of the stratified bootstrap's intervals.

With published=DIR, the exit code of `analysis/reproduce.py`: runs are drawn from the published
curves. A run is one of the three published seeds of its task, and its score the mean of five of the
last five evaluations of that seed, drawn with replacement. The published side is drawn likewise.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from checks import check_folder
from tabulate import tabulate

from analysis.stats.ablation_claims import MARGIN, OPEN
from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import Settings, setting

SPREADS = (3.0, 6.0, 12.0)
SEEDS = (3, 5, 10)
TASKS = 3
REPEATS = 4000
BOOTSTRAPS = 1000


@dataclass(frozen=True)
class Options(Settings):
    """Options of the command."""

    published: Path | None = setting(
        None, "folder of the released curves; default: verdicts on ablations"
    )
    studies: int = setting(REPEATS, "simulated studies", low=100, high=100_000)


def parse(arguments: Sequence[str]) -> Options:
    """Return the options.

    Raises:
        UserError: an invalid option.
    """
    options = cli.parse_options(arguments, Options)
    check_folder("published", options.published)
    return options


def main(arguments: Sequence[str]) -> int:
    """Print the tables and return the exit code.

    Raises:
        UserError: an invalid option, or a folder without the curves that are needed.
    """
    options = parse(arguments)
    if options.published is not None:
        from gate_errors import gate_tables

        print(gate_tables(options.published, options.studies))
        return 0
    from ablations.verdicts import error_rates

    rows = []
    for spread in SPREADS:
        for seeds in SEEDS:
            none, half, loss, twice = (
                error_rates(-x * MARGIN, spread, seeds, TASKS, "lower", repeats=options.studies)
                for x in (0, 0.5, 1, 2)
            )
            same = error_rates(0.0, spread, seeds, TASKS, "same", repeats=options.studies)
            cells = (
                none.get("supported", 0),
                none.get("contradicted", 0),
                half.get("supported", 0),
                loss.get("supported", 0),
                loss.get("contradicted", 0),
                twice.get("supported", 0),
                same.get("supported", 0),
                same.get("contradicted", 0),
                none.get(OPEN, 0),
            )
            rows.append([f"{spread:g}", seeds, *(f"{100 * cell:.1f}" for cell in cells)])
    head = ["spread", "seeds", "0: sup.", "0: contr.", "-2.5: sup.", "-5: sup.", "-5: contr."]
    print(
        f"Percent of {options.studies:,} studies of {TASKS} tasks; the claim is 'lower', "
        f"margin {MARGIN:g}"
    )
    print(tabulate(rows, [*head, "-10: sup.", "same, 0: sup.", "same, 0: contr.", "0: open"]))
    print("\nPercent of intervals that exclude zero although nothing differs (nominal 5 %):")
    print(
        tabulate([[n, f"{100 * bootstrap_errors(n):.1f}"] for n in SEEDS], ["seeds", "bootstrap"])
    )
    return 0


def bootstrap_errors(num_seeds: int) -> float:
    """Return the share of stratified-bootstrap intervals that exclude zero for equal sides."""
    import numpy as np

    from analysis.stats.bootstrap import Bootstrap, difference

    rng = np.random.default_rng(0)
    strata = np.repeat(np.arange(TASKS), num_seeds)
    wrong = 0
    for _ in range(BOOTSTRAPS):
        sides = [(rng.standard_normal((len(strata), 1)), strata) for _ in range(2)]
        effect = difference("mean", sides[0], sides[1], Bootstrap(reps=2000))
        wrong += not effect.low[0] <= 0 <= effect.high[0]
    return wrong / BOOTSTRAPS


def usage() -> str:
    """Return the text of `--help`."""
    return f"{__doc__}\n{cli.describe_fields(Options)}"


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
