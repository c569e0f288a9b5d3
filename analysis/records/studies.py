"""Reader of the folders of studies, `<runs>/studies/<name>/`."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.records.problems import Problem
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.regular_files import regular

if TYPE_CHECKING:
    import pandas as pd

FILE = "study.toml"
PUBLISHED = "published"
"""Base variant of claims that compare with the released curves."""
REGISTERED = "registered.toml"
"""Copy of `study.toml` as it was when the study began."""
RESULTS, BOUNDARIES, RUNS = "decisions.csv", "boundaries.csv", "runs.csv"
"""Results of all looks, the differences that decide, and the runs that have begun."""
RUN_COLUMNS = ("method", "variant", "task", "seed", "registered", "hours", "unit", "directory")
"""Columns of `runs.csv`; `registered` says whether the run's first attempt records the study."""
_RESULT_TYPES = {
    "seeds": int,
    "claim": str,
    "difference": float,
    "low": float,
    "high": float,
    "decision": str,
    "missing_runs": int,
}
_BOUNDARY_TYPES = {"seeds": int, "claim": str, "decision": str, "low": float, "high": float}
_RUN_TYPES = dict.fromkeys(RUN_COLUMNS, str) | {"seed": int, "registered": bool, "hours": float}


@dataclass(frozen=True)
class RecordedClaim:
    """A claim of a study.

    Attributes:
        name: name of the claim.
        series: method and variant of the two compared series; the base is the second.
        expected: claimed score relative to the base; empty without a claim.
        text: the claim in words.
        tasks: the tasks that the claim is about.
        margin: largest difference, in points, that counts as no difference.
    """

    name: str
    series: tuple[tuple[str, str], tuple[str, str]]
    expected: str
    text: str
    tasks: tuple[str, ...]
    margin: float


@dataclass(frozen=True)
class RecordedStudy:
    """A study as its files record it.

    Attributes:
        name: name of the study.
        mark: hash of the registered file, which its runs record.
        tasks: env steps at which the scores of each task are compared.
        seeds: seeds of every series; a look uses the first ones.
        looks: seeds on each side after each look.
        evaluations: a score is the mean of this many last evaluations; None if unrecorded.
        tests: levels of the tests and other settings of the design.
        claims: the claims.
        changed: what differs between the registered study and the present `study.toml`.
        decisions: table of `decisions.csv`: a row per look and open claim; differences are NaN
            while runs are missing.
        boundaries: table of `boundaries.csv`: differences from `low` to `high` lead to a decision.
        runs: table with `RUN_COLUMNS`; None if the file does not exist.
    """

    name: str
    mark: str
    tasks: Mapping[str, int]
    seeds: tuple[int, ...]
    looks: tuple[int, ...]
    evaluations: int | None
    tests: Mapping[str, Any]
    claims: tuple[RecordedClaim, ...]
    changed: tuple[str, ...]
    decisions: pd.DataFrame
    boundaries: pd.DataFrame
    runs: pd.DataFrame | None

    @property
    def complete(self) -> pd.DataFrame:
        """Rows of `decisions` whose runs have all ended."""
        return self.decisions[self.decisions["difference"].notna()]


def read_studies(folders: Sequence[Path]) -> tuple[list[RecordedStudy], list[Problem]]:
    """Return the studies of folders of runs by name, and those that cannot be read.

    Args:
        folders: folders of runs.
    """
    studies, problems = [], []
    files = (file for runs in folders for file in (runs / "studies").glob(f"*/{REGISTERED}"))
    for file in sorted(files):
        try:
            studies.append(read_study(file.parent))
        except UserError as error:
            problems.append(Problem(str(file.parent), None, str(error)))
    return studies, problems


def read_study(folder: Path) -> RecordedStudy:
    """Return the study of a folder.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        facts = tomllib.loads(regular(folder / REGISTERED).read_text(encoding="utf-8"))
        claims = tuple(_claim(facts | claim) for claim in facts["claims"])
        runs = folder / RUNS
        return RecordedStudy(
            folder.name,
            digest(folder / REGISTERED),
            {str(task): int(step) for task, step in facts["tasks"].items()},
            tuple(map(int, facts["seeds"])),
            tuple(map(int, facts["looks"])),
            facts.get("evaluations"),
            dict(facts["tests"]),
            claims,
            tuple(changes(folder)),
            _table(folder / RESULTS, _RESULT_TYPES, claims),
            _table(folder / BOUNDARIES, _BOUNDARY_TYPES, claims),
            _table(runs, _RUN_TYPES) if runs.exists() else None,
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"study {folder.name} cannot be read ({error})") from None


def _claim(facts: Mapping[str, Any]) -> RecordedClaim:
    """Return a claim from its facts; its tasks and margin default to those of the study."""
    own, base = ((facts[a], facts[b]) for a, b in (("method", "variant"), ("base_method", "base")))
    return RecordedClaim(
        facts["name"],
        (own, base),
        facts.get("expected", ""),
        facts["text"],
        tuple(facts["tasks"]),
        float(facts["margin"]),
    )


def _table(
    path: Path, types: Mapping[str, type], claims: tuple[RecordedClaim, ...] = ()
) -> pd.DataFrame:
    """Return the columns of a CSV file.

    Args:
        path: the file.
        types: type of each column; only numbers can be missing.
        claims: the claims that its column `claim` can name.

    Raises:
        ValueError: a column is missing, a value has another type, or a claim is unknown.
    """
    import pandas as pd  # here, so that commands report bad arguments fast

    absent = {name: [""] for name, kind in types.items() if kind is float}
    table = pd.read_csv(
        regular(path), usecols=list(types), dtype=types, keep_default_na=False, na_values=absent
    )[list(types)]
    unknown = set(table.get("claim", ())) - {claim.name for claim in claims}
    if unknown:
        raise ValueError(f"{path.name}: unknown claim {', '.join(sorted(unknown))}")
    return table


def digest(file: Path) -> str:
    """Return the hash of a study's file that its runs record."""
    return hashlib.sha256(regular(file).read_bytes()).hexdigest()[:12]


def changes(folder: Path) -> list[str]:
    """Return what differs between `study.toml` and the registered study; empty if nothing does."""
    try:
        texts = [regular(folder / name).read_text(encoding="utf-8") for name in (REGISTERED, FILE)]
        before, after = (tomllib.loads(text) for text in texts)
    except (OSError, ValueError) as error:
        return [f"it cannot be read: {error}"]
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return [f"{key}: {before.get(key)} is now {after.get(key)}" for key in keys]
