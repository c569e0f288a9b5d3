"""Data of the report's page on multi-task agents: scores by model size, verdicts, tasks."""

from __future__ import annotations

from typing import Any

from analysis.figures.figure_specs import Catalog, FigureSpec
from analysis.figures.multitask_plots import task_table
from analysis.figures.registry import select
from analysis.figures.scaling_plots import paper_scores, scaling_spec, scaling_table
from analysis.html_report.tables import table_data
from analysis.records.load import Records
from analysis.records.problems import Problem
from analysis.stats.margins import DOMAIN_MARGINS
from analysis.stats.multitask_claims import agent_texts, compare_agents
from analysis.stats.rules import Rule


def multitask_pages(
    records: Records, catalog: Catalog, rule: Rule
) -> tuple[dict[str, Any] | None, tuple[Problem, ...]]:
    """Return the tables of the page, None if no multi-task run has an evaluation.

    Args:
        records: records from all sources.
        catalog: styles, quoted scores and bootstrap settings.
        rule: treatment of missing and repeated evaluations.

    Returns:
        An object for JSON: scores by model size with costs, comparison with the paper's scores, and
        final score of every task; and the problems found.
    """
    spec = scaling_spec(catalog)
    shown = select(spec, records, rule, catalog)
    if not len(shown.curves):
        return None, ()
    sizes, problems = scaling_table(shown)
    margin = DOMAIN_MARGINS["tdmpc2"]
    claims = compare_agents(shown.curves, paper_scores(spec), rule, "default", margin)
    tasks = select(FigureSpec("tasks", "multitask_tasks"), records, rule, catalog)
    _, scores, more = task_table(tasks)
    tables = {"sizes": sizes, "claims": agent_texts(claims), "tasks": scores}
    data = {name: table_data(table) for name, table in tables.items()}
    return {**data, "quoted_from": spec.quoted_from}, (*problems, *more)
