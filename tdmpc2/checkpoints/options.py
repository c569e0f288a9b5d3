"""Options of `python -m tdmpc2.checkpoints`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from tdmpc2.common.system.config_checks import require

Format = Literal["official", "official-old", "safetensors"]
FORMATS: tuple[str, ...] = get_args(Format)


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `evaluate`."""

    file: Path | None = field(default=None, metadata={"help": "the model, see FILE above"})
    task: str | None = field(
        default=None, metadata={"help": "one of the model's tasks, a list of them, or all"}
    )
    tasks: str | None = field(
        default=None,
        metadata={"help": "tasks of an official multi-task checkpoint, if not mt30 or mt80"},
    )
    any_size: bool = field(default=False, metadata={"help": "as for import"})
    episodes: int = field(default=10, metadata={"help": "per task; planned as one batch"})
    seed: int = field(default=0, metadata={"help": "seed of environments and planning noise"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda …"})
    threads: int | None = field(default=None, metadata={"help": "CPU threads of torch"})
    compile: bool | None = field(
        default=None, metadata={"help": "compile planning with torch.compile; default: if it works"}
    )
    workers: int | None = field(
        default=None, metadata={"help": "environment processes; default: cores - 1"}
    )
    out: Path | None = field(default=None, metadata={"help": "also write the results as JSON"})

    def __post_init__(self) -> None:
        """Check the ranges of the options."""
        for name, least in (("episodes", 1), ("seed", 0), ("threads", 1), ("workers", 0)):
            value = getattr(self, name)
            require(value is None or value >= least, f"{name}={value}: must be at least {least}")
