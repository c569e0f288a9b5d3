"""Error rates of the exit code of `analysis/reproduce.py`, simulated on the published curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from analysis.records.evaluations import is_success
from analysis.records.load import load_curves
from analysis.records.run_reader import PAPER_EPISODES
from analysis.records.sources import PUBLISHED
from analysis.stats.equivalence import LEVEL, mean_over_tasks, p_values, quantile, welch
from analysis.stats.least_variance import binomial_variance, lower_quartile
from analysis.stats.margins import domain_margin, level_for_loss, smallest_margin
from analysis.stats.multiplicity import directed, holm, level_shares
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import LAST_EVALUATIONS, RULES
from tdmpc2.common.system.config_checks import require

Domain = tuple[str, str]
"""Method and domain."""
PUBLISHED_SEEDS = 3


@dataclass(frozen=True)
class Study:
    """Simulated comparisons of one domain, one per study.

    Attributes:
        value: difference of the means in points, `(num_studies,)`.
        error: its standard error, `(num_studies,)`.
        freedom: its degrees of freedom, `(num_studies,)`.
        margin: equivalence margin, `(num_studies,)`.
        decides: whether the published seeds can settle the margin, `(num_studies,)`.
        need: level at which a loss is found (`margins.level_for_loss`), `(num_studies,)`.
    """

    value: np.ndarray
    error: np.ndarray
    freedom: np.ndarray
    margin: np.ndarray
    decides: np.ndarray
    need: np.ndarray


def pools(published: Path) -> dict[Domain, tuple[bool, np.ndarray]]:
    """Return the last evaluations of the published seeds of every method and domain.

    Args:
        published: folder of the released curves.

    Returns:
        Whether scores are success rates; and scores in points, `(num_tasks, num_seeds,
        num_evaluations)`.

    Raises:
        UserError: the folder has no curves, or those of the tasks of a method differ in number.
    """
    curves = ScoreCurves(load_curves(published, PUBLISHED).select(obs="state"))
    require(len(curves) > 0, f"published={published}: has no curves (<method>/<task>.csv)")
    found: dict[Domain, tuple[bool, np.ndarray]] = {}
    for (method, domain), members in curves.runs.groupby(["method", "domain"]):
        success = is_success(members["score"].iloc[0])
        found[str(method), str(domain)] = (success, pool_of(curves, members))
    return found


def pool_of(curves: ScoreCurves, members: pd.DataFrame) -> np.ndarray:
    """Return the last evaluations of seeds in points, `(num_tasks, num_seeds, num_evaluations)`.

    Args:
        curves: the released curves.
        members: rows of `curves.runs`, at least one, of one method.

    Raises:
        UserError: the tasks have different numbers of seeds or evaluations.
    """
    found = {}
    for task, own in members.groupby("task"):
        rows = own.index.to_numpy()
        steps = curves.common_grid(rows)[-LAST_EVALUATIONS:]
        found[task] = 100 * curves.values(rows, steps, RULES["linear"], normalized=True)
    method, first = members["method"].iloc[0], next(iter(found))
    for task, scores in found.items():
        require(
            scores.shape == found[first].shape,
            f"published=: the simulation needs as many seeds and evaluations of {method} on {task} "
            f"as on {first}",
        )
    return np.stack([*found.values()])


def simulate(
    success: bool, pool: np.ndarray, method: str, num_seeds: int, studies: int, seed: int
) -> Study:
    """Return simulated comparisons of one domain in which both sides are equal.

    Args:
        success: whether scores are success rates.
        pool: scores in points, `(num_tasks, num_seeds, num_evaluations)`.
        method: name of the method.
        num_seeds: number of our seeds.
        studies: number of studies.
        seed: seed of the random generator.
    """
    rng = np.random.default_rng(seed)
    ours, theirs = (
        drawn(pool, (studies, len(pool), count), rng) for count in (num_seeds, PUBLISHED_SEEDS)
    )
    if success:
        episodes = LAST_EVALUATIONS * PAPER_EPISODES
        least = (binomial_variance(ours, episodes), binomial_variance(theirs, episodes))
    else:
        pooled = lower_quartile(np.var(theirs, axis=-1, ddof=1))[:, None]
        least = (pooled, pooled)
    found = mean_over_tasks(*welch(ours, theirs, least))
    variances = np.maximum(np.var(theirs, axis=-1, ddof=1), least[1])
    counts = np.full(len(pool), PUBLISHED_SEEDS)
    margins = [domain_margin(method, m, None) for m in smallest_margin(variances, counts)]
    bounds, decides = (np.array(column) for column in zip(*margins, strict=True))
    needs = level_for_loss(variances, counts, np.full(len(pool), num_seeds))
    return Study(*found, bounds, decides, needs)


def drawn(pool: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return scores of drawn runs, of the given shape.

    Args:
        pool: result of `pool_of`.
        shape: `(..., num_tasks, num_runs)`.
        rng: random generator.
    """
    num_tasks, num_seeds, num_evaluations = pool.shape
    which = rng.integers(num_seeds, size=shape)[..., None]
    when = rng.integers(num_evaluations, size=(*shape, LAST_EVALUATIONS))
    return pool[np.arange(num_tasks)[:, None, None], which, when].mean(axis=-1)


