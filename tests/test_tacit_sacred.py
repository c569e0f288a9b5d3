"""What we assume of sacred 0.8.7: a test here that fails says which workaround to revisit."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sacred import SETTINGS, Experiment
from sacred.observers import FileStorageObserver
from sacred.utils import SacredInterrupt


@pytest.fixture(autouse=True)
def _capture_by_replacing_sys_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETTINGS, "CAPTURE_MODE", "sys")


def experiment(
    folder: Path, main: Callable[[Any], Any], config: dict[str, Any] | None = None
) -> Experiment:
    made = Experiment("x", save_git_info=False)
    made.logger = logging.getLogger("tests.sacred")
    made.add_config({"seed": 3, **(config or {})})
    made.observers.append(FileStorageObserver(folder, copy_sources=False))

    def run_main(_run: Any) -> Any:
        return main(_run)

    made.main(run_main)
    return made


def status(folder: Path, number: int = 1) -> str:
    return json.loads((folder / str(number) / "run.json").read_text())["status"]


def test_attempts_get_ids_from_1_on(tmp_path: Path) -> None:
    for _ in range(3):
        experiment(tmp_path, lambda run: None).run()
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2", "3"}


def test_a_failed_observer_is_dropped_and_the_run_goes_on(tmp_path: Path) -> None:
    """Whoever looks at the exit code alone never learns of it: `tracker.track` looks."""

    def main(run: Any) -> None:
        (tmp_path / "1" / "metrics.json").mkdir()
        run.log_scalar("x", 1.0, 1)

    made = experiment(tmp_path, main)
    run = made.run()
    assert run.status == "COMPLETED"
    assert run._failed_observers == made.observers


def test_global_generators_are_reseeded_at_the_start_of_a_run(tmp_path: Path) -> None:
    """So our own seeding must come after it."""
    drawn = []

    def main(run: Any) -> None:
        drawn.append((np.random.random(), random.random(), torch.rand(()).item()))

    for seed in (100, 200):
        np.random.seed(seed)
        random.seed(seed)
        torch.manual_seed(seed)
        experiment(tmp_path, main).run()
    assert drawn[0] == drawn[1]
    assert drawn[0][0] == np.random.RandomState(3).random_sample()


def test_an_interrupt_names_its_status(tmp_path: Path) -> None:
    class Preempted(SacredInterrupt):
        STATUS = "PREEMPTED"

    def main(run: Any) -> None:
        raise Preempted

    with pytest.raises(Preempted):
        experiment(tmp_path, main).run()
    assert status(tmp_path) == "PREEMPTED"


def test_other_errors_are_failures_and_come_out(tmp_path: Path) -> None:
    def main(run: Any) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        experiment(tmp_path, main).run()
    assert status(tmp_path) == "FAILED"


def test_while_it_goes_on_a_run_is_recorded_as_running(tmp_path: Path) -> None:
    """And it stays so when the process is killed: `status.json` tells the truth."""
    seen = []
    experiment(tmp_path, lambda run: seen.append(status(tmp_path))).run()
    assert seen == ["RUNNING"]


def test_metrics_are_rewritten_whole_at_a_heartbeat(tmp_path: Path) -> None:
    """Its file grows with every figure and every beat, so few figures are logged there."""
    path = tmp_path / "1" / "metrics.json"
    sizes = []

    def main(run: Any) -> None:
        for step in range(3):
            run.log_scalar("x", 1.0, step)
            run._emit_heartbeat()
            sizes.append(len(json.loads(path.read_text())["x"]["values"]))

    experiment(tmp_path, main).run()
    assert sizes == [1, 2, 3]
