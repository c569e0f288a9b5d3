"""Contents of a bundle: copies of records, tables, environment and metadata."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tdmpc2.bundle.checks import FIGURES, RECORDS, SUMS, call, draw_tables, files_of, list_of_sums
from tdmpc2.bundle.texts import croissant, texts
from tdmpc2.common.numerics.cpu import cpu_model
from tdmpc2.common.run.schemas import SpecFile
from tdmpc2.common.run.source_version import git_commit
from tdmpc2.common.system.atomic_files import put_in_place, read_json, write_atomic
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import named_folders, project_root, recorded_folders
from tdmpc2.common.system.regular_files import closed_folders, regular

RECORD_FILES = (
    *("spec.json", "eval.csv", "train.csv", "timing.csv", "status.json", "numeric.json"),
    *("attempts.json", "sources.json"),
)
REFERENCES = "floors"


def folders_of(text: str) -> list[Path]:
    """Return the folders of records: those that are named, or all of `paper_figures/recorded`.

    Args:
        text: folders, separated by commas; empty for the recorded runs.

    Raises:
        UserError: a folder is missing, or two have the same name.
    """
    folders = named_folders(text, "runs") or recorded_folders()
    if len({folder.name for folder in folders}) < len(folders):
        raise UserError(f"runs={text}: two folders have the same name")
    return folders


def create(folders: Sequence[Path], out: Path) -> int:
    """Write a bundle and return the number of its files.

    Args:
        folders: folders of records.
        out: folder to write, which must not exist.

    Raises:
        UserError: the folder exists, or a folder holds no run.
    """
    if out.exists():
        raise UserError(f"out={out}: exists; name another folder, or remove it")
    with put_in_place(out, "name another folder with out=") as growing:
        _fill(growing, folders)
    return len(files_of(out)) + 1


def _fill(growing: Path, folders: Sequence[Path]) -> None:
    """Write all files of a bundle into an empty folder; see `create`."""
    specs: list[dict[str, Any]] = []
    for folder in folders:
        copied = list(_copy_records(folder, growing / RECORDS / folder.name))
        if not copied:
            raise UserError(f"runs={folder}: no run with a spec.json in METHOD/VARIANT/TASK/seed*/")
        specs += copied
    names = [folder.name for folder in folders]
    draw_tables({growing / RECORDS / name: growing / FIGURES / name for name in names})
    runs = ",".join(str(folder) for folder in folders)
    call([sys.executable, "-m", "analysis.claims", f"runs={runs}", f"out={growing / 'CLAIMS.md'}"])
    for lock in sorted((project_root() / "requirements").glob("*.lock")):
        _copy(lock, growing / "environment" / lock.name)
    _write(growing / "environment" / "packages.txt", _packages())
    facts = {
        "commit": git_commit() or "unknown",
        "python": platform.python_version(),
        "cpu": cpu_model(),
    }
    _write(growing / "environment" / "machine.json", f"{json.dumps(facts, indent=2)}\n")
    for name, text in texts(specs, folders, facts["commit"]).items():
        _write(growing / name, text)
    listed = [name for name in files_of(growing) if name != "croissant.json"]
    metadata = croissant(growing, listed, facts["commit"])
    _write(growing / "croissant.json", f"{json.dumps(metadata, indent=2)}\n")
    _write(growing / SUMS, list_of_sums(growing))


def _copy_records(source: Path, target: Path) -> Iterator[dict[str, Any]]:
    """Copy the records of all runs of a folder; yield their specs."""
    for closed in closed_folders(source, 4):
        raise UserError(
            f"{closed}: cannot be read (Permission denied); its runs would be missing in the bundle"
        )
    # Not `rglob`, which passes over links to folders.
    for spec in sorted(source.glob("*/*/*/*/spec.json")):
        place = target / spec.parent.relative_to(source)
        for name in RECORD_FILES:
            if (spec.parent / name).exists():
                _copy(spec.parent / name, place / name)
        yield read_json(spec, SpecFile)
    for scores in sorted((source / REFERENCES).glob("*.json")):
        _copy(scores, target / REFERENCES / scores.name)


def _packages() -> str:
    """Return the installed packages as `name==version` lines."""
    found = {f"{one.name}=={one.version}" for one in importlib.metadata.distributions()}
    return "".join(f"{line}\n" for line in sorted(found, key=str.lower))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(regular(source, None), target)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda file: file.write(text.encode()))
