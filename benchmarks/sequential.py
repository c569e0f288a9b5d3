"""Simulate studies that stop when their claims are decided, against studies with all seeds.

Every study has the same claims, "the variant scores lower", on the three tasks of the paper's
ablations. Scores are Gaussian with the same spread on both sides or, with published=DIR, drawn from
the released curves: a run is one of the three released seeds of its task, and its score the mean of
five of the last five evaluations of that seed, drawn with replacement. The fixed design has the
seeds of the last look, and the same levels and correction for several claims. Both use moderated
variances; the usual variance of a task is that of all series, of decided claims too.

The last table is of claims that a variant equals a base with three seeds, as against=published
makes them.

Columns: false or supported: share of the claims (per claim) and of the studies (any claim) that end
as "supported", with the upper 95 % bound; fixed: the same with all seeds; seeds: mean on each side.
`out` is written after each row: the counts that its shares are computed from.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from checks import check_file, check_folder
from tabulate import tabulate

from ablations.specs import ABLATIONS, FIG9
from analysis.stats.ablation_claims import MARGIN, Expected
from analysis.stats.equivalence import LEVEL, mean_over_tasks
from analysis.stats.group_sequential import (
    CONTRADICTED,
    FUTILE,
    LOOKS,
    SUPPORTED,
    Design,
    Found,
    run_study,
)
from analysis.stats.least_variance import lower_quartile, tied_variance
from analysis.stats.moderated_variances import moderated_welch
from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.common.system.config_checks import Settings, require, setting
from tdmpc2.envs.tasks import get_suite

SPREADS = (3.0, 6.0, 12.0)
LOSSES = (0.0, 5.0, 10.0)
NUM_TASKS, BASE_SEEDS = 3, 3
CHUNK = 2000
Draw = Callable[[np.random.Generator, int, int, int], np.ndarray]
"""Draw scores of studies, `(studies, series, tasks, seeds)`."""


@dataclass(frozen=True)
class Options(Settings):
    """Options of the command."""

    published: Path | None = setting(None, "folder of the released curves, for their scores too")
    studies: int = setting(20_000, "simulated studies", low=1000, high=1_000_000)
    looks: str = setting(",".join(map(str, LOOKS)), "seeds on each side after each look")
    exponent: float = setting(Design.exponent, "of the spending function", low=0.1, high=10.0)
    against_exponent: float = setting(
        Design.against_exponent, "the same for contradictions", low=0.1, high=10.0
    )
    futility: float = setting(Design.futility, "see `Design`", low=0.0, high=0.5)
    out: Path | None = setting(None, "also write everything as JSON")


@dataclass
class Counts:
    """Sums over simulated studies."""

    claims: int = 0
    studies: int = 0
    supported: int = 0
    any_supported: int = 0
    contradicted: int = 0
    futile: int = 0
    seeds: float = 0.0
    fixed: int = 0
    any_fixed: int = 0


def parse(arguments: Sequence[str]) -> tuple[Options, Design]:
    """Return the options, and the design that they describe.

    Raises:
        UserError: an invalid option.
    """
    from sweeps.studies.study import parse_looks

    options = cli.parse_options(arguments, Options)
    check_folder("published", options.published)
    check_file("out", options.out)
    design = Design(
        parse_looks(options.looks),
        exponent=options.exponent,
        against_exponent=options.against_exponent,
        futility=options.futility,
    )
    return options, design


def main(arguments: Sequence[str]) -> int:
    """Print the tables and return the exit code.

    Raises:
        UserError: an invalid option, or a folder without the curves that are needed.
    """
    options, design = parse(arguments)
    family = sum(one.figure == FIG9 and one.expected is not None for one in ABLATIONS)
    sources: dict[str, Draw] = {f"spread {spread:g}": _gaussian(spread) for spread in SPREADS}
    if options.published is not None:
        sources["released curves"] = _released(options.published)
    found: list[dict[str, Any]] = []
    for expected in ("lower", "same"):
        for claims in (1, family):
            _print_table(design, sources, expected, claims, options, found)
    against = replace(
        design, claim_level=LEVEL, family_level=LEVEL, against_level=LEVEL, base_seeds=BASE_SEEDS
    )
    _print_table(against, sources, "same", 1, options, found)
    return 0


def _print_table(
    design: Design,
    sources: Mapping[str, Draw],
    expected: Expected,
    claims: int,
    options: Options,
    found: list[dict[str, Any]],
) -> None:
    """Simulate and print one table.

    Args:
        design: looks and error rates.
        sources: sources of scores by name.
        expected: what the claims expect.
        claims: claims of each study.
        options: number of studies, and the file to write.
        found: rows of all tables as values of JSON; those of this one are appended.
    """
    rows = []
    for name, draw in sources.items():
        for loss in LOSSES:
            counts = simulate(design, draw, claims, loss, expected, options.studies)
            rows.append(_row(name, loss, counts, design))
            case = {"expected": expected, "claims_of_a_study": claims, "scores": name, "loss": loss}
            found.append({**case, "base_seeds": design.base_seeds, **asdict(counts)})
            if options.out is not None:
                write_json(options.out, {"options": asdict(options), "rows": found})
    base = f", base with {design.base_seeds} seeds" if design.base_seeds else ""
    print(f"\nClaim '{expected}', {claims} claims{base}, {options.studies:,} studies, percent")
    head = ["scores", "loss", "supported", "any", "contradicted", "futile", "seeds"]
    print(tabulate(rows, [*head, "% of fixed", "fixed: supported", "any"]), flush=True)


def simulate(
    design: Design, draw: Draw, claims: int, loss: float, expected: Expected, studies: int
) -> Counts:
    """Simulate studies in which every variant has the same true loss.

    Args:
        design: looks and error rates.
        draw: source of the scores.
        claims: claims of each study; they share the runs of the base.
        loss: true loss of each variant, in points.
        expected: what the claims expect.
        studies: number of studies.
    """
    rng, counts = np.random.default_rng(0), Counts()
    fixed = replace(design, looks=design.looks[-1:])
    kinds: list[Expected | None] = [expected] * claims
    for start in range(0, studies, CHUNK):
        number = min(CHUNK, studies - start)
        scores = draw(rng, number, claims + 1, design.looks[-1])
        base, variants = scores[:, :1], scores[:, 1:] - loss
        found = [
            _found(design, variants[..., :seeds], base[..., : design.base_seeds or seeds])
            for seeds in design.looks
        ]
        decisions, looks = run_study(design, found, kinds, MARGIN)
        whole, _ = run_study(fixed, found[-1:], kinds, MARGIN)
        counts.claims += decisions.size
        counts.studies += number
        counts.supported += int((decisions == SUPPORTED).sum())
        counts.any_supported += int((decisions == SUPPORTED).any(1).sum())
        counts.contradicted += int((decisions == CONTRADICTED).sum())
        counts.futile += int((decisions == FUTILE).sum())
        counts.seeds += float(np.array(design.looks)[looks].sum())
        counts.fixed += int((whole == SUPPORTED).sum())
        counts.any_fixed += int((whole == SUPPORTED).any(1).sum())
    return counts


def _found(design: Design, ours: np.ndarray, theirs: np.ndarray) -> Found:
    """Return the differences of claims that share a base, as `decisions.gap_of` for returns."""
    own, base = (np.var(side, -1, ddof=1) for side in (ours, theirs))
    usual = np.concatenate([own, base], axis=1).mean(axis=1, keepdims=True)
    sides = np.concatenate([own, np.broadcast_to(base, own.shape)], axis=-1)
    smallest = lower_quartile(sides)[..., None]
    theirs = np.broadcast_to(theirs, (*ours.shape[:-1], theirs.shape[-1]))
    pairs = ((ours, theirs), (theirs, ours))
    least_ours, least_theirs = (
        np.maximum(smallest, tied_variance(side, other, design.tied_within))
        for side, other in pairs
    )
    prior = design.prior_of(ours.shape[1] + 1)
    gaps = moderated_welch(ours, theirs, usual, prior, (least_ours, least_theirs))
    return Found(*mean_over_tasks(*gaps))


def _row(name: str, loss: float, counts: Counts, design: Design) -> list[object]:
    """Return a row of the table; rates with the upper 95 % bound of the simulation.

    Args:
        name: source of the scores.
        loss: true loss in points.
        counts: result of the simulation.
        design: looks of the studies.
    """
    seeds = counts.seeds / counts.claims
    shares = (
        (counts.supported, counts.claims),
        (counts.any_supported, counts.studies),
    )
    bounded = [
        f"{100 * k / n:.2f} (≤ {100 * upper_bound(k, counts.studies, n):.2f})" for k, n in shares
    ]
    return [
        name,
        f"{loss:g}",
        *bounded,
        f"{100 * counts.contradicted / counts.claims:.1f}",
        f"{100 * counts.futile / counts.claims:.1f}",
        f"{seeds:.2f}",
        f"{100 * seeds / design.looks[-1]:.0f}",
        f"{100 * counts.fixed / counts.claims:.2f}",
        f"{100 * counts.any_fixed / counts.studies:.2f}",
    ]


def upper_bound(count: int, studies: int, total: int) -> float:
    """Return the upper 95 % bound of a rate (Clopper-Pearson, one-sided).

    Claims of one study count as one observation, so their events may be a fraction of it.

    Args:
        count: number of events.
        studies: number of independent studies.
        total: number of claims or studies that the events are counted in.
    """
    from scipy.stats import beta

    events = count / total * studies
    return float(beta.ppf(0.95, events + 1, studies - events)) if count < total else 1.0


def _gaussian(spread: float) -> Draw:
    """Return a source of Gaussian scores."""

    def draw(rng: np.random.Generator, studies: int, series: int, seeds: int) -> np.ndarray:
        return spread * rng.standard_normal((studies, series, NUM_TASKS, seeds))

    return draw


def _released(published: Path) -> Draw:
    """Return a source of the released scores of TD-MPC2 on the tasks of the ablations.

    Raises:
        UserError: the folder lacks curves of these tasks, or their numbers differ.
    """
    from gate_errors import drawn, pool_of

    from analysis.records.load import load_curves
    from analysis.records.sources import PUBLISHED
    from analysis.stats.ragged_curves import ScoreCurves

    tasks = [task.name for task in get_suite("ablation")]
    records = load_curves(published, PUBLISHED)
    curves = ScoreCurves(records.select(methods=["tdmpc2"], tasks=tasks, obs="state"))
    missing = ", ".join(task for task in tasks if task not in {*curves.runs["task"]})
    require(not missing, f"published={published}: has no curves of tdmpc2 on {missing}")
    pool = pool_of(curves, curves.runs)

    def draw(rng: np.random.Generator, studies: int, series: int, seeds: int) -> np.ndarray:
        return drawn(pool, (studies, series, len(pool), seeds), rng)

    return draw


def usage() -> str:
    """Return the text of `--help`."""
    return f"{__doc__}\n{cli.describe_fields(Options)}"


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
