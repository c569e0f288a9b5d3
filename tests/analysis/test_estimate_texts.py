"""Texts of estimates with their intervals."""

from __future__ import annotations

from math import nan

import pytest

from analysis.stats.estimate_texts import bounds_text, estimate_text, share_text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((87.84, 87.3, 88.4), "87.8 [87.3, 88.4]"),
        ((87.84, 87.3, 88.4, 0.95), "87.8 [87.3, 88.4]"),
        ((87.84, 87.3, 88.4, 0.88), "87.8 [87.3, 88.4] (88 %)"),
        ((87.84, nan, nan, 0.88), "87.8"),
        ((100.0, 100.0, 100.0 + 1e-13, 1.0), "100.0"),
        ((nan, nan, nan), ""),
    ],
)
def test_estimates(numbers: tuple[float, ...], text: str) -> None:
    assert estimate_text(*numbers) == text


def test_formats() -> None:
    assert estimate_text(-3.14, -5.0, 1.0, form="+.1f") == "-3.1 [-5.0, +1.0]"
    assert bounds_text(0.25, 0.75, ".2f") == "[0.25, 0.75]"


@pytest.mark.parametrize(
    ("share", "text"), [(0.025, "2.5 %"), (1.0, "100 %"), (0.00714, "0.714 %"), (nan, "–")]
)
def test_small_shares_are_not_rounded_to_whole_percents(share: float, text: str) -> None:
    assert share_text(share) == text
