"""Status of each claim, derived from records: own runs, released curves, quoted numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.scaling_plots import PAPER, quoted_scores, scaling_spec
from analysis.ledger.ablation_evidence import ablation
from analysis.ledger.claims_file import (
    AblationClaim,
    Advantage,
    Agents,
    Checked,
    Claim,
    Finetuning,
    Ledger,
    Quoted,
    Scores,
    Unknown,
)
from analysis.ledger.findings import (
    CONTRADICTED,
    EVALUATED,
    NOT_REPRODUCED,
    OPEN,
    QUOTED,
    RECOMPUTED,
    REPRODUCED,
    SO_FAR,
    SUPPORTED,
    TESTED,
    Finding,
    points_text,
)
from analysis.ledger.inputs import Inputs, coverage
from analysis.records.precisions import in_any_precision
from analysis.records.sources import PUBLISHED, RUNS_SOURCE
from analysis.stats import margins
from analysis.stats.horizons import Group

RESOLUTION = 0.1
"""The ledger's numbers have one decimal."""
PWM = "PWM"
"""Third party in `figures.toml` that evaluated the authors' weights; others quote the authors."""


def findings_of(ledger: Ledger, inputs: Inputs) -> list[Finding]:
    """Return the status of every claim, in the order of the ledger."""
    return [found for claim in ledger.claims for found in KINDS[type(claim)](claim, inputs)]


def _finding(
    claim: Claim, statement: str, status: str, evidence: Sequence[str], suffix: str = ""
) -> Finding:
    """Return a finding on a claim, or on a part of it.

    Args:
        claim: the claim.
        statement: the claim as a sentence.
        status: its status.
        evidence: what the status rests on.
        suffix: part of the claim, such as a method.
    """
    name = f"{claim.id}-{suffix}" if suffix else claim.id
    return Finding(name, claim.places, statement, status, tuple(evidence), claim.command)


def _scores(claim: Scores, inputs: Inputs) -> Iterator[Finding]:
    """Yield a finding for each method with a score on a group."""
    group = inputs.catalog.groups[claim.group]
    for method, value in claim.values.items():
        statement = f"{inputs.label(method)} scores {value:g} on {_tasks(group, claim.obs)}"
        status, evidence = verdict(inputs, method, claim.obs, group)
        found = inputs.mean(PUBLISHED, method, claim.obs, group)
        if not np.isnan(found):
            evidence.append(f"released curves: {found:.1f}")
            if status == OPEN and abs(found - value) <= RESOLUTION:
                status = RECOMPUTED
        finding = _finding(claim, statement, status, evidence, method)
        yield replace(finding, command=f"{claim.command} methods={method}")


def verdict(inputs: Inputs, method: str, obs: str, group: Group) -> tuple[str, list[str]]:
    """Return the status of a score by `reproduce.py`, and what was run.

    Args:
        inputs: records.
        method: method of the score.
        obs: observation type.
        group: tasks of the score.
    """
    run = coverage(inputs.pooled, method, obs, group)
    if not run:
        return OPEN, []
    domains = inputs.domains(method, obs, group.tasks)
    if domains.empty:
        return OPEN, [f"own runs: {run}; nothing to compare with"]
    named = ", ".join(_domain(inputs, row) for row in domains.to_dict("records"))
    return _status(domains, len(group.tasks)), [f"own runs: {run}; {named}"]


def _domain(inputs: Inputs, row: dict[Any, Any]) -> str:
    """Return the verdict on a domain, and on how many tasks it rests, as text."""
    number = row["compared"]
    tasks = f"{number or 'no'} task{'s' * (number != 1)} compared"
    return f"{inputs.catalog.groups[row['domain']].label}: {row['verdict']} ({tasks})"


def _status(domains: pd.DataFrame, num_tasks: int) -> str:
    """Return the status that follows from the verdicts on the domains of a group.

    Args:
        domains: result of `Inputs.domains`.
        num_tasks: number of tasks of the group.
    """
    found = set(domains["verdict"])
    if found & {"worse", "better"}:
        return NOT_REPRODUCED
    if found - {"reproduced", margins.SO_FAR}:
        return OPEN
    whole = domains["complete"].all() and domains["compared"].sum() == num_tasks
    return REPRODUCED if whole and margins.SO_FAR not in found else SO_FAR


def _advantage(claim: Advantage, inputs: Inputs) -> Iterator[Finding]:
    """Yield a finding for each method that another is compared with."""
    group = inputs.catalog.groups[claim.group]
    for other in claim.over:
        ours, theirs = (inputs.label(name) for name in (claim.method, other))
        statement = f"{ours} scores higher than {theirs} on {_tasks(group, 'state')}"
        status, evidence = OPEN, []
        for source, name in ((RUNS_SOURCE, "own runs"), (PUBLISHED, "released curves")):
            lead = inputs.lead(source, claim.method, other, group)
            if lead is None:
                continue
            low, high = lead[0].interval(0.95)
            evidence.append(f"{name}: {points_text(*lead)}")
            if source == RUNS_SOURCE:
                status = SUPPORTED if low > 0 else CONTRADICTED if high < 0 else OPEN
            elif status == OPEN and low > 0:
                status = RECOMPUTED
        finding = _finding(claim, statement, status, evidence, other)
        yield replace(finding, command=f"{claim.command} methods={claim.method},{other}")


