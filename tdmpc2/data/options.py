"""Options of the subcommands of `python -m tdmpc2.data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tdmpc2.common.system.config_checks import REQUIRED, SHARD_MB, Settings, setting
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import default_runs_dir


@dataclass(frozen=True)
class BuildOptions(Settings):
    """Options of `build`."""

    suite: str | None = setting(None, "the tasks: a suite, for example mt30")
    tasks: str | None = setting(None, "the tasks: a list, walker-walk,cup-spin")
    runs: Path = setting(default_runs_dir, "folder of the runs")
    out: Path | None = setting(None, "new folder for the dataset")
    method: str = setting("tdmpc2", "method of the runs")
    variant: str | None = setting(None, "variant of the runs, or all; needed if several")
    seeds: str | None = setting(None, "a count or a list; default: all")
    shard_mb: int = setting(256, "maximum shard size, in 10^6 bytes", SHARD_MB)

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if (self.suite is None) == (self.tasks is None):
            raise UserError("the tasks: give either suite=NAME or tasks=NAME,NAME")
        if self.out is None:
            raise UserError("out= is missing: give the folder of the dataset")


@dataclass(frozen=True)
class ConvertOptions(Settings):
    """Options of `convert`."""

    files: str = setting(REQUIRED, "list of files, chunk_0.pt,chunk_1.pt …, or their folder")
    suite: Literal["mt30", "mt80"] = setting(
        REQUIRED, "the official dataset that the files belong to"
    )
    out: Path = setting(REQUIRED, "new folder for the dataset")
    trust: bool = setting(False, "true: open the pickles; needs a trusted origin")
    dtype: Literal["float16", "float32"] | None = setting(
        None, "precision of stored values; default: as in the files"
    )
    shard_mb: int = setting(256, "maximum shard size, in 10^6 bytes", SHARD_MB)

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if not self.trust:
            raise UserError(
                f"files={self.files}: not opened: the official files are pickles, and a pickle "
                "can run any program when it is opened. If you trust their origin, use trust=true; "
                "even then, references to anything but tensors are rejected"
            )


@dataclass(frozen=True)
class InspectOptions(Settings):
    """Options of `inspect`."""

    data: Path = setting(REQUIRED, "folder of the dataset")
    task: str | None = setting(None, "only this task, or a list")
    csv: Path | None = setting(None, "also write the table as a new file")


@dataclass(frozen=True)
class VerifyOptions(Settings):
    """Options of `verify`."""

    data: Path = setting(REQUIRED, "folder of the dataset")
