"""Table of ablations: name, changed settings, claim on the score, and source in the paper."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

from tabulate import tabulate

from analysis.stats.ablation_claims import Expected
from tdmpc2.common.run.spec import Scalar
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.task_variants import DOMAINS, TaskSwitches
from tdmpc2.envs.tasks import get_suite

Settings = dict[str, Scalar]
NO_ABLATION = {
    "model_size": "reports compare agents of one size; use --model-size for the default and its "
    "variants, or sweeps/launch.py sizes=",
    "precision": "it is how results are computed; use precision= for the default and its variants",
    "physics": "it is how tasks are simulated; use physics= for the default and its variants",
}
"""Settings that an ablation cannot change, and what to use instead."""

ACTOR, NORM, REGRESSION, ENSEMBLE = "actor", "normalization", "regression", "Q-functions"
EMBEDDING, EXTRAS, FAITHFUL = "task embedding", "extras", "faithfulness"
COMBINED, OWN = "combinations", "own"
FACTORS = (ACTOR, NORM, REGRESSION, ENSEMBLE, EMBEDDING, EXTRAS, FAITHFUL, COMBINED, OWN)
FIG9, APPENDIX_A = "Figure 9", "appendix A"


@dataclass(frozen=True)
class Ablation:
    """An ablation: a design choice that is disabled or replaced.

    Attributes:
        name: flag of `ablations/run.py`, with its value if it takes one, such as `num-q 2`.
        changes: the changed settings of TD-MPC2 or fields of `TaskSwitches`, as `key=value`
            arguments separated by spaces.
        factor: group in the report, and panel in its figures: one of `FACTORS`, or the name that a
            file for `--spec` gives.
        figure: figure or appendix of the paper; empty if the ablation is not from the paper.
        claim: claim on the variant as a sentence; empty without a claim.
        expected: claimed score of the variant relative to the default; None without a claim.
        tasks: default tasks; if empty, see `default_tasks`.
    """

    name: str
    changes: str
    factor: str
    figure: str
    claim: str
    expected: Expected | None = None
    tasks: tuple[str, ...] = ()

    @property
    def variant(self) -> str:
        """Variant name of its runs."""
        return self.name.replace(" ", "-")

    @cached_property
    def settings(self) -> Settings:
        """Changed settings, parsed."""
        schema = cli.schema_of(TDMPC2Config, TaskSwitches)
        return cli.parse_arguments(self.changes.split(), schema)

    @property
    def multitask(self) -> bool:
        """Whether it only changes agents with task embeddings."""
        return "normalize_task_embedding" in self.settings

    @property
    def default_tasks(self) -> tuple[str, ...]:
        """Default tasks: its own, else all of its switches' domain, else the paper's three."""
        if self.tasks:
            return self.tasks
        domains = {DOMAINS[name] for name in self.settings if name in DOMAINS}
        suite = domains.pop() if domains else "ablation"
        return tuple(task.name for task in get_suite(suite))


def _rows(
    factor: str, figure: str, *rows: tuple[str, str, Expected | None, str]
) -> tuple[Ablation, ...]:
    """Build the ablations of one factor from rows of name, changes, expected score and claim."""
    return tuple(
        Ablation(name, changes, factor, figure, claim, expected)
        for name, changes, expected, claim in rows
    )


ABLATIONS: tuple[Ablation, ...] = (
    # Design choices that the paper's Figure 9 ablates; its claim is that each choice helps. The
    # paper does not define every variant: both readings of "LayerNorm only" are in the table
    # (no-simnorm and latent-layernorm).
    *_rows(
        *(ACTOR, FIG9),
        ("no-planning", "planning=false", "lower", "acting with the prior alone scores lower"),
    ),
    *_rows(
        *(ACTOR, APPENDIX_A),
        (
            *("gaussian-noise-prior", "policy_prior=gaussian_noise", "same"),
            "a deterministic prior with tuned Gaussian noise scores the same",
        ),
    ),
    *_rows(
        *(NORM, FIG9),
        (
            *("no-simnorm", "latent_norm=none", "lower"),
            "a linear latent without SimNorm scores lower",
        ),
        (
            *("latent-layernorm", "latent_norm=layernorm", "lower"),
            "LayerNorm instead of SimNorm on the latent scores lower",
        ),
        (
            *("simnorm-only", "hidden_norm=none", "lower"),
            "SimNorm without LayerNorm in hidden layers scores lower",
        ),
        (
            *("no-norms", "latent_norm=none hidden_norm=none", "lower"),
            "networks without SimNorm and LayerNorm score lower",
        ),
    ),
    *_rows(
        *(REGRESSION, FIG9),
        (
            *("regression symlog_mse", "regression=symlog_mse", "lower"),
            "MSE regression of symlog values scores lower",
        ),
        (
            *("regression mse", "regression=mse", "lower"),
            "MSE regression of raw values scores lower",
        ),
    ),
    *_rows(
        *(ENSEMBLE, ""),
        ("num-q 1", "num_q=1", "lower", "one Q-function scores lower"),
    ),
    *_rows(
        *(ENSEMBLE, FIG9),
        ("num-q 2", "num_q=2", "lower", "two Q-functions score lower"),
        ("num-q 10", "num_q=10", None, ""),
    ),
    *_rows(
        *(EMBEDDING, "appendix F"),
        (
            *("no-task-embedding-norm", "normalize_task_embedding=false", "lower"),
            "task embeddings of unlimited norm score lower",
        ),
    ),
    # Changes from TD-MPC that appendix A lists. It says of momentum that results are comparable
    # without it, of prioritized replay that it changes nothing significantly, and of an automatic
    # entropy target that there is no significant difference; of the others nothing on the score.
    *_rows(
        *(EXTRAS, APPENDIX_A),
        ("momentum", "momentum=0.1", "same", "momentum in the planner scores the same"),
        (
            *("prioritized-replay", "prioritized_replay=true", "same"),
            "prioritized replay scores the same",
        ),
        ("no-dropout", "dropout=0", None, ""),
        (
            *("entropy-target", "entropy_tuning=target entropy_form=exact", "same"),
            "an entropy coefficient tuned to a target entropy scores the same",
        ),
        ("batch-512", "batch_size=512", None, ""),
        ("horizon 1", "horizon=1", None, ""),
        ("horizon 5", "horizon=5", None, ""),
        ("no-policy-samples", "num_pi_samples=0", None, ""),
    ),
    # Differences between the paper and the authors' later releases or common practice, which users
    # ask about. These claims are not the paper's; the expectation is that nothing changes.
    *_rows(
        *(FAITHFUL, ""),
        (
            *("entropy-2024", "entropy_form=official_2024", "same"),
            "the entropy of the releases since 2024 scores the same",
        ),
        (
            *("entropy-exact", "entropy_form=exact", "same"),
            "the exact entropy of the squashed Gaussian scores the same",
        ),
        (
            *("q-init-2024", "q_init=official_2024", "same"),
            "the ensemble initialization of 2024 to 2026 scores the same",
        ),
        (
            *("dropout-everywhere", "dropout_in=everywhere", "same"),
            "dropout in every call of a Q-function, as in the code of 2023, scores the same",
        ),
        (
            *("stop-at-success", "stop_at_success=true", "same"),
            "ending ManiSkill2 episodes at success, as in the later code, scores the same",
        ),
        (
            *("unseeded-resets", "seeded_resets=false", "same"),
            "Meta-World resets from NumPy's global generator score the same",
        ),
    ),
)


def table_of_ablations() -> str:
    """Format the table of ablations for `--list`."""
    rows = [
        (
            one.factor,
            f"--{one.name}",
            one.changes.replace(" ", "\n"),
            one.expected or "",
            textwrap.fill(one.claim, 40),
            one.figure or "not from the paper",
        )
        for one in ABLATIONS
    ]
    head = ["factor", "flag", "changes", "expected", "claim", "source"]
    return tabulate(rows, head, "simple")


def check_distinct(ablations: Sequence[Ablation], where: str = "") -> None:
    """Check that all ablations have different settings; a report can't tell equal runs apart.

    Raises:
        UserError: two have the same settings; the message begins with `where`.
    """
    for one, other in combinations(ablations, 2):
        if one.settings == other.settings:
            raise UserError(
                f"{where}{one.name} and {other.name} have the same settings; remove one"
            )


def combined(parts: Sequence[Ablation]) -> Ablation:
    """Combine several ablations into one variant with all of their changes.

    Raises:
        UserError: two of them set the same setting to different values, or they have tasks of
            their own and none in common.
    """
    if len(parts) == 1:
        return parts[0]
    known: dict[str, tuple[Scalar, str]] = {}
    for part in parts:
        for key, value in part.settings.items():
            previous, owner = known.setdefault(key, (value, part.name))
            if previous != value:
                raise UserError(
                    f"--{owner} and --{part.name} contradict each other: {key} is {previous} or "
                    f"{value}; add --each for one variant per ablation"
                )
    claims = {part.expected for part in parts}
    factors = {part.factor for part in parts}
    return Ablation(
        name="+".join(part.name for part in parts),
        changes=" ".join(part.changes for part in parts),
        factor=factors.pop() if len(factors) == 1 else COMBINED,
        figure="",
        claim="; ".join(part.claim for part in parts if part.claim),
        expected=claims.pop() if len(claims) == 1 else None,
        tasks=_shared_tasks(parts),
    )


def _shared_tasks(parts: Sequence[Ablation]) -> tuple[str, ...]:
    """Return the common tasks of the ablations that have tasks of their own; empty if none has."""
    own = [part.default_tasks for part in parts if part.tasks or DOMAINS.keys() & part.settings]
    if not own:
        return ()
    shared = tuple(task for task in own[0] if all(task in tasks for tasks in own))
    if not shared:
        names = " and ".join(f"--{part.name}" for part in parts)
        raise UserError(f"{names} have no task in common; add --each or --tasks")
    return shared


def find(changed: Mapping[str, Any], known: Sequence[Ablation]) -> Ablation | None:
    """Find the ablation, or smallest combination, that changes exactly the given settings."""
    candidates = [one for one in known if one.settings.items() <= changed.items()]
    if {key for one in candidates for key in one.settings} != changed.keys():
        return None
    for size in range(1, len(candidates) + 1):
        for parts in combinations(candidates, size):
            if {k: v for part in parts for k, v in part.settings.items()} == dict(changed):
                return combined(parts)
    return None
