"""Contents of the JSON files of a run directory: the keys that readers rely on, with their types.

Files may have further keys. Older versions wrote fewer; such keys are `NotRequired`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict

State = Literal["RUNNING", "INTERRUPTED", "COMPLETED", "DIVERGED", "FAILED"]
"""States of a run. A run that SLURM or a user cancels is INTERRUPTED: it resumes."""
ReadState = Literal[State, "CANCELLED"]
"""States that readers accept: `CANCELLED` was valid before; no version has written it."""
Scalar = str | int | float | bool | None


class SpecFile(TypedDict):
    """`spec.json`: a `RunSpec`, facts about its task and agent, and fixed options."""

    method: str
    variant: str
    task: str
    seed: int
    budget: int
    identity: str
    overrides: dict[str, Scalar]
    budget_unit: NotRequired[Literal["env_steps", "num_updates"]]
    protocol: NotRequired[dict[str, bool | str]]
    obs: NotRequired[Literal["state", "rgb"]]
    assets: NotRequired[str | None]
    tasks: NotRequired[list[str]]
    start: NotRequired[dict[str, Any]]
    keep_replay: NotRequired[bool]


class StatusFile(TypedDict):
    """`status.json`: state, and progress and budget under one of two keys each."""

    state: ReadState
    message: str
    env_step: NotRequired[int]
    num_updates: NotRequired[int]
    env_steps: NotRequired[int]
    budget: NotRequired[int]
    updated: NotRequired[str]
    env_steps_per_second: NotRequired[float]
    updates_per_second: NotRequired[float]
    eval_return: NotRequired[float]
    eval_score: NotRequired[float]
    doing: NotRequired[str]


class Attempt(TypedDict):
    """Entry of `attempts.json`: provenance of one start."""

    commit: str | None
    study: NotRequired[str]
    slurm_job: NotRequired[str | None]


class Shard(TypedDict):
    """Entry of a manifest: a file with consecutive episodes of the replay buffer."""

    name: str
    first: int
    count: int
    sha256: str


class Manifest(TypedDict):
    """`manifest.json` of a checkpoint."""

    format: int
    agent_step: int
    state_sha256: str
    oldest_episode: int
    shards: list[Shard]


NumericFile = dict[str, Scalar]
"""`numeric.json`: the numeric path, see `tdmpc2.common.numerics.numeric_path`."""


def seeds_together(numeric: Mapping[str, Any]) -> int:
    """Return the number of seeds that trained in one process, from `numeric.json`."""
    # "pack" is the name of "seed_batch" up to version 0.4.0.
    found = re.fullmatch(r"\d+ of (\d+)", str(numeric.get("seed_batch", numeric.get("pack"))))
    return int(found[1]) if found else 1
