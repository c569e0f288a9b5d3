"""Training loop of multi-task agents on a dataset: updates, evaluation, records, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tdmpc2.common.interfaces import Agent
from tdmpc2.common.numerics.distributed import World
from tdmpc2.common.numerics.optim import RunningMeans
from tdmpc2.common.numerics.seeding import derive_seed
from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.run_files import RunFiles
from tdmpc2.common.system.errors import StoppedError
from tdmpc2.common.training.evaluation import Evaluation, evaluation
from tdmpc2.common.training.loop import Schedule, TrainingLoop
from tdmpc2.common.training.loop_requests import Learn, Steps
from tdmpc2.common.training.vector_env import EnvGroup
from tdmpc2.data.offline_replay import OfflineReplay
from tdmpc2.envs.tasks import Task

STOP_EVERY = 10  # updates between the exchanges of stop requests among several processes


@dataclass(frozen=True)
class OfflineSchedule(Schedule):
    """Times at which a run evaluates, writes records, saves checkpoints and ends.

    The budget and `eval_every` are in gradient steps.

    Attributes:
        eval_episodes: number of evaluation episodes per task.
        log_every: updates between lines of `train.csv`.
    """

    eval_episodes: int
    log_every: int


@dataclass
class OfflineProgress:
    """Counters of a run; saved in every checkpoint.

    Attributes:
        num_updates: gradient steps so far.
        evaluated_at: update of the last evaluation; −1 before the first.
        rounds: results of the finished rounds of an evaluation in progress, see `_evaluate_all`.
    """

    num_updates: int = 0
    evaluated_at: int = -1
    rounds: tuple[list[list[float]], ...] = ()


@dataclass(frozen=True)
class EvalGroup:
    """Environments of the tasks with the same episode length, one per task.

    Attributes:
        envs: environments with the padded shapes of the task set.
        tasks: indices of their tasks in the task set.
    """

    envs: EnvGroup
    tasks: tuple[int, ...]


class OfflineTrainer(TrainingLoop):
    """Trains one multi-task agent on a dataset.

    Before each update, in this order: evaluate all tasks if due, save a checkpoint if due, stop if
    requested. An evaluation of many tasks may take hours, longer than a job of a cluster. So a
    checkpoint is saved before it if there was an update since the last one, and between its rounds
    if due or if the run is to stop. If several processes train the agent, the first one evaluates,
    writes records and saves, while the others wait.

    Args:
        agent: agent to train. The loop requests its actions and updates (see `loop_requests`).
        tasks: tasks of the set, in the order of the agent's task embedding.
        groups: evaluation environments; empty in processes that do not evaluate.
        replay: the dataset as a replay buffer.
        records: files of the run; None in processes that do not write.
        checkpoints: checkpoints of the run.
        schedule: times of evaluations, records, checkpoints and the end.
        seed: seed of the run.
        world: processes that train together.
        clock: function that returns seconds; decides when checkpoints are due.
    """

    step_name, rate_name = "update", "updates_per_second"
    replaces_checkpoints = True  # saved before, in and after an evaluation
    schedule: OfflineSchedule

    def __init__(
        self,
        agent: Agent,
        tasks: Sequence[Task],
        groups: Sequence[EvalGroup],
        replay: OfflineReplay,
        records: RunFiles | None,
        checkpoints: CheckpointStore,
        schedule: OfflineSchedule,
        *,
        seed: int,
        world: World,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(agent, records, checkpoints, schedule, seed=seed, clock=clock)
        self.tasks, self.groups, self.replay, self.world = tasks, groups, replay, world
        self.progress = OfflineProgress()
        self._saved = dict(vars(self.progress))  # progress at the last checkpoint

    @property
    def step(self) -> int:
        """Gradient steps so far."""
        return self.progress.num_updates

    checkpoint_number = step

    def steps(self) -> Steps[None]:
        """Train to the end of the budget; a generator of requests (see `loop_requests`).

        Raises:
            DivergedError: an action, a metric or a parameter is NaN or Inf.
            StoppedError: a stop was requested.
        """
        self._last_checkpoint = self.clock()
        while True:
            if self._evaluation_due():
                self.save()
                yield from self._evaluate()
            if self.finished:
                break
            if self.checkpoint_due():
                self.save()
            self._stop_if_asked()
            self.metrics.add((yield Learn(self.replay)))
            self.progress.num_updates += 1
            if self.step % self.schedule.log_every == 0 or self.finished:
                self._record()
        self.save(final=True)
        self.world.wait()

    def _stop_if_asked(self) -> None:
        """Stop all processes at the same update if one of them has received a stop request."""
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
        """Write one line of `train.csv` and `timing.csv`; raise `DivergedError` on NaN or Inf."""
        step_columns = {"num_updates": self.step}
        speed = self.record_speed(step_columns)
        means = self.record_training(step_columns)
        self.callbacks.on_progress(self.step, {"total_loss": means["total_loss"], **speed})

    # --- evaluation ------------------------------------------------------------------

    def _evaluation_due(self) -> bool:
        """Return whether to evaluate: at start and end, and at each multiple of `eval_every`."""
        last, every = self.progress.evaluated_at, self.schedule.eval_every
        return last < 0 or (self.step > last and (self.step % every == 0 or self.finished))

    def _evaluate(self) -> Steps[None]:
        """Evaluate in the first process and write one line of `eval.csv` per task; others wait.

        Acting may change the agent, which must stay equal in all processes.
        """
        stopped = False
        if self.world.first:
            try:
                evaluations = yield from self._evaluate_all()
                self._record_evaluation(evaluations)
            except StoppedError:
                stopped = True
        else:
            self.agent.follow_evaluation()
        if self.world.largest(stopped):
            raise StoppedError(f"stopped at update {self.step:,}, in an evaluation")
        self.progress.evaluated_at, self.progress.rounds = self.step, ()

    def _evaluate_all(self) -> Steps[list[Evaluation]]:
        """Return an evaluation of each task, in the order of the set.

        It consists of rounds: one episode of each task of a group. The result of a round depends
        only on the agent's parameters, the seed of the run, the number of updates and the round,
        so that a resumed run goes on after the rounds of its checkpoint.
        """
        episodes = self.schedule.eval_episodes
        rounds = [(group, episode) for group in self.groups for episode in range(episodes)]
        total = sum(self._length(group) for group, _ in rounds)
        done = sum(self._length(group) for group, _ in rounds[: len(self.progress.rounds)])

        def between() -> None:
            nonlocal done
            at_once = self.callbacks.stop_requested()
            if at_once or self.callbacks.stop_soon(self.clock()):
                if not at_once:
                    self.save()
                raise StoppedError("stopped in an evaluation")
            self.callbacks.on_doing("evaluating", done, total)
            done += 1

        for group, episode in rounds[len(self.progress.rounds) :]:
            numbers = (self.step, self._length(group), episode)
            self.agent.seed_evaluation(derive_seed(self.seed, "evaluation noise", *numbers))
            seeds = [
                derive_seed(self.seed, "evaluation", self.step, self.tasks[i].name, episode)
                for i in group.tasks
            ]
            result = yield from evaluation(group.envs, seeds, between, tasks=group.tasks)
            self.progress.rounds += ([x.tolist() for x in _arrays(result)],)
            if self.checkpoint_due():
                self.save()
        per_task: dict[int, list[list[float]]] = {i: [] for i in range(len(self.tasks))}
        for (group, _), columns in zip(rounds, self.progress.rounds, strict=True):
            for i, *episode_of_task in zip(group.tasks, *columns, strict=True):
                per_task[i].append(episode_of_task)
        return [
            Evaluation(*map(np.array, zip(*results, strict=True))) for results in per_task.values()
        ]

    def _length(self, group: EvalGroup) -> int:
        return self.tasks[group.tasks[0]].episode_length

    def _record_evaluation(self, evaluations: Sequence[Evaluation]) -> None:
        assert self.records is not None
        scores = {}
        for task, result in zip(self.tasks, evaluations, strict=True):
            row = result.row()
            score = task.normalized_score(result.mean_return, row["episode_success"])
            scores[task.name] = score
            step_columns: dict[str, int | str] = {"num_updates": self.step, "task": task.name}
            self.records.csv["eval"].append({**step_columns, **row, "score": score})
        figures = {"eval_score": float(np.mean(list(scores.values())))}
        self.callbacks.on_evaluation(self.step, figures, {**figures, **scores})

    # --- checkpoints -----------------------------------------------------------------

    def checkpoint_due(self) -> bool:
        """Return whether to save a checkpoint."""
        return self.clock() - self._last_checkpoint >= self.schedule.checkpoint_seconds

    def save(self, *, final: bool = False) -> None:
        """Save a checkpoint, see `TrainingLoop.save`, if anything was done since the last one."""
        if final or self._saved != vars(self.progress):
            super().save(final=final)
            self._saved = dict(vars(self.progress))

    def state(self, *, final: bool) -> tuple[dict[str, Any], None]:
        """Return the state for a checkpoint; the episodes stay in the dataset."""
        sums = {name: value.clone() for name, value in self.metrics.sums.items()}
        # `memory` is the key of version 0.4.0, so that its checkpoints can be read.
        state = {
            "progress": dict(vars(self.progress)),
            "memory": self.replay.state_dict(),
            "metrics": {"sums": sums, "counts": dict(self.metrics.counts)},
        }
        return state, None

    def load_state(self, state: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.replay.load_state_dict(state["memory"])
        self.progress = OfflineProgress(**state["progress"])
        device = self.agent.accelerable().device
        sums = {name: value.to(device) for name, value in state["metrics"]["sums"].items()}
        self.metrics = RunningMeans(sums, dict(state["metrics"]["counts"]))
        self._saved = dict(vars(self.progress))


def _arrays(result: Evaluation) -> tuple[np.ndarray, ...]:
    return result.returns, result.successes, result.successes_ever, result.lengths
