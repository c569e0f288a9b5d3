"""Room of the figure catalog: what `figures.toml` says, checked."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from analysis.stats.bootstrap import STATISTICS, Bootstrap
from analysis.stats.selection import Group
from analysis.stats.task_curves import REFERENCE_LINES
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.envs.tasks import TASKS, get_suite

_LISTS = (
    *("sources", "methods", "variants", "tasks", "sizes"),
    *("groups", "statistics", "quoted"),
)
LEAST_REPS = 100
OURS = "ours"
"""In place of a list of tasks: those of which there are run directories."""


@dataclass(frozen=True)
class LineStyle:
    """How one line is drawn and named.

    Attributes:
        label: its text in the legend.
        color: any matplotlib color.
        dashes: lengths on, off, on … in line widths; empty for a solid line.
    """

    label: str
    color: str
    dashes: tuple[float, ...] = ()


@dataclass(frozen=True)
class FigureSpec:
    """One figure: a plot function and the runs it shows.

    Attributes:
        name: of the table, and of the files written.
        plot: a function of `analysis/figures/registry.py`.
        title: what it shows, in a few words.
        sources: where the runs come from, all when empty.
        methods: methods shown, all when empty.
        variants: variants shown, all when empty.
        tasks: task names or shell patterns shown, all when empty; a table names either
            these or a suite, which stands for its tasks. For agents of several tasks they are
            names of sets of tasks.
        only_ours: whether only tasks with run directories are shown, and those no further than
            the run directories go (`tasks = "ours"`).
        groups: of tasks, for what is averaged over tasks; one for each domain when empty.
        statistics: over the scores of a group.
        sizes: model sizes shown, all when empty.
        obs: what the agents see, `state` or `rgb`; both when empty.
        reference_scores: whether to draw what a task scores without learning.
        seeds: whether to draw every seed beside the mean.
        quantity: column of `train.csv`, for what is no score.
        per_page: most panels on a page.
        quoted: numbers quoted from elsewhere, drawn beside the runs or without any; their keys are
            the plot function's.
        quoted_from: where from.
        command: what makes the runs it needs; drawn in its place where there are none.
    """

    name: str
    plot: str
    title: str = ""
    sources: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    only_ours: bool = False
    groups: tuple[Group, ...] = ()
    statistics: tuple[str, ...] = ("mean",)
    sizes: tuple[str, ...] = ()
    obs: str = ""
    reference_scores: bool = False
    seeds: bool = False
    quantity: str = "grad_norm"
    per_page: int = 30
    quoted: tuple[dict[str, Any], ...] = ()
    quoted_from: str = ""
    command: str = ""


@dataclass(frozen=True)
class Catalog:
    """Everything `figures.toml` holds.

    Attributes:
        bootstrap: how intervals are drawn.
        methods: style of each method, in the order of the legend.
        sources: what to call curves that are not from run directories, and their dashes.
        reserve: colors for variants and for methods without a style.
        reference_scores: style of each line of `task_curves.REFERENCE_LINES`.
        groups: of tasks, by name.
        figures: by name, in the order of the file.
    """

    bootstrap: Bootstrap
    methods: dict[str, LineStyle]
    sources: dict[str, LineStyle]
    reserve: tuple[str, ...]
    reference_scores: dict[str, LineStyle]
    groups: dict[str, Group]
    figures: dict[str, FigureSpec]


def read_catalog(path: Path, plots: Collection[str]) -> Catalog:
    """Reads and checks the catalog.

    Args:
        path: `figures.toml`.
        plots: names of the plot functions there are.

    Raises:
        UserError: the file is missing, no TOML, or holds something unknown.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: {error}") from error
    _check(content, {field.name for field in fields(Catalog)}, str(path))
    try:
        groups = {name: _group(name, g, path) for name, g in content.get("groups", {}).items()}
        catalog = Catalog(
            bootstrap=Bootstrap(**content["bootstrap"]),
            methods={name: _line(style) for name, style in content["methods"].items()},
            sources={
                name: _line({"color": "#000000", **style})
                for name, style in content.get("sources", {}).items()
            },
            reserve=tuple(content["reserve"]["colors"]),
            reference_scores={
                name: _line(content["reference_scores"][name]) for name in REFERENCE_LINES
            },
            groups=groups,
            figures={
                name: _figure(name, spec, groups, path) for name, spec in content["figures"].items()
            },
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: missing or unknown entry, {error}") from error
    for spec in catalog.figures.values():
        if spec.plot not in plots:
            hint = did_you_mean(spec.plot, plots)
            raise UserError(f"{path}: figure {spec.name} has no plot function {spec.plot}{hint}")
    return catalog


def with_reps(catalog: Catalog, reps: int) -> Catalog:
    """The catalog with another number of resamples; UserError where they are too few."""
    if reps < LEAST_REPS:
        raise UserError(f"reps={reps}: intervals need at least {LEAST_REPS} resamples")
    return replace(catalog, bootstrap=replace(catalog.bootstrap, reps=reps))


def quotes_of(
    spec: FigureSpec, needed: Collection[str], optional: Collection[str] = ()
) -> tuple[dict[str, Any], ...]:
    """The quoted numbers of a figure; UserError where a key is missing or unknown.

    Args:
        spec: of the figure.
        needed: keys that its plot function reads of each.
        optional: keys that it reads where they are there.
    """
    where = f"figure {spec.name}, quoted"
    for one in spec.quoted:
        _check(one, (*needed, *optional), where)
        for key in needed:
            if key not in one:
                raise UserError(f"{where}: {one} lacks {key}")
    return spec.quoted


def _line(style: dict[str, Any]) -> LineStyle:
    """A line style; TypeError on an unknown or missing key."""
    return LineStyle(**{**style, "dashes": tuple(style.get("dashes", ()))})


def _group(name: str, table: dict[str, Any], path: Path) -> Group:
    """One table under `[groups]`."""
    where = f"{path}: group {name}"
    _check(table, {"label", "suite", "tasks", "horizon"}, where)
    if ("suite" in table) == ("tasks" in table):
        raise UserError(f"{where}: name either a suite or tasks")
    tasks = (
        [task.name for task in get_suite(table["suite"])] if "suite" in table else table["tasks"]
    )
    for task in tasks:
        if task not in TASKS:
            raise UserError(f"{where}: unknown task {task}{did_you_mean(task, TASKS)}")
    return Group(name, table["label"], tuple(tasks), table.get("horizon"))


def _figure(name: str, table: dict[str, Any], groups: dict[str, Group], path: Path) -> FigureSpec:
    """One table under `[figures]`."""
    where = f"{path}: figure {name}"
    known = {field.name for field in fields(FigureSpec)} - {"name", "only_ours"} | {"suite"}
    _check(table, known, where)
    if {"suite", "tasks"} <= set(table):
        raise UserError(f"{where}: names both a suite and tasks")
    content = {**table, "only_ours": table.get("tasks") == OURS}
    if content["only_ours"]:
        del content["tasks"]
    for key in _LISTS:
        value = content.get(key, [])
        if not isinstance(value, list):
            raise UserError(f"{where}: {key} must be a list, as in {key} = ['{value}']")
        if key in content:
            content[key] = tuple(value)
    if "suite" in content:
        content["tasks"] = tuple(task.name for task in get_suite(content.pop("suite")))
    for key, there in (("groups", groups), ("statistics", STATISTICS)):
        for value in content.get(key, ()):
            if value not in there:
                raise UserError(f"{where}: unknown {key[:-1]} {value}{did_you_mean(value, there)}")
    if content.get("quoted") and not content.get("quoted_from"):
        raise UserError(f"{where}: quoted numbers need quoted_from")
    content["groups"] = tuple(groups[group] for group in content.get("groups", ()))
    return FigureSpec(name=name, **content)


def _check(content: dict[str, Any], known: Collection[str], where: str) -> None:
    """UserError on the first key that is not known."""
    for key in content:
        if key not in known:
            raise UserError(f"{where}: unknown key {key}{did_you_mean(key, known)}")
