"""Export formats: what they can and cannot represent."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from tdmpc2.checkpoints.exporting import export_model
from tdmpc2.checkpoints.model_file import load_model, save_model
from tdmpc2.checkpoints.reading import read_weights
from tdmpc2.common.system.errors import UserError
from tdmpc2.world_model import WorldModel
from tests.checkpoints.models import FAST, TASKS, model, official_file, same


def test_what_new_files_hold_beside_weights(tmp_path: Path) -> None:
    state = read_weights(official_file(tmp_path / "a.pt", model(*TASKS))).weights
    assert state["_Qs.params.__batch_size"] == torch.Size([2])
    assert state["_target_Qs_params.__device"] is None
    assert torch.equal(state["_detach_Qs_params.1.ln.bias"], state["_Qs.params.1.ln.bias"])
    assert (int(state["log_std_min"]), int(state["log_std_dif"])) == (-10, 12)
    assert state["_action_masks"].tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"hidden_norm": "none"}, "hidden_norm=none: the official code supports only"),
        ({"regression": "mse"}, "regression=mse"),
        ({"entropy_form": "exact", "entropy_tuning": "target"}, "'policy_log_alpha'"),
        ({"task_dim": 3, "normalize_task_embedding": False}, "supports only normalize_task_emb"),
    ],
)
def test_models_of_another_form_cannot_be_official(
    tmp_path: Path, overrides: dict[str, Any], message: str
) -> None:
    other = model(**overrides)
    with pytest.raises(UserError, match=message):
        export_model(other, tmp_path / "a.pt", "official")
    assert not list(tmp_path.iterdir())
    save_model(tmp_path / "a.pt", other)
    assert same(load_model(tmp_path / "a.pt").weights, other.weights)


def test_settings_that_a_file_does_not_say_are_named(tmp_path: Path) -> None:
    odd = model(model_size="5", num_q=2, log_std_min=-20.0)
    acting = [f"{name}={value}" for name, value in FAST.items()]
    assert export_model(odd, tmp_path / "a.pt", "official") == ["num_q=2", *acting]
    assert export_model(odd, tmp_path / "b.pt", "official-old") == [
        *("num_q=2", "log_std_min=-20.0", *acting),
    ]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        export_model(model(), tmp_path / "a.pt", "official")
    assert (tmp_path / "a.pt").read_text() == "mine"
    with pytest.raises(UserError, match=r"must end in \.pt"):
        export_model(model(), tmp_path / "a.bin", "official")


def test_pixels_stay_in_the_projects_own_formats(tmp_path: Path) -> None:
    state = model(latent_dim=512, num_channels=32)
    env = dataclasses.replace(state.env, obs_shape=(9, 64, 64), frame_stack=3)
    pixels = state._replace(env=env, weights=WorldModel(state.config, env).state_dict())
    with pytest.raises(UserError, match="state observations only"):
        export_model(pixels, tmp_path / "a.pt", "official")
    save_model(tmp_path / "a.pt", pixels)
    assert load_model(tmp_path / "a.pt").env == env
