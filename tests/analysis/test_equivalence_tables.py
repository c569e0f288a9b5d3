"""Names of runs in tables of verdicts and in the report's summary."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis import reproduce
from tests.analysis.report_files import LATE, content, headlines, publish
from tests.analysis.run_files import write_run


@pytest.mark.parametrize(
    ("facts", "published", "mark"),
    [
        ({"assets": "standin"}, "tdmpc2", " (default[assets=standin])"),
        ({"obs": "rgb"}, "tdmpc2-pixels", " (default[obs=rgb])"),
        ({"variant": "no-simnorm"}, "tdmpc2", " (no-simnorm)"),
        ({"overrides": {"precision": "bf16"}}, "tdmpc2", ""),
        ({}, "tdmpc2", ""),
    ],
)
def test_verdicts_name_what_is_not_the_papers_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], facts, published, mark
) -> None:
    """Also if all runs have it, so that it distinguishes none of them."""
    paper, runs = publish(tmp_path, published, LATE), f"runs={tmp_path / 'runs'}"
    for seed, score in enumerate((795.0, 800.0, 805.0), start=1):
        points = {0: 0.0, 100_000: 700.0, 200_000: score}
        write_run(tmp_path / "runs", points, seed=seed, budget=200_000, **facts)
    variant = f"variant={facts.get('variant', 'default')}"
    reproduce.main([runs, paper, variant, "tasks=walker-walk"])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(f"tdmpc2{mark}  ") for line in lines) == 2  # task and domain
    if "variant" not in facts:
        headlines(tmp_path, runs, paper)
        assert f": TD-MPC2{mark} on DMControl (1 of " in content(tmp_path)["summary"]
