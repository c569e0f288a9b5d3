"""MLPs of the baselines whose matrix multiplications are the bfloat16 kernels of TD-MPC2."""

from __future__ import annotations

from torch import Tensor, nn

from baselines.kernels import has_enough_rows
from baselines.networks import MLP, detach_if
from tdmpc2.kernels import NativeLayers, bf16


class Bf16MLP(MLP):
    """An `MLP` of which each layer is one kernel."""

    @staticmethod
    def supports(layer: MLP) -> bool:
        """Return whether the kernels support the widths of the hidden layers and ε of the norm."""
        norm = layer.norm is None or layer.norm.eps == bf16.NORM_EPS
        return norm and all(width % bf16.TILE == 0 for width in layer.widths)

    def forward(self, *inputs: Tensor, frozen: bool = False) -> Tensor:
        """Return outputs `(..., sizes[-1])`; see `MLP.forward`.

        Args:
            *inputs: tensors whose concatenation along the last dimension is the input.
            frozen: compute gradients for the inputs only, not for parameters.
        """
        if not has_enough_rows(inputs):
            return super().forward(*inputs, frozen=frozen)
        for i, layer in enumerate(self.layers):
            weight, bias = detach_if(frozen, layer.weight, layer.bias)
            params, activation = [bias], self.activation
            if i + 1 == len(self.layers):
                activation = "none"
            elif i == 0 and self.norm is not None:
                params += detach_if(frozen, self.norm.weight, self.norm.bias)
                activation = "tanh"
            tiled = getattr(layer, "tiled", None)
            if bf16.usable_tiled(inputs, tiled):
                assert tiled is not None
                x = bf16.dense(inputs, tiled, *params, activation=activation)
            else:
                x = bf16.layer(inputs, weight, *params, activation=activation)
            inputs = (x,)
        return inputs[0]

    def blockable(self) -> list[nn.Module]:
        """Return all linear layers."""
        return list(self.layers)


NATIVE = NativeLayers(lambda _cpu: bf16.load(), {MLP: Bf16MLP})
