"""Opening paragraph of the report, and the commands that would settle open comparisons."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from analysis.figures.figure_specs import Catalog
from analysis.records.precisions import in_its_precision
from analysis.records.run_reader import short_commits
from analysis.records.sources import PUBLISHED, RUNS_SOURCE
from analysis.stats.equivalence_tables import series_details
from analysis.stats.margins import NOT_JUDGED, OPEN
from analysis.stats.ragged_curves import ScoreCurves, budget_of, paper_budget, variant_budget
from tdmpc2.common.run.spec import list_of_seeds
from tdmpc2.common.system.texts import counted, span_text
from tdmpc2.envs.tasks import SUITES

ALL = "all"
"""Name of the mean over all domains in the table of domains."""
_FEWEST_SEEDS = 3
_MOST_TASKS = 12
"""Commands name at most this many tasks."""
_SETTINGS = ("obs", "assets", "precision")
"""Settings in brackets behind a variant, `default[obs=rgb]`, with which a run has that variant."""


def display_names(catalog: Catalog) -> dict[str, str]:
    """Return the labels of methods and domains by their names in records."""
    methods = {name: style.label for name, style in catalog.methods.items()}
    return {
        ALL: "all domains",
        **{name: group.label for name, group in catalog.groups.items()},
        **methods,
    }


def summary(
    curves: ScoreCurves,
    compared: tuple[pd.DataFrame, pd.DataFrame],
    names: dict[str, str],
    multitask: str,
) -> str:
    """Return what was run, what reproduced, what did not, and how certain that is.

    Args:
        curves: single-task runs from all sources.
        compared: comparison of the tasks and of the domains with the published curves; empty if
            there is none.
        names: labels of methods and domains.
        multitask: number of multi-task runs as text; empty if there are none.
    """
    tasks, domains = compared
    sentences = [_what_was_run(curves, names)]
    if multitask:
        sentences.append(f"In addition: {multitask}.")
    if RUNS_SOURCE not in set(curves.runs["source"]):
        return " ".join(sentences)
    if domains.empty:
        if PUBLISHED in set(curves.runs["source"]):
            sentences.append("No run has a published counterpart, so nothing was compared.")
        else:
            sentences.append(
                "Without published curves, nothing was compared with the paper; "
                "`python analysis/fetch_published.py` downloads them."
            )
        return " ".join(sentences)
    # The sum of the domains has no verdict of its own.
    details = [f" ({text})" if text else "" for text in series_details(domains)]
    domains = domains.assign(details=details)
    judged = domains[(domains["domain"] != ALL) | (domains["verdict"] != NOT_JUDGED)]
    for verdict, own in judged.groupby("verdict", sort=False):
        columns = own[["method", "details", "domain", "compared", "num_tasks"]]
        listed = _listed(
            f"{names.get(method, method)}{details} on {names.get(domain, domain)} "
            f"({compared} of {size} tasks)"
            for method, details, domain, compared, size in columns.to_numpy()
        )
        sentences.append(f"{_heading(str(verdict))}: {listed}.")
    return " ".join([*sentences, _certainty(tasks, domains)])


def next_steps(
    curves: ScoreCurves, tasks: pd.DataFrame, names: dict[str, str], variant: str = "default"
) -> list[tuple[str, str]]:
    """Return reasons with commands: more seeds for open tasks, and methods that were not run.

    Args:
        curves: single-task runs from all sources.
        tasks: comparison of the tasks with the published curves.
        names: labels of methods.
        variant: variant of the runs that are compared, without settings in brackets.
    """
    ours = curves.runs[curves.runs["source"] == RUNS_SOURCE]
    ours = ours[ours["variant"].str.split("[").str[0] == variant]
    exact = [in_its_precision(*row) for row in ours[["variant", "overrides"]].to_numpy()]
    steps: list[tuple[str, str]] = []
    unfinished = ours.assign(variant=exact)[~ours["state"].isin(["COMPLETED", "DIVERGED"])]
    for method, settings, own in _series(unfinished):
        why = f"{counted(len(own), 'unfinished run')} of {_label(names, method, settings)}:"
        steps.append((why, _continue(own, method, settings)))
    undecided = _in_one_precision(tasks[tasks["verdict"] == OPEN], ours.assign(exact=exact))
    # A larger margin helps only if there is a difference with an interval.
    interval = np.isfinite(undecided["error"])
    enough = undecided["num_ours"] >= _FEWEST_SEEDS
    hopeless = interval & undecided["seeds_needed"].isna() & enough
    for method, settings, own in _series(undecided[hopeless]):
        why = f"{_listed(own['task'])} of {_label(names, method, settings)}: "
        why += "more seeds would not decide; larger margin:"
        compare = f"python analysis/reproduce.py methods={method} margin=20"
        steps.append((why, compare))
    # Nothing settles tasks with enough seeds that show no spread, or with one published seed.
    settled = ~interval & enough & (undecided["evaluations"] > 0)
    undecided = undecided[~hopeless & ~settled]
    remarks = undecided["remark"].fillna("")
    wanted = undecided["seeds_needed"].fillna(undecided["num_ours"]).clip(lower=_FEWEST_SEEDS)
    table = undecided.assign(remark=remarks, wanted=wanted.map("{:.0f}".format))
    for method, settings, rows in _series(table):
        for (seeds, remark), own in rows.groupby(["wanted", "remark"], sort=False):
            label = _label(names, method, settings) + (f" ({remark})" if remark else "")
            why = f"{counted(len(own), 'undecided task')} of {label}:"
            steps.append((why, _launch(own["task"].unique(), method, settings, str(seeds))))
    run = set(ours["method"])
    published = sorted(set(curves.runs.loc[curves.runs["source"] == PUBLISHED, "method"]) - run)
    if published:
        why = (
            f"Published, but not run here: {_listed(names.get(name, name) for name in published)}:"
        )
        launch = f"python sweeps/launch.py suite=all104 methods={','.join(published)} seeds=3"
        steps.append((why, launch))
    return steps


def _in_one_precision(tasks: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Name the precision in the variants of tasks whose runs all have the same.

    Args:
        tasks: rows of series and tasks.
        runs: the runs; column `exact` is the name of the variant with the precision.
    """
    key = ["method", "variant", "task"]
    names = runs.groupby(key)["exact"].agg(["nunique", "first"])
    known = names.loc[names["nunique"] == 1, "first"].to_dict()
    places = tasks[key].itertuples(index=False, name=None)
    return tasks.assign(variant=[known.get(place, place[1]) for place in places])


