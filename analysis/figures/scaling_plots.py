"""Scaling figure: score of multi-task agents against their number of parameters, and Table 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.figures.captions import Marks, multitask_card_lines
from analysis.figures.figure_specs import Catalog, FigureSpec, quotes_of
from analysis.figures.multitask_plots import score_text, updates_text
from analysis.figures.page import canvas, finish_figure
from analysis.figures.styles import Drawing, Shown, marker_of, of_series, series_styles
from analysis.records.load import AGENTS, SERIES, one_per_run
from analysis.records.multitask_costs import Cost, read_cost
from analysis.records.problems import Problem
from analysis.stats.multitask_scores import agents_name, final_scores
from tdmpc2.common.system.texts import size_text

QUOTED = "quoted"
PAPER = "paper"
_HEIGHT = 2.2
LEAST_SIZES = 3
"""Minimum number of model sizes for a fit."""
_QUOTED_COLOR = "#595959"
_QUOTED_MARKERS = ("o", "x", "+", "1", "2", "3", "4")
"""Markers of quoted series, in order: thin ones, which show what lies below."""


@dataclass(frozen=True)
class Fit:
    """Least-squares fit of score = a + b · log₁₀(parameters).

    Attributes:
        start: a, score in percent.
        slope: b, points for ten times the parameters.
    """

    start: float
    slope: float

    @classmethod
    def of(cls, parameters: np.ndarray, scores: np.ndarray) -> Fit | None:
        """Fit `(num_agents,)` parameters and scores; return None below `LEAST_SIZES` sizes."""
        if len(np.unique(parameters)) < LEAST_SIZES:
            return None
        slope, start = np.polyfit(np.log10(parameters), scores, 1)
        return cls(float(start), float(slope))

    def at(self, parameters: np.ndarray) -> np.ndarray:
        """Return the fitted score of agents with that many parameters."""
        return self.start + self.slope * np.log10(parameters)

    def __str__(self) -> str:
        """Return the equation."""
        sign = "+" if self.slope >= 0 else "−"
        start = f"{self.start:.1f}".replace("-", "−")
        return f"{start} {sign} {abs(self.slope):.1f}·log₁₀(parameters)"


def scaling(shown: Shown) -> Drawing:
    """Draw score against parameters for each method and task set, with Table 1 as the table.

    Quoted numbers (`task_set`, `size`, `parameters`, `score`, and optionally `gpu_days`, `by`) are
    gray marks without a fit; `by` is the name of a third party.
    """
    ours, problems = _measured(shown)
    quoted = quoted_scores(shown.spec)
    if ours.empty and quoted.empty:
        return Drawing((), ours, problems=tuple(problems))
    page, (ax,) = canvas(1, shown.layout, height=_HEIGHT)
    handles, fitted = _draw_ours(ax, ours, shown)
    handles = _draw_quoted(ax, quoted) + handles
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _count(value)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(bottom=0)
    ax.set_xlabel("parameters")
    ax.set_ylabel("score (%)")
    drawn = ours.dropna(subset="parameters")
    marks = _marks(shown.spec, run_here=len(drawn) > 0, fitted=fitted, quoted=len(quoted) > 0)
    runs = shown.records.runs.merge(drawn[AGENTS].drop_duplicates(), on=AGENTS)
    finish_figure(page, handles, multitask_card_lines(shown, marks, runs))
    measured = ours.assign(low=100 * ours["low"], high=100 * ours["high"]).drop(columns="value")
    numbers = pd.concat([table for table in (measured, quoted) if len(table)], ignore_index=True)
    return Drawing([page], numbers, _table(ours, quoted, shown), tuple(problems))


def _marks(spec: FigureSpec, *, run_here: bool, fitted: bool, quoted: bool) -> Marks:
    """Return the meaning of the marks that are drawn.

    Args:
        spec: the figure.
        run_here: whether there are agents that were run here.
        fitted: whether there is a fit.
        quoted: whether there are quoted numbers.
    """
    quotes = f"Gray marks: quoted from {spec.quoted_from}, not measured here"
    if not run_here:
        return Marks(
            quotes if quoted else "No number of parameters is recorded, so no mark is drawn"
        )
    fits = f"; dashed lines: least-squares fits to at least {LEAST_SIZES} sizes" if fitted else ""
    return Marks(
        f"Filled marks: mean over tasks and seeds at the last update that all seeds reached{fits}",
        "bars: confidence interval of the mean",
        f"{quotes}." if quoted else "",
    )


def scaling_table(shown: Shown) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Return Table 1 with the runs and the quoted numbers, and the problems found."""
    ours, problems = _measured(shown)
    return _table(ours, quoted_scores(shown.spec), shown), tuple(problems)


