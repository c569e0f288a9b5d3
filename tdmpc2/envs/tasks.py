"""The task table: ids, dimensions, budgets and metrics, and the suites derived from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.system.plugins import Table

RETURN_RANGE = (0.0, 1000.0)
"""Returns with normalized scores 0 and 100 in the tasks of the paper."""


@dataclass(frozen=True)
class Task:
    """One task and its facts, which no method changes.

    Attributes:
        name: name of the task in this suite, as in the released curves.
        domain: the domain, which selects the adapter.
        env_id: the simulator's name of the task.
        obs_dim: length of the state observation.
        action_dim: length of the action.
        action_repeat: control steps per decision.
        episode_length: time limit, in decisions.
        env_steps: training budget, in control steps (decisions * action_repeat).
        eval_every: interval between evaluations, in control steps.
        metric: what scores report: the return or the success of an episode.
        paper_name: title in the paper's figures, if it does not follow from `name`.
        episodic: whether episodes can terminate before their time limit.
        seeded_resets: whether resets use the environment's own generator (see `TaskSwitches`).
        physics: `paper` undoes what newer simulators changed (see `tdmpc2.envs.physics`).
        assets: the set of downloadable models that the simulator needs for it, if any.
        fixed_start: whether all episodes begin in the same state.
        score_range: returns with normalized scores 0 and 100; None if scores are not normalized.
        success_key: key of the success in the simulator's `info`, for Gymnasium environments.
        tags: the suites that contain it.
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
    seeded_resets: bool = True
    physics: Literal["paper", "simulator"] = "paper"
    assets: Literal["ycb", "faucet"] | None = None
    fixed_start: bool = False
    tags: frozenset[str] = frozenset()
    score_range: tuple[float, float] | None = RETURN_RANGE
    success_key: str = "success"

    @property
    def title(self) -> str:
        """Name for figures, for example "Walker Run Backwards"."""
        return self.paper_name or self.name.replace("-", " ").title()

    def normalized_score(self, episode_return: float, success: float) -> float:
        """Return the score that is averaged over tasks, 0 to 100: 100 · success, or the return.

        Returns are scaled by `score_range`; those of the paper's tasks are divided by 10. The score
        is NaN if the task has no such range.
        """
        if self.metric == "success":
            return 100 * success
        low, high = self.score_range or (math.nan, math.nan)
        return (episode_return - low) / ((high - low) / 100)


def is_score_range(value: Any) -> bool:
    """Return whether a value is two increasing, finite numbers."""
    pair = isinstance(value, list | tuple) and len(value) == 2
    numbers = pair and all(type(v) in (int, float) for v in value)
    return numbers and -math.inf < value[0] < value[1] < math.inf


_EVIDENCE = (  # docs/evidence.md says how they were chosen
    *("cup-catch", "mw-drawer-open", "myo-hand-reach", "lift-cube"),
    *("walker-run", "mw-door-open", "walker-walk"),
)


def _tags(name: str, *tags: str) -> frozenset[str]:
    return frozenset(("all104", *tags, *(("evidence",) if name in _EVIDENCE else ())))


def _dmcontrol(name: str, obs_dim: int, action_dim: int, *tags: str) -> Task:
    domain, _, behavior = name.partition("-")
    domain = {"cup": "ball_in_cup"}.get(domain, domain)
    return Task(
        name=name,
        domain="dmcontrol",
        env_id=f"{domain}/{behavior.replace('-', '_')}",
        obs_dim=obs_dim,
        action_dim=action_dim,
        action_repeat=2,
        episode_length=500,
        env_steps=14_000_000 if "locomotion" in tags else 4_000_000,
        eval_every=100_000,
        metric="return",
        tags=_tags(name, "dmcontrol", *tags),
    )


def _metaworld(behavior: str) -> Task:
    return Task(
        name=f"mw-{behavior}",
        domain="metaworld",
        env_id=behavior,
        obs_dim=39,
        action_dim=4,
        action_repeat=2,
        episode_length=100,
        env_steps=2_000_000,
        eval_every=100_000,
        metric="success",
        paper_name=behavior.replace("-", " ").title(),
        tags=_tags(f"mw-{behavior}", "metaworld", "mt80"),
    )


def _myosuite(behavior: str, obs_dim: int, env_id: str) -> Task:
    return Task(
        name=f"myo-hand-{behavior}",
        domain="myosuite",
        env_id=env_id,
        obs_dim=obs_dim,
        action_dim=39,
        action_repeat=1,
        episode_length=100,
        env_steps=2_000_000,
        eval_every=50_000,
        metric="success",
        paper_name=behavior.replace("-", " ").title(),
        fixed_start=env_id.endswith("Fixed-v0"),
        tags=_tags(f"myo-hand-{behavior}", "myosuite"),
    )


