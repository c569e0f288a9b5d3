"""Task sets of multi-task agents."""

from __future__ import annotations

import hashlib

from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.envs.tasks import ALIASES, SUITES, TASKS, Task, list_tasks

MAX_NAME = 100  # characters of a folder name


def refuse_own_tasks(text: str, option: str) -> None:
    """Refuse Gymnasium environments where several tasks are learned from a dataset.

    Args:
        text: comma-separated names.
        option: option that the text is the value of, for the message.

    Raises:
        UserError: a name is that of a Gymnasium environment.
    """
    from tdmpc2.envs.gymnasium_tasks import own_tables

    for name in filter(None, map(str.strip, text.split(","))):
        if ":" in name or name in own_tables():
            raise UserError(
                f"{option}={name}: datasets and multi-task agents need tasks of the task table "
                f"(docs/tasks.md); train this one alone: python tdmpc2/train.py task={name}"
            )


def parse_tasks(text: str) -> tuple[Task, ...]:
    """Return the tasks that a text names, in the order of the task embedding.

    Args:
        text: a task, a suite (`mt30`), or a comma-separated list of tasks
            (`walker-walk,cheetah-run`).

    Raises:
        UserError: a task or suite is unknown, or a task is named twice.
    """
    if text in SUITES:
        return SUITES[text]
    known, name = (*TASKS, *ALIASES, *SUITES), text.strip(", ")
    if not name:
        raise UserError(f"task={text}: no value; give a task, a suite, or a list of tasks")
    if "," not in name and name not in known:
        raise UserError(f"unknown task '{name}'{did_you_mean(name, known)}")
    return list_tasks(text, "task")


def get_task_set(text: str) -> tuple[str, tuple[Task, ...]]:
    """Return the name and the tasks of a task set; their order is that of the task embedding.

    Args:
        text: a suite, or a comma-separated list of tasks.

    Raises:
        UserError: a suite or task is unknown, a task is named twice, or there are fewer than
            two tasks.
    """
    refuse_own_tasks(text, "task")
    tasks = parse_tasks(text)
    if text in SUITES:
        return text, tasks
    names = [task.name for task in tasks]
    if len(tasks) < 2:
        raise UserError(
            f"task={text}: offline training needs at least two tasks; give mt30, mt80, another "
            "suite, or a list such as task=cheetah-run,cheetah-run-backwards"
        )
    name = "+".join(names)
    if len(name) > MAX_NAME:
        name = f"{len(names)}-tasks-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name, tasks
