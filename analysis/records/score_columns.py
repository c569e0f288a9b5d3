"""Choice among the scores of a CSV file: which columns and metrics are read, and which are not."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from analysis.records.curve_formats import (
    RANKED_NAMES,
    SCORE_NAMES,
    SPARSE_STEP_COLUMN,
    Format,
    Identity,
    score_name,
)


def best_kind(names: Collection[str]) -> list[str]:
    """Return the names of returns, or else of successes; the first one is read.

    Args:
        names: names of the scores of one run.
    """
    kind = "return" if any(SCORE_NAMES[name] == "return" for name in names) else "success"
    return [name for name in RANKED_NAMES if name in names and SCORE_NAMES[name] == kind]


def others_in(form: Format) -> Iterator[tuple[str, str]]:
    """Yield each column that is not read because another one holds the same kind, and that one."""
    columns = [column for column, _, stated in form.scores if stated is None and not form.metric]
    for kind in ("return", "success"):
        first, *others = [name for name in columns if SCORE_NAMES[name] == kind] or [""]
        yield from ((other, first) for other in others)


def sparse_columns(form: Format) -> set[str]:
    """Return the columns of scores whose empty cells are rows without an evaluation.

    These are the ones of Stable-Baselines3, which has rows of training only, and those of
    evaluations beside a column of training scores.
    """
    if form.step == SPARSE_STEP_COLUMN:
        return {column for column, *_ in form.scores}
    return {first for _, first in others_in(form)}


def refused_columns(form: Format) -> Iterator[tuple[str, str]]:
    """Yield each column of wandb whose run is unknown or has another column, and the reason."""
    seen: dict[tuple[Identity, str], str] = {}
    for column, _, stated in form.scores:
        if stated is None:
            continue
        first = seen.setdefault((stated, score_name(column)), column)
        if not stated.task or stated.seed is None:
            yield column, nameless("seed" if stated.task else "task")
        elif first != column:
            yield column, f"same method, task and seed as {first}"


def nameless(lacking: str) -> str:
    """Return what is wrong with the name of a run that lacks its `method`, `task` or `seed`."""
    return f"the name of the run contains no {lacking}; rename it <method>-<task>-<seed>"
