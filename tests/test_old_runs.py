"""Runs begun under version 0.4.0 resume, and end as they did there."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tdmpc2 import finetune
from tdmpc2.common.numerics.numeric_path import numeric_path
from tdmpc2.common.run.run_files import read_status
from tests.kill_driver import Command
from tests.runs import outcome_of

FOLDER = Path(__file__).parent / "data" / "runs_0_4_0"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text())
PLACES = {"DATA": FOLDER / "data", "MODEL": FOLDER / "finetune" / "model.pt"}


def arguments(case: str, runs: Path) -> list[str]:
    """Options that resume a run."""
    given = {
        key: PLACES.get(value, value) for key, value in EXPECTED["cases"][case]["words"].items()
    }
    if case == "finetune":  # version 0.4.0 knew no other way of seeding
        (variant,) = {Path(place).parts[1] for place in EXPECTED["cases"][case]["ends"]}
        given |= {"seed_with": "random", "variant": variant}
    allowed = {"allow_commit_change": "true", "allow_numeric_change": "true"}
    return [f"{key}={value}" for key, value in {**given, **allowed, "runs": runs}.items()]


def numeric_path_is_the_same() -> bool:
    """Whether this machine computes as the one did that made the runs."""
    return numeric_path(torch.device("cpu"), 1) == EXPECTED["numeric"]


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("case", EXPECTED["cases"])
def test_a_run_of_0_4_0_resumes(case: str, tmp_path: Path) -> None:
    """To the same bytes where the numeric path is the same, else to as many records."""
    runs = tmp_path / "runs"
    shutil.copytree(FOLDER / case / "runs", runs)
    if case == "finetune":
        assert finetune.main(arguments(case, runs)) == 0
    else:
        done = Command(arguments(case, runs)).run()
        assert done.code == 0, done
    found = sorted(str(path.parent.relative_to(runs)) for path in runs.rglob("spec.json"))
    assert found == sorted(EXPECTED["cases"][case]["ends"])
    for place, end in EXPECTED["cases"][case]["ends"].items():
        status = read_status(runs / place)
        assert status is not None
        assert status["state"] == "COMPLETED"
        for name in ("eval.csv", "train.csv"):
            ours, theirs = runs / place / name, FOLDER / case / "ended" / place / name
            if numeric_path_is_the_same():
                assert ours.read_bytes() == theirs.read_bytes(), name
            else:
                assert len(rows(ours)) == len(rows(theirs))
                assert rows(ours)[0].keys() == rows(theirs)[0].keys()
        if numeric_path_is_the_same():
            assert outcome_of(runs / place).agent == end["agent"]
