"""Online runner: trains one seed, or several seeds as one batch, from `RunSpec` to records."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tdmpc2.common.interfaces import Agent, TaskEnv
from tdmpc2.common.numerics.seeding import derive_seed
from tdmpc2.common.numerics.torch_settings import settings_kept
from tdmpc2.common.numerics.torch_setup import choose_device, torch_as_found
from tdmpc2.common.run.checkpoint_folders import agent_step
from tdmpc2.common.run.resume_checks import RunResult, num_attempts
from tdmpc2.common.run.run_files import read_status
from tdmpc2.common.run.schemas import Manifest
from tdmpc2.common.run.spec import RunOptions, RunSpec
from tdmpc2.common.run.storable import require_storable
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.training.lockstep import RoundClock, lockstep
from tdmpc2.common.training.loop_requests import Steps, serve
from tdmpc2.common.training.trainer import OnlineSchedule, Trainer
from tdmpc2.envs import gymnasium_tasks
from tdmpc2.envs.adapters import ADAPTERS
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.rendering import renderer_in_use
from tdmpc2.envs.task_variants import task_of
from tdmpc2.runners.life_cycle import LocalRun, accelerate, train_together
from tdmpc2.runners.registry import make_agent, make_seed_batch, why_alone
from tdmpc2.runners.setup import (
    check_fits,
    env_arguments,
    env_spec,
    evaluation_workers,
    make_env_group,
    make_replay,
    training_envs,
)

Initial = Callable[[Agent], None]


def run(spec: RunSpec, options: RunOptions) -> RunResult:
    """Train a run to the end of its budget; resume it if it was started before.

    Args:
        spec: run to train.
        options: options that are not part of the run's identity.

    Returns:
        The result of the run. A completed or diverged run is not changed.

    Raises:
        UserError: the run directory belongs to other settings, is in use or is damaged, or other
            input is invalid.
        StoppedError: a stop was requested, e.g. by SIGTERM.
    """
    return run_seeds([spec], options)[0]


def run_seeds(
    specs: Sequence[RunSpec], options: RunOptions, initial: Initial | None = None
) -> list[RunResult]:
    """Train runs that differ only in their seed, all in this process.

    Several runs act and update as one batch (see `tdmpc2.seed_batch`), decision by decision, and
    save checkpoints at the same decisions. Each run has its own run directory. A completed or
    diverged run leaves its place in the batch unused.

    Args:
        specs: runs to train.
        options: options that are not part of the run's identity.
        initial: function that initializes the agent of a run that starts from its beginning, e.g.
            with pretrained weights; see `RunSpec.start`.

    Returns:
        The result of each run.

    Raises:
        UserError: as for `run`, for any of the runs; or the runs have no checkpoint in common.
        StoppedError: a stop was requested, e.g. by SIGTERM.
    """
    if len(specs) > 1:
        _check_same_but_seed(specs)
    device = choose_device(options.device)
    with contextlib.ExitStack() as stack:
        lanes = [_Lane(spec, options, device, len(specs), stack) for spec in specs]
        working = [lane for lane in lanes if lane.settled is None]
        for lane in lanes:
            lane.mirror_settled()
        if working:
            results = _train(lanes, working, options, initial)
            for lane, result in zip(working, results, strict=True):
                lane.settled = result
        return [lane.settled for lane in lanes if lane.settled is not None]


def _train(
    lanes: Sequence[_Lane],
    working: Sequence[_Lane],
    options: RunOptions,
    initial: Initial | None,
) -> list[RunResult]:
    """Train the runs that have work left (`working`) and return the result of each."""
    batched = len(lanes) > 1
    round_clock = RoundClock()
    clock = round_clock if batched else time.monotonic
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch_as_found())
        for lane in working:
            lane.acquire(stack, keep_replay=options.keep_replay)
        for place, lane in enumerate(lanes, 1):
            if lane in working:
                lane.set_up_numerics(
                    renderer=renderer_in_use() if lane.spec.obs == "rgb" else None,
                    seed_batch=f"{place} of {len(lanes)}" if batched else None,
                )
        _check_equal_numerics(working)
        arguments = [env for lane in working for env in lane.env_arguments]
        local_envs = [env for lane in working for env in lane.envs]
        envs = iter(training_envs(local_envs, arguments, working[0].cores))
        for lane in working:
            lane.envs = list(itertools.islice(envs, len(lane.envs)))
            lane.make_trainer(stack, clock, num_runs=len(working))
        for lane, start in zip(working, _starting_points(working, options), strict=True):
            if not lane.trainer.restore(start) and initial is not None:
                initial(lane.agent)
        for lane in working:
            lane.write_spec(keep_replay=options.keep_replay)
        agents = [lane.agent for lane in lanes]
        going = [lane in working and not lane.trainer.finished for lane in lanes]
        seed_batch = make_seed_batch(agents, going) if batched else None
        accelerate(working, seed_batch or agents[0])

        def serve_all(sessions: list[Steps[RunResult]]) -> list[RunResult]:
            if seed_batch is None:
                return [serve(sessions[0], agents[0])]
            loops = dict(zip(working, sessions, strict=True))
            results = lockstep([loops.get(lane) for lane in lanes], seed_batch, round_clock)
            return [result for result in results if result is not None]

        return train_together(working, serve_all)


class _Lane(LocalRun):
    """One of the runs of this process, with all its objects.

    Args:
        spec: run to train.
        options: options that are not part of the run's identity.
        device: device of the networks.
        num_runs: number of runs in this process.
        stack: context at whose end the training environments are closed.

    Raises:
        UserError: the run cannot be started; nothing has been written.
    """

    options: RunOptions

    def __init__(
        self,
        spec: RunSpec,
        options: RunOptions,
        device: torch.device,
        num_runs: int,
        stack: contextlib.ExitStack,
    ) -> None:
        self.envs: list[TaskEnv] = []
        stack.callback(self.close)
        self.task = task_of(spec)
        super().__init__(spec, options, device)
        self.examined = gymnasium_tasks.examine(self.task) if self.settled is None else {}
        self.wanted = env_arguments(spec, render=options.save_video)
        self.env_label = f"task '{self.task.name}': its environment"
        with settings_kept(self.env_label):
            first = make_env(**self.wanted, seed=derive_seed(spec.seed, "environment"))
        self.envs.append(first)
        self.shapes = env_spec(self.task, first, dict(spec.start))
        if not ADAPTERS[self.task.domain].of_this_project:
            require_storable(f"{self.env_label}: generator_state()", first.generator_state())
        to_train = self.settled is None
        self.agent = make_agent(spec, self.shapes, device, to_train=to_train)
        self.replay_place = check_fits(self.agent, self.shapes, spec.budget, device, num_runs)
        for env in self.env_arguments[1:]:
            self.envs.append(make_env(**env))

    def close(self) -> None:
        """Close the training environments."""
        for env in self.envs:
            env.close()

    @property
    def env_arguments(self) -> list[dict[str, Any]]:
        """Arguments of `make_env` for each training environment."""
        labels = [("environment",), *(("environment", i) for i in range(1, self.agent.num_envs))]
        return [{**self.wanted, "seed": derive_seed(self.spec.seed, *label)} for label in labels]

    def make_trainer(
        self, stack: contextlib.ExitStack, clock: Callable[[], float], *, num_runs: int
    ) -> None:
        """Create the evaluation environments, the replay buffer, the records and the trainer.

        Args:
            stack: context at whose end the evaluation environments are closed.
            clock: function that returns seconds; decides when checkpoints are due.
            num_runs: number of runs of this process that have work left.
        """
        options, spec = self.options, self.spec
        self.open_records(domain=self.task.domain, metric=self.task.metric, **self.examined)
        workers = evaluation_workers(options, num_runs, self.cores)
        with settings_kept(self.env_label):
            eval_envs = make_env_group(self.wanted, options.eval_episodes, workers)
        stack.enter_context(contextlib.closing(eval_envs))
        self.trainer = Trainer(
            self.agent,
            self.envs,
            eval_envs,
            make_replay(self.agent, self.shapes, spec.seed, self.replay_place),
            self.records,
            self.store,
            OnlineSchedule(
                budget=spec.budget,
                eval_every=self.fixed["eval_every"],
                checkpoint_seconds=60 * options.checkpoint_minutes,
                keep_replay=options.keep_replay,
            ),
            seed=spec.seed,
            videos=self.directory / "videos" if options.save_video else None,
            clock=clock,
        )


def _check_same_but_seed(specs: Sequence[RunSpec]) -> None:
    """Check that runs can be trained as one batch."""
    first = specs[0]
    if any(dataclasses.replace(spec, seed=first.seed) != first for spec in specs):
        raise ValueError("runs of one process may differ only in their seed")
    reason = why_alone(first)
    if reason is not None:
        raise UserError(reason)


def _check_equal_numerics(lanes: Sequence[_Lane]) -> None:
    """Check that runs have equal numeric paths, e.g. the same number of threads."""
    paths = [{**lane.numeric, "seed_batch": None} for lane in lanes]
    for lane, path in zip(lanes, paths, strict=True):
        names = [key for key in path if path[key] != paths[0].get(key)]
        if names:
            raise UserError(
                f"{lane.directory}: {names[0]} is {path[names[0]]}, but "
                f"{paths[0].get(names[0])} in {lanes[0].directory}, so they cannot share a "
                "process; train the seeds one by one with seed="
            )


def _starting_points(lanes: Sequence[_Lane], options: RunOptions) -> list[str | int | None]:
    """Return the checkpoint from which each run resumes; None for its beginning.

    Several runs resume from the newest checkpoint that all of them have. They save one after the
    other, so a kill may leave one run a checkpoint ahead of the others, or finished. A kill between
    their first checkpoints lets all of them start again.

    Raises:
        UserError: the runs have no checkpoint in common.
    """
    if len(lanes) == 1:
        return [options.checkpoint]
    steps = [[agent_step(path) for path in lane.store.existing()] for lane in lanes]
    ended = [
        bool(s) and s[-1] * lane.envs[0].action_repeat >= lane.spec.budget
        for lane, s in zip(lanes, steps, strict=True)
    ]
    going = [(lane, set(s)) for lane, s, over in zip(lanes, steps, ended, strict=True) if not over]
    common = sorted(set.intersection(*(s for _, s in going))) if going else []
    has_work = not common and any(s for _, s in going)
    if has_work and not _have_just_begun([lane for lane, _ in going]):
        places = ", ".join(
            f"seed {lane.spec.seed}: {max(s, default=0):,}"
            for lane, s in zip(lanes, steps, strict=True)
        )
        raise UserError(
            f"{lanes[0].directory.parent}: the seeds have no checkpoint in common ({places}); "
            "train them one by one with seed= and allow_numeric_change=true"
        )
    if options.checkpoint == "previous" and common:
        if len(common) < 2:
            raise UserError(
                f"{lanes[0].store.folder}: the seeds have only one checkpoint in common; use "
                "checkpoint=latest"
            )
        common = common[:-1]
    start = common[-1] if common else None
    return ["latest" if over else start for over in ended]


def _have_just_begun(lanes: Sequence[_Lane]) -> bool:
    """Return whether runs were begun together and none has gone beyond its first checkpoint."""
    for lane in lanes:
        status = read_status(lane.directory)
        saved = [read_json(path / "manifest.json", Manifest) for path in lane.store.existing()]
        num_saves = sum(len(manifest["shards"]) for manifest in saved if manifest is not None)
        if num_saves > 1 or (status is not None and status["state"] == "COMPLETED"):
            return False
    return len({num_attempts(lane.directory) for lane in lanes}) == 1
