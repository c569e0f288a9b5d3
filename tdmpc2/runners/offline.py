"""Offline runner: trains a multi-task agent from a dataset, from `RunSpec` to records."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tdmpc2 import acceleration
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.numerics.distributed import World, join_world, own_device
from tdmpc2.common.numerics.numeric_path import (
    apply_numeric_path,
    choose_device,
    numeric_path,
    record_failed_compilation,
    set_up_torch,
    torch_as_found,
)
from tdmpc2.common.numerics.seeding import derive_seed, seed_globals
from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.lock import Lease
from tdmpc2.common.run.resume_checks import RunResult, existing_outcome, register_attempt
from tdmpc2.common.run.run_files import RunFiles
from tdmpc2.common.run.sacred_tracker import Tracker, track
from tdmpc2.common.run.spec import OfflineOptions, RunSpec
from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import read_json, remove_leftovers
from tdmpc2.common.system.config_checks import REQUIRED, SEED, STEPS, Settings, setting
from tdmpc2.common.system.errors import StoppedError, UserError
from tdmpc2.common.training.loop_requests import serve
from tdmpc2.common.training.session import session, stop_on_signals
from tdmpc2.data.dataset import Dataset
from tdmpc2.data.offline_replay import OfflineReplay
from tdmpc2.envs.adapters import recorded_distributions
from tdmpc2.envs.multitask import multitask_spec
from tdmpc2.envs.physics import Physics
from tdmpc2.envs.task_variants import with_switches
from tdmpc2.envs.tasks import Task, get_task
from tdmpc2.runners.offline_trainer import EvalGroup, OfflineSchedule, OfflineTrainer
from tdmpc2.runners.registry import (
    OFFLINE_UPDATES,
    agent_class,
    make_agent,
    make_offline_spec,
    multitask_methods,
)
from tdmpc2.runners.setup import evaluation_workers, make_env_groups
from tdmpc2.sharded_update import SplitUpdate

EVAL_EVERY = 100_000
# Number of decisions at which all schedules over decisions have reached their final values.
SCHEDULES_OVER = 1 << 60


@dataclass(frozen=True)
class SpecOptions(Settings):
    """Options that select a run; with the hyperparameters, its identity."""

    task: str = setting(
        REQUIRED, "mt30, mt80, another suite, or several tasks separated by commas, e.g. task=mt30"
    )
    method: str = setting("tdmpc2", lambda: " | ".join(multitask_methods()))
    seed: int = setting(1, "seed of all random numbers", SEED)
    num_updates: int = setting(OFFLINE_UPDATES, "budget in gradient steps", STEPS)
    variant: str | None = setting(None, "name of these settings; default: derived")
    physics: Physics = setting("paper", "physics of evaluations")


def run_offline(spec: RunSpec, options: OfflineOptions, dataset: Dataset) -> RunResult | None:
    """Train a run to the end of its budget; resume it if it was started before.

    If `torchrun` has started several processes, they train one agent together, each on a shard of
    every batch.

    Args:
        spec: run to train, see `make_offline_spec`.
        options: options of the run.
        dataset: dataset to train from.

    Returns:
        The result of the run; None in all processes except the first.

    Raises:
        UserError: the run directory belongs to other settings, is in use or is damaged, or other
            input is invalid.
        StoppedError: a stop was requested, e.g. by SIGTERM.
    """
    settled = existing_outcome(spec.run_dir(options.runs), spec, _fixed(options), options)
    device = own_device(choose_device(options.device))
    with join_world(device) as world:
        if settled is not None:
            return settled if world.first else None
        run = _OfflineRun(spec, options, dataset, device, world)
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch_as_found())
            return run.train_as_first(stack) if world.first else run.train_as_worker()


def _fixed(options: OfflineOptions) -> dict[str, Any]:
    """Return the options that must not change during a run."""
    return {
        "eval_every": options.eval_every or EVAL_EVERY,
        "eval_episodes": options.eval_episodes,
        "log_every": options.log_every,
    }


class _OfflineRun:
    """The objects of a run in one process."""

    def __init__(
        self,
        spec: RunSpec,
        options: OfflineOptions,
        dataset: Dataset,
        device: torch.device,
        world: World,
    ) -> None:
        self.spec, self.options, self.dataset = spec, options, dataset
        self.device, self.world = device, world
        switches = dict(spec.task_switches)
        self.tasks = [with_switches(get_task(name), switches) for name in spec.tasks]
        self.shapes = multitask_spec(self.tasks)
        self.agent: Any = make_agent(spec, self.shapes, device)
        self.agent.decisions = SCHEDULES_OVER
        self.actor = self._actor()
        self.directory = spec.run_dir(options.runs)
        self.fixed = _fixed(options)
        self.schedule = OfflineSchedule(
            num_updates=spec.budget,
            checkpoint_seconds=60 * options.checkpoint_minutes,
            **self.fixed,
        )
        self.precision = getattr(self.agent.config, "precision", "fp32")

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
        options, spec = self.options, self.spec
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.directory}: cannot be created ({error.strerror}); use another folder with "
                "runs="
            ) from None
        lease = stack.enter_context(Lease(self.directory))
        checkpoints = CheckpointStore(self.directory)
        remove_leftovers(self.directory, checkpoints.folder)
        numeric_file = self.directory / "numeric.json"
        numeric = apply_numeric_path(
            numeric_file,
            self.device,
            options.threads,
            allow_change=options.allow_numeric_change,
            compiled=options.compile,
            precision=self.precision,
            bf16_layers=self.agent.accelerable().bf16_layers is not None,
            split=self.split,
        )
        attempt = register_attempt(
            self.directory,
            simulators=recorded_distributions(),
            allow_change=options.allow_commit_change,
        )
        facts: dict[str, Any] = {"domain": "multitask", "metric": "score"}
        facts["model_size"] = self.agent.config.model_size
        facts["num_parameters"] = self.agent.num_parameters()
        records = RunFiles(self.directory, spec, facts)
        seed_globals(spec.seed)
        groups = eval_groups(self.tasks, self.shapes, evaluation_workers(options))
        for group in groups:
            stack.enter_context(contextlib.closing(group.envs))
        trainer = self._trainer(groups, records, checkpoints)
        trainer.restore(options.checkpoint)
        named = {"dataset_name": self.dataset.name}
        records.write_spec({**named, **self.fixed, "commit": attempt["commit"]})
        self.world.wait()  # the other processes read the files that have just been written
        if numeric["compile"]:
            acceleration.install(self.agent, lambda: record_failed_compilation(numeric_file))

        def body(tracker: Tracker) -> RunResult:
            seed_globals(spec.seed)  # again, since Sacred has seeded them too
            with stop_on_signals() as stop:
                steps = session(trainer, records, tracker, lease, options, stop)
                return serve(steps, self.actor)

        config = {**dataclasses.asdict(spec), "overrides": dict(spec.overrides)}
        info = {"attempt": attempt, "numeric": numeric}
        folder, interrupts = self.directory / "sacred", (StoppedError,)
        return track(folder, spec.method, config, info, body, interrupts=interrupts)

    def train_as_worker(self) -> None:
        """Train in another process than the first: compute a shard of each batch, write nothing."""
        self.world.wait()
        recorded = read_json(self.directory / "numeric.json")
        threads, compiled = recorded["threads"], bool(recorded["compile"])
        path = numeric_path(self.device, threads, compiled=compiled, precision=self.precision)
        set_up_torch(path)
        seed_globals(self.spec.seed)
        trainer = self._trainer([], None, CheckpointStore(self.directory))
        trainer.restore(self.options.checkpoint)
        if compiled:
            acceleration.install(self.agent)
        with stop_on_signals() as stop:
            trainer.callbacks.stop_requested = stop.at_once
            trainer.callbacks.stop_soon = stop.soon
            serve(trainer.steps(), self.actor)

    def _trainer(
        self,
        groups: Sequence[EvalGroup],
        records: RunFiles | None,
        checkpoints: CheckpointStore,
    ) -> OfflineTrainer:
        generator = torch.Generator().manual_seed(derive_seed(self.spec.seed, "replay"))
        replay = OfflineReplay(
            self.dataset,
            self.spec.tasks,
            self.agent.replay_length,
            self.shapes.obs_shape[0],
            self.shapes.action_dim,
            generator=generator,
        )
        return OfflineTrainer(
            self.agent,
            self.tasks,
            groups,
            replay,
            records,
            checkpoints,
            self.schedule,
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


def is_meant(arguments: Sequence[str]) -> bool:
    """Return whether the arguments of the train command select training from a dataset."""
    return any(cli.peek(arguments, key) is not None for key in ("data", "num_updates"))


def parse(arguments: Sequence[str]) -> tuple[RunSpec, OfflineOptions, Dataset]:
    """Parse `key=value` arguments into the run, its options and its dataset.

    Raises:
        UserError: an unknown key, task or method, a value out of range, or no such dataset.
    """
    method = cli.peek(arguments, "method") or "tdmpc2"
    config_schema = cli.schema_of(agent_class(method).config_class)
    schema = {**cli.schema_of(SpecOptions), **cli.schema_of(OfflineOptions)}
    values = cli.parse_arguments(arguments, {**schema, **config_schema})
    chosen, options = cli.build(SpecOptions, values), cli.build(OfflineOptions, values)
    if options.data is None:
        raise UserError(
            "data= is missing; name the folder of a dataset (python -m tdmpc2.data --help)"
        )
    dataset = Dataset.open(options.data)
    spec = make_offline_spec(
        chosen.method,
        chosen.task,
        chosen.seed,
        dataset.checksum,
        num_updates=chosen.num_updates,
        variant=chosen.variant,
        overrides={k: values[k] for k in config_schema if k in values},
        physics=chosen.physics,
    )
    dataset.require(spec.tasks)
    return spec, options, dataset


def usage(method: str) -> str:
    """Return the text of `--help` for training from a dataset.

    It includes the hyperparameters of one method.
    """
    return "\n".join(
        [
            "usage: python tdmpc2/train.py task=TASKS data=DIR [key=value …]",
            "",
            "Trains one multi-task agent from a dataset; environments are used for evaluation",
            "only. Running the same command again resumes an unfinished run and skips a finished",
            "one; a larger num_updates= continues a finished one. On several GPUs:",
            "  torchrun --nproc-per-node=4 tdmpc2/train.py task=mt80 data=DIR …",
            "",
            "Ctrl-C and SIGTERM stop the run at once, without a checkpoint. SIGUSR2, and SIGTERM",
            "in a SLURM job, save a checkpoint first, except during an evaluation. The same",
            "command then resumes the run from its last checkpoint.",
            "Exit code: 0 completed, 1 diverged, 2 invalid input or disk full, 130 stopped.",
            "",
            "Identity of the run:",
            cli.describe_fields(SpecOptions),
            "",
            "Options outside the identity of the run:",
            cli.describe_fields(OfflineOptions),
            "",
            f"Hyperparameters of {method} (part of the run's identity; for multi-task agents the",
            "defaults of task_dim and batch_size are 96 and 1024):",
            cli.describe_fields(agent_class(method).config_class),
        ]
    )


def main(arguments: Sequence[str]) -> int:
    """Run `train.py` with `data=` and return its exit code: 0 completed, 1 diverged."""
    result = run_offline(*parse(arguments))
    if result is None:
        return 0
    print(result.sentence("update"))
    return 1 if result.state == "DIVERGED" else 0
