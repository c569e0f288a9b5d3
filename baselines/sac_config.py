"""Hyperparameters of SAC, including task-specific settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tdmpc2.common.system.config_checks import (
    require,
    require_choices,
    require_fraction,
    require_known,
    require_positive,
)

LR = 1e-4
# Settings by task domain, the first component of a task name. The table of the TD-MPC2 paper is
# not public; `prior_art` holds what its authors used for the hard tasks in earlier work.
TASK_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "repository": {},
    "prior_art": {"dog": {"lr": 3e-4}, "humanoid": {"lr": 3e-4}},
}


@dataclass(frozen=True)
class SACConfig:
    """Hyperparameters of SAC.

    Defaults are those of the PyTorch implementation that the TD-MPC2 paper names (pytorch_sac),
    with the paper's batch size of 512.
    """

    task_settings: Literal["repository", "prior_art"] = "repository"
    hidden_dim: int = 1024
    num_hidden: int = 2
    log_std_min: float = -5.0
    log_std_max: float = 2.0
    batch_size: int = 512
    lr: float | None = None  # None: value from `TASK_SETTINGS`, or 1e-4
    initial_temperature: float = 0.1
    target_entropy: float | None = None  # None: −A
    # `fixed`: use `discount`; `episode_length`: use TD-MPC2's rule instead.
    discount_from: Literal["fixed", "episode_length"] = "fixed"
    discount: float = 0.99
    tau: float = 0.005
    target_every: int = 2
    actor_every: int = 1
    buffer_size: int = 1_000_000
    seed_decisions: int = 5_000

    def __post_init__(self) -> None:
        """Check that all values are valid."""
        require_choices(self)
        require_positive(self, "hidden_dim", "num_hidden", "batch_size", "buffer_size")
        require_positive(self, "target_every", "actor_every", "seed_decisions")
        require_fraction(self, "discount", "tau")
        require(
            self.initial_temperature > 0,
            f"initial_temperature={self.initial_temperature}: must be positive",
        )
        require(
            self.log_std_min < self.log_std_max,
            f"log_std_min={self.log_std_min}: must be less than log_std_max={self.log_std_max}",
        )

    @classmethod
    def make(cls, **overrides: Any) -> SACConfig:
        """Return the config with overrides.

        Raises:
            UserError: unknown field, or a value out of range.
        """
        require_known(cls, overrides)
        return cls(**overrides)

    def learning_rate(self, task: str) -> float:
        """Return the learning rate of actor, critics and temperature for a task."""
        if self.lr is not None:
            return self.lr
        table = TASK_SETTINGS[self.task_settings]
        return float(table.get(task.partition("-")[0], {}).get("lr", LR))
