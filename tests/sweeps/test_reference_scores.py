"""Reference scores of random and zero actions, and the threshold derived from them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from sweeps.tracking.reference_scores import measure_reference_scores, threshold
from tdmpc2.envs.tasks import get_task
from tests.damages import CONTENTS, damage


def test_reference_scores_are_measured_once_and_kept(tmp_path: Path) -> None:
    task = get_task("toy-pointmass")
    reference_scores = measure_reference_scores([task, task], tmp_path)
    kept = json.loads((tmp_path / "floors" / "toy-pointmass.json").read_text())
    assert reference_scores == {task: kept}
    assert kept["episodes"] == 10
    assert 0 < kept["zero"]["mean"] < 15  # of 50
    assert 0 < kept["uniform"]["mean"] < 15
    (tmp_path / "floors" / "toy-pointmass.json").write_text(json.dumps(kept | {"episodes": 11}))
    assert measure_reference_scores([task], tmp_path)[task]["episodes"] == 11


@pytest.mark.parametrize("how", CONTENTS)
def test_damaged_reference_scores_are_measured_again(how: str, tmp_path: Path) -> None:
    task = get_task("toy-pointmass")
    measured = measure_reference_scores([task], tmp_path)
    damage(tmp_path / "floors" / "toy-pointmass.json", how)
    assert measure_reference_scores([task], tmp_path) == measured


@pytest.mark.parametrize(
    ("uniform", "zero", "untrained", "expected"),
    [
        ((40, 5), (20, 1), (30, 2), 40 + 15),
        ((40, 5), (754, 0), (30, 2), 754 + 15),
        ((40, 5), (20, 1), (90, 10), 90 + 30),
        # The largest sd counts, even if it belongs to another reference than the largest mean.
        ((40, 50), (60, 1), (30, 2), 60 + 150),
    ],
)
def test_threshold(
    uniform: tuple[float, float],
    zero: tuple[float, float],
    untrained: tuple[float, float],
    expected: float,
) -> None:
    floor = {
        "uniform": {"mean": uniform[0], "sd": uniform[1]},
        "zero": {"mean": zero[0], "sd": zero[1]},
    }
    evaluations = pd.DataFrame(
        {
            "env_step": [0, 1000],
            "episode_return": [untrained[0], 999.0],
            "episode_return_sd": [untrained[1], 999.0],
        }
    )
    assert threshold(floor, evaluations) == expected


def test_reference_scores_of_other_models_are_kept_apart(tmp_path: Path) -> None:
    task = get_task("turn-faucet")
    reference_scores = measure_reference_scores([task], tmp_path, assets="official,standin")
    (kept,) = (tmp_path / "floors").rglob("*.json")
    assert kept == tmp_path / "floors" / "standin" / "turn-faucet.json"
    assert reference_scores[task]["zero"]["mean"] > 0


def test_reference_scores_depend_on_the_physics(tmp_path: Path) -> None:
    """Those that version 0.4.0 left are measured again, if the repairs change the task."""
    path = tmp_path / "floors" / "cup-catch.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"task": "cup-catch", "episodes": 10}))
    paper = get_task("cup-catch")
    simulator = dataclasses.replace(paper, physics="simulator")
    scores = measure_reference_scores([paper, simulator], tmp_path)
    assert json.loads(path.read_text()) == scores[paper]
    assert scores[paper]["physics"] == "paper"
    other = tmp_path / "floors" / "physics=simulator" / "cup-catch.json"
    assert json.loads(other.read_text()) == scores[simulator]
