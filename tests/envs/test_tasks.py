"""The task table against published facts, and the suites derived from it."""

from __future__ import annotations

import csv
import dataclasses
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.tasks import (
    ALIASES,
    PIXEL_ENV_STEPS,
    SUITES,
    TASKS,
    get_suite,
    get_task,
    list_tasks,
)

DATA = Path(__file__).parents[1] / "data"

# The order is the index of the task embedding in the released multi-task models.
MT30 = [
    "walker-stand",
    "walker-walk",
    "walker-run",
    "cheetah-run",
    "reacher-easy",
    "reacher-hard",
    "acrobot-swingup",
    "pendulum-swingup",
    "cartpole-balance",
    "cartpole-balance-sparse",
    "cartpole-swingup",
    "cartpole-swingup-sparse",
    "cup-catch",
    "finger-spin",
    "finger-turn-easy",
    "finger-turn-hard",
    "fish-swim",
    "hopper-stand",
    "hopper-hop",
    "walker-walk-backwards",
    "walker-run-backwards",
    "cheetah-run-backwards",
    "cheetah-run-front",
    "cheetah-run-back",
    "cheetah-jump",
    "hopper-hop-backwards",
    "reacher-three-easy",
    "reacher-three-hard",
    "cup-spin",
    "pendulum-spin",
]


def published_rows() -> dict[str, dict[str, str]]:
    with (DATA / "tasks.csv").open(newline="") as file:
        return {row["task"]: row for row in csv.DictReader(file)}


def names(suite: str) -> list[str]:
    return [task.name for task in get_suite(suite)]


DOMAINS = {"dmcontrol": 39, "metaworld": 50, "maniskill2": 5, "myosuite": 10}


def test_the_104_tasks_of_the_paper():
    assert Counter(task.domain for task in get_suite("all104")) == DOMAINS
    assert sum(DOMAINS.values()) == 104
    assert len(names("all104")) == 104
    assert set(names("all104")) == set(published_rows())


@pytest.mark.parametrize("method", ["tdmpc2", "tdmpc", "sac", "dreamerv3"])
def test_the_names_are_those_of_the_released_curves(published_curves, method):
    published = {path.stem for path in (published_curves / method).glob("*.csv")}
    assert published == set(names("all104"))


def test_the_visual_suite_is_that_of_the_released_curves(published_curves):
    published = {path.stem for path in (published_curves / "tdmpc2-pixels").glob("*.csv")}
    assert published == set(names("visual"))
    last = {
        max(int(line.split(",")[0]) for line in path.read_text().split()[1:])
        for path in (published_curves / "tdmpc2-pixels").glob("*.csv")
    }
    assert last == {PIXEL_ENV_STEPS}


@pytest.mark.parametrize("name", names("all104"))
def test_row_equals_the_published_row(name):
    task, row = TASKS[name], published_rows()[name]
    assert task.domain == row["domain"]
    # In the published list, Meta-World's ids have a suffix, and ManiSkill2's a control mode.
    assert task.env_id == row["env"].removesuffix("-v2-goal-observable").split()[0]
    assert ("custom" in task.tags) == row["env"].endswith(" (custom)")
    assert task.obs_dim == int(row["obs_dim"])
    assert task.action_dim == int(row["act_dim"])
    assert task.action_repeat == int(row["action_repeat"])
    assert task.episode_length == int(row["T_decisions"])
    assert task.episode_length * task.action_repeat == int(row["env_steps_per_episode"])
    assert task.env_steps == int(row["budget_env_steps"])
    assert task.env_steps // task.action_repeat == int(row["budget_decisions"])
    assert task.eval_every == int(row["eval_every_env_steps"])
    assert task.metric == {"return/10": "return", "success%": "success"}[row["metric"]]


def test_suites():
    assert names("mt30") == MT30
    assert names("mt80") == MT30 + names("metaworld")
    assert names("metaworld")[0] == "mw-assembly"
    assert names("metaworld")[-5:] == [
        *("mw-bin-picking", "mw-box-close", "mw-door-lock", "mw-door-unlock", "mw-hand-insert")
    ]
    assert sorted(names("ablation")) == ["dog-run", "humanoid-walk", "pick-ycb"]
    assert sorted(names("smoke")) == ["cartpole-swingup", "walker-walk"]
    assert sorted(names("locomotion")) == [
        *("dog-run", "dog-stand", "dog-trot", "dog-walk"),
        *("humanoid-run", "humanoid-stand", "humanoid-walk"),
    ]
    assert len(names("custom")) == 11
    assert sorted(names("evidence")) == [
        *("cup-catch", "lift-cube", "mw-door-open", "mw-drawer-open"),
        *("myo-hand-reach", "walker-run", "walker-walk"),
    ]


def test_toy_tasks_are_in_no_suite():
    listed = {task.name for suite in SUITES.values() for task in suite}
    toys = {task.name for task in TASKS.values() if task.domain == "toy"}
    assert toys
    assert not listed & toys


def test_a_budget_is_whole_decisions_and_whole_evaluations():
    for task in TASKS.values():
        assert task.env_steps % task.eval_every == 0
        assert task.eval_every % (task.action_repeat * task.episode_length) == 0


def test_rows_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_task("walker-walk").env_steps = 1


def test_title():
    assert get_task("walker-run-backwards").title == "Walker Run Backwards"
    assert get_task("mw-push-back").title == "Push Back"
    assert get_task("pick-ycb").title == "Pick YCB"


def test_aliases_lead_to_rows_and_hide_none():
    assert get_task("ball-in-cup-catch") is get_task("cup-catch")
    assert get_task("myo-reach") is get_task("myo-hand-reach")
    assert get_task("myo-pen-twirl-hard") is get_task("myo-hand-pen-twirl-hard")
    assert set(ALIASES.values()) <= set(TASKS)
    assert not set(ALIASES) & set(TASKS)


@pytest.mark.parametrize(
    ("lookup", "argument", "hint"),
    [
        (get_task, "walker-wlak", "unknown task 'walker-wlak' (did you mean 'walker-walk'?)"),
        (get_task, "ball-in-cup-catsh", "did you mean 'ball-in-cup-catch'?"),
        (get_task, "zzz", "pendulum-swingup"),
        (get_suite, "smok", "unknown suite 'smok' (did you mean 'smoke'?)"),
        (get_suite, "zzz", "valid: ablation, all104, custom, dmcontrol"),
    ],
)
def test_unknown_names_say_what_is_meant(lookup, argument, hint):
    with pytest.raises(UserError) as error:
        lookup(argument)
    assert hint in str(error.value)
    assert "\n" not in str(error.value)


def test_the_table_imports_no_simulator():
    code = (
        "import sys, tdmpc2.envs.tasks\n"
        "print({'dm_control', 'mujoco', 'gymnasium', 'torch'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "set()\n", result.stderr


def test_lists_of_tasks():
    expected = (get_task("walker-walk"), get_task("cup-catch"))
    assert list_tasks("walker-walk, ball-in-cup-catch,") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" ,", "--tasks= ,: no task; give a list"),
        ("cup-catch,ball-in-cup-catch", "cup-catch is named twice"),
        ("cup-catch,walkr-walk", "unknown task 'walkr-walk' .did you mean 'walker-walk'"),
    ],
)
def test_invalid_lists_of_tasks(text, message):
    with pytest.raises(UserError, match=message):
        list_tasks(text, "--tasks")
