"""What the summary of a sweep says of runs that this launch has not trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.tracking.progress import print_multitask_summary, print_summary
from tdmpc2.common.run.lock import Lease
from tests.sweeps.directories import plan


@pytest.mark.parametrize("multitask", [False, True])
def test_runs_that_another_process_trains_are_counted(
    multitask: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = plan(tmp_path, 3, env_steps=100)
    for run in runs:
        run.directory.mkdir(parents=True)
        run.status, run.must_learn = {"state": "RUNNING"}, None
    runs[2].started = True  # by this launch, which waits for it
    with Lease(runs[0].directory), Lease(runs[2].directory):
        code = print_multitask_summary(runs) if multitask else print_summary(runs, [None] * 3)
    assert code == 1
    assert "\n1 run not finished: trained by other processes" in capsys.readouterr().out
