"""Group-sequential tests: decisions after each look at the seeds so far, with error rates kept.

Tests at several looks would find differences by chance more often than one test. Each claim
therefore spends its error rate over the looks: after a fraction f of the seeds, level · f^ρ (Kim
and DeMets 1987). The nominal levels follow from the joint distribution of the estimates at all
looks (Armitage, McPherson and Rowe 1969) and apply to the p-values of Welch's t-tests. Several
claims share the level of their family by Holm's procedure: the share of a supported claim passes on
to the others, which is allowed at any look (Maurer and Bretz 2013). Stopping because a claim is
contradicted or futile never makes "supported" more frequent, so it needs no correction there.

A base whose seeds do not grow, such as published ones, adds the same error to all estimates. These
still form a Brownian motion, at the times that the precision of the difference has reached.

Differences are variant minus base in points; all arrays broadcast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from analysis.stats.ablation_claims import OPEN, Expected
from analysis.stats.alpha_spending import nominal_levels
from analysis.stats.equivalence import Difference, probability, quantile

CONTINUE, SUPPORTED, CONTRADICTED, FUTILE = "next look", "supported", "contradicted", "futile"
LOWER, HIGHER, SAME = "lower", "higher", "no difference"
POSITIVE = (SUPPORTED, LOWER, HIGHER)
"""Decisions whose share of the level passes on to the other claims."""
UNDECIDED: str = OPEN
"""Verdict after the last look on a claim that is neither supported nor contradicted."""
LOOKS = (2, 3, 5, 7, 10)
"""Default seeds on each side after each look."""


@dataclass(frozen=True)
class Design:
    """Looks and error rates of a study.

    Attributes:
        looks: seeds on each side after each look, ascending, at least 2.
        family_level: probability that any claim of the study is supported by chance.
        claim_level: probability that a claim is supported by chance; one-sided.
        against_level: probability that a true claim is contradicted; two-sided for "same".
        exponent: ρ of the spending function; larger values spend less at early looks.
        against_exponent: the same for contradictions of "lower", and for "no difference" without a
            claim.
        same_exponent: the same for the support of "same".
        futility: a claim is futile if later looks would decide it with less than this probability.
        prior_freedom: degrees of freedom of the usual variance of a task of which many series are
            known (`prior_of`).
        tied_within: largest range of the returns of one side that counts as nearly equal, as a
            share of the range of both sides (`least_variance.tied_variance`).
        base_seeds: seeds of a base that has all of them before the first look; None for a base that
            has as many as the variant at each look.
    """

    looks: tuple[int, ...] = LOOKS
    family_level: float = 0.0475
    claim_level: float = 0.0195
    against_level: float = 0.04
    exponent: float = 2.8
    against_exponent: float = 2.0
    same_exponent: float = 6.0
    futility: float = 0.05
    prior_freedom: float = 2.0
    tied_within: float = 0.15
    base_seeds: int | None = None

    @property
    def fractions(self) -> tuple[float, ...]:
        """Precision of the difference at each look as a share of that at the last look.

        The precision is the inverse variance, with equal spreads on both sides.
        """
        precision = [1 / (1 / seeds + 1 / (self.base_seeds or seeds)) for seeds in self.looks]
        return tuple(one / precision[-1] for one in precision)

    def prior_of(self, num_series: int) -> float:
        """Return the degrees of freedom of a task's usual variance (`moderated_variances.py`).

        Two series know no more of the usual variance than their own estimates, so they have 0; many
        have `prior_freedom`.

        Args:
            num_series: series whose variances the usual one averages, at least 2.
        """
        return self.prior_freedom * max(0.0, 1 - 3 / num_series)

    def level_of(self, num_open: ArrayLike) -> np.ndarray:
        """Return the level of each claim that is not yet supported (Holm).

        Args:
            num_open: number of claims of the study that are not supported.
        """
        return np.minimum(self.claim_level, self.family_level / np.maximum(num_open, 1))

    def nominal(self, level: ArrayLike, look: int, exponent: float) -> np.ndarray:
        """Return the one-sided level of the test at a look.

        Args:
            level: level of the claim over all looks, `(...,)`.
            look: index of the look.
            exponent: exponent of the spending function.
        """
        values, places = np.unique(np.asarray(level, float), return_inverse=True)
        found = [nominal_levels(float(v), self.fractions, exponent)[look] for v in values]
        return np.array(found)[places].reshape(np.shape(level))


@dataclass(frozen=True)
class Found:
    """Differences at a look, each `(...,)`.

    Attributes:
        value: variant minus base, mean over tasks, in points.
        error: standard errors.
        freedom: degrees of freedom of the errors.
    """

    value: np.ndarray
    error: np.ndarray
    freedom: np.ndarray

    @classmethod
    def of(cls, gap: Difference) -> Found:
        """Return a single difference."""
        return cls(*(np.asarray(part, float) for part in (gap.value, gap.error, gap.freedom)))

    def at_the_end(self, design: Design, look: int) -> tuple[Found, np.ndarray]:
        """Return errors and freedom with more seeds, and the error of predicting the difference.

        Args:
            design: looks.
            look: index of the present look.
        """
        now, end = (design.looks[k] - 1 for k in (look, -1))
        later = self.error * np.sqrt(design.fractions[look])
        found = Found(self.value, later, self.freedom * end / now)
        return found, np.sqrt(self.error**2 - later**2)


class Region(NamedTuple):
    """Differences that lead to a decision.

    Attributes:
        decision: the decision.
        low: difference above which it is reached, `(...,)`.
        high: difference below which it is reached, `(...,)`.
    """

    decision: str
    low: np.ndarray
    high: np.ndarray


def decide(
    design: Design,
    look: int,
    found: Found,
    expected: Expected | None,
    margin: float,
    level: ArrayLike,
) -> np.ndarray:
    """Return the decision on claims of one kind at a look, `(...,)`.

    Args:
        design: looks and error rates.
        look: index of the look.
        found: differences with the seeds of this look.
        expected: claimed score of the variant relative to the base; None for a claim in neither
            direction, whose decisions are the direction found, or "no difference".
        margin: largest difference, in points, that counts as no difference.
        level: level of each claim over all looks (`Design.level_of`).

    Returns:
        `SUPPORTED`, `CONTRADICTED`, `LOWER`, `HIGHER`, `SAME`, `FUTILE`, `CONTINUE` or, at the last
        look, `UNDECIDED`.
    """
    last = look == len(design.looks) - 1
    rest = np.full(np.shape(found.value), UNDECIDED if last else CONTINUE, dtype="U16")
    if not last:
        best = np.full(np.shape(level), design.level_of(1))
        hope = _chance_at_the_end(design, look, found, expected, margin, best)
        rest = np.where(hope < design.futility, FUTILE, rest)
    decided = rest
    for region in reversed(regions(design, look, found, expected, margin, level)):
        inside = (region.low < found.value) & (found.value < region.high)
        decided = np.where(inside, region.decision, decided)  # the first region takes precedence
    return decided


def regions(
    design: Design,
    look: int,
    found: Found,
    expected: Expected | None,
    margin: float,
    level: ArrayLike,
) -> list[Region]:
    """Return which differences lead to which decision at a look, by precedence.

    Args:
        design: looks and error rates.
        look: index of the look.
        found: errors and degrees of freedom of the differences.
        expected: as of `decide`.
        margin: as of `decide`.
        level: as of `decide`.
    """
    out = []
    for name, tests, at, rho in _rules(design, expected, margin, np.asarray(level, float)):
        width = quantile(1 - design.nominal(at, look, rho), found.freedom) * found.error
        low, high = np.full_like(width, -np.inf), np.full_like(width, np.inf)
        for side, bound in tests:
            low = np.maximum(low, bound + width) if side == "above" else low
            high = np.minimum(high, bound - width) if side == "below" else high
        out.append(Region(name, low, high))
    return out


Test = tuple[Literal["above", "below"], float]


def _rules(
    design: Design, expected: Expected | None, margin: float, level: np.ndarray
) -> list[tuple[str, list[Test], np.ndarray, float]]:
    """Return each decision with the tests that it requires, their level and its exponent."""
    rho, early = design.exponent, design.against_exponent
    against = np.full_like(level, design.against_level)
    within: list[Test] = [("above", -margin), ("below", margin)]
    if expected == "lower":
        return [
            (SUPPORTED, [("below", 0.0)], level, rho),
            (CONTRADICTED, [("above", -margin)], against, early),
        ]
    if expected == "same":
        return [
            (SUPPORTED, within, level, design.same_exponent),
            (CONTRADICTED, [("below", 0.0)], against / 2, rho),
            (CONTRADICTED, [("above", 0.0)], against / 2, rho),
        ]
    return [
        (LOWER, [("below", 0.0)], level / 2, rho),
        (HIGHER, [("above", 0.0)], level / 2, rho),
        (SAME, within, against, early),
    ]


def _chance_at_the_end(
    design: Design,
    look: int,
    found: Found,
    expected: Expected | None,
    margin: float,
    level: np.ndarray,
) -> np.ndarray:
    """Return the probability that the last look decides, if differences and spreads stay.

    The difference at the last look is predicted from the present one: its error is that of the
    seeds to come and of the present estimate.
    """
    end = len(design.looks) - 1
    later, spread = found.at_the_end(design, look)
    chance = np.zeros(np.shape(found.value))
    spread = np.where(spread > 0, spread, np.finfo(float).tiny)
    for region in regions(design, end, later, expected, margin, level):
        inside = probability((region.high - found.value) / spread, found.freedom)
        inside = inside - probability((region.low - found.value) / spread, found.freedom)
        chance = chance + np.maximum(inside, 0.0)
    return chance


def run_study(
    design: Design, found: Sequence[Found], expected: Sequence[Expected | None], margin: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Return decisions and looks of studies with several claims, each `(..., num_claims)`.

    Args:
        design: looks and error rates.
        found: differences at each look, `(..., num_claims)`.
        expected: what each claim expects, `(num_claims,)`.
        margin: margin in points, of all claims or of each.
    """
    shape = np.shape(found[0].value)
    decisions, looks = np.full(shape, CONTINUE, dtype="U16"), np.zeros(shape, int)
    for look in range(len(design.looks)):
        decisions, reached = next_look(design, look, found[look], expected, margin, decisions)
        looks[reached] = look
    return decisions, looks


