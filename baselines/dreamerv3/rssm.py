"""The recurrent state-space model (RSSM) of DreamerV3: a GRU with categorical latent states.

Shapes: L time steps, B sequences, S categoricals of C classes, A action dimensions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.dreamerv3.config import DreamerV3Config
from baselines.dreamerv3.networks import NORM_EPS, Hidden, Output, init_hidden_
from tdmpc2.layers import linear_of_parts


class State(NamedTuple):
    """A state of the RSSM.

    Attributes:
        deter: `(..., deter)`, deterministic state h, the GRU's.
        stoch: `(..., S·C)`, categorical state z: S concatenated one-hot vectors.
    """

    deter: Tensor
    stoch: Tensor

    @property
    def features(self) -> Tensor:
        """Concatenation [deter, stoch], the input of all heads."""
        return torch.cat([self.deter, self.stoch], dim=-1)

    def detach(self) -> State:
        """Return the state without graph."""
        return State(self.deter.detach(), self.stoch.detach())


def log_probs(logits: Tensor, unimix: float) -> Tensor:
    """Return ln((1 − unimix)·softmax(logits) + unimix / C) over the last dimension of size C."""
    if unimix == 0:  # the logarithm of a probability that underflows is infinite
        return torch.log_softmax(logits, dim=-1)
    probs = torch.softmax(logits, dim=-1)
    return torch.log((1 - unimix) * probs + unimix / logits.shape[-1])


def draw(log_p: Tensor, uniform: Tensor) -> Tensor:
    """Sample one-hot vectors with straight-through gradients: one_hot + p − sg(p).

    Args:
        log_p: ln p, `(..., S, C)`.
        uniform: `(..., S)`, uniform in [0, 1): the class is the first whose cumulative
            probability exceeds it.

    Returns:
        Concatenated one-hot vectors `(..., S·C)`.
    """
    probs = log_p.exp()
    sums = probs.detach().cumsum(-1)
    index = (sums[..., :-1] <= (uniform * sums[..., -1])[..., None]).sum(-1, keepdim=True)
    classes = torch.arange(log_p.shape[-1], device=log_p.device)
    one_hot = (index == classes).to(probs.dtype)
    return (one_hot + (probs - probs.detach())).flatten(-2)


def gate(products: Tensor, scale: Tensor, shift: Tensor, deter: Tensor) -> Tensor:
    """Compute the next deterministic state of a GRU with one joint LayerNorm.

    (r, c, u) = LayerNorm(products) split in three, g = σ(u − 1),
    h' = g·tanh(σ(r)·c) + (1 − g)·h.

    Args:
        products: `(..., 3·deter)`, W·[h, x] of the GRU.
        scale: `(3·deter,)`, scale of the LayerNorm.
        shift: `(3·deter,)`, shift of the LayerNorm.
        deter: h, `(..., deter)`.
    """
    joint = F.layer_norm(products, products.shape[-1:], scale, shift, NORM_EPS)
    reset, candidate, update = joint.chunk(3, dim=-1)
    g = torch.sigmoid(update - 1)
    return g * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - g) * deter


class _DeferredWeightGradient(torch.autograd.Function):
    """Returns zeros whose gradient is passed on to the weight of a recurrent layer.

    In a loop over time, autograd would compute a gradient of the size of the weight at each step.
    Here the weight is detached inside the loop, and these zeros are added to its outputs: the
    gradients of all steps arrive together, and one multiplication with all inputs gives the
    gradient of the weight.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, inputs: list[Tensor], steps: int, rows: int) -> Tensor:
        ctx.inputs = inputs
        return weight.new_zeros(steps, rows, weight.shape[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = torch.stack(ctx.inputs)
        return grad.flatten(0, 1).t() @ inputs.flatten(0, 1), None, None, None


class _RecurrentLinear:
    """A linear map that is applied once per time step, with one gradient computation for all.

    Args:
        weight: `(out_dim, in_dim)`.
        steps, rows: number of time steps and of rows per step.
    """

    def __init__(self, weight: Tensor, steps: int, rows: int) -> None:
        self._inputs: list[Tensor] = []
        self._weight = weight.detach()
        zeros = _DeferredWeightGradient.apply(weight, self._inputs, steps, rows)
        self._zeros = iter(zeros.unbind(0))

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs `(rows, out_dim)` of the next step for inputs `(rows, in_dim)`."""
        self._inputs.append(x.detach())
        return F.linear(x, self._weight).float() + next(self._zeros)


class RSSM(nn.Module):
    """Recurrent state-space model (DreamerV3 paper v1, section "World Model Learning").

        sequence model  h_t = GRU(h_{t−1}, [z_{t−1}, a_{t−1}])
        posterior       z_t ~ q(z_t | h_t, embed_t)
        prior           z_t ~ p(z_t | h_t)

    Args:
        config: sizes.
        embed_dim: E, size of encoded observations.
        action_dim: A.
    """

    gate = staticmethod(gate)
    draw = staticmethod(draw)
    log_probs = staticmethod(log_probs)

    def __init__(self, config: DreamerV3Config, embed_dim: int, action_dim: int) -> None:
        super().__init__()
        c = self.config = config
        self.input = Hidden(c.stoch_dim + action_dim, c.hidden)
        self.gru = nn.Parameter(torch.empty(3 * c.deter, c.deter + c.hidden))
        self.gru_scale = nn.Parameter(torch.ones(3 * c.deter))
        self.gru_shift = nn.Parameter(torch.zeros(3 * c.deter))
        init_hidden_(self.gru)
        self.prior_hidden = Hidden(c.deter, c.hidden)
        self.prior_output = Output(c.hidden, c.stoch_dim)
        self.posterior_hidden = Hidden(c.deter + embed_dim, c.hidden)
        self.posterior_output = Output(c.hidden, c.stoch_dim)
        self.initial_deter = nn.Parameter(torch.zeros(c.deter))

    def initial(self) -> State:
        """Return the initial state of an episode: learned h = tanh(parameter), mode of p(z | h)."""
        deter = torch.tanh(self.initial_deter)
        index = self.prior(deter).argmax(-1)
        # Not `F.one_hot`: it reads the largest index and so synchronizes with the device.
        classes = torch.arange(self.config.classes, device=deter.device)
        return State(deter, (index[..., None] == classes).flatten(-2).to(deter.dtype))

    def prior(self, deter: Tensor) -> Tensor:
        """Return ln p(z | h), `(..., S, C)`."""
        return self._log_probs(self.prior_output(self.prior_hidden(deter)))

    def posterior(self, deter: Tensor, embed: Tensor) -> Tensor:
        """Return ln q(z | h, embed), `(..., S, C)`."""
        return self._log_probs(self.posterior_output(self.posterior_hidden(deter, embed)))

    def _log_probs(self, logits: Tensor) -> Tensor:
        shape = (*logits.shape[:-1], self.config.stoch, self.config.classes)
        return self.log_probs(logits.view(shape), self.config.unimix)

    def advance(self, state: State, action: Tensor) -> Tensor:
        """Return the next deterministic state h'; actions `(..., A)` are bounded to [-1, 1]."""
        x = self.input(state.stoch, bounded(action))
        products = linear_of_parts((state.deter, x), self.gru, None).float()
        return self.gate(products, self.gru_scale, self.gru_shift, state.deter)

    def imagine(self, state: State, action: Tensor, uniform: Tensor) -> State:
        """Predict the next state with the prior.

        Args:
            state: current state `(..., ·)`.
            action: `(..., A)`.
            uniform: `(..., S)`, uniform noise.
        """
        deter = self.advance(state, action)
        return State(deter, self.draw(self.prior(deter), uniform))

    def begin(self, state: State, action: Tensor, first: Tensor) -> tuple[State, Tensor]:
        """Reset state and action of the rows at which an episode begins.

        Args:
            state: previous state `(B, ·)`.
            action: previous action `(B, A)`.
            first: `(B,)`, 1 or True if the observation is the first of an episode.

        Returns:
            The given state and action; initial state and zero action where `first`.
        """
        is_first = first[:, None].bool()
        start = self.initial()
        state = State(*(torch.where(is_first, i, s) for i, s in zip(start, state, strict=True)))
        return state, torch.where(is_first, torch.zeros_like(action), action)

    def observe_one(
        self, state: State, action: Tensor, embed: Tensor, first: Tensor, uniform: Tensor
    ) -> State:
        """Compute the posterior state after one observation.

        Args:
            state: previous state `(B, ·)`.
            action: `(B, A)`, action that led to the observation.
            embed: `(B, E)`, encoded observation.
            first: `(B,)`, 1 or True if the observation is the first of an episode.
            uniform: `(B, S)`, uniform noise.
        """
        state, action = self.begin(state, action, first)
        deter = self.advance(state, action)
        return State(deter, self.draw(self.posterior(deter, embed), uniform))

    def observe(
        self, action: Tensor, embed: Tensor, first: Tensor, uniform: Tensor
    ) -> tuple[State, Tensor]:
        """Compute posterior states of whole sequences, equal to repeated `observe_one`.

        Terms that do not depend on the previous state are computed for all time steps at once.

        Args:
            action: `(L, B, A)`, actions that led to the observations of the same row.
            embed: `(L, B, E)`, encoded observations.
            first: `(L, B)`, 1 if the observation is the first of an episode, and in row 0: every
                sequence starts from the initial state.
            uniform: `(L, B, S)`, uniform noise.

        Returns:
            Posterior states `(L, B, ·)`, and ln q `(L, B, S, C)`.
        """
        c, (steps, rows) = self.config, first.shape
        is_first = first[..., None].bool()
        action = torch.where(is_first, torch.zeros_like(action), bounded(action))
        action_term = F.linear(action, self.input.weight[:, c.stoch_dim :]).float()
        embed_term = F.linear(embed, self.posterior_hidden.weight[:, c.deter :]).float()
        stoch_map = _RecurrentLinear(self.input.weight[:, : c.stoch_dim], steps, rows)
        gru_map = _RecurrentLinear(self.gru, steps, rows)
        deter_map = _RecurrentLinear(self.posterior_hidden.weight[:, : c.deter], steps, rows)
        output_map = _RecurrentLinear(self.posterior_output.weight, steps, rows)
        start = self.initial()
        state = State(*(x.expand(rows, -1) for x in start))
        states, logs = [], []
        for t in range(steps):
            if t > 0:
                pairs = zip(start, state, strict=True)
                state = State(*(torch.where(is_first[t], i, s) for i, s in pairs))
            x = self.input.finish(stoch_map(state.stoch) + action_term[t])
            products = gru_map(torch.cat([state.deter, x], dim=-1))
            deter = self.gate(products, self.gru_scale, self.gru_shift, state.deter)
            h = self.posterior_hidden.finish(deter_map(deter) + embed_term[t])
            log_p = self._log_probs(output_map(h) + self.posterior_output.bias)
            state = State(deter, self.draw(log_p, uniform[t]))
            states.append(state)
            logs.append(log_p)
        return State(*(torch.stack(x) for x in zip(*states, strict=True))), torch.stack(logs)


def bounded(action: Tensor) -> Tensor:
    """Return a / max(1, |a|), element by element; the divisor has no gradient."""
    return action / action.abs().clamp(min=1.0).detach()
