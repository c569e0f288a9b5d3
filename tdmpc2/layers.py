"""Building blocks of the networks: normalised linear layers, SimNorm, Q-ensembles, encoders."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2.common.errors import UserError
from tdmpc2.config import TDMPC2Config

INIT_STD = 0.02
EMBEDDING_INIT = 0.02


def mish(x: Tensor) -> Tensor:
    """Mish, x·tanh(softplus(x)).

    Without gradients, with one exponential instead of three: with n = e^x (e^x + 2),
    tanh(ln(1 + e^x)) = n / (n + 2). Above 20 the factor is 1 in float32, so the exponent is
    cut there and cannot overflow. With gradients PyTorch's single operation has the shorter
    backward pass.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return F.mish(x)
    e = torch.exp(torch.clamp(x, max=20.0))
    n = e * (e + 2.0)
    return x * (n / (n + 2.0))


def simnorm(x: Tensor, group_dim: int, tau: float = 1.0) -> Tensor:
    """Simplicial normalisation (Eq. 5 of the paper): a softmax inside each group.

    Args:
        x: `(..., latent_dim)`.
        group_dim: V, the size of a group; divides `latent_dim`.
        tau: temperature of the softmax.
    """
    groups = x.view(-1, x.shape[-1] // group_dim, group_dim)
    if tau != 1.0:
        groups = groups / tau
    # Over a strided dimension the same softmax takes a sixth of the time on a CPU.
    return torch.softmax(groups.transpose(1, 2), dim=1).transpose(1, 2).reshape(x.shape)


def init_linear_(weight: Tensor, bias: Tensor) -> None:
    """Truncated normal weights with standard deviation 0.02, zero biases."""
    nn.init.trunc_normal_(weight, std=INIT_STD)
    nn.init.zeros_(bias)


class NormedLinear(nn.Module):
    """Linear → LayerNorm (optional) → activation.

    Args:
        in_dim, out_dim: sizes of the linear map.
        norm: whether a LayerNorm follows the linear map.
        activation: `mish`, `simnorm` or `none`.
        simnorm_dim, simnorm_tau: of the SimNorm activation.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        norm: bool = True,
        activation: str = "mish",
        simnorm_dim: int = 8,
        simnorm_tau: float = 1.0,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, out_dim)
        self.norm = nn.LayerNorm(out_dim) if norm else None
        self.activation = activation
        self.simnorm_dim = simnorm_dim
        self.simnorm_tau = simnorm_tau
        init_linear_(self.linear.weight, self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(..., in_dim)` to `(..., out_dim)`."""
        x = self.linear(x)
        if self.norm is not None:
            x = self.norm(x)
        if self.activation == "mish":
            return mish(x)
        if self.activation == "simnorm":
            return simnorm(x, self.simnorm_dim, self.simnorm_tau)
        return x


def hidden_layer(config: TDMPC2Config, in_dim: int, out_dim: int) -> NormedLinear:
    """A hidden layer of any network: Linear → LayerNorm → Mish, or without the norm."""
    return NormedLinear(in_dim, out_dim, norm=config.hidden_norm == "layernorm")


def latent_layer(config: TDMPC2Config, in_dim: int) -> NormedLinear:
    """The layer that ends encoder and dynamics and so shapes the latent.

    `simnorm`: Linear → LayerNorm → SimNorm (the LayerNorm only with `hidden_norm`);
    `layernorm`: Linear → LayerNorm; `none`: Linear.
    """
    norm = {
        "simnorm": config.hidden_norm == "layernorm",
        "layernorm": True,
        "none": False,
    }[config.latent_norm]
    return NormedLinear(
        in_dim,
        config.latent_dim,
        norm=norm,
        activation="simnorm" if config.latent_norm == "simnorm" else "none",
        simnorm_dim=config.simnorm_dim,
        simnorm_tau=config.simnorm_tau,
    )


def head(in_dim: int, out_dim: int, *, zero: bool = False) -> nn.Linear:
    """A plain linear output layer; `zero` starts its prediction at exactly 0."""
    layer = nn.Linear(in_dim, out_dim)
    init_linear_(layer.weight, layer.bias)
    if zero:
        nn.init.zeros_(layer.weight)
    return layer


def mlp(config: TDMPC2Config, in_dim: int, output: nn.Module) -> nn.Sequential:
    """Two hidden layers of `mlp_dim`, then `output`."""
    width = config.mlp_dim
    return nn.Sequential(
        hidden_layer(config, in_dim, width), hidden_layer(config, width, width), output
    )


class StateEncoder(nn.Sequential):
    """MLP from state (and task embedding) to latent: max(num_enc_layers − 1, 1) hidden layers."""

    def __init__(self, config: TDMPC2Config, obs_dim: int) -> None:
        sizes = [obs_dim + config.task_dim] + [config.enc_dim] * max(config.num_enc_layers - 1, 1)
        hidden = [hidden_layer(config, i, o) for i, o in pairwise(sizes)]
        super().__init__(*hidden, latent_layer(config, sizes[-1]))


class PixelEncoder(nn.Module):
    """Four convolutions from 64x64 images to a latent of 4·4·num_channels.

    The random shift that goes before it during learning is an argument (`random_shift`),
    so that the encoder itself stays a pure function.
    """

    def __init__(self, config: TDMPC2Config, channels: int) -> None:
        super().__init__()
        width = config.num_channels
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 7, stride=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 5, stride=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=1),
            nn.Flatten(),
        )
        out_dim = 16 * width
        if config.latent_dim != out_dim:
            raise UserError(
                f"pixel encoder gives {out_dim} dimensions; latent_dim is {config.latent_dim}: "
                f"use num_channels={max(config.latent_dim // 16, 1)} or latent_dim={out_dim}"
            )
        self.simnorm = (config.simnorm_dim, config.simnorm_tau)
        self.latent_norm = config.latent_norm
        self.norm = nn.LayerNorm(out_dim) if config.latent_norm == "layernorm" else None

    def forward(self, images: Tensor) -> Tensor:
        """Maps images `(..., C, 64, 64)` with values 0..255 to latents `(..., latent_dim)`."""
        flat = images.reshape(-1, *images.shape[-3:]).float() / 255.0 - 0.5
        latent = self.layers(flat)
        if self.latent_norm == "simnorm":
            latent = simnorm(latent, *self.simnorm)
        elif self.norm is not None:
            latent = self.norm(latent)
        return latent.view(*images.shape[:-3], -1)


