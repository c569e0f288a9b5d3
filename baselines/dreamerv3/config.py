"""Hyperparameters and model sizes of DreamerV3."""

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

ModelSize = Literal["small", "20"]

# `20` is the authors' preset for state observations (about 20M parameters in the TD-MPC2 paper).
# `small` is not from a paper: a model that learns easy tasks on a CPU. Its learning rates are
# larger, because an update of a given size changes the output of a narrow network less.
MODEL_SIZES: dict[str, dict[str, float]] = {
    "small": {
        "deter": 128,
        "hidden": 128,
        "stoch": 16,
        "classes": 16,
        "encoder_layers": 2,
        "encoder_units": 128,
        "decoder_layers": 2,
        "decoder_units": 128,
        "head_units": 128,
        "model_lr": 3e-4,
        "lr": 1e-4,
    },
    "20": {
        "deter": 512,
        "hidden": 512,
        "stoch": 32,
        "classes": 32,
        "encoder_layers": 5,
        "encoder_units": 1024,
        "decoder_layers": 5,
        "decoder_units": 1024,
        "head_units": 512,
    },
}


@dataclass(frozen=True)
class DreamerV3Config:
    """Hyperparameters of DreamerV3 v1 (2023); defaults are the authors' for state observations.

    The later version of the method is not the one that the TD-MPC2 paper compares. It differs in
    many of these settings (block-diagonal recurrence, another optimizer, REINFORCE for all
    actions, ...).
    """

    # --- architecture (from `model_size`, as model_lr and lr are) -------------------
    model_size: ModelSize = "20"
    deter: int = 512
    hidden: int = 512
    stoch: int = 32
    classes: int = 32
    encoder_layers: int = 5
    encoder_units: int = 1024
    decoder_layers: int = 5
    decoder_units: int = 1024
    head_layers: int = 2
    head_units: int = 512
    unimix: float = 0.01
    num_bins: int = 255
    vmin: float = -20.0
    vmax: float = 20.0
    # Precision of matrix multiplications; parameters, norms, losses and optimizers are float32.
    precision: Literal["fp32", "bf16"] = "fp32"

    # --- world model ---------------------------------------------------------------
    batch_size: int = 16
    batch_length: int = 64
    free_nats: float = 1.0
    dyn_scale: float = 0.5
    rep_scale: float = 0.1
    model_lr: float = 1e-4
    model_eps: float = 1e-8
    model_clip_norm: float = 1000.0

    # --- behavior -----------------------------------------------------------------
    imagination: int = 15
    discount_horizon: float = 333.0
    return_lambda: float = 0.95
    actor_min_std: float = 0.1
    actor_max_std: float = 1.0
    entropy_coef: float = 3e-4
    return_decay: float = 0.99
    slow_share: float = 0.02
    slow_coef: float = 1.0
    lr: float = 3e-5
    eps: float = 1e-5
    clip_norm: float = 100.0

    # --- collecting ----------------------------------------------------------------
    num_envs: int = 4
    train_ratio: float = 512.0  # replayed observations per decision
    seed_decisions: int = 1_024
    buffer_size: int = 1_000_000

    def __post_init__(self) -> None:
        """Check that all values are valid."""
        require_choices(self)
        require_positive(self, *MODEL_SIZES["20"])
        require_positive(self, "head_layers", "batch_size", "imagination", "num_envs")
        require_fraction(self, "unimix", "return_lambda", "return_decay", "slow_share")
        require(self.batch_length >= 2, f"batch_length={self.batch_length}: must be at least 2")
        require(self.train_ratio > 0, f"train_ratio={self.train_ratio}: must be positive")
        require(
            self.discount_horizon > 1,
            f"discount_horizon={self.discount_horizon}: must be greater than 1",
        )
        require(self.num_bins >= 3, f"num_bins={self.num_bins}: must be at least 3")
        require(self.vmax > self.vmin, f"vmax={self.vmax}: must be greater than vmin={self.vmin}")
        require(
            0 < self.actor_min_std <= self.actor_max_std,
            f"actor_min_std={self.actor_min_std}: must be positive and at most "
            f"actor_max_std={self.actor_max_std}",
        )
        minimum = self.num_envs * self.batch_length
        require(
            self.seed_decisions >= minimum,
            f"seed_decisions={self.seed_decisions}: must be at least num_envs * batch_length = "
            f"{minimum}, so that every environment has a complete sequence",
        )

    @classmethod
    def make(cls, **overrides: Any) -> DreamerV3Config:
        """Return the config of a model size with overrides.

        Raises:
            UserError: unknown field or model size, or a value out of range.
        """
        require_known(cls, overrides)
        size = str(overrides.pop("model_size", "20"))
        require(
            size in MODEL_SIZES,
            f"model_size={size}: unknown size (valid: {', '.join(MODEL_SIZES)})",
        )
        return cls(model_size=size, **{**MODEL_SIZES[size], **overrides})  # type: ignore[arg-type]

    @property
    def discount(self) -> float:
        """Discount γ = 1 − 1 / discount_horizon; 1 − 1/333 by default."""
        return 1 - 1 / self.discount_horizon

    @property
    def stoch_dim(self) -> int:
        """Size of the flattened categorical state: stoch · classes."""
        return self.stoch * self.classes

    @property
    def state_dim(self) -> int:
        """Size of the features of a state: deter + stoch_dim."""
        return self.deter + self.stoch_dim

    def updates_after(self, decisions: int) -> int:
        """Return the total number of updates due after a number of decisions.

        `train_ratio` replayed observations per decision after the seed decisions.
        """
        replayed = max(decisions - self.seed_decisions, 0) * self.train_ratio
        return int(replayed // (self.batch_size * self.batch_length))