def _series(table: pd.DataFrame) -> Iterator[tuple[str, list[str], pd.DataFrame]]:
    """Yield method, settings and rows of each series that a command can continue or repeat."""
    for (method, variant), own in table.groupby(["method", "variant"], sort=False):
        settings = re.findall(r"[^\[\],]+", str(variant))[1:]
        if all(one.partition("=")[0] in _SETTINGS for one in settings):
            yield str(method), settings, own


def _label(names: dict[str, str], method: str, settings: Sequence[str]) -> str:
    """Return the label of a method, with the settings of its runs in parentheses."""
    return names.get(method, method) + (f" ({', '.join(settings)})" if settings else "")


def _what_was_run(curves: ScoreCurves, names: dict[str, str]) -> str:
    """Return the methods, tasks, seeds and budgets of the runs made here."""
    ours = curves.runs[curves.runs["source"] == RUNS_SOURCE]
    if ours.empty:
        return "No run was made here; the report shows curves from elsewhere only."
    methods = _listed(names.get(method, method) for method in ours["method"].unique())
    tasks, domains = set(ours["task"]), ours["domain"].unique()
    rated = tasks & {task.name for task in SUITES["all104"]}
    others = len(tasks - rated)
    on = f"{len(rated)} of {len(SUITES['all104'])} tasks" if rated else counted(others, "task")
    on += f" and {counted(others, 'other')}" if rated and others else ""
    on += "" if rated else f" outside the paper's {len(SUITES['all104'])}"
    seeds = ours.groupby(["method", "variant", "task"])["seed"].nunique()
    few, many = seeds.min(), seeds.max()
    count = span_text(few, many)
    full = np.array([variant_budget(run.task, run.obs, run.variant) for run in ours.itertuples()])
    budgets = ours["budget"].map(budget_of).to_numpy(float)  # infinity if not recorded
    known = np.isfinite(full)  # environments of users have no budget in the paper
    reduced = int((known & (budgets < full)).sum())
    some = "all " if reduced == len(ours) else f"{counted(reduced, 'run')} "
    some = "" if len(ours) == 1 else some
    budget = f", {some}with less than the paper's budget" if reduced else ""
    if np.isfinite([*full, *budgets]).all() and not reduced:
        budget = ", with the paper's budgets"
    commits = sorted(set(short_commits(ours["commit"])))
    at = f", at commit {_listed(commits)}" if commits else ""
    return (
        f"{len(ours):,} run{'s' * (len(ours) > 1)} of {methods} on {on} "
        f"({_listed(names.get(name, name) for name in domains)}), "
        f"{count} seed{'s' * (many > 1)} per task{budget}{at}."
    )


