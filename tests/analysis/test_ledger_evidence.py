"""What the statuses of claims rest on, where runs of one claim differ."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis import reproduce
from analysis.figures.registry import shipped_catalog
from analysis.ledger import findings as status
from analysis.ledger.ablation_evidence import ablation
from analysis.ledger.claims_file import (
    AblationClaim,
    Advantage,
    Agents,
    Scores,
    ledger_path,
    read_ledger,
)
from analysis.ledger.evidence import KINDS
from analysis.ledger.findings import Finding
from analysis.ledger.inputs import Inputs, coverage
from analysis.records.load import load
from analysis.stats.horizons import Group
from analysis.stats.margins import PAPER_UPDATES
from tdmpc2.common.system.paths import recorded_folders
from tests.analysis.multitask_files import write_multitask_run
from tests.analysis.run_files import write_run

PAPER = 49.5
"""The paper's score of the 5M agent on mt80."""


def agents(tmp_path) -> Finding:
    claim = Agents(id="agents", places=(), task_set="mt80", sizes=("5",))
    inputs = Inputs.read([tmp_path], None, shipped_catalog())
    (finding,) = KINDS[Agents](claim, inputs)
    return finding


def test_the_steps_of_a_group_are_those_of_all_its_runs(tmp_path) -> None:
    group = Group("three", "Three", ("walker-walk", "dog-run", "cup-catch"))
    write_run(tmp_path, {0: 1.0, 4_000_000: 900.0}, budget=4_000_000)
    write_run(tmp_path, {0: 1.0, 4_000_000: 900.0}, seed=2, budget=4_000_000)
    text = coverage(load(tmp_path), "tdmpc2", "state", group)
    assert text == "1 of 3 tasks, 4,000,000 of 4,000,000 env steps, 2 seeds"
    write_run(tmp_path, {0: 1.0, 50_000: 9.0}, task="dog-run", budget=14_000_000)
    text = coverage(load(tmp_path), "tdmpc2", "state", group)
    expected = "50,000 to 4,000,000 of 4,000,000 to 14,000,000 env steps"
    assert text == f"2 of 3 tasks, {expected}, 1 to 2 seeds"


@pytest.mark.parametrize(
    ("shift", "expected"),
    [(0.0, status.REPRODUCED), (-20.0, status.NOT_REPRODUCED)],
)
@pytest.mark.parametrize("first", ["a", "b"])
def test_agents_of_all_datasets_must_reproduce_a_score(tmp_path, shift, expected, first) -> None:
    """Whichever dataset comes first, one without the score is decisive."""
    for name, moved in (("a", shift * (first == "a")), ("b", shift * (first == "b"))):
        for seed, noise in enumerate((-0.1, 0.0, 0.1), start=1):
            score = PAPER + noise + moved
            write_multitask_run(
                *(tmp_path, {0: (1.0, 1.0), PAPER_UPDATES: (score, score)}),
                **{"task_set": "mt80", "seed": seed, "budget": PAPER_UPDATES, "tag": f"{name}set"},
                **{"dataset": f"{name}" * 8, "dataset_name": f"data-{name}"},
            )
    finding = agents(tmp_path)
    assert finding.status == expected
    assert [line.partition(":")[0] for line in finding.evidence] == [
        "own runs (data-a)",
        "own runs (data-b)",
    ]


def test_recorded_verdicts_are_those_of_reproduce(tmp_path: Path, published_curves: Path) -> None:
    """Also where `reproduce.py` keeps runs of several precisions apart."""
    catalog = shipped_catalog()
    inputs = Inputs.read(recorded_folders(), published_curves, catalog)
    found = []
    for claim in read_ledger(ledger_path()).claims:
        for one in KINDS[Scores](claim, inputs) if isinstance(claim, Scores) else ():
            if one.status not in (status.REPRODUCED, status.SO_FAR):
                continue
            method = one.command.rpartition("methods=")[2]
            tasks = ",".join(catalog.groups[claim.group].tasks)
            arguments = [f"published={published_curves}", f"out={tmp_path}", "recorded=true"]
            reproduce.main([*arguments, f"methods={method}", f"tasks={tasks}"])
            domains = pd.read_csv(tmp_path / "reproduction_domains.csv")
            rows = domains[domains["domain"] != "all"]
            for name, own in rows.groupby("domain"):
                verdicts = [f"{catalog.groups[str(name)].label}: {v} (" for v in own["verdict"]]
                assert any(text in one.evidence[0] for text in verdicts)
            found.append(one.id)
    assert found


def test_an_interval_states_its_measured_coverage(tmp_path: Path) -> None:
    """Of the 27 equally likely draws of three scores, 21 have an interval with the mean."""
    group = Group("one", "One", ("walker-walk",), horizon=200_000)
    catalog = shipped_catalog()
    catalog = replace(catalog, groups={**catalog.groups, "one": group})
    for seed, score in enumerate((600.0, 1000.0, 500.0), start=1):
        write_run(tmp_path, {0: 0.0, 200_000: score}, seed=seed, budget=200_000)
        write_run(tmp_path, {0: 0.0, 200_000: 0.0}, seed=seed, budget=200_000, method="sac")
    claim = Advantage(id="best", places=(), group="one", method="tdmpc2", over=("sac",))
    (finding,) = KINDS[Advantage](claim, Inputs.read([tmp_path], None, catalog))
    (text,) = finding.evidence
    assert re.fullmatch(r"own runs: \+70\.0 \[4\.\d, 100\.0\] points \(7\d %\)", text)


def test_steps_and_seeds_of_an_ablation_are_those_of_its_tasks(tmp_path: Path) -> None:
    for task, seeds, last in (("walker-walk", (1, 2), 4_000_000), ("cup-catch", (3, 4), 20_000)):
        for seed in seeds:
            facts = {"task": task, "seed": seed, "budget": last}
            write_run(tmp_path, {0: 0.0, last: 900.0 + seed}, **facts)
            other = {"variant": "num-q-2", "overrides": {"num_q": 2}}
            write_run(tmp_path, {0: 0.0, last: 400.0 - seed}, **facts, **other)
    claim = AblationClaim(id="a", places=(), flag="num-q 2", expected="lower", statement="lower")
    _, (text,) = ablation(claim, Inputs.read([tmp_path], None, shipped_catalog()))
    assert "2 tasks, 20,000 to 4,000,000 env steps, 2 seeds: -50.5 [" in text
