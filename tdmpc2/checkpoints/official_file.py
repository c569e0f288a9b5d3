"""From an official checkpoint and the names of its tasks to a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tdmpc2.checkpoints.architecture import Architecture, detect
from tdmpc2.checkpoints.model import Model
from tdmpc2.checkpoints.official import constants, import_official, key_format, official_name
from tdmpc2.checkpoints.task_sets import env_of, recognize
from tdmpc2.common.system.atomic_files import sha256_of
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.multitask import parse_tasks


def model_of_official(
    path: Path, state: Mapping[str, Any], tasks: str | None, *, any_size: bool = False
) -> Model:
    """A model out of an official state dict.

    Args:
        path: of the file, for messages and provenance.
        state: of the file.
        tasks: see `parse_tasks`; None for a published set that can be recognized.
        any_size: whether to take an architecture that is none of the model sizes.

    Raises:
        UserError: no such architecture, other tasks than those named, or weights that are not
            finite.
    """
    try:
        weights = {name: value.float() for name, value in import_official(state).items()}
        found = detect(weights, shown_by(state))
        if found.size is None and not any_size:
            raise UserError(f"{found.oddity} (any_size=true takes it as it is)")
        said = constants(state)
        name = tasks or _recognised(found)
        env = env_of(parse_tasks(name), found, said)
        log_std = {}
        if said.log_std is not None:
            log_std = dict(zip(("log_std_min", "log_std_max"), said.log_std, strict=True))
        config = found.config(**log_std)
        _refuse_non_finite(weights)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    facts: dict[str, Any] = {
        "origin": "official",
        "source": path.name,
        "sha256": sha256_of(path),
        "keys": key_format(state),
        "task": name,
        "recognized": tasks is None,
        "obs": "state",
        "assets": None,
        "protocol": {},
    }
    return Model(config, env, weights, facts)


def shown_by(state: Mapping[str, Any]) -> Callable[[str], str]:
    """Names some weights as the file does that they are from."""
    keys = key_format(state) or "new"
    return lambda name: official_name(name, keys) or name


def _recognised(found: Architecture) -> str:
    if found.num_tasks is None:
        raise UserError("a single-task model that does not say its task: name it with task=")
    name = recognize(found)
    if name is None:
        raise UserError(
            f"a model of {found.num_tasks} tasks that does not say which: list them, in the order "
            "of its task embedding"
        )
    return name


def _refuse_non_finite(weights: Mapping[str, Tensor]) -> None:
    for name, value in weights.items():
        if not value.isfinite().all():
            raise UserError(f"weights '{name}' hold NaN or Inf")
