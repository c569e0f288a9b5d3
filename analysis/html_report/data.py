"""Data of the report: everything that the page shows, as one JSON object.

Numbers are rounded to the resolution of a screen, and step lists that curves share are stored only
once, so that 2,500 runs fit into a few megabytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from analysis.figures.figure_specs import Catalog
from analysis.figures.line_plots import AXES
from analysis.figures.styles import series_styles
from analysis.html_report.claims import claims_page
from analysis.html_report.headlines import MEDIAN_NOTE, headlines, rounded
from analysis.html_report.leaderboard import leaderboard_page
from analysis.html_report.multitask import multitask_pages
from analysis.html_report.studies import studies_page
from analysis.html_report.summary import display_names, next_steps, summary
from analysis.html_report.tables import audit_texts, table_data
from analysis.records.evaluations import ENV_STEPS, NUM_UPDATES, TASK_SCORES
from analysis.records.field_results import Series as FieldSeries
from analysis.records.load import SERIES, Records
from analysis.records.problems import Problem
from analysis.records.progress import stage
from analysis.records.run_reader import parts_of, short_commits
from analysis.records.sources import PUBLISHED, RUNS_SOURCE
from analysis.records.studies import RecordedStudy
from analysis.records.train_csv import STEP, read_training
from analysis.stats.against_default import against_default
from analysis.stats.against_published import compare_domains, compare_tasks
from analysis.stats.aggregate import RLIABLE_VERSION
from analysis.stats.audit import FINDINGS, audit_all
from analysis.stats.coverage import coverages, studies_of
from analysis.stats.equivalence_tables import MEASURED, domain_texts, task_texts
from analysis.stats.estimate_texts import coverage_note, estimate_text
from analysis.stats.horizons import task_group
from analysis.stats.margins import TASK_MARGIN
from analysis.stats.ragged_curves import ScoreCurves, paper_budget
from analysis.stats.rules import Rule
from analysis.stats.selection import Series
from analysis.stats.task_curves import REFERENCE_LINES, reference_scores, task_curves
from analysis.stats.task_titles import task_titles
from tdmpc2.common.system.texts import counted
from tdmpc2.envs.tasks import TASKS

SCORES_OF_METRICS = {score.metric: score.scale for score in TASK_SCORES.values()}
"""Factor that maps a metric to a score in [0, 1]."""
TRAINING_POINTS = 60
"""Maximum number of points of a training curve."""


class Grids:
    """Step lists, each stored once."""

    def __init__(self) -> None:
        self.lists: list[list[float]] = []
        self._places: dict[bytes, int] = {}

    def place(self, steps: np.ndarray) -> int:
        """Return the index of the list, which is added if it is new."""
        key = np.asarray(steps, "float64").tobytes()
        if key not in self._places:
            self._places[key] = len(self.lists)
            self.lists.append(rounded(steps, 9))
        return self._places[key]


def report_data(
    records: Records,
    catalog: Catalog,
    rule: Rule,
    files: Sequence[FieldSeries] = (),
    studies: Sequence[RecordedStudy] = (),
    *,
    tasks_given: str | None = None,
) -> tuple[dict[str, Any], list[Problem]]:
    """Return everything that the page shows.

    Args:
        records: records from all sources.
        catalog: styles, groups and bootstrap settings.
        rule: treatment of missing and repeated evaluations.
        files: curves of other people's result files, for the leaderboard.
        studies: studies that stop when decided.
        tasks_given: option `tasks=` that has selected the records. Claims of the paper are about
            groups of tasks, so they are not shown then.

    Returns:
        An object for JSON; and all problems found, including those of the records.
    """
    problems = list(records.problems)
    with stage("multi-task agents"):
        multitask, new_problems = multitask_pages(records, catalog, rule)
    problems += new_problems
    with stage("claims of the paper"):
        claims = claims_page(records, catalog) if tasks_given is None else None
    all_curves = [ScoreCurves(records), ScoreCurves(records, NUM_UPDATES)]
    curves = all_curves[0]
    multitask_runs = records.multitask_summary()
    records = records.select(step_unit=ENV_STEPS)
    with stage("learning curves of the tasks"):
        numbers, new_problems = task_curves(curves, rule, catalog.bootstrap)
    problems += new_problems
    styles = series_styles(numbers, catalog)
    places = {series: place for place, series in enumerate(styles)}
    with stage("scores of the groups of tasks"):
        overview, coverage = headlines(records, rule, catalog, places)
    with stage("leaderboard"):
        board = leaderboard_page(records, files, catalog)
    grids = Grids()
    with stage("runs and training metrics"):
        levels = _levels(curves, catalog)
        tasks = _tasks(records, curves, numbers, places, grids, rule, problems, levels)
    with stage("audit of the records"):
        findings = audit_all(all_curves, rule)
    names = display_names(catalog)
    labels = {key: style.label for key, style in styles.items()}
    with stage("comparison with the published curves"):
        verdicts, compared = _verdicts(curves, rule, names)
    facts = _facts(records, curves, rule, catalog, multitask_runs)
    if tasks_given is not None:
        facts.append(f"Only tasks={tasks_given} are shown, so no claim of the paper is judged")
    data = {
        "summary": summary(curves, compared, names, multitask_runs),
        "names": names,
        "facts": facts,
        "note": f"{coverage_note(coverage, labels)} {MEDIAN_NOTE}",
        "series": [
            {
                **{"label": style.label, "color": to_hex(style.color)},
                **{"dashes": style.dashes, "marker": style.marker},
                **{"source": series[0], "variant": series[2]},
            }
            for series, style in styles.items()
        ],
        "groups": overview,
        "tasks": tasks,
        "grids": grids.lists,
        "verdicts": verdicts,
        "ablations": _ablations(curves, rule),
        "studies": studies_page(studies),
        "multitask": multitask,
        "leaderboard": board,
        "claims": claims,
        "audit": {**table_data(audit_texts(findings, names, styles)), "findings": FINDINGS},
        "problems": [[p.severity, p.where, p.line, p.what] for p in dict.fromkeys(problems)],
    }
    return data, list(dict.fromkeys(problems))


def _tasks(
    records: Records,
    curves: ScoreCurves,
    numbers: pd.DataFrame,
    places: Mapping[Series, int],
    grids: Grids,
    rule: Rule,
    problems: list[Problem],
    levels: Mapping[tuple[Series, str], str],
) -> list[dict[str, Any]]:
    """Return every task with its mean curves, its runs, and its reference scores.

    Args:
        records: records from all sources.
        curves: their score curves.
        numbers: mean curves of the tasks.
        places: index of each series on the page.
        grids: steps of all curves, to which new ones are added.
        rule: treatment of missing and repeated evaluations.
        problems: problems found, to which new ones are added.
        levels: level of the intervals by series and task.
    """
    lines = reference_scores(records)
    means: dict[str, list[dict[str, Any]]] = {}
    metrics: dict[str, str] = {}
    for key, own in numbers.groupby([*SERIES, "task"]):
        *series, task = map(str, key)
        metrics[task] = str(own["metric"].iloc[0])
        lines_of = {name: rounded(own[column].to_numpy()) for name, column in _MEANS}
        position = {"s": places[tuple(series)], "x": grids.place(own["step"].to_numpy())}
        level = {"level": levels.get((tuple(series), task), "")}
        means.setdefault(task, []).append({**position, **lines_of, **level})
    runs: dict[str, list[dict[str, Any]]] = {}
    for row, curve in zip(curves.runs.to_dict("records"), curves.curves, strict=True):
        run = {str(name): value for name, value in row.items()}
        steps, values = rule.resolved(curve.steps, curve.values)
        entry = {
            "s": places[tuple(str(run[name]) for name in SERIES)],
            "seed": int(run["seed"]),
            "x": grids.place(steps),
            "y": rounded(values),
        }
        if run["source"] == RUNS_SOURCE:
            entry |= _own_run(run, problems)
        runs.setdefault(str(run["task"]), []).append(entry)
    order = {name: place for place, name in enumerate(TASKS)}
    titles = task_titles(means)
    return [
        {
            "name": task,
            "title": titles[task],
            "domain": TASKS[task].domain if task in TASKS else "other",
            "metric": AXES[metrics[task]][0],
            "scale": AXES[metrics[task]][1],
            "full": int(AXES[metrics[task]][1] / SCORES_OF_METRICS[metrics[task]]),
            "curves": sorted(means[task], key=lambda curve: curve["s"]),
            "runs": sorted(runs[task], key=lambda run: (run["s"], run["seed"])),
            "reference_scores": dict(
                zip(REFERENCE_LINES, rounded(lines.loc[[task]].to_numpy()[0]), strict=True)
            ),
        }
        for task in sorted(means, key=lambda name: (order.get(name, len(order)), name))
    ]


def _levels(curves: ScoreCurves, catalog: Catalog) -> dict[tuple[Series, str], str]:
    """Return the level of the interval of the mean, by series and task."""
    groups = [task_group(str(task), str(task)) for task in curves.runs["task"].unique()]
    found = coverages(curves, groups, ["mean"], catalog.bootstrap)
    return {(one.series, one.group): one.label for one in found}


_MEANS = (("m", "mean"), ("l", "low"), ("h", "high"))


def _own_run(run: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """Return what only a run directory contains: state, settings, path, training curves, videos."""
    directory = Path(run["directory"])
    training = read_training(directory, problems, TRAINING_POINTS)
    videos = [path for path in directory.glob("videos/*.mp4") if path.stem.isdecimal()]
    video = max(videos, key=lambda path: int(path.stem), default=None)
    return {
        "state": run["state"],
        "commit": run["commit"],
        "simulators": run["simulators"],
        "overrides": run["overrides"],
        "directory": str(directory),
        "training": {
            str(name): rounded(training[name], 9 if name == STEP else 4) for name in training
        }
        if len(training)
        else {},
        "step": STEP,
        "video": None if video is None else video.resolve().as_uri(),
    }


def _verdicts(
    curves: ScoreCurves, rule: Rule, names: dict[str, str]
) -> tuple[dict[str, Any] | None, tuple[pd.DataFrame, pd.DataFrame]]:
    """Return the comparison with the published curves, and its tables of tasks and domains.

    Without common tasks these are None and empty tables.

    Args:
        curves: single-task runs from all sources.
        rule: treatment of missing and repeated evaluations.
        names: labels of methods and domains.
    """
    if PUBLISHED not in set(curves.runs["source"]):
        return None, (pd.DataFrame(), pd.DataFrame())
    found = compare_tasks(curves, rule, "default", TASK_MARGIN)
    tasks = found.tasks
    if tasks.empty:
        return None, (tasks, pd.DataFrame())
    domains = compare_domains(found, None)
    page = {
        "tasks": table_data(task_texts(tasks)),
        "domains": table_data(domain_texts(domains)),
        "names": {title: task for task, title in task_titles(tasks["task"].unique()).items()},
        "counts": {str(name): int(n) for name, n in tasks["verdict"].value_counts().items()},
        "next": next_steps(curves, tasks, names),
        "rules": RULES_OF_VERDICTS,
        "left_out": found.left_out,
    }
    return page, (tasks, domains)


RULES_OF_VERDICTS = (
    "A score is the mean of the last five evaluations that both sides have; step 0 never counts.",
    "The difference is our mean minus the published mean, in points, with Welch's 95 % interval; "
    "its coverage in simulated studies of these runs follows if it is not 92 to 98 %.",
    "Reproduced: two one-sided tests at 5 % place the difference within the margin.",
    "Worse, better: not reproduced, and different after correction for the number of tests.",
    "Not enough data: neither. Domains that the published seeds cannot settle do not decide.",
)


def _ablations(curves: ScoreCurves, rule: Rule) -> dict[str, Any] | None:
    """Return the comparison of every variant with the default, None if there is none."""
    found = against_default(curves, rule)
    if found.empty:
        return None
    texts = {
        name: found[name].map(lambda score: estimate_text(score, np.nan, np.nan))
        for name in ("score", "default")
    }
    measured = found[MEASURED].to_numpy(float).tolist()
    texts["difference"] = pd.Series([estimate_text(*row) for row in measured], found.index)
    return table_data(found.assign(**texts).drop(columns=["low", "high", "coverage"]))


def _facts(
    records: Records, curves: ScoreCurves, rule: Rule, catalog: Catalog, multitask: str
) -> list[str]:
    """Return the lines on the origin of the data and the method of aggregation."""
    runs = records.runs
    full = np.array([paper_budget(row.task, row.obs) for row in curves.runs.itertuples()])
    known = np.isfinite(full)  # environments of users have no budget in the paper
    known_of = set(curves.runs["source"][known])
    short = curves.runs["source"][known & (curves.last_steps < full)].value_counts()
    lines = []
    for source, own in runs.groupby("source"):
        if source == RUNS_SOURCE:
            states = ", ".join(f"{n:,} {state}" for state, n in own["state"].value_counts().items())
        else:  # curves do not contain the final state of their runs
            states = f"{short.get(source, 0):,} end before the task's full budget"
        style = catalog.sources.get(str(source))
        name = "run here" if source == RUNS_SOURCE else style.label if style else f"from {source}"
        size = f"{counted(len(own), 'run')}, {name}: {counted(own['task'].nunique(), 'task')}"
        lines.append(f"{size}, {states}" if source in known_of | {RUNS_SOURCE} else size)
    if multitask:
        lines.append(f"{multitask}: on the page Multi-task")
    ours = runs[runs["source"] == RUNS_SOURCE]
    commits = sorted(set(short_commits(ours["commit"])))
    if commits:
        lines.append(f"Commits: {', '.join(commits)}")
    simulators = sorted(set(parts_of(ours["simulators"])))
    if simulators:
        lines.append(f"Simulators: {', '.join(simulators)}")
    lines.append(
        f"Statistics as defined by rliable {RLIABLE_VERSION}, with t-intervals over seeds within "
        f"tasks; coverage simulated in {studies_of(catalog.bootstrap).reps:,} studies."
    )
    return [*lines, f"Rule “{rule.name}”: {rule.what}"]
