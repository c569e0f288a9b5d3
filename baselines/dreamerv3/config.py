"""Hyperparameters and model sizes of DreamerV3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tdmpc2.common.system.config_checks import (
    BATCH,
    COEFFICIENT,
    DECISIONS,
    FRACTION,
    HORIZON,
    LAYERS,
    LEARNING_RATE,
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
    model_size: ModelSize = setting(
        "20", "millions of parameters; sets sizes and learning rates that are not given"
    )
    deter: int = setting(512, "dimensions of the recurrent state", WIDTH)
    hidden: int = setting(512, "units of the hidden layers of the RSSM", WIDTH)
    stoch: int = setting(32, "categorical variables of the stochastic state", WIDTH)
    classes: int = setting(32, "classes of a categorical variable", WIDTH)
    encoder_layers: int = setting(5, "hidden layers of the encoder", LAYERS)
    encoder_units: int = setting(1024, "units of the encoder", WIDTH)
    decoder_layers: int = setting(5, "hidden layers of the decoder", LAYERS)
    decoder_units: int = setting(1024, "units of the decoder", WIDTH)
    head_layers: int = setting(2, "hidden layers of all other networks", LAYERS)
    head_units: int = setting(512, "units of all other networks", WIDTH)
    unimix: float = setting(0.01, "share of the uniform distribution in categoricals", FRACTION)
    num_bins: int = setting(255, "bins of the two-hot encoding", low=3, high=10_000)
    vmin: float = setting(-20.0, "lowest bin, in symlog space", SYMLOG)
    vmax: float = setting(20.0, "highest bin, in symlog space", SYMLOG)
    precision: Precision = setting("fp32", MULTIPLICATIONS)

    # --- world model ---------------------------------------------------------------
    batch_size: int = setting(16, "sequences per update", BATCH)
    batch_length: int = setting(64, "decisions of a sequence", low=2, high=BATCH.high)
    free_nats: float = setting(1.0, "KL divergence that is not penalized, in nats", COEFFICIENT)
    dyn_scale: float = setting(0.5, "weight of the dynamics loss", COEFFICIENT)
    rep_scale: float = setting(0.1, "weight of the representation loss", COEFFICIENT)
    model_lr: float = setting(1e-4, "learning rate of the world model", LEARNING_RATE)
    model_eps: float = setting(1e-8, "ε of Adam for the world model", above=0, high=1)
    model_clip_norm: float = setting(1000.0, "maximum gradient norm, world model", POSITIVE)

    # --- behavior -----------------------------------------------------------------
    imagination: int = setting(15, "decisions of an imagined trajectory", HORIZON)
    discount_horizon: float = setting(333.0, "H in γ = 1 - 1/H", above=1, high=1_000_000)
    return_lambda: float = setting(0.95, "λ of the returns", FRACTION)
    actor_min_std: float = setting(0.1, "minimum σ of the actor", above=0, high=STD.high)
    actor_max_std: float = setting(1.0, "maximum σ of the actor", above=0, high=STD.high)
    entropy_coef: float = setting(3e-4, "weight of the entropy bonus", COEFFICIENT)
    return_decay: float = setting(0.99, "decay of the range of returns", FRACTION)
    slow_share: float = setting(0.02, "rate of the slow critic", FRACTION)
    slow_coef: float = setting(1.0, "weight of the loss to the slow critic", COEFFICIENT)
    lr: float = setting(3e-5, "learning rate of actor and critic", LEARNING_RATE)
    eps: float = setting(1e-5, "ε of Adam for actor and critic", above=0, high=1)
    clip_norm: float = setting(100.0, "maximum gradient norm, actor and critic", POSITIVE)

    # --- collecting ----------------------------------------------------------------
    num_envs: int = setting(4, "environments that are stepped together", low=1, high=1024)
    train_ratio: float = setting(512.0, "replayed observations per decision", POSITIVE)
    seed_decisions: int = setting(1_024, "random decisions before the first update", DECISIONS)
    buffer_size: int = setting(1_000_000, "rows of the replay buffer", ROWS)

    def __post_init__(self) -> None:
        """Check that all values are valid."""
        check_fields(self)
        require_ordered(self, "vmin", "vmax", equal=False)
        require_ordered(self, "actor_min_std", "actor_max_std")
        require(
            self.stoch_dim in WIDTH,
            f"stoch * classes = {self.stoch_dim}: must lie in {WIDTH}",
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
