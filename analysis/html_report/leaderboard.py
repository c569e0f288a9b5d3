"""Page of the report: methods of several sources on the tasks that all of them have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
from matplotlib.colors import to_hex

from analysis.figures.figure_specs import Catalog
from analysis.figures.leaderboard_plots import coverage_text, group_label, method_styles
from analysis.html_report.headlines import rounded
from analysis.html_report.tables import table_data
from analysis.records.evaluations import ENV_STEPS
from analysis.records.field_results import Series
from analysis.records.load import Records
from analysis.records.problems import Problem
from analysis.records.sources import OWN_RUNS
from analysis.stats.copies import united
from analysis.stats.leaderboard import Leaderboard, leaderboards, methods_of, text_table
from analysis.stats.run_series import series_of
from analysis.stats.task_titles import task_titles

GROUPS = ("dmcontrol", "metaworld", "maniskill2", "myosuite", "locomotion")


def leaderboard_page(
    records: Records, files: Iterable[Series], catalog: Catalog
) -> dict[str, Any] | None:
    """Return the tables and curves of the page; None if no group has two comparable methods.

    Each group is compared without the runs made here, and again with them if they share tasks and a
    step with the others, because short runs move the common step of all methods.

    Args:
        records: own runs and released curves.
        files: curves of result files.
        catalog: styles of methods and labels of groups.

    Returns:
        An object for JSON, which lists what is left out.
    """
    problems: list[Problem] = []
    kept, copies = united([*series_of(records.select(step_unit=ENV_STEPS)), *files])
    methods = methods_of(kept)
    others = [method for method in methods if method.source != OWN_RUNS]
    boards = leaderboards(others, GROUPS, problems)
    ours = leaderboards(methods, GROUPS, problems) if len(others) < len(methods) else []
    boards += [board for board in ours if (board.table["source"] == OWN_RUNS).any()]
    if not boards:
        return None
    styles = method_styles(boards, catalog)
    return {
        "groups": [_board(board, catalog, styles) for board in boards],
        "copies": [str(copy) for copy in copies],
        "left_out": [f"{problem.where}: {problem.what}" for problem in dict.fromkeys(problems)],
        "level": coverage_text(boards, styles, catalog),
    }


def _board(board: Leaderboard, catalog: Catalog, styles: dict[Any, Any]) -> dict[str, Any]:
    """Return the table, scores of tasks and curves of a group."""
    ours = (board.table["source"] == OWN_RUNS).any()
    labels = {f"{name} ({source})": style.label for (name, source), style in styles.items()}
    tasks = board.per_task.rename(task_titles(board.per_task.index)).rename(columns=labels)
    shown = dict.fromkeys(label for label in labels.values() if label in tasks)
    tasks = tasks[list(shown)]  # as in the legend
    tasks = tasks.reset_index()
    bands = board.bands.reindex(columns=_COLUMNS)
    lines = []
    for (name, source), style in styles.items():
        own = bands[(bands["method"] == name) & (bands["source"] == source)]
        if own.empty:
            continue
        line = {"label": style.label, "color": to_hex(style.color), "dashes": style.dashes}
        line |= {"marker": style.marker}
        line |= {name: rounded(own[column]) for name, column in _LINE.items()}
        lines.append({**line, "x": [int(step) for step in own["env_step"]]})
    return {
        "label": group_label(board, catalog) + (", with the runs made here" if ours else ""),
        "title": board.title,
        "table": table_data(text_table(board, styles[board.reference].label)),
        "tasks": table_data(_rounded(tasks)),
        "lines": lines,
    }


def _rounded(tasks: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of the tasks as text."""
    scores = [str(name) for name in tasks if name != "task"]
    return tasks.assign(**{name: tasks[name].map("{:.1f}".format) for name in scores})


_COLUMNS = ["method", "source", "env_step", "mean", "mean_low", "mean_high"]
_LINE = {"y": "mean", "low": "mean_low", "high": "mean_high"}
