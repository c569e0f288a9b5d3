"""Offline runner: trains a multi-task agent from a dataset, from `RunSpec` to records."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch

from tdmpc2 import acceleration
from tdmpc2.common.interfaces import SCHEDULES_OVER, EnvSpec
from tdmpc2.common.numerics.distributed import World, join_world, own_device
from tdmpc2.common.numerics.numeric_path import numeric_path
from tdmpc2.common.numerics.seeding import derive_seed, seed_globals
from tdmpc2.common.numerics.torch_setup import choose_device, set_up_torch, torch_as_found
from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.resume_checks import RunResult
from tdmpc2.common.run.run_files import RunFiles
from tdmpc2.common.run.spec import OfflineOptions, RunSpec
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.common.system.errors import DivergedError, UserError
from tdmpc2.common.training.loop_requests import serve
from tdmpc2.common.training.session import stop_on_signals
from tdmpc2.data.dataset import Dataset
from tdmpc2.data.offline_replay import OfflineReplay
from tdmpc2.envs.multitask import multitask_spec
from tdmpc2.envs.task_variants import with_switches
from tdmpc2.envs.tasks import Task, get_task
from tdmpc2.runners.life_cycle import LocalRun, accelerate, train_together
from tdmpc2.runners.offline_arguments import dataset_of
from tdmpc2.runners.offline_trainer import EvalGroup, OfflineSchedule, OfflineTrainer
from tdmpc2.runners.registry import make_agent
from tdmpc2.runners.setup import evaluation_workers, make_env_groups
from tdmpc2.sharded_update import SplitUpdate


def run_offline(spec: RunSpec, options: OfflineOptions) -> RunResult | None:
    """Train a run to the end of its budget; resume it if it was started before.

    If `torchrun` has started several processes, they train one agent together, each on a shard of
    every batch.

    Args:
        spec: run to train, see `make_offline_spec`.
        options: options of the run, with the folder of its dataset.

    Returns:
        The result of the run; None in all processes except the first.

    Raises:
        UserError: the run directory belongs to other settings, is in use or is damaged, or other
            input is invalid.
        StoppedError: a stop was requested, e.g. by SIGTERM.
    """
    dataset = dataset_of(spec, options)
    device = own_device(choose_device(options.device))
    run = _OfflineRun(spec, options, device)
    with join_world(device) as world:
        if run.settled is not None:
            if world.first:
                run.mirror_settled()
            return run.settled if world.first else None
        run.set_up(dataset, world)
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch_as_found())
            if world.first:
                return run.train_as_first(stack)
            run.train_as_worker()
            return None


class _OfflineRun(LocalRun):
    """The objects of a run in one process."""

    options: OfflineOptions
    agent: Any  # a method for several tasks

    def set_up(self, dataset: Dataset, world: World) -> None:
        """Create the agent and the replay buffer; nothing is written.

        Args:
            dataset: dataset to train from.
            world: processes that train together.
        """
        self.dataset, self.world = dataset, world
        switches = dict(self.spec.task_switches)
        self.tasks = [with_switches(get_task(name), switches) for name in self.spec.tasks]
        self.shapes = multitask_spec(self.tasks)
        self.agent = make_agent(self.spec, self.shapes, self.device)
        self.agent.decisions = SCHEDULES_OVER
        self.actor = self._actor()
        self.replay = OfflineReplay(
            dataset,
            self.spec.tasks,
            self.agent.replay_length,
            self.shapes.obs_shape[0],
            self.shapes.action_dim,
            generator=torch.Generator().manual_seed(derive_seed(self.spec.seed, "replay")),
        )

    def _actor(self) -> Any:
        """Return the object that answers the loop's requests: the agent, or its sharded update."""
        num_micro_batches = self.options.accumulate
        if num_micro_batches == 1 and self.world.size == 1:
            return self.agent
        if not self.agent.micro_batches:
            raise UserError(
                f"method={self.spec.method}: its batches cannot be divided; leave out accumulate= "
                "and use one process"
            )
        return SplitUpdate(self.agent, self.world, num_micro_batches)

    @property
    def split(self) -> str | None:
        """Division of batches, for the numeric path; None if they are not divided."""
        micro_batches, processes = self.options.accumulate, self.world.size
        if micro_batches == processes == 1:
            return None
        return f"{processes} processes x {micro_batches} parts"

    def train_as_first(self, stack: contextlib.ExitStack) -> RunResult:
        """Train in the first process, which also evaluates, writes the records and saves."""
        self.acquire(stack)
        self.set_up_numerics(split=self.split)
        num_parameters = self.agent.num_parameters()
        self.open_records(domain="multitask", metric="score", num_parameters=num_parameters)
        workers = evaluation_workers(self.options, 1, self.cores)
        groups = eval_groups(self.tasks, self.shapes, workers)
        for group in groups:
            stack.enter_context(contextlib.closing(group.envs))
        self.trainer = self._trainer(groups, self.records, self.store)
        self.trainer.restore(self.options.checkpoint)
        self.write_spec(dataset_name=self.dataset.name)
        self.world.wait()  # the other processes read the files that have just been written
        accelerate([self], self.agent)
        return train_together([self], lambda sessions: [serve(sessions[0], self.actor)])[0]

    def train_as_worker(self) -> None:
        """Train in another process than the first: compute a shard of each batch, write nothing."""
        self.world.wait()
        recorded = read_json(self.directory / "numeric.json")
        threads, compiled = recorded["threads"], bool(recorded["compile"])
        path = numeric_path(self.device, threads, compiled=compiled, precision=self.precision)
        set_up_torch(path)
        seed_globals(self.spec.seed)
        trainer = self._trainer([], None, CheckpointStore(self.directory))
        trainer.restore("latest")  # the first process has removed those after `checkpoint=`
        if compiled:
            acceleration.install(self.agent)
        with stop_on_signals() as stop:
            trainer.callbacks.stop_requested = stop.at_once
            trainer.callbacks.stop_soon = stop.soon
            with contextlib.suppress(DivergedError):  # the first process records it
                serve(trainer.steps(), self.actor)

    def _trainer(
        self,
        groups: Sequence[EvalGroup],
        records: RunFiles | None,
        checkpoints: CheckpointStore,
    ) -> OfflineTrainer:
        return OfflineTrainer(
            self.agent,
            self.tasks,
            groups,
            self.replay,
            records,
            checkpoints,
            OfflineSchedule(
                budget=self.spec.budget,
                checkpoint_seconds=60 * self.options.checkpoint_minutes,
                **self.fixed,
            ),
            seed=self.spec.seed,
            world=self.world,
        )


def eval_groups(tasks: Sequence[Task], shapes: EnvSpec, workers: int | None) -> list[EvalGroup]:
    """Return one environment per task, grouped by episode length.

    Args:
        tasks: tasks of the agent, in the order of its task embedding.
        shapes: shapes of the task set, to which observations and actions are padded.
        workers: number of processes per group; see `make_env_group`.
    """
    lengths = sorted({task.episode_length for task in tasks})
    indices = [
        tuple(i for i, task in enumerate(tasks) if task.episode_length == length)
        for length in lengths
    ]
    wanted = [[{"task": tasks[i], "padded_to": shapes} for i in members] for members in indices]
    envs = make_env_groups(wanted, workers)
    return [EvalGroup(group, members) for group, members in zip(envs, indices, strict=True)]
