"""The recurrent state-space model: a deterministic path and categorical states beside it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.dreamerv3.config import DreamerV3Config
from baselines.dreamerv3.networks import NORM_EPS, Hidden, Output, init_hidden_
from tdmpc2.layers import linear_of_parts


class State(NamedTuple):
    """A state; `(..., deter)` and one-hot vectors side by side `(..., stoch · classes)`."""

    deter: Tensor
    stoch: Tensor

    @property
    def features(self) -> Tensor:
        """Both parts side by side, what all heads see."""
        return torch.cat([self.deter, self.stoch], dim=-1)

    def detach(self) -> State:
        """The same without graph."""
        return State(self.deter.detach(), self.stoch.detach())


def log_probs(logits: Tensor, unimix: float) -> Tensor:
    """Ln of 99 % softmax and 1 % uniform, over the last dimension."""
    probs = torch.softmax(logits, dim=-1)
    return torch.log((1 - unimix) * probs + unimix / logits.shape[-1])


def draw(log_p: Tensor, uniform: Tensor) -> Tensor:
    """One-hot samples with straight-through gradients, side by side `(..., S·C)`.

    Args:
        log_p: `(..., S, C)`.
        uniform: `(..., S)`; the class is where the running sum of probabilities passes it.
    """
    probs = log_p.exp()
    sums = probs.detach().cumsum(-1)
    index = (sums[..., :-1] <= (uniform * sums[..., -1])[..., None]).sum(-1, keepdim=True)
    classes = torch.arange(log_p.shape[-1], device=log_p.device)
    one_hot = (index == classes).to(probs.dtype)
    return (one_hot + (probs - probs.detach())).flatten(-2)


def gate(products: Tensor, scale: Tensor, shift: Tensor, deter: Tensor) -> Tensor:
    """The next deterministic state, from the products of a GRU that is normalized as a whole.

    With reset, candidate and update: u·tanh(σ(reset)·candidate) + (1 − u)·deter, u = σ(update − 1).
    """
    joint = F.layer_norm(products, products.shape[-1:], scale, shift, NORM_EPS)
    reset, candidate, update = joint.chunk(3, dim=-1)
    share = torch.sigmoid(update - 1)
    return share * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - share) * deter


class _Later(torch.autograd.Function):
    """Zeros to add to the products of a recurrent layer, whose gradient is that of its weight.

    In a loop over time, autograd would make a gradient as large as the weight at each step. Here
    the weight stands still in the loop, and one product at the end, of all inputs with all
    gradients, gives the same.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, inputs: list[Tensor], steps: int, rows: int) -> Tensor:
        ctx.inputs = inputs
        return weight.new_zeros(steps, rows, weight.shape[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = torch.stack(ctx.inputs)
        return grad.flatten(0, 1).t() @ inputs.flatten(0, 1), None, None, None


class _OverTime:
    """A linear map of one input that is applied step after step.

    Args:
        weight: `(out, in)`.
        steps, rows: how often it is applied, and to how many rows.
    """

    def __init__(self, weight: Tensor, steps: int, rows: int) -> None:
        self._inputs: list[Tensor] = []
        self._weight = weight.detach()
        self._zeros = iter(_Later.apply(weight, self._inputs, steps, rows).unbind(0))

    def __call__(self, x: Tensor) -> Tensor:
        """Products `(rows, out)` of the next step."""
        self._inputs.append(x.detach())
        return F.linear(x, self._weight).float() + next(self._zeros)


class RSSM(nn.Module):
    """Recurrent state-space model.

    Args:
        config: sizes.
        embed_dim: of encoded observations.
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
        """Where episodes begin: a learned deterministic part, and the prior's mode."""
        deter = torch.tanh(self.initial_deter)
        index = self.prior(deter).argmax(-1)
        # Not `F.one_hot`, which reads the largest index and so waits for the device.
        classes = torch.arange(self.config.classes, device=deter.device)
        return State(deter, (index[..., None] == classes).flatten(-2).to(deter.dtype))

    def prior(self, deter: Tensor) -> Tensor:
        """Log-probabilities `(..., S, C)` of the categorical part, unseen."""
        return self._log_probs(self.prior_output(self.prior_hidden(deter)))

    def posterior(self, deter: Tensor, embed: Tensor) -> Tensor:
        """Log-probabilities `(..., S, C)` of the categorical part, seen."""
        return self._log_probs(self.posterior_output(self.posterior_hidden(deter, embed)))

    def _log_probs(self, logits: Tensor) -> Tensor:
        shape = (*logits.shape[:-1], self.config.stoch, self.config.classes)
        return self.log_probs(logits.view(shape), self.config.unimix)

    def advance(self, state: State, action: Tensor) -> Tensor:
        """The next deterministic part; actions `(..., A)` count up to a magnitude of 1."""
        x = self.input(state.stoch, bounded(action))
        products = linear_of_parts((state.deter, x), self.gru, None).float()
        return self.gate(products, self.gru_scale, self.gru_shift, state.deter)

    def imagine(self, state: State, action: Tensor, uniform: Tensor) -> State:
        """The next state, unseen; `uniform (..., S)`."""
        deter = self.advance(state, action)
        return State(deter, self.draw(self.prior(deter), uniform))

    def begin(self, state: State, action: Tensor, first: Tensor) -> tuple[State, Tensor]:
        """State and action `(B, …)` that an observation follows; the initial ones where `first`."""
        fresh = first[:, None].bool()
        start = self.initial()
        state = State(*(torch.where(fresh, i, s) for i, s in zip(start, state, strict=True)))
        return state, torch.where(fresh, torch.zeros_like(action), action)

    def observe_one(
        self, state: State, action: Tensor, embed: Tensor, first: Tensor, uniform: Tensor
    ) -> State:
        """The state after one observation.

        Args:
            state: the one before.
            action: `(B, A)` that led here.
            embed: `(B, E)`, encoded observation.
            first: `(B,)`, where an episode begins.
            uniform: `(B, S)`.
        """
        state, action = self.begin(state, action, first)
        deter = self.advance(state, action)
        return State(deter, self.draw(self.posterior(deter, embed), uniform))

    def observe(
        self, action: Tensor, embed: Tensor, first: Tensor, uniform: Tensor
    ) -> tuple[State, Tensor]:
        """States after each observation of sequences, as `observe_one` would make them.

        What does not depend on the state before is computed for all times at once.

        Args:
            action: `(L, B, A)`, each leading to the observation of its row.
            embed: `(L, B, E)`.
            first: `(L, B)`, 1 at the first row.
            uniform: `(L, B, S)`.

        Returns:
            States `(L, B, …)`, and log-probabilities `(L, B, S, C)` of the posteriors.
        """
        c, (steps, rows) = self.config, first.shape
        fresh = first[..., None].bool()
        action = torch.where(fresh, torch.zeros_like(action), bounded(action))
        of_action = F.linear(action, self.input.weight[:, c.stoch_dim :]).float()
        of_embed = F.linear(embed, self.posterior_hidden.weight[:, c.deter :]).float()
        stoch_map = _OverTime(self.input.weight[:, : c.stoch_dim], steps, rows)
        gru_map = _OverTime(self.gru, steps, rows)
        deter_map = _OverTime(self.posterior_hidden.weight[:, : c.deter], steps, rows)
        output_map = _OverTime(self.posterior_output.weight, steps, rows)
        start = self.initial()
        state = State(*(x.expand(rows, -1) for x in start))
        states, logs = [], []
        for t in range(steps):
            if t > 0:
                pairs = zip(start, state, strict=True)
                state = State(*(torch.where(fresh[t], i, s) for i, s in pairs))
            x = self.input.finish(stoch_map(state.stoch) + of_action[t])
            products = gru_map(torch.cat([state.deter, x], dim=-1))
            deter = self.gate(products, self.gru_scale, self.gru_shift, state.deter)
            h = self.posterior_hidden.finish(deter_map(deter) + of_embed[t])
            log_p = self._log_probs(output_map(h) + self.posterior_output.bias)
            state = State(deter, self.draw(log_p, uniform[t]))
            states.append(state)
            logs.append(log_p)
        return State(*(torch.stack(x) for x in zip(*states, strict=True))), torch.stack(logs)


def bounded(action: Tensor) -> Tensor:
    """Actions scaled down to a magnitude of 1 where it is more, each dimension for itself."""
    return action / action.abs().clamp(min=1.0).detach()
