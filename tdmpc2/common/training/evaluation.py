"""Evaluation without exploration noise: one episode per environment, planned as one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tdmpc2.common.interfaces import TaskEnv
from tdmpc2.common.system.errors import DivergedError
from tdmpc2.common.training.loop_requests import Act, Actor, Pause, Steps, serve
from tdmpc2.common.training.vector_env import EnvGroup, SerialEnvs

NO_PAUSE: Callable[[], None] = lambda: None  # noqa: E731  (a named default value)


@dataclass(frozen=True)
class Evaluation:
    """Result of one evaluation; each array has one entry per episode.

    Attributes:
        returns: undiscounted returns.
        successes: success at the last step, 0 or 1: the metric of the paper.
        successes_ever: success at any step, 0 or 1: the metric that other work reports.
        lengths: episode lengths in decisions.
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
        """Return the columns of `eval.csv` except those for the step."""
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
    """Evaluate one actor; see `evaluation` for evaluations inside a training loop.

    Args:
        actor: agent or policy; it acts with `explore=False`.
        envs: one environment per episode.
        seeds: seed of each environment's reset.
        between: called before every decision; may raise to stop.
        tasks: task index of each environment for multi-task agents.
        film: called with a frame of the first environment after its reset and every decision.

    Raises:
        DivergedError: an action is NaN or Inf.
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
    """Run one episode in each environment; a generator that yields requests for actions.

    The actions of all environments are requested as one batch (see `loop_requests`). The batch
    keeps its size when some episodes have ended; their actions are ignored.

    Args:
        group: one environment per episode.
        seeds: seed of each environment's reset.
        between: called before every decision; may raise to stop.
        tasks: task index of each environment for multi-task agents.
        film: called with a frame of the first environment after its reset and every decision.

    Returns:
        The result of the evaluation.

    Raises:
        DivergedError: an action is NaN or Inf.
        ValueError: the numbers of seeds and environments differ.
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
        results = finish()
        for i, result in results.items():
            obs[i] = result.obs
            returns[i] += result.reward
            lengths[i] += 1
            if result.done:
                running[i] = False
                successes[i], successes_ever[i] = result.success, result.success_ever
        if film is not None and 0 in results:
            film(group.render(0))
    return Evaluation(returns, successes, successes_ever, lengths)


class UniformPolicy:
    """Uniform random actions in [-1, 1]; a baseline score that a trained agent must exceed.

    Args:
        action_dim: action dimension A.
        seed: seed of the random actions.
    """

    def __init__(self, action_dim: int, seed: int) -> None:
        self.action_dim = action_dim
        self.rng = np.random.default_rng(seed)

    def act(
        self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: np.ndarray | None = None
    ) -> np.ndarray:
        """Return actions `(B, A)`.

        Args:
            obs: observations `(B, *obs_shape)`; only B is used.
            first: `(B,)`, True where an episode begins; ignored.
            explore: ignored.
            task: task indices `(B,)`; ignored.
        """
        return self.rng.uniform(-1, 1, (len(obs), self.action_dim)).astype(np.float32)


class ZeroPolicy:
    """Zero actions; a baseline score that a trained agent must exceed.

    Args:
        action_dim: action dimension A.
    """

    def __init__(self, action_dim: int) -> None:
        self.action_dim = action_dim

    def act(
        self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: np.ndarray | None = None
    ) -> np.ndarray:
        """Return actions `(B, A)`.

        Args:
            obs: observations `(B, *obs_shape)`; only B is used.
            first: `(B,)`, True where an episode begins; ignored.
            explore: ignored.
            task: task indices `(B,)`; ignored.
        """
        return np.zeros((len(obs), self.action_dim), dtype=np.float32)
