"""Hyperparameters of TD-MPC, including task-specific settings."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from tdmpc2.common.system.config_checks import (
    require,
    require_choices,
    require_fraction,
    require_known,
    require_positive,
)
from tdmpc2.config import MODEL_SIZES, MULTITASK_DIM

ModelSize = Literal["1", "5", "19", "48", "317"]

# Settings of the official TD-MPC code by task domain, the first component of a task name, except
# those that the TD-MPC2 paper sets equally for all methods: action repeat, and a batch size of 512
# (2048 for dog in the official code). The paper's other task-specific changes are not public.
TASK_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "none": {},
    "repository": {
        "dog": {"iterations": 8, "latent_dim": 100, "lr": 3e-4},
        "humanoid": {"iterations": 12, "latent_dim": 100},
    },
}
OTHERWISE = {"iterations": 6, "latent_dim": 50, "lr": 1e-3}  # for all other domains


@dataclass(frozen=True)
class TDMPCConfig:
    """Hyperparameters of TD-MPC; defaults are those of the official code.

    The fields `latent_dim`, `iterations` and `lr` are task-specific if None; see `for_task`.
    """

    task_settings: Literal["repository", "none"] = "repository"

    # --- architecture; sizes above 1 are those of TD-MPC2, for multi-task learning -----
    model_size: ModelSize = "1"
    enc_dim: int = 256
    mlp_dim: int = 512
    num_enc_layers: int = 2
    latent_dim: int | None = None
    task_dim: int = 0
    normalize_task_embedding: bool = True

    # --- planning (MPPI) -----------------------------------------------------------
    horizon: int = 5
    horizon_decisions: int = 25_000  # decisions in which the planning horizon grows from 1
    iterations: int | None = None
    num_samples: int = 512  # Gaussian samples, without those of the policy
    num_pi_samples: int = 25
    num_elites: int = 64
    temperature: float = 0.5
    momentum: float = 0.1
    max_std: float = 2.0
    initial_min_std: float = 0.5
    min_std: float = 0.05
    min_std_decisions: int = 25_000
    clip_action: bool = False  # False: the environment clips actions with exploration noise

    # --- learning ------------------------------------------------------------------
    batch_size: int = 512
    lr: float | None = None
    grad_clip_norm: float = 10.0
    tau: float = 0.01
    target_every: int = 2
    rho: float = 0.5
    consistency_coef: float = 2.0
    reward_coef: float = 0.5
    value_coef: float = 0.1
    loss_clip: float = 1e4
    prior_std: float = 0.05
    prior_noise_clip: float = 0.3
    # `fixed`: use `discount`; `episode_length`: use TD-MPC2's rule instead.
    discount_from: Literal["fixed", "episode_length"] = "fixed"
    discount: float = 0.99
    per_alpha: float = 0.6
    per_beta: float = 0.4
    buffer_size: int = 1_000_000
    seed_decisions: int = 5_000
    pretrain_updates: int | None = None  # None: as many as seed decisions

    def __post_init__(self) -> None:
        """Check that all values are valid."""
        require_choices(self)
        require_positive(self, "enc_dim", "mlp_dim", "latent_dim", "horizon", "iterations")
        require_positive(self, "num_samples", "num_elites", "batch_size", "buffer_size")
        require_positive(self, "horizon_decisions", "min_std_decisions", "seed_decisions")
        require_positive(self, "target_every", "num_enc_layers")
        require_fraction(self, "momentum", "tau", "rho", "discount")
        total = self.num_samples + self.num_pi_samples
        require(
            self.num_pi_samples >= 0, f"num_pi_samples={self.num_pi_samples}: must be at least 0"
        )
        require(
            self.num_elites <= total,
            f"num_elites={self.num_elites}: must be at most num_samples + num_pi_samples = {total}",
        )

    @classmethod
    def make(cls, *, multitask: bool = False, **overrides: Any) -> TDMPCConfig:
        """Return the config of a model size with overrides.

        Args:
            multitask: whether to use a task embedding (96 dimensions).
            **overrides: fields of this class; they take precedence over the model size.

        Raises:
            UserError: unknown field or model size, or a value out of range.
        """
        require_known(cls, overrides)
        size = str(overrides.get("model_size", "1"))
        values: dict[str, Any] = {}
        if size != "1" and size in MODEL_SIZES:
            names = ("enc_dim", "mlp_dim", "latent_dim", "num_enc_layers")
            values = {name: MODEL_SIZES[size][name] for name in names}
        if multitask:
            values["task_dim"] = MULTITASK_DIM
        return cls(**{**values, **overrides, "model_size": size})

    def for_task(self, task: str) -> TDMPCConfig:
        """Return the config with task-specific values for fields that are None."""
        settings = TASK_SETTINGS[self.task_settings].get(task.partition("-")[0], {})
        values = {**OTHERWISE, **settings}
        missing = {name: values[name] for name in OTHERWISE if getattr(self, name) is None}
        return dataclasses.replace(self, **missing)

    def planning_horizon(self, decisions: int) -> int:
        """Return the planning horizon, which grows linearly from 1 to H, rounded down."""
        return int(min(self.horizon, linear(1, self.horizon, self.horizon_decisions, decisions)))

    def planning_min_std(self, decisions: int) -> float:
        """Return σ_min of the planner: linear from `initial_min_std` to `min_std`."""
        return linear(self.initial_min_std, self.min_std, self.min_std_decisions, decisions)


def linear(start: float, end: float, duration: int, now: int) -> float:
    """Return the value of a linear schedule.

    Args:
        start: value at decision 0.
        end: value from decision `duration` on.
        duration: length of the schedule in decisions.
        now: current number of decisions.
    """
    progress = min(max(now / duration, 0.0), 1.0)
    return (1 - progress) * start + progress * end
