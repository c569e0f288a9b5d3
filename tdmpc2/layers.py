"""Building blocks of the networks: normalized linear layers, SimNorm, encoders."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2 import kernels
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import TDMPC2Config

INIT_STD = 0.02
EMBEDDING_INIT = 0.02


class _Mish(torch.autograd.Function):
    """Mish with one exponential in each direction.

    With e = exp(x) and n = e(e + 2), tanh(ln(1 + e)) = n / (n + 2), and the derivative is
    r·(n + 4x·e·(e + 1)·r) with r = 1 / (n + 2). Above 20 both are 1 in float32, so the exponent
    is cut there and nothing overflows.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        e = torch.exp(torch.clamp(x, max=20.0))
        n = e * (e + 2.0)
        return x * (n / (n + 2.0))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        e = torch.exp(torch.clamp(x, max=20.0))
        n = e * (e + 2.0)
        r = 1.0 / (n + 2.0)
        return grad * (r * (n + 4.0 * x * (e * (e + 1.0) * r)))


def mish(x: Tensor) -> Tensor:
    """Mish, x·tanh(softplus(x)): the same function as `F.mish` in an eighth of its time."""
    return _Mish.apply(x)


def simnorm(x: Tensor, group_dim: int, tau: float = 1.0) -> Tensor:
    """Simplicial normalization (Eq. 5 of the paper): a softmax inside each group.

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


def joint_parts(parts: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, int, int]]:
    """The parts of a joint input with their columns, neighbors of equal shape concatenated.

    A part that is broadcast over the others (the planner's first latent over its samples, a
    task's embedding over time) stays apart, so that its share of a product is taken once.
    """
    start = 0
    while parts:
        lead = parts[0].shape[:-1]
        num = next((i for i, part in enumerate(parts) if part.shape[:-1] != lead), len(parts))
        joined = parts[0] if num == 1 else torch.cat(parts[:num], dim=-1)
        yield joined, start, start + joined.shape[-1]
        start, parts = start + joined.shape[-1], parts[num:]


def linear_of_parts(parts: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear map of a joint input; each part's share of the product is taken once."""
    x: Tensor | None = None
    for part, start, end in joint_parts(parts):
        share = F.linear(part, weight[:, start:end], bias if x is None else None)
        x = share if x is None else x + share
    assert x is not None
    return x


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
        self.blocked: kernels.Blocked | None = None
        init_linear_(self.linear.weight, self.linear.bias)

    def forward(self, *parts: Tensor) -> Tensor:
        """Maps `(..., in_dim)`, given in one or more parts, to `(..., out_dim)`."""
        fast = self.kernel_knows() and kernels.usable(parts[0])
        if fast and kernels.usable_blocked(parts[-1], self.blocked):
            pieces = list(joint_parts(parts))
            if len(pieces) == 1:
                return self._dense(pieces[0][0])
        bias = None if fast else self.linear.bias
        x = linear_of_parts(parts, self.linear.weight, bias).float()
        if fast:
            return self._norm_act(x)
        if self.norm is not None:
            x = self.norm(x)
        if self.activation == "mish":
            return mish(x)
        if self.activation == "simnorm":
            return simnorm(x, self.simnorm_dim, self.simnorm_tau)
        return x

    def kernel_knows(self) -> bool:
        """Whether the native kernel covers this layer's norm and activation."""
        if (
            self.norm is None
            or self.linear.out_features % kernels.LANES
            or self.activation == "none"
        ):
            return False
        return self.activation == "mish" or self.simnorm_dim == kernels.GROUP

    def _norm_act(self, x: Tensor) -> Tensor:
        """Bias, norm and activation of products `(..., out_dim)` by the native kernel."""
        return kernels.norm_act(x, *self._params(), group=self._group(), tau=self.simnorm_tau)

    def _dense(self, x: Tensor) -> Tensor:
        """The whole layer by the native kernel, with blocked weights."""
        assert self.blocked is not None
        group, tau = self._group(), self.simnorm_tau
        return kernels.dense(x, self.blocked, *self._params(), group=group, tau=tau)

    def _params(self) -> tuple[Tensor, Tensor, Tensor]:
        assert self.norm is not None
        return self.linear.bias, self.norm.weight, self.norm.bias

    def _group(self) -> int:
        return self.simnorm_dim if self.activation == "simnorm" else 0


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


class MLP(nn.Sequential):
    """Layers in a row, the first of which takes its input in parts."""

    def forward(self, *parts: Tensor) -> Tensor:
        """Maps `(..., in_dim)`, given in one or more parts, to `(..., out_dim)`."""
        first, *others = self
        x = first(*parts)
        for layer in others:
            x = layer(x)
        return x


def mlp(config: TDMPC2Config, in_dim: int, output: nn.Module) -> MLP:
    """Two hidden layers of `mlp_dim`, then `output`."""
    width = config.mlp_dim
    return MLP(hidden_layer(config, in_dim, width), hidden_layer(config, width, width), output)


class StateEncoder(MLP):
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
        latent = self.layers(flat).float()
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
