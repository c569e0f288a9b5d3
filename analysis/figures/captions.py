"""Captions of figures: runs, provenance, method of aggregation and its limits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import pandas as pd

from analysis.figures.styles import Shown, series_styles
from analysis.records.load import AGENTS, SERIES, one_per_run
from analysis.records.run_reader import short_commits
from analysis.records.sources import RUNS_SOURCE
from analysis.stats.aggregate import RLIABLE_VERSION
from analysis.stats.coverage import Coverage, coverage_note, coverages, studies_of
from analysis.stats.horizons import Group
from analysis.stats.multitask_scores import agents_of
from analysis.stats.ragged_curves import paper_budget
from tdmpc2.envs.tasks import TASKS

_LONGEST_NAME = 28


def card_lines(
    shown: Shown,
    what: str,
    *,
    scored: bool = True,
    tasks: Collection[str] | None = None,
    found: Sequence[Coverage] | None = None,
) -> list[str]:
    """Return the caption: runs, provenance, method of aggregation and its limits.

    Args:
        shown: inputs of the figure.
        what: meaning of lines and bands.
        scored: whether scores and their intervals are shown.
        tasks: tasks on the page; None for all.
        found: measured coverage of the intervals; None to measure that of statistics over tasks.
    """
    runs = shown.curves.runs
    runs = runs if tasks is None else runs[runs["task"].isin(tasks)]
    num_tasks = runs["task"].nunique()
    facts = [
        _counted(runs),
        f"{num_tasks} task{'s' if num_tasks > 1 else ''}",
        f"seeds {_listed(sorted(runs['seed']))}",
    ]
    ours = runs[runs["source"] == RUNS_SOURCE]
    if len(ours):
        commits = _listed(short_commits(ours["commit"]))
        facts += [
            f"model size {_listed(size or 'none' for size in ours['model_size'])}",
            f"commit {commits or 'not recorded'}",
            *([simulators] if (simulators := _listed(filter(None, ours["simulators"]))) else []),
        ]
    facts += [
        f"{'all' if count == len(runs) else f'{count:,} of them'} "
        f"{_source_label(str(source), shown)}"
        for source, count in runs["source"].value_counts().items()
        if source != RUNS_SOURCE
    ]
    if not scored:
        return [*([" · ".join(facts)] if len(runs) else []), *_marks(ours), what]
    counts = runs.groupby([*SERIES, "task"])["seed"].count()
    single = bool((counts == 1).any())
    if (counts == 1).all():
        return [" · ".join(facts), *_marks(ours), _method(shown, what, single)]
    measured = _coverages(shown, tasks) if found is None else found
    labels = {k: s.label for k, s in series_styles(shown.curves.runs, shown.catalog).items()}
    note = coverage_note(measured, labels)
    return [" · ".join(facts), *_marks(ours), _method(shown, what, single), note]


def _coverages(shown: Shown, tasks: Collection[str] | None) -> list[Coverage]:
    """Return the coverage of the intervals on a page of a figure, of all tasks if None."""
    if shown.spec.plot in ("learning_curves", "wall_time"):  # intervals of single tasks
        names = dict.fromkeys(name for group in shown.groups() for name in group.tasks)
        on_page = [name for name in names if tasks is None or name in tasks]
        groups = [Group(name, TASKS[name].title, (name,)) for name in on_page]
    else:
        groups = [g for g in shown.groups() if tasks is None or set(g.tasks) == set(tasks)]
    return list(coverages(shown.curves, groups, shown.spec.statistics, shown.bootstrap))


def multitask_card_lines(shown: Shown, what: str, runs: pd.DataFrame | None = None) -> list[str]:
    """Return the caption of a figure of multi-task agents.

    Args:
        shown: inputs of the figure.
        what: meaning of lines and marks.
        runs: rows of `Records.runs` on the page; None for all.
    """
    runs = one_per_run(shown.records.runs if runs is None else runs)
    if runs.empty:
        return [what]
    counts = zip(runs["task_set"], map(len, runs["tasks"]), strict=True)
    sets = _listed(f"{short_name(str(name))} ({count} tasks)" for name, count in counts)
    simulators = _listed(filter(None, runs["simulators"]))
    sizes = [str(size) or "none" for size in runs["model_size"]]
    sizes.sort(key=lambda size: (len(size), size))
    facts = [
        _counted(runs),
        sets,
        f"seeds {_listed(sorted(runs['seed']))}",
        f"model size {_listed(sizes)}",
        f"budget {_listed(f'{budget:,}' for budget in sorted(runs['budget']))} updates",
        f"commit {_listed(short_commits(runs['commit'])) or 'not recorded'}",
        *([simulators] if simulators else []),
    ]
    single = bool((runs.groupby(AGENTS)["seed"].count() == 1).any())
    return [" · ".join(facts), _method(shown, what, single), _agents_coverage(shown, runs)]


def _agents_coverage(shown: Shown, runs: pd.DataFrame) -> str:
    """Return the coverage of the intervals of multi-task agents, by task if the figure is."""
    found = []
    for agents in agents_of(shown.curves, []):
        series, name, count = (
            agents.key[: len(SERIES)],
            str(agents.key[len(SERIES)]),
            len(agents.tasks),
        )
        if not ((runs[SERIES] == list(series)).all(axis=1) & (runs["task_set"] == name)).any():
            continue
        places = [slice(place, place + 1) for place in range(count)]
        for own in places if shown.spec.plot == "multitask_tasks" else [slice(None)]:
            share = agents.coverage(own, shown.rule, shown.bootstrap)
            group, size = (
                (short_name(name), count) if own == slice(None) else (agents.tasks[own.start], 1)
            )
            seeds = (len(agents.runs), len(agents.runs))
            if np.isfinite(share):
                found.append(Coverage(series, group, size, seeds, "mean", share))
    labels = {k: s.label for k, s in series_styles(runs, shown.catalog).items()}
    return coverage_note(found, labels)


def _method(shown: Shown, what: str, single: bool) -> str:
    """Return what is drawn, and the rule and definitions behind it.

    Args:
        shown: inputs of the figure.
        what: meaning of lines and bands.
        single: whether a score is based on a single seed.
    """
    method = (
        f"{what} {shown.rule.what} Statistics as defined by rliable {RLIABLE_VERSION}; coverage "
        f"simulated in {studies_of(shown.bootstrap).reps:,} studies."
    )
    return f"{method} A single seed has no interval." if single else method


def short_name(name: str) -> str:
    """Return the name of a task set, truncated to fit above a panel."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _marks(ours: pd.DataFrame) -> list[str]:
    """Return a line on runs that differ from the paper's setting, if there are any."""
    marks = []
    standin = ours["variant"].str.contains("assets=").sum()
    if standin:
        marks.append(f"{standin} runs with assets other than the official ones")
    other = ours["variant"].str.contains("physics=").sum()
    if other:
        marks.append(f"{other} runs with physics other than the paper's")
    full = [paper_budget(run.task, run.obs) for run in ours.itertuples()]
    reduced = ours[(ours["budget"] < full) & np.isfinite(full)]
    if len(reduced):
        budgets = _listed(f"{budget:,}" for budget in sorted(reduced["budget"]))
        marks.append(f"{len(reduced)} runs with a reduced budget ({budgets} env steps)")
    return [f"Not the paper's setting: {'; '.join(marks)}."] if marks else []


def _source_label(source: str, shown: Shown) -> str:
    """Return the label of curves that do not come from run directories."""
    styles = shown.catalog.sources
    return styles[source].label if source in styles else f"from {source}"


def _counted(runs: pd.DataFrame) -> str:
    """Return the number of runs, and the states of those that have a run directory."""
    count = f"{len(runs):,} run{'s' if len(runs) > 1 else ''}"
    ours = runs[runs["source"] == RUNS_SOURCE]
    here = "" if len(ours) == len(runs) else " here"
    listed = ", ".join(f"{n:,} {state}{here}" for state, n in ours["state"].value_counts().items())
    return f"{count} ({listed})" if listed else count


def _listed(values: Iterable[object]) -> str:
    """Return the distinct values in order of appearance, shortened to eight."""
    distinct = list(dict.fromkeys(str(value) for value in values))
    return ", ".join(distinct[:8]) + (f" and {len(distinct) - 8} more" if len(distinct) > 8 else "")
