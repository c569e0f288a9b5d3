"""Own runs as curves that can be compared with result files and written like them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from analysis.records.evaluations import averaged, is_success
from analysis.records.field_results import Series
from analysis.records.load import Records
from analysis.records.sources import OWN_RUNS, RUNS_SOURCE
from analysis.stats.ragged_curves import ScoreCurves
from tdmpc2.common.system.texts import size_text


def series_of(records: Records) -> Iterator[Series]:
    """Yield the curves of single-task runs from states, with the published metric of each task.

    A repeated step gets the mean of its values. Names of methods contain the model size
    if runs of a method and variant have several.
    """
    curves = ScoreCurves(records)
    states = curves.runs[curves.runs["obs"] == "state"]
    sized = states[["source", "method", "variant", "model_size"]].drop_duplicates().astype(str)
    sizes = Counter(sized[["source", "method", "variant"]].itertuples(index=False, name=None))
    for run, curve in zip(curves.runs.itertuples(), curves.curves, strict=True):
        if run.obs != "state":
            continue
        steps, values = averaged(curve.steps, curve.values)
        details = [] if run.variant == "default" else [str(run.variant)]
        if sizes[str(run.source), str(run.method), str(run.variant)] > 1:
            details.append(size_text(run.model_size))
        name = f"{run.method} ({', '.join(details)})" if details else str(run.method)
        kind = "success" if is_success(run.score) else "return"
        source = OWN_RUNS if run.source == RUNS_SOURCE else str(run.source)
        yield Series(source, name, str(run.task), int(str(run.seed)), steps, values, kind)