def quoted_scores(spec: FigureSpec) -> pd.DataFrame:
    """Return the quoted numbers of the scaling figure; `by` is `PAPER` or a third party."""
    quotes = quotes_of(spec, _NEEDED, _OPTIONAL)
    quoted = pd.DataFrame(list(quotes), columns=[*_NEEDED, *_OPTIONAL])
    return quoted.assign(source=QUOTED, by=quoted["by"].fillna(PAPER))


def paper_scores(spec: FigureSpec) -> dict[tuple[str, str], float]:
    """Return the paper's score in percent by task set and model size."""
    quoted = quoted_scores(spec)
    own = quoted[quoted["by"] == PAPER]
    return dict(zip(zip(own["task_set"], own["size"], strict=True), own["score"], strict=True))


def scaling_spec(catalog: Catalog) -> FigureSpec:
    """Return the scaling figure of the catalog, of all variants; without one, a blank one."""
    specs = [spec for spec in catalog.figures.values() if spec.plot in SCALING_PLOTS]
    return replace(specs[0], variants=()) if specs else FigureSpec("scaling", "scaling")


_NEEDED = ("task_set", "size", "parameters", "score")
_OPTIONAL = ("gpu_days", "by")
_COST_COLUMNS = ["device", "updates_per_second", "gpu_days", "cpu_days"]


def _measured(shown: Shown) -> tuple[pd.DataFrame, list[Problem]]:
    """Return score, parameters and cost of every series that was run here."""
    scores, score_problems = final_scores(shown.curves, shown.rule, shown.bootstrap)
    problems = list(score_problems)
    all_runs = one_per_run(shown.records.runs)
    facts = []
    for key in scores[AGENTS].to_numpy().tolist():
        runs = all_runs[(all_runs[AGENTS] == key).all(axis=1)].to_dict("records")
        known = [run["num_parameters"] for run in runs if pd.notna(run["num_parameters"])]
        if not known:
            what = "number of parameters not recorded: in the table, but not drawn"
            problems.append(Problem(agents_name(key), None, what, "warning"))
        costs = [(read_cost(run["directory"], problems), run["budget"]) for run in runs]
        known_costs = [(cost, budget) for cost, budget in costs if cost is not None and budget]
        facts.append({"parameters": float(known[0]) if known else np.nan, **_cost(known_costs)})
    columns = pd.DataFrame(facts, columns=["parameters", *_COST_COLUMNS], index=scores.index)
    return scores.assign(score=100 * scores["value"]).join(columns), problems


def _cost(costs: Sequence[tuple[Cost, float]]) -> dict[str, Any]:
    """Return means over runs, separately for each kind of device."""
    days: dict[str, list[float]] = {"GPU": [], "CPU": []}
    for cost, budget in costs:
        days[cost.kind].append(cost.days(budget))
    rates = [cost.updates_per_second for cost, _ in costs]
    return {
        "device": ", ".join(dict.fromkeys(cost.device for cost, _ in costs)),
        "updates_per_second": np.mean(rates) if rates else np.nan,
        "gpu_days": np.mean(days["GPU"]) if days["GPU"] else np.nan,
        "cpu_days": np.mean(days["CPU"]) if days["CPU"] else np.nan,
    }


def _draw_quoted(ax: Axes, quoted: pd.DataFrame) -> list[Artist]:
    """Draw gray marks, a different one for each origin and task set."""
    handles: list[Artist] = []
    for (by, name), own in quoted.groupby(["by", "task_set"], sort=False):
        marker = _QUOTED_MARKERS[len(handles) % len(_QUOTED_MARKERS)]
        look: dict[str, Any] = {"color": _QUOTED_COLOR, "marker": marker, "mfc": "none", "ls": ""}
        ax.plot(own["parameters"], own["score"], **look, ms=6)
        label = f"{name}, {PAPER}" if by == PAPER else f"{name}, third party ({by})"
        handles.append(Line2D([], [], **look, ms=6, label=label))
    return handles


def _draw_ours(ax: Axes, ours: pd.DataFrame, shown: Shown) -> tuple[list[Artist], bool]:
    """Draw filled marks with intervals, and a fit for each method and task set.

    Args:
        ax: axes to draw on.
        ours: the agents that were run here.
        shown: inputs of the figure.

    Returns:
        The entries of the legend, and whether there is a fit.
    """
    drawn = _sizes_as_one(ours.dropna(subset="parameters"))
    styles = series_styles(drawn, shown.catalog)
    handles: list[Artist] = []
    fits = []
    for series, style in styles.items():
        own = of_series(drawn, series)
        ends = 100 * np.nan_to_num([own["value"] - own["low"], own["high"] - own["value"]])
        x, y = own["parameters"], own["score"]
        ax.errorbar(x, y, np.maximum(ends, 0), color=style.color, ls="", lw=0.9, capsize=2)
        look: dict[str, Any] = {"color": style.color, "ls": "", **marker_of(style), "ms": 5.5}
        ax.plot(x, y, **look)
        label = f"{style.label}, run here"
        fitted = _draw_fit(ax, own, style.color)
        fits.append(fitted is not None)
        handles.append(Line2D([], [], **look, label=f"{label}: {fitted}" if fitted else label))
    return handles, any(fits)


