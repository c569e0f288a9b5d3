"""What the settings of every method have in common: how they are built, and what they refuse."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any, get_args, get_type_hints

from tdmpc2.common.system.errors import UserError, did_you_mean


def require(condition: bool, message: str) -> None:
    """Refuses settings.

    Raises:
        UserError: the condition doesn't hold.
    """
    if not condition:
        raise UserError(message)


def require_known(settings: type[Any], names: Any) -> None:
    """Refuses names that are no field of a dataclass of settings."""
    known = [field.name for field in dataclasses.fields(settings)]
    for name in names:
        if name not in known:
            raise UserError(f"unknown setting '{name}'{did_you_mean(name, known)}")


def require_choices(settings: Any) -> None:
    """Every field that names its values has one of them."""
    for name, valid in _choices(settings.__class__).items():
        value = getattr(settings, name)
        require(value in valid, f"{name}={value}: must be one of {', '.join(valid)}")


@cache
def _choices(settings: type) -> dict[str, tuple[str, ...]]:
    """Fields that name their values; a sweep asks for each of its runs."""
    choices = {name: get_args(hint) for name, hint in get_type_hints(settings).items()}
    return {k: v for k, v in choices.items() if v and all(isinstance(one, str) for one in v)}


def require_positive(settings: Any, *names: str) -> None:
    """Each of these fields is at least 1, where it has a value at all."""
    for name in names:
        value = getattr(settings, name)
        require(value is None or value >= 1, f"{name}={value}: must be at least 1")


def require_fraction(settings: Any, *names: str) -> None:
    """Each of these fields lies in [0, 1]."""
    for name in names:
        value = getattr(settings, name)
        require(0.0 <= value <= 1.0, f"{name}={value}: must lie in [0, 1]")
