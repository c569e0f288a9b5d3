"""Every ablation in a line: its name, what it changes, what is claimed of it, and where."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from ablations.verdicts import Expected
from tdmpc2.common.run.spec import Scalar
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.task_variants import DOMAINS, TaskSwitches
from tdmpc2.envs.tasks import get_suite, get_task

Settings = dict[str, Scalar]
LARGEST_COMBINATION = 3

ACTOR, NORM, REGRESSION, ENSEMBLE = "actor", "normalization", "regression", "Q-functions"
EMBEDDING, EXTRAS, FAITHFUL = "task embedding", "extras", "faithfulness"
COMBINED, OWN = "combinations", "own"
FACTORS = (ACTOR, NORM, REGRESSION, ENSEMBLE, EMBEDDING, EXTRAS, FAITHFUL, COMBINED, OWN)
FIG9 = "Figure 9"


@dataclass(frozen=True)
class Ablation:
    """A design choice taken back.

    Attributes:
        name: the flag of `ablations/run.py`, with its value if it takes one: `num-q 2`.
        changes: what it changes, as on the command line; settings of TD-MPC2 or switches of
            `TaskSwitches`, blank-separated.
        factor: the panel it belongs to, one of `FACTORS`.
        figure: the paper's figure or appendix; empty where it is not the paper's.
        claim: what is said of the variant.
        expected: what that means for its score against the default; None where nothing is said.
        multitask: whether only agents of several tasks know what it changes.
        tasks: to run it on; the paper's three if empty.
    """

    name: str
    changes: str
    factor: str
    figure: str
    claim: str
    expected: Expected | None = None
    multitask: bool = False
    tasks: tuple[str, ...] = ()

    @property
    def variant(self) -> str:
        """Name of its runs."""
        return self.name.replace(" ", "-")

    @cached_property
    def settings(self) -> Settings:
        """What it changes, typed."""
        schema = {**cli.schema_of(TDMPC2Config), **cli.schema_of(TaskSwitches)}
        return cli.parse_arguments(self.changes.split(), schema)

    @property
    def default_tasks(self) -> tuple[str, ...]:
        """To run it on unless told otherwise: those of its domain, or the paper's three."""
        if self.tasks:
            return self.tasks
        domains = {DOMAINS[name] for name in self.settings if name in DOMAINS}
        suite = domains.pop() if domains else "ablation"
        return tuple(task.name for task in get_suite(suite))


def _rows(
    factor: str, figure: str, *rows: tuple[str, str, Expected | None, str], multitask: bool = False
) -> tuple[Ablation, ...]:
    """Ablations of one factor: name, what it changes, what is expected, the claim."""
    return tuple(
        Ablation(name, changes, factor, figure, claim, expected, multitask)
        for name, changes, expected, claim in rows
    )


ABLATIONS: tuple[Ablation, ...] = (
    # What the paper's Figure 9 takes back: that each choice helps is its claim. Which readings its
    # panels show is not all known, so those of "layer norm only" stand beside each other.
    *_rows(
        *(ACTOR, FIG9),
        ("no-planning", "planning=false", "lower", "acting with the prior alone scores lower"),
        ("gaussian-noise-prior", "policy_prior=gaussian_noise", "same", "tuned noise does as well"),
    ),
    *_rows(
        *(NORM, FIG9),
        ("no-simnorm", "latent_norm=none", "lower", "a plain linear latent scores lower"),
        ("latent-layernorm", "latent_norm=layernorm", "lower", "a LayerNorm latent scores lower"),
        ("simnorm-only", "hidden_norm=none", "lower", "no norm in hidden layers scores lower"),
        ("no-norms", "latent_norm=none hidden_norm=none", "lower", "no norm at all scores lower"),
    ),
    *_rows(
        *(REGRESSION, FIG9),
        ("regression symlog_mse", "regression=symlog_mse", "lower", "symlog values score lower"),
        ("regression mse", "regression=mse", "lower", "raw values score lower"),
    ),
    *_rows(
        *(ENSEMBLE, FIG9),
        ("num-q 1", "num_q=1", "lower", "one Q-function scores lower"),
        ("num-q 2", "num_q=2", "lower", "two Q-functions score lower"),
        ("num-q 10", "num_q=10", None, ""),
    ),
    *_rows(
        *(EMBEDDING, "appendix F"),
        ("no-task-embedding-norm", "normalize_task_embedding=false", "lower", "scores lower"),
        multitask=True,
    ),
    # What appendix A changes from TD-MPC, without a stated effect for each.
    *_rows(
        *(EXTRAS, "appendix A"),
        ("momentum", "momentum=0.1", None, ""),
        ("prioritized-replay", "prioritized_replay=true", None, ""),
        ("no-dropout", "dropout=0", None, ""),
        ("entropy-target", "entropy_tuning=target entropy_form=exact", None, ""),
        ("batch-512", "batch_size=512", None, ""),
        ("horizon 1", "horizon=1", None, ""),
        ("horizon 5", "horizon=5", None, ""),
        ("no-policy-samples", "num_pi_samples=0", None, ""),
    ),
    # What separates the paper from the authors' later releases, or from others' habits, and users
    # ask about. No claim of the paper: one hopes that it makes no difference.
    *_rows(
        *(FAITHFUL, ""),
        ("entropy-2024", "entropy_form=official_2024", "same", "the releases since 2024"),
        ("entropy-exact", "entropy_form=exact", "same", "the squashed Gaussian's own entropy"),
        ("q-init-2024", "q_init=official_2024", "same", "the ensemble as made from 2024 to 2026"),
        ("dropout-everywhere", "dropout_in=everywhere", "same", "the code of 2023"),
        ("stop-at-success", "stop_at_success=true", "same", "ManiSkill2 in the later code"),
        ("unseeded-resets", "seeded_resets=false", "same", "Meta-World's own resets"),
    ),
)


