"""The figure catalog `figures.toml`: data classes, parsing and validation."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from analysis.figures.catalog_file import read_tables
from analysis.stats.bootstrap import Bootstrap
from analysis.stats.horizons import Group
from analysis.stats.run_statistics import STATISTICS
from analysis.stats.task_curves import REFERENCE_LINES
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.envs.tasks import TASKS, get_suite

_LISTS = (
    *("sources", "methods", "variants", "tasks", "sizes"),
    *("groups", "statistics", "quantities", "quoted"),
)
OURS = "ours"
"""Value of `tasks` that selects the tasks that have run directories."""


_DASHES = ((), (3.0, 1.0), (1.0, 1.0), (6.0, 2.0), (5.0, 1.0, 1.0, 1.0), (2.0, 2.0))
"""Dashes of the reserve styles when they are used for the first time, the second time, ...; the
legend shows several of each."""


@dataclass(frozen=True)
class LineStyle:
    """Style and label of a line.

    Attributes:
        label: text in the legend.
        color: any matplotlib color.
        dashes: lengths on, off, on … in line widths; empty for a solid line.
        marker: matplotlib marker of points of the line, which distinguishes it without color.
        hatch: matplotlib hatches of bars, likewise; empty for a plain bar.
    """

    label: str
    color: str
    dashes: tuple[float, ...] = ()
    marker: str = ""
    hatch: str = ""


@dataclass(frozen=True)
class FigureSpec:
    """One figure: a plot function and the runs it shows.

    Attributes:
        name: name of the table, and of the output files.
        plot: key of `registry.PLOTS`.
        title: short description.
        sources: sources of the runs, all if empty.
        methods: methods shown, all if empty.
        variants: variants shown, all if empty.
        tasks: task names or shell patterns, all if empty; for multi-task agents, names of task
            sets. A table contains either `tasks` or `suite`, which selects the tasks of a suite.
        only_ours: whether to show only tasks with run directories, and other curves only up to the
            last step of those runs (`tasks = "ours"`).
        groups: groups of tasks to average over; one per domain if empty.
        statistics: statistics of the scores of a group.
        sizes: model sizes shown, all if empty.
        obs: observation type, `state` or `rgb`; both if empty.
        reference_scores: whether to draw the reference scores of a task.
        seeds: whether to draw each seed in addition to the mean.
        quantities: columns of `train.csv`, for figures that do not show scores.
        per_page: maximum number of panels on a page.
        quoted: numbers from other publications, drawn beside the runs or alone; the keys depend on
            the plot function.
        quoted_from: source of the quoted numbers.
        command: command that produces the required runs; shown if there are none.
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
    quantities: tuple[str, ...] = ("grad_norm",)
    per_page: int = 28
    quoted: tuple[dict[str, Any], ...] = ()
    quoted_from: str = ""
    command: str = ""


@dataclass(frozen=True)
class Catalog:
    """Content of `figures.toml`.

    Attributes:
        bootstrap: number of resamples and seed.
        methods: style of each method, in the order of the legend.
        sources: label and dashes of curves that do not come from run directories.
        reserve: styles for variants, and for methods without a style.
        reference_scores: style of each line of `task_curves.REFERENCE_LINES`.
        groups: groups of tasks by name.
        figures: figures by name, in the order of the file.
    """

    bootstrap: Bootstrap
    methods: dict[str, LineStyle]
    sources: dict[str, LineStyle]
    reserve: tuple[LineStyle, ...]
    reference_scores: dict[str, LineStyle]
    groups: dict[str, Group]
    figures: dict[str, FigureSpec]

    def spare(self, place: int) -> LineStyle:
        """Return the style of a series that has none of its own, by its place among these.

        When all reserve styles are used, they are used again, with the marker and hatches of
        another one and with other dashes.
        """
        turn, own = divmod(place, len(self.reserve))
        other = self.reserve[(own + turn) % len(self.reserve)]
        dashes = _DASHES[turn % len(_DASHES)]
        look = replace(self.reserve[own], marker=other.marker, hatch=other.hatch)
        return replace(look, dashes=dashes) if dashes else look


