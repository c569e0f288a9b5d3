"""Declaration and validation of settings: the fields of frozen dataclasses.

A field declares its type, default, meaning and valid range in one place:

    lr: float = setting(3e-4, "learning rate", above=0, high=1)

`Settings` checks all of them when an instance is created; `cli.describe_fields` lists them.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, Union, get_args, get_origin, get_type_hints

from tdmpc2.common.system.errors import UserError, did_you_mean

REQUIRED = dataclasses.MISSING
"""Default of a field that must be given."""


@dataclass(frozen=True)
class Range:
    """Valid values of a number; NaN and infinity are never valid.

    Attributes:
        low: smallest valid value.
        high: largest valid value.
        above: value that must be exceeded, instead of `low`.
        below: value that must not be reached, instead of `high`.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        """Check that there is one bound on each side."""
        assert (self.low is None) != (self.above is None)
        assert (self.high is None) != (self.below is None)

    def __contains__(self, value: float) -> bool:
        """Return whether a number is valid."""
        low, high, above, below = self.low, self.high, self.above, self.below
        return bool(
            (low is None or value >= low)
            and (above is None or value > above)
            and (high is None or value <= high)
            and (below is None or value < below)
        )

    def __str__(self) -> str:
        """Return the range as an interval, such as `(0, 1]`."""
        left = f"({_number(self.above)}" if self.low is None else f"[{_number(self.low)}"
        right = f"{_number(self.below)})" if self.high is None else f"{_number(self.high)}]"
        return f"{left}, {right}"

    def check(self, name: str, value: float) -> None:
        """Check a number.

        Raises:
            UserError: it is not in the range.
        """
        require(value in self, f"{name}={value}: must lie in {self}")


def _number(value: float | None) -> str:
    """Return a number as it may be written on the command line."""
    assert value is not None
    if abs(value) < 10_000 or value != int(value):
        return f"{value:g}"
    return f"{int(value):_}"


# Ranges that several methods and commands share. The upper limits are far above all values in use
# (the largest model of the paper has layers of 4,096 units) and below those that exhaust memory in
# a single allocation: a layer of 16,384 × 16,384 weights takes 1 GB.
WIDTH = Range(low=1, high=16_384)
LAYERS = Range(low=1, high=100)
BATCH = Range(low=1, high=65_536)
HORIZON = Range(low=1, high=1000)
ROWS = Range(low=1, high=100_000_000)
DECISIONS = Range(low=1, high=1_000_000_000)
LEARNING_RATE = Range(low=0, high=1)
FRACTION = Range(low=0, high=1)
COEFFICIENT = Range(low=0, high=1_000_000)
POSITIVE = Range(above=0, high=1_000_000)
LOG_STD = Range(low=-50, high=10)
STD = Range(low=0, high=100)
SYMLOG = Range(low=-80, high=80)  # exp(88) is the largest power of e in float32
SEED = Range(low=0, high=2**32 - 1)  # the range that all libraries accept
STEPS = Range(low=1, high=10_000_000_000)
EPISODES = Range(low=1, high=10_000)
THREADS = Range(low=1, high=4096)
WORKERS = Range(low=0, high=4096)
SHARD_MB = Range(low=1, high=1_000_000)
POINTS = Range(above=0, high=100)  # differences of normalized scores
REPS = Range(low=100, high=1_000_000)  # resamples of a bootstrap
MINUTES = Range(low=0, high=1_000_000)
REPETITIONS = Range(low=1, high=100_000)

# The setting `precision` of all methods: its values and its meaning.
Precision = Literal["fp32", "tf32", "bf16"]
MULTIPLICATIONS = (
    "precision of matrix multiplications; parameters, norms, losses and optimizers are float32"
)


