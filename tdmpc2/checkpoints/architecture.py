"""Detect the architecture of a model from the shapes of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import DATASET_QUIRKS, MODEL_SIZES, TDMPC2Config
from tdmpc2.envs.tasks import SUITES
from tdmpc2.world_model import WorldModel

# Fields of the configuration that the shapes determine.
DIMENSIONS = ("enc_dim", "mlp_dim", "latent_dim", "num_enc_layers", "num_q", "task_dim", "num_bins")
_SHOWN = 3  # differences that a message lists


@dataclass(frozen=True)
class Architecture:
    """Architecture of a state-observation model, detected from its weights.

    Attributes:
        dimensions: the fields `DIMENSIONS` of `TDMPC2Config`.
        obs_dim: length of the (padded) observation.
        action_dim: A, length of the (padded) action.
        num_tasks: rows of the task embedding; None for a single-task model.
        episodic: whether it predicts termination.
        size: a key of `MODEL_SIZES`; None if the shapes fit none.
        dataset: dataset whose irregular dimensions it has (`DATASET_QUIRKS`); None if it has the
            regular dimensions of its size.
        nearest: the size with the fewest differences.
        differences: differences from that size, one line per tensor; empty if it fits.
    """

    dimensions: Mapping[str, int]
    obs_dim: int
    action_dim: int
    num_tasks: int | None
    episodic: bool
    size: str | None
    dataset: str | None
    nearest: str
    differences: tuple[str, ...]

    @property
    def oddity(self) -> str:
        """Description of the differences from the nearest size, for a message."""
        return f"fits no model size; the nearest is {self.nearest}, but {_first(self.differences)}"

    def config(self, **overrides: Any) -> TDMPC2Config:
        """Return the configuration of the model.

        Args:
            **overrides: fields of `TDMPC2Config` that the shapes do not determine.
        """
        multitask = self.num_tasks is not None
        size = self.size or self.nearest
        fields = {**self.dimensions, **overrides}
        return TDMPC2Config.make(
            model_size=size, dataset=self.dataset, multitask=multitask, **fields
        )


def detect(weights: Mapping[str, Tensor], shown: Callable[[str], str] = str) -> Architecture:
    """Detect the architecture from the shapes of the weights.

    Args:
        weights: a `WorldModel.state_dict()` of a state-observation model.
        shown: maps the name of a weight to the name used in messages.

    Raises:
        UserError: not a TD-MPC2 model: weights are missing or unexpected, or their shapes
            contradict each other.
    """
    dimensions, env = _measure(weights, shown)
    num_own = num_parameters(weights)
    ranked = []
    for size, dataset, config in _candidates(env.num_tasks if dimensions["task_dim"] else None):
        with torch.device("meta"):
            model = WorldModel(config, env)
        mismatches = list(_compare(weights, model, shown))
        excess = abs(model.num_parameters() - num_own)
        ranked.append((len(mismatches), excess, size, dataset, mismatches))
    # Ties are broken by the number of parameters.
    num, _, size, dataset, mismatches = min(ranked, key=lambda entry: entry[:2])
    if num and not _consistent(weights, dimensions, env, size):
        raise UserError(f"not a TD-MPC2 model: {_first(mismatches)} (compared with size {size})")
    return Architecture(
        dimensions=dimensions,
        obs_dim=env.obs_shape[0],
        action_dim=env.action_dim,
        num_tasks=env.num_tasks if dimensions["task_dim"] else None,
        episodic=env.episodic,
        size=None if num else size,
        dataset=None if num else dataset,
        nearest=size,
        differences=tuple(mismatches),
    )


def differences(
    weights: Mapping[str, Tensor],
    config: TDMPC2Config,
    env: EnvSpec,
    shown: Callable[[str], str] = str,
) -> Iterator[str]:
    """Yield the differences between the shapes of weights and of a model, one line per tensor.

    Args:
        weights: a `WorldModel.state_dict()`.
        config: configuration of the model.
        env: shapes and tasks of the model.
        shown: maps the name of a weight to the name in the text.
    """
    with torch.device("meta"):
        model = WorldModel(config, env)
    return _compare(weights, model, shown)


def check_weights(weights: Mapping[str, Tensor], config: TDMPC2Config, env: EnvSpec) -> None:
    """Check that weights have the names and shapes of a model's weights.

    Args:
        weights: a `WorldModel.state_dict()`.
        config: configuration of the model.
        env: shapes and tasks of the model.

    Raises:
        UserError: they do not; the message lists the first differences.
    """
    mismatches = list(differences(weights, config, env))
    if mismatches:
        raise UserError(f"the weights do not fit the model's configuration: {_first(mismatches)}")


def num_parameters(weights: Mapping[str, Tensor]) -> int:
    """Return the number of learned parameters, without target networks."""
    return sum(v.numel() for k, v in weights.items() if not k.startswith("target_q_functions."))


def _compare(
    weights: Mapping[str, Tensor], model: WorldModel, shown: Callable[[str], str]
) -> Iterator[str]:
    """Yield the differences between weights and a model, one line per tensor."""
    expected = model.state_dict()
    for name, value in expected.items():
        if name not in weights:
            yield f"{shown(name)} is missing"
        elif weights[name].shape != value.shape:
            yield f"{shown(name)} is {_text(weights[name].shape)}, not {_text(value.shape)}"
    yield from (f"{shown(name)} is unexpected" for name in weights if name not in expected)


def _candidates(num_tasks: int | None) -> Iterator[tuple[str, str | None, TDMPC2Config]]:
    """Yield all sizes, and the irregular dimensions of datasets with this number of tasks."""
    for size in MODEL_SIZES:
        yield size, None, TDMPC2Config.make(model_size=size, multitask=num_tasks is not None)
    for dataset, size in DATASET_QUIRKS:
        if num_tasks == len(SUITES[dataset]):
            yield size, dataset, TDMPC2Config.make(model_size=size, multitask=True, dataset=dataset)


def _measure(
    weights: Mapping[str, Tensor], shown: Callable[[str], str]
) -> tuple[dict[str, int], EnvSpec]:
    """Return the dimensions that single tensors determine, and an `EnvSpec` without task names."""

    def size(name: str, axis: int, ndim: int) -> int:
        if name not in weights:
            raise UserError(f"not a TD-MPC2 model: {shown(name)} is missing")
        shape = weights[name].shape
        if len(shape) != ndim or 0 in shape:
            raise UserError(f"not a TD-MPC2 model: {shown(name)} is {_text(shape)}")
        return shape[axis]

    layers = sum(1 for name in weights if _is_encoder_layer(name))
    multitask = "task_embedding" in weights
    task_dim = size("task_embedding", 1, 2) if multitask else 0
    num_tasks = size("task_embedding", 0, 2) if multitask else 1
    outputs = size("policy.2.bias", 0, 1)
    obs_dim = size("encoder.0.linear.weight", 1, 2) - task_dim
    if outputs % 2 or obs_dim < 1:
        raise UserError(
            f"not a TD-MPC2 model: {outputs} policy outputs, observations of length {obs_dim}"
        )
    dimensions = {
        "enc_dim": size("encoder.0.linear.weight", 0, 2),
        "mlp_dim": size("dynamics.0.linear.weight", 0, 2),
        "latent_dim": size(f"encoder.{layers - 1}.linear.weight", 0, 2),
        "num_enc_layers": layers,
        "num_q": size("q_functions.linear1.weight", 0, 3),
        "task_dim": task_dim,
        "num_bins": size("reward_head.2.bias", 0, 1),
    }
    env = EnvSpec(
        obs_shape=(obs_dim,),
        action_dim=outputs // 2,
        episode_lengths=(1,) * num_tasks,
        action_repeats=(1,) * num_tasks,
        action_dims=(outputs // 2,) * num_tasks,
        task_names=tuple(map(str, range(num_tasks))),
        episodic=any(name.startswith("termination_head.") for name in weights),
    )
    return dimensions, env


def _is_encoder_layer(name: str) -> bool:
    parts = name.split(".")
    return len(parts) == 4 and parts[0] == "encoder" and parts[2:] == ["linear", "weight"]


def _consistent(
    weights: Mapping[str, Tensor], dimensions: Mapping[str, int], env: EnvSpec, size: str
) -> bool:
    """Return whether the shapes are consistent, for a model of an unknown size."""
    try:
        config = TDMPC2Config.make(model_size=size, **dict[str, Any](dimensions))
    except UserError:
        return False
    return not any(differences(weights, config, env))


def _first(mismatches: Sequence[str]) -> str:
    more = len(mismatches) - _SHOWN
    return "; ".join(mismatches[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _text(shape: tuple[int, ...] | torch.Size) -> str:
    return "x".join(map(str, shape)) or "a number"
