"""The training loop of every method: seeding, updates, evaluation, records, checkpoints."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc2.common.interfaces import Agent, Counters, Event, ReplayBuffer, TaskEnv
from tdmpc2.common.numerics.optim import RunningMeans, all_finite
from tdmpc2.common.numerics.seeding import derive_seed
from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.run_files import RunFiles
from tdmpc2.common.run.video import VideoFile
from tdmpc2.common.system.errors import DivergedError, StoppedError, UserError
from tdmpc2.common.training.callbacks import Callbacks
from tdmpc2.common.training.episode_builder import Play
from tdmpc2.common.training.evaluation import evaluation
from tdmpc2.common.training.loop_requests import Act, Learn, Pause, Steps, serve
from tdmpc2.common.training.vector_env import EnvGroup


@dataclass(frozen=True)
class Schedule:
    """When a run evaluates, saves and ends.

    Attributes:
        env_steps: budget; the run ends at the first episode end at or after it.
        eval_every: env steps between evaluations, each at the first episode end after.
        checkpoint_seconds: a checkpoint at the first episode end after this long.
        keep_replay: whether a finished run keeps its episodes.
    """

    env_steps: int
    eval_every: int
    checkpoint_seconds: float
    keep_replay: bool


@dataclass
class Progress:
    """Where a run stands; part of every checkpoint.

    Attributes:
        decisions: taken so far.
        num_updates: gradient steps so far.
        num_episodes: finished.
        evaluated_at: env step of the last evaluation, −1 before the first.
    """

    decisions: int = 0
    num_updates: int = 0
    num_episodes: int = 0
    evaluated_at: int = -1


class _CutShort(Exception):  # noqa: N818  (no error)
    """An evaluation gives way to a stop."""


class Trainer:
    """Trains one agent in its environments, mostly one.

    Each decision is followed by the updates the agent says are due. Whatever happens at the
    end of an episode happens in this order: the episode enters the replay, `train.csv` gets
    a line, an evaluation runs if one is due, a checkpoint is saved if one is due. A
    checkpoint therefore never lies inside an episode, and holds no half-done work. Several
    environments begin their episodes together; those that end early wait for the others.

    Args:
        agent: the method.
        envs: the training environments, as many as the agent acts in.
        eval_envs: one per evaluation episode.
        videos: folder for a video of each evaluation's first episode; None for none.
        replay: buffer.
        records: the files of the run.
        checkpoints: of the run.
        schedule: when to evaluate, save and end.
        seed: of the run.
        callbacks: to whoever runs it.
        clock: seconds, for when checkpoints are due.
    """

    def __init__(
        self,
        agent: Agent,
        envs: Sequence[TaskEnv],
        eval_envs: EnvGroup,
        replay: ReplayBuffer,
        records: RunFiles,
        checkpoints: CheckpointStore,
        schedule: Schedule,
        *,
        seed: int,
        callbacks: Callbacks | None = None,
        videos: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.agent, self.envs, self.eval_envs, self.replay = agent, envs, eval_envs, replay
        self.records, self.checkpoints, self.schedule = records, checkpoints, schedule
        self.seed, self.videos, self.clock = seed, videos, clock
        self.callbacks = callbacks or Callbacks()
        self.rng = np.random.default_rng(derive_seed(seed, "seeding actions"))
        self.progress = Progress()
        self.metrics = RunningMeans()
        self._started, self._last_checkpoint = time.monotonic(), clock()
        self._started_at = 0

    @property
    def env_step(self) -> int:
        """Control steps so far, action repeat included."""
        return self.progress.decisions * self.envs[0].action_repeat

    step = env_step

    @property
    def finished(self) -> bool:
        """Whether the budget is used up."""
        return self.env_step >= self.schedule.env_steps

    def run(self) -> None:
        """Trains to the end of the budget; see `steps`."""
        serve(self.steps(), self.agent)

    def steps(self) -> Steps[None]:
        """Trains to the end of the budget, by requests to act and to learn.

        Raises:
            DivergedError: NaN or Inf.
            StoppedError: a stop was requested.
        """
        self._last_checkpoint = self.clock()
        while True:
            yield from self._stop_soon()
            if self._evaluation_due():
                try:
                    yield from self._evaluate()
                except _CutShort:
                    continue  # to stop
            if self.finished:
                break
            if self._checkpoint_due():
                self.save()
            yield from self._run_episodes()
        self.save(final=True)

    def _stop_soon(self) -> Steps[None]:
        """Saves and stops, if that has been asked for; for use between episodes.

        An evaluation that was cut short is made anew: nothing of it is part of a checkpoint.
        """
        if not self._must_stop_soon():
            return
        if self.env_step > self._started_at:
            self.save()
        yield Pause()  # until the other runs of this process have saved as well
        raise StoppedError(f"stopped at env step {self.env_step}, between episodes")

    def _must_stop_soon(self) -> bool:
        """Not at the end of the budget: after one more evaluation there is nothing to stop."""
        return not self.finished and self.callbacks.stop_soon(self.clock())

    # --- one episode of each environment ----------------------------------------------

    def _run_episodes(self) -> Steps[None]:
        """Collects one episode of each environment, with the updates that fall into it."""
        plays = [Play(env.reset()[0]) for env in self.envs]
        at_once = self.agent.replay_visibility == "transition"
        while not all(play.done for play in plays):
            self._check_stop()
            actions = yield from self._choose_actions(plays)
            going = [i for i, play in enumerate(plays) if not play.done]
            self.progress.decisions += len(going)
            answers = {i: self.envs[i].begin_step(actions[i]) for i in going}
            # Who learns from finished episodes only learns the same before the step as after
            # it; a GPU, or an environment elsewhere, then works at the same time.
            length = max(len(play) for play in plays) + 1
            if not at_once:
                yield from self._update("decision", length)
            yield Pause()
            for i, answer in answers.items():
                transition = plays[i].add(actions[i], *answer())
                if at_once:
                    self.replay.append(transition, i)
            if at_once:
                yield from self._update("decision", length)
        for place, play in enumerate(plays):
            if at_once:
                self.replay.finish(place)
            else:
                self.replay.add(play.episode())
        self.progress.num_episodes += len(plays)
        yield from self._update("episode_end", length)
        self._record_episodes(plays)

    def _choose_actions(self, plays: Sequence[Play]) -> Steps[list[np.ndarray]]:
        """Uniform random while seeding, the agent's afterwards."""
        if self.progress.decisions <= self.agent.seed_decisions:
            space: Any = self.envs[0].action_space
            return [self.rng.uniform(space.low, space.high).astype(np.float32) for _ in plays]
        obs = np.stack([play.obs for play in plays])
        first = np.array([len(play) == 0 for play in plays])
        actions = yield Act(obs, first, explore=True)
        if not np.isfinite(actions).all():
            raise DivergedError(f"non-finite action at env step {self.env_step}")
        return list(actions)

    def _update(self, event: Event, episode_decisions: int) -> Steps[None]:
        counters = Counters(self.progress.decisions, self.progress.num_updates, episode_decisions)
        due = self.agent.updates_due(event, counters)
        for done in range(due):
            self._check_stop()
            if due > 1:
                self.callbacks.on_doing("learning", done, due)
            self.metrics.add((yield Learn(self.replay)))
            self.progress.num_updates += 1

    def _check_stop(self) -> None:
        if self.callbacks.stop_requested():
            raise StoppedError(f"stopped at env step {self.env_step}")

    def _record_episodes(self, plays: Sequence[Play]) -> None:
        """One line of `train.csv` and `timing.csv`; refuses to go on after NaN or Inf."""
        where = {"env_step": self.env_step, "agent_step": self.progress.decisions}
        episode_return = _mean(play.reward_sum for play in plays)
        row: dict[str, Any] = {
            **where,
            "num_updates": self.progress.num_updates,
            "episode": self.progress.num_episodes,
            "episode_return": episode_return,
            "episode_success": _mean(play.info["success"] for play in plays),
            "episode_success_ever": _mean(play.info["success_ever"] for play in plays),
        }
        speed = (self.env_step - self._started_at) / (time.monotonic() - self._started)
        self.records.csv["timing"].append(
            {**where, "seconds": time.monotonic() - self._started, "env_steps_per_second": speed}
        )
        if self.metrics.counts:
            means = self.metrics.take()
            self.records.csv["train"].append({**row, **means})
            bad = sorted(name for name, value in means.items() if not math.isfinite(value))
            if bad:
                raise DivergedError(f"{', '.join(bad)} not finite at env step {self.env_step}")
        figures = {"train_return": episode_return, "env_steps_per_second": speed}
        self.callbacks.on_progress(self.env_step, figures)

    # --- evaluation ------------------------------------------------------------------

    def _evaluation_due(self) -> bool:
        """At the start, after each multiple of `eval_every`, and at the end."""
        last, every = self.progress.evaluated_at, self.schedule.eval_every
        if last < 0:
            return True
        return self.env_step // every > last // every or (self.finished and last < self.env_step)

    def _evaluate(self) -> Steps[None]:
        """One line of `eval.csv`; every evaluation has seeds of its own.

        It therefore depends on nothing but the agent's parameters, and not on how many
        evaluations came before (one more than planned, if a budget was raised).
        """
        self.agent.seed_evaluation(derive_seed(self.seed, "evaluation noise", self.env_step))
        seeds = [
            derive_seed(self.seed, "evaluation", self.env_step, i)
            for i in range(len(self.eval_envs))
        ]
        done = 0

        def between() -> None:
            nonlocal done
            self._check_stop()
            if self._must_stop_soon():
                raise _CutShort
            self.callbacks.on_doing("evaluating", done, self.envs[0].episode_length)
            done += 1

        with contextlib.ExitStack() as stack:
            film = None
            if self.videos is not None:
                video = VideoFile(self.videos / f"{self.env_step}.mp4")
                film = stack.enter_context(video).add
            result = yield from evaluation(self.eval_envs, seeds, between, film=film)
        where = {"env_step": self.env_step, "agent_step": self.progress.decisions}
        self.records.csv["eval"].append({**where, **result.row()})
        self.progress.evaluated_at = self.env_step
        successes = float(result.successes.mean())
        figures = {"eval_return": result.mean_return, "eval_success": successes}
        self.callbacks.on_evaluation(self.env_step, figures, result.row())

    # --- checkpoints -----------------------------------------------------------------

    def _checkpoint_due(self) -> bool:
        if self.env_step == self._started_at:
            return False  # nothing new since the start
        return self.clock() - self._last_checkpoint >= self.schedule.checkpoint_seconds

    def save(self, *, final: bool = False) -> None:
        """Saves a checkpoint.

        Args:
            final: the run is finished; its episodes are dropped unless they are to be kept.

        Raises:
            DivergedError: the agent holds NaN or Inf; the checkpoint before stays.
        """
        agent = self.agent.state_dict()
        if not all_finite(agent):
            raise DivergedError(f"non-finite parameters at env step {self.env_step}")
        with_replay = not final or self.schedule.keep_replay
        state = {
            "agent": agent,
            "progress": dict(vars(self.progress)),
            "env_generator": self.envs[0].generator_state(),
            "other_env_generators": [env.generator_state() for env in self.envs[1:]],
            "rng": self.rng.bit_generator.state,
            "replay": self.replay.state_dict() if with_replay else None,
            "records": self.records.sizes(),
        }
        self.checkpoints.save(self.progress.decisions, state, self.replay if with_replay else None)
        if final:
            self.checkpoints.forget_history()
        self._last_checkpoint = self.clock()

    def restore(self, which: str | int | None = "latest") -> bool:
        """Goes back to a checkpoint, or to the very beginning if there is none.

        Args:
            which: see `CheckpointStore.load`; None for the beginning.

        Returns:
            Whether there was a checkpoint.

        Raises:
            UserError: the checkpoint is damaged, or holds no episodes to go on with.
        """
        loaded = None if which is None else self.checkpoints.load(which)
        if loaded is None:
            self.checkpoints.clear()
            self.records.cut_back({})
            return False
        state, manifest = loaded
        self.progress = Progress(**state["progress"])
        if state["replay"] is None and not self.finished:
            raise UserError(
                f"{self.checkpoints.folder}: finished at {self.env_step:,} env steps without "
                f"keep_replay=true, so it cannot go on to {self.schedule.env_steps:,}"
            )
        self.agent.load_state_dict(state["agent"])
        generators = [state["env_generator"], *state.get("other_env_generators", [])]
        for env, generator in zip(self.envs, generators, strict=True):
            env.set_generator_state(generator)
        self.rng.bit_generator.state = state["rng"]
        if state["replay"] is not None:
            self.replay.load_state_dict(state["replay"], self.checkpoints.episodes(manifest))
        self.records.cut_back(state["records"])
        self.checkpoints.continue_from(manifest)
        self._started_at = self.env_step
        return True


def _mean(values: Iterable[float]) -> float:
    """Mean over the environments."""
    return float(np.mean(list(values)))
