"""Native CPU kernels of the networks: `norm_act` and `dense`.

`norm_act` computes bias, dropout, LayerNorm and Mish or SimNorm of a layer in one pass over each
row, and their gradients in another; `torch.compile` needs five passes or more. `dense` adds the
matrix multiplication, with blocked weights. `tdmpc2.acceleration` installs layers that use them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tdmpc2.common.numerics import gpu_forms, native_build

SOURCE = Path(__file__).parent / "norm_act.cpp"
GROUP = 8  # the only group size of SimNorm that the kernel supports
LANES = 16  # the width of a layer must be a multiple of this
# Codes of the activations in the kernels (`rows.h`).
ACTIVATIONS = {"none": 0, "mish": 1, "simnorm": 2, "relu": 3, "elu": 4, "tanh": 5}


class Blocked(NamedTuple):
    """Weights in the memory layout of the matrix multiplication library.

    Attributes:
        weight: `(K, size)`, blocked weights of K layers.
        block: number of input rows per multiplication, for which the layout is made.
    """

    weight: Tensor
    block: int


@runtime_checkable
class Blockable(Protocol):
    """A layer with a native version that can use blocked weights."""

    def blockable(self) -> Sequence[nn.Module]:
        """Return the modules of the layer whose attribute `weight` can be blocked."""
        ...


class NativeLayers(NamedTuple):
    """Native versions of the layers of some networks.

    Attributes:
        load: loads the kernels for a device and returns whether they can be used.
        versions: subclass of each class of layers that uses the kernels. Its method `supports`
            returns whether they support a layer.
    """

    load: Callable[[torch.device], bool]
    versions: Mapping[type[nn.Module], Any]

    def install(self, networks: Iterable[nn.Module], device: torch.device) -> bool:
        """Make the layers of these networks use the kernels, if they can be loaded.

        Each supported layer becomes an instance of its native subclass; parameters stay the same.

        Args:
            networks: the networks, or templates of them.
            device: device on which they compute.

        Returns:
            Whether the kernels can be used.
        """
        if not self.load(device):
            return False
        for layer in (module for network in networks for module in network.modules()):
            native = self.versions.get(type(layer))
            if native is not None and native.supports(layer):
                layer.__class__ = native
        return True


def usable(x: Tensor) -> bool:
    """Return whether the kernels can be used: in compiled functions, for float32."""
    return torch.compiler.is_compiling() and x.dtype == torch.float32


def norm_act(
    x: Tensor,
    bias: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    *,
    factor: Tensor | None = None,
    group: int = 0,
    tau: float = 1.0,
    in_place: bool = True,
) -> Tensor:
    """Return act(γ·norm(factor·(x + bias)) + β) of one layer, or of K layers.

    norm subtracts the mean over D and divides by the standard deviation (LayerNorm).

    Args:
        x: `(..., D)` or `(K, N, D)`, outputs of the linear map without bias.
        bias: `(D,)` or `(K, D)`, bias of the linear map; on GPUs also bias, γ and β from
            `triton_ops.spread`.
        gamma: γ, shape of `bias`; None if `bias` holds it.
        beta: β, shape of `bias`; None if `bias` holds it.
        factor: dropout factors, shape of `x`; None for no dropout.
        group: activation: 0 for Mish, 8 for SimNorm.
        tau: temperature of SimNorm.
        in_place: whether x is overwritten with the result if gradients are disabled; not on GPUs.
    """
    if gpu_forms.wanted(x.device):
        return torch.ops.tdmpc2_triton.norm_act(x, bias, gamma, beta, factor, group, tau)[0]
    if torch.is_grad_enabled() or not in_place:
        return torch.ops.tdmpc2.norm_act(x, bias, gamma, beta, factor, group, tau)[0]
    torch.ops.tdmpc2.norm_act_(x, bias, gamma, beta, factor, group, tau)
    return x


def usable_blocked(x: Tensor, blocked: Blocked | None) -> bool:
    """Return whether `dense` can be used: no gradients, and whole blocks of rows `(..., I)`."""
    if blocked is None or torch.is_grad_enabled() or not usable(x) or x.is_cuda:
        return False
    return x.numel() // x.shape[-1] % blocked.block == 0


def dense(
    x: Tensor,
    blocked: Blocked,
    bias: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    heads: Tensor | None = None,
    group: int = 0,
    tau: float = 1.0,
) -> Tensor:
    """Return act(γ·norm(x·Wᵀ + bias) + β) of one layer, or of K layers, without gradients.

    Args:
        x: `(..., I)`; for K layers `(N, I)`, shared by all, or `(K, N, I)`.
        blocked: W, from `BlockedWeights`.
        bias: `(O,)` or `(K', O)`, bias of the linear map.
        gamma: γ, shape of `bias`.
        beta: β, shape of `bias`.
        heads: `(K,)`, indices of the layers to evaluate; all K' if None.
        group: activation: 0 for Mish, 8 for SimNorm.
        tau: temperature of SimNorm.

    Returns:
        `(..., O)`, or `(K, N, O)`.
    """
    params = (blocked.weight, bias, gamma, beta, heads, blocked.block)
    return torch.ops.tdmpc2.dense(x, *params, group, tau)


@functools.cache
def load() -> bool:
    """Load the kernels; compile them first if this machine has not done so before.

    Returns:
        Whether the kernels can be used; if not, a warning gives the reason.
    """
    loaded = native_build.load(SOURCE)
    if loaded:
        _register()
    return loaded


empty_like = functools.partial(torch.empty_like, memory_format=torch.contiguous_format)


def fake_norm_act(x: Tensor, *_others: Any) -> tuple[Tensor, Tensor]:
    """Return tensors with the shapes of the results of `norm_act`."""
    return empty_like(x), x.new_empty(x.numel() // x.shape[-1], 2)


def save_norm_act(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keep what the gradients of `norm_act` need.

    Args:
        ctx: context of the operation.
        inputs: its arguments.
        output: its results.
    """
    x, bias, gamma, beta, factor, ctx.group, ctx.tau = inputs
    ctx.save_for_backward(x, *output, bias, gamma, beta, factor)


