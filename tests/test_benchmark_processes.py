"""Benchmarks that measure other processes: killed ones, and the peak memory of each."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from tests.benchmark_workers import killed_or_measured

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))  # as if they were started as scripts


def test_a_killed_process_does_not_end_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = importlib.import_module("memory")
    monkeypatch.setattr(memory, "measure", killed_or_measured)
    assert memory.main(["tasks=toy-pointmass,toy-pointmass-episodic"]) == 1
    *_, killed, measured = capsys.readouterr().out.splitlines()
    assert killed.startswith("toy-pointmass: its process crashed or was killed")
    assert measured == "| toy-pointmass-episodic | toy | 8 | 3.00 |"


LARGE = "x = b'x' * 200_000_000"


@pytest.mark.parametrize(
    ("code", "large"),
    [
        (LARGE, True),
        (f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LARGE!r}])", True),
        ("pass", False),
    ],
)
def test_the_peak_of_a_command_is_its_own(code: str, large: bool) -> None:
    """Or that of a process that it has waited for; not that of this one, or of an earlier one."""
    script = importlib.import_module("analysis_scale")
    seconds, peak = script.seconds_and_peak([sys.executable, "-c", code])
    assert seconds > 0
    assert (peak > 0.2) if large else (peak < 0.1)


def test_a_failed_command_is_not_timed() -> None:
    script = importlib.import_module("analysis_scale")
    with pytest.raises(SystemExit, match="no such thing"):
        script.seconds_and_peak([sys.executable, "-c", "raise SystemExit('no such thing')"])
