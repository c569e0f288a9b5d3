"""Rules that make incomplete score curves comparable, for the option `rule=`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from analysis.records.evaluations import averaged
from analysis.records.source_options import SourceOptions
from tdmpc2.common.system.config_checks import setting
from tdmpc2.common.system.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from analysis.stats.ragged_curves import Curve

NEAR = 0.1
"""A run counts as evaluated at a horizon if its last evaluation is at most this fraction before it.
"""
LAST_EVALUATIONS = 5
"""Number of last evaluations that the score of a verdict or a study averages."""


def is_near(last: ArrayLike, horizon: ArrayLike) -> np.ndarray:
    """Return whether a last evaluation represents a horizon: within `NEAR`, and not step 0."""
    last, horizon = np.asarray(last), np.asarray(horizon)
    return (last >= (1 - NEAR) * horizon) & ((last > 0) | (horizon == 0))


@dataclass(frozen=True)
class Rule:
    """Score of a run at a step at which the record has no unique value.

    Attributes:
        name: value of the option `rule=`.
        repeats: value used for a step that is recorded more than once.
        between: value used between, before and after recorded steps; "none" fills nothing in.
        what: description of the rule.
    """

    name: str
    repeats: Literal["mean", "first", "last"]
    between: Literal["hold", "linear", "none"]
    what: str

    def resolved(self, steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the steps in ascending order without repetitions, and their values.

        Args:
            steps: `(num_points,)`, in the order of the file.
            values: `(num_points,)`.
        """
        if self.repeats == "mean":
            return averaged(steps, values)
        order = slice(None, None, -1 if self.repeats == "last" else 1)
        unique, first = np.unique(steps[order], return_index=True)
        return unique, values[order][first]

    def at(self, curve: Curve, wanted: np.ndarray) -> np.ndarray:
        """Return the run's values at `wanted`, NaN if the rule gives none.

        Args:
            curve: the curve of one run.
            wanted: steps in the unit of the curve, `(num_steps,)`.
        """
        steps, values = self.resolved(curve.steps, curve.values)
        last = np.searchsorted(steps, wanted, side="right") - 1
        recorded = (last >= 0) & (steps[last] == wanted)
        if self.between == "none":
            return np.where(recorded, values[last], np.nan)
        if self.between == "hold":
            filled = values[np.maximum(last, 0)]
        else:
            filled = np.interp(wanted, steps, values)
        return np.where(wanted <= max(curve.carried_to, steps[-1]), filled, np.nan)


RULES = {
    rule.name: rule
    for rule in (
        Rule(
            "hold",
            "mean",
            "hold",
            "Repeated steps are averaged; a missing step takes the last value before it (at the "
            "start, the first value), and an ended run keeps its last value.",
        ),
        Rule(
            "hold_first",
            "first",
            "hold",
            "As hold, but a repeated step takes its first value.",
        ),
        Rule(
            "hold_last",
            "last",
            "hold",
            "As hold, but a repeated step takes its last value.",
        ),
        Rule(
            "linear",
            "mean",
            "linear",
            "Repeated steps are averaged; a missing step is interpolated linearly, and an ended "
            "run keeps its last value.",
        ),
        Rule(
            "available",
            "mean",
            "none",
            "Repeated steps are averaged; a step includes only the seeds that recorded it, and "
            "nothing is filled in.",
        ),
    )
}
DEFAULT_RULE = "hold"


def rule_setting() -> Any:
    """Return the option `rule` of commands that compute scores."""
    names = " | ".join(RULES)
    return setting(DEFAULT_RULE, f"treatment of missing and repeated evaluations: {names}")


@dataclass(frozen=True)
class ScoreOptions(SourceOptions):
    """Options of commands that compute scores from several sources."""

    rule: str = rule_setting()


def get_rule(name: str) -> Rule:
    """Return the rule of that name.

    Raises:
        UserError: If there is none.
    """
    if name not in RULES:
        raise UserError(f"unknown rule '{name}'{did_you_mean(name, RULES)}")
    return RULES[name]
