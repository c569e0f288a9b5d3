"""Mirrors of a run's records in TensorBoard, Weights & Biases, MLflow or elsewhere (`logger=`).

A mirror is a function of the CSV files: every attempt reads them from their beginning, and each
service drops the points that it has already. So no point is missing or repeated after a kill.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from tdmpc2.common.run.loggers import LOGGERS, Mirror, Point, Run
from tdmpc2.common.run.schemas import State
from tdmpc2.common.system.config_checks import require
from tdmpc2.common.system.errors import did_you_mean
from tdmpc2.common.system.regular_files import regular
from tdmpc2.common.system.user_code import described, load_object, message_of, place_in_user_code

INSTALL = "pip install -e '.[loggers]'"
STEPS = ("env_step", "num_updates")
"""Columns that hold the step of a line; the first one that a file has is used."""


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

    def close(self, state: State) -> None:
        """Log all new lines and finish all writing; further calls have no effect.

        Args:
            state: see `Mirror.close`.
        """
        self.update()
        for name, mirror in list(self._mirrors.items()):
            with self._guarded(name):
                # Classes of users may take no state.
                mirror.close(*([state] if inspect.signature(mirror.close).parameters else []))
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
                f"warning: logger={name} has failed and is left out ({what}); train.py (or "
                "finetune.py) with the settings of this run logs everything, also after its end",
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
