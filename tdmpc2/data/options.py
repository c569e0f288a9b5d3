"""Options of the subcommands of `python -m tdmpc2.data`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import default_runs_dir


@dataclass(frozen=True)
class BuildOptions:
    """Options of `build`."""

    suite: str | None = field(
        default=None, metadata={"help": "the tasks: a suite, for example mt30"}
    )
    tasks: str | None = field(
        default=None, metadata={"help": "the tasks: a list, walker-walk,cup-spin"}
    )
    runs: Path = field(default_factory=default_runs_dir, metadata={"help": "folder of the runs"})
    out: Path | None = field(default=None, metadata={"help": "new folder for the dataset"})
    method: str = field(default="tdmpc2", metadata={"help": "method of the runs"})
    variant: str | None = field(
        default=None,
        metadata={"help": "variant of the runs, or all; needed if several"},
    )
    seeds: str | None = field(default=None, metadata={"help": "a count or a list; default: all"})
    shard_mb: int = field(default=256, metadata={"help": "maximum shard size, in 10^6 bytes"})

    def __post_init__(self) -> None:
        """Check the options."""
        if (self.suite is None) == (self.tasks is None):
            raise UserError("the tasks: give either suite=NAME or tasks=NAME,NAME")
        if self.out is None:
            raise UserError("out= is missing: give the folder of the dataset")
        if self.shard_mb < 1:
            raise UserError(f"shard_mb={self.shard_mb}: must be at least 1")


@dataclass(frozen=True)
class ConvertOptions:
    """Options of `convert`."""

    files: str | None = field(
        default=None, metadata={"help": "list of files, chunk_0.pt,chunk_1.pt …, or their folder"}
    )
    suite: Literal["mt30", "mt80"] | None = field(
        default=None, metadata={"help": "mt30 | mt80: the official dataset"}
    )
    out: Path | None = field(default=None, metadata={"help": "new folder for the dataset"})
    trust: bool = field(
        default=False, metadata={"help": "true: open the pickles; needs a trusted origin"}
    )
    dtype: Literal["float16", "float32"] | None = field(
        default=None, metadata={"help": "float16 | float32; default: as stored"}
    )
    shard_mb: int = field(default=256, metadata={"help": "maximum shard size, in 10^6 bytes"})

    def __post_init__(self) -> None:
        """Check the options."""
        for name in ("files", "suite", "out"):
            if getattr(self, name) is None:
                raise UserError(f"{name}= is missing (see convert --help)")
        if self.shard_mb < 1:
            raise UserError(f"shard_mb={self.shard_mb}: must be at least 1")
        if not self.trust:
            raise UserError(
                f"files={self.files}: not opened: the official files are pickles, and a pickle "
                "can run any program when it is opened. If you trust their origin, use trust=true; "
                "even then, references to anything but tensors are rejected"
            )


@dataclass(frozen=True)
class InspectOptions:
    """Options of `inspect`."""

    data: Path | None = field(default=None, metadata={"help": "folder of the dataset"})
    task: str | None = field(default=None, metadata={"help": "only this task, or a list"})
    csv: Path | None = field(default=None, metadata={"help": "also write the table as a new file"})


@dataclass(frozen=True)
class VerifyOptions:
    """Options of `verify`."""

    data: Path | None = field(default=None, metadata={"help": "folder of the dataset"})
