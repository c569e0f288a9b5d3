"""Test layers against closed forms, and ensembles against one module per member."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc2.common.system.errors import UserError
from tdmpc2.ensemble import EnsembleLinear, EnsembleNorm, QEnsemble
from tdmpc2.layers import (
    NormedLinear,
    PixelEncoder,
    StateEncoder,
    head,
    hidden_layer,
    latent_layer,
    linear_of_parts,
    mish,
    random_shift,
    simnorm,
)
from tests.helpers import tiny_config

POINTS = [-1e4, -100.0, -30.0, -20.0, -5.0, -1.0, 0.0, 0.5, 5.0, 19.9, 20.0, 20.1, 88.0, 100.0, 1e4]


def seeded(*shape: int, seed: int = 0) -> Tensor:
    """Return standard normal numbers from a fixed seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def disturb_(module: torch.nn.Module) -> None:
    """Randomize all parameters, since biases and norms are initialized with 0 and 1."""
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter += 0.5 * seeded(*parameter.shape, seed=i)


def reference_layer(
    x: Tensor, weight: Tensor, bias: Tensor, norm: tuple | None, act: str
) -> Tensor:
    """Linear → LayerNorm → activation from the definitions, in float64."""
    y = x.double() @ weight.double().T + bias.double()
    if norm is not None:
        centered = y - y.mean(-1, keepdim=True)
        variance = centered.square().mean(-1, keepdim=True)
        y = centered / (variance + 1e-5).sqrt() * norm[0].double() + norm[1].double()
    if act == "mish":
        y = y * torch.tanh(torch.log1p(torch.exp(y)))
    elif act == "simnorm":
        e = torch.exp(y).unflatten(-1, (-1, 8))
        y = (e / e.sum(-1, keepdim=True)).flatten(-2)
    return y.float()


# --- activations ---------------------------------------------------------------------


