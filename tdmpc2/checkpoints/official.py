"""Map the names of weights between official TD-MPC2 checkpoints, old and new, and this project."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from tdmpc2.common.system.errors import UserError

KeyFormat = Literal["old", "new"]

# Tensors of a normalized linear layer, in the order in which the old format numbers them.
LAYER_PARTS = ("weight", "bias", "ln.weight", "ln.bias")
NETWORKS = {
    "_encoder.state": "encoder",
    "_dynamics": "dynamics",
    "_reward": "reward_head",
    "_termination": "termination_head",
    "_pi": "policy",
}
# The last layer of these networks is a plain Linear; all other layers are normalized.
HEADS = ("reward_head", "policy", "termination_head")
ENSEMBLES = {"_Qs.params": "q_functions", "_target_Qs.params": "target_q_functions"}
EMBEDDING = "_task_emb.weight"
# The new format calls the target networks `_target_Qs_params`. Its copies of the online networks
# (`_detach_Qs_params`) and its constants contain no weights of their own.
IGNORED = re.compile(
    r"_detach_Qs|_Qs\.module|log_std_min$|log_std_dif$|_action_masks$|__batch_size$|__device$"
)
_OLD_KEY = re.compile(r"_Qs\.params\.\d+")
_NEW_KEY = re.compile(r"_Qs\.params\.\d+\.(ln\.)?(weight|bias)")


class Constants(NamedTuple):
    """Constants that a file of the new format contains; None for values that it lacks.

    Attributes:
        log_std: minimum and maximum log standard deviation of the policy.
        action_dims: valid action dimensions of each task.
    """

    log_std: tuple[float, float] | None
    action_dims: tuple[int, ...] | None


# --- from official names to this project's -------------------------------------------------


def import_official(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename the weights of an official state-observation model to this project's names.

    Args:
        state: the official `state_dict`, old or new key format, single- or multi-task.

    Returns:
        A state dict for `WorldModel.load_state_dict`.

    Raises:
        UserError: a key belongs to no known architecture, or two keys name the same weights.
    """
    weights, unknown = split_official(state)
    if unknown:
        raise UserError(f"checkpoint key '{unknown[0]}' belongs to no known TD-MPC2 architecture")
    return weights


