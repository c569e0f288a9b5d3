"""Comparison of multi-task agents with the paper's scores, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.records.load import load
from analysis.records.run_folders import load_folders
from analysis.stats.margins import PAPER_UPDATES
from analysis.stats.multitask_claims import (
    MULTITASK_CLAIMS,
    agent_texts,
    claims_text,
    compare_agents,
)
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.rules import RULES
from tdmpc2.runners.specs import OFFLINE_UPDATES
from tests.analysis.multitask_files import write_multitask_run

PAPER = {("mt80", "5"): 50.0}


def write(runs, scores, *, updates: int = PAPER_UPDATES, **facts) -> None:
    """Write a run of each seed with this mean score on a task set named mt80."""
    for seed, score in enumerate(scores, start=1):
        points = {0: (0.0, 0.0), updates: (score - 5, score + 5)}
        write_multitask_run(runs, points, seed=seed, **{"task_set": "mt80", **facts})


def compare(runs, published=PAPER, variant: str = "default", rule: str = "hold") -> pd.DataFrame:
    curves = ScoreCurves(load(runs), "num_updates")
    table = compare_agents(curves, published, RULES[rule], variant, 3.0)
    assert list(table.columns) == MULTITASK_CLAIMS
    return table


def test_the_paper_trains_as_long_as_we_do():
    assert PAPER_UPDATES == OFFLINE_UPDATES


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        ((49.9, 50.1, 50.0), "reproduced"),
        ((39.9, 40.1, 40.0), "worse"),
        ((59.9, 60.1, 60.0), "better"),
        ((40.0, 60.0), "not enough data"),
    ],
)
def test_verdicts(tmp_path, scores, verdict):
    write(tmp_path, scores)
    (row,) = compare(tmp_path).to_dict("records")
    assert row["verdict"] == verdict
    assert (row["num_ours"], row["theirs"]) == (len(scores), 50.0)
    assert row["difference"] == pytest.approx(np.mean(scores) - 50)


def test_each_agent_is_one_sample(tmp_path):
    """The interval is Student's, with one value for each seed and not for each task."""
    write(tmp_path, (49.0, 50.0, 54.0))
    (row,) = compare(tmp_path).to_dict("records")
    half = 4.302653 * np.std([49.0, 50.0, 54.0], ddof=1) / np.sqrt(3)
    assert [row["low"], row["high"]] == pytest.approx([1 - half, 1 + half])


def test_agents_in_several_precisions_are_all_compared(tmp_path):
    """The precision is no setting of the algorithm, so the paper's score is that of both."""
    write(tmp_path, (49.9, 50.1, 50.0))
    other = {"overrides": {"precision": "bf16"}, "variant": "precision-bf16", "tag": "bf16"}
    write(tmp_path, (48.9, 49.1, 49.0), **other)
    curves = ScoreCurves(load_folders([tmp_path]), "num_updates")
    table = compare_agents(curves, PAPER, RULES["hold"], "default", 3.0)
    assert table["variant"].tolist() == ["default", "default[precision=bf16]"]
    assert table["theirs"].tolist() == [50.0, 50.0]
    assert table["verdict"].tolist() == ["reproduced", "reproduced"]


@pytest.mark.parametrize("score", [50.0, 40.0])
def test_equal_scores_decide_nothing(tmp_path, score):
    """They do not show that all seeds would have this score."""
    write(tmp_path, (score, score))
    (row,) = compare(tmp_path).to_dict("records")
    assert row["verdict"] == "not enough data"
    assert row["remark"] == "all seeds have the same score"
    assert row["difference"] == pytest.approx(score - 50)
    assert np.isnan(row["error"])


@pytest.mark.parametrize(
    ("facts", "remark"),
    [
        ({"updates": 1000}, "at update 1,000, the paper's score is at 10,000,000"),
        ({"updates": 1000, "budget": PAPER_UPDATES}, "at update 1,000, the paper's score is at"),
        ({"size": "19"}, "no published score"),
        ({"task_set": "mt30"}, "no published score"),
        ({"method": "tdmpc"}, "no published score"),
        ({"obs": "rgb"}, "no published score"),
    ],
)
def test_what_has_no_counterpart_is_open(tmp_path, facts, remark):
    write(tmp_path, (49.9, 50.1, 50.0), **facts)
    row = compare(tmp_path).iloc[0]
    assert row["verdict"] == "open"
    assert row["remark"].startswith(remark)
    assert row["num_ours"] == 3
    assert np.isnan(row["difference"])


def test_a_score_without_runs_is_open(tmp_path):
    (row,) = compare(tmp_path).to_dict("records")
    assert (row["verdict"], row["remark"]) == ("open", "no run")
    assert (row["task_set"], row["model_size"], row["num_ours"]) == ("mt80", "5", 0)
    text = claims_text(compare(tmp_path))
    assert "no run" in text
    assert "count as exact" in text


def test_a_single_seed_decides_nothing(tmp_path):
    write(tmp_path, (50.0,))
    (row,) = compare(tmp_path).to_dict("records")
    assert row["verdict"] == "not enough data"
    assert row["remark"] == "a single seed has no interval"


def test_other_variants_are_compared_with_nothing(tmp_path):
    write(tmp_path, (50.0, 50.1), variant="no-simnorm")
    table = compare(tmp_path, variant="no-simnorm")
    assert table["remark"].tolist() == ["no published score", "no run"]
    assert agent_texts(table)["variant"].tolist() == ["no-simnorm", "default"]


def test_longer_runs_are_read_at_the_papers_budget(tmp_path):
    for seed, score in ((1, 49.9), (2, 50.1)):
        at_paper, later = (score, score), (90.0, 90.0)
        points = {0: (0.0, 0.0), PAPER_UPDATES: at_paper, 2 * PAPER_UPDATES: later}
        write_multitask_run(tmp_path, points, task_set="mt80", seed=seed)
    (row,) = compare(tmp_path).to_dict("records")
    assert (row["num_updates"], row["ours"]) == (PAPER_UPDATES, pytest.approx(50))
    assert row["verdict"] == "reproduced"
