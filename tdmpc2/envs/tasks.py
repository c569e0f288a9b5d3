"""The task table: ids, dimensions, budgets and metrics, and the suites that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tdmpc2.common.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Task:
    """One task and the facts about it that no method decides.

    Attributes:
        name: the suite's name of the task, as in the released curves.
        domain: the adapter that makes it.
        env_id: the simulator's name of it.
        obs_dim: length of the state observation.
        action_dim: length of the action.
        action_repeat: control steps per decision.
        episode_length: time limit, in decisions.
        env_steps: training budget, in control steps (decisions * action_repeat).
        eval_every: distance of evaluations, in control steps.
        metric: what scores report: the episode's return or its success.
        paper_name: title in the paper's figures where `title` does not follow from `name`.
        episodic: whether episodes can end before their time limit.
        tags: the suites it belongs to.
    """

    name: str
    domain: str
    env_id: str
    obs_dim: int
    action_dim: int
    action_repeat: int
    episode_length: int
    env_steps: int
    eval_every: int
    metric: Literal["return", "success"]
    paper_name: str | None = None
    episodic: bool = False
    tags: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        """Name for figures, for example "Walker Run Backwards"."""
        return self.paper_name or self.name.replace("-", " ").title()


def _dmcontrol(name: str, obs_dim: int, action_dim: int, *tags: str) -> Task:
    domain, _, behaviour = name.partition("-")
    domain = {"cup": "ball_in_cup"}.get(domain, domain)
    return Task(
        name=name,
        domain="dmcontrol",
        env_id=f"{domain}/{behaviour.replace('-', '_')}",
        obs_dim=obs_dim,
        action_dim=action_dim,
        action_repeat=2,
        episode_length=500,
        env_steps=14_000_000 if "locomotion" in tags else 4_000_000,
        eval_every=100_000,
        metric="return",
        tags=frozenset(("dmcontrol", *tags)),
    )


def _toy(name: str, *, episodic: bool) -> Task:
    return Task(
        name=name,
        domain="toy",
        env_id="pointmass",
        obs_dim=4,
        action_dim=2,
        action_repeat=1,
        episode_length=50,
        env_steps=5_000,
        eval_every=500,
        metric="return",
        episodic=episodic,
    )


# Rows that share a suite stand in that suite's order: it is the index of the task embedding.
_ROWS = (
    _dmcontrol("walker-stand", 24, 6, "mt30"),
    _dmcontrol("walker-walk", 24, 6, "mt30", "smoke"),
    _dmcontrol("walker-run", 24, 6, "mt30"),
    _dmcontrol("cheetah-run", 17, 6, "mt30"),
    _dmcontrol("reacher-easy", 6, 2, "mt30"),
    _dmcontrol("reacher-hard", 6, 2, "mt30"),
    _dmcontrol("acrobot-swingup", 6, 1, "mt30"),
    _dmcontrol("pendulum-swingup", 3, 1, "mt30"),
    _dmcontrol("cartpole-balance", 5, 1, "mt30"),
    _dmcontrol("cartpole-balance-sparse", 5, 1, "mt30"),
    _dmcontrol("cartpole-swingup", 5, 1, "mt30", "smoke"),
    _dmcontrol("cartpole-swingup-sparse", 5, 1, "mt30"),
    _dmcontrol("cup-catch", 8, 2, "mt30"),
    _dmcontrol("finger-spin", 9, 2, "mt30"),
    _dmcontrol("finger-turn-easy", 12, 2, "mt30"),
    _dmcontrol("finger-turn-hard", 12, 2, "mt30"),
    _dmcontrol("fish-swim", 24, 5, "mt30"),
    _dmcontrol("hopper-stand", 15, 4, "mt30"),
    _dmcontrol("hopper-hop", 15, 4, "mt30"),
    _dmcontrol("walker-walk-backwards", 24, 6, "mt30", "custom"),
    _dmcontrol("walker-run-backwards", 24, 6, "mt30", "custom"),
    _dmcontrol("cheetah-run-backwards", 17, 6, "mt30", "custom"),
    _dmcontrol("cheetah-run-front", 17, 6, "mt30", "custom"),
    _dmcontrol("cheetah-run-back", 17, 6, "mt30", "custom"),
    _dmcontrol("cheetah-jump", 17, 6, "mt30", "custom"),
    _dmcontrol("hopper-hop-backwards", 15, 4, "mt30", "custom"),
    _dmcontrol("reacher-three-easy", 8, 3, "mt30", "custom"),
    _dmcontrol("reacher-three-hard", 8, 3, "mt30", "custom"),
    _dmcontrol("cup-spin", 8, 2, "mt30", "custom"),
    _dmcontrol("pendulum-spin", 3, 1, "mt30", "custom"),
    _dmcontrol("quadruped-walk", 78, 12),
    _dmcontrol("quadruped-run", 78, 12),
    _dmcontrol("dog-stand", 223, 38, "locomotion"),
    _dmcontrol("dog-walk", 223, 38, "locomotion"),
    _dmcontrol("dog-trot", 223, 38, "locomotion"),
    _dmcontrol("dog-run", 223, 38, "locomotion"),
    _dmcontrol("humanoid-stand", 67, 21, "locomotion"),
    _dmcontrol("humanoid-walk", 67, 21, "locomotion"),
    _dmcontrol("humanoid-run", 67, 21, "locomotion"),
    _toy("toy-pointmass", episodic=False),
    _toy("toy-pointmass-episodic", episodic=True),
)

TASKS: Mapping[str, Task] = {row.name: row for row in _ROWS}
"""Every task by name, in table order."""

SUITES: Mapping[str, tuple[Task, ...]] = {
    tag: tuple(row for row in _ROWS if tag in row.tags)
    for tag in sorted(frozenset().union(*(row.tags for row in _ROWS)))
}
"""Every suite by name, its tasks in table order."""

ALIASES: Mapping[str, str] = {
    "ball-in-cup-catch": "cup-catch",
    "ball-in-cup-spin": "cup-spin",
}
"""Other names that a task is found under."""


def get_task(name: str) -> Task:
    """The task of that name or alias.

    Raises:
        UserError: there is none; names the closest.
    """
    task = TASKS.get(ALIASES.get(name, name))
    if task is None:
        raise UserError(f"unknown task '{name}'{did_you_mean(name, (*TASKS, *ALIASES))}")
    return task


def get_suite(name: str) -> tuple[Task, ...]:
    """The tasks of a suite, in the suite's order.

    Raises:
        UserError: there is no such suite; names the closest.
    """
    if name not in SUITES:
        raise UserError(f"unknown suite '{name}'{did_you_mean(name, SUITES)}")
    return SUITES[name]
