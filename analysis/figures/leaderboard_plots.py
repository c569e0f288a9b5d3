"""Sample-efficiency curves of the leaderboard: mean score against env steps, a panel per group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from analysis.figures.figure_specs import Catalog, LineStyle
from analysis.figures.page import Page, canvas, finish_axes, finish_figure, set_title
from analysis.figures.styles import Layout, band, handle
from analysis.stats.coverage import NOMINAL, level_label
from analysis.stats.leaderboard import Leaderboard, has_interval

Named = tuple[str, str]
"""Method and source."""


def method_styles(boards: Sequence[Leaderboard], catalog: Catalog) -> dict[Named, LineStyle]:
    """Return a style per method: that of the catalog for its first source, then the reserve.

    Args:
        boards: comparisons.
        catalog: styles of methods, and reserve styles.
    """
    rows = [board.table[["method", "source"]] for board in boards]
    named = pd.concat(rows).drop_duplicates().to_numpy()
    order = {name: place for place, name in enumerate(catalog.methods)}
    keys = sorted(
        ((str(name), str(source)) for name, source in named),
        key=lambda key: (key[1] != "published", order.get(key[0], len(order)), key),
    )
    styles: dict[Named, LineStyle] = {}
    taken: set[str] = set()
    for name, source in keys:
        if name in catalog.methods and name not in taken:
            look = catalog.methods[name]
        else:
            look = catalog.spare(len(styles) - len(taken & set(catalog.methods)))
        taken.add(name)
        label = catalog.methods[name].label if name in catalog.methods else name
        styles[name, source] = replace(look, label=label)
    labels = _distinct({key: style.label for key, style in styles.items()})
    return {key: replace(style, label=labels[key]) for key, style in styles.items()}


def _distinct(labels: Mapping[Named, str]) -> dict[Named, str]:
    """Return labels that differ: with the source where one occurs twice, or with the plain name."""
    found = dict(labels)
    for by_name in (False, True):
        counts = Counter(found.values())
        for (name, source), label in labels.items():
            if counts[found[name, source]] > 1:
                found[name, source] = f"{name if by_name else label} ({source})"
    return found


def efficiency_figure(
    boards: Sequence[Leaderboard], catalog: Catalog, layout: Layout | None = None
) -> tuple[Page, pd.DataFrame]:
    """Draw a panel per group, a line per method, with intervals if its seeds are known.

    Args:
        boards: at least one comparison.
        catalog: styles and labels of groups.
        layout: layout of the page.

    Returns:
        The page, and the drawn numbers: columns group, tasks, tasks_of_group, method, source,
        env_step, mean, mean_low, mean_high.
    """
    styles = method_styles(boards, catalog)
    page, axes = canvas(len(boards), layout or Layout())
    tables = []
    for ax, board in zip(axes, boards, strict=True):
        table = board.bands.reindex(columns=[*_KEYS, *_BOUNDS])
        for (name, source), style in styles.items():
            own = table[(table["method"] == name) & (table["source"] == source)]
            if len(own):
                numbers = own.rename(columns=_BOUNDS).astype(dict.fromkeys(_BOUNDS.values(), float))
                band(ax, own["env_step"], numbers, style)
        set_title(
            page,
            ax,
            f"{group_label(board, catalog)}\n{len(board.tasks)} of {board.group_size} tasks",
        )
        sizes = {"tasks": len(board.tasks), "tasks_of_group": board.group_size}
        tables.append(table.assign(group=board.group, **sizes))
    numbers = pd.concat(tables, ignore_index=True)
    finish_axes(page, ["mean score (%)"] * len(boards), int(numbers["env_step"].max()))
    finish_figure(
        page, [handle(style) for style in styles.values()], _card(boards, styles, catalog)
    )
    return page, numbers[["group", "tasks", "tasks_of_group", *_KEYS, *_BOUNDS]]


def group_label(board: Leaderboard, catalog: Catalog) -> str:
    """Return the label of a board's group."""
    return catalog.groups[board.group].label if board.group in catalog.groups else board.group


def _card(
    boards: Sequence[Leaderboard], styles: dict[Named, LineStyle], catalog: Catalog
) -> list[str]:
    """Return the caption: what is drawn, what is compared, and how certain it is."""
    what = (
        "Lines: mean over the tasks that all methods have of return / 10 or success in percent, at "
        "steps at which the method has all of these tasks; bands: its t-interval. Methods of which "
        "only means are known have no interval. Nothing is carried forward or filled in."
    )
    level = coverage_text(boards, styles, catalog)
    return [what, f"Level of the intervals at the compared step: {level}."]


def coverage_text(
    boards: Sequence[Leaderboard], styles: dict[Named, LineStyle], catalog: Catalog
) -> str:
    """Return the level of the intervals of the means: 95 %, and the exceptions, if there are any.

    Args:
        boards: comparisons.
        styles: styles of the methods, with their labels.
        catalog: labels of groups.
    """
    levels = [
        (f"{styles[row['method'], row['source']].label}, {group_label(board, catalog)}", label)
        for board in boards
        for row in board.table.to_dict("records")
        if has_interval(row, "mean") and (label := level_label(row["mean_coverage"]))
    ]
    others = "; ".join(f"{name}: {label}" for name, label in levels if label != NOMINAL)
    if levels and all(label != NOMINAL for _, label in levels):
        return f"measured coverage: {others}"
    return f"{NOMINAL}; measured coverage of the others: {others}" if others else NOMINAL


_KEYS = ["method", "source", "env_step"]
_BOUNDS = {"mean": "mean", "mean_low": "low", "mean_high": "high"}
"""Columns of the bands, and their names in figures."""