def read_catalog(path: Path, plots: Collection[str]) -> Catalog:
    """Read and validate the catalog.

    Args:
        path: `figures.toml`.
        plots: names of the available plot functions.

    Raises:
        UserError: If the file is missing or invalid, or contains an unknown entry.
    """
    content = read_tables(path)
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
            reserve=tuple(_line({"label": "", **style}) for style in content["reserve"]),
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
            raise UserError(f"{path}: figure {spec.name}: unknown plot function {spec.plot}{hint}")
    return catalog


def with_reps(catalog: Catalog, reps: int) -> Catalog:
    """Return the catalog with a different number of resamples."""
    return replace(catalog, bootstrap=replace(catalog.bootstrap, reps=reps))


def quotes_of(
    spec: FigureSpec, needed: Collection[str], optional: Collection[str] = ()
) -> tuple[dict[str, Any], ...]:
    """Return the quoted numbers of a figure.

    Args:
        spec: the figure.
        needed: required keys of each entry.
        optional: optional keys of each entry.

    Raises:
        UserError: If a key is missing or unknown.
    """
    where = f"figure {spec.name}, quoted"
    for entry in spec.quoted:
        _check(entry, (*needed, *optional), where)
        for key in needed:
            if key not in entry:
                raise UserError(f"{where}: {entry} lacks {key}")
    return spec.quoted


def _line(style: dict[str, Any]) -> LineStyle:
    """Return a line style; raise TypeError if a key is unknown or missing."""
    return LineStyle(**{**style, "dashes": tuple(style.get("dashes", ()))})


def _group(name: str, table: dict[str, Any], path: Path) -> Group:
    """Return the group of one table under `[groups]`.

    Names with a colon, `gym:Hopper-v5`, are environments of users, which the task table lacks.
    """
    where = f"{path}: group {name}"
    _check(table, {"label", "suite", "tasks", "horizon"}, where)
    if ("suite" in table) == ("tasks" in table):
        raise UserError(f"{where}: must contain either a suite or tasks")
    tasks = (
        [task.name for task in get_suite(table["suite"])] if "suite" in table else table["tasks"]
    )
    for task in tasks:
        if task not in TASKS and ":" not in task:
            raise UserError(f"{where}: unknown task {task}{did_you_mean(task, TASKS)}")
        if task not in TASKS and "horizon" not in table:
            raise UserError(
                f"{where}: horizon is missing: {task} has no budget in the task table; give the "
                "env steps at which scores are read"
            )
    return Group(name, table["label"], tuple(tasks), table.get("horizon"))


def _figure(name: str, table: dict[str, Any], groups: dict[str, Group], path: Path) -> FigureSpec:
    """Return the figure of one table under `[figures]`."""
    where = f"{path}: figure {name}"
    known = {field.name for field in fields(FigureSpec)} - {"name", "only_ours"} | {"suite"}
    _check(table, known, where)
    if {"suite", "tasks"} <= set(table):
        raise UserError(f"{where}: contains both a suite and tasks; remove one")
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
    for key, valid in (("groups", groups), ("statistics", STATISTICS)):
        for value in content.get(key, ()):
            if value not in valid:
                raise UserError(f"{where}: unknown {key[:-1]} {value}{did_you_mean(value, valid)}")
    if content.get("quoted") and not content.get("quoted_from"):
        raise UserError(f"{where}: quoted numbers need quoted_from")
    content["groups"] = tuple(groups[group] for group in content.get("groups", ()))
    return FigureSpec(name=name, **content)


def _check(content: dict[str, Any], known: Collection[str], where: str) -> None:
    """Raise UserError for the first key that is not in `known`."""
    for key in content:
        if key not in known:
            raise UserError(f"{where}: unknown key {key}{did_you_mean(key, known)}")
