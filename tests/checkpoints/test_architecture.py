"""Detection of model sizes, irregular dimensions and differences from weight shapes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tdmpc2.checkpoints.architecture import check_weights, detect, num_parameters
from tdmpc2.checkpoints.official import export_official
from tdmpc2.checkpoints.official_file import shown_by
from tdmpc2.checkpoints.task_sets import fitting_tasks, recognize
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import MODEL_SIZES, TDMPC2Config
from tdmpc2.envs.multitask import multitask_spec
from tdmpc2.envs.tasks import SUITES
from tests.checkpoints.models import shapes, single_task

# Learned parameters of the multi-task models, by the formula of each layer.
MT80 = {"1": 1_435_067, "5": 5_389_930, "19": 18_970_218, "48": 48_791_146, "317": 317_383_129}
MT30 = {"1": 1_426_427, "5": 5_241_066, "19": 16_031_210, "48": 48_242_410, "317": 317_316_889}


def suite(name: str) -> EnvSpec:
    return multitask_spec(SUITES[name])


@pytest.mark.parametrize("size", MODEL_SIZES)
def test_every_size_of_a_single_task(size: str) -> None:
    found = detect(shapes(size, single_task()))
    assert (found.size, found.dataset, found.num_tasks) == (size, None, None)
    assert (found.obs_dim, found.action_dim, found.episodic) == (24, 6, False)
    assert found.config() == TDMPC2Config.make(model_size=size)


@pytest.mark.parametrize(("name", "totals"), [("mt80", MT80), ("mt30", MT30)])
@pytest.mark.parametrize("size", MT80)
def test_the_released_multitask_models(name: str, totals: dict[str, int], size: str) -> None:
    weights = shapes(size, suite(name), dataset=name)
    found = detect(weights)
    assert found.size == size
    assert found.dataset == (name if name == "mt30" and size in ("5", "19", "48") else None)
    assert found.config() == TDMPC2Config.make(model_size=size, dataset=name, multitask=True)
    assert num_parameters(weights) == totals[size]
    assert recognize(found) == name


def test_thirty_tasks_without_the_quirks_are_a_size_too() -> None:
    found = detect(shapes("5", suite("mt30")))
    assert (found.size, found.dataset, found.dimensions["task_dim"]) == ("5", None, 96)


def test_the_quirks_belong_to_thirty_tasks() -> None:
    found = detect(shapes("5", suite("mt80"), task_dim=64))
    assert found.size is None
    assert "the nearest is 5, but task_embedding is 80x64, not 80x96" in found.oddity


def test_shapes_of_the_released_5m_model() -> None:
    """Differences are reported with the names in the file."""
    weights = shapes("5", suite("mt80"))
    state = export_official(weights, "old", log_std=(-10, 2), action_dims=())
    stated = {
        "_Qs.params.0": (5, 512, 614),
        "_Qs.params.3": (5, 512),
        "_Qs.params.4": (5, 512, 512),
        "_Qs.params.8": (5, 101, 512),
        "_Qs.params.9": (5, 101),
        "_encoder.state.0.weight": (256, 135),
        "_encoder.state.1.weight": (512, 256),
        "_dynamics.0.weight": (512, 614),
        "_pi.0.weight": (512, 608),
        "_pi.2.weight": (12, 512),
        "_task_emb.weight": (80, 96),
    }
    assert {key: tuple(state[key].shape) for key in stated} == stated


def test_a_head_for_termination_means_episodes_that_end() -> None:
    assert detect(shapes("5", single_task(4, 2, episodic=True))).episodic


def test_tasks_that_fit() -> None:
    found = detect(shapes("5", single_task(24, 5)))
    assert fitting_tasks(found) == ("fish-swim",)
    assert recognize(found) is None


def test_an_odd_model_says_how_it_differs() -> None:
    weights = shapes("5", single_task(), num_q=4, enc_dim=300)
    state = export_official(weights, "old", log_std=(-10, 2), action_dims=(6,))
    found = detect(weights, shown_by(state))
    assert (found.size, found.nearest) == (None, "5")
    assert found.oddity.startswith(
        "fits no model size; the nearest is 5, but _encoder.state.0.weight is 300x24, not 256x24; "
    )
    assert found.oddity.endswith("; and 22 more")
    assert found.config() == TDMPC2Config.make(model_size="5", num_q=4, enc_dim=300)


def test_the_nearest_of_equally_bad_sizes_is_the_one_as_large() -> None:
    weights = shapes("5", single_task(), enc_dim=260, mlp_dim=600, latent_dim=640, num_q=6)
    assert detect(weights).nearest == "5"


Change = dict[str, Tensor | None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy.2.bias": None}, "policy.2.bias is missing"),
        ({"dynamics.1.norm.bias": None}, "dynamics.1.norm.bias is missing"),
        ({"reward_head.3.weight": torch.zeros(3)}, "reward_head.3.weight is unexpected"),
        ({"dynamics.0.linear.weight": torch.zeros(512, 9)}, "is 512x9, not 512x518"),
        ({"policy.2.bias": torch.zeros(11)}, "11 policy outputs"),
        ({"q_functions.linear1.weight": torch.zeros(3)}, "q_functions.linear1.weight is 3"),
    ],
)
def test_contradictions_are_no_model(change: Change, message: str) -> None:
    weights = {k: v for k, v in (shapes("5", single_task()) | change).items() if v is not None}
    with pytest.raises(UserError, match=message):
        detect(weights)


def test_a_latent_that_simnorm_cannot_divide_is_no_model() -> None:
    weights = shapes("5", single_task(), latent_dim=500, simnorm_dim=5)
    with pytest.raises(UserError, match="not a TD-MPC2 model"):
        detect(weights)


def test_weights_of_another_model_are_refused() -> None:
    env = single_task()
    with pytest.raises(
        UserError, match=r"do not fit the model's configuration: encoder\.1\.linear\.weight"
    ):
        check_weights(shapes("1", env), TDMPC2Config.make(), env)
