"""Own runs at the paper's settings, beside the released seeds: tables of docs/evidence.md."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.ledger.inputs import RULE, Inputs
from analysis.ledger.rendering import table
from analysis.records.run_hours import read_hours
from analysis.records.run_reader import read_json, short_commits
from analysis.records.sources import PUBLISHED, RUNS_SOURCE
from analysis.stats.common_evaluations import CommonScores
from analysis.stats.equivalence_tables import MEASURED
from analysis.stats.estimate_texts import estimate_text, share_text
from analysis.stats.ragged_curves import ScoreCurves, budget_of
from analysis.stats.rules import RULES, Rule
from tdmpc2.common.run.schemas import seeds_together

VERDICT_TABLE, RUN_TABLE = "verdicts", "runs"
"""Names of the tables in pages; see `rendering.with_part`."""
_VERDICTS = (
    *("method, task", "env steps (of the budget)", "our seeds", "released seeds"),
    *("difference in points", "verdict"),
)
_RUNS = ("run", "commit", "CPU or GPU, precision", "state", "scores")
_FAST = {"AVX512": "AVX-512", "AVX2": "AVX2"}


def verdict_table(inputs: Inputs) -> str:
    """Return a Markdown table: own runs of each task beside the released seeds, and the verdict.

    Where no evaluation is common, it states our last scores and the first released ones.

    Args:
        inputs: own runs and released curves.

    Returns:
        An empty text if no task has both.
    """
    rows = list(_verdict_rows(inputs))
    return table(_VERDICTS, rows) if rows else ""


def run_table(inputs: Inputs) -> str:
    """Return a Markdown table of all own runs, finished or not; an empty text without runs."""
    rows = list(_run_rows(inputs))
    return table(_RUNS, rows) if rows else ""


def _verdict_rows(inputs: Inputs) -> Iterator[tuple[str, ...]]:
    """Yield a row of `_VERDICTS` for each task with own runs and released curves."""
    curves, found = inputs.compared, inputs.comparison
    if curves is None or found is None:
        return
    for row, scores in zip(found.tasks.to_dict("records"), found.scores, strict=True):
        yield (
            _name(inputs, row),
            f"{row['env_step']:,} ({share_text(row['budget_share'])})",
            *_both_sides(curves, row, scores),
            estimate_text(*(row[column] for column in MEASURED)) or "–",
            str(row["verdict"]),
        )


def _name(inputs: Inputs, row: Any) -> str:
    """Return method and task of a row with the keys `method`, `task` and `obs`."""
    pixels = " (pixels)" if row["obs"] == "rgb" else ""
    return f"{inputs.label(str(row['method']))}, `{row['task']}`{pixels}"


def _both_sides(
    curves: ScoreCurves, row: Mapping[Hashable, Any], scores: CommonScores
) -> tuple[str, str]:
    """Return the scores of our and of the released seeds as text, and which seeds are left out."""
    ours, others = (_seeds(curves, source, row) for source in (RUNS_SOURCE, PUBLISHED))
    if not len(scores.env_steps):
        grid = curves.common_grid(others)
        first = grid[grid > 0][:1]
        last = np.array([curves.last_steps[ours].min()])
        return (
            _texts(curves, ours, last, RULE),
            f"at {first[0]:,}: {_texts(curves, others, first, RULE)}",
        )
    ours = ours[np.isin(ours, scores.rows)]
    texts = [_texts(curves, ours, scores.env_steps, RULE), *scores.left_out]
    # between their evaluations, released curves are compared by linear interpolation
    return "; ".join(texts), _texts(curves, others, scores.env_steps, RULES["linear"])


def _seeds(curves: ScoreCurves, source: str, row: Mapping[Hashable, Any]) -> np.ndarray:
    """Return the row numbers of a task's runs of one source, by seed."""
    keys = ["source", "method", "task", "obs"]
    same = (curves.runs[keys] == [source, *(row[key] for key in keys[1:])]).all(axis=1)
    return curves.runs[same].sort_values("seed").index.to_numpy()


