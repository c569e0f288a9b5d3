"""Validation of the hyperparameter dataclasses that all methods share."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any, get_args, get_type_hints

from tdmpc2.common.system.errors import UserError, did_you_mean


def require(condition: bool, message: str) -> None:
    """Raise an error with this message unless a condition holds.

    Raises:
        UserError: the condition is false.
    """
    if not condition:
        raise UserError(message)


def require_known(settings: type[Any], names: Any) -> None:
    """Check that all names are fields of a dataclass of hyperparameters.

    Raises:
        UserError: a name is not a field; the message suggests the nearest one.
    """
    known = [field.name for field in dataclasses.fields(settings)]
    for name in names:
        if name not in known:
            raise UserError(f"unknown setting '{name}'{did_you_mean(name, known)}")


def require_choices(settings: Any) -> None:
    """Check that every field of type Literal has one of its valid values."""
    for name, valid in _choices(settings.__class__).items():
        value = getattr(settings, name)
        require(value in valid, f"{name}={value}: must be one of {', '.join(valid)}")


@cache
def _choices(settings: type) -> dict[str, tuple[str, ...]]:
    """Return the valid values of each Literal field; cached, since a sweep checks every run."""
    choices = {name: get_args(hint) for name, hint in get_type_hints(settings).items()}
    return {k: v for k, v in choices.items() if v and all(isinstance(value, str) for value in v)}


def require_positive(settings: Any, *names: str) -> None:
    """Check that each of these fields is at least 1 or None."""
    for name in names:
        value = getattr(settings, name)
        require(value is None or value >= 1, f"{name}={value}: must be at least 1")


def require_fraction(settings: Any, *names: str) -> None:
    """Check that each of these fields lies in [0, 1]."""
    for name in names:
        value = getattr(settings, name)
        require(0.0 <= value <= 1.0, f"{name}={value}: must lie in [0, 1]")
