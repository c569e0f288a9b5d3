"""What the statuses of claims rest on, where runs of one claim differ."""

from __future__ import annotations

import pytest

from analysis.figures.registry import shipped_catalog
from analysis.ledger import findings as status
from analysis.ledger.claims_file import Agents
from analysis.ledger.evidence import KINDS
from analysis.ledger.findings import Finding
from analysis.ledger.inputs import Inputs, coverage
from analysis.records.load import load
from analysis.stats.horizons import Group
from analysis.stats.margins import PAPER_UPDATES
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