def exit_codes(studies: Sequence[Study], losses: Sequence[float]) -> np.ndarray:
    """Return the exit code of each study, `(num_studies,)`.

    Args:
        studies: the domains of the gate.
        losses: true loss in points of each domain.
    """
    value = np.stack([study.value - loss for study, loss in zip(studies, losses, strict=True)])
    error, freedom, margin, decides, need = (
        np.stack([getattr(study, name) for study in studies])
        for name in ("error", "freedom", "margin", "decides", "need")
    )
    equivalent = np.abs(value) + quantile(1 - LEVEL, freedom) * error < margin
    raw = directed(p_values(value, error, freedom), value)
    adjusted = np.stack(
        [
            holm(p, level_shares(np.where(settled, n, np.inf), LEVEL))
            for p, n, settled in zip(raw.T, need.T, decides.T, strict=True)
        ],
        axis=1,
    )
    significant = ~equivalent & (adjusted < LEVEL)
    worse = (significant & (value < 0) & decides).any(axis=0)
    settled = (equivalent | significant | ~decides).all(axis=0) & decides.any(axis=0)
    return np.where(worse, 1, np.where(settled, 0, 3))


def gate_tables(published: Path, studies: int, seeds: Sequence[int] = (3, 5, 10)) -> str:
    """Return the error rates of the exit code as text.

    Args:
        published: folder of the released curves.
        studies: number of simulated studies.
        seeds: numbers of our seeds.
    """
    found = pools(published)
    parts = []
    for count in seeds:
        gate = {
            domain: simulate(success, pool, domain[0], count, studies, place)
            for place, (domain, (success, pool)) in enumerate(found.items())
        }
        parts.append(_equal_table(gate, count, studies))
        parts.append(_loss_table(gate, count))
    return "\n\n".join(parts)


def _equal_table(gate: Mapping[Domain, Study], count: int, studies: int) -> str:
    """Return how often each exit code occurs if all agents are equal to the published ones."""
    methods = sorted({method for method, _ in gate})
    rows = []
    for name, chosen in [*((method, [method]) for method in methods), ("all methods", methods)]:
        own = [study for (method, _), study in gate.items() if method in chosen]
        codes = exit_codes(own, [0.0] * len(own))
        rows.append([name, *(f"{100 * np.mean(codes == code):.1f}" for code in (0, 1, 3))])
    head = f"Equal agents, {count} seeds of ours, {studies:,} studies: exit code, percent"
    return f"{head}\n{tabulate(rows, ['methods', '0', '1', '3'])}"


def _loss_table(gate: Mapping[Domain, Study], count: int) -> str:
    """Return how often a loss in one domain of one method ends with exit code 1."""
    rows = []
    for lost in gate:
        alone = {domain: study for domain, study in gate.items() if domain[0] == lost[0]}
        cells = []
        for own in (alone, gate):
            for loss in (5.0, 10.0):
                losses = [loss if domain == lost else 0.0 for domain in own]
                cells.append(f"{100 * np.mean(exit_codes([*own.values()], losses) == 1):.1f}")
        study = gate[lost]
        settled = f"{100 * np.mean(study.decides):.0f}"
        rows.append([*lost, f"{np.median(study.margin):.1f}", settled, *cells])
    head = f"Exit code 1 in percent if one domain of one method has lost points, {count} seeds"
    columns = ["method", "domain", "margin", "settled %", "-5", "-10", "of four: -5", "-10"]
    return f"{head}\n{tabulate(rows, columns)}"