def setting(
    default: Any,
    meaning: str | Callable[[], str],
    limits: Range | None = None,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """Declare a field of a dataclass that is derived from `Settings`.

    The valid values of other fields than numbers follow from the type: a `Literal` lists them.

    Args:
        default: default value, a function that returns it, or `REQUIRED`.
        meaning: meaning of the setting, for `--help`; a function if it names what plugins can add.
        limits: valid range of a number; or its bounds, see `Range`.
        low: smallest valid value.
        high: largest valid value.
        above: value that must be exceeded, instead of `low`.
        below: value that must not be reached, instead of `high`.
    """
    if {low, high, above, below} != {None}:
        limits = Range(low, high, above, below)
    metadata = {"meaning": meaning, "limits": limits}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Kind(NamedTuple):
    """Declared type of a setting.

    Attributes:
        type: int, float, bool, str or Path.
        choices: valid values of a `Literal` of strings; empty for other types.
        optional: whether None is valid.
        limits: valid range of a number.
    """

    type: Any
    choices: tuple[str, ...] = ()
    optional: bool = False
    limits: Range | None = None

    def __str__(self) -> str:
        """Describe the valid values: `integer in [1, 100]`."""
        if self.choices:
            return " | ".join(self.choices)
        noun = NOUNS.get(self.type, self.type.__name__)
        return noun if self.limits is None else f"{noun} in {self.limits}"

    @property
    def needed(self) -> str:
        """Describe the valid values in a sentence: `an integer in [1, 100]`."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.type is bool:
            return "true or false"
        if self.type is str:
            return "text"
        if self.type is float and self.limits is None:
            return "a finite number"
        return f"an {self}" if self.type is int else f"a {self}"


NOUNS = {int: "integer", float: "number", bool: "true | false", str: "text", Path: "path"}


def kind_of(hint: Any) -> Kind:
    """Return the kind of a type.

    Args:
        hint: int, float, bool, str, Path, a Literal of strings, or Optional of these.
    """
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = [option for option in options if option is not type(None)]
        if len(inner) == 1:
            return kind_of(inner[0])._replace(optional=True)
    if origin is Literal:
        return Kind(str, tuple(options))
    return Kind(hint)


@cache
def kinds_of(settings: type) -> Mapping[str, Kind]:
    """Return the kind of each field of a dataclass; cached, since a sweep checks every run."""
    hints = get_type_hints(settings)
    kinds = {
        f.name: kind_of(hints[f.name])._replace(limits=f.metadata.get("limits"))
        for f in dataclasses.fields(settings)
    }
    return types.MappingProxyType(kinds)


class Settings:
    """Base of the dataclasses whose fields are declared with `setting`."""

    def __post_init__(self) -> None:
        """Check all fields; subclasses add conditions between several fields."""
        check_fields(self)

    def to_json(self) -> dict[str, Any]:
        """Return the fields that differ from their constant defaults, as values of JSON."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        values = {f.name: getattr(self, f.name) for f in fields}
        changed = {f.name: values[f.name] for f in fields if values[f.name] != f.default}
        return {k: str(v) if isinstance(v, Path) else v for k, v in changed.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the settings that `to_json` has described.

        Raises:
            UserError: a name is unknown, or a value is of another type or out of range.
        """
        require_known(cls, values)
        kinds = kinds_of(cls)  # type: ignore[arg-type]  # mypy knows no hash of `Self`
        paths = {k for k, kind in kinds.items() if kind.type is Path}
        read = {k: Path(v) if k in paths and type(v) is str else v for k, v in values.items()}
        return cls(**read)


def check_fields(settings: Any) -> None:
    """Check that each field of a dataclass has its declared type and lies in its valid range.

    Raises:
        UserError: a field does not; the message names the value and the valid values.
    """
    for name, kind in kinds_of(settings.__class__).items():
        value = getattr(settings, name)
        if value is None and kind.optional:
            continue
        accepted = (int, float) if kind.type is float else kind.type
        fits = isinstance(value, accepted) and (kind.type is bool or not isinstance(value, bool))
        fits = fits and (not kind.choices or value in kind.choices)
        require(fits, f"{name}={value}: must be {kind.needed}")
        if kind.limits is not None:
            kind.limits.check(name, value)


def require(condition: bool, message: str) -> None:
    """Raise an error with this message unless a condition holds.

    Raises:
        UserError: the condition is false.
    """
    if not condition:
        raise UserError(message)


def require_ordered(settings: Any, lesser: str, greater: str, *, equal: bool = True) -> None:
    """Check that one field does not exceed another.

    Args:
        settings: dataclass with both fields.
        lesser: name of the field with the smaller value.
        greater: name of the field with the larger value.
        equal: whether the values may be equal.

    Raises:
        UserError: they are in the wrong order.
    """
    low, high = getattr(settings, lesser), getattr(settings, greater)
    relation = "at most" if equal else "less than"
    fits = low < high or (equal and low == high)
    require(fits, f"{lesser}={low}: must be {relation} {greater}={high}")


def require_default(settings: Any, name: str, because: str) -> None:
    """Check that a field has its default, since another setting leaves it without effect.

    Args:
        settings: dataclass with the field.
        name: name of the field.
        because: the other setting, as it is written in a command.

    Raises:
        UserError: it has another value.
    """
    value = getattr(settings, name)
    no_effect = f"{name}={value}: has no effect with {because}; use only one of them"
    require(value == getattr(type(settings), name), no_effect)


def require_no_option(config: type, options: Collection[str]) -> None:
    """Check that no field of a dataclass of hyperparameters is also an option of the commands.

    Raises:
        UserError: a field is.
    """
    for name in kinds_of(config):
        require(
            name not in options,
            f"config field '{name}' is an option of the commands; rename it",
        )


def require_known(settings: type[Any], names: Any) -> None:
    """Check that all names are fields of a dataclass of hyperparameters.

    Raises:
        UserError: a name is not a field; the message suggests the nearest one.
    """
    known = [field.name for field in dataclasses.fields(settings)]
    for name in names:
        if name not in known:
            raise UserError(f"unknown setting '{name}'{did_you_mean(name, known)}")