def _draw_fit(ax: Axes, points: pd.DataFrame, color: str) -> Fit | None:
    """Draw a dashed line through the points if there are enough of them."""
    parameters = points["parameters"].to_numpy("float64")
    fitted = Fit.of(parameters, points["score"].to_numpy("float64"))
    if fitted is not None:
        ends = np.array([parameters.min(), parameters.max()])
        ax.plot(ends, fitted.at(ends), color=color, lw=1, ls="--", zorder=1.5)
    return fitted


def _table(ours: pd.DataFrame, quoted: pd.DataFrame, shown: Shown) -> pd.DataFrame:
    """Return Table 1: our rows with the paper's numbers of the same agent, then other quotes."""
    unmatched = {
        (row["task_set"], row["size"]): row
        for row in quoted.to_dict("records")
        if row["by"] == PAPER
    }
    rows = []
    ordered = ours.sort_values(["method", "variant", "task_set", "parameters"])
    labels = _labels(ordered, shown)
    for row, label in zip(ordered.to_dict("records"), labels, strict=True):
        is_default = (row["method"], row["variant"]) == ("tdmpc2", "default")
        match = unmatched.pop((row["task_set"], row["model_size"]), None) if is_default else None
        rows.append({**_our_cells(row, label), **_quoted_cells(match)})
    others = [row for row in quoted.to_dict("records") if row["by"] != PAPER]
    for row in [*unmatched.values(), *others]:
        label = f"TD-MPC2 ({row['by']})"
        rows.append({**dict.fromkeys(_CELLS, ""), **_agent(row, label), **_quoted_cells(row)})
    return pd.DataFrame(rows)


def _sizes_as_one(ours: pd.DataFrame) -> pd.DataFrame:
    """Merge all sizes of a method on a task set into one series, labeled by the task set."""
    datasets = (ours["task_set"] + " " + ours["dataset"]).str.strip()
    return ours.assign(model_size="", dataset=datasets)


def _labels(ours: pd.DataFrame, shown: Shown) -> list[str]:
    """Return the label of each row's agent, without size and task set."""
    series = ours.assign(model_size="")
    styles = series_styles(series, shown.catalog)
    return [styles[tuple(map(str, key))].label for key in series[SERIES].to_numpy()]


_CELLS = (
    *("agents", "tasks", "size", "parameters", "updates", "updates/s", "days", "device"),
    *("score (%)", "seeds"),
)


def _our_cells(row: dict[Any, Any], label: str) -> dict[str, str]:
    """Return the measured columns of a row."""
    days = [
        f"{row[f'{k.lower()}_days']:.3g} {k}-days"
        for k in ("GPU", "CPU")
        if row[f"{k.lower()}_days"] > 0
    ]
    rate = row["updates_per_second"]
    cells = _agent({**row, "size": row["model_size"]}, label)
    return {
        **cells,
        "updates": updates_text(row),
        "updates/s": f"{rate:.3g}" if rate > 0 else "",
        "days": ", ".join(days),
        "device": row["device"],
        "score (%)": score_text(row),
        "seeds": str(row["num_seeds"]),
    }


def _agent(row: dict[Any, Any], label: str) -> dict[str, str]:
    """Return the columns that identify the agent of a row."""
    parameters = f"{row['parameters']:,.0f}" if row["parameters"] > 0 else ""
    size = size_text(row["size"])
    return {"agents": label, "tasks": row["task_set"], "size": size, "parameters": parameters}


def _quoted_cells(row: dict[Any, Any] | None) -> dict[str, str]:
    """Return the quoted columns of a row, empty if there is no quote."""
    if row is None:
        return {"quoted days": "", "quoted score": ""}
    days = f"{row['gpu_days']:g} GPU-days" if row["gpu_days"] > 0 else ""
    return {"quoted days": days, "quoted score": f"{row['score']:.1f}"}


def _count(number: float) -> str:
    """Return a number such as 1M or 300k."""
    return f"{number / 1e6:g}M" if number >= 1e6 else f"{number / 1e3:g}k"


SCALING_PLOTS: dict[str, Callable[[Shown], Drawing]] = {"scaling": scaling}
