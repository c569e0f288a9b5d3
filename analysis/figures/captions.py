"""Captions of figures: runs, provenance, method of aggregation and its limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.figures.figure_specs import Catalog
from analysis.figures.styles import Shown, series_styles
from analysis.records.load import AGENTS, SERIES, one_per_run
from analysis.records.run_reader import short_commits
from analysis.records.sources import RUNS_SOURCE
from analysis.stats.aggregate import RLIABLE_VERSION
from analysis.stats.coverage import Coverage, coverages, studies_of
from analysis.stats.estimate_texts import coverage_note
from analysis.stats.horizons import task_group
from analysis.stats.intervals import has_width
from analysis.stats.multitask_scores import agents_of
from analysis.stats.ragged_curves import budget_of, variant_budget
from analysis.stats.task_titles import task_titles
from tdmpc2.common.system.texts import counted, size_text

_LONGEST_NAME = 28


@dataclass(frozen=True)
class Marks:
    """Meaning of what is drawn.

    Attributes:
        what: lines, bars or points and what they show, without a full stop.
        intervals: bands or whiskers and what they show; empty if the figure has none.
        more: further sentences.
    """

    what: str
    intervals: str = ""
    more: str = ""

    def text(self, several: bool) -> str:
        """Return the sentences; intervals are named if a series has several seeds."""
        first = f"{self.what}; {self.intervals}." if self.intervals and several else f"{self.what}."
        return f"{first} {self.more}" if self.more else first


def card_lines(
    shown: Shown,
    marks: Marks,
    drawn: pd.DataFrame | None = None,
    *,
    scored: bool = True,
    found: Sequence[Coverage] | None = None,
) -> list[str]:
    """Return the caption: runs, provenance, method of aggregation and its limits.

    Args:
        shown: inputs of the figure.
        marks: meaning of lines and bands.
        drawn: numbers on the page, with the columns `SERIES` and `task` or `group`: the caption is
            about these runs only. None for all runs.
        scored: whether scores and their intervals are shown.
        found: measured coverage of the intervals; None to measure that of statistics over tasks.
    """
    runs = shown.curves.runs if drawn is None else _drawn_runs(shown, drawn)
    num_tasks = runs["task"].nunique()
    facts = [
        _counted(runs),
        counted(num_tasks, "task"),
        _seeds(runs, [*SERIES, "task"], shown.catalog),
    ]
    ours = runs[runs["source"] == RUNS_SOURCE]
    if len(ours):
        commits = _listed(short_commits(ours["commit"]))
        sizes = _listed(map(size_text, filter(None, ours["model_size"])))
        facts += [
            *([f"model size {sizes}"] if sizes else []),
            *_precisions(ours),
            f"commit {commits or 'not recorded'}",
            *([simulators] if (simulators := _simulators(ours)) else []),
        ]
    facts += [
        f"{'all' if count == len(runs) else f'{count:,} of them'} "
        f"{_source_label(str(source), shown)}"
        for source, count in runs["source"].value_counts().items()
        if source != RUNS_SOURCE
    ]
    head = [*([_joined(facts)] if len(runs) else []), *_limits(ours)]
    if not scored:
        return [*head, marks.text(False)]
    counts = runs.groupby([*SERIES, "task"])["seed"].count()
    single, several = bool((counts == 1).any()), bool((counts > 1).any())
    if not several:
        return [*head, _method(shown, marks, single, several)]
    if drawn is not None and "low" in drawn and not has_width(drawn["low"], drawn["high"]).any():
        method = _method(shown, marks, single, several=False)
        return [*head, f"{method} Numbers that do not vary over seeds have no interval."]
    measured = _coverages(shown, drawn) if found is None else found
    method = _method(shown, marks, single, several, measured=len(measured) > 0)
    labels = {k: s.label for k, s in series_styles(runs, shown.catalog).items()}
    return [*head, method, f"{coverage_note(measured, labels)}{_unmeasured(drawn, measured)}"]


def _unmeasured(drawn: pd.DataFrame | None, measured: Sequence[Coverage]) -> str:
    """Return a sentence on drawn intervals of tasks whose coverage is not measured, if any is."""
    if drawn is None or "task" not in drawn or "low" not in drawn or not measured:
        return ""
    ranged = drawn[has_width(drawn["low"], drawn["high"])]
    others = len(ranged[[*SERIES, "task"]].drop_duplicates()) - len(measured)
    what = "The coverage of intervals of returns without score_range is not measured."
    return f" {what}" if others > 0 else ""


def _drawn_runs(shown: Shown, drawn: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that belong to the numbers on a page; see `card_lines`."""
    if "task" in drawn:
        keys = set(drawn[[*SERIES, "task"]].astype(str).itertuples(index=False, name=None))
    else:
        tasks = {group.name: group.tasks for group in shown.groups()}
        rows = drawn[[*SERIES, "group"]].drop_duplicates().astype(str).to_numpy()
        keys = {(*series, task) for *series, group in rows for task in tasks[group]}
    runs = shown.curves.runs
    all_keys = runs[[*SERIES, "task"]].astype(str).itertuples(index=False, name=None)
    return runs[[key in keys for key in all_keys]]


