"""Loggers: TensorBoard, Weights & Biases and MLflow behind one interface."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tdmpc2.common.run.schemas import State

PROJECT = "tdmpc2"


class Point(NamedTuple):
    """One line of a CSV file.

    Attributes:
        number: number of the line among those of all files, from 0.
        step: step in the unit of the run's budget.
        values: value of each numeric column by name, such as `eval/episode_return`.
        video: video of the evaluation; None if there is none.
    """

    number: int
    step: int
    values: Mapping[str, float]
    video: Path | None


class Run(NamedTuple):
    """What a mirror knows of a run.

    Attributes:
        directory: the run directory.
        key: key of the run, equal in all attempts.
        name: name to show.
        config: settings to show.
    """

    directory: Path
    key: str
    name: str
    config: Mapping[str, Any]


class Mirror(Protocol):
    """One service."""

    def add(self, point: Point) -> None:
        """Log a point, unless the service has it from an earlier attempt."""
        ...

    def close(self, state: State) -> None:
        """Finish all writing.

        Args:
            state: state of the run at the end of this attempt; RUNNING if another process
                continues it. Classes of users may have `close` without it.
        """
        ...


class TensorBoard:
    """Event files in `tensorboard/` of the run directory, written anew by every attempt.

    TensorBoard shows no mp4 files; their paths are logged as text.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.directory / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        self._writer: Any = SummaryWriter(str(folder))
        rows = (f"|{key}|{value}|" for key, value in run.config.items())
        self._writer.add_text("config", "\n".join(["|setting|value|", "|---|---|", *rows]))

    def add(self, point: Point) -> None:
        """See `Mirror.add`."""
        for name, value in point.values.items():
            self._writer.add_scalar(name, value, point.step)
        if point.video is not None:
            self._writer.add_text("video", str(point.video), point.step)
        self._writer.flush()

    def close(self, state: State) -> None:
        """See `Mirror.close`."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases: offline in `wandb/`, unless `WANDB_MODE` is set.

    An offline record is written anew by every attempt. A server says how many points it has.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        import wandb

        mode = os.environ.get("WANDB_MODE", "offline")
        if mode == "offline":
            shutil.rmtree(run.directory / "wandb", ignore_errors=True)
        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run.key,
            name=run.name,
            config=dict(run.config),
            dir=str(run.directory),
            mode=mode,
            resume="allow" if mode == "online" else None,
            reinit="create_new",  # beside the runs of other seeds in this process
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._known = self._run.step

    def add(self, point: Point) -> None:
        """See `Mirror.add`."""
        if point.number < self._known:
            return
        values: dict[str, Any] = {"step": point.step, **point.values}
        if point.video is not None:
            values["video"] = self._wandb.Video(str(point.video), format="mp4")
        self._run.log(values, step=point.number)

    def close(self, state: State) -> None:
        """See `Mirror.close`."""
        self._run.finish(exit_code=int(state != "COMPLETED"))


_MLFLOW_STATES: Mapping[State, str] = {
    "COMPLETED": "FINISHED",
    "DIVERGED": "FAILED",
    "FAILED": "FAILED",
    "INTERRUPTED": "KILLED",
}
"""State of a run of MLflow at the end of an attempt."""


class MLflow:
    """A run of MLflow, in `mlflow.db` of the run directory unless `MLFLOW_TRACKING_URI` is set.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        import mlflow
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        default = f"sqlite:///{run.directory.absolute() / 'mlflow.db'}"
        uri = os.environ.get("MLFLOW_TRACKING_URI", default)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._metric = Metric
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        try:
            self._run = self._find(run)
        except MlflowException:  # perhaps another run has created the experiment meanwhile
            self._run = self._find(run)
        self._known: dict[str, set[int]] = {}

    def add(self, point: Point) -> None:
        """See `Mirror.add`."""
        new = {k: v for k, v in point.values.items() if point.step not in self._steps_of(k)}
        metrics = [self._metric(k, v, 0, point.step) for k, v in new.items()]
        if metrics:
            self._client.log_batch(self._run, metrics=metrics)
        if point.video is not None:
            self._client.log_artifact(self._run, str(point.video), "videos")

    def close(self, state: State) -> None:
        """See `Mirror.close`."""
        if state != "RUNNING":
            self._client.set_terminated(self._run, _MLFLOW_STATES[state])

    def _find(self, run: Run) -> str:
        """Return the id of the service's run; create it in the first attempt."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        runs = self._client.search_runs([experiment], f"tags.tdmpc2_run = '{run.key}'")
        ours = (
            runs[0]
            if runs
            else self._client.create_run(
                experiment, tags={"tdmpc2_run": run.key}, run_name=run.name
            )
        )
        identifier = str(ours.info.run_id)
        self._client.update_run(identifier, status="RUNNING")
        settings = dict(run.config)
        # Parameters cannot be changed, but a finished run may continue to a larger budget.
        self._client.set_tag(identifier, "budget", settings.pop("budget"))
        for key in settings.keys() - ours.data.params.keys():  # none are lost by a kill
            self._client.log_param(identifier, key, settings[key])
        return identifier

    def _steps_of(self, name: str) -> set[int]:
        """Return the steps at which the service has a metric from earlier attempts."""
        if name not in self._known:
            history = self._client.get_metric_history(self._run, name)
            self._known[name] = {metric.step for metric in history}
        return self._known[name]


LOGGERS: Mapping[str, tuple[str, Callable[[Run], Mirror]]] = {
    "tensorboard": ("tensorboard", TensorBoard),
    "wandb": ("wandb", WeightsAndBiases),
    "mlflow": ("mlflow", MLflow),
}
"""Package and class of each logger."""