def next_look(
    design: Design,
    look: int,
    found: Found,
    expected: Sequence[Expected | None],
    margin: ArrayLike,
    decisions: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the decisions after a look, and which claims were open before it.

    Claims that become supported pass their level on, so the open ones are tested again at the same
    look until no further one is supported.

    Args:
        design: looks and error rates.
        look: index of the look.
        found: differences at this look, `(..., num_claims)`.
        expected: what each claim expects.
        margin: margin in points, of all claims or of each.
        decisions: decisions after the previous look, `(..., num_claims)`.
    """
    was_open = decisions == CONTINUE
    decisions = decisions.copy()
    margins = np.broadcast_to(margin, decisions.shape[-1:])
    for _ in range(decisions.shape[-1]):
        supported = np.isin(decisions, POSITIVE)
        level = design.level_of((~supported).sum(-1, keepdims=True))
        now = np.empty_like(decisions)
        for claim, kind in enumerate(expected):
            part = Found(
                *(getattr(found, name)[..., claim] for name in ("value", "error", "freedom"))
            )
            own = float(margins[claim])
            now[..., claim] = decide(design, look, part, kind, own, level[..., 0])
        decisions = np.where(was_open & ~supported, now, decisions)
        if (np.isin(decisions, POSITIVE) == supported).all():
            break
    return decisions, was_open
