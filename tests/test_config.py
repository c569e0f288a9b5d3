"""Test the config: model sizes, dataset quirks, derived values and invalid values."""

from __future__ import annotations

import dataclasses
import typing

import pytest

from tdmpc2.common.system.errors import UserError
from tdmpc2.config import DATASET_QUIRKS, MODEL_SIZES, TDMPC2Config
from tdmpc2.runners.offline_arguments import usage

# Hyperparameters of the first official release.
PAPER = {
    "horizon": 3,
    "iterations": 6,
    "num_samples": 512,
    "num_pi_samples": 24,
    "num_elites": 64,
    "min_std": 0.05,
    "max_std": 2.0,
    "temperature": 0.5,
    "momentum": 0.0,
    "log_std_min": -10.0,
    "log_std_max": 2.0,
    "entropy_coef": 1e-4,
    "buffer_size": 1_000_000,
    "num_bins": 101,
    "vmin": -10.0,
    "vmax": 10.0,
    "consistency_coef": 20.0,
    "reward_coef": 0.1,
    "value_coef": 0.1,
    "rho": 0.5,
    "batch_size": 256,
    "lr": 3e-4,
    "pi_eps": 1e-5,
    "grad_clip_norm": 20.0,
    "tau": 0.01,
    "num_q": 5,
    "dropout": 0.01,
    "simnorm_dim": 8,
    "simnorm_tau": 1.0,
    "latent_norm": "simnorm",
    "hidden_norm": "layernorm",
    "regression": "discrete",
    "policy_prior": "max_entropy",
    "entropy_form": "paper",
    "q_init": "paper",
    "dropout_in": "model_loss",
}
LITERALS = {
    name: typing.get_args(hint)
    for name, hint in typing.get_type_hints(TDMPC2Config).items()
    if typing.get_origin(hint) is typing.Literal
}


def test_defaults_are_the_papers() -> None:
    config = TDMPC2Config.make()
    assert {field: getattr(config, field) for field in PAPER} == PAPER


def test_the_encoder_learns_at_9e_5() -> None:
    config = TDMPC2Config.make()
    assert config.lr * config.enc_lr_scale == pytest.approx(9e-5)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("1", (256, 384, 128, 2, 2)),
        ("5", (256, 512, 512, 2, 5)),
        ("19", (1024, 1024, 768, 3, 5)),
        ("48", (1792, 1792, 768, 4, 5)),
        ("317", (4096, 4096, 1376, 5, 8)),
    ],
)
def test_model_sizes(size: str, expected: tuple[int, ...]) -> None:
    c = TDMPC2Config.make(model_size=size)
    assert (c.enc_dim, c.mlp_dim, c.latent_dim, c.num_enc_layers, c.num_q) == expected
    assert c.task_dim == 0


def test_a_size_may_be_given_as_a_number_and_fields_win_over_it() -> None:
    config = TDMPC2Config.make(model_size=1, num_q=7)
    assert (config.model_size, config.num_q, config.mlp_dim) == ("1", 7, 384)


@pytest.mark.parametrize("size", list(MODEL_SIZES))
@pytest.mark.parametrize("dataset", ["mt30", "mt80"])
def test_dataset_quirks(dataset: str, size: str) -> None:
    config = TDMPC2Config.make(model_size=size, dataset=dataset, multitask=True)
    narrow = dataset == "mt30" and size in ("5", "19", "48")
    assert config.task_dim == (64 if narrow else 96)
    quirky = dataset == "mt30" and size == "19"
    assert config.latent_dim == (512 if quirky else MODEL_SIZES[size]["latent_dim"])


@pytest.mark.parametrize("field", LITERALS)
def test_flags_name_their_values(field: str) -> None:
    with pytest.raises(UserError) as error:
        TDMPC2Config.make(**{field: "nonsense"})
    assert f"{field}=nonsense" in str(error.value)
    assert all(str(value) in str(error.value) for value in LITERALS[field])


@pytest.mark.parametrize(
    "bad",
    [
        {"num_q": 0},
        {"num_enc_layers": 1},
        {"horizon": 0},
        {"simnorm_tau": 0.0},
        {"simnorm_dim": 0},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"momentum": 1.0},
        {"latent_dim": 20},
        {"num_pi_samples": 513},
        {"num_pi_samples": -1},
        {"num_elites": 0},
        {"num_elites": 513},
        {"num_bins": 2},
        {"vmin": 10.0},
        {"batch_size": 0},
        {"buffer_size": 0},
        {"iterations": 0},
        {"mlp_dim": 0},
        {"model_size": "6"},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused_in_one_line(bad: dict[str, float]) -> None:
    with pytest.raises(UserError) as error:
        TDMPC2Config.make(**bad)
    message = str(error.value)
    assert next(iter(bad)) in message
    assert "\n" not in message


def test_a_latent_without_simnorm_need_not_be_a_multiple_of_its_groups() -> None:
    assert TDMPC2Config.make(latent_norm="none", latent_dim=20).latent_dim == 20


def test_a_config_is_never_written_after_it_is_built() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TDMPC2Config.make().horizon = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("episode_length", "discount"),
    [(500, 0.99), (100, 0.95), (1000, 0.995), (250, 0.98), (50, 0.95), (5000, 0.995), (2, 0.95)],
)
def test_discount(episode_length: int, discount: float) -> None:
    assert TDMPC2Config.make().discount(episode_length) == pytest.approx(discount, abs=1e-12)


@pytest.mark.parametrize(("action_dim", "iterations"), [(1, 6), (19, 6), (20, 8), (39, 8)])
def test_large_action_spaces_take_two_more_iterations(action_dim: int, iterations: int) -> None:
    assert TDMPC2Config.make().num_iterations(action_dim) == iterations


@pytest.mark.parametrize(("episode_length", "decisions"), [(500, 2500), (100, 1000), (200, 1000)])
def test_seeding_phase(episode_length: int, decisions: int) -> None:
    assert TDMPC2Config.make().num_seed_decisions(episode_length) == decisions
    assert TDMPC2Config.make(seed_decisions=7).num_seed_decisions(episode_length) == 7


def test_bins_are_a_fifth_apart() -> None:
    assert TDMPC2Config.make().bin_size == pytest.approx(0.2)


def test_the_help_states_the_settings_of_the_released_models() -> None:
    shown = usage("tdmpc2")
    for (dataset, size), values in DATASET_QUIRKS.items():
        line = " ".join(f"{name}={value}" for name, value in values.items())
        assert f"for task={dataset} model_size={size}: {line}" in shown
    assert "mt30 model_size" not in usage("tdmpc")
