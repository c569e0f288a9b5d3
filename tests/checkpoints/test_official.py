"""Keys of official checkpoints: old and new keys give equal weights, and both export back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tdmpc2.checkpoints.official import constants, export_official, import_official, key_format
from tdmpc2.common.system.errors import UserError
from tests.checkpoints.models import TASKS, model, official_file, refused
from tests.golden import FILES, Golden

# Old number of a Q-function's tensor (4·layer + part) and its name in the new format.
NEW_Q_NAMES = {
    "0": "0.weight",
    "1": "0.bias",
    "2": "0.ln.weight",
    "3": "0.ln.bias",
    "4": "1.weight",
    "5": "1.bias",
    "6": "1.ln.weight",
    "7": "1.ln.bias",
    "8": "2.weight",
    "9": "2.bias",
}


def recorded(name: str) -> dict[str, Tensor]:
    """Return the state dict of a golden file with its official keys."""
    golden = Golden(name)
    keys = [key for key in golden.arrays if key.startswith("state_dict/")]
    return {key.removeprefix("state_dict/"): golden(key) for key in keys}


def in_new_format(old: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the same weights with the keys of 2024 and later, including the extra entries."""
    new = {}
    for key, value in old.items():
        network, _, number = key.rpartition(".")
        if network == "_Qs.params":
            new[f"_Qs.params.{NEW_Q_NAMES[number]}"] = value
            new[f"_detach_Qs_params.{NEW_Q_NAMES[number]}"] = value
        elif network == "_target_Qs.params":
            new[f"_target_Qs_params.{NEW_Q_NAMES[number]}"] = value
        else:
            new[key] = value
    extras = (
        "log_std_min",
        "log_std_dif",
        "_action_masks",
        "_Qs.params.__batch_size",
        "_Qs.params.__device",
        "_target_Qs_params.0.__batch_size",
        "_Qs.module.0.weight",
    )
    return new | {key: torch.zeros(1) for key in extras}


@pytest.mark.parametrize("name", ["paper_single_task", "paper_multi_task"])
def test_both_formats_give_the_same_weights(name: str) -> None:
    old = recorded(name)
    assert "_Qs.params.9" in old  # confirms the old format
    from_old, from_new = import_official(old), import_official(in_new_format(old))
    assert from_old.keys() == from_new.keys()
    for key in from_old:
        assert torch.equal(from_old[key], from_new[key]), key


@pytest.mark.parametrize("name", FILES)
def test_every_weight_of_the_model_is_set(name: str) -> None:
    """No key is missing or unexpected, and each tensor is in its network."""
    golden, official = Golden(name), recorded(name)
    model: Any = golden.agent().model
    weights = import_official(official)
    assert weights.keys() == model.state_dict().keys()
    model.load_state_dict(weights, strict=True)
    pairs = {
        "_encoder.state.1.ln.weight": model.encoder[1].norm.weight,
        "_dynamics.2.bias": model.dynamics[2].linear.bias,
        "_reward.2.weight": model.reward_head[2].weight,
        "_pi.0.ln.bias": model.policy[0].norm.bias,
        "_pi.2.bias": model.policy[2].bias,
        "_Qs.params.6" if golden.is_paper else "_Qs.params.1.ln.weight": (
            model.q_functions.norm2.weight
        ),
        "_target_Qs.params.8" if golden.is_paper else "_target_Qs_params.2.weight": (
            model.target_q_functions.linear3.weight
        ),
    }
    for key, ours in pairs.items():
        assert torch.equal(official[key], ours), key


@pytest.mark.parametrize("name", FILES)
def test_export_gives_back_the_official_state_dict(name: str) -> None:
    """Keys and their order are equal, except for tensordict's own entries."""
    golden, official = Golden(name), recorded(name)
    config, keys = golden.config(), key_format(official)
    assert keys == ("old" if golden.is_paper else "new")
    log_std = (config.log_std_min, config.log_std_max)
    state = export_official(
        import_official(official), keys, log_std=log_std, action_dims=golden.env().action_dims
    )
    noted = [key for key in state if key.endswith(("__batch_size", "__device"))]
    assert len(noted) == (0 if golden.is_paper else 6)
    tensors = {key: value for key, value in state.items() if key not in noted}
    assert tensors.keys() == official.keys()
    if keys == "new":
        assert list(tensors) == list(official)
    for key, value in tensors.items():
        assert torch.equal(value, official[key]), key
        assert value.dtype == official[key].dtype, key


def test_constants_of_the_new_format() -> None:
    golden = Golden("head2026_multi_task")
    said = constants(recorded("head2026_multi_task"))
    assert said.log_std == (-10.0, 2.0)
    assert said.action_dims == golden.env().action_dims
    assert constants(recorded("paper_multi_task")) == (None, None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("log_std_min", torch.zeros(3)),
        ("_action_masks", torch.zeros(3)),
        ("_action_masks", torch.tensor([[1.0, 0.0, 1.0]])),
    ],
)
def test_damaged_constants_are_refused(key: str, value: Tensor) -> None:
    with pytest.raises(UserError, match=key):
        constants(recorded("head2026_multi_task") | {key: value})


def test_action_masks_of_more_tasks_than_the_embedding_are_refused(tmp_path: Path) -> None:
    """They agree with the tasks as far as these go."""
    masks = torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    path = official_file(tmp_path / "a.pt", model(*TASKS), _action_masks=masks)
    refused(path, "action masks of 4 tasks, but 3 are given", tasks=",".join(TASKS))


def test_weights_named_twice_are_refused() -> None:
    both = recorded("paper_single_task") | {"_Qs.params.0.weight": torch.zeros(1)}
    with pytest.raises(UserError, match=r"_Qs\.params\.0.* same weights twice"):
        import_official(both)


def test_termination_head() -> None:
    keys = ("0.weight", "0.ln.weight", "2.weight", "2.bias")
    weights = import_official({f"_termination.{key}": torch.zeros(1) for key in keys})
    assert list(weights) == [
        "termination_head.0.linear.weight",
        "termination_head.0.norm.weight",
        "termination_head.2.weight",
        "termination_head.2.bias",
    ]


@pytest.mark.parametrize(
    "key",
    [
        "_decoder.0.weight",
        "_Qs.params.0.scale",
        "_Qs.params.weight",
        "_dynamics.weight",
        "_encoder.rgb.0.weight",
        "model",
    ],
)
def test_unknown_keys_are_refused_by_name(key: str) -> None:
    with pytest.raises(UserError, match=key):
        import_official(recorded("paper_single_task") | {key: torch.zeros(1)})