def random_shift(images: Tensor, offsets: Tensor, pad: int = 3) -> Tensor:
    """Shifts each image by whole pixels, filling in from the border (replicate).

    Args:
        images: `(N, C, S, S)`.
        offsets: `(N, 2)` integers in 0..2·pad; `pad` means no shift (rows, columns).
        pad: greatest shift in pixels.
    """
    size = images.shape[-1]
    steps = torch.arange(size, device=images.device)
    rows = (steps[None] + offsets[:, :1] - pad).clamp(0, size - 1)
    cols = (steps[None] + offsets[:, 1:] - pad).clamp(0, size - 1)
    batch = torch.arange(images.shape[0], device=images.device)[:, None, None]
    shifted = images.permute(0, 2, 3, 1)[batch, rows[:, :, None], cols[:, None, :]]
    return shifted.permute(0, 3, 1, 2)


class EnsembleLinear(nn.Module):
    """N independent linear maps held in one tensor, evaluated as one batched product."""

    def __init__(self, num: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num, out_dim, in_dim))
        self.bias = nn.Parameter(torch.empty(num, out_dim))
        init_linear_(self.weight, self.bias)

    def forward(self, x: Tensor, heads: Tensor | None = None) -> Tensor:
        """Maps `(B, in_dim)` or `(N, B, in_dim)` to `(N, B, out_dim)`; `heads` selects maps."""
        weight, bias = self.weight, self.bias
        if heads is not None:
            weight, bias = weight[heads], bias[heads]
        if x.dim() == 2:
            x = x.expand(weight.shape[0], *x.shape)
        return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))


class EnsembleNorm(nn.Module):
    """N independent LayerNorms over the last dimension."""

    def __init__(self, num: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num, dim))
        self.bias = nn.Parameter(torch.zeros(num, dim))

    def forward(self, x: Tensor, heads: Tensor | None = None) -> Tensor:
        """Normalises `(N, B, dim)`."""
        weight, bias = self.weight, self.bias
        if heads is not None:
            weight, bias = weight[heads], bias[heads]
        return torch.addcmul(bias[:, None], F.layer_norm(x, x.shape[-1:]), weight[:, None])


class QEnsemble(nn.Module):
    """N Q-functions: Linear → Dropout → LayerNorm → Mish, Linear → LayerNorm → Mish, Linear.

    Dropout acts in the first layer only, before its LayerNorm; its mask is an argument.
    """

    def __init__(self, config: TDMPC2Config, in_dim: int, out_dim: int) -> None:
        super().__init__()
        num, width = config.num_q, config.mlp_dim
        normed = config.hidden_norm == "layernorm"
        self.num_q = num
        self.linear1 = EnsembleLinear(num, in_dim, width)
        self.norm1 = EnsembleNorm(num, width) if normed else None
        self.linear2 = EnsembleLinear(num, width, width)
        self.norm2 = EnsembleNorm(num, width) if normed else None
        self.linear3 = EnsembleLinear(num, width, out_dim)
        if config.q_init == "official_2024":
            self._default_init_hidden()
        nn.init.zeros_(self.linear3.weight)

    def _default_init_hidden(self) -> None:
        """PyTorch's default for `nn.Linear`, which official releases of 2024-26 left in place."""
        for layer in (self.linear1, self.linear2):
            bound = layer.weight.shape[-1] ** -0.5
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.uniform_(layer.bias, -bound, bound)

    def forward(
        self, x: Tensor, heads: Tensor | None = None, dropout: Tensor | None = None
    ) -> Tensor:
        """Outputs of the chosen heads.

        Args:
            x: `(..., in_dim)`.
            heads: `(K,)` indices of the heads to evaluate; all when None.
            dropout: `(K, ..., mlp_dim)` factors, 0 or 1/(1 − p); no dropout when None.

        Returns:
            `(K, ..., out_dim)`.
        """
        batch_shape = x.shape[:-1]
        hidden = self.linear1(x.reshape(-1, x.shape[-1]), heads)
        if dropout is not None:
            hidden = hidden * dropout.reshape(hidden.shape)
        if self.norm1 is not None:
            hidden = self.norm1(hidden, heads)
        hidden = self.linear2(mish(hidden), heads)
        if self.norm2 is not None:
            hidden = self.norm2(hidden, heads)
        out = self.linear3(mish(hidden), heads)
        return out.view(-1, *batch_shape, out.shape[-1])