def _coverages(shown: Shown, drawn: pd.DataFrame | None) -> list[Coverage]:
    """Return the coverage of the intervals on a page; see `card_lines`."""
    groups = shown.groups()
    if drawn is not None and "task" in drawn:  # intervals of single tasks
        titles = task_titles(drawn["task"].unique())
        groups = tuple(task_group(name, title) for name, title in titles.items())
    column = "task" if drawn is not None and "task" in drawn else "group"
    if drawn is not None and "low" in drawn:
        drawn = drawn[has_width(drawn["low"], drawn["high"])]
    keys = None if drawn is None else set(map(tuple, drawn[[*SERIES, column]].to_numpy(str)))
    return [
        one
        for group in groups
        for one in coverages(shown.curves, [group], shown.spec.statistics, shown.bootstrap)
        if keys is None or (*one.series, group.name) in keys
    ]


def multitask_card_lines(shown: Shown, marks: Marks, runs: pd.DataFrame | None = None) -> list[str]:
    """Return the caption of a figure of multi-task agents.

    Args:
        shown: inputs of the figure.
        marks: meaning of lines and marks.
        runs: rows of `Records.runs` on the page; None for all.
    """
    runs = one_per_run(shown.records.runs if runs is None else runs)
    if runs.empty:
        return [marks.text(False)]
    counts = zip(runs["task_set"], map(len, runs["tasks"]), strict=True)
    sets = _listed(f"{short_name(str(name))} ({count} tasks)" for name, count in counts)
    simulators = _simulators(runs)
    sizes = [str(size) for size in runs["model_size"] if size]
    sizes.sort(key=lambda size: (len(size), size))
    facts = [
        _counted(runs),
        sets,
        _seeds(runs, AGENTS, shown.catalog),
        *([f"model size {_listed(map(size_text, sizes))}"] if sizes else []),
        *_precisions(runs),
        f"budget {budgets} updates" if (budgets := _budgets(runs)) else "budget not recorded",
        f"commit {_listed(short_commits(runs['commit'])) or 'not recorded'}",
        *([simulators] if simulators else []),
    ]
    seeds = runs.groupby(AGENTS)["seed"].count()
    several = bool((seeds > 1).any())
    found = _agents_coverage(shown, runs) if several else []
    method = _method(shown, marks, bool((seeds == 1).any()), several, measured=len(found) > 0)
    labels = {key: style.label for key, style in series_styles(runs, shown.catalog).items()}
    coverage = [coverage_note(found, labels)] if several else []
    return [_joined(facts), *_limits_line(_small_models(runs)), method, *coverage]


def _agents_coverage(shown: Shown, runs: pd.DataFrame) -> list[Coverage]:
    """Return the coverage of the intervals of multi-task agents, by task if the figure is."""
    found = []
    titles = task_titles(shown.curves.runs["task"].unique())
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
            whole = own == slice(None)
            group = short_name(name) if whole else titles[agents.tasks[own.start]]
            size = count if whole else 1
            seeds = (len(agents.runs), len(agents.runs))
            if np.isfinite(share):
                found.append(Coverage(series, group, size, seeds, "mean", share))
    return found


def _method(
    shown: Shown, marks: Marks, single: bool, several: bool, *, measured: bool = True
) -> str:
    """Return what is drawn, and the rule and definitions behind it.

    Args:
        shown: inputs of the figure.
        marks: meaning of lines and bands.
        single: whether a score is based on a single seed.
        several: whether a score is based on several seeds.
        measured: whether the coverage of intervals was measured.
    """
    method = (
        f"{marks.text(several)} {shown.rule.what} Statistics as defined by rliable "
        f"{RLIABLE_VERSION}"
    )
    if several and measured:
        method += f"; coverage simulated in {studies_of(shown.bootstrap).reps:,} studies"
    return f"{method}. A single seed has no interval." if single else f"{method}."