def _agents(claim: Agents, inputs: Inputs) -> Iterator[Finding]:
    """Yield a finding for each model size of the multi-task agents."""
    quoted = quoted_scores(scaling_spec(inputs.catalog))
    quoted = quoted[quoted["task_set"] == claim.task_set]
    table = inputs.agents
    plain = table["variant"].map(in_any_precision) == "default"
    rows = table[(table["task_set"] == claim.task_set) & plain]
    for size in claim.sizes:
        own = rows[(rows["model_size"] == size) & (rows["num_ours"] > 0)]
        judged = own[own["method"] == "tdmpc2"].to_dict("records")
        evidence = list(map(_agent_runs, judged))
        found = {_AGENT_STATUSES.get(row["verdict"], OPEN) for row in judged}
        # Of several datasets or precisions, all must reproduce the score.
        status = NOT_REPRODUCED if NOT_REPRODUCED in found else OPEN
        status = REPRODUCED if found == {REPRODUCED} else status
        known = quoted[quoted["size"] == size]
        agent = f"TD-MPC2 with {size}M parameters"
        statement = f"Score of {agent} on {claim.task_set}, which a figure shows"
        for by, value in known[["by", "score"]].to_numpy():
            if by == PAPER:
                statement = f"{agent} scores {value:g} on {claim.task_set}"
                status = QUOTED if status == OPEN else status
                continue
            evidence.append(f"{by}: {value:g}")
            if by == PWM and status in (OPEN, QUOTED):
                status = EVALUATED
            elif status == OPEN:
                status = QUOTED
        yield _finding(claim, statement, status, evidence, size)


_AGENT_STATUSES = {
    "reproduced": REPRODUCED,
    "worse": NOT_REPRODUCED,
    "better": NOT_REPRODUCED,
}


def _agent_runs(row: dict[Any, Any]) -> str:
    """Return the runs of a row of the comparison of agents as text."""
    _, _, mark = row["variant"].partition("[")
    details = ", ".join(filter(None, (mark.removesuffix("]"), row["dataset"])))
    runs = f"own runs ({details})" if details else "own runs"
    return (
        f"{runs}: {row['num_ours']} seed{'s' * (row['num_ours'] > 1)}, "
        f"{row['num_updates']:,} of {margins.PAPER_UPDATES:,} updates: {row['verdict']}"
    )


def _finetuning(claim: Finetuning, inputs: Inputs) -> Iterator[Finding]:
    """Yield the finding on a quoted score of finetuning, which `reproduce.py` does not judge."""
    spec = inputs.catalog.figures["fig8"]
    (quote,) = [entry for entry in spec.quoted if entry["label"] == claim.label]
    group = inputs.catalog.groups[quote["group"]]
    runs = inputs.runs.select(variants=[claim.variant], sizes=["19"])
    run = coverage(runs, "tdmpc2", "state", group)
    evidence = [f"own runs: {run}; reproduce.py does not judge them"] if run else []
    statement = f"A 19M model ({claim.label}) scores {quote['score']:g} on {_tasks(group, 'state')}"
    yield _finding(claim, statement, QUOTED, evidence)


def _ablation(claim: AblationClaim, inputs: Inputs) -> Iterator[Finding]:
    """Yield the finding on an ablation."""
    status, evidence = ablation(claim, inputs)
    statement = claim.statement[0].upper() + claim.statement[1:]
    yield _finding(claim, statement, status, evidence)


def _checked(claim: Checked, inputs: Inputs) -> Iterator[Finding]:
    """Yield the finding on a number that tests compare."""
    yield _finding(claim, claim.statement, TESTED, claim.tests)


def _quoted(claim: Quoted, inputs: Inputs) -> Iterator[Finding]:
    """Yield the finding on a number without a counterpart."""
    yield _finding(claim, claim.statement, QUOTED, [claim.why])


def _unknown(claim: Unknown, inputs: Inputs) -> Iterator[Finding]:
    """Yield the finding on a claim without a number."""
    yield _finding(claim, claim.statement, OPEN, [claim.why])


KINDS: dict[type, Callable[[Any, Inputs], Iterator[Finding]]] = {
    Scores: _scores,
    Advantage: _advantage,
    Agents: _agents,
    Finetuning: _finetuning,
    AblationClaim: _ablation,
    Checked: _checked,
    Quoted: _quoted,
    Unknown: _unknown,
}
"""Function that derives the findings on each kind of claim."""


def _tasks(group: Group, obs: str) -> str:
    """Return the tasks of a group and the step of their scores as text."""
    steps = sorted({group.steps(task) for task in group.tasks})
    at = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    what = "from pixels, " if obs == "rgb" else ""
    count = len(group.tasks)
    return f"{group.label} ({count} task{'s' * (count > 1)}, {what}{at} env steps)"
