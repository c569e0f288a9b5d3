"""What the shapes of a model's weights give away: its dimensions, its size, and what is odd."""

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

# Fields of the configuration that shapes decide.
DIMENSIONS = ("enc_dim", "mlp_dim", "latent_dim", "num_enc_layers", "num_q", "task_dim", "num_bins")
_SHOWN = 3  # differences that a message names


@dataclass(frozen=True)
class Architecture:
    """A state-observation model as its weights describe it.

    Attributes:
        dimensions: fields of `TDMPC2Config`, those of `DIMENSIONS`.
        obs_dim: length of the (padded) observation.
        action_dim: A, of the (padded) action.
        num_tasks: rows of the task embedding; None for a single-task model.
        episodic: whether it predicts termination.
        size: a key of `MODEL_SIZES`; None if the shapes fit none.
        dataset: whose quirks it has (`DATASET_QUIRKS`); None for the sizes as they are.
        nearest: the size that it differs from least.
        differences: from that size, a text per tensor; empty if it fits.
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
        """How it differs from the nearest size, for a message."""
        return f"fits no model size; the nearest is {self.nearest}, but {_first(self.differences)}"

    def config(self, **overrides: Any) -> TDMPC2Config:
        """The configuration of such a model.

        Args:
            **overrides: fields of `TDMPC2Config` that shapes don't decide.
        """
        multitask = self.num_tasks is not None
        size = self.size or self.nearest
        given = {**self.dimensions, **overrides}
        return TDMPC2Config.make(
            model_size=size, dataset=self.dataset, multitask=multitask, **given
        )


def detect(weights: Mapping[str, Tensor], shown: Callable[[str], str] = str) -> Architecture:
    """Tells the architecture by the shapes of the weights.

    Args:
        weights: as of `WorldModel.state_dict()`, of a state-observation model.
        shown: the name of some weights in messages.

    Raises:
        UserError: weights are missing or left over, or their shapes contradict each other: no
            TD-MPC2 model.
    """
    dimensions, env = _measure(weights, shown)
    own = num_parameters(weights)
    ranked = []
    for size, dataset, config in _candidates(env.num_tasks if dimensions["task_dim"] else None):
        with torch.device("meta"):
            model = WorldModel(config, env)
        found = list(_compare(weights, model, shown))
        ranked.append((len(found), abs(model.num_parameters() - own), size, dataset, found))
    # Where several fit equally badly, the one of the most similar number of parameters.
    num, _, size, dataset, found = min(ranked, key=lambda one: one[:2])
    if num and not _consistent(weights, dimensions, env, size):
        raise UserError(f"no TD-MPC2 model: {_first(found)} (compared with size {size})")
    return Architecture(
        dimensions=dimensions,
        obs_dim=env.obs_shape[0],
        action_dim=env.action_dim,
        num_tasks=env.num_tasks if dimensions["task_dim"] else None,
        episodic=env.episodic,
        size=None if num else size,
        dataset=None if num else dataset,
        nearest=size,
        differences=tuple(found),
    )


def differences(
    weights: Mapping[str, Tensor],
    config: TDMPC2Config,
    env: EnvSpec,
    shown: Callable[[str], str] = str,
) -> Iterator[str]:
    """How the shapes of weights differ from those of a model: a text per tensor.

    Args:
        weights: as of `WorldModel.state_dict()`.
        config: of the model.
        env: of the model.
        shown: the name of some weights.
    """
    with torch.device("meta"):
        model = WorldModel(config, env)
    return _compare(weights, model, shown)


def check_weights(weights: Mapping[str, Tensor], config: TDMPC2Config, env: EnvSpec) -> None:
    """Refuses weights that are not those of a model.

    Raises:
        UserError: with the first differences.
    """
    found = list(differences(weights, config, env))
    if found:
        raise UserError(f"the weights are not those of the model described: {_first(found)}")


def num_parameters(weights: Mapping[str, Tensor]) -> int:
    """Learned parameters; target networks don't count."""
    return sum(v.numel() for k, v in weights.items() if not k.startswith("target_q_functions."))


def _compare(
    weights: Mapping[str, Tensor], model: WorldModel, shown: Callable[[str], str]
) -> Iterator[str]:
    """How the shapes of weights differ from a model's: a text per tensor."""
    wanted = model.state_dict()
    for name, value in wanted.items():
        if name not in weights:
            yield f"{shown(name)} is missing"
        elif weights[name].shape != value.shape:
            yield f"{shown(name)} is {_text(weights[name].shape)}, not {_text(value.shape)}"
    yield from (f"{shown(name)} is left over" for name in weights if name not in wanted)


def _candidates(num_tasks: int | None) -> Iterator[tuple[str, str | None, TDMPC2Config]]:
    """Every size, and for models of a dataset's tasks each that has quirks."""
    for size in MODEL_SIZES:
        yield size, None, TDMPC2Config.make(model_size=size, multitask=num_tasks is not None)
    for dataset, size in DATASET_QUIRKS:
        if num_tasks == len(SUITES[dataset]):
            yield size, dataset, TDMPC2Config.make(model_size=size, multitask=True, dataset=dataset)


def _measure(
    weights: Mapping[str, Tensor], shown: Callable[[str], str]
) -> tuple[dict[str, int], EnvSpec]:
    """The dimensions that single tensors tell, and an `EnvSpec` whose tasks have no names yet."""

    def size(name: str, axis: int, ndim: int) -> int:
        if name not in weights:
            raise UserError(f"no TD-MPC2 model: {shown(name)} is missing")
        shape = weights[name].shape
        if len(shape) != ndim or 0 in shape:
            raise UserError(f"no TD-MPC2 model: {shown(name)} is {_text(shape)}")
        return shape[axis]

    layers = sum(1 for name in weights if _is_encoder_layer(name))
    multitask = "task_embedding" in weights
    task_dim = size("task_embedding", 1, 2) if multitask else 0
    num_tasks = size("task_embedding", 0, 2) if multitask else 1
    outputs = size("policy.2.bias", 0, 1)
    obs_dim = size("encoder.0.linear.weight", 1, 2) - task_dim
    if outputs % 2 or obs_dim < 1:
        raise UserError(
            f"no TD-MPC2 model: {outputs} outputs of the policy, {obs_dim} observed numbers"
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
    """Whether the shapes are those of one model, if of no known size."""
    try:
        config = TDMPC2Config.make(model_size=size, **dict[str, Any](dimensions))
    except UserError:
        return False
    return not any(differences(weights, config, env))


def _first(found: Sequence[str]) -> str:
    more = len(found) - _SHOWN
    return "; ".join(found[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _text(shape: tuple[int, ...] | torch.Size) -> str:
    return "x".join(map(str, shape)) or "a number"
