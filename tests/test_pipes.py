"""A named pipe in the place of a file keeps no reader of records waiting."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from analysis import make_figures, report
from sweeps import launch, status
from tdmpc2.bundle import __main__ as bundle
from tdmpc2.common.run.lock import live_holder
from tdmpc2.common.system.errors import UserError, one_line
from tests.analysis.run_files import write_reference_scores, write_run
from tests.damages import damage
from tests.sweeps.directories import plan, write_status, write_sweep
from tests.test_fuzz_files import CASES, Case, ablation_specs, archives, models

SECONDS = 120
# Arguments of commands, which may be pipes on purpose: `specs=<(generate)`.
ARGUMENTS = (ablation_specs, archives, models)
FOUND = [case for case in CASES if case not in ARGUMENTS]


@pytest.fixture(autouse=True)
def _limited_time() -> Iterator[None]:
    """Fail instead of waiting for ever."""

    def fail(number: int, frame: FrameType | None) -> None:
        raise AssertionError("a reader waits for a pipe")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("how", ["pipe", "socket"])
@pytest.mark.parametrize("case", FOUND, ids=lambda case: case.__name__)
def test_readers(case: Callable[[Path], Case], how: str, tmp_path: Path) -> None:
    patterns, read = case(tmp_path)
    files = sorted({p for pattern in patterns for p in tmp_path.glob(pattern) if p.is_file()})
    assert files
    for path in files:
        content = path.read_bytes()
        damage(path, how)
        message = ""
        try:
            read(tmp_path)
        except UserError as error:
            message = str(error)
        assert message == one_line(message)
        path.unlink()
        path.write_bytes(content)


RECORDS = ("spec.json", "status.json", "eval.csv", "train.csv", "timing.csv", "attempts.json")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of runs in which each record of one run is a pipe, beside a whole run."""
    runs = tmp_path / "runs"
    for seed, name in enumerate(RECORDS, start=1):
        path = write_run(runs, [(0, 10.0), (100_000, 500.0)], seed=seed) / name
        path.touch()
        damage(path, "pipe")
    write_run(runs, [(0, 10.0), (100_000, 500.0)], seed=9)
    write_reference_scores(runs, "walker-walk", (43.0, 12.0), (20.0, 5.0))
    damage(runs / "floors" / "walker-walk.json", "pipe")
    os.mkfifo(runs / ".records-cache.parquet")
    study = runs / "studies" / "one" / "registered.toml"
    study.parent.mkdir(parents=True)
    os.mkfifo(study)
    return runs


def test_figures_and_report(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = [f"runs={runs}", "published="]
    names = "learning_curves,training_losses,appendix_wall_time"
    make_figures.main([*common, f"out={tmp_path / 'figures'}", f"only={names}"])
    report.main([*common, f"out={tmp_path / 'report.html'}", "reps=200"])
    printed = capsys.readouterr()
    for name in ("spec.json", "eval.csv", "walker-walk.json"):
        assert f"{name}: cannot be read" in printed.out + printed.err


def test_a_bundle_names_the_pipe(runs: Path, tmp_path: Path) -> None:
    with pytest.raises((UserError, OSError), match="a named pipe, not a file"):
        bundle.main([f"runs={runs}", f"out={tmp_path / 'bundle'}"])


def test_a_lease_that_is_a_pipe_is_nobodys(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lease.json")
    assert live_holder(tmp_path) is None


def test_sweeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The logs and leases of runs, too: status and a plan pass over them."""
    planned = plan(tmp_path, 3, env_steps=100)
    write_status(planned[0], "RUNNING", 50)
    for run in planned[1:]:
        run.directory.mkdir(parents=True)
    write_sweep(tmp_path, planned)
    os.mkfifo(planned[0].directory / "lease.json")
    os.mkfifo(planned[1].directory / "log.txt")
    assert status.main([f"runs={tmp_path}", "list=true"]) == 1
    printed = capsys.readouterr().out
    assert printed.count(" stale ") >= 1
    arguments = ["tasks=toy-pointmass", "seeds=3", "env_steps=100", f"runs={tmp_path}"]
    assert launch.main([*arguments, "cluster=local", "dry_run=true"]) == 0
