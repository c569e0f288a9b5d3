"""Evaluation: episodes of a batch of environments, planned together, without exploration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tdmpc2.common.interfaces import TaskEnv
from tdmpc2.common.system.errors import DivergedError
from tdmpc2.common.training.loop_requests import Act, Actor, Pause, Steps, serve
from tdmpc2.common.training.vector_env import EnvGroup, SerialEnvs

NO_PAUSE: Callable[[], None] = lambda: None  # noqa: E731  a constant, not a function of its own


@dataclass(frozen=True)
class Evaluation:
    """Outcome of one evaluation, an entry per episode.

    Attributes:
        returns: sums of rewards.
        successes: success at the last step, 0 or 1: the paper's measure.
        successes_ever: success at any step, 0 or 1: what others report.
        lengths: decisions.
    """

    returns: np.ndarray
    successes: np.ndarray
    successes_ever: np.ndarray
    lengths: np.ndarray

    @property
    def mean_return(self) -> float:
        """Mean return over the episodes."""
        return float(self.returns.mean())

    @property
    def sd_return(self) -> float:
        """Standard deviation of the return over the episodes (n − 1)."""
        return float(self.returns.std(ddof=1)) if len(self.returns) > 1 else 0.0

    def row(self) -> dict[str, float | int]:
        """The columns of `eval.csv` that don't say when."""
        return {
            "episode_return": self.mean_return,
            "episode_return_sd": self.sd_return,
            "episode_success": float(self.successes.mean()),
            "episode_success_ever": float(self.successes_ever.mean()),
            "episode_length": float(self.lengths.mean()),
            "num_episodes": len(self.returns),
        }


def evaluate(
    actor: Actor,
    envs: EnvGroup | Sequence[TaskEnv],
    seeds: Sequence[int],
    between: Callable[[], None] = NO_PAUSE,
    *,
    tasks: Sequence[int] | None = None,
    film: Callable[[np.ndarray], None] | None = None,
) -> Evaluation:
    """Runs an `evaluation` with one actor.

    Args:
        actor: acts with `explore=False`.
        envs: one environment per episode.
        seeds: see `evaluation`.
        between: likewise.
        tasks: likewise.
        film: likewise.

    Raises:
        DivergedError: the actor answers with NaN or Inf.
    """
    group = SerialEnvs(envs) if isinstance(envs, Sequence) else envs
    return serve(evaluation(group, seeds, between, tasks=tasks, film=film), actor)


def evaluation(
    group: EnvGroup,
    seeds: Sequence[int],
    between: Callable[[], None] = NO_PAUSE,
    *,
    tasks: Sequence[int] | None = None,
    film: Callable[[np.ndarray], None] | None = None,
) -> Steps[Evaluation]:
    """Runs one episode in each environment, acting for all of them as one batch.

    Args:
        group: one environment per episode.
        seeds: one per environment.
        between: called before every decision; may raise to stop.
        tasks: task index of each environment, for agents of several tasks.
        film: called with a frame of the first environment after its reset and every decision.

    Raises:
        DivergedError: the actor answers with NaN or Inf.
    """
    num = len(group)
    if len(seeds) != num:
        raise ValueError(f"{len(seeds)} seeds for {num} environments")
    task = None if tasks is None else np.asarray(tasks)
    obs = group.reset(seeds)
    if film is not None:
        film(group.render(0))
    first, running = np.ones(num, dtype=bool), np.ones(num, dtype=bool)
    returns, successes, successes_ever = np.zeros(num), np.zeros(num), np.zeros(num)
    lengths = np.zeros(num, dtype=int)
    while running.any():
        between()
        actions = yield Act(obs, first, explore=False, task=task)
        if not np.isfinite(actions[running]).all():
            raise DivergedError("non-finite action in an evaluation")
        first = np.zeros(num, dtype=bool)
        finish = group.begin_step({int(i): actions[i] for i in np.flatnonzero(running)})
        yield Pause()
        answers = finish()
        for i, answer in answers.items():
            obs[i] = answer.obs
            returns[i] += answer.reward
            lengths[i] += 1
            if answer.done:
                running[i] = False
                successes[i], successes_ever[i] = answer.success, answer.success_ever
        if film is not None and 0 in answers:
            film(group.render(0))
    return Evaluation(returns, successes, successes_ever, lengths)


class UniformPolicy:
    """Uniform random actions: one of the reference scores any learning must leave behind.

    Args:
        action_dim: A.
        seed: of the draws.
    """

    def __init__(self, action_dim: int, seed: int) -> None:
        self.action_dim = action_dim
        self.rng = np.random.default_rng(seed)

    def act(
        self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: np.ndarray | None = None
    ) -> np.ndarray:
        """Actions `(B, A)`."""
        return self.rng.uniform(-1, 1, (len(obs), self.action_dim)).astype(np.float32)


class ZeroPolicy:
    """The zero action: what doing nothing earns.

    Args:
        action_dim: A.
    """

    def __init__(self, action_dim: int) -> None:
        self.action_dim = action_dim

    def act(
        self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: np.ndarray | None = None
    ) -> np.ndarray:
        """Actions `(B, A)`."""
        return np.zeros((len(obs), self.action_dim), dtype=np.float32)