def test_mish_and_its_gradient() -> None:
    """Compare with x·tanh(softplus(x)) in float64 over the whole range of float32 exponents.

    With and without gradients, which take different paths.
    """
    x = np.array(POINTS)
    softplus = np.logaddexp(0, x)
    value = torch.tensor(x * np.tanh(softplus)).float()
    sigmoid = np.exp(x - softplus)
    slope = torch.tensor(np.tanh(softplus) + x * (1 - np.tanh(softplus) ** 2) * sigmoid).float()
    points = torch.tensor(POINTS)
    torch.testing.assert_close(mish(points), value, rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(mish(points), F.mish(points), rtol=2e-6, atol=1e-6)
    points.requires_grad_()
    torch.testing.assert_close(mish(points), value, rtol=2e-6, atol=1e-6)
    mish(points).sum().backward()
    torch.testing.assert_close(points.grad, slope, rtol=2e-6, atol=5e-6)


def test_simnorm_by_hand() -> None:
    """Softmax of (0, ln 3) is (1/4, 3/4); a temperature of 1/2 squares the odds."""
    x = torch.tensor([[0.0, math.log(3.0), 5.0, 5.0]])
    torch.testing.assert_close(simnorm(x, 2), torch.tensor([[0.25, 0.75, 0.5, 0.5]]))
    torch.testing.assert_close(simnorm(x, 2, tau=0.5), torch.tensor([[0.1, 0.9, 0.5, 0.5]]))
    torch.testing.assert_close(simnorm(x, 4, tau=1e6), torch.full((1, 4), 0.25))


def test_simnorm_groups_are_simplices() -> None:
    y = simnorm(10 * seeded(3, 7, 24), 8)
    assert y.min() >= 0
    torch.testing.assert_close(y.view(3, 7, 3, 8).sum(-1), torch.ones(3, 7, 3))


# --- single layers and the state encoder ---------------------------------------------


def test_inputs_of_other_columns_than_the_weight_are_refused() -> None:
    parts, weight = (seeded(4, 3), seeded(2, 4, 2)), seeded(6, 5)
    joined = torch.cat([parts[0].expand(2, 4, 3), parts[1]], -1)
    torch.testing.assert_close(linear_of_parts(parts, weight, None), joined @ weight.T)
    for shown in (parts[:1], ()):
        with pytest.raises(ValueError, match="but a weight of 5"):
            linear_of_parts(shown, weight, None)


@pytest.mark.parametrize("hidden_norm", ["layernorm", "none"])
def test_hidden_layer(hidden_norm: str) -> None:
    layer = hidden_layer(tiny_config(hidden_norm=hidden_norm), 5, 16)
    disturb_(layer)
    norm = (layer.norm.weight, layer.norm.bias) if hidden_norm == "layernorm" else None
    assert (layer.norm is None) == (hidden_norm == "none")
    x = seeded(4, 5)
    expected = reference_layer(x, layer.linear.weight, layer.linear.bias, norm, "mish")
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("latent_norm", "hidden_norm", "has_norm", "activation"),
    [
        ("simnorm", "layernorm", True, "simnorm"),
        ("simnorm", "none", False, "simnorm"),
        ("layernorm", "layernorm", True, "none"),
        ("layernorm", "none", True, "none"),
        ("none", "layernorm", False, "none"),
        ("none", "none", False, "none"),
    ],
)
def test_latent_layer(latent_norm: str, hidden_norm: str, has_norm: bool, activation: str) -> None:
    layer = latent_layer(tiny_config(latent_norm=latent_norm, hidden_norm=hidden_norm), 5)
    disturb_(layer)
    norm = (layer.norm.weight, layer.norm.bias) if has_norm else None
    assert (layer.norm is not None) == has_norm
    x = seeded(4, 5)
    expected = reference_layer(x, layer.linear.weight, layer.linear.bias, norm, activation)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_simnorm_tau_reaches_the_latent() -> None:
    sharp, soft = (latent_layer(tiny_config(simnorm_tau=tau), 5) for tau in (0.1, 10.0))
    soft.load_state_dict(sharp.state_dict())
    x = seeded(4, 5)
    log_odds = [torch.log(layer(x).view(4, 2, 8)) for layer in (sharp, soft)]
    spread = [(lo - lo[..., :1]) for lo in log_odds]
    torch.testing.assert_close(spread[0], 100 * spread[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("num_enc_layers", "num_hidden"), [(2, 1), (3, 2), (5, 4)])
def test_encoder_depth(num_enc_layers: int, num_hidden: int) -> None:
    config = tiny_config(num_enc_layers=num_enc_layers, task_dim=4)
    encoder = StateEncoder(config, 5)
    shapes = [tuple(layer.linear.weight.shape) for layer in encoder]
    assert shapes == [(12, 9), *[(12, 12)] * (num_hidden - 1), (16, 12)]
    assert [layer.activation for layer in encoder] == ["mish"] * num_hidden + ["simnorm"]


# --- initial values ------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer", [NormedLinear(256, 256), head(256, 256), EnsembleLinear(2, 256, 256)], ids=type
)
def test_initial_weights(layer: torch.nn.Module) -> None:
    """Weights are normal with standard deviation 0.02, biases zero."""
    linear = getattr(layer, "linear", layer)
    weight = linear.weight.detach()
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert weight.mean().item() == pytest.approx(0.0, abs=4 * 0.02 / 256)
    assert weight.abs().max() > 3.5 * 0.02  # truncated at ±2, not at two standard deviations
    assert not linear.bias.any()


def test_norms_start_as_the_identity() -> None:
    for norm in (NormedLinear(5, 16).norm, EnsembleNorm(3, 16)):
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()


def test_zero_heads_start_at_zero() -> None:
    assert not head(16, 11, zero=True)(seeded(4, 16)).any()
    assert head(16, 11)(seeded(4, 16)).any()
    assert not QEnsemble(tiny_config(), 5, 11)(seeded(4, 5)).any()


def test_q_init_of_the_papers_code() -> None:
    q = QEnsemble(tiny_config(mlp_dim=256), 100, 11)
    for layer in (q.linear1, q.linear2):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.03)
        assert not layer.bias.any()


def test_q_init_of_the_releases_of_2024() -> None:
    """U(−1/√fan_in, 1/√fan_in) in the hidden layers, still zero in the last."""
    q = QEnsemble(tiny_config(mlp_dim=256, q_init="official_2024"), 100, 11)
    for layer, fan_in in ((q.linear1, 100), (q.linear2, 256)):
        bound = fan_in**-0.5
        for values in (layer.weight, layer.bias):
            assert bound * 0.95 < values.abs().max() <= bound
            assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert not q(seeded(4, 100)).any()


# --- the Q-ensemble ------------------------------------------------------------------


def separate_heads(q: QEnsemble, x: Tensor, dropout: Tensor | None = None) -> Tensor:
    """Evaluate the ensemble as N separate networks; returns `(N, ..., out)`."""
    outputs = []
    for i in range(q.num_q):
        y = F.linear(x, q.linear1.weight[i], q.linear1.bias[i])
        if dropout is not None:
            y = y * dropout[i]
        for norm, following in ((q.norm1, q.linear2), (q.norm2, q.linear3)):
            if norm is not None:
                y = F.layer_norm(y, y.shape[-1:], norm.weight[i], norm.bias[i], 1e-5)
            y = F.linear(F.mish(y), following.weight[i], following.bias[i])
        outputs.append(y)
    return torch.stack(outputs)


