"""Importing the weights of official TD-MPC2 checkpoints, in the old and the new key format."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from tdmpc2.common.errors import UserError

# Parts of a normalised linear layer, in the order the old format numbers them.
LAYER_PARTS = ("weight", "bias", "ln.weight", "ln.bias")
NETWORKS = {
    "_encoder.state": "encoder",
    "_dynamics": "dynamics",
    "_reward": "reward_head",
    "_termination": "termination_head",
    "_pi": "policy",
}
ENSEMBLES = {"_Qs.params": "q_functions", "_target_Qs.params": "target_q_functions"}
# The new format calls the target networks `_target_Qs_params`; its copies of the online
# ones (`_detach_Qs_params`) and its constants carry nothing of their own.
IGNORED = re.compile(
    r"_detach_Qs|_Qs\.module|log_std_min$|log_std_dif$|_action_masks$|__batch_size$|__device$"
)


def import_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the weights of an official state-observation model to this project's names.

    Args:
        state: the official `state_dict`, old or new key format, single- or multi-task.

    Returns:
        A state dict for `WorldModel.load_state_dict`.

    Raises:
        UserError: a key that belongs to no known architecture.
    """
    weights: dict[str, Tensor] = {}
    for key, value in state.items():
        name = _rename(key)
        if name is not None:
            weights[name] = value
    return weights


def _rename(key: str) -> str | None:
    """Our name of an official key; None for keys without weights of their own."""
    if IGNORED.search(key):
        return None
    if key == "_task_emb.weight":
        return "task_embedding"
    normalized = key.replace("_target_Qs_params", "_target_Qs.params")
    for prefix, ensemble in ENSEMBLES.items():
        if normalized.startswith(prefix + "."):
            return _rename_ensemble(ensemble, normalized[len(prefix) + 1 :], key)
    for prefix, network in NETWORKS.items():
        match = re.fullmatch(re.escape(prefix) + r"\.(\d+)\.(ln\.)?(weight|bias)", key)
        if match:
            layer, norm, part = match.groups()
            # The last layer of a head is a plain Linear, every other one is normalised.
            is_head = network in ("reward_head", "policy", "termination_head") and layer == "2"
            inner = "" if is_head else ("norm." if norm else "linear.")
            return f"{network}.{layer}.{inner}{part}"
    raise UserError(f"checkpoint key '{key}' belongs to no known TD-MPC2 architecture")


def _rename_ensemble(ensemble: str, rest: str, key: str) -> str:
    """`{4·layer + part}` in the old format, `{layer}.{part}` in the new one."""
    if rest.isdigit():
        layer, part = int(rest) // 4, LAYER_PARTS[int(rest) % 4]
    else:
        number, _, part = rest.partition(".")
        if not number.isdigit() or part not in LAYER_PARTS:
            raise UserError(f"checkpoint key '{key}' belongs to no known TD-MPC2 architecture")
        layer = int(number)
    kind = "norm" if part.startswith("ln.") else "linear"
    return f"{ensemble}.{kind}{layer + 1}.{part.removeprefix('ln.')}"
