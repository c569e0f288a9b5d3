"""Services show how a run has ended, and all of it if it is started again after its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from tdmpc2.common.run.mirrors import Mirrors
from tdmpc2.common.run.schemas import State
from tests.common.test_mirrors import SPEC, wandb_records
from tests.kill_driver import Command
from tests.runs import arguments, run_directory, snapshot

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


@pytest.mark.parametrize("name", ENDS)
def test_services_show_how_the_run_has_ended(name: str, tmp_path: Path) -> None:
    """Each attempt continues the run of the one before it."""
    pytest.importorskip(name)
    read, expected = ENDS[name]
    assert set(STATES) == set(get_args(State))
    (tmp_path / "eval.csv").write_text("env_step,x\n0,1\n")
    found = []
    for state in STATES:
        Mirrors((name,), tmp_path, SPEC).close(state)
        found.append(read(tmp_path))
    assert tuple(found) == expected


def test_mlflow_loses_nothing_of_runs_that_start_together_or_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'shared.db'}")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    Mirrors(("mlflow",), tmp_path / "first", SPEC)

    def unfinished(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # it creates a run and is ended during its parameters
        answers = [None]  # the experiment is created between the question and the creation
        ask = mlflow.MlflowClient.get_experiment_by_name
        patch.setattr(
            mlflow.MlflowClient,
            "get_experiment_by_name",
            lambda client, name: answers.pop() if answers else ask(client, name),
        )
        patch.setattr(mlflow.MlflowClient, "log_param", unfinished)
        with pytest.raises(KeyboardInterrupt):
            Mirrors(("mlflow",), tmp_path / "second", SPEC)
    Mirrors(("mlflow",), tmp_path / "second", {**SPEC, "budget": 400})
    assert capsys.readouterr().err == ""
    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'tdmpc2'")
    second, first = (run.data for run in client.search_runs([experiment.experiment_id]))
    assert second.params == first.params == {k: str(v) for k, v in SPEC.items() if k != "budget"}
    assert (first.tags["budget"], second.tags["budget"]) == ("200", "400")


FAILING = """
class Logger:
    def __init__(self, run):
        self.file = open(run.directory / "points.txt", "w")
        print(run.config["budget"], file=self.file, flush=True)

    def add(self, point):
        if point.number == 1 and "FAIL" in __import__("os").environ:
            raise ConnectionError
        print(point.number, file=self.file, flush=True)

    def close(self, state):
        print(state, file=self.file, flush=True)
"""


def test_a_finished_run_is_mirrored_by_the_same_command(tmp_path: Path) -> None:
    """After a logger has failed; nothing else of the run changes, nor does its budget."""
    (tmp_path / "my_logger.py").write_text(FAILING)
    line = arguments(tmp_path / "runs", logger="my_logger:Logger", env_steps=180)  # ends at 200
    env = {"PYTHONPATH": str(tmp_path)}
    done = Command(line, env={**env, "FAIL": "1"}).run()
    assert done.code == 0
    assert "train.py (or finetune.py) with the settings of this run logs" in done.err
    directory = run_directory(tmp_path / "runs")
    points = directory / "points.txt"
    assert points.read_text() == "180\n0\n"
    before = snapshot(directory)
    again = Command(line, env=env).run()
    assert (again.code, again.err) == (0, ""), again
    budget, *numbers, state = points.read_text().split()
    texts = [(directory / f"{name}.csv").read_text() for name in ("eval", "train")]
    assert [int(number) for number in numbers] == list(range(sum(t.count("\n") - 1 for t in texts)))
    assert (budget, state) == ("180", "COMPLETED")
    after = snapshot(directory)
    assert {name for name in before | after if before.get(name) != after.get(name)} == {
        "points.txt"
    }
