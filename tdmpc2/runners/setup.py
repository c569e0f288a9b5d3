"""Environments and replay buffer of a run, and checks that the settings fit the machine."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tdmpc2.common.interfaces import EnvSpec, TaskEnv
from tdmpc2.common.numerics.cpu import usable_cores
from tdmpc2.common.numerics.seeding import derive_seed
from tdmpc2.common.replay.episode_replay import Replay
from tdmpc2.common.replay.ram_budget import check_memory, replay_bytes, replay_device
from tdmpc2.common.replay.sequence_replay import SequenceReplay
from tdmpc2.common.run.spec import CommonOptions, RunSpec
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.training.vector_env import EnvGroup, SerialEnvs
from tdmpc2.envs.assets import find_assets
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.multitask import padded_spec
from tdmpc2.envs.task_variants import task_of
from tdmpc2.envs.tasks import Task
from tdmpc2.envs.workers import RemoteEnv, WorkerEnvs


def env_arguments(spec: RunSpec, *, render: bool = False) -> dict[str, Any]:
    """Return the arguments of `make_env` for the environments of a run, without the seed.

    Args:
        spec: the run.
        render: whether the environments must render frames for videos.

    Raises:
        UserError: the installed 3D models of the task are not those that the run was started with.
    """
    task = task_of(spec)
    wanted: dict[str, Any] = {"task": task, "obs": spec.obs, "render": render}
    if task.assets is not None and spec.assets is not None:
        assets = find_assets(task.assets, spec.assets.partition("-")[0])
        if assets.label != spec.assets:
            raise UserError(
                f"{assets.folder}: contains {assets.label} assets, but the run uses {spec.assets}; "
                "restore those, or start another run with runs="
            )
        wanted["assets"] = assets
    if spec.start:
        wanted["padded_to"] = padded_spec(task, dict(spec.start))
    return wanted


def make_env_group(wanted: Mapping[str, Any], num_envs: int, workers: int | None) -> EnvGroup:
    """Return the environments of an evaluation, which seeds them.

    Args:
        wanted: arguments of `make_env` from `env_arguments`.
        num_envs: number of environments.
        workers: number of processes that step them; 0 for this process. None: one less than the
            usable cores if that is at least 2, else 0.
    """
    # Environments that use NumPy's global generator must all be in this process.
    if not wanted["task"].seeded_resets:
        workers = 0
    return make_env_groups([[wanted] * num_envs], workers)[0]


def make_env_groups(
    wanted: Sequence[Sequence[Mapping[str, Any]]], workers: int | None
) -> list[EnvGroup]:
    """Return groups of environments; only one group is stepped at a time.

    Args:
        wanted: arguments of `make_env`, without the seed, for each environment of each group.
        workers: number of processes per group; see `make_env_group`.
    """
    if workers is None:
        workers = _default_workers(usable_cores())
    seeded = [[{**env, "seed": i} for i, env in enumerate(group)] for group in wanted]
    with contextlib.ExitStack() as stack:  # closes the first ones if a later one cannot be made

        def kept(env: Any) -> Any:
            return stack.enter_context(contextlib.closing(env))

        groups: list[EnvGroup]
        if workers > 0:
            groups = [kept(WorkerEnvs(group, workers)) for group in seeded]
        else:
            groups = [SerialEnvs([kept(make_env(**env)) for env in group]) for group in seeded]
        stack.pop_all()
        return groups


def training_envs(
    envs: Sequence[TaskEnv], wanted: Sequence[Mapping[str, Any]], cores: int
) -> list[TaskEnv]:
    """Return the training environments; several are moved to processes if there are enough cores.

    Those that use NumPy's global generator stay in this process, which seeds and saves it.

    Args:
        envs: environments in this process; closed if they are replaced by remote ones.
        wanted: arguments of `make_env` for each environment.
        cores: number of cores that this process uses.
    """
    elsewhere = all(isinstance(env, RemoteEnv) for env in envs)
    unseeded = any(not arguments["task"].seeded_resets for arguments in wanted)
    if len(envs) == 1 or elsewhere or unseeded or cores <= len(envs):
        return list(envs)
    remote: list[TaskEnv] = []
    with contextlib.ExitStack() as stack:  # closes the first ones if a later one cannot be made
        for env, arguments in zip(envs, wanted, strict=True):
            remote.append(stack.enter_context(contextlib.closing(RemoteEnv(arguments, env))))
        stack.pop_all()
    for env in envs:
        env.close()
    return remote


def evaluation_workers(options: CommonOptions, num_runs: int, cores: int) -> int:
    """Return the number of evaluation processes of each run of this process.

    Args:
        options: options of the runs.
        num_runs: number of runs that work in this process, which evaluate at the same time.
        cores: number of cores that they use together by default.
    """
    if options.eval_workers is not None:
        return options.eval_workers
    return _default_workers(cores, num_runs)


def _default_workers(cores: int, num_runs: int = 1) -> int:
    """Return how many processes each run may use beside this one; 0 if fewer than 2."""
    workers = (cores - 1) // num_runs
    return workers if workers > 1 else 0


def env_spec(task: Task, env: TaskEnv, start: Mapping[str, Any] | None = None) -> EnvSpec:
    """Return the `EnvSpec` of a single task.

    Args:
        task: task of the run.
        env: an environment of the task.
        start: facts about the pretrained model that the run starts from; None or empty without.
    """
    assert env.observation_space.shape is not None
    assert env.action_space.shape is not None
    return EnvSpec(
        obs_shape=env.observation_space.shape,
        action_dim=env.action_space.shape[0],
        episode_lengths=(env.episode_length,),
        action_repeats=(env.action_repeat,),
        action_dims=(task.action_dim,),
        task_names=(task.name,),
        episodic=bool(start["episodic"]) if start else task.episodic,
        frame_stack=env.frame_stack,
    )


def make_replay(agent: Any, env: EnvSpec, seed: int, device: torch.device) -> Any:
    """Return the replay buffer that an agent requires.

    Args:
        agent: agent that declares the kind and size of the buffer.
        env: shapes of the task.
        seed: seed of the run.
        device: device of the buffer.
    """
    shape = (agent.config.buffer_size, agent.replay_length, env.obs_shape, env.action_dim)
    generator = torch.Generator().manual_seed(derive_seed(seed, "replay"))
    if agent.replay_across_episodes:
        return SequenceReplay(*shape, num_places=agent.num_envs, generator=generator, device=device)
    return Replay(
        *shape,
        generator=generator,
        obs_dtype=torch.uint8 if env.pixels else torch.float32,
        frame_stack=env.frame_stack,
        device=device,
        num_tasks=env.num_tasks,
        priorities=agent.replay_priorities,
    )


def check_fits(
    agent: Any, env: EnvSpec, budget: int, device: torch.device, num_runs: int = 1
) -> torch.device:
    """Check, before a run starts, that its settings are consistent and its replay buffer fits.

    Args:
        agent: agent of the run.
        env: shapes of the task.
        budget: env steps.
        device: device of the networks.
        num_runs: number of equal runs in this process, each with its own replay buffer.

    Returns:
        The device of the replay buffer.

    Raises:
        UserError: there are too few seeding decisions, the buffer is too small for what is sampled
            or larger than the free memory, the horizon is longer than an episode, or the buffer
            cannot store transitions one by one.
    """
    decisions, across = max(env.episode_lengths), agent.replay_across_episodes
    one_by_one = agent.replay_visibility == "transition" and not across
    if one_by_one and (agent.num_envs > 1 or env.frame_stack > 1):
        raise UserError(
            "replay_visibility=transition: supports one environment without stacked frames; use "
            "episode, or replay_across_episodes=True"
        )
    _check_seed_decisions(agent, decisions)
    _check_buffer_size(agent, decisions)
    if agent.replay_length > decisions and not across:
        name = "horizon" if hasattr(agent.config, "horizon") else "replay_length"
        raise UserError(
            f"{name}={agent.replay_length}: an episode has only {decisions} decisions; use a "
            f"smaller {name}"
        )
    # An episode takes one row more than it has decisions; the last one may exceed the budget.
    episodes = budget // (min(env.action_repeats) * min(env.episode_lengths)) + agent.num_envs
    shape, stack = (env.obs_shape, env.action_dim), env.frame_stack
    row = num_runs * replay_bytes(1, *shape, frame_stack=stack, across_episodes=across)
    place = replay_device(row, agent.config.buffer_size, device)
    if place.type == "cpu":  # there, only rows that are filled occupy memory
        check_memory(row, min(agent.config.buffer_size, episodes * (decisions + 1)))
    return place


def _check_seed_decisions(agent: Any, decisions: int) -> None:
    """Raise a `UserError` if there is nothing to sample at the first update."""
    num_envs, length = agent.num_envs, agent.replay_length
    least, first = num_envs * length, f"updates need {length} decisions"
    if agent.replay_visibility == "episode":
        # An episode of T decisions has T + 1 rows, which sequences across episodes join.
        episodes = math.ceil(length / (decisions + 1)) if agent.replay_across_episodes else 1
        least = num_envs * decisions * (episodes - 1)
        least += num_envs * decisions + 1 if agent.updates_within_episodes else 0
        many = "a whole episode" if episodes == 1 else f"{episodes} whole episodes"
        first = f"updates start after {many} of {decisions} decisions"
    if max(agent.seed_decisions, num_envs) < least:  # the first decisions are one of each
        given = agent.config.seed_decisions
        extra = 0 if given is None else agent.seed_decisions - given  # see `TDMPC2`
        each = "" if num_envs == 1 else f" in each of {num_envs} environments"
        raise UserError(f"seed_decisions={given}: {first}{each}; use at least {least - extra}")


def _check_buffer_size(agent: Any, decisions: int) -> None:
    """Raise a `UserError` if the buffer is too small for an episode, or could become empty.

    A buffer removes whole episodes. If the current one is sampled, it must then be long enough.
    """
    kept, num_envs = 1, agent.num_envs
    if agent.replay_across_episodes:
        kept = agent.replay_length
    elif agent.replay_visibility == "transition" and agent.replay_length > 1:
        kept = agent.replay_length + 1  # L transitions take L + 1 rows
    least = num_envs * (decisions + kept)
    if agent.config.buffer_size < least:
        what = f"one episode takes {decisions + 1} rows"
        if kept > 1:
            what = f"an episode and a sequence of {kept} take {decisions + kept} rows"
        raise UserError(
            f"buffer_size={agent.config.buffer_size}: {what}"
            + (f", those of {num_envs} environments {least}" if num_envs > 1 else "")
            + f"; use at least {least}"
        )
