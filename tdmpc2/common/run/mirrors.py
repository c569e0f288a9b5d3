"""Mirrors of a run's records in TensorBoard, Weights & Biases, MLflow or elsewhere (`logger=`).

A mirror is a function of the CSV files: every attempt reads them from their beginning, and each
service drops the points that it has already. So no point is missing or repeated after a kill.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from tdmpc2.common.system.config_checks import require
from tdmpc2.common.system.errors import did_you_mean
from tdmpc2.common.system.regular_files import regular
from tdmpc2.common.system.user_code import described, load_object, message_of, place_in_user_code

PROJECT = "tdmpc2"
INSTALL = "pip install -e '.[loggers]'"
STEPS = ("env_step", "num_updates")
"""Columns that hold the step of a line; the first one that a file has is used."""


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

    def close(self) -> None:
        """Finish all writing."""
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

    def close(self) -> None:
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

    def close(self) -> None:
        """See `Mirror.close`."""
        self._run.finish()


class MLflow:
    """A run of MLflow, in `mlflow.db` of the run directory unless `MLFLOW_TRACKING_URI` is set.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        import mlflow
        from mlflow.entities import Metric

        default = f"sqlite:///{run.directory.absolute() / 'mlflow.db'}"
        uri = os.environ.get("MLFLOW_TRACKING_URI", default)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._metric = Metric
        self._client = mlflow.MlflowClient(tracking_uri=uri)
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

    def close(self) -> None:
        """See `Mirror.close`."""
        self._client.set_terminated(self._run)

    def _find(self, run: Run) -> str:
        """Return the id of the service's run; create it in the first attempt."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        runs = self._client.search_runs([experiment], f"tags.tdmpc2_run = '{run.key}'")
        if runs:
            return str(runs[0].info.run_id)
        created = self._client.create_run(
            experiment, tags={"tdmpc2_run": run.key}, run_name=run.name
        )
        for key, value in run.config.items():
            self._client.log_param(created.info.run_id, key, value)
        return str(created.info.run_id)

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


def parse_loggers(text: str | None) -> tuple[str, ...]:
    """Return the names in the value of `logger=`; `package.module:Class` names one of one's own.

    Raises:
        UserError: a name is unknown or repeated, its package is not installed, or it cannot be
            imported.
    """
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    for place, name in enumerate(names):
        require(name not in names[:place], f"logger={text}: {name} is named twice")
        if ":" in name:
            _own_logger(name)
            continue
        require(
            name in LOGGERS,
            f"logger={text}: unknown logger '{name}'{did_you_mean(name, LOGGERS)}; a logger of "
            "your own is named as package.module:Class",
        )
        package = LOGGERS[name][0]
        installed = importlib.util.find_spec(package) is not None
        require(installed, f"logger={name}: needs {package}, which is not installed: {INSTALL}")
    return tuple(names)


def _own_logger(name: str) -> Callable[[Run], Mirror]:
    """Return the class that `package.module:Class` names.

    Raises:
        UserError: it cannot be imported, or lacks a method of `Mirror`.
    """
    found = load_object(f"logger={name}", name)
    lacking = [method for method in ("add", "close") if not hasattr(found, method)]
    what = name.partition(":")[2]
    require(not lacking, f"logger={name}: {what} has no method {' and '.join(lacking)}")
    return cast("Callable[[Run], Mirror]", found)


class Mirrors:
    """The mirrors of a run. One that fails is reported once and left out from then on.

    Args:
        names: names of the loggers.
        directory: the run directory.
        spec: description of the run; its entries are the configuration to show.
    """

    def __init__(self, names: Sequence[str], directory: Path, spec: Mapping[str, Any]) -> None:
        place = hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:10]
        title = f"{spec['method']} {spec['variant']} {spec['task']} seed {spec['seed']}"
        run = Run(directory, f"{spec['identity']}-{place}", title, spec)
        self._lines = CsvLines(directory)
        self._mirrors: dict[str, Mirror] = {}
        for name in names:
            maker = _own_logger(name) if ":" in name else LOGGERS[name][1]
            with self._guarded(name):
                self._mirrors[name] = _checked(maker(run._replace(config=dict(spec))))

    def update(self) -> None:
        """Log all new lines of the CSV files."""
        for point in self._lines.new() if self._mirrors else ():
            for name, mirror in list(self._mirrors.items()):
                with self._guarded(name):
                    # Copies, since one logger may change what it gets.
                    mirror.add(point._replace(values=dict(point.values)))

    def close(self) -> None:
        """Log all new lines and finish all writing; further calls have no effect."""
        self.update()
        for name, mirror in list(self._mirrors.items()):
            with self._guarded(name):
                mirror.close()
        self._mirrors = {}

    @contextlib.contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """After an error of a logger, print a warning and drop the logger."""
        try:
            yield
        except (Exception, SystemExit) as error:
            self._mirrors.pop(name, None)
            what = f"{type(error).__name__}: {message_of(error)}"
            if place_in_user_code(error) is not None:
                what = described(error)
            print(
                f"warning: logger={name} has failed and is left out ({what}); the run continues, "
                "and resuming it logs everything",
                file=sys.stderr,
            )


def _checked(mirror: Any) -> Mirror:
    """Return what a class or function of a logger made.

    Raises:
        TypeError: it cannot be called as a logger.
    """
    for method in ("add", "close"):
        if not callable(getattr(mirror, method, None)):
            raise TypeError(f"it made {type(mirror).__name__}, which has no method {method}")
    return cast("Mirror", mirror)


class CsvLines:
    """Reads the new complete lines of `train.csv` and `eval.csv` in the order of their steps.

    Args:
        directory: the run directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._columns: dict[str, list[str]] = {}
        self._positions = dict.fromkeys(("train", "eval"), 0)
        self._count = 0

    def new(self) -> Iterator[Point]:
        """Yield the lines that were appended since the last call."""
        rows = [row for name in self._positions for row in self._new_rows(name)]
        for step, name, row in sorted(rows, key=lambda one: (one[0], one[1] == "eval")):
            texts = [v for k, v in row.items() if not _is_number(v)]
            prefix = "/".join((name, *texts))
            values = {f"{prefix}/{k}": float(v) for k, v in row.items() if _is_number(v)}
            video = self._directory / "videos" / f"{step}.mp4"
            shown = video if name == "eval" and video.exists() else None
            yield Point(self._count, step, values, shown)
            self._count += 1

    def _new_rows(self, name: str) -> Iterator[tuple[int, str, dict[str, str]]]:
        path = self._directory / f"{name}.csv"
        if not path.exists():
            return
        with open(regular(path, None), "rb") as file:
            file.seek(self._positions[name])
            content = file.read()
        complete = content[: content.rfind(b"\n") + 1]
        self._positions[name] += len(complete)
        for cells in csv.reader(complete.decode().splitlines()):
            columns = self._columns.setdefault(name, cells)
            if columns is not cells:
                row = dict(zip(columns, cells, strict=True))
                yield int(next(row[key] for key in STEPS if key in row)), name, row


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