def _register() -> None:
    """Register output shapes of all operations, and gradient and vmap rule of `norm_act`."""
    torch.library.register_fake("tdmpc2::norm_act", fake_norm_act)

    @torch.library.register_fake("tdmpc2::norm_act_")
    def _(x: Tensor, *_others: Any) -> None:
        return None

    @torch.library.register_fake("tdmpc2::dense")
    def _(x: Tensor, blocked: Tensor, bias: Tensor, *others: Any) -> Tensor:
        heads = others[2]
        if bias.dim() == 1:
            return x.new_empty(*x.shape[:-1], bias.shape[0])
        num = blocked.shape[0] if heads is None else heads.shape[0]
        return x.new_empty(num, x.shape[-2], bias.shape[1])

    @torch.library.register_fake("tdmpc2::norm_act_backward")
    def _(grad: Tensor, x: Tensor, y: Tensor, stats: Tensor, bias: Tensor, *_: Any) -> Any:
        return empty_like(x), empty_like(bias), empty_like(bias), empty_like(bias)

    def backward(ctx: Any, grad: Tensor, _grad_stats: Tensor) -> tuple[Any, ...]:
        x, y, stats, bias, gamma, beta, factor = ctx.saved_tensors
        out = torch.ops.tdmpc2.norm_act_backward(
            grad, x, y, stats, bias, gamma, beta, factor, ctx.group, ctx.tau
        )
        return *out, None, None, None

    torch.library.register_autograd("tdmpc2::norm_act", backward, setup_context=save_norm_act)

    torch.library.register_vmap("tdmpc2::norm_act", vmap_rule(torch.ops.tdmpc2.norm_act))


def vmap_rule(operation: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Any]:
    """Return the rule with which `torch.vmap` calls `norm_act`.

    A layer of K' models is treated as K' layers of one model; K layers become K'·K layers.

    Args:
        operation: `norm_act`.
    """

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        num, (group, tau) = info.batch_size, args[5:]
        tensors = zip(args[:5], in_dims[:5], strict=True)
        # All but γ, β (which may be part of bias) and factor are tensors.
        stacked: list[Any] = [None if t is None else _stack(t, dim, num) for t, dim in tensors]
        x, *params, factor = stacked
        flat: list[Any]
        if params[1] is None:  # bias, γ and β in one tensor, with copies
            flat = [params[0].movedim(1, 0).flatten(1, -3), None, None]
            num_layers = flat[0].shape[1]
        else:
            flat = [p.reshape(-1, x.shape[-1]) for p in params]
            num_layers = len(flat[0])
        rows = (num_layers, -1, x.shape[-1])
        factor = None if factor is None else factor.reshape(rows)
        y, stats = operation(x.reshape(rows), *flat, factor, group, tau)
        return (y.view(x.shape), stats.view(num, -1, 2)), (0, 0)

    return rule


def _stack(x: Tensor, dim: int | None, num: int) -> Tensor:
    """Return a tensor with the dimension of `torch.vmap` first, expanded if it has none."""
    return x.expand(num, *x.shape) if dim is None else x.movedim(dim, 0)
