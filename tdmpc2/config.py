"""Hyperparameters, feature flags and model sizes of TD-MPC2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tdmpc2.common.numerics.discount import episode_discount
from tdmpc2.common.system.config_checks import (
    BATCH,
    COEFFICIENT,
    DECISIONS,
    FRACTION,
    HORIZON,
    LAYERS,
    LEARNING_RATE,
    LOG_STD,
    MULTIPLICATIONS,
    POSITIVE,
    ROWS,
    STD,
    SYMLOG,
    WIDTH,
    Precision,
    check_fields,
    require,
    require_known,
    require_ordered,
    setting,
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
    latent_norm: Literal["simnorm", "layernorm", "none"] = setting(
        "simnorm", "last layer of encoder and dynamics, see `layers.latent_layer`"
    )
    simnorm_dim: int = setting(8, "SimNorm: dimensions per simplex", WIDTH)
    simnorm_tau: float = setting(1.0, "SimNorm: temperature of the softmax", POSITIVE)
    hidden_norm: Literal["layernorm", "none"] = setting(
        "layernorm", "normalization of hidden layers"
    )
    regression: Literal["discrete", "symlog_mse", "mse"] = setting(
        "discrete", "prediction of rewards and values: two-hot classification, or squared error"
    )
    policy_prior: Literal["max_entropy", "gaussian_noise"] = setting(
        "max_entropy", "policy that is learned beside the planner; gaussian_noise: that of TD-MPC"
    )
    planning: bool = setting(True, "act with MPPI; false: act with the policy prior")
    normalize_task_embedding: bool = setting(True, "limit the norm of task embeddings to 1")
    entropy_form: Literal["paper", "official_2024", "exact"] = setting(
        "paper",
        "formula of the entropy bonus: first official release, later releases, or exact; see "
        "`MaxEntropyPrior`",
    )
    entropy_tuning: Literal["value_scale", "target"] = setting(
        "value_scale",
        "weight of the entropy bonus: the fixed entropy_coef against Q / S, or a learned "
        "coefficient against Q with target entropy -A, as in SAC (needs entropy_form=exact); see "
        "`losses.policy_loss`",
    )
    q_init: Literal["paper", "official_2024"] = setting(
        "paper",
        "initialization of the hidden layers of Q-functions: truncated normal, or PyTorch's "
        "default, which official releases of 2024-26 left in place",
    )
    # Differs from the official code: the first release intends dropout in the model loss only,
    # but applies it in every call of a Q-function (`everywhere`).
    dropout_in: Literal["model_loss", "everywhere", "model_and_policy_loss"] = setting(
        "model_loss", "where Q-functions apply dropout"
    )
    prioritized_replay: bool = setting(False, "prioritized replay (Schaul et al., 2016)")
    precision: Precision = setting("fp32", MULTIPLICATIONS)

    # --- architecture (from `model_size`) ------------------------------------------
    model_size: ModelSize = setting(
        "5", "millions of parameters; sets the dimensions below that are not given"
    )
    enc_dim: int = setting(256, "units of the hidden layers of the encoder", WIDTH)
    mlp_dim: int = setting(512, "units of the hidden layers of all other networks", WIDTH)
    latent_dim: int = setting(512, "dimensions of the latent state", WIDTH)
    num_enc_layers: int = setting(2, "layers of the encoder", low=2, high=LAYERS.high)
    num_channels: int = setting(32, "channels of the encoder of pixels", low=1, high=4096)
    num_q: int = setting(5, "number of Q-functions", low=1, high=100)
    task_dim: int = setting(0, "dimensions of the task embedding; 0: none", low=0, high=WIDTH.high)
    dropout: float = setting(0.01, "dropout rate of the Q-functions", low=0, below=1)
    num_bins: int = setting(101, "bins of the two-hot encoding", low=3, high=10_000)
    vmin: float = setting(-10.0, "lowest bin, in symlog space", SYMLOG)
    vmax: float = setting(10.0, "highest bin, in symlog space", SYMLOG)
    log_std_min: float = setting(-10.0, "minimum of log σ of the policy prior", LOG_STD)
    log_std_max: float = setting(2.0, "maximum of log σ of the policy prior", LOG_STD)

    # --- planning (MPPI) -----------------------------------------------------------
    horizon: int = setting(3, "decisions to plan and to predict in the model loss", HORIZON)
    iterations: int = setting(6, "iterations; two more if the action has >= 20 dimensions", HORIZON)
    num_samples: int = setting(512, "sampled action sequences, those of the prior included", BATCH)
    num_elites: int = setting(64, "best sequences that form the next distribution", BATCH)
    num_pi_samples: int = setting(
        24, "sequences sampled from the policy prior", low=0, high=BATCH.high
    )
    min_std: float = setting(0.05, "minimum standard deviation", STD)
    max_std: float = setting(2.0, "initial and maximum standard deviation", above=0, high=STD.high)
    temperature: float = setting(
        0.5, "factor of the values in the weights of elites; 0: equal weights", COEFFICIENT
    )
    momentum: float = setting(0.0, "weight of the previous mean", low=0, below=1)

    # --- learning ------------------------------------------------------------------
    batch_size: int = setting(256, "sub-trajectories per update", BATCH)
    lr: float = setting(3e-4, "learning rate", LEARNING_RATE)
    enc_lr_scale: float = setting(
        0.3, "learning rate of the encoder, relative to lr", low=0, high=100
    )
    pi_eps: float = setting(1e-5, "ε of Adam for the policy prior", above=0, high=1)
    grad_clip_norm: float = setting(20.0, "maximum norm of gradients", POSITIVE)
    tau: float = setting(0.01, "rate of the target networks", FRACTION)
    rho: float = setting(0.5, "factor of a loss per decision into the future", FRACTION)
    consistency_coef: float = setting(20.0, "weight of the consistency loss", COEFFICIENT)
    reward_coef: float = setting(0.1, "weight of the reward loss", COEFFICIENT)
    value_coef: float = setting(0.1, "weight of the value loss", COEFFICIENT)
    termination_coef: float = setting(
        1.0, "weight of the termination loss (episodic tasks)", COEFFICIENT
    )
    entropy_coef: float = setting(1e-4, "weight of the entropy bonus", COEFFICIENT)
    discount_denom: float = setting(
        5.0, "divisor D in γ = clip((T/D - 1) / (T/D)), T: decisions per episode", POSITIVE
    )
    discount_min: float = setting(0.95, "smallest discount", FRACTION)
    discount_max: float = setting(0.995, "largest discount", FRACTION)
    buffer_size: int = setting(1_000_000, "rows of the replay buffer", ROWS)
    seed_decisions: int | None = setting(
        None,
        "decisions before the first update; default: max(1000, 5 * episode length)",
        DECISIONS,
    )
    seed_with: Literal["random", "agent"] = setting(
        "random", "actions of the seed decisions: uniform noise, or those of the agent (finetuning)"
    )
    pretrain_updates: int | None = setting(
        None,
        "updates right after the seed decisions; default: as many as seed decisions",
        low=0,
        high=DECISIONS.high,
    )

    # --- used by feature flags only --------------------------------------------------
    initial_alpha: float = setting(
        0.1, "entropy_tuning=target: initial value of the learned coefficient", POSITIVE
    )
    prior_std: float = setting(
        0.05, "policy_prior=gaussian_noise: standard deviation of the noise", STD
    )
    prior_noise_clip: float = setting(
        0.3, "policy_prior=gaussian_noise: largest absolute value of the noise", STD
    )
    initial_min_std: float = setting(
        0.5,
        "policy_prior=gaussian_noise: initial min_std, which falls linearly to min_std over the "
        "first min_std_decisions",
        STD,
    )
    min_std_decisions: int = setting(
        25_000, "policy_prior=gaussian_noise: see initial_min_std", DECISIONS
    )
    per_alpha: float = setting(0.6, "prioritized_replay: exponent of priorities", FRACTION)
    per_beta: float = setting(0.4, "prioritized_replay: exponent of weights", FRACTION)

    def __post_init__(self) -> None:
        """Check that all values are valid."""
        check_fields(self)
        require(
            self.entropy_tuning == "value_scale"
            or (self.entropy_form == "exact" and self.policy_prior == "max_entropy"),
            "entropy_tuning=target: needs entropy_form=exact and policy_prior=max_entropy",
        )
        require(
            self.latent_norm != "simnorm" or self.latent_dim % self.simnorm_dim == 0,
            f"latent_dim={self.latent_dim}: must be a multiple of simnorm_dim={self.simnorm_dim}",
        )
        require_ordered(self, "num_pi_samples", "num_samples")
        require_ordered(self, "num_elites", "num_samples")
        require_ordered(self, "vmin", "vmax", equal=False)
        require_ordered(self, "log_std_min", "log_std_max", equal=False)
        require_ordered(self, "min_std", "max_std")
        require_ordered(self, "discount_min", "discount_max")
        if self.policy_prior == "gaussian_noise":
            require_ordered(self, "initial_min_std", "max_std")

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

    def check_pixels(self) -> None:
        """Check that the latent state is as large as the output of the encoder of pixels.

        Raises:
            UserError: `latent_dim` is not 16·num_channels.
        """
        out_dim = 16 * self.num_channels
        require(
            self.latent_dim == out_dim,
            f"latent_dim={self.latent_dim}: must be 16 * num_channels = {out_dim} with pixel "
            f"observations; use latent_dim={out_dim} or "
            f"num_channels={max(self.latent_dim // 16, 1)}",
        )

    @property
    def bin_size(self) -> float:
        """Width of a bin of the two-hot encoding, in symlog space."""
        return (self.vmax - self.vmin) / (self.num_bins - 1)

    def num_iterations(self, action_dim: int) -> int:
        """Return the number of MPPI iterations: two more if A >= 20."""
        return self.iterations + 2 * (action_dim >= 20)

    def planning_min_std(self, decisions: int) -> float:
        """Return σ_min of the planner after a number of decisions.

        Constant for the maximum-entropy prior; with the Gaussian-noise prior, TD-MPC's linear
        schedule from `initial_min_std` to `min_std` over `min_std_decisions` decisions.
        """
        if self.policy_prior == "max_entropy":
            return self.min_std
        progress = min(decisions / self.min_std_decisions, 1.0)
        return self.initial_min_std + progress * (self.min_std - self.initial_min_std)

    def discount(self, episode_length: int) -> float:
        """Return γ = clip((T/5 − 1)/(T/5), 0.95, 0.995) for episodes of T decisions."""
        limits = (self.discount_min, self.discount_max)
        return episode_discount(episode_length, self.discount_denom, *limits)

    def num_seed_decisions(self, episode_length: int) -> int:
        """Return the number of decisions with uniform random actions before the first update."""
        if self.seed_decisions is not None:
            return self.seed_decisions
        return max(1000, 5 * episode_length)
