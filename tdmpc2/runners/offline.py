"""Runs of learning several tasks from a dataset, from their settings to their records."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

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
from tdmpc2.common.system.errors import StoppedError, UserError
from tdmpc2.common.training.loop_requests import serve
from tdmpc2.common.training.session import session, stop_on_signals
from tdmpc2.data.dataset import Dataset
from tdmpc2.data.offline_replay import OfflineReplay
from tdmpc2.envs.multitask import multitask_spec
from tdmpc2.envs.physics import Physics
from tdmpc2.envs.task_variants import with_switches
from tdmpc2.envs.tasks import Task, get_task
from tdmpc2.runners.offline_trainer import EvalGroup, OfflineSchedule, OfflineTrainer
from tdmpc2.runners.registry import (
    MULTITASK_METHODS,
    OFFLINE_UPDATES,
    agent_class,
    make_agent,
    make_offline_spec,
)
from tdmpc2.runners.setup import evaluation_workers, make_env_groups
from tdmpc2.sharded_update import SplitUpdate

EVAL_EVERY = 100_000
SPEC_OPTIONS: dict[str, Any] = {
    "method": str,
    "task": str,
    "seed": int,
    "num_updates": int,
    "variant": str | None,
    "physics": Physics,
}
SCHEDULES_OVER = 1 << 60  # decisions after which all that anneals over decisions has done so


def run_offline(spec: RunSpec, options: OfflineOptions, dataset: Dataset) -> RunResult | None:
    """Trains a run to the end of its budget, resuming it where it stands.

    Started by `torchrun`, several processes train it together, each on its share of every batch.

    Args:
        spec: what to run, see `make_offline_spec`.
        options: how.
        dataset: what it learns from.

    Returns:
        How it ended; None in all processes but the first.

    Raises:
        UserError: a run directory of other settings, in use, or damaged; other bad input.
        StoppedError: it was asked to stop.
    """
    settled = existing_outcome(spec.run_dir(options.runs), spec, _fixed(options), options)
    device = own_device(choose_device(options.device))
    with join_world(device) as world:
        if settled is not None:
            return settled if world.first else None
        run = _OfflineRun(spec, options, dataset, device, world)
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch_as_found())
            return run.as_first(stack) if world.first else run.as_another()


def _fixed(options: OfflineOptions) -> dict[str, Any]:
    """Options that a run keeps from its beginning on."""
    return {
        "eval_every": options.eval_every or EVAL_EVERY,
        "eval_episodes": options.eval_episodes,
        "log_every": options.log_every,
    }


class _OfflineRun:
    """One run as this process sees it."""

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
        """What learns: the agent, or its updates in parts."""
        parts = self.options.accumulate
        if parts == 1 and self.world.size == 1:
            return self.agent
        if self.spec.method != "tdmpc2":
            raise UserError(
                f"method={self.spec.method}: its batches cannot be divided; leave out accumulate= "
                "and use one process"
            )
        return SplitUpdate(self.agent, self.world, parts)

    @property
    def split(self) -> str | None:
        """How batches are divided, for the numeric path."""
        parts, processes = self.options.accumulate, self.world.size
        return None if parts == processes == 1 else f"{processes} processes x {parts} parts"

    def as_first(self, stack: contextlib.ExitStack) -> RunResult:
        """Trains, evaluates, writes and saves."""
        options, spec = self.options, self.spec
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            text = f"{self.directory}: cannot be made ({error.strerror}); use runs="
            raise UserError(text) from None
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
            split=self.split,
        )
        attempt = register_attempt(self.directory, allow_change=options.allow_commit_change)
        facts: dict[str, Any] = {"domain": "multitask", "metric": "score"}
        facts["model_size"] = self.agent.config.model_size
        learned = [p for p in self.agent.model.parameters() if p.requires_grad]
        facts["num_parameters"] = sum(p.numel() for p in learned)
        records = RunFiles(self.directory, spec, facts)
        seed_globals(spec.seed)
        groups = eval_groups(self.tasks, self.shapes, evaluation_workers(options))
        for group in groups:
            stack.enter_context(contextlib.closing(group.envs))
        trainer = self._trainer(groups, records, checkpoints)
        trainer.restore(options.checkpoint)
        named = {"dataset_name": self.dataset.name}
        records.write_spec({**named, **self.fixed, "commit": attempt["commit"]})
        self.world.wait()  # for the others, which read what has just been checked
        if numeric["compile"]:
            self.agent.compile(lambda: record_failed_compilation(numeric_file))

        def body(tracker: Tracker) -> RunResult:
            seed_globals(spec.seed)  # Sacred seeds them too; ours comes last
            with stop_on_signals() as stop:
                steps = session(trainer, records, tracker, lease, options, stop)
                return serve(steps, self.actor)

        config = {**dataclasses.asdict(spec), "overrides": dict(spec.overrides)}
        info = {"attempt": attempt, "numeric": numeric}
        folder, interrupts = self.directory / "sacred", (StoppedError,)
        return track(folder, spec.method, config, info, body, interrupts=interrupts)

    def as_another(self) -> None:
        """Computes this process's share, and leaves all else to the first."""
        self.world.wait()
        recorded = read_json(self.directory / "numeric.json")
        threads, compiled = recorded["threads"], bool(recorded["compile"])
        path = numeric_path(self.device, threads, compiled=compiled, precision=self.precision)
        set_up_torch(path)
        seed_globals(self.spec.seed)
        trainer = self._trainer([], None, CheckpointStore(self.directory))
        trainer.restore(self.options.checkpoint)
        if compiled:
            self.agent.compile()
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
    """An environment of each task of a set, those with episodes of one length together."""
    lengths = sorted({task.episode_length for task in tasks})
    places = [
        tuple(i for i, task in enumerate(tasks) if task.episode_length == length)
        for length in lengths
    ]
    wanted = [[{"task": tasks[i], "padded_to": shapes} for i in members] for members in places]
    envs = make_env_groups(wanted, workers)
    return [EvalGroup(group, members) for group, members in zip(envs, places, strict=True)]


