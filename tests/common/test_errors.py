"""Hints for misspelled names."""

from __future__ import annotations

import pytest

from tdmpc2.common.system.errors import did_you_mean

NAMES = ["seed", "suite", "task", 3]


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("suit", " (did you mean 'suite'?)"),
        ("tsak", " (did you mean 'task'?)"),
        ("xyz", " (valid: 3, seed, suite, task)"),
    ],
)
def test_hints(argument: str, hint: str) -> None:
    assert did_you_mean(argument, NAMES) == hint


def test_no_choices_no_hint() -> None:
    assert did_you_mean("word", []) == ""