def _texts(curves: ScoreCurves, rows: np.ndarray, steps: np.ndarray, rule: Rule) -> str:
    """Return the mean of each run over steps, in units of its task: return, or success in %."""
    values = curves.values(rows, steps, rule).mean(axis=1)
    return _scores(values, str(curves.runs.loc[rows[0], "metric"]))


def _scores(values: Sequence[float] | np.ndarray, metric: str) -> str:
    """Return returns without decimals, or success in percent."""
    percent = metric == "episode_success"
    return ", ".join(f"{100 * v if percent else v:.0f}" for v in values) + " %" * percent


def _run_rows(inputs: Inputs) -> Iterator[tuple[str, ...]]:
    """Yield a row of `_RUNS` for each own run."""
    for obs in ("state", "rgb"):
        curves = ScoreCurves(inputs.exact.select(obs=obs))
        for place, run in curves.runs.sort_values(["method", "task", "variant", "seed"]).iterrows():
            curve = curves.curves[int(str(place))]
            steps = np.unique(curve.steps)
            values = curves.values([int(str(place))], steps, RULE)[0]
            directory = Path(str(run["directory"]))
            yield (
                f"{_name(inputs, run)}, seed {run['seed']}",
                ", ".join(f"`{one}`" for one in short_commits([run["commit"]])),
                machine(read_json(directory / "numeric.json", []) or {}),
                _state(str(run["state"]), run["budget"], int(curve.steps.max())) + _time(directory),
                _all_scores(steps, values, str(run["metric"]))
                + f" ({run['eval_episodes']} episodes)",
            )


def machine(numeric: Mapping[str, Any]) -> str:
    """Return device, precision and threads of a run.

    Args:
        numeric: content of `numeric.json`; what it lacks is left out.
    """
    on_gpu = str(numeric.get("device", "cpu")).startswith("cuda")
    vectors = str(numeric.get("cpu_capability", ""))
    kernels = "native kernels" if numeric.get("bf16_kernels") else ""
    together = seeds_together(numeric)
    threads = numeric.get("threads")
    parts = [
        str(numeric.get("gpu" if on_gpu else "cpu") or ""),
        "" if on_gpu else _FAST.get(vectors, vectors),
        str(numeric.get("precision") or ""),
        "" if on_gpu else kernels,
        "" if on_gpu or not threads else f"{threads} thread{'s' * (threads > 1)}",
        f"batch of {together} seeds" if together > 1 else "",
    ]
    return ", ".join(part for part in parts if part)


def _state(state: str, budget: Any, last: int) -> str:
    """Return the state of a run, with the step that it has reached if that is not its budget."""
    steps = budget_of(budget)
    known = np.isfinite(steps)
    if state == "COMPLETED":
        return f"completed, {steps:,.0f} env steps" if known else "completed"
    texts = {"INTERRUPTED": "stopped", "RUNNING": "stopped", "UNKNOWN": "state not recorded"}
    of_budget = f" of {steps:,.0f}" if known else " env steps"
    return f"{texts.get(state, state.lower())}, evaluated up to {last:,}{of_budget}"


def _time(directory: Path) -> str:
    """Return the device time of a finished run after a comma; empty if it is not known."""
    found = read_hours(directory)
    if found is None:
        return ""
    hours, unit = found
    return f", {hours:.{1 if hours >= 1 else 2}f} {unit}"


def _all_scores(steps: np.ndarray, values: np.ndarray, metric: str) -> str:
    """Return the scores at all steps, which are named once if they are equally far apart."""
    gaps = np.diff(steps)
    if len(gaps) and steps[0] == 0 and (gaps == gaps[0]).all():
        return f"every {gaps[0]:,} env steps: {_scores(values, metric)}"
    each = (f"{_scores([v], metric)} at {s:,}" for s, v in zip(steps, values, strict=True))
    return ", ".join(each)