def is_meant(arguments: Sequence[str]) -> bool:
    """Whether the arguments of the train command ask for such a run."""
    return not {"data", "num_updates"}.isdisjoint(cli.split_arguments(arguments))


def parse(arguments: Sequence[str]) -> tuple[RunSpec, OfflineOptions, Dataset]:
    """Turns `key=value` arguments into what to run and how.

    Raises:
        UserError: unknown key, task or method, or a value out of range; no such dataset.
    """
    pairs = cli.split_arguments(arguments)
    method = pairs.get("method", "tdmpc2")
    config_schema = cli.schema_of(agent_class(method).config_class)
    options_schema = cli.schema_of(OfflineOptions)
    values = cli.parse_arguments(arguments, {**SPEC_OPTIONS, **options_schema, **config_schema})
    if "task" not in values:
        raise UserError("task= is missing, e.g. task=mt30")
    options = OfflineOptions(**{k: values[k] for k in options_schema if k in values})
    if options.data is None:
        raise UserError("data= is missing: the folder of a dataset (python -m tdmpc2.data --help)")
    dataset = Dataset.open(options.data)
    spec = make_offline_spec(
        method,
        values["task"],
        values.get("seed", 1),
        dataset.checksum,
        num_updates=values.get("num_updates", OFFLINE_UPDATES),
        variant=values.get("variant"),
        overrides={k: values[k] for k in config_schema if k in values},
        physics=values.get("physics", "paper"),
    )
    dataset.require(spec.tasks)
    return spec, options, dataset


def usage(method: str) -> str:
    """Text of `--help`."""
    return "\n".join(
        [
            "usage: python tdmpc2/train.py task=TASKS data=DIR [key=value …]",
            "",
            "Trains one agent on the data of several tasks, without acting in them but to",
            "evaluate it. The same command again resumes an unfinished run and skips a finished",
            "one; a larger num_updates= goes on with it. On several GPUs:",
            "  torchrun --nproc-per-node=4 tdmpc2/train.py task=mt80 data=DIR …",
            "",
            "What to run:",
            "  task=                                      mt30, mt80, another suite, or several",
            "                                             tasks by commas",
            f"  method=tdmpc2                              {' | '.join(MULTITASK_METHODS)}",
            "  seed=1                                     of everything random",
            f"  num_updates={OFFLINE_UPDATES:<31,}budget",
            "  variant=                                   name of these settings; default: derived",
            "  physics=paper                              of evaluations: paper | simulator",
            "",
            "How (no influence on results, but for round-off):",
            cli.describe_fields(OfflineOptions),
            "",
            f"Settings of {method} (each is part of the run's identity; with several tasks",
            "task_dim is 96 and batch_size 1024 unless given):",
            cli.describe_fields(agent_class(method).config_class),
        ]
    )


def main(arguments: Sequence[str]) -> int:
    """`train.py` with `data=`; returns its exit code."""
    record = run_offline(*parse(arguments))
    if record is None:
        return 0
    print(record.sentence("update"))
    return 1 if record.state == "DIVERGED" else 0