@pytest.mark.parametrize("hidden_norm", ["layernorm", "none"])
@pytest.mark.parametrize("num_q", [1, 2, 5])
def test_ensemble_is_n_separate_networks(num_q: int, hidden_norm: str) -> None:
    q = QEnsemble(tiny_config(num_q=num_q, hidden_norm=hidden_norm), 5, 11)
    disturb_(q)
    x = seeded(2, 3, 5)
    assert q(x).shape == (num_q, 2, 3, 11)
    torch.testing.assert_close(q(x), separate_heads(q, x), rtol=1e-4, atol=1e-5)


def test_chosen_heads_in_their_order() -> None:
    q = QEnsemble(tiny_config(num_q=5), 5, 11)
    disturb_(q)
    x = seeded(4, 5)
    every = separate_heads(q, x)
    for heads in ([3, 1], [0], [4, 4]):
        chosen = q(x, heads=torch.tensor(heads))
        torch.testing.assert_close(chosen, every[heads], rtol=1e-4, atol=1e-5)


def test_dropout_acts_before_the_first_norm_only() -> None:
    """Test dropout of half of the first layer's outputs, per head and per row."""
    q = QEnsemble(tiny_config(num_q=3), 5, 11)
    disturb_(q)
    x = seeded(2, 4, 5)
    factors = 2.0 * (seeded(3, 2, 4, 16, seed=1) > 0)
    expected = separate_heads(q, x, factors)
    torch.testing.assert_close(q(x, dropout=factors), expected, rtol=1e-4, atol=1e-5)
    assert (expected - separate_heads(q, x)).abs().max() > 0.1
    pair = torch.tensor([2, 0])
    chosen = q(x, heads=pair, dropout=factors[pair])
    torch.testing.assert_close(chosen, expected[pair], rtol=1e-4, atol=1e-5)


# --- pixels --------------------------------------------------------------------------


@pytest.mark.parametrize("latent_norm", ["simnorm", "layernorm", "none"])
def test_pixel_encoder(latent_norm: str) -> None:
    """Four convolutions of x/255 − 1/2 give 4·4·32 = 512 numbers, normalized by `latent_norm`."""
    config = tiny_config(latent_dim=512, latent_norm=latent_norm)
    encoder = PixelEncoder(config, 9)
    images = (seeded(2, 3, 9, 64, 64) * 60 + 128).clamp(0, 255).to(torch.uint8)
    latent = encoder(images)
    assert latent.shape == (2, 3, 512)
    x = images.view(6, 9, 64, 64).float() / 255 - 0.5
    convs = [layer for layer in encoder.layers if isinstance(layer, torch.nn.Conv2d)]
    for i, conv in enumerate(convs):
        x = F.conv2d(x, conv.weight, conv.bias, stride=2 if i < 3 else 1)
        x = F.relu(x) if i < 3 else x
    assert [tuple(c.weight.shape[2:]) for c in convs] == [(7, 7), (5, 5), (3, 3), (3, 3)]
    x = x.reshape(2, 3, 512)
    if latent_norm == "simnorm":
        x = torch.softmax(x.view(2, 3, 64, 8), -1).view(2, 3, 512)
    elif latent_norm == "layernorm":
        x = F.layer_norm(x, (512,))
    torch.testing.assert_close(latent, x, rtol=1e-4, atol=1e-5)


def test_pixel_encoder_refuses_another_latent() -> None:
    with pytest.raises(UserError, match="512"):
        PixelEncoder(tiny_config(latent_dim=128), 9)


def test_random_shift_is_a_crop_of_the_padded_image() -> None:
    """Compare all shifts with pad 3 to NumPy's edge padding."""
    images = torch.arange(49 * 2 * 8 * 8).reshape(49, 2, 8, 8)
    offsets = torch.cartesian_prod(torch.arange(7), torch.arange(7))
    shifted = random_shift(images, offsets)
    for image, (row, col), result in zip(images, offsets.tolist(), shifted, strict=True):
        padded = np.pad(image.numpy(), ((0, 0), (3, 3), (3, 3)), mode="edge")
        np.testing.assert_array_equal(result.numpy(), padded[:, row : row + 8, col : col + 8])
    assert torch.equal(shifted[24], images[24])  # offsets (3, 3): no shift
