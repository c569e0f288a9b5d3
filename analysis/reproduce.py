"""Command: did it reproduce? Ours against the published curves, task by task and by domain."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.curves import DEFAULT_RULE, RULES, Rule, ScoreCurves, get_rule
from analysis.output import write_table, write_texts
from analysis.records import SERIES
from analysis.sources import PUBLISHED, SOURCE_WORDS, load_sources, report, usage_of_sources
from analysis.verdict import (
    WORST_FIRST,
    Difference,
    difference,
    mean_difference,
    seeds_needed,
)
from analysis.verdict_tables import domain_texts, shown, task_texts
from tdmpc2.common.cli import command, parse_words
from tdmpc2.common.errors import UserError

TASK_MARGIN = 10.0
DOMAIN_MARGINS = {"tdmpc2": 3.0}
OTHER_MARGIN = 5.0
OUTCOME = ["difference", "low", "high", "margin", "verdict"]
TASK_COLUMNS = [*SERIES, "domain", "task", "env_step", "ours", "theirs", "num_ours", "num_theirs"]
_OPEN = "not enough data"


def usage() -> str:
    """What `--help` prints."""
    return f"""\
Compares runs with the published curves of the same method and task at the same env step, the
last one that all our seeds have: difference in points (return / 10, success in per cent) with its
95 % interval, and a verdict.

  reproduced       the difference lies within the margin (two one-sided tests at 5 %)
  worse, better    it does not, and its 95 % interval leaves out zero
  {_OPEN}  neither; the table says how many seeds would settle it

usage: python analysis/reproduce.py published=DIR [key=value ...]

{usage_of_sources()}
  methods=NAMES  only these methods
  variant=NAME   of our runs (default: default)
  margin=POINTS  for a task (default: {TASK_MARGIN:g})
  domain_margin=POINTS
                 for the mean over a domain (default: {DOMAIN_MARGINS["tdmpc2"]:g} for tdmpc2, \
{OTHER_MARGIN:g} for others)
  out=DIR        writes reproduction_tasks.csv, reproduction_domains.csv, .md and .tex there

