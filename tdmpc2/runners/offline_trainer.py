"""Learning several tasks from a dataset: updates, evaluation on all tasks, records, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tdmpc2.common.interfaces import Agent
from tdmpc2.common.numerics.distributed import World
from tdmpc2.common.numerics.optim import RunningMeans, all_finite
from tdmpc2.common.numerics.seeding import derive_seed
from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.run_files import RunFiles
from tdmpc2.common.system.errors import DivergedError, StoppedError
from tdmpc2.common.training.callbacks import Callbacks
from tdmpc2.common.training.evaluation import Evaluation, evaluation
from tdmpc2.common.training.loop_requests import Learn, Steps
from tdmpc2.common.training.vector_env import EnvGroup
from tdmpc2.data.offline_replay import OfflineReplay
from tdmpc2.envs.tasks import Task

STOP_EVERY = 10  # updates between the processes' asking each other whether to stop


@dataclass(frozen=True)
class OfflineSchedule:
    """When a run evaluates, writes, saves and ends.

    Attributes:
        num_updates: budget.
        eval_every: updates between evaluations.
        eval_episodes: of each task.
        log_every: updates between lines of `train.csv`.
        checkpoint_seconds: a checkpoint after this long.
    """

    num_updates: int
    eval_every: int
    eval_episodes: int
    log_every: int
    checkpoint_seconds: float


@dataclass
class OfflineProgress:
    """Where a run stands; part of every checkpoint.

    Attributes:
        num_updates: gradient steps so far.
        evaluated_at: update of the last evaluation, −1 before the first.
    """

    num_updates: int = 0
    evaluated_at: int = -1


@dataclass(frozen=True)
class EvalGroup:
    """Environments of tasks with episodes of one length, an environment each.

    Attributes:
        envs: in the shapes of the set of tasks.
        tasks: their places in the set.
    """

    envs: EnvGroup
    tasks: tuple[int, ...]


class OfflineTrainer:
    """Trains one agent on the data of several tasks.

    An update follows the other; between two of them, in this order, an evaluation of all tasks
    runs if one is due, and a checkpoint is saved if one is due. Where several processes train
    the agent, the first evaluates, writes and saves, and the others wait.

    Args:
        agent: acts in evaluations; its updates are asked of whoever runs the loop.
        tasks: of the set, in the order of the agent's task embedding.
        groups: environments for evaluation; none in processes that don't evaluate.
        memory: the data.
        records: the files of the run; None in processes that don't write.
        checkpoints: of the run.
        schedule: when to evaluate, write, save and end.
        seed: of the run.
        world: the processes that train together.
        clock: seconds, for when checkpoints are due.
    """

    def __init__(
        self,
        agent: Agent,
        tasks: Sequence[Task],
        groups: Sequence[EvalGroup],
        memory: OfflineReplay,
        records: RunFiles | None,
        checkpoints: CheckpointStore,
        schedule: OfflineSchedule,
        *,
        seed: int,
        world: World,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.agent, self.tasks, self.groups, self.memory = agent, tasks, groups, memory
        self.records, self.checkpoints, self.schedule = records, checkpoints, schedule
        self.seed, self.world, self.clock = seed, world, clock
        self.callbacks = Callbacks()
        self.progress = OfflineProgress()
        self.metrics = RunningMeans()
        self._last_checkpoint = clock()
        self._started, self._started_at = time.monotonic(), 0

    @property
    def step(self) -> int:
        """Gradient steps so far."""
        return self.progress.num_updates

    @property
    def finished(self) -> bool:
        """Whether the budget is used up."""
        return self.step >= self.schedule.num_updates

    def steps(self) -> Steps[None]:
        """Trains to the end of the budget, by requests to act and to learn.

        Raises:
            DivergedError: NaN or Inf.
            StoppedError: a stop was requested.
        """
        self._last_checkpoint = self.clock()
        while True:
            if self._evaluation_due():
                yield from self._evaluate()
            if self.finished:
                break
            if self._checkpoint_due():
                self.save()
            self._stop_if_asked()
            self.metrics.add((yield Learn(self.replay)))
            self.progress.num_updates += 1
            if self.step % self.schedule.log_every == 0 or self.finished:
                self._record()
        self.save(final=True)
        self.world.wait()

    def _stop_if_asked(self) -> None:
        """Stops all processes at the same update if one of them is asked to."""
        if self.world.size > 1 and self.step % STOP_EVERY:
            return
        at_once = self.callbacks.stop_requested()
        soon = self.callbacks.stop_soon(self.clock())
        most_urgent = self.world.largest(2 * at_once or 1 * soon)
        if most_urgent == 0:
            return
        if most_urgent == 1 and self.step > self._started_at:
            self.save()
        raise StoppedError(f"stopped at update {self.step:,}")

    def _record(self) -> None:
        """One line of `train.csv` and `timing.csv`; refuses to go on after NaN or Inf."""
        means = self.metrics.take()
        seconds = time.monotonic() - self._started
        speed = (self.step - self._started_at) / seconds
        if self.records is not None:
            where = {"num_updates": self.step}
            self.records.csv["train"].append({**where, **means})
            timing = {"seconds": seconds, "updates_per_second": speed}
            self.records.csv["timing"].append({**where, **timing})
        bad = sorted(name for name, value in means.items() if not math.isfinite(value))
        if bad:
            raise DivergedError(f"{', '.join(bad)} not finite at update {self.step:,}")
        figures = {"total_loss": means["total_loss"], "updates_per_second": speed}
        self.callbacks.on_progress(self.step, figures)

    # --- evaluation ------------------------------------------------------------------

    def _evaluation_due(self) -> bool:
        """At the start, at each multiple of `eval_every`, and at the end."""
        last, every = self.progress.evaluated_at, self.schedule.eval_every
        return last < 0 or (self.step > last and (self.step % every == 0 or self.finished))

    def _evaluate(self) -> Steps[None]:
        """A line of `eval.csv` for each task, by the first process, which the others wait for."""
        stopped = False
        if self.world.first:
            try:
                outcomes = yield from self._evaluate_all()
                self._record_evaluation(outcomes)
            except StoppedError:
                stopped = True
        if self.world.largest(stopped):
            raise StoppedError(f"stopped at update {self.step:,}, in an evaluation")
        self.progress.evaluated_at = self.step

    def _evaluate_all(self) -> Steps[list[Evaluation]]:
        """An evaluation of each task, in the order of the set.

        It depends on nothing but the agent's parameters and the seed of the run.
        """
        episodes, done = self.schedule.eval_episodes, 0
        total = episodes * sum(self._length(group) for group in self.groups)
        self.agent.seed_evaluation(derive_seed(self.seed, "evaluation noise", self.step))

        def between() -> None:
            nonlocal done
            if self.callbacks.stop_requested() or self.callbacks.stop_soon(self.clock()):
                raise StoppedError("an evaluation gives way")
            self.callbacks.on_doing("evaluating", done, total)
            done += 1

        rounds: dict[int, list[Evaluation]] = {i: [] for i in range(len(self.tasks))}
        for group in self.groups:
            for episode in range(episodes):
                seeds = [
                    derive_seed(self.seed, "evaluation", self.step, self.tasks[i].name, episode)
                    for i in group.tasks
                ]
                result = yield from evaluation(group.envs, seeds, between, tasks=group.tasks)
                for place, i in enumerate(group.tasks):
                    rounds[i].append(Evaluation(*(x[place : place + 1] for x in _arrays(result))))
        return [
            Evaluation(*map(np.concatenate, zip(*map(_arrays, each), strict=True)))
            for each in rounds.values()
        ]

    def _length(self, group: EvalGroup) -> int:
        return self.tasks[group.tasks[0]].episode_length

    def _record_evaluation(self, outcomes: Sequence[Evaluation]) -> None:
        assert self.records is not None
        scores = {}
        for task, result in zip(self.tasks, outcomes, strict=True):
            row = result.row()
            score = task.normalized_score(result.mean_return, row["episode_success"])
            scores[task.name] = score
            where = {"num_updates": self.step, "task": task.name}
            self.records.csv["eval"].append({**where, **row, "score": score})
        figures = {"eval_score": float(np.mean(list(scores.values())))}
        self.callbacks.on_evaluation(self.step, figures, {**figures, **scores})

    # --- checkpoints -----------------------------------------------------------------

    def _checkpoint_due(self) -> bool:
        if self.step == self._started_at:
            return False  # nothing new since the start
        return self.clock() - self._last_checkpoint >= self.schedule.checkpoint_seconds

    def save(self, *, final: bool = False) -> None:
        """Saves a checkpoint; for the first process only.

        Args:
            final: the run is finished; the checkpoints before are dropped.

        Raises:
            DivergedError: the agent holds NaN or Inf; the checkpoint before stays.
        """
        self._last_checkpoint = self.clock()
        if self.records is None:
            return
        agent = self.agent.state_dict()
        if not all_finite(agent):
            raise DivergedError(f"non-finite parameters at update {self.step:,}")
        state = {
            "agent": agent,
            "progress": dict(vars(self.progress)),
            # Named as in the checkpoints of version 0.4.0.
            "memory": self.replay.state_dict(),
            "metrics": {"sums": dict(self.metrics.sums), "counts": dict(self.metrics.counts)},
            "records": self.records.sizes(),
        }
        self.checkpoints.save(self.step, state, None)
        if final:
            self.checkpoints.forget_history()

    def restore(self, which: str = "latest") -> None:
        """Goes back to a checkpoint, or to the very beginning if there is none.

        Raises:
            UserError: the checkpoint is damaged.
        """
        loaded = self.checkpoints.load(which)
        if loaded is None:
            if self.records is not None:
                self.records.cut_back({})
            return
        state, manifest = loaded
        self.agent.load_state_dict(state["agent"])
        self.replay.load_state_dict(state["memory"])
        self.progress = OfflineProgress(**state["progress"])
        self.metrics = RunningMeans(**state["metrics"])
        self._started_at = self.step
        if self.records is not None:
            self.records.cut_back(state["records"])
            self.checkpoints.continue_from(manifest)


def _arrays(result: Evaluation) -> tuple[np.ndarray, ...]:
    return result.returns, result.successes, result.successes_ever, result.lengths
