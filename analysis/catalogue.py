"""Room of the figure catalogue: what `figures.toml` says, checked."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from analysis.aggregate import FLOOR_LINES, Bootstrap
from tdmpc2.common.errors import UserError, did_you_mean
from tdmpc2.envs.tasks import get_suite


@dataclass(frozen=True)
class LineStyle:
    """How one line is drawn and named.

    Attributes:
        label: its text in the legend.
        color: any matplotlib colour.
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
        plot: a function of `analysis/plots.py`.
        methods: methods shown, all when empty.
        variants: variants shown, all when empty.
        tasks: task names or shell patterns shown, all when empty; a table names either
            these or a suite, which stands for its tasks.
        floors: whether to draw what a task scores without learning.
    """

    name: str
    plot: str
    methods: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    floors: bool = False


@dataclass(frozen=True)
class Catalogue:
    """Everything `figures.toml` holds.

    Attributes:
        bootstrap: how intervals are drawn.
        methods: style of each method, in the order of the legend.
        reserve: colours for variants and for methods without a style.
        floors: style of each line of `aggregate.FLOOR_LINES`.
        figures: by name, in the order of the file.
    """

    bootstrap: Bootstrap
    methods: dict[str, LineStyle]
    reserve: tuple[str, ...]
    floors: dict[str, LineStyle]
    figures: dict[str, FigureSpec]


def read_catalogue(path: Path, plots: Collection[str]) -> Catalogue:
    """Reads and checks the catalogue.

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
    _check(content, {"bootstrap", "methods", "reserve", "floors", "figures"}, str(path))
    try:
        catalogue = Catalogue(
            bootstrap=Bootstrap(**content["bootstrap"]),
            methods={name: _line(style) for name, style in content["methods"].items()},
            reserve=tuple(content["reserve"]["colors"]),
            floors={name: _line(content["floors"][name]) for name in FLOOR_LINES},
            figures={name: _figure(name, spec, path) for name, spec in content["figures"].items()},
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: missing or unknown entry, {error}") from error
    for spec in catalogue.figures.values():
        if spec.plot not in plots:
            hint = did_you_mean(spec.plot, plots)
            raise UserError(f"{path}: figure {spec.name} has no plot function {spec.plot}{hint}")
    return catalogue


def _line(style: dict[str, Any]) -> LineStyle:
    """A line style; TypeError on an unknown or missing key."""
    return LineStyle(**{**style, "dashes": tuple(style.get("dashes", ()))})


def _figure(name: str, table: dict[str, Any], path: Path) -> FigureSpec:
    """One table under `[figures]`."""
    where = f"{path}: figure {name}"
    _check(table, {field.name for field in fields(FigureSpec)} - {"name"} | {"suite"}, where)
    if {"suite", "tasks"} <= set(table):
        raise UserError(f"{where}: names both a suite and tasks")
    lists = {key: table.get(key, []) for key in ("methods", "variants", "tasks")}
    for key, value in lists.items():
        if not isinstance(value, list):
            raise UserError(f"{where}: {key} must be a list, as in {key} = ['{value}']")
    if "suite" in table:
        lists["tasks"] = [task.name for task in get_suite(table["suite"])]
    return FigureSpec(
        name=name,
        plot=table["plot"],
        floors=table.get("floors", False),
        **{key: tuple(value) for key, value in lists.items()},
    )


def _check(content: dict[str, Any], known: Collection[str], where: str) -> None:
    """UserError on the first key that is not known."""
    for key in content:
        if key not in known:
            raise UserError(f"{where}: unknown key {key}{did_you_mean(key, known)}")