def short_name(name: str) -> str:
    """Return the name of a task set, truncated to fit above a panel."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _simulators(ours: pd.DataFrame) -> str:
    """Return the packages of simulators with their versions, each once."""
    return _listed(one for text in ours["simulators"] for one in text.split(", ") if one)


def _precisions(ours: pd.DataFrame) -> list[str]:
    """Return a phrase on the precisions of own runs, unless all are in float32."""
    names = sorted({str(each.get("precision", "fp32")) for each in ours["overrides"]})
    return [] if names == ["fp32"] else [f"precision {_listed(names)}"]


def _limits(ours: pd.DataFrame) -> list[str]:
    """Return a line on runs that differ from the paper's setting, if there are any."""
    limits = []
    if standin := ours["variant"].str.contains("assets=").sum():
        limits.append(f"{counted(standin, 'run')} with assets other than the official ones")
    if other := ours["variant"].str.contains("physics=").sum():
        limits.append(f"{counted(other, 'run')} with physics other than the paper's")
    full = [variant_budget(run.task, run.obs, run.variant) for run in ours.itertuples()]
    reduced = ours[(ours["budget"].map(budget_of) < full) & np.isfinite(full)]
    if len(reduced):
        what = f"with a reduced budget ({_budgets(reduced)} env steps)"
        limits.append(f"{counted(len(reduced), 'run')} {what}")
    return _limits_line([*limits, *_small_models(ours)])


def _budgets(runs: pd.DataFrame) -> str:
    """Return the budgets that were recorded, ascending; empty if none was."""
    known = sorted(budget for budget in map(budget_of, runs["budget"]) if np.isfinite(budget))
    return _listed(f"{budget:,.0f}" for budget in known)


def _small_models(ours: pd.DataFrame) -> list[str]:
    """Return a phrase on models for quick runs, whose sizes have names instead of numbers."""
    sizes = ours.loc[ours["model_size"].str.fullmatch(r"\D+"), "model_size"]
    if sizes.empty:
        return []
    return [
        f"{counted(len(sizes), 'run')} with a model smaller than the paper's ({_listed(sizes)})"
    ]


def _limits_line(limits: Sequence[str]) -> list[str]:
    """Return a line of what differs from the paper's setting, if anything does."""
    return [f"Not the paper's setting: {'; '.join(limits)}."] if limits else []


def _source_label(source: str, shown: Shown) -> str:
    """Return the label of curves that do not come from run directories."""
    styles = shown.catalog.sources
    return styles[source].label if source in styles else f"from {source}"


def _counted(runs: pd.DataFrame) -> str:
    """Return the number of runs, and the states of those that have a run directory.

    A run whose process was killed is still recorded as running, so that both are unfinished.
    """
    ours = runs[runs["source"] == RUNS_SOURCE]
    here = "" if len(ours) == len(runs) else " here"
    states = ours["state"].replace(["RUNNING", "INTERRUPTED"], "unfinished").str.lower()
    listed = ", ".join(f"{n:,} {state}{here}" for state, n in states.value_counts().items())
    return f"{counted(len(runs), 'run')} ({listed})" if listed else counted(len(runs), "run")


def _seeds(runs: pd.DataFrame, keys: Sequence[str], catalog: Catalog) -> str:
    """Return the seeds of some runs as text, or how many each series has if these differ.

    Args:
        runs: the runs.
        keys: columns whose values runs that differ in the seed have in common.
        catalog: labels of the series.
    """
    sets = runs.groupby(list(keys), sort=False)["seed"].agg(frozenset)
    if len(set(sets)) <= 1:
        seeds = sorted(set(runs["seed"]))
        return f"seed{'s' if len(seeds) > 1 else ''} {_listed(seeds)}"
    what = "seeds of each task" if "task" in keys else "seeds of each agent"
    per_series = sets.map(len).groupby(level=SERIES, sort=False).agg(["min", "max"])
    labels = {key: s.label for key, s in series_styles(runs, catalog).items()}
    names: dict[str, list[str]] = {}
    for series, (low, high) in zip(per_series.index, per_series.to_numpy(), strict=True):
        number = f"{low}" if low == high else f"{low} to {high}"
        names.setdefault(number, []).append(labels[series])
    if len(names) == 1:
        return f"{what}: {next(iter(names))}"
    return f"{what}: " + "; ".join(
        f"{number} of {_listed(own, most=3)}" for number, own in sorted(names.items())
    )


def _joined(facts: Sequence[str]) -> str:
    """Join facts to a line."""
    return " · ".join(facts)


def _listed(values: Iterable[object], most: int = 8) -> str:
    """Return the distinct values in order of appearance, at most this many of them."""
    distinct = list(dict.fromkeys(str(value) for value in values))
    rest = len(distinct) - most
    return ", ".join(distinct[:most]) + (f" and {rest} more" if rest > 0 else "")
