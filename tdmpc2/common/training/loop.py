"""Base of the online and the offline training loop: due times, records and checkpoints."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tdmpc2.common.interfaces import Agent, ReplayBuffer
from tdmpc2.common.numerics.optim import RunningMeans, all_finite
from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.run_files import RunFiles
from tdmpc2.common.system.errors import DivergedError, UserError
from tdmpc2.common.training.callbacks import Callbacks
from tdmpc2.common.training.loop_requests import Steps


@dataclass(frozen=True)
class Schedule:
    """Times at which a run evaluates, saves checkpoints and ends.

    Attributes:
        budget: length of the run, in env steps or gradient steps.
        eval_every: steps between evaluations, in the same unit.
        checkpoint_seconds: seconds between checkpoints.
    """

    budget: int
    eval_every: int
    checkpoint_seconds: float


class TrainingLoop(ABC):
    """A training loop with records and checkpoints; subclasses define its steps.

    Args:
        agent: agent to train. The loop requests its actions and updates (see `loop_requests`).
        records: files of the run; None in processes that do not write.
        checkpoints: checkpoints of the run.
        schedule: times of evaluations, checkpoints and the end.
        seed: seed of the run.
        clock: function that returns seconds; decides when checkpoints are due.

    Attributes:
        callbacks: stop requests and progress reports; the session sets them.
        metrics: means of the updates' metrics since the last line of `train.csv`.
    """

    step_name: ClassVar[str]  # name of one step in messages
    rate_name: ClassVar[str]  # name of the steps per second in records
    # Whether the state may change between two checkpoints of one step.
    replaces_checkpoints: ClassVar[bool] = False

    def __init__(
        self,
        agent: Agent,
        records: RunFiles | None,
        checkpoints: CheckpointStore,
        schedule: Schedule,
        *,
        seed: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.agent, self.records, self.checkpoints = agent, records, checkpoints
        self.schedule, self.seed, self.clock = schedule, seed, clock
        self.callbacks = Callbacks()
        self.metrics = RunningMeans()
        self._started, self._last_checkpoint = time.monotonic(), clock()
        self._started_at = 0

    @property
    @abstractmethod
    def step(self) -> int:
        """Progress in the unit of the budget."""

    @property
    @abstractmethod
    def checkpoint_number(self) -> int:
        """Number under which the next checkpoint is saved."""

    @abstractmethod
    def steps(self) -> Steps[None]:
        """Train to the end of the budget; a generator of requests (see `loop_requests`).

        Raises:
            DivergedError: an action, a metric or a parameter is NaN or Inf.
            StoppedError: a stop was requested.
        """

    @abstractmethod
    def state(self, *, final: bool) -> tuple[dict[str, Any], ReplayBuffer | None]:
        """Return the state of the loop for a checkpoint, and the buffer whose episodes it needs.

        Agent and records are not part of this state.

        Args:
            final: whether the run is finished.
        """

    @abstractmethod
    def load_state(self, state: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        """Restore what `state` returned.

        Args:
            state: contents of the checkpoint.
            manifest: list of the checkpoint's files.

        Raises:
            UserError: the run cannot continue from this state.
        """

    @property
    def finished(self) -> bool:
        """Whether the budget is used up."""
        return self.step >= self.schedule.budget

    # --- records ---------------------------------------------------------------------

    def record_speed(self, step_columns: Mapping[str, int]) -> dict[str, float]:
        """Write one line of `timing.csv` and return the steps per second since the start."""
        seconds = time.monotonic() - self._started
        speed = {self.rate_name: (self.step - self._started_at) / seconds}
        if self.records is not None:
            self.records.csv["timing"].append({**step_columns, "seconds": seconds, **speed})
        return speed

    def record_training(self, columns: Mapping[str, Any]) -> dict[str, float]:
        """Write one line of `train.csv`: the columns, and the metrics' means, which it returns.

        Raises:
            DivergedError: a mean is NaN or Inf.
            UserError: a metric has the name of a column.
        """
        means = self.metrics.take()
        for name in means.keys() & columns.keys():
            raise UserError(
                f"metric {name}: train.csv has a column of this name; rename the metric"
            )
        if self.records is not None:
            self.records.csv["train"].append({**columns, **means})
        bad = sorted(name for name, value in means.items() if not math.isfinite(value))
        if bad:
            raise DivergedError(f"{', '.join(bad)} not finite at {self.step_name} {self.step:,}")
        return means

    # --- checkpoints -----------------------------------------------------------------

    def checkpoint_due(self) -> bool:
        """Return whether to save a checkpoint; never before the first step of this attempt."""
        if self.step == self._started_at:
            return False
        return self.clock() - self._last_checkpoint >= self.schedule.checkpoint_seconds

    def save(self, *, final: bool = False) -> None:
        """Save a checkpoint, in the process that writes the records.

        Args:
            final: whether the run is finished; earlier checkpoints are then removed.

        Raises:
            DivergedError: a parameter is NaN or Inf; the previous checkpoint is kept.
        """
        if self.records is not None:
            agent = self.agent.state_dict()
            if not all_finite(agent):
                raise DivergedError(f"non-finite parameters at {self.step_name} {self.step:,}")
            own, replay = self.state(final=final)
            state = {"agent": agent, **own, "records": self.records.marks()}
            number, replace = self.checkpoint_number, self.replaces_checkpoints
            self.checkpoints.save(number, state, replay, replace=replace)
            if final:
                self.checkpoints.forget_history()
        self._last_checkpoint = self.clock()

    def restore(self, which: str | int | None = "latest") -> bool:
        """Restore a checkpoint, or reset the records to the beginning if there is none.

        Records and checkpoints after the restored one are removed; the work is redone.

        Args:
            which: checkpoint to restore, see `CheckpointStore.load`; None for the beginning.

        Returns:
            Whether a checkpoint was restored.

        Raises:
            UserError: the checkpoint is damaged, or the run cannot continue from it.
        """
        loaded = None if which is None else self.checkpoints.load(which)
        if loaded is None:
            if self.records is not None:
                self.checkpoints.clear()
                self.records.cut_back({})
            return False
        state, manifest = loaded
        self.load_state(state, manifest)
        self.agent.load_state_dict(state["agent"])
        if self.records is not None:
            self.records.cut_back(state["records"])
            self.checkpoints.continue_from(manifest)
        self._started_at = self.step
        return True
