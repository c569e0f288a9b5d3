"""Hyperparameters of SAC, including task-specific settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tdmpc2.common.system.config_checks import (
    BATCH,
    DECISIONS,
    FRACTION,
    LAYERS,
    LEARNING_RATE,
    LOG_STD,
    MULTIPLICATIONS,
    POSITIVE,
    ROWS,
    WIDTH,
    Precision,
    check_fields,
    require_default,
    require_known,
    require_ordered,
    setting,
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

    task_settings: Literal["repository", "prior_art"] = setting(
        "repository", "settings of task domains, see `TASK_SETTINGS`"
    )
    hidden_dim: int = setting(1024, "units of hidden layers", WIDTH)
    num_hidden: int = setting(2, "hidden layers of actor and critics", LAYERS)
    precision: Precision = setting("fp32", MULTIPLICATIONS)
    log_std_min: float = setting(-5.0, "minimum of log σ of the actor", LOG_STD)
    log_std_max: float = setting(2.0, "maximum of log σ of the actor", LOG_STD)
    batch_size: int = setting(512, "transitions per update", BATCH)
    lr: float | None = setting(
        None, f"learning rate; default: set by the domain, or {LR:g}", LEARNING_RATE
    )
    initial_temperature: float = setting(0.1, "initial value of α", POSITIVE)
    target_entropy: float | None = setting(
        None, "target entropy of α; default: -A", low=-10_000, high=10_000
    )
    discount_from: Literal["fixed", "episode_length"] = setting(
        "fixed", "use discount=, or TD-MPC2's rule for the length of episodes"
    )
    discount: float = setting(0.99, "discount γ, with discount_from=fixed", FRACTION)
    tau: float = setting(0.005, "rate of the target networks", FRACTION)
    target_every: int = setting(2, "updates per update of the target networks", DECISIONS)
    actor_every: int = setting(1, "updates per update of actor and temperature", DECISIONS)
    buffer_size: int = setting(1_000_000, "rows of the replay buffer", ROWS)
    seed_decisions: int = setting(5_000, "random decisions before the first update", DECISIONS)

    def __post_init__(self) -> None:
        """Check that all values are valid."""
        check_fields(self)
        if self.discount_from != "fixed":
            require_default(self, "discount", f"discount_from={self.discount_from}")
        require_ordered(self, "log_std_min", "log_std_max", equal=False)

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
