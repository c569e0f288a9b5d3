"""Cache of parsed run directories, so that unchanged ones are not read again.

One Parquet file in the runs folder holds, for each run directory, the state of its files (inode,
size, modification time) and the data read from them. The cache is optional: if it cannot be read
or written, or was written by another version of the reader, every run is read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.records import csv_lines, curve_checks, evaluations, run_reader
from analysis.records.evaluations import (
    LATER_METRICS,
    METRICS,
    MULTITASK_METRIC,
    Points,
    read_evaluations,
)
from analysis.records.problems import UNREADABLE, Problem
from analysis.records.run_reader import Run, read_run
from tdmpc2.common.system.atomic_files import write_atomic
from tdmpc2.common.system.regular_files import can_list, regular

CACHE_NAME = ".records-cache.parquet"
NO_METHODS = ("sweeps", "studies", "floors")
"""Folders beside those of the methods, which hold no runs."""
WATCHED = ("spec.json", "status.json", "attempts.json", "eval.csv")
_TEXTS = ("path", "signature", "run", "problems")
_COLUMNS = (*METRICS, *LATER_METRICS, MULTITASK_METRIC)

Reading = tuple[Run | None, Points, list[Problem]]
"""Content of a run directory: its facts (None if they are unusable), points and problems."""


def read_all(runs_dir: Path) -> Iterator[Reading]:
    """Yield the content of every run directory below `runs_dir`, sorted by path.

    Args:
        runs_dir: folder that holds `<method>/<variant>/<task>/seed<k>-<hash>/`.
    """
    directories, closed = _run_directories(runs_dir)
    signatures = {path: _signature(runs_dir / path) for path in directories}
    known = _read_cache(runs_dir)
    fresh: dict[str, tuple[str, Reading]] = {}
    for path in directories:
        cached = known.get(path)
        if cached is None or cached[0] != signatures[path]:
            cached = (signatures[path], _read(Path(runs_dir, path)))
        fresh[path] = cached
    # What one user may not read, others may, and an error of the file system may pass.
    lasting = {path: one for path, one in fresh.items() if not _has_unreadable(one[1])}
    if {path: s for path, (s, _) in known.items()} != {path: s for path, (s, _) in lasting.items()}:
        _write_cache(runs_dir, lasting)
    for path, (_, (run, points, problems)) in fresh.items():
        yield (None if run is None else {**run, "directory": runs_dir / path}), points, problems
    for path in closed:
        what = f"{UNREADABLE}: Permission denied; runs in it are left out"
        yield None, Points.of([]), [Problem(str(runs_dir / path), None, what)]


def _has_unreadable(reading: Reading) -> bool:
    return any(problem.what.startswith(UNREADABLE) for problem in reading[2])


def _read(directory: Path) -> Reading:
    """Read one run directory."""
    problems: list[Problem] = []
    run = read_run(directory, problems)
    if run is None:
        return None, Points.of([]), problems
    tasks = run["tasks"] if run["task_set"] else ()
    path = directory / "eval.csv"
    return run, read_evaluations(path, problems, tasks, task=run["task"]), problems


def _run_directories(runs_dir: Path) -> tuple[list[str], list[str]]:
    """Return the run directories and the folders that this user may not read.

    Both are paths relative to `runs_dir`, sorted.
    """
    folders, closed = [""], []
    for level in range(5):
        if level:
            folders = [
                os.path.join(folder, entry.name)
                for folder in folders
                for entry in _entries(runs_dir / folder)
                if level > 1 or entry.name not in NO_METHODS
            ]
        if level == 4:
            folders = [path for path in folders if os.path.basename(path).startswith("seed")]
        shut = [path for path in folders if not can_list(runs_dir / path)]
        if level or runs_dir.is_dir():
            closed += shut
        folders = [path for path in folders if path not in shut]
    return sorted(folders), sorted(closed)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the subfolders of `folder`; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_dir()]
    except OSError:
        return []


def _signature(directory: Path) -> str:
    """Return inode, size and modification time of each watched file."""
    signature = []
    for name in WATCHED:
        try:
            stat = os.stat(directory / name)
        except OSError:
            signature.append("-")
        else:
            signature.append(f"{stat.st_ino},{stat.st_size},{stat.st_mtime_ns}")
    return ";".join(signature)


def _version(runs_dir: Path) -> bytes:
    """Return a hash of the reader's code and of the runs folder.

    The folder is included because the messages of cached problems contain its path.
    """
    modules = (run_reader, evaluations, csv_lines, curve_checks)
    files = [str(module.__file__) for module in modules]
    code = b"".join(Path(file).read_bytes() for file in files)
    return hashlib.sha256(code + str(runs_dir).encode()).hexdigest().encode()


def _read_cache(runs_dir: Path) -> dict[str, tuple[str, Reading]]:
    """Return signature and content by run directory; empty without a valid cache."""
    path = runs_dir / CACHE_NAME
    try:
        table = pq.read_table(regular(path, None))
        if (table.schema.metadata or {}).get(b"version") != _version(runs_dir):
            return {}
        texts = zip(*(table[name].to_pylist() for name in _TEXTS), strict=True)
        steps, tasks = _split(table["step"]), _split(table["task"])
        values = {name: _split(table[name]) for name in _COLUMNS}
        known = {}
        for i, (folder, signature, run, problems) in enumerate(texts):
            recorded = {name: column[i] for name, column in values.items() if len(column[i])}
            problem_list = [Problem(**problem) for problem in json.loads(problems)]
            points = Points(steps[i], recorded, tasks[i])
            known[folder] = (signature, (json.loads(run), points, problem_list))
        return known
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return {}


def _write_cache(runs_dir: Path, readings: dict[str, tuple[str, Reading]]) -> None:
    """Write the cache atomically; do nothing if the folder is not writable."""
    runs = [_without_directory(run) for _, (run, _, _) in readings.values()]
    listed = [[asdict(problem) for problem in entry] for _, (_, _, entry) in readings.values()]
    points = [entry for _, (_, entry, _) in readings.values()]
    empty = np.array([])
    columns: dict[str, Any] = {
        "path": list(readings),
        "signature": [signature for signature, _ in readings.values()],
        "run": [json.dumps(run) for run in runs],
        "problems": [json.dumps(entry) for entry in listed],
        "step": pa.array([entry.steps for entry in points], pa.list_(pa.int64())),
        "task": pa.array([entry.tasks for entry in points], pa.list_(pa.int64())),
    }
    for name in _COLUMNS:
        lists = [entry.values.get(name, empty) for entry in points]
        columns[name] = pa.array(lists, pa.list_(pa.float64()))
    table = pa.table(columns).replace_schema_metadata({"version": _version(runs_dir)})
    with contextlib.suppress(OSError):
        write_atomic(runs_dir / CACHE_NAME, lambda file: pq.write_table(table, file))


def _split(column: pa.ChunkedArray) -> list[np.ndarray]:
    """Return the arrays of a column of lists."""
    lists = column.combine_chunks()
    return np.split(lists.flatten().to_numpy(), lists.offsets.to_numpy()[1:-1])


def _without_directory(run: Run | None) -> Run | None:
    """Return a run's facts without its folder, whose mount point may change."""
    return None if run is None else {k: v for k, v in run.items() if k != "directory"}
