"""A study: claims, tasks, looks and error rates, in `study.toml`, written before its first run."""

from __future__ import annotations

import hashlib
import itertools
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from analysis.records.studies import FILE, REGISTERED, changes, digest
from analysis.stats.ablation_claims import Expected
from analysis.stats.group_sequential import Design
from analysis.stats.rules import LAST_EVALUATIONS
from tdmpc2.common.system.atomic_files import write_text
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.regular_files import regular

MIN_SEEDS = 2
_HEAD = """\
# A study, registered before its first run. Each run records the hash of this file. Do not change
# it: for other claims, tasks, steps or looks, start another study.
"""


@dataclass(frozen=True)
class Claim:
    """A claim about two series of runs on the same tasks.

    Attributes:
        name: name of the claim in tables: the ablation, or the method and variant.
        method: method of the variant.
        variant: variant name of its runs.
        base_method: method of the runs that it is compared with.
        base: variant name of those, or `PUBLISHED`.
        expected: claimed score of the variant relative to the base; None for no direction.
        text: the claim in words.
        tasks: the tasks that the claim is about; all of the study if empty.
        margin: largest difference, in points, that counts as no difference; None for the study's.
    """

    name: str
    method: str
    variant: str
    base_method: str
    base: str
    expected: Expected | None = None
    text: str = ""
    tasks: tuple[str, ...] = ()
    margin: float | None = None

    @property
    def series(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Method and variant of the two compared series; the base is the second."""
        return (self.method, self.variant), (self.base_method, self.base)


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        label: beginning of its name.
        tasks: env steps at which the scores of each task are compared.
        seeds: seeds of every series; a look uses the first ones.
        design: looks and error rates of the tests.
        margin: largest difference, in points, that counts as no difference.
        claims: the claims.
        evaluations: a score is the mean of this many last evaluations, without that at step 0.
        settings: by `method variant`, the settings of a series that are not the default ones.
    """

    label: str
    tasks: Mapping[str, int]
    seeds: tuple[int, ...]
    design: Design
    margin: float
    claims: tuple[Claim, ...]
    evaluations: int = LAST_EVALUATIONS
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def looks(self) -> tuple[int, ...]:
        """Seeds on each side after each look."""
        return self.design.looks

    def tasks_of(self, claim: Claim) -> tuple[str, ...]:
        """Return the tasks that a claim is about."""
        return claim.tasks or tuple(self.tasks)

    def margin_of(self, claim: Claim) -> float:
        """Return the margin of a claim in points."""
        return self.margin if claim.margin is None else claim.margin

    @property
    def name(self) -> str:
        """Name of the study: equal arguments continue the same study."""
        digest = hashlib.sha256(self.to_toml().encode()).hexdigest()[:8]
        return f"{self.label}-{digest}"

    def folder(self, runs: Path) -> Path:
        """Return the folder of the study in a folder of runs."""
        return runs / "studies" / self.name

    def begun_in(self, runs: Path) -> Study:
        """Return this study, or the same with earlier tests if only that has begun in a folder."""
        earlier = replace(self, design=replace(self.design, tied_within=0.0))
        begun, begun_earlier = ((one.folder(runs) / REGISTERED).exists() for one in (self, earlier))
        return earlier if begun_earlier and not begun else self

    def to_toml(self) -> str:
        """Return the content of `study.toml`."""
        rates = {k: v for k, v in asdict(self.design).items() if k != "looks" and v is not None}
        if not self.design.tied_within:  # earlier versions lack it: their studies keep their names
            del rates["tied_within"]
        names = ("label", "seeds", "looks", "margin", "evaluations")
        lines = [
            _HEAD,
            *(f"{name} = {_text(getattr(self, name))}" for name in names),
            *_table("tests", rates),
            *_table("tasks", self.tasks),
        ]
        for series, settings in self.settings.items():
            lines += _table(f"settings.{_text(series)}", settings)
        for claim in self.claims:
            values = {k: v for k, v in asdict(claim).items() if v not in (None, ())}
            lines += ["", "[[claims]]", *(f"{k} = {_text(v)}" for k, v in values.items())]
        return "\n".join(lines) + "\n"

    @classmethod
    def read(cls, path: Path) -> Study:
        """Return the study that a file describes.

        Raises:
            UserError: the file cannot be read, or is not that of a study.
        """
        try:
            facts = tomllib.loads(regular(path).read_text(encoding="utf-8"))
            claims = tuple(
                Claim(**{**claim, "tasks": tuple(claim.get("tasks", ()))})
                for claim in facts.pop("claims")
            )
            tests = {"tied_within": 0.0, **facts.pop("tests")}
            design = Design(tuple(facts.pop("looks")), **tests)
            seeds = tuple(facts.pop("seeds"))
            return cls(seeds=seeds, design=design, claims=claims, **facts)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path}: not the file of a study ({error})") from None


def _table(name: str, values: Mapping[str, Any]) -> list[str]:
    return ["", f"[{name}]", *(f"{_text(k)} = {_text(v)}" for k, v in values.items())]


def _text(value: Any) -> str:
    """Return a value as TOML, which has no surrogate pairs, no null and no unescaped DEL."""
    value = "none" if value is None else value
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def parse_looks(text: str) -> tuple[int, ...]:
    """Parse `looks=2,3,5`: seeds on each side after each look.

    Raises:
        UserError: they are not ascending numbers from 2 on.
    """
    try:
        looks = tuple(int(part) for part in text.split(","))
    except ValueError:
        looks = ()
    ascending = all(a < b for a, b in itertools.pairwise(looks))
    if not looks or looks[0] < MIN_SEEDS or not ascending or looks[-1] > 100:
        raise UserError(
            f"looks={text}: ascending numbers of seeds from 2 to 100 are needed (2,3,5)"
        )
    return looks


def register(study: Study, folder: Path) -> str:
    """Write `study.toml` unless the study has begun, and return its hash.

    Args:
        study: the study.
        folder: its folder.

    Raises:
        UserError: the file was changed since the study began.
    """
    text, file, copy = study.to_toml(), folder / FILE, folder / REGISTERED
    if not copy.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
        write_text(copy, text)
    check_unchanged(folder)
    return digest(copy)


def check_unchanged(folder: Path) -> None:
    """Check that `study.toml` is as it was when the study began.

    Raises:
        UserError: it is missing, or something in it was changed.
    """
    changed = changes(folder)
    if changed:
        raise UserError(
            f"{folder / FILE}: changed since the study began ({', '.join(changed)}); restore it "
            f"from {REGISTERED}, or start another study with other arguments"
        )
