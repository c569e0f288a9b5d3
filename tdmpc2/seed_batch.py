"""Several seeds of TD-MPC2 as one batch: stacked parameters, one planning call, one update."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from tdmpc2 import losses, planner
from tdmpc2.agent import TDMPC2
from tdmpc2.common.interfaces import Accelerable, FunctionSlot, WholeSteps
from tdmpc2.common.numerics.optim import Adam, move_toward
from tdmpc2.common.replay.episode_replay import Replay
from tdmpc2.common.replay.types import Batch, to_device
from tdmpc2.common.training.loop_requests import Act
from tdmpc2.elites import Refit, choose
from tdmpc2.losses import ModelLoss, PolicyLoss
from tdmpc2.noise import NoiseSource, PlanNoise, UpdateNoise
from tdmpc2.planner import Plan, Prepared, iteration_weights
from tdmpc2.task_context import NO_TASK
from tdmpc2.world_model import WorldModel

Tree = TypeVar("Tree")


class SeedBatch:
    """K agents with the same task and config but different seeds.

    Planning and losses are vectorized over the agents with `torch.vmap`. Parameters, optimizer
    states and value scales are stacked, `(K, ...)`; each agent holds views of its slices, so that
    its `state_dict` is always current. Noise and batches are sampled per agent from its own
    generators, as in a run of this agent alone.

    Args:
        agents: K agents, restored by their runs, with equal numbers of updates.
        going: `(K,)`, whether each agent's run continues. Agents of finished runs only keep the
            batch complete.

    Raises:
        ValueError: the agents differ in their config or have several tasks.
    """

    def __init__(self, agents: Sequence[TDMPC2], going: Sequence[bool]) -> None:
        self.agents, first = list(agents), agents[0]
        self.config, self.device = first.config, first.device
        if any(agent.config != self.config for agent in agents) or first.env.num_tasks > 1:
            raise ValueError("a seed batch needs single-task agents with equal configs")
        self._running = [agent for agent, runs in zip(agents, going, strict=True) if runs]
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

        self._template = _CallWithModel(copy.deepcopy(first.model).to("meta"))
        config = self.config
        self.functions = SimpleNamespace(
            prepare=self._vectorize(planner.prepare),
            iterate=self._vectorize(lambda *args: planner.iterate(config, *args)),
            sample_prior=self._vectorize(_sample_prior),
            model_loss=self._vectorize(lambda *args: losses.model_loss(config, *args)),
            policy_loss=self._vectorize(lambda *args: losses.policy_loss(config, *args)),
            plan=self._plan_all,
            differentiate=_differentiate,
            decide=self._decide,
            learn=self._learn,
        )

    def accelerable(self) -> Accelerable:
        """Declare what can be replaced by compiled and native versions."""
        vectorized = ("prepare", "iterate", "sample_prior", "model_loss", "policy_loss")
        return Accelerable(
            self.device,
            compiled=[FunctionSlot(self.functions, name) for name in vectorized],
            protected=[FunctionSlot(self.functions, name) for name in ("plan", "differentiate")],
            networks=[self._template],
            native_layers="tdmpc2.kernels.layers:VECTORIZED",
            gpu_layers="tdmpc2.kernels.layers:VECTORIZED_TRITON",
            whole_steps=WholeSteps(
                functions=[FunctionSlot(self.functions, name) for name in ("decide", "learn")],
                generators=[n.generator for e in (True, False) for n in self._noises(e)],
                optimizers=(self.optimizer, self.policy_optimizer),
            ),
        )

    # --- stacking --------------------------------------------------------------------

    def _stack_parameters(self) -> dict[str, Tensor]:
        """Return stacked parameters `(K, ...)` by name; turn the agents' parameters into views."""
        per_agent = [dict(agent.model.named_parameters()) for agent in self.agents]
        stacks = {}
        for name, parameter in per_agent[0].items():
            stack = torch.stack([params[name].detach() for params in per_agent])
            for params, view in zip(per_agent, stack, strict=True):
                params[name].data = view
            stacks[name] = stack.requires_grad_(parameter.requires_grad)
            if stack.is_cuda:  # otherwise CUDA graphs copy it at each call
                torch._dynamo.mark_static_address(stack)
        return stacks

    def _stack_optimizer(self, attribute: str, names: dict[int, str]) -> Adam:
        """Return Adam over stacked parameters, with the agents' states copied into its own.

        The states of agents that continue become views of the stacked states.

        Args:
            attribute: name of the agents' optimizer, `optimizer` or `policy_optimizer`.
            names: names of the first agent's parameters by `id`.
        """
        optimizers = [getattr(agent, attribute) for agent in self.agents]
        groups = []
        for group in optimizers[0].param_groups:
            settings = {key: group[key] for key in ("lr", "betas", "eps")}
            params = [self.params[names[id(p)]] for p in group["params"]]
            groups.append({**settings, "params": params})
        batched = Adam(groups, fused=True)
        for g, group in enumerate(groups):
            for i, stack in enumerate(group["params"]):
                batched.state[stack] = state = {
                    "step": torch.zeros((), device=stack.device),
                    "exp_avg": torch.zeros_like(stack),
                    "exp_avg_sq": torch.zeros_like(stack),
                }
                for k, optimizer in enumerate(optimizers):
                    if self.agents[k] in self._running:
                        parameter = optimizer.param_groups[g]["params"][i]
                        view = {name: x[k] if x.dim() else x for name, x in state.items()}
                        for name, value in optimizer.state.get(parameter, {}).items():
                            view[name].copy_(value)
                        optimizer.state[parameter] = view
        return batched

    def _vectorize(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function(model, *tensors)` as a function of stacked parameters and tensors.

        The result is the tuple of its fields that are not None.
        """

        def call(params: dict[str, Tensor], *args: Any) -> tuple[Any, ...]:
            def for_agent(params: dict[str, Tensor], args: tuple[Any, ...]) -> tuple[Any, ...]:
                params = {f"model.{name}": value for name, value in params.items()}
                result = functional_call(self._template, params, (function, *args))
                return tuple(x for x in result if x is not None)

            dims = tree_map(lambda x: 0 if isinstance(x, Tensor) else None, args)
            return vmap(for_agent, in_dims=(0, dims))(params, args)

        return call

    # --- acting ----------------------------------------------------------------------

    @torch.no_grad()
    def act(self, requests: Sequence[Act | None]) -> list[np.ndarray]:
        """Return actions `(B, A)` of each agent; see `TDMPC2.act`.

        Args:
            requests: one request per agent, all with equal batch size B and `explore`; None for
                agents whose actions are not needed.

        Raises:
            RuntimeError: the requests differ in `explore` or batch size.
        """
        filled = _fill_missing(requests)
        explore, batch = filled[0].explore, len(filled[0].obs)
        if any(r.explore != explore or len(r.obs) != batch for r in filled):
            raise RuntimeError(
                "the seeds of a seed batch are out of step: requests differ in `explore` or in "
                "the number of environments"
            )
        obs = to_device(np.stack([r.obs for r in filled]), self.device)
        if not self.config.planning:
            noise, shift = zip(*(n.prior(batch) for n in self._noises(explore)), strict=True)
            sample, mean = self.functions.sample_prior(
                self.params, obs, stacked(noise), stacked(shift)
            )
            return list((sample if explore else mean).cpu().numpy())
        starts = [
            agent.warm_start(request.first, explore)
            for agent, request in zip(self.agents, filled, strict=True)
        ]
        # The decisions of agents whose runs have ended no longer count.
        current = next(a for a, r in zip(self.agents, requests, strict=True) if r is not None)
        # `full` does not synchronize a GPU.
        min_std = torch.full((len(starts),), current.min_std(), device=self.device)
        actions, means = self.functions.decide(obs, torch.stack(starts), min_std, explore)
        for agent, mean in zip(self.agents, means, strict=True):
            agent.previous_mean[explore] = mean
        return list(actions.cpu().numpy())

    def _noises(self, explore: bool) -> list[NoiseSource]:
        return [a.train_noise if explore else a.eval_noise for a in self.agents]

    def _decide(
        self, obs: Tensor, mean: Tensor, min_std: Tensor, explore: bool
    ) -> tuple[Tensor, Tensor]:
        """Plan with the agents' noise; see `TDMPC2.decide`, with K as first dimension."""
        noise = [source.plan(obs.shape[1], explore=explore) for source in self._noises(explore)]
        plan = self.functions.plan(obs, mean, min_std, stacked(noise))
        return plan.action, plan.mean

    def _plan_all(self, obs: Tensor, start: Tensor, min_std: Tensor, noise: PlanNoise) -> Plan:
        """Run `planner.plan` for all agents; every tensor has K as its first dimension."""
        num, batch = obs.shape[:2]
        shared = (self.params, obs, NO_TASK, noise.policy, noise.shift, noise.heads)
        prepared = Prepared(*self.functions.prepare(*shared))
        discount = self.agents[0].discount(None, batch).expand(num, batch)
        mean, std = start, torch.full_like(start, self.config.max_std)
        fixed = (self.params, prepared.latent, NO_TASK, discount, prepared.sequences)
        for i, draws in enumerate(noise.iterations(1)):
            weights = iteration_weights(prepared, noise.heads, i)
            known = (weights, prepared.product)
            refit = Refit(*self.functions.iterate(*fixed, mean, std, min_std, draws, *known))
            mean, std = refit.mean, refit.std
        args = (refit, noise.elite, noise.action)
        dims = tree_map(lambda x: None if x is None else 0, args)
        action = vmap(choose, in_dims=dims)(*args)
        return Plan(action, mean, std)

    # --- learning --------------------------------------------------------------------

    def update(self, replays: Sequence[Replay | None]) -> list[dict[str, Tensor]]:
        """Take one gradient step of each agent on its own batch and return their metrics.

        Args:
            replays: replay buffer of each agent; None for agents whose run has ended.
        """
        config, length = self.config, self.agents[0].replay_length
        batches = [
            None if r is None else r.sample(config.batch_size, length).to(self.device)
            for r in replays
        ]
        batch = stacked([b._replace(start=None) for b in _fill_missing(batches)])
        metrics, priority = self.functions.learn(batch)
        for k, (replay, own_batch) in enumerate(zip(replays, batches, strict=True)):
            if replay is not None and own_batch is not None and priority is not None:
                assert own_batch.start is not None
                replay.update_priorities(own_batch.start, priority[k])
        return [{name: x[k] for name, x in metrics.items()} for k in range(len(self.agents))]

    def _learn(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor | None]:
        """Take one gradient step of each agent with its own noise; see `update_on`."""
        noise = [a.train_noise.update(self.config.batch_size) for a in self.agents]
        return self.update_on(batch, stacked(noise))

    def update_on(
        self, batch: Batch, noise: UpdateNoise
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Take one gradient step of each agent on given batches with given noise.

        See `TDMPC2.update_on`; every tensor has K as its first dimension.
        """
        config, rows = self.config, batch.reward.shape[-1]
        discount = self.agents[0].discount(None, rows).expand(len(self.agents), rows)
        result, gradients = self.functions.differentiate(
            self.functions.model_loss, self.model_params, self.params, batch, discount, noise
        )
        model = _to_named_tuple(ModelLoss, result)
        norm = self._step(self.optimizer, self.model_params, gradients)
        result, gradients = self.functions.differentiate(
            self.functions.policy_loss,
            self.policy_params,
            *(self.params, model.latents, None, self.value_scale, noise),
        )
        policy = _to_named_tuple(PolicyLoss, result)
        self.value_scale.copy_(policy.value_scale)
        pi_norm = self._step(self.policy_optimizer, self.policy_params, gradients)
        move_toward(self.target_params, self.online_params, config.tau)
        norms = {"grad_norm": norm, "pi_grad_norm": pi_norm}
        return {**model.metrics, **policy.metrics, **norms}, model.priority

    def _step(self, optimizer: Adam, params: list[Tensor], gradients: tuple[Tensor, ...]) -> Tensor:
        """Take one Adam step on gradients clipped per agent and return their norms `(K,)`."""
        norms = [g.reshape(len(g), -1).norm(dim=1) for g in gradients]
        norm = torch.stack(norms).norm(dim=0)
        factor = (self.config.grad_clip_norm / (norm + 1e-6)).clamp(max=1.0)
        for parameter, gradient in zip(params, gradients, strict=True):
            scaled = gradient * factor.view(-1, *[1] * (gradient.dim() - 1))
            parameter.grad = scaled.contiguous()  # for the reason given in `descend`
        optimizer.step()
        return norm


class _CallWithModel(nn.Module):
    """A module that calls functions with a model as first argument, for `functional_call`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return `function(model, *args)`."""
        return function(self.model, *args)


def _sample_prior(
    model: WorldModel, obs: Tensor, noise: Tensor, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return sampled actions and mean actions of the policy prior, `(B, A)` each."""
    sample = model.pi(model.encode(obs, NO_TASK, shift), noise)
    return sample.action, sample.mean


def _differentiate(
    loss: Callable[..., tuple[Any, ...]], params: list[Tensor], *args: Any
) -> tuple[tuple[Any, ...], tuple[Tensor, ...]]:
    """Return the result of a vectorized loss, and the gradients of each agent's own loss.

    The gradient of the sum of losses is the stack of gradients, as agents share no parameters.
    """
    result = loss(*args)
    return result, torch.autograd.grad(result[0].sum(), params)


def _to_named_tuple(kind: type[Tree], values: tuple[Any, ...]) -> Tree:
    """Return a named tuple of the given type; missing last fields become None."""
    num_missing = len(kind._fields) - len(values)  # type: ignore[attr-defined]
    return kind(*values, *[None] * num_missing)


def _fill_missing(items: Sequence[Tree | None]) -> list[Tree]:
    """Replace None by the first item that is not None."""
    stand_in = next(item for item in items if item is not None)
    return [stand_in if item is None else item for item in items]


def stacked(items: Sequence[Tree]) -> Tree:
    """Stack the tensors of K nested containers of equal structure.

    Args:
        items: K containers.

    Returns:
        A container with tensors `(K, ...)`; values that are not tensors are those of the first.
    """
    leaves = [tree_flatten(item)[0] for item in items]
    columns = zip(*leaves, strict=True)
    stacks = [torch.stack(c) if isinstance(c[0], Tensor) else c[0] for c in columns]
    return tree_unflatten(stacks, tree_flatten(items[0])[1])