exit code, from the means over domains: 0 all are reproduced or better; 1 one is worse;
2 bad input; 3 none is worse, but the data do not suffice for all."""


def main(words: Sequence[str]) -> int:
    """Compares, prints the tables and writes them where asked to.

    Args:
        words: `key=value`, see `usage`.

    Raises:
        UserError: unknown word, a folder that is missing, nothing to compare.
    """
    own = {"methods": str, "variant": str, "margin": float, "domain_margin": float, "out": Path}
    values = parse_words(words, {**SOURCE_WORDS, **own})
    if PUBLISHED not in values:
        raise UserError(
            "name the folder of the published curves: published=DIR "
            "(`python analysis/fetch_published.py` downloads them)"
        )
    for key in ("margin", "domain_margin"):
        if key in values and not values[key] > 0:
            raise UserError(f"{key}={values[key]:g}: must be above 0")
    records = load_sources(values)
    report(records.problems)
    methods = values["methods"].split(",") if "methods" in values else ()
    curves = ScoreCurves(records.select(methods=methods))
    rule = get_rule(values.get("rule", DEFAULT_RULE))
    variant = values.get("variant", "default")
    tasks = compare_tasks(curves, rule, variant, values.get("margin", TASK_MARGIN))
    if tasks.empty:
        raise UserError(
            f"no run of variant '{variant}' whose method and task are among the published curves"
        )
    domains = compare_domains(tasks, values.get("domain_margin"))
    print(shown(tasks, domains))
    if "out" in values:
        _write(values["out"], tasks, domains)
    verdicts = set(domains["verdict"])
    return 1 if "worse" in verdicts else 3 if _OPEN in verdicts else 0


def compare_tasks(curves: ScoreCurves, rule: Rule, variant: str, margin: float) -> pd.DataFrame:
    """Every task of every series of ours that has published curves.

    Args:
        curves: ours and the published ones.
        rule: what counts where a step was not recorded; between two published evaluations scores
            are interpolated.
        variant: of ours.
        margin: in points.

    Returns:
        columns `TASK_COLUMNS`, `OUTCOME`, `error`, `freedom` and `seeds_needed`.
    """
    runs = curves.runs
    theirs = runs["source"] == PUBLISHED
    rows: list[dict[str, Any]] = []
    named = runs["variant"].str.split("[").str[0] == variant
    for key, ours in runs[~theirs & named].groupby([*SERIES, "obs", "domain", "task"]):
        source, method, own_variant, size, dataset, obs, domain, task = key
        same = theirs & (runs["method"] == method) & (runs["task"] == task) & (runs["obs"] == obs)
        if not same.any():
            continue
        others = np.flatnonzero(same.to_numpy())
        row = dict(zip(TASK_COLUMNS, (source, method, own_variant, size, dataset), strict=False))
        row |= {"domain": domain, "task": task, "margin": margin}
        row |= _compare(curves, ours.index.to_numpy(), others, rule, margin)
        rows.append(row)
    columns = [*TASK_COLUMNS, *OUTCOME, "error", "freedom", "seeds_needed", "remark"]
    return pd.DataFrame(rows, columns=columns).astype({"seeds_needed": "Int64"})


def compare_domains(tasks: pd.DataFrame, margin: float | None) -> pd.DataFrame:
    """Means over the tasks of a domain, and over all, of what `compare_tasks` found.

    Args:
        tasks: from `compare_tasks`.
        margin: in points; None for the default of each method.

    Returns:
        columns `SERIES`, domain, num_tasks, ours, theirs, `OUTCOME`, and the number of tasks of
        each verdict.
    """
    rows = []
    for series, members in tasks.groupby(SERIES):
        domains = [*members.groupby("domain")]
        if len(domains) > 1:
            domains.append(("all", members))
        for domain, own in domains:
            bound = margin or DOMAIN_MARGINS.get(str(series[1]), OTHER_MARGIN)
            compared = own.dropna(subset="difference")
            parts = [
                Difference(row.difference, row.error, row.freedom) for row in compared.itertuples()
            ]
            row = dict(zip(SERIES, series, strict=True)) | {"domain": domain, "margin": bound}
            row |= {"num_tasks": len(own), "compared": len(compared)}
            row |= {name: compared[name].mean() for name in ("ours", "theirs")}
            row |= _outcome(mean_difference(parts) if parts else None, bound)
            row |= {name: (own["verdict"] == name).sum() for name in WORST_FIRST}
            rows.append(row)
    columns = [*SERIES, "domain", "num_tasks", "compared", "ours", "theirs", *OUTCOME]
    return pd.DataFrame(rows, columns=[*columns, *WORST_FIRST])


def _compare(
    curves: ScoreCurves, ours: np.ndarray, theirs: np.ndarray, rule: Rule, margin: float
) -> dict[str, Any]:
    """One task at the last env step that all our seeds have, and the published ones too."""
    reached = [max(curves.last_steps[row], curves.curves[row].carried_to) for row in ours]
    step = min(min(reached), curves.grid(theirs)[-1])
    first = curves.grid(theirs)[curves.grid(theirs) > 0][0]
    found: dict[str, Any] = {"env_step": int(step)}
    found |= {"num_ours": len(ours), "num_theirs": len(theirs)}
    if step < first:
        remark = f"ends before the first published evaluation at {first:,}"
        return found | _outcome(None, margin) | {"remark": remark}
    at = np.array([step])
    mine = 100 * curves.values(ours, at, rule, normalised=True)[:, 0]
    other = 100 * curves.values(theirs, at, RULES["linear"], normalised=True)[:, 0]
    between = difference(mine, other)
    found |= {"ours": mine.mean(), "theirs": other.mean()}
    found |= {"error": between.error, "freedom": between.freedom} | _outcome(between, margin)
    if found["verdict"] == _OPEN:
        found["seeds_needed"] = seeds_needed(mine, other, margin)
        found["remark"] = "a single seed has no interval" if len(ours) == 1 else ""
    return found


def _outcome(found: Difference | None, margin: float) -> dict[str, Any]:
    """The columns `OUTCOME` of a difference; of none, that there are not enough data."""
    if found is None:
        return {"verdict": _OPEN, "margin": margin}
    low, high = found.interval(0.95)
    values = {"difference": found.value, "low": low, "high": high, "margin": margin}
    return values | {"verdict": found.verdict(margin)}


def _write(out: Path, tasks: pd.DataFrame, domains: pd.DataFrame) -> None:
    """Writes both tables as numbers and as text."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, numbers, texts in (
            ("tasks", tasks, task_texts(tasks)),
            ("domains", domains, domain_texts(domains)),
        ):
            write_table(out / f"reproduction_{name}.csv", numbers)
            print(out / f"reproduction_{name}.csv", file=sys.stderr)
            for path in write_texts(out / f"reproduction_{name}", texts):
                print(path, file=sys.stderr)
    except OSError as error:
        raise UserError(f"cannot write to out={out}: {error}") from error


if __name__ == "__main__":
    sys.exit(command(main, usage))