def split_official(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the renamed weights, and the keys that belong to no known architecture.

    Raises:
        UserError: two keys name the same weights.
    """
    weights: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        if IGNORED.search(key):
            continue
        name = our_name(key)
        if name is None or not isinstance(value, Tensor):
            unknown.append(key)
        elif name in weights:
            raise UserError(f"checkpoint key '{key}': the file has the same weights twice")
        else:
            weights[name] = value
    return weights, unknown


def our_name(key: str) -> str | None:
    """Return this project's name of an official key, or None if the key is unknown."""
    if key == EMBEDDING:
        return "task_embedding"
    normalized = key.replace("_target_Qs_params", "_target_Qs.params")
    for prefix, ensemble in ENSEMBLES.items():
        if normalized.startswith(prefix + "."):
            return _ensemble_name(ensemble, normalized[len(prefix) + 1 :])
    for prefix, network in NETWORKS.items():
        match = re.fullmatch(re.escape(prefix) + r"\.(\d+)\.(ln\.)?(weight|bias)", key)
        if match:
            layer, norm, part = match.groups()
            is_head = network in HEADS and layer == "2"
            inner = "" if is_head else ("norm." if norm else "linear.")
            return f"{network}.{layer}.{inner}{part}"
    return None


def _ensemble_name(ensemble: str, rest: str) -> str | None:
    """Map `{4·layer + part}` of the old format, or `{layer}.{part}` of the new one."""
    if rest.isdigit():
        layer, part = int(rest) // 4, LAYER_PARTS[int(rest) % 4]
    else:
        number, _, part = rest.partition(".")
        if not number.isdigit() or part not in LAYER_PARTS:
            return None
        layer = int(number)
    kind = "norm" if part.startswith("ln.") else "linear"
    return f"{ensemble}.{kind}{layer + 1}.{part.removeprefix('ln.')}"


def key_format(keys: Iterable[str]) -> KeyFormat | None:
    """Return the format of official keys by those of the Q-functions, or None if there are none."""
    for key in keys:
        if _NEW_KEY.fullmatch(key):
            return "new"
        if _OLD_KEY.fullmatch(key):
            return "old"
    return None


def constants(state: Mapping[str, Any]) -> Constants:
    """Return the constants of an official state dict.

    Raises:
        UserError: they are damaged.
    """
    log_std = action_dims = None
    low, width, masks = (state.get(k) for k in ("log_std_min", "log_std_dif", "_action_masks"))
    if low is not None and width is not None:
        if not all(isinstance(x, Tensor) and x.numel() == 1 for x in (low, width)):
            raise UserError("checkpoint keys 'log_std_min', 'log_std_dif': not numbers")
        log_std = (float(low), float(low) + float(width))
    if masks is not None:
        if not isinstance(masks, Tensor) or masks.dim() != 2:
            raise UserError("checkpoint key '_action_masks': not a matrix")
        dims = masks.sum(-1)
        if not torch.equal(masks, _action_masks(tuple(dims.int().tolist()), masks)):
            raise UserError("checkpoint key '_action_masks': masks dimensions between valid ones")
        action_dims = tuple(dims.int().tolist())
    return Constants(log_std, action_dims)


def _action_masks(action_dims: tuple[int, ...], like: Tensor) -> Tensor:
    """Return `(num_tasks, A)`, 1 for valid dimensions, with the width and dtype of `like`."""
    valid = torch.arange(like.shape[-1]) < torch.tensor(action_dims).reshape(-1, 1)
    return valid.to(like.dtype)


# --- from this project's names to official ones --------------------------------------------


def official_name(name: str, keys: KeyFormat) -> str | None:
    """Return the official key of a name, or None if the official model has no such weights."""
    if name == "task_embedding":
        return EMBEDDING
    ensemble = re.fullmatch(r"(target_)?q_functions\.(linear|norm)(\d)\.(weight|bias)", name)
    if ensemble:
        target, kind, number, part = ensemble.groups()
        layer, part = int(number) - 1, f"ln.{part}" if kind == "norm" else part
        if keys == "old":
            prefix = "_target_Qs.params" if target else "_Qs.params"
            return f"{prefix}.{4 * layer + LAYER_PARTS.index(part)}"
        return f"{'_target_Qs_params' if target else '_Qs.params'}.{layer}.{part}"
    for prefix, network in NETWORKS.items():
        plain = re.fullmatch(rf"{network}\.(\d+)\.(linear\.|norm\.)?(weight|bias)", name)
        if plain:
            layer_number, kind, part = plain.groups()
            return f"{prefix}.{layer_number}.{'ln.' if kind == 'norm.' else ''}{part}"
    return None


def export_official(
    weights: Mapping[str, Tensor],
    keys: KeyFormat,
    *,
    log_std: tuple[float, float],
    action_dims: tuple[int, ...],
) -> dict[str, Any]:
    """Return the official `state_dict` of a model's weights.

    The new format also contains the constants, the copies of the online Q-functions and the two
    entries that tensordict adds to each ensemble, so that the official code can load it strictly.

    Args:
        weights: `WorldModel.state_dict()` of a state-observation model.
        keys: the key format.
        log_std: minimum and maximum log standard deviation of the policy.
        action_dims: valid action dimensions, one per task.

    Raises:
        UserError: the official model does not have some of the weights.
    """
    state: dict[str, Any] = {}
    if keys == "new":
        if "task_embedding" in weights:
            like = torch.zeros(len(action_dims), weights["policy.2.bias"].shape[0] // 2)
            state["_action_masks"] = _action_masks(action_dims, like)
        low, high = (int(x) if x == int(x) else x for x in log_std)
        state |= {"log_std_min": torch.tensor(low), "log_std_dif": torch.tensor(high - low)}
    for name, value in weights.items():
        key = official_name(name, keys)
        if key is None:
            raise UserError(f"weights '{name}': the official model has no such weights")
        state[key] = value
    return _with_ensemble_entries(state) if keys == "new" else state


def _with_ensemble_entries(state: dict[str, Any]) -> dict[str, Any]:
    """Add the copies of the online Q-functions, and tensordict's two entries of each ensemble."""
    online, detached, target = "_Qs.params.", "_detach_Qs_params.", "_target_Qs_params."
    full = {k: v for k, v in state.items() if not k.startswith((online, target))}
    for prefix, source in ((online, online), (detached, online), (target, target)):
        ensemble = {k.replace(source, prefix): v for k, v in state.items() if k.startswith(source)}
        num_q = len(next(iter(ensemble.values())))
        full |= ensemble
        full |= {f"{prefix}__batch_size": torch.Size([num_q]), f"{prefix}__device": None}
    return full
