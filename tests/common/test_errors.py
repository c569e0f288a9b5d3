"""Hints for misspelt words."""

from __future__ import annotations

import pytest

from tdmpc2.common.system.errors import did_you_mean

WORDS = ["seed", "suite", "task", 3]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("suit", " (did you mean 'suite'?)"),
        ("tsak", " (did you mean 'task'?)"),
        ("xyz", " (valid: 3, seed, suite, task)"),
    ],
)
def test_hints(word: str, hint: str) -> None:
    assert did_you_mean(word, WORDS) == hint


def test_no_choices_no_hint() -> None:
    assert did_you_mean("word", []) == ""
