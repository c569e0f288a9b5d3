"""Several seeds of TD-MPC2 as one batch: stacked parameters, one plan and one update for all."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from tdmpc2 import kernels, losses, planner
from tdmpc2.agent import TDMPC2
from tdmpc2.common.numerics.compile import Compiler
from tdmpc2.common.numerics.optim import move_toward
from tdmpc2.common.replay.episode_replay import Replay
from tdmpc2.common.replay.types import Batch, to_device
from tdmpc2.common.training.loop_requests import Act
from tdmpc2.losses import ModelLoss, PolicyLoss
from tdmpc2.noise import UpdateNoise
from tdmpc2.planner import Plan, Refit
from tdmpc2.world_model import NO_TASK, WorldModel

Tree = TypeVar("Tree")


class SeedBatch:
    """K agents of one task and one configuration, with seeds of their own.

    The pure functions of planning and learning are vectorized over the agents (`torch.vmap`).
    Parameters, optimizer states and value scales lie in stacks, of which the agents hold views:
    each agent's `state_dict` is its own at any time. Noise and batches are drawn for each agent
    from its own generators, as if it were alone.

    Args:
        agents: as their runs have restored them, with as many updates behind them.
        going: whether each agent's run goes on; the others only fill their places.
    """

    def __init__(self, agents: Sequence[TDMPC2], going: Sequence[bool]) -> None:
        self.agents, first = list(agents), agents[0]
        self.config, self.device = first.config, first.device
        if any(agent.config != self.config for agent in agents) or first.env.num_tasks > 1:
            raise ValueError("agents of one single task and one configuration are needed")
        self._going = [agent for agent, goes in zip(agents, going, strict=True) if goes]
        self.params = self._stack_parameters()
        names = {id(p): name for name, p in first.model.named_parameters()}
        self.model_params = [self.params[names[id(p)]] for p in first.model_params]
        self.policy_params = [self.params[names[id(p)]] for p in first.policy_params]
        self.target_params, self.online_params = (
            [p for name, p in self.params.items() if name.startswith(prefix)]
            for prefix in ("target_q_functions.", "q_functions.")
        )
        self.optimizer = self._stack_optimizer("optimizer", names)
        self.policy_optimizer = self._stack_optimizer("policy_optimizer", names)
        self.value_scale = torch.stack([agent.value_scale for agent in agents])
        for agent, scale in zip(agents, self.value_scale, strict=True):
            agent.value_scale = scale

        self._template = _Applied(copy.deepcopy(first.model).to("meta"))
        config, self.compiler = self.config, Compiler(self.device)
        self._preparation = self._vectorised(planner.prepare)
        self._iteration = self._vectorised(lambda *args: planner.iterate(config, *args))
        self._prior = self._vectorised(_sample_prior)
        self._model_loss = self._vectorised(lambda *args: losses.model_loss(config, *args))
        self._policy_loss = self._vectorised(lambda *args: losses.policy_loss(config, *args))
        self._plan = self.compiler.protect(self._plan_all)
        self._differentiate = self.compiler.protect(_differentiate)

    def compile(self, on_failure: Callable[[], None] | None = None) -> None:
        """See `Agent.compile`."""
        if self.device.type == "cpu":
            kernels.load()
        self.compiler.switch_on(on_failure)

    # --- stacking --------------------------------------------------------------------

    def _stack_parameters(self) -> dict[str, Tensor]:
        """Parameters `(K, ...)` by name; those of the agents become views of them."""
        each = [dict(agent.model.named_parameters()) for agent in self.agents]
        stacks = {}
        for name, parameter in each[0].items():
            stack = torch.stack([params[name].detach() for params in each])
            for params, view in zip(each, stack, strict=True):
                params[name].data = view
            stacks[name] = stack.requires_grad_(parameter.requires_grad)
            if stack.is_cuda:  # CUDA graphs would copy it at each call
                torch._dynamo.mark_static_address(stack)
        return stacks

    def _stack_optimizer(self, which: str, names: dict[int, str]) -> torch.optim.Adam:
        """Adam over the stacks; the states of the agents that go on become views of its own."""
        optimizers = [getattr(agent, which) for agent in self.agents]
        groups = []
        for group in optimizers[0].param_groups:
            kept = {key: group[key] for key in ("lr", "betas", "eps")}
            groups.append({**kept, "params": [self.params[names[id(p)]] for p in group["params"]]})
        optimizer = torch.optim.Adam(groups, fused=True)
        for g, group in enumerate(groups):
            for i, stack in enumerate(group["params"]):
                optimizer.state[stack] = state = {
                    "step": torch.zeros((), device=stack.device),
                    "exp_avg": torch.zeros_like(stack),
                    "exp_avg_sq": torch.zeros_like(stack),
                }
                for k, optimizer in enumerate(optimizers):
                    if self.agents[k] in self._going:
                        own = optimizer.param_groups[g]["params"][i]
                        view = {name: x[k] if x.dim() else x for name, x in state.items()}
                        for name, value in optimizer.state.get(own, {}).items():
                            view[name].copy_(value)
                        optimizer.state[own] = view
        return optimizer

    def _vectorised(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of a model and tensors, for all agents' models and stacked tensors."""

        def call(params: dict[str, Tensor], *args: Any) -> tuple[Any, ...]:
            def one(params: dict[str, Tensor], args: tuple[Any, ...]) -> tuple[Any, ...]:
                params = {f"model.{name}": value for name, value in params.items()}
                with kernels.vectorized():
                    result = functional_call(self._template, params, (function, *args))
                return tuple(x for x in result if x is not None)

            dims = tree_map(lambda x: 0 if isinstance(x, Tensor) else None, args)
            return vmap(one, in_dims=(0, dims))(params, args)

        return self.compiler.compile(call)

    # --- acting ----------------------------------------------------------------------

    @torch.no_grad()
    def act(self, requests: Sequence[Act | None]) -> list[np.ndarray]:
        """Actions `(B, A)` of each agent; see `TDMPC2.act`.

        Args:
            requests: of the same batch size; None for an agent whose actions nobody needs.
        """
        filled = _filled(requests)
        explore, batch = filled[0].explore, len(filled[0].obs)
        if any(r.explore != explore or len(r.obs) != batch for r in filled):
            raise RuntimeError("seeds out of step: some train, others evaluate")
        obs = to_device(np.stack([r.obs for r in filled]), self.device)
        sources = [a.train_noise if explore else a.eval_noise for a in self.agents]
        if not self.config.planning:
            draws, shift = zip(*(source.prior(batch) for source in sources), strict=True)
            sample, mean = self._prior(self.params, obs, stacked(draws), stacked(shift))
            return list((sample if explore else mean).cpu().numpy())
        starts = [
            agent.warm_start(request.first, explore)
            for agent, request in zip(self.agents, filled, strict=True)
        ]
        noise = stacked([source.plan(batch, explore=explore) for source in sources])
        result = self._plan(obs, torch.stack(starts), noise)
        for agent, mean in zip(self.agents, result.mean, strict=True):
            agent.previous_mean[explore] = mean
        return list(result.action.cpu().numpy())

    def _plan_all(self, obs: Tensor, start: Tensor, noise: planner.PlanNoise) -> Plan:
        """`planner.plan` for all agents; every tensor has them as its first dimension."""
        num, batch = obs.shape[:2]
        latent, pi_actions = self._preparation(self.params, obs, NO_TASK, noise.policy, noise.shift)
        discount = self.agents[0].discount(None, batch).expand(num, batch)
        # Those that go on have as many decisions behind them. Filled in without waiting for a GPU.
        least = torch.full((num,), self._going[0].min_std(), device=self.device)
        mean, std = start, torch.full_like(start, self.config.max_std)
        fixed = (self.params, latent, NO_TASK, discount, pi_actions)
        for draws in noise.iterations(1):
            refit = Refit(*self._iteration(*fixed, mean, std, least, draws))
            mean, std = refit.mean, refit.std
        dims = (0, 0, None if noise.action is None else 0)
        action = vmap(planner.choose, in_dims=dims)(refit, noise.elite, noise.action)
        return Plan(action, mean, std)

    # --- learning --------------------------------------------------------------------

    def update(self, replays: Sequence[Replay | None]) -> list[dict[str, Tensor]]:
        """One gradient step of each agent on a batch of its own; their metrics.

        Args:
            replays: the agents' replay buffers; None for an agent whose run has ended.
        """
        config, length = self.config, self.agents[0].replay_length
        drawn = [r and r.sample(config.batch_size, length).to(self.device) for r in replays]
        batch = stacked([b._replace(start=None) for b in _filled(drawn)])
        noise = stacked([a.train_noise.update(config.batch_size) for a in self.agents])
        metrics, priority = self.update_on(batch, noise)
        for k, (replay, one) in enumerate(zip(replays, drawn, strict=True)):
            if replay is not None and priority is not None:
                replay.update_priorities(one.start, priority[k])
        return [{name: x[k] for name, x in metrics.items()} for k in range(len(self.agents))]

    def update_on(
        self, batch: Batch, noise: UpdateNoise
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """See `TDMPC2.update_on`; every tensor has the agents as its first dimension."""
        config, rows = self.config, batch.reward.shape[-1]
        discount = self.agents[0].discount(None, rows).expand(len(self.agents), rows)
        out, gradients = self._differentiate(
            self._model_loss, self.model_params, self.params, batch, discount, noise
        )
        model = _as(ModelLoss, out)
        norm = self._step(self.optimizer, self.model_params, gradients)
        out, gradients = self._differentiate(
            self._policy_loss,
            self.policy_params,
            *(self.params, model.latents, None, self.value_scale, noise),
        )
        policy = _as(PolicyLoss, out)
        self.value_scale.copy_(policy.value_scale)
        pi_norm = self._step(self.policy_optimizer, self.policy_params, gradients)
        move_toward(self.target_params, self.online_params, config.tau)
        norms = {"grad_norm": norm, "pi_grad_norm": pi_norm}
        return {**model.metrics, **policy.metrics, **norms}, model.priority

    def _step(
        self, optimizer: torch.optim.Adam, params: list[Tensor], gradients: tuple[Tensor, ...]
    ) -> Tensor:
        """One Adam step; each agent's gradients are clipped by their own norm `(K,)`."""
        norm = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
        factor = (self.config.grad_clip_norm / (norm + 1e-6)).clamp(max=1.0)
        for parameter, gradient in zip(params, gradients, strict=True):
            scaled = gradient * factor.view(-1, *[1] * (gradient.dim() - 1))
            parameter.grad = scaled.contiguous()  # see `descend`
        optimizer.step()
        return norm


class _Applied(nn.Module):
    """A model as the first argument of any function, for `functional_call`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        """The function's result."""
        return function(self.model, *args)


def _sample_prior(
    model: WorldModel, obs: Tensor, noise: Tensor, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Action and mean action `(B, A)` of the policy prior."""
    sample = model.pi(model.encode(obs, NO_TASK, shift), noise)
    return sample.action, sample.mean


def _differentiate(
    loss: Callable[..., tuple[Any, ...]], params: list[Tensor], *args: Any
) -> tuple[tuple[Any, ...], tuple[Tensor, ...]]:
    """Outcome of a vectorized loss, and the gradients of each agent's own."""
    outcome = loss(*args)
    return outcome, torch.autograd.grad(outcome[0].sum(), params)


def _as(kind: type[Tree], values: tuple[Any, ...]) -> Tree:
    """A named tuple again, whose last fields may be missing."""
    missing = len(kind._fields) - len(values)  # type: ignore[attr-defined]
    return kind(*values, *[None] * missing)


def _filled(items: Sequence[Tree | None]) -> list[Tree]:
    """With the first item there is in the place of those that are None."""
    stand_in = next(item for item in items if item is not None)
    return [stand_in if item is None else item for item in items]


def stacked(items: Sequence[Tree]) -> Tree:
    """Nested containers of tensors as one of stacks `(K, ...)`; all else is the first's."""
    leaves = [tree_flatten(item)[0] for item in items]
    columns = zip(*leaves, strict=True)
    stacks = [torch.stack(c) if isinstance(c[0], Tensor) else c[0] for c in columns]
    return tree_unflatten(stacks, tree_flatten(items[0])[1])
