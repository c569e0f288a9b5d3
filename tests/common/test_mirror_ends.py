"""Services show how a run has ended."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tdmpc2.common.run.mirrors import Mirrors
from tdmpc2.common.run.schemas import State
from tests.common.test_mirrors import INSTALLED, SPEC, wandb_records

STATES: tuple[State, ...] = ("COMPLETED", "DIVERGED", "FAILED", "INTERRUPTED", "RUNNING")


def end_in_mlflow(directory: Path) -> str:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{directory / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'tdmpc2'")
    (run,) = client.search_runs([experiment.experiment_id])
    return str(run.info.status)


def end_in_wandb(directory: Path) -> str:
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # its process writes the end of the file
    (path,) = (directory / "wandb").glob("offline-run-*/*.wandb")
    records = map(wandb_internal_pb2.Record.FromString, wandb_records(path.read_bytes()))
    (code,) = (record.exit.exit_code for record in records if record.HasField("exit"))
    return f"exit code {code}"


ENDS = {
    "mlflow": (end_in_mlflow, ("FINISHED", "FAILED", "FAILED", "KILLED", "RUNNING")),
    "wandb": (end_in_wandb, ("exit code 0", *["exit code 1"] * 4)),
}


@pytest.mark.parametrize("name", sorted(ENDS.keys() & set(INSTALLED)))
def test_services_show_how_the_run_has_ended(name: str, tmp_path: Path) -> None:
    """Each attempt continues the run of the one before it."""
    read, expected = ENDS[name]
    assert set(STATES) == set(get_args(State))
    (tmp_path / "eval.csv").write_text("env_step,x\n0,1\n")
    found = []
    for state in STATES:
        Mirrors((name,), tmp_path, SPEC).close(state)
        found.append(read(tmp_path))
    assert tuple(found) == expected
