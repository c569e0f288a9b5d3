"""Titles of tasks in figures and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tdmpc2.envs.tasks import TASKS


def task_titles(tasks: Iterable[str]) -> dict[str, str]:
    """Return the title of each task; tasks with the same title have their name behind it.

    Args:
        tasks: all tasks that a figure or table shows.
    """
    plain = {task: TASKS[task].title if task in TASKS else task for task in map(str, tasks)}
    counts = Counter(plain.values())
    return {
        task: title if counts[title] == 1 else f"{title} ({task})" for task, title in plain.items()
    }