def combined(parts: Sequence[Ablation]) -> Ablation:
    """Several ablations as one.

    Raises:
        UserError: they set the same thing to different values.
    """
    if len(parts) == 1:
        return parts[0]
    known: dict[str, tuple[Scalar, str]] = {}
    for part in parts:
        for key, value in part.settings.items():
            before, owner = known.setdefault(key, (value, part.name))
            if before != value:
                raise UserError(
                    f"--{owner} and --{part.name} contradict each other: {key} is {before} or "
                    f"{value}; add --each for a variant of each"
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
        multitask=any(part.multitask for part in parts),
        tasks=_shared_tasks(parts),
    )


def _shared_tasks(parts: Sequence[Ablation]) -> tuple[str, ...]:
    """Those of the parts that have tasks of their own; none where nobody has."""
    own = [part.default_tasks for part in parts if part.tasks or DOMAINS.keys() & part.settings]
    if not own:
        return ()
    shared = tuple(task for task in own[0] if all(task in tasks for tasks in own))
    if not shared:
        names = " and ".join(f"--{part.name}" for part in parts)
        raise UserError(f"{names} have no task in common; add --each or --tasks")
    return shared


def find(changed: Mapping[str, Any], known: Sequence[Ablation]) -> Ablation | None:
    """The ablation, or combination of up to three, that changes exactly this."""
    fitting = [one for one in known if one.settings.items() <= changed.items()]
    for size in range(1, LARGEST_COMBINATION + 1):
        for parts in combinations(fitting, size):
            if {k: v for part in parts for k, v in part.settings.items()} == dict(changed):
                return combined(parts)
    return None


def read_specs(path: Path) -> tuple[Ablation, ...]:
    """Ablations of one's own, a table of TOML for each.

    ```toml
    [small-latent]
    settings = { latent_dim = 128 }
    claim = "A small latent scores lower."    # optional, as are the others below
    expected = "lower"                        # or "same"
    factor = "latent size"
    tasks = ["walker-run", "dog-run"]
    ```

    Raises:
        UserError: not TOML, an unknown field, or a table that changes nothing.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not TOML: {error}") from None
    if not tables:
        raise UserError(f"{path}: names no ablation")
    return tuple(_own(name, table, f"{path}: {name}") for name, table in tables.items())


def _own(name: str, table: Any, where: str) -> Ablation:
    """One table of a user's file."""
    kinds = {"settings": dict, "claim": str, "expected": str, "factor": str, "tasks": list}
    if not isinstance(table, dict):
        raise UserError(f"{where}: a table is needed, [{name}]")
    for key, value in table.items():
        if key not in kinds:
            raise UserError(f"{where}: unknown field '{key}'{did_you_mean(key, kinds)}")
        if not isinstance(value, kinds[key]):
            raise UserError(f"{where}: {key}={value!r} must be a {kinds[key].__name__}")
    if not set(name) <= _NAME_CHARACTERS:
        raise UserError(f"{where}: a name has letters, digits, - and _ only")
    if any(name == one.variant for one in ABLATIONS) or name == "default":
        raise UserError(f"{where}: is the name of an ablation that is here already")
    expected = table.get("expected")
    if expected not in (None, "lower", "same"):
        raise UserError(f"{where}: expected={expected!r} must be 'lower' or 'same'")
    if not table.get("settings"):
        raise UserError(f"{where}: changes nothing; name its settings")
    changes = " ".join(f"{key}={_as_text(value)}" for key, value in table["settings"].items())
    factor, claim = table.get("factor", OWN), table.get("claim", "")
    try:
        tasks = tuple(get_task(task).name for task in table.get("tasks", ()))
        own = Ablation(name, changes, factor, "", claim, expected, tasks=tasks)
        _ = own.settings
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return own


_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def _as_text(value: Any) -> str:
    """A value of TOML as on the command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)
