"""Life cycle of a run: what is refused before training starts."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tdmpc2.common.run.spec import RunOptions
from tdmpc2.common.system.errors import UserError
from tdmpc2.runners.life_cycle import LocalRun
from tdmpc2.runners.specs import make_spec


def started(runs: Path, **options: bool) -> LocalRun:
    """Return a run whose lease was acquired and whose numerics are set up and recorded."""
    spec = make_spec("tdmpc2", "toy-pointmass", 1)
    run = LocalRun(spec, RunOptions(runs=runs, compile=False, **options), torch.device("cpu"))
    run.agent = SimpleNamespace(  # type: ignore[assignment]
        config=SimpleNamespace(precision="fp32"),
        accelerable=lambda: SimpleNamespace(bf16_layers=None),
    )
    with contextlib.ExitStack() as stack:
        run.acquire(stack)
        run.set_up_numerics()
        run.open_records()
        run.write_spec()
    return run


def test_a_missing_numeric_path_is_refused(tmp_path: Path) -> None:
    """Beside a checkpoint it is needed, and without one it is written."""
    run = started(tmp_path)
    file = run.directory / "numeric.json"
    recorded = file.read_bytes()
    file.unlink()
    started(tmp_path)
    assert file.read_bytes() == recorded
    file.unlink()
    (run.directory / "checkpoints" / f"{100:012d}").mkdir(parents=True)
    with pytest.raises(UserError, match=r"numeric\.json: missing.*allow_numeric_change=true"):
        started(tmp_path)
    assert not file.exists()
    started(tmp_path, allow_numeric_change=True)
    assert file.read_bytes() == recorded
