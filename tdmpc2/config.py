"""Hyperparameters, feature flags and model sizes of TD-MPC2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tdmpc2.common.numerics.discount import episode_discount
from tdmpc2.common.system.config_checks import (
    require,
    require_choices,
    require_known,
    require_positive,
)

ModelSize = Literal["smoke", "1", "5", "19", "48", "317"]

# The paper's model sizes in millions of parameters; tests check the parameter counts.
# `smoke` is not from the paper: the smallest model that still learns the smoke suite.
MODEL_SIZES: dict[str, dict[str, int]] = {
    "smoke": {"enc_dim": 64, "mlp_dim": 64, "latent_dim": 64, "num_enc_layers": 2, "num_q": 2},
    "1": {"enc_dim": 256, "mlp_dim": 384, "latent_dim": 128, "num_enc_layers": 2, "num_q": 2},
    "5": {"enc_dim": 256, "mlp_dim": 512, "latent_dim": 512, "num_enc_layers": 2, "num_q": 5},
    "19": {"enc_dim": 1024, "mlp_dim": 1024, "latent_dim": 768, "num_enc_layers": 3, "num_q": 5},
    "48": {"enc_dim": 1792, "mlp_dim": 1792, "latent_dim": 768, "num_enc_layers": 4, "num_q": 5},
    "317": {"enc_dim": 4096, "mlp_dim": 4096, "latent_dim": 1376, "num_enc_layers": 5, "num_q": 8},
}

# The released mt30 models deviate from `MODEL_SIZES`: task embeddings of 64 instead of 96
# dimensions and, for 19M, a latent of 512 instead of 768.
DATASET_QUIRKS: dict[tuple[str, str], dict[str, int]] = {
    ("mt30", "5"): {"task_dim": 64},
    ("mt30", "19"): {"task_dim": 64, "latent_dim": 512},
    ("mt30", "48"): {"task_dim": 64},
}
MULTITASK_DIM = 96
MULTITASK_BATCH = 1024


@dataclass(frozen=True)
class TDMPC2Config:
    """Hyperparameters and feature flags of TD-MPC2; the defaults are the paper's (5M model).

    Create it with `make`, which applies the model size and rejects unknown fields. Values are
    those of the paper's hyperparameter table, or of the first official release if the two differ
    (encoder learning rate 0.3·3e-4 instead of 1e-4; consistency loss averaged over dimensions).
    """

    # --- feature flags -------------------------------------------------------------
    # Last layer of encoder and dynamics; see `layers.latent_layer`.
    latent_norm: Literal["simnorm", "layernorm", "none"] = "simnorm"
    simnorm_dim: int = 8
    simnorm_tau: float = 1.0
    hidden_norm: Literal["layernorm", "none"] = "layernorm"
    regression: Literal["discrete", "symlog_mse", "mse"] = "discrete"
    policy_prior: Literal["max_entropy", "gaussian_noise"] = "max_entropy"
    planning: bool = True
    normalize_task_embedding: bool = True
    # Formula of the entropy bonus: first official release, later releases, or exact; see
    # `MaxEntropyPrior`. Weight of the bonus: `value_scale` is the fixed `entropy_coef` against
    # Q / S; `target` is a learned coefficient against Q with target entropy -A, as in SAC (needs
    # `entropy_form=exact`). See `losses.policy_loss`.
    entropy_form: Literal["paper", "official_2024", "exact"] = "paper"
    entropy_tuning: Literal["value_scale", "target"] = "value_scale"
    q_init: Literal["paper", "official_2024"] = "paper"
    # Initialization of the hidden layers of Q-functions: truncated normal, or PyTorch's default,
    # which official releases of 2024-26 left in place.
    # Differs from the official code: the first release intends dropout in the model loss only,
    # but applies it in every call of a Q-function (`everywhere`).
    dropout_in: Literal["model_loss", "everywhere", "model_and_policy_loss"] = "model_loss"
    prioritized_replay: bool = False
    # Precision of matrix multiplications; parameters, norms, losses and optimizers are float32.
    precision: Literal["fp32", "bf16"] = "fp32"

    # --- architecture (from `model_size`) ------------------------------------------
    model_size: ModelSize = "5"
    enc_dim: int = 256
    mlp_dim: int = 512
    latent_dim: int = 512
    num_enc_layers: int = 2
    num_channels: int = 32
    num_q: int = 5
    task_dim: int = 0
    dropout: float = 0.01
    num_bins: int = 101
    vmin: float = -10.0
    vmax: float = 10.0
    log_std_min: float = -10.0
    log_std_max: float = 2.0

    # --- planning (MPPI) -----------------------------------------------------------
    horizon: int = 3
    iterations: int = 6
    num_samples: int = 512
    num_elites: int = 64
    num_pi_samples: int = 24
    min_std: float = 0.05
    max_std: float = 2.0
    temperature: float = 0.5
    momentum: float = 0.0

    # --- learning ------------------------------------------------------------------
    batch_size: int = 256
    lr: float = 3e-4
    enc_lr_scale: float = 0.3
    pi_eps: float = 1e-5
    grad_clip_norm: float = 20.0
    tau: float = 0.01
    rho: float = 0.5
    consistency_coef: float = 20.0
    reward_coef: float = 0.1
    value_coef: float = 0.1
    termination_coef: float = 1.0
    entropy_coef: float = 1e-4
    discount_denom: float = 5.0
    discount_min: float = 0.95
    discount_max: float = 0.995
    buffer_size: int = 1_000_000
    # Decisions with uniform random actions; None: max(1000, 5 * episode length).
    seed_decisions: int | None = None
    # Who chooses the actions of the seed decisions: uniform noise, or the agent (finetuning).
    seed_with: Literal["random", "agent"] = "random"
    # Updates right after the seed decisions; None: as many as seed decisions.
    pretrain_updates: int | None = None

    # --- used by feature flags only --------------------------------------------------
    initial_alpha: float = 0.1  # initial value of the learned entropy coefficient
    # Gaussian-noise prior (TD-MPC): standard deviation and clipping of the noise, and the initial
    # `min_std` of the planner, which decreases linearly over the first `min_std_decisions`.
    prior_std: float = 0.05
    prior_noise_clip: float = 0.3
    initial_min_std: float = 0.5
    min_std_decisions: int = 25_000
    # Prioritized replay (Schaul et al., 2016).
    per_alpha: float = 0.6
    per_beta: float = 0.4

    def __post_init__(self) -> None:
        """Check that all values are valid."""
        require_choices(self)
        require(self.num_q >= 1, f"num_q={self.num_q}: must be at least 1")
        require(self.horizon >= 1, f"horizon={self.horizon}: must be at least 1")
        require(self.simnorm_tau > 0, f"simnorm_tau={self.simnorm_tau}: must be positive")
        require(
            self.entropy_tuning == "value_scale"
            or (self.entropy_form == "exact" and self.policy_prior == "max_entropy"),
            "entropy_tuning=target: needs entropy_form=exact and policy_prior=max_entropy",
        )
        require(self.initial_alpha > 0, f"initial_alpha={self.initial_alpha}: must be positive")
        require(0.0 <= self.dropout < 1.0, f"dropout={self.dropout}: must lie in [0, 1)")
        require(0.0 <= self.momentum < 1.0, f"momentum={self.momentum}: must lie in [0, 1)")
        require(self.simnorm_dim >= 1, f"simnorm_dim={self.simnorm_dim}: must be at least 1")
        require(
            self.latent_norm != "simnorm" or self.latent_dim % self.simnorm_dim == 0,
            f"latent_dim={self.latent_dim}: must be a multiple of simnorm_dim={self.simnorm_dim}",
        )
        require(
            0 <= self.num_pi_samples <= self.num_samples,
            f"num_pi_samples={self.num_pi_samples}: must lie in 0..num_samples={self.num_samples}",
        )
        require(
            1 <= self.num_elites <= self.num_samples,
            f"num_elites={self.num_elites}: must lie in 1..num_samples={self.num_samples}",
        )
        require(self.num_bins >= 3, f"num_bins={self.num_bins}: must be at least 3")
        require(self.vmax > self.vmin, f"vmax={self.vmax}: must be greater than vmin={self.vmin}")
        require_positive(self, "batch_size", "buffer_size", "iterations")
        require_positive(self, "enc_dim", "mlp_dim", "latent_dim")

    @classmethod
    def make(
        cls, *, dataset: str | None = None, multitask: bool = False, **overrides: Any
    ) -> TDMPC2Config:
        """Return the config of a model size with overrides.

        Args:
            dataset: `mt30` or `mt80`: use the sizes of the models released for it
                (`DATASET_QUIRKS`); None for none of them.
            multitask: whether to use a task embedding (96 dimensions) and batches of 1024.
            **overrides: fields of this class; they take precedence over the model size.

        Raises:
            UserError: unknown field, model size or dataset, or a value out of range.
        """
        require_known(cls, overrides)
        require(
            dataset in (None, "mt30", "mt80"), f"dataset={dataset}: unknown (valid: mt30, mt80)"
        )
        size = str(overrides.pop("model_size", "5"))
        require(
            size in MODEL_SIZES,
            f"model_size={size}: unknown size (valid: {', '.join(MODEL_SIZES)})",
        )
        values: dict[str, Any] = dict(MODEL_SIZES[size])
        if multitask:
            values |= {"task_dim": MULTITASK_DIM, "batch_size": MULTITASK_BATCH}
            values.update(DATASET_QUIRKS.get((dataset or "", size), {}))
        return cls(model_size=size, **{**values, **overrides})  # type: ignore[arg-type]

    @property
    def bin_size(self) -> float:
        """Width of a bin of the two-hot encoding, in symlog space."""
        return (self.vmax - self.vmin) / (self.num_bins - 1)

    def num_iterations(self, action_dim: int) -> int:
        """Return the number of MPPI iterations: two more if A >= 20."""
        return self.iterations + 2 * (action_dim >= 20)

    def discount(self, episode_length: int) -> float:
        """Return γ = clip((T/5 − 1)/(T/5), 0.95, 0.995) for episodes of T decisions."""
        limits = (self.discount_min, self.discount_max)
        return episode_discount(episode_length, self.discount_denom, *limits)

    def num_seed_decisions(self, episode_length: int) -> int:
        """Return the number of decisions with uniform random actions before the first update."""
        if self.seed_decisions is not None:
            return self.seed_decisions
        return max(1000, 5 * episode_length)
