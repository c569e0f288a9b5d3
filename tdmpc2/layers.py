"""Building blocks of the networks: linear layers with normalization, SimNorm, encoders."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2.config import TDMPC2Config

INIT_STD = 0.02
EMBEDDING_INIT = 0.02


class _Mish(torch.autograd.Function):
    """Mish with one exponential in the forward and one in the backward pass.

    With e = exp(x) and n = e·(e + 2), tanh(ln(1 + e)) = n / (n + 2); the derivative of Mish is
    r·(n + 4x·e·(e + 1)·r) with r = 1 / (n + 2). For x > 20 both are 1 in float32, so the exponent
    is clipped at 20 to avoid overflow.
    """

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

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], x: Tensor) -> tuple[Tensor, int]:
        """Return Mish of all elements; the rule that torch generates takes twice as long."""
        return mish(x), in_dims[0]


def mish(x: Tensor) -> Tensor:
    """Return Mish(x) = x·tanh(softplus(x)), as `F.mish` but eight times as fast."""
    return _Mish.apply(x) if torch.is_grad_enabled() else _Mish.forward(x)


def simnorm(x: Tensor, group_dim: int, tau: float = 1.0) -> Tensor:
    """Apply simplicial normalization: a softmax within each group (paper, Eq. 5).

    z° = [g_1, ..., g_L],  g_i = softmax(z_{iV:(i+1)V} / τ),  L = latent_dim / V.

    Args:
        x: z, `(..., latent_dim)`.
        group_dim: V, the size of a group; divides `latent_dim`.
        tau: temperature τ of the softmax.
    """
    groups = x.view(-1, x.shape[-1] // group_dim, group_dim)
    if tau != 1.0:
        groups = groups / tau
    # On a CPU, the same softmax takes a sixth of the time over a strided dimension.
    return torch.softmax(groups.transpose(1, 2), dim=1).transpose(1, 2).reshape(x.shape)


def joint_parts(parts: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, int, int]]:
    """Yield the inputs of a joint linear map, neighbors of equal leading shape concatenated.

    An input that is broadcast over the others (the planner's first latent over its samples, a
    task embedding over time) stays separate, so that it is multiplied only once.

    Yields:
        An input `(..., ·)` and its range of columns of the weight, `[start, end)`.
    """
    start = 0
    while parts:
        lead = parts[0].shape[:-1]
        num = next((i for i, part in enumerate(parts) if part.shape[:-1] != lead), len(parts))
        joined = parts[0] if num == 1 else torch.cat(parts[:num], dim=-1)
        yield joined, start, start + joined.shape[-1]
        start, parts = start + joined.shape[-1], parts[num:]


def linear_of_parts(parts: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a linear map to the concatenation of several inputs, without broadcasting them.

    y = W·[x_1, x_2, ...] + b, computed as Σ_i W_i·x_i + b, where W_i are the columns of x_i.

    Args:
        parts: inputs `(..., ·)` whose leading shapes broadcast.
        weight: `(out_dim, in_dim)`.
        bias: `(out_dim,)`, or None.

    Raises:
        ValueError: the inputs have fewer or more columns than the weight.
    """
    y: Tensor | None = None
    columns = 0
    for x, start, columns in joint_parts(parts):
        term = F.linear(x, weight[:, start:columns], bias if y is None else None)
        y = term if y is None else y + term
    if y is None or columns != weight.shape[1]:
        raise ValueError(f"inputs of {columns} columns, but a weight of {weight.shape[1]}")
    return y


def init_linear_(weight: Tensor, bias: Tensor) -> None:
    """Initialize weights from a truncated normal distribution (std 0.02) and biases with 0."""
    nn.init.trunc_normal_(weight, std=INIT_STD)
    nn.init.zeros_(bias)


class NormedLinear(nn.Module):
    """Linear → LayerNorm (optional) → activation.

    Args:
        in_dim: size of the input.
        out_dim: size of the output.
        norm: whether to apply a LayerNorm after the linear map.
        activation: `mish`, `simnorm` or `none`.
        simnorm_dim: group size of SimNorm.
        simnorm_tau: temperature of SimNorm.
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

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return `(..., out_dim)` for inputs whose concatenation is `(..., in_dim)`."""
        x = linear_of_parts(inputs, self.linear.weight, self.linear.bias).float()
        return self.activate(x)

    def complete(self, product: Tensor, shared: Tensor | None = None) -> Tensor:
        """Return the output for the product of inputs and weights.

        Args:
            product: `(..., out_dim)`, without bias.
            shared: result of `shared`, for several calls.
        """
        return self.activate(product.float() + self.linear.bias)

    def shared(self, num_rows: int) -> Tensor | None:
        """Return parameters for several calls of `complete` with `num_rows` rows; None here."""
        return None

    def activate(self, x: Tensor) -> Tensor:
        """Return act(norm(x))."""
        if self.norm is not None:
            x = self.norm(x)
        if self.activation == "mish":
            return mish(x)
        if self.activation == "simnorm":
            return simnorm(x, self.simnorm_dim, self.simnorm_tau)
        return x