def _heading(verdict: str) -> str:
    """Return the beginning of a sentence that lists the domains of a verdict."""
    headings = {OPEN: "Not settled", NOT_JUDGED: "Not judged", "worse": "Did not reproduce (worse)"}
    return headings.get(verdict, verdict[:1].upper() + verdict[1:])


def _certainty(tasks: pd.DataFrame, domains: pd.DataFrame) -> str:
    """Return on what the verdicts rest, and their limits."""
    compared = tasks[tasks["evaluations"] > 0]
    if compared.empty:
        return "No task has an evaluation that could be compared with the published curves."
    few, many = compared["num_theirs"].min(), compared["num_theirs"].max()
    count = span_text(few, many)
    single = domains[domains["domain"] != ALL]
    share = single["compared"].sum() / single["num_tasks"].sum()
    seeds_text = f"{count} published seed{'s' * (many > 1)}"
    return (
        f"Verdicts are tests at 5 % against {seeds_text} per task. They cover {100 * share:.0f} % "
        "of the tasks of these methods and domains, and not the others."
    )


def _continue(runs: pd.DataFrame, method: str, settings: Sequence[str]) -> str:
    """Return the commands that continue runs of a method with their own budgets, one per line.

    Args:
        runs: the runs.
        method: name of the method.
        settings: settings of the runs, as arguments.
    """
    tasks: dict[tuple[str, int | None], list[str]] = {}
    for (task, obs, budget), own in runs.groupby(["task", "obs", "budget"], dropna=False):
        listed = list_of_seeds(sorted(set(own["seed"])))
        until = budget_of(budget)
        steps = None if until in (np.inf, paper_budget(task, obs)) else int(until)
        tasks.setdefault((listed, steps), []).append(str(task))
    return "\n".join(
        _launch(names, method, settings, seeds, steps) for (seeds, steps), names in tasks.items()
    )


def _launch(
    tasks: Iterable[str],
    method: str,
    settings: Sequence[str],
    seeds: str,
    env_steps: int | None = None,
) -> str:
    """Return the command that runs a method on tasks.

    Args:
        tasks: names of the tasks.
        method: name of the method.
        settings: settings of the runs, as arguments.
        seeds: number of seeds, or list of seeds.
        env_steps: budget; None for that of the tasks.
    """
    chosen = sorted(tasks)
    listed = ",".join(chosen[:_MOST_TASKS])
    budget = f" env_steps={env_steps}" if env_steps else ""
    more = f"  # and {len(chosen) - _MOST_TASKS} more tasks" if len(chosen) > _MOST_TASKS else ""
    command = f"python sweeps/launch.py tasks={shlex.quote(listed)} methods={method}"
    given = "".join(f" {shlex.quote(one)}" for one in settings)
    return f"{command} seeds={seeds}{given}{budget}{more}"


def _listed(values: Iterable[object]) -> str:
    """Return the values separated by commas, shortened to eight."""
    named = [str(value) for value in values]
    return ", ".join(named[:8]) + (f" and {len(named) - 8} more" if len(named) > 8 else "")
