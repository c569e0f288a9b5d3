"""Skips in CI: only those that the machine or absent data explain."""

from __future__ import annotations

import pytest

from tests.conftest import MAY_SKIP, _strict


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("could not import 'wandb': No module named 'wandb'", "failed"),
        ("missing: munged (apt-get install slurm-wlm munge)", "failed"),
        ("got empty parameter set for (name)", "failed"),
        ("only root can start a private SLURM", "failed"),
        *((reason, "skipped") for reason in MAY_SKIP),
    ],
)
def test_which_skips_are_failures_in_ci(
    reason: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ci, outcome in (("true", expected), ("", "skipped")):
        monkeypatch.setenv("CI", ci)
        where = ("test_x.py", 1, f"Skipped: {reason}")
        report = pytest.TestReport("x", ("test_x.py", 1, "x"), {}, "skipped", where, "setup")
        assert _strict(report).outcome == outcome
