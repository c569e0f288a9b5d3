"""The ensemble of Q-functions: N networks evaluated as one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2 import kernels
from tdmpc2.config import TDMPC2Config
from tdmpc2.layers import init_linear_, mish


class EnsembleLinear(nn.Module):
    """N independent linear maps held in one tensor, evaluated as one batched product."""

    def __init__(self, num: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num, out_dim, in_dim))
        self.bias = nn.Parameter(torch.empty(num, out_dim))
        self.blocked: kernels.Blocked | None = None
        init_linear_(self.weight, self.bias)

    def forward(
        self,
        *parts: Tensor,
        heads: Tensor | None = None,
        frozen: bool = False,
        biased: bool = True,
    ) -> Tensor:
        """Maps rows to `(N, B, out_dim)`.

        Args:
            *parts: of the input: `(B, ·)` each, the same for all maps, or one `(N, B, in_dim)`.
            heads: indices of the maps to evaluate; all when None.
            frozen: no gradients for the parameters, and a product apart for each part.
            biased: whether to add the bias.
        """
        weight, bias = (_chosen(p, heads, frozen) for p in (self.weight, self.bias))
        if not frozen and len(parts) > 1:
            parts = (torch.cat(parts, -1),)
        total = bias[:, None] if biased else None
        start = 0
        for part in parts:
            end = start + part.shape[-1]
            columns = weight[..., start:end].transpose(1, 2)
            if part.dim() == 2:
                part = part.expand(weight.shape[0], *part.shape)
            total = (
                torch.bmm(part, columns) if total is None else torch.baddbmm(total, part, columns)
            )
            start = end
        assert total is not None
        return total.float()


def _chosen(parameter: Tensor, heads: Tensor | None, frozen: bool) -> Tensor:
    """A parameter of an ensemble's layer for the chosen heads."""
    if frozen:
        parameter = parameter.detach()
    return parameter if heads is None else parameter[heads]


class EnsembleNorm(nn.Module):
    """N independent LayerNorms over the last dimension."""

    def __init__(self, num: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num, dim))
        self.bias = nn.Parameter(torch.zeros(num, dim))

    def forward(self, x: Tensor, heads: Tensor | None = None, frozen: bool = False) -> Tensor:
        """Normalizes `(N, B, dim)`; arguments as those of `EnsembleLinear`."""
        weight, bias = (_chosen(p, heads, frozen) for p in (self.weight, self.bias))
        return torch.addcmul(bias[:, None], F.layer_norm(x, x.shape[-1:]), weight[:, None])


class QEnsemble(nn.Module):
    """N Q-functions: Linear → Dropout → LayerNorm → Mish, Linear → LayerNorm → Mish, Linear.

    Dropout acts in the first layer only, before its LayerNorm; its mask is an argument.
    """

    def __init__(self, config: TDMPC2Config, in_dim: int, out_dim: int) -> None:
        super().__init__()
        num, width = config.num_q, config.mlp_dim
        normed = config.hidden_norm == "layernorm"
        self.num_q, self.width = num, width
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
        self,
        *parts: Tensor,
        heads: Tensor | None = None,
        dropout: Tensor | None = None,
        frozen: bool = False,
    ) -> Tensor:
        """Outputs of the chosen heads.

        Args:
            *parts: of the input, `(..., ·)` each, of the same leading shape.
            heads: `(K,)` indices of the heads to evaluate; all when None.
            dropout: `(K, ..., mlp_dim)` factors, 0 or 1/(1 − p); no dropout when None.
            frozen: no gradients for the parameters, as in the policy loss; parts that need no
                gradient then cost none either.

        Returns:
            `(K, ..., out_dim)`.
        """
        batch_shape = parts[0].shape[:-1]
        rows = [part.reshape(-1, part.shape[-1]) for part in parts]
        hidden = self._hidden(self.linear1, self.norm1, rows, heads, frozen, dropout)
        hidden = self._hidden(self.linear2, self.norm2, [hidden], heads, frozen)
        out = self.linear3(hidden, heads=heads, frozen=frozen)
        return out.view(-1, *batch_shape, out.shape[-1])

    def _hidden(
        self,
        linear: EnsembleLinear,
        norm: EnsembleNorm | None,
        parts: list[Tensor],
        heads: Tensor | None,
        frozen: bool,
        dropout: Tensor | None = None,
    ) -> Tensor:
        """A hidden layer: Linear → Dropout → LayerNorm → Mish."""
        if norm is not None and kernels.usable(parts[0]) and not self.width % kernels.LANES:
            if dropout is None and kernels.usable_blocked(parts[0], linear.blocked):
                x = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
                params = (linear.bias, norm.weight, norm.bias)
                return kernels.dense(x, linear.blocked, *params, heads=heads)
            x = linear(*parts, heads=heads, frozen=frozen, biased=False)
            params = [_chosen(p, heads, frozen) for p in (linear.bias, norm.weight, norm.bias)]
            factor = None if dropout is None else dropout.reshape(x.shape)
            return kernels.norm_act(x, *params, factor=factor)
        x = linear(*parts, heads=heads, frozen=frozen)
        if dropout is not None:
            x = x * dropout.reshape(x.shape)
        return mish(x if norm is None else norm(x, heads, frozen))