def hidden_layer(config: TDMPC2Config, in_dim: int, out_dim: int) -> NormedLinear:
    """Return a hidden layer: Linear → LayerNorm → Mish, or Linear → Mish without `hidden_norm`.

    Args:
        config: `hidden_norm`.
        in_dim: size of the input.
        out_dim: size of the output.
    """
    return NormedLinear(in_dim, out_dim, norm=config.hidden_norm == "layernorm")


def latent_layer(config: TDMPC2Config, in_dim: int) -> NormedLinear:
    """Return the last layer of encoder and dynamics, which normalizes the latent.

    By `latent_norm`:

    - `simnorm`: Linear → LayerNorm → SimNorm (no LayerNorm if `hidden_norm=none`);
    - `layernorm`: Linear → LayerNorm;
    - `none`: Linear.
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
    """Return a linear output layer.

    Args:
        in_dim: size of the input.
        out_dim: size of the output.
        zero: whether to initialize all weights with 0, so that the first prediction is 0.
    """
    layer = nn.Linear(in_dim, out_dim)
    init_linear_(layer.weight, layer.bias)
    if zero:
        nn.init.zeros_(layer.weight)
    return layer


class MLP(nn.Sequential):
    """A sequence of layers, of which the first accepts several inputs."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return `(..., out_dim)` for inputs whose concatenation is `(..., in_dim)`."""
        first, *others = self
        x = first(*inputs)
        for layer in others:
            x = layer(x)
        return x


def mlp(config: TDMPC2Config, in_dim: int, output: nn.Module) -> MLP:
    """Return an MLP with two hidden layers of `mlp_dim`.

    Args:
        config: `mlp_dim` and `hidden_norm`.
        in_dim: size of the input.
        output: last layer, which takes `mlp_dim` inputs.
    """
    width = config.mlp_dim
    return MLP(hidden_layer(config, in_dim, width), hidden_layer(config, width, width), output)


class StateEncoder(MLP):
    """MLP from states (and task embedding) to latents: num_enc_layers − 1 hidden layers.

    Args:
        config: sizes and normalization.
        obs_dim: size of the observation.
    """

    def __init__(self, config: TDMPC2Config, obs_dim: int) -> None:
        sizes = [obs_dim + config.task_dim] + [config.enc_dim] * (config.num_enc_layers - 1)
        hidden = [hidden_layer(config, i, o) for i, o in pairwise(sizes)]
        super().__init__(*hidden, latent_layer(config, sizes[-1]))


class PixelEncoder(nn.Module):
    """Four convolutions from 64x64 images to latents of size 4·4·num_channels.

    Random shifts of the images are applied before, with offsets given as an argument
    (`random_shift`), so that the encoder is a pure function.

    Args:
        config: `num_channels`, `latent_dim` and normalization of the latent.
        channels: channels of the images.

    Raises:
        UserError: `latent_dim` is not 16·num_channels.
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
        config.check_pixels()
        self.simnorm = (config.simnorm_dim, config.simnorm_tau)
        self.latent_norm = config.latent_norm
        self.norm = nn.LayerNorm(config.latent_dim) if config.latent_norm == "layernorm" else None

    def forward(self, images: Tensor) -> Tensor:
        """Return latents `(..., latent_dim)` of images `(..., C, 64, 64)` with values 0..255."""
        flat = images.reshape(-1, *images.shape[-3:]).float() / 255.0 - 0.5
        latent = self.layers(flat).float()
        if self.latent_norm == "simnorm":
            latent = simnorm(latent, *self.simnorm)
        elif self.norm is not None:
            latent = self.norm(latent)
        return latent.view(*images.shape[:-3], -1)


def random_shift(images: Tensor, offsets: Tensor, pad: int = 3) -> Tensor:
    """Shift each image by whole pixels; border pixels are replicated.

    Args:
        images: `(N, C, S, S)`.
        offsets: `(N, 2)`, integers (row, column) in 0..2·pad; `pad` means no shift.
        pad: largest shift in pixels.
    """
    size = images.shape[-1]
    index = torch.arange(size, device=images.device)
    rows = (index[None] + offsets[:, :1] - pad).clamp(0, size - 1)
    cols = (index[None] + offsets[:, 1:] - pad).clamp(0, size - 1)
    batch = torch.arange(images.shape[0], device=images.device)[:, None, None]
    shifted = images.permute(0, 2, 3, 1)[batch, rows[:, :, None], cols[:, None, :]]
    return shifted.permute(0, 3, 1, 2)
