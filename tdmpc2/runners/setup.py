"""The parts of a run that no method decides: its environments, its replay, and what fits."""

from __future__ import annotations

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
    """What `make_env` needs for the environments of a run, but for their seeds.

    Raises:
        UserError: the models of the task are not those that the run was begun with.
    """
    task = task_of(spec)
    wanted: dict[str, Any] = {"task": task, "obs": spec.obs, "render": render}
    if task.assets is not None and spec.assets is not None:
        found = find_assets(task.assets, spec.assets.partition("-")[0])
        if found.label != spec.assets:
            raise UserError(f"{found.folder}: holds {found.label} assets, not {spec.assets}")
        wanted["assets"] = found
    if spec.start:
        wanted["padded_to"] = padded_spec(task, dict(spec.start))
    return wanted


def make_env_group(wanted: Mapping[str, Any], num_envs: int, workers: int | None) -> EnvGroup:
    """Environments for an evaluation.

    Args:
        wanted: what `env_arguments` returned.
        num_envs: of the group, seeded anew by each evaluation.
        workers: processes; 0 for this one; None: one less than the cores this process may
            use, where that is two or more.
    """
    # Environments that share NumPy's global generator must share a process.
    together = None if wanted["task"].seeded_resets else 0
    return make_env_groups([[wanted] * num_envs], workers if together is None else together)[0]


def make_env_groups(
    wanted: Sequence[Sequence[Mapping[str, Any]]], workers: int | None
) -> list[EnvGroup]:
    """Groups of environments, of which one is stepped at a time.

    Args:
        wanted: of each environment of each group, what `make_env` needs but for the seed.
        workers: see `make_env_group`; each group has processes of its own.
    """
    if workers is None:
        spare = usable_cores() - 1
        workers = spare if spare > 1 else 0
    each = [[{**one, "seed": i} for i, one in enumerate(group)] for group in wanted]
    if workers > 0:
        return [WorkerEnvs(group, workers) for group in each]
    return [SerialEnvs([make_env(**one) for one in group]) for group in each]


def training_envs(
    envs: Sequence[TaskEnv], wanted: Sequence[Mapping[str, Any]], threads: int | None
) -> list[TaskEnv]:
    """Environments of training, several of them in processes of their own where cores allow.

    Args:
        envs: in this process; closed if others take their places.
        wanted: of each, what `make_env` needs.
        threads: cores that this process is held to, or None.
    """
    if len(envs) == 1 or (threads or usable_cores()) <= len(envs):
        return list(envs)
    remote: list[TaskEnv] = []
    for env, arguments in zip(envs, wanted, strict=True):
        remote.append(RemoteEnv(arguments, env))
        env.close()
    return remote


def evaluation_workers(options: CommonOptions) -> int | None:
    """Evaluation processes: a run that is held to some threads takes no more cores than those."""
    if options.eval_workers is None and options.threads is not None:
        return options.threads - 1 if options.threads > 2 else 0
    return options.eval_workers


def env_spec(task: Task, env: TaskEnv, start: Mapping[str, Any] | None = None) -> EnvSpec:
    """What an agent must know of a single task.

    Args:
        task: of the run.
        env: an environment of it.
        start: facts of the model that the run goes on from, if there is one.
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
    """The memory an agent asks for."""
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
    """Refuses settings that could not get through the run.

    Args:
        agent: of the run.
        env: of its task.
        budget: env steps.
        device: of the networks.
        num_runs: alike, in one process, each with a memory of its own.

    Returns:
        Where the replay buffer is to lie.

    Raises:
        UserError: too few seeding decisions, too small a memory or more than there is, or too
            long a horizon.
    """
    decisions = max(env.episode_lengths)
    if agent.replay_visibility == "episode" and agent.seed_decisions < decisions:
        raise UserError(
            f"seed_decisions={agent.seed_decisions}: learning starts from a whole episode, "
            f"so at least {decisions} are needed"
        )
    least = agent.num_envs * (decisions + 1)
    if agent.config.buffer_size < least:
        raise UserError(
            f"buffer_size={agent.config.buffer_size}: one episode takes {decisions + 1} rows"
            + (f", {agent.num_envs} of them {least}" if agent.num_envs > 1 else "")
        )
    if agent.replay_length > decisions and not agent.replay_across_episodes:
        raise UserError(f"horizon={agent.replay_length}: an episode has only {decisions} decisions")
    # Each episode takes a row more than it has decisions, and the last one may pass the budget.
    episodes = budget // (min(env.action_repeats) * min(env.episode_lengths)) + agent.num_envs
    row = num_runs * replay_bytes(1, env.obs_shape, env.action_dim, frame_stack=env.frame_stack)
    place = replay_device(row, agent.config.buffer_size, device)
    if place.type == "cpu":  # where only what is filled takes up memory
        check_memory(row, min(agent.config.buffer_size, episodes * (decisions + 1)))
    return place
