"""Hyperparameters of TD-MPC, including task-specific settings."""

from __future__ import annotations

import dataclasses
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
    WIDTH,
    Precision,
    check_fields,
    require,
    require_default,
    require_known,
    require_ordered,
    setting,
)
from tdmpc2.config import MODEL_SIZES, MULTITASK_BATCH, MULTITASK_DIM

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

    task_settings: Literal["repository", "none"] = setting(
        "repository", "settings of task domains, see `TASK_SETTINGS`"
    )

    # --- architecture; sizes above 1 are those of TD-MPC2, for multi-task learning -----
    model_size: ModelSize = setting(
        "1", "millions of parameters; sets the dimensions below that are not given"
    )
    enc_dim: int = setting(256, "units of the hidden layers of the encoder", WIDTH)
    mlp_dim: int = setting(512, "units of the hidden layers of all other networks", WIDTH)
    num_enc_layers: int = setting(2, "layers of the encoder", low=2, high=LAYERS.high)
    latent_dim: int | None = setting(
        None, "dimensions of the latent state; default: set by the domain", WIDTH
    )
    task_dim: int = setting(0, "dimensions of the task embedding; 0: none", low=0, high=WIDTH.high)
    normalize_task_embedding: bool = setting(True, "limit the norm of task embeddings to 1")
    precision: Precision = setting("fp32", MULTIPLICATIONS)

    # --- planning (MPPI) -----------------------------------------------------------
    horizon: int = setting(5, "decisions to plan and to predict in the loss", HORIZON)
    horizon_decisions: int = setting(
        25_000, "decisions in which the planning horizon grows from 1", DECISIONS
    )
    iterations: int | None = setting(None, "iterations; default: set by the domain", HORIZON)
    num_samples: int = setting(512, "Gaussian samples, without those of the policy", BATCH)
    num_pi_samples: int = setting(25, "sequences sampled from the policy", low=0, high=BATCH.high)
    num_elites: int = setting(64, "best sequences that form the next distribution", BATCH)
    temperature: float = setting(
        0.5, "factor of the values in the weights of elites; 0: equal weights", COEFFICIENT
    )
    momentum: float = setting(0.1, "weight of the previous mean", low=0, below=1)
    max_std: float = setting(2.0, "initial and maximum standard deviation", above=0, high=STD.high)
    initial_min_std: float = setting(
        0.5, "minimum standard deviation at first; falls linearly to min_std", STD
    )
    min_std: float = setting(0.05, "minimum standard deviation", STD)
    min_std_decisions: int = setting(
        25_000, "decisions in which the minimum standard deviation falls", DECISIONS
    )
    clip_action: bool = setting(
        False, "clip actions with exploration noise; false: the environment clips them"
    )

    # --- learning ------------------------------------------------------------------
    batch_size: int = setting(512, "sub-trajectories per update", BATCH)
    lr: float | None = setting(None, "learning rate; default: set by the domain", LEARNING_RATE)
    grad_clip_norm: float = setting(10.0, "maximum norm of gradients", POSITIVE)
    tau: float = setting(0.01, "rate of the target networks", FRACTION)
    target_every: int = setting(2, "updates per update of the target networks", DECISIONS)
    rho: float = setting(0.5, "factor of a loss per decision into the future", FRACTION)
    consistency_coef: float = setting(2.0, "weight of the consistency loss", COEFFICIENT)
    reward_coef: float = setting(0.5, "weight of the reward loss", COEFFICIENT)
    value_coef: float = setting(0.1, "weight of the value loss", COEFFICIENT)
    loss_clip: float = setting(
        1e4,
        "largest value of each loss term of a sub-trajectory",
        above=0,
        high=1_000_000_000,
    )
    prior_std: float = setting(0.05, "standard deviation of the policy's noise", STD)
    prior_noise_clip: float = setting(0.3, "largest absolute value of the policy's noise", STD)
    discount_from: Literal["fixed", "episode_length"] = setting(
        "fixed", "use discount=, or TD-MPC2's rule for the length of episodes"
    )
    discount: float = setting(0.99, "discount γ, with discount_from=fixed", FRACTION)
    per_alpha: float = setting(0.6, "prioritized replay: exponent of priorities", FRACTION)
    per_beta: float = setting(0.4, "prioritized replay: exponent of weights", FRACTION)
    buffer_size: int = setting(1_000_000, "rows of the replay buffer", ROWS)
    seed_decisions: int = setting(5_000, "random decisions before the first update", DECISIONS)
    pretrain_updates: int | None = setting(
        None,
        "updates right after the seed decisions; default: as many as seed decisions",
        low=0,
        high=DECISIONS.high,
    )

    def __post_init__(self) -> None:
        """Check that all values are valid."""
        check_fields(self)
        if self.discount_from != "fixed":
            require_default(self, "discount", f"discount_from={self.discount_from}")
        total = self.num_samples + self.num_pi_samples
        require(
            self.num_elites <= total,
            f"num_elites={self.num_elites}: must be at most num_samples + num_pi_samples = {total}",
        )
        require_ordered(self, "min_std", "max_std")
        require_ordered(self, "initial_min_std", "max_std")

    @classmethod
    def make(cls, *, multitask: bool = False, **overrides: Any) -> TDMPCConfig:
        """Return the config of a model size with overrides.

        Args:
            multitask: whether to use a task embedding (96 dimensions) and batches of 1024.
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
            values |= {"task_dim": MULTITASK_DIM, "batch_size": MULTITASK_BATCH}
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
