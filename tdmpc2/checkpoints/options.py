"""Options of the actions of `python -m tdmpc2.checkpoints`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tdmpc2.checkpoints import names
from tdmpc2.common.system.config_checks import REQUIRED, Settings, setting
from tdmpc2.common.training.evaluation_options import EvaluationOptions

Format = Literal["official", "official-old", "safetensors"]


@dataclass(frozen=True)
class InspectOptions(Settings):
    """Options of `inspect`."""

    file: Path = setting(REQUIRED, "the model, see FILE above")


@dataclass(frozen=True)
class ImportOptions(Settings):
    """Options of `import`."""

    file: Path = setting(REQUIRED, "the model, see FILE above")
    out: Path = setting(REQUIRED, "path of the new file, .pt or .safetensors")
    task: str | None = setting(
        None,
        "tasks of an official checkpoint, which does not contain them: a task, a suite (mt30, "
        "mt80), or a list in the order of the task embedding",
    )
    any_size: bool = setting(False, "accept a model whose shapes fit none of the paper's sizes")


@dataclass(frozen=True)
class ExportOptions(Settings):
    """Options of `export`."""

    file: Path = setting(REQUIRED, "the model, see FILE above")
    out: Path = setting(
        REQUIRED, "path of the new file, .pt, or .safetensors with format=safetensors"
    )
    format: Format = setting("official", "format of the new file")
    task: str | None = setting(None, "as for import, if FILE is an official checkpoint")
    any_size: bool = setting(False, "as for import")


@dataclass(frozen=True)
class EvaluateOptions(EvaluationOptions, InspectOptions):
    """Options of `evaluate`; the fields of the last base class come first."""

    task: str | None = setting(None, "one of the model's tasks, a list of them, or all")
    tasks: str | None = setting(
        None, "tasks of an official multi-task checkpoint, if not mt30 or mt80"
    )
    any_size: bool = setting(False, "as for import")


@dataclass(frozen=True)
class FetchOptions(Settings):
    """Options of `fetch`."""

    name: str = setting(
        REQUIRED,
        f"all, a domain ({', '.join(names.DOMAINS)}), multitask, a task set (mt30, mt80), one of "
        "its models (mt80-48M), a task, a path, or a list",
    )
    out: Path | None = setting(None, "folder of the downloads")
    url: str = setting(names.HOME, "URL of the server's folder")
    seeds: str = setting(
        ",".join(map(str, names.SEEDS)), "seeds of single-task models: a count or a list"
    )
    single: str = setting(
        names.SINGLE,
        "paths of single-task models; the default patterns are inferred: the authors do not "
        "document file names",
    )
    multi: str = setting(names.MULTI, "paths of multi-task models")
    sha256: str | None = setting(
        None, "expected checksum of a single file; default: the server's, if there is one"
    )
    dry_run: bool = setting(False, "only print the URLs")
