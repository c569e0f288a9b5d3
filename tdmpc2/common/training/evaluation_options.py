"""Options that the commands that evaluate agents share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tdmpc2.common.system.config_checks import EPISODES, SEED, THREADS, WORKERS, Settings, setting


@dataclass(frozen=True)
class EvaluationOptions(Settings):
    """How to evaluate an agent without exploration noise, and where to write the result."""

    episodes: int = setting(10, "episodes of each task, planned as one batch", EPISODES)
    seed: int = setting(0, "seed of environments and planning noise", SEED)
    device: str = setting("auto", "auto (a GPU if there is one), cpu, cuda, cuda:1 …")
    threads: int | None = setting(None, "CPU threads of torch; default: torch's", THREADS)
    compile: bool | None = setting(None, "torch.compile of planning; default: if it works")
    workers: int | None = setting(
        None,
        "processes that step the environments (0: this process); default: "
        "cores - 1, if that is at least 2",
        WORKERS,
    )
    out: Path | None = setting(None, "JSON file for the result; default: none")
