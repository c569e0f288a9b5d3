"""Online training loop of every method: seeding, updates, evaluation, records, checkpoints."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc2.common.interfaces import Agent, Counters, Event, ReplayBuffer, TaskEnv
from tdmpc2.common.numerics.seeding import derive_seed
from tdmpc2.common.numerics.torch_settings import require_unchanged, torch_settings
from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.run_files import RunFiles
from tdmpc2.common.run.video import VideoFile
from tdmpc2.common.system.errors import DivergedError, StoppedError, UserError
from tdmpc2.common.training.callbacks import Callbacks
from tdmpc2.common.training.episode_builder import Play
from tdmpc2.common.training.evaluation import evaluation
from tdmpc2.common.training.loop import Schedule, TrainingLoop
from tdmpc2.common.training.loop_requests import Act, Learn, Pause, Steps, serve
from tdmpc2.common.training.vector_env import EnvGroup


@dataclass(frozen=True)
class OnlineSchedule(Schedule):
    """Times at which an online run evaluates, saves checkpoints and ends.

    The budget and `eval_every` are in env steps. The run ends at the first end of an episode at or
    after its budget, an evaluation takes place at the first end of an episode at or after each
    multiple of `eval_every`, and a checkpoint is saved at the next end of an episode.

    Attributes:
        keep_replay: whether a finished run keeps its episodes.
    """

    keep_replay: bool


@dataclass
class Progress:
    """Counters of a run; saved in every checkpoint.

    Attributes:
        decisions: decisions (agent steps) so far.
        num_updates: gradient steps so far.
        num_episodes: finished episodes.
        evaluated_at: env step of the last evaluation; −1 before the first.
    """

    decisions: int = 0
    num_updates: int = 0
    num_episodes: int = 0
    evaluated_at: int = -1


class _EvaluationStopped(Exception):  # noqa: N818  (not an error)
    """Ends an evaluation because the run is to save and stop."""


class Trainer(TrainingLoop):
    """Trains one agent online in one or more environments.

    Each decision (with several environments, one of each) is followed by the gradient steps that
    `agent.updates_due` returns. The steps at the end of an episode are, in this order: add the
    episode to the replay buffer, write a line of `train.csv`, evaluate if due, save a checkpoint if
    due. Checkpoints are therefore saved between episodes only. Several environments begin their
    episodes together; those whose episodes end early wait for the others.

    Args:
        agent: agent to train.
        envs: training environments; as many as `agent.num_envs`.
        eval_envs: evaluation environments, one per episode.
        videos: folder for a video of the first episode of each evaluation; None for no videos.
        replay: replay buffer.
        records: files of the run.
        checkpoints: checkpoints of the run.
        schedule: times of evaluations, checkpoints and the end.
        seed: seed of the run.
        callbacks: stop requests and progress reports.
        clock: function that returns seconds; decides when checkpoints are due.
    """

    step_name, rate_name = "env step", "env_steps_per_second"
    schedule: OnlineSchedule
    records: RunFiles

    def __init__(
        self,
        agent: Agent,
        envs: Sequence[TaskEnv],
        eval_envs: EnvGroup,
        replay: ReplayBuffer,
        records: RunFiles,
        checkpoints: CheckpointStore,
        schedule: OnlineSchedule,
        *,
        seed: int,
        callbacks: Callbacks | None = None,
        videos: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(agent, records, checkpoints, schedule, seed=seed, clock=clock)
        self.envs, self.eval_envs, self.replay, self.videos = envs, eval_envs, replay, videos
        self.callbacks = callbacks or self.callbacks
        self.rng = np.random.default_rng(derive_seed(seed, "seeding actions"))
        self.progress = Progress()
        self._unsaved_rows = 0  # of each environment in the replay buffer
        self._settings = torch_settings()

    @property
    def env_step(self) -> int:
        """Env steps so far: control steps, action repeat included."""
        return self.progress.decisions * self.envs[0].action_repeat

    step = env_step

    @property
    def checkpoint_number(self) -> int:
        """Decisions so far, which name the checkpoint."""
        return self.progress.decisions

    def run(self) -> None:
        """Train to the end of the budget; see `steps`."""
        serve(self.steps(), self.agent)

    def steps(self) -> Steps[None]:
        """Train to the end of the budget; a generator of requests (see `loop_requests`).

        Raises:
            DivergedError: an action, a metric or a parameter is NaN or Inf.
            StoppedError: a stop was requested.
            UserError: code of the user has changed a setting of torch.
        """
        self._last_checkpoint = self.clock()
        while True:
            self._check_settings()
            yield from self._stop_soon()
            if self._evaluation_due():
                try:
                    yield from self._evaluate()
                except _EvaluationStopped:
                    continue  # saves and stops at the top of the loop
            if self.finished:
                break
            if self.checkpoint_due():
                self.save()
            yield from self._run_episodes()
        self.save(final=True)

    def _stop_soon(self) -> Steps[None]:
        """Save a checkpoint and stop, if requested; to be called between episodes.

        An evaluation that was stopped leaves no trace in the checkpoint; it is repeated on resume.
        """
        if not self._must_stop_soon():
            return
        if self.env_step > self._started_at:
            self.save()
        yield Pause()  # lets the other runs of this process save as well
        raise StoppedError(f"stopped at env step {self.env_step}, between episodes")

    def _must_stop_soon(self) -> bool:
        """Return whether to save and stop.

        At the end of the budget the answer is no: only the last evaluation is left to do.
        """
        return not self.finished and self.callbacks.stop_soon(self.clock())

    # --- one episode of each environment ----------------------------------------------

    def _run_episodes(self) -> Steps[None]:
        """Run one episode of each environment, with the updates that are due."""
        plays = [Play(env.reset()[0]) for env in self.envs]
        store_transitions = self.agent.replay_visibility == "transition"
        while not all(play.done for play in plays):
            self._check_stop()
            actions = yield from self._choose_actions(plays)
            running = [i for i, play in enumerate(plays) if not play.done]
            self.progress.decisions += len(running)
            pending = {i: self.envs[i].begin_step(actions[i].copy()) for i in running}
            # Agents that learn from finished episodes only can update before the step is done,
            # with the same result: environments in other processes then work in parallel.
            length = max(len(play) for play in plays) + 1
            if not store_transitions:
                yield from self._update("decision", length, len(running))
            yield Pause()
            for i, finish in pending.items():
                transition = plays[i].add(actions[i], *finish())
                if store_transitions:
                    self.replay.append(transition, i)
            if store_transitions:
                yield from self._update("decision", length, len(running))
        for place, play in enumerate(plays):
            if store_transitions:
                self.replay.finish(place)
            else:
                self.replay.add(play.episode())
        self.progress.num_episodes += len(plays)
        self._unsaved_rows += length + 1
        yield from self._update("episode_end", length, sum(map(len, plays)))
        self._record_episodes(plays)

    def _choose_actions(self, plays: Sequence[Play]) -> Steps[list[np.ndarray]]:
        """Return uniform random actions while seeding, unless the agent does that, else its own."""
        seeding = self.progress.decisions < self.agent.seed_decisions
        if seeding and not self.agent.seed_with_agent:
            space: Any = self.envs[0].action_space
            return [self.rng.uniform(space.low, space.high).astype(np.float32) for _ in plays]
        obs = np.stack([play.obs for play in plays])
        first = np.array([len(play) == 0 for play in plays])
        actions = yield Act(obs, first, explore=True)
        if not np.isfinite(actions).all():
            raise DivergedError(f"non-finite action at env step {self.env_step}")
        return list(actions)

    def _update(self, event: Event, episode_decisions: int, new_decisions: int) -> Steps[None]:
        progress = self.progress
        counters = Counters(
            progress.decisions, progress.num_updates, episode_decisions, new_decisions
        )
        due = self.agent.updates_due(event, counters)
        for done in range(due):
            self._check_stop()
            if due > 1:
                self.callbacks.on_doing("learning", done, due)
            self.metrics.add((yield Learn(self.replay)))
            self.progress.num_updates += 1

    def _check_settings(self) -> None:
        require_unchanged(self._settings, "the environment or the method")

    def _check_stop(self) -> None:
        if self.callbacks.stop_requested():
            raise StoppedError(f"stopped at env step {self.env_step}")

    def _record_episodes(self, plays: Sequence[Play]) -> None:
        """Write one line of `train.csv` and `timing.csv`; raise `DivergedError` on NaN or Inf."""
        step_columns = {"env_step": self.env_step, "agent_step": self.progress.decisions}
        episode_return = _mean(play.reward_sum for play in plays)
        row: dict[str, Any] = {
            **step_columns,
            "num_updates": self.progress.num_updates,
            "episode": self.progress.num_episodes,
            "episode_return": episode_return,
            "episode_success": _mean(play.info["success"] for play in plays),
            "episode_success_ever": _mean(play.info["success_ever"] for play in plays),
        }
        speed = self.record_speed(step_columns)
        if self.metrics.counts:
            self.record_training(row)
        figures = {"train_return": episode_return, **speed}
        self.callbacks.on_progress(self.env_step, figures)

    # --- evaluation ------------------------------------------------------------------

    def _evaluation_due(self) -> bool:
        """Return whether to evaluate: at start and end, and after each multiple of `eval_every`."""
        last, every = self.progress.evaluated_at, self.schedule.eval_every
        if last < 0:
            return True
        return self.env_step // every > last // every or (self.finished and last < self.env_step)

    def _evaluate(self) -> Steps[None]:
        """Evaluate the agent and write one line of `eval.csv`.

        The seeds are derived from the run's seed and the env step. An evaluation therefore does
        not depend on the number of earlier ones (one more than planned if a budget was raised).
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
                raise _EvaluationStopped
            self.callbacks.on_doing("evaluating", done, self.envs[0].episode_length)
            done += 1

        with contextlib.ExitStack() as stack:
            film = None
            if self.videos is not None:
                video = VideoFile(self.videos / f"{self.env_step}.mp4")
                film = stack.enter_context(video).add
            result = yield from evaluation(self.eval_envs, seeds, between, film=film)
        self._check_settings()
        step_columns = {"env_step": self.env_step, "agent_step": self.progress.decisions}
        self.records.csv["eval"].append({**step_columns, **result.row()})
        self.progress.evaluated_at = self.env_step
        successes = float(result.successes.mean())
        figures = {"eval_return": result.mean_return, "eval_success": successes}
        self.callbacks.on_evaluation(self.env_step, figures, result.row())

    # --- checkpoints -----------------------------------------------------------------

    def checkpoint_due(self) -> bool:
        """Return whether to save a checkpoint.

        With `keep_replay`, also if the next episodes could remove unsaved ones from the buffer.
        """
        if super().checkpoint_due():
            return True
        if not self.schedule.keep_replay or not self._unsaved_rows:
            return False
        rows = len(self.envs) * (self._unsaved_rows + self.envs[0].episode_length + 1)
        return rows > self.replay.capacity

    def save(self, *, final: bool = False) -> None:
        """Save a checkpoint, see `TrainingLoop.save`."""
        super().save(final=final)
        self._unsaved_rows = 0

    def state(self, *, final: bool) -> tuple[dict[str, Any], ReplayBuffer | None]:
        """Return the state for a checkpoint; that of a finished run has no episodes.

        Args:
            final: whether the run is finished; its episodes are kept if `schedule.keep_replay`.
        """
        replay = self.replay if self.schedule.keep_replay or not final else None
        state = {
            "progress": dict(vars(self.progress)),
            "env_generator": self.envs[0].generator_state(),
            "other_env_generators": [env.generator_state() for env in self.envs[1:]],
            "rng": self.rng.bit_generator.state,
            "replay": None if replay is None else replay.state_dict(),
        }
        return state, replay

    def load_state(self, state: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        """Restore what `state` returned.

        Args:
            state: contents of the checkpoint.
            manifest: list of the checkpoint's files.

        Raises:
            UserError: a finished run without `keep_replay` is to be continued.
        """
        self.progress = Progress(**state["progress"])
        if state["replay"] is None and not self.finished:
            raise UserError(
                f"{self.checkpoints.folder}: finished at {self.env_step:,} env steps without "
                f"keep_replay=true, so it cannot continue to {self.schedule.budget:,}; use "
                "another folder with runs= to start again"
            )
        generators = [state["env_generator"], *state.get("other_env_generators", [])]
        for env, generator in zip(self.envs, generators, strict=True):
            env.set_generator_state(generator)
        self.rng.bit_generator.state = state["rng"]
        if state["replay"] is not None:
            self.replay.load_state_dict(state["replay"], self.checkpoints.episodes(manifest))


def _mean(values: Iterable[float]) -> float:
    """Return the mean over the environments."""
    return float(np.mean(list(values)))
