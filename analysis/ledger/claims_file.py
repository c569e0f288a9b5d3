"""The file of the ledger, `paper_figures/claims.toml`: claims and the commands that settle them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from analysis.stats.ablation_claims import Expected
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import project_root


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A claim of the paper.

    Attributes:
        id: unique name.
        places: figures, tables and appendices that state it; keys of `Ledger.places`.
        command: command whose runs would settle it.
    """

    id: str
    places: tuple[str, ...]
    command: str = ""


class Scores(Claim, frozen=True, kw_only=True, tag_field="kind", tag="scores"):
    """Scores of methods on a group of tasks, which the released curves contain.

    Attributes:
        group: group of `figures.toml`.
        values: score in percent at the group's horizon by method.
        obs: observation type.
    """

    group: str
    values: dict[str, float]
    obs: Literal["state", "rgb"] = "state"


class Advantage(Claim, frozen=True, kw_only=True, tag_field="kind", tag="advantage"):
    """A method scores higher than others on a group of tasks.

    Attributes:
        group: group of `figures.toml`.
        method: the method.
        over: the other methods.
    """

    group: str
    method: str
    over: tuple[str, ...]


class Agents(Claim, frozen=True, kw_only=True, tag_field="kind", tag="agents"):
    """Scores of multi-task agents; the numbers are those quoted in `figures.toml`.

    Attributes:
        task_set: task set of the agents.
        sizes: model sizes.
    """

    task_set: str
    sizes: tuple[str, ...]


class Finetuning(Claim, frozen=True, kw_only=True, tag_field="kind", tag="finetuning"):
    """Score of a variant of finetuning; the number is quoted in `figures.toml`.

    Attributes:
        label: label of the score quoted in Figure 8.
        variant: variant of the runs.
    """

    label: str
    variant: str


class AblationClaim(Claim, frozen=True, kw_only=True, tag_field="kind", tag="ablation"):
    """Score of an ablation relative to the default, on the tasks of the group `ablation`.

    Attributes:
        flag: flag of `ablations/run.py`, as in its table.
        expected: claimed score relative to the default.
        statement: the claim as a sentence, as in the table of ablations.
        multitask: whether it is a claim on multi-task agents.
    """

    flag: str
    expected: Expected
    statement: str
    multitask: bool = False


class Checked(Claim, frozen=True, kw_only=True, tag_field="kind", tag="checked"):
    """A number that follows from the code alone, and is checked by tests.

    Attributes:
        statement: the claim as a sentence.
        tests: tests, as `FILE::NAME`.
    """

    statement: str
    tests: tuple[str, ...]


class Quoted(Claim, frozen=True, kw_only=True, tag_field="kind", tag="quoted"):
    """A number of the paper that no record here can be compared with.

    Attributes:
        statement: the claim as a sentence, with its number.
        why: why nothing is compared.
    """

    statement: str
    why: str


class Unknown(Claim, frozen=True, kw_only=True, tag_field="kind", tag="open"):
    """A claim whose number is not known here, such as one that is shown in a figure only.

    Attributes:
        statement: the claim as a sentence.
        why: what is missing.
    """

    statement: str
    why: str


AnyClaim = Scores | Advantage | Agents | Finetuning | AblationClaim | Checked | Quoted | Unknown


class Ledger(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of `claims.toml`.

    Attributes:
        places: figures, tables and appendices of the paper, with their content.
        claims: all claims.
    """

    places: dict[str, str]
    claims: tuple[AnyClaim, ...]


def ledger_path() -> Path:
    """Return the path of the ledger, in the checkout or in the installed package."""
    path = project_root() / "paper_figures" / "claims.toml"
    return path if path.exists() else Path(__file__).with_name("claims.toml")


def read_ledger(path: Path) -> Ledger:
    """Read and validate the ledger.

    Raises:
        UserError: the file cannot be read, has unknown or missing entries, names a claim twice, or
            a place that is not listed.
    """
    try:
        ledger = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Ledger)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: {error}") from error
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {error}") from error
    seen: set[str] = set()
    for claim in ledger.claims:
        if claim.id in seen:
            raise UserError(f"{path}: the claim {claim.id} occurs twice")
        seen.add(claim.id)
        for place in claim.places:
            if place not in ledger.places:
                raise UserError(f"{path}: claim {claim.id}: unknown place '{place}'")
    return ledger
