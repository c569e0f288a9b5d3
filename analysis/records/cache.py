"""Room of the reading cache: run directories that did not change are not read again.

One Parquet file in the folder of the runs holds, for each run directory, what its files were
(inode, size, time of the last change) and what was read of them. It is only ever a shortcut:
where it cannot be read or written, or was written by another version of the reader, everything is
read afresh.
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

import analysis.records.csv_lines
import analysis.records.run_reader
from analysis.records.problems import Problem
from analysis.records.run_reader import (
    LATER_METRICS,
    METRICS,
    MULTITASK,
    Points,
    Run,
    read_evaluations,
    read_run,
)
from tdmpc2.common.system.atomic_files import write_atomic

CACHE_NAME = ".records-cache.parquet"
WATCHED = ("spec.json", "status.json", "attempts.json", "eval.csv")
_TEXTS = ("path", "signature", "run", "problems")
_COLUMNS = (*METRICS, *LATER_METRICS)

Reading = tuple[Run | None, Points, list[Problem]]
"""What a run directory holds: its facts, None where they cannot be used, points and problems."""


def read_all(runs_dir: Path) -> Iterator[Reading]:
    """Reads every run directory below `runs_dir`, in order of its path.

    Args:
        runs_dir: holds `<method>/<variant>/<task>/seed<k>-<hash>/`.
    """
    directories = _run_directories(runs_dir)
    signatures = {path: _signature(runs_dir / path) for path in directories}
    known = _read_cache(runs_dir)
    fresh: dict[str, tuple[str, Reading]] = {}
    for path in directories:
        before = known.get(path)
        if before is None or before[0] != signatures[path]:
            before = (signatures[path], _read(Path(runs_dir, path)))
        fresh[path] = before
    if {path: s for path, (s, _) in known.items()} != signatures:
        _write_cache(runs_dir, fresh)
    for path, (_, (run, points, problems)) in fresh.items():
        yield (None if run is None else {**run, "directory": runs_dir / path}), points, problems


def _read(directory: Path) -> Reading:
    """Reads one run directory; evaluations of several tasks are left to `multitask.py`."""
    problems: list[Problem] = []
    run = read_run(directory, problems)
    if run is None or run["domain"] == MULTITASK:
        return run, Points.of([]), problems
    return run, read_evaluations(directory / "eval.csv", problems), problems


def _run_directories(runs_dir: Path) -> list[str]:
    """Paths of the run directories, relative to `runs_dir`, in order."""
    folders = [""]
    for _ in range(4):
        folders = [
            os.path.join(folder, entry.name)
            for folder in folders
            for entry in _entries(runs_dir / folder)
        ]
    return sorted(folder for folder in folders if os.path.basename(folder).startswith("seed"))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The folders in `folder`, none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_dir()]
    except OSError:
        return []


def _signature(directory: Path) -> str:
    """Inode, size and time of the last change of each file that is read."""
    parts = []
    for name in WATCHED:
        try:
            stat = os.stat(directory / name)
        except OSError:
            parts.append("-")
        else:
            parts.append(f"{stat.st_ino},{stat.st_size},{stat.st_mtime_ns}")
    return ";".join(parts)


def _version(runs_dir: Path) -> bytes:
    """Changes with the reader's code and with the folder's place, which problems name."""
    files = (analysis.records.run_reader.__file__, analysis.records.csv_lines.__file__)
    code = b"".join(Path(file).read_bytes() for file in files)
    return hashlib.sha256(code + str(runs_dir).encode()).hexdigest().encode()


def _read_cache(runs_dir: Path) -> dict[str, tuple[str, Reading]]:
    """Signature and reading by run directory; empty where there is no cache that fits."""
    path = runs_dir / CACHE_NAME
    try:
        table = pq.read_table(path)
        if (table.schema.metadata or {}).get(b"version") != _version(runs_dir):
            return {}
        texts = zip(*(table[name].to_pylist() for name in _TEXTS), strict=True)
        steps = _split(table["env_step"])
        values = {name: _split(table[name]) for name in _COLUMNS}
        known = {}
        for i, (folder, signature, run, problems) in enumerate(texts):
            there = {name: column[i] for name, column in values.items() if len(column[i])}
            problem_list = [Problem(**problem) for problem in json.loads(problems)]
            known[folder] = (signature, (json.loads(run), Points(steps[i], there), problem_list))
        return known
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return {}


def _write_cache(runs_dir: Path, readings: dict[str, tuple[str, Reading]]) -> None:
    """Writes the cache whole or not at all; a folder that cannot be written stays as it is."""
    runs = [_without_directory(run) for _, (run, _, _) in readings.values()]
    listed = [[asdict(problem) for problem in own] for _, (_, _, own) in readings.values()]
    points = [own for _, (_, own, _) in readings.values()]
    nothing = np.array([])
    columns: dict[str, Any] = {
        "path": list(readings),
        "signature": [signature for signature, _ in readings.values()],
        "run": [json.dumps(run) for run in runs],
        "problems": [json.dumps(own) for own in listed],
        "env_step": pa.array([own.steps for own in points], pa.list_(pa.int64())),
    }
    for name in _COLUMNS:
        lists = [own.values.get(name, nothing) for own in points]
        columns[name] = pa.array(lists, pa.list_(pa.float64()))
    table = pa.table(columns).replace_schema_metadata({"version": _version(runs_dir)})
    with contextlib.suppress(OSError):
        write_atomic(runs_dir / CACHE_NAME, lambda file: pq.write_table(table, file))


def _split(column: pa.ChunkedArray) -> list[np.ndarray]:
    """The arrays of a column of lists."""
    lists = column.combine_chunks()
    return np.split(lists.flatten().to_numpy(), lists.offsets.to_numpy()[1:-1])


def _without_directory(run: Run | None) -> Run | None:
    """A run's facts without the folder, which may be mounted elsewhere tomorrow."""
    return None if run is None else {k: v for k, v in run.items() if k != "directory"}