def _maniskill2(
    name: str,
    obs_dim: int,
    action_dim: int,
    env_id: str,
    *tags: str,
    paper_name: str | None = None,
    env_steps: int = 4_000_000,
    assets: Literal["ycb", "faucet"] | None = None,
) -> Task:
    return Task(
        name=name,
        domain="maniskill2",
        env_id=env_id,
        obs_dim=obs_dim,
        action_dim=action_dim,
        action_repeat=2,
        episode_length=100,
        env_steps=env_steps,
        eval_every=100_000,
        metric="success",
        paper_name=paper_name,
        assets=assets,
        tags=_tags(name, "maniskill2", *tags),
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


_MT = ("mt30", "mt80")  # the 80 tasks of mt80 begin with the 30 of mt30

_METAWORLD = (
    *("assembly", "basketball", "button-press-topdown", "button-press-topdown-wall"),
    *("button-press", "button-press-wall", "coffee-button", "coffee-pull", "coffee-push"),
    *("dial-turn", "disassemble", "door-open", "door-close", "drawer-close", "drawer-open"),
    *("faucet-open", "faucet-close", "hammer", "handle-press-side", "handle-press"),
    *("handle-pull-side", "handle-pull", "lever-pull", "peg-insert-side", "peg-unplug-side"),
    *("pick-out-of-hole", "pick-place", "pick-place-wall", "plate-slide", "plate-slide-side"),
    *("plate-slide-back", "plate-slide-back-side", "push-back", "push", "push-wall", "reach"),
    *("reach-wall", "shelf-place", "soccer", "stick-push", "stick-pull", "sweep-into", "sweep"),
    *("window-open", "window-close", "bin-picking", "box-close", "door-lock", "door-unlock"),
    "hand-insert",
)

_MYOSUITE = (  # name, obs_dim, MyoSuite's name of the behavior
    ("reach", 115, "Reach"),
    ("pose", 108, "Pose"),
    ("obj-hold", 91, "ObjHold"),
    ("key-turn", 93, "KeyTurn"),
    ("pen-twirl", 83, "PenTwirl"),
)

# Within a suite, the order of rows is the index of the task embedding.
_ROWS = (
    _dmcontrol("walker-stand", 24, 6, *_MT),
    _dmcontrol("walker-walk", 24, 6, *_MT, "smoke", "visual"),
    _dmcontrol("walker-run", 24, 6, *_MT, "visual"),
    _dmcontrol("cheetah-run", 17, 6, *_MT, "visual"),
    _dmcontrol("reacher-easy", 6, 2, *_MT, "visual"),
    _dmcontrol("reacher-hard", 6, 2, *_MT, "visual"),
    _dmcontrol("acrobot-swingup", 6, 1, *_MT, "visual"),
    _dmcontrol("pendulum-swingup", 3, 1, *_MT),
    _dmcontrol("cartpole-balance", 5, 1, *_MT),
    _dmcontrol("cartpole-balance-sparse", 5, 1, *_MT),
    _dmcontrol("cartpole-swingup", 5, 1, *_MT, "smoke"),
    _dmcontrol("cartpole-swingup-sparse", 5, 1, *_MT, "visual"),
    _dmcontrol("cup-catch", 8, 2, *_MT),
    _dmcontrol("finger-spin", 9, 2, *_MT, "visual"),
    _dmcontrol("finger-turn-easy", 12, 2, *_MT, "visual"),
    _dmcontrol("finger-turn-hard", 12, 2, *_MT, "visual"),
    _dmcontrol("fish-swim", 24, 5, *_MT),
    _dmcontrol("hopper-stand", 15, 4, *_MT),
    _dmcontrol("hopper-hop", 15, 4, *_MT),
    _dmcontrol("walker-walk-backwards", 24, 6, *_MT, "custom"),
    _dmcontrol("walker-run-backwards", 24, 6, *_MT, "custom"),
    _dmcontrol("cheetah-run-backwards", 17, 6, *_MT, "custom"),
    _dmcontrol("cheetah-run-front", 17, 6, *_MT, "custom"),
    _dmcontrol("cheetah-run-back", 17, 6, *_MT, "custom"),
    _dmcontrol("cheetah-jump", 17, 6, *_MT, "custom"),
    _dmcontrol("hopper-hop-backwards", 15, 4, *_MT, "custom"),
    _dmcontrol("reacher-three-easy", 8, 3, *_MT, "custom"),
    _dmcontrol("reacher-three-hard", 8, 3, *_MT, "custom"),
    _dmcontrol("cup-spin", 8, 2, *_MT, "custom"),
    _dmcontrol("pendulum-spin", 3, 1, *_MT, "custom"),
    _dmcontrol("quadruped-walk", 78, 12, "visual"),
    _dmcontrol("quadruped-run", 78, 12, "visual"),
    _dmcontrol("dog-stand", 223, 38, "locomotion"),
    _dmcontrol("dog-walk", 223, 38, "locomotion"),
    _dmcontrol("dog-trot", 223, 38, "locomotion"),
    _dmcontrol("dog-run", 223, 38, "locomotion", "ablation"),
    _dmcontrol("humanoid-stand", 67, 21, "locomotion"),
    _dmcontrol("humanoid-walk", 67, 21, "locomotion", "ablation"),
    _dmcontrol("humanoid-run", 67, 21, "locomotion"),
    *(_metaworld(behavior) for behavior in _METAWORLD),
    _maniskill2("lift-cube", 42, 4, "LiftCube-v0"),
    _maniskill2("pick-cube", 51, 4, "PickCube-v0"),
    _maniskill2("stack-cube", 55, 4, "StackCube-v0"),
    _maniskill2(
        *("pick-ycb", 51, 7, "PickSingleYCB-v0", "ablation"),
        paper_name="Pick YCB",
        env_steps=14_000_000,
        assets="ycb",
    ),
    _maniskill2("turn-faucet", 40, 7, "TurnFaucet-v0", assets="faucet"),
    *(
        _myosuite(f"{name}{hard}", obs_dim, f"myoHand{behavior}{start}-v0")
        for name, obs_dim, behavior in _MYOSUITE
        for hard, start in (("", "Fixed"), ("-hard", "Random"))
    ),
    _toy("toy-pointmass", episodic=False),
    _toy("toy-pointmass-episodic", episodic=True),
)

PAPER_SUITES = frozenset().union(*(row.tags for row in _ROWS))
"""Suites of this project, to which plugins cannot add tasks."""


def _load_plugins() -> None:
    from tdmpc2.envs.adapters import load_plugins  # which registers tasks here

    load_plugins()


TASKS: Table[Task] = Table({row.name: row for row in _ROWS}, _load_plugins)
"""All tasks by name, in table order, followed by those of plugins."""

SUITES: Table[tuple[Task, ...]] = Table(
    {tag: tuple(row for row in _ROWS if tag in row.tags) for tag in sorted(PAPER_SUITES)},
    _load_plugins,
)
"""All suites by name, with their tasks in table order."""

ALIASES: Mapping[str, str] = {
    "ball-in-cup-catch": "cup-catch",
    "ball-in-cup-spin": "cup-spin",
    **{
        row.name.replace("myo-hand-", "myo-"): row.name for row in _ROWS if row.domain == "myosuite"
    },
    "pick-single-ycb": "pick-ycb",
}
"""Alternative names of tasks."""


PIXEL_ENV_STEPS = 2_000_000
"""Training budget of any run from pixels, in control steps; it replaces the task's own."""


def get_task(name: str) -> Task:
    """Return the task with this name or alias, or that of a Gymnasium environment.

    Args:
        name: a name in the task table, `gym:ID`, `module:ID`, or a table of a file named in
            `TDMPC2_TASKS`; see `gymnasium_tasks.find_task`.

    Raises:
        UserError: the task is unknown; the message suggests the closest name.
    """
    task = TASKS.get(ALIASES.get(name, name))
    if task is not None:
        return task
    from tdmpc2.envs.gymnasium_tasks import find_task, own_tables

    task = find_task(name)
    if task is None:
        known = (*TASKS, *ALIASES, *own_tables())
        raise UserError(f"unknown task '{name}'{did_you_mean(name, known)}")
    return task


def list_tasks(text: str, option: str = "tasks", suite: str | None = None) -> tuple[Task, ...]:
    """Return the tasks of a comma-separated list, in its order.

    Args:
        text: names or aliases of tasks.
        option: option that the text is the value of, for messages.
        suite: suite that must contain them; None for any task.

    Raises:
        UserError: the list is empty, or a task is unknown, named twice or not in the suite.
    """
    tasks = tuple(get_task(name) for name in map(str.strip, text.split(",")) if name)
    if not tasks:
        raise UserError(f"{option}={text}: no task; give a list such as walker-walk,cup-catch")
    for place, task in enumerate(tasks):
        if task in tasks[:place]:
            raise UserError(f"{option}={text}: {task.name} is named twice")
        if suite is not None and task not in get_suite(suite):
            raise UserError(f"{option}={text}: {task.name} is not a task of {suite}")
    return tasks


def get_suite(name: str) -> tuple[Task, ...]:
    """Return the tasks of a suite, in the suite's order.

    Raises:
        UserError: the suite is unknown; the message suggests the closest name.
    """
    if name not in SUITES:
        raise UserError(f"unknown suite '{name}'{did_you_mean(name, SUITES)}")
    return SUITES[name]
