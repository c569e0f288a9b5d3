"""Studies that compare runs with the released curves, by method and domain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.records.load import load_curves
from analysis.records.sources import PUBLISHED
from analysis.stats.ragged_curves import ScoreCurves
from analysis.stats.reproduction_power import reproduction_power
from sweeps import launch
from sweeps.planning.request import SweepRequest
from sweeps.studies.reproduction import make_reproduction
from sweeps.studies.scores import read_scores
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.tasks import TASKS
from tests.analysis.run_files import write_run, write_table

STEPS = 100_000


@pytest.fixture(autouse=True)
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seeds of TD-MPC2 on three tasks; those of Meta-World differ too much for a margin."""
    folder = tmp_path / "paper"
    monkeypatch.setenv("TDMPC2_PUBLISHED", str(folder))
    scores = {
        "walker-walk": (740, 750, 760),
        "walker-run": (495, 500, 505),
        "mw-door-open": (0, 0.5, 1),
    }
    for task, seeds in scores.items():
        rows = [
            f"{step},{score * (step > 0)},{seed}"
            for step in (0, STEPS // 2, STEPS, 2 * STEPS)
            for seed, score in enumerate(seeds, start=1)
        ]
        write_table(
            folder / "tdmpc2" / f"{task}.csv",
            f"step,{'success' if task.startswith('mw-') else 'reward'},seed",
            rows,
        )


def arguments(runs: Path, **more: object) -> list[str]:
    wanted = {
        **{"tasks": "walker-walk,walker-run", "env_steps": STEPS, "runs": runs},
        **{"cluster": "inline", "until": "decided", "against": "published", "looks": "2,3"},
        **more,
    }
    return [f"{key}={value}" for key, value in wanted.items()]


def complete(runs: Path, shift: float, seeds: int) -> None:
    """Write completed runs of the first seeds."""
    for run in SweepRequest.from_arguments(arguments(runs, seeds=seeds)).planned:
        mean = {"walker-walk": 750.0, "walker-run": 500.0}[run.spec.task] + shift
        points = {0: 0.0, 25_000: 1.0, STEPS // 2: mean - 10, STEPS: mean + 10 + run.spec.seed}
        tag = run.directory.name.partition("-")[2]
        write_run(runs, points, task=run.spec.task, seed=run.spec.seed, tag=tag, budget=STEPS)


@pytest.mark.parametrize(("shift", "decision"), [(0.0, "supported"), (-200.0, "contradicted")])
def test_runs_are_compared_with_the_released_curves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shift: float, decision: str
) -> None:
    runs = tmp_path / "runs"
    complete(runs, shift, seeds=2)
    assert launch.main(arguments(runs)) == 0
    printed = capsys.readouterr().out
    assert "looks at 2, 3 seeds against 3 published ones" in printed
    (table,) = (runs / "studies").glob("tasks-reproduction-*/decisions.csv")
    (row,) = table.read_text().splitlines()[1:]
    assert row.startswith("2,tdmpc2 dmcontrol,same,")
    assert f",{decision}," in row
    assert "Runs: 4 of 6 with 3 seeds" in printed


def test_runs_in_any_precision_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main(arguments(tmp_path / "runs", precision="bf16", dry_run="true")) == 0
    assert "against 3 published ones" in capsys.readouterr().out


def test_scores_average_evaluations_that_both_sides_have(tmp_path: Path) -> None:
    """Ours before the first published evaluation do not count."""
    runs = tmp_path / "runs"
    complete(runs, 0.0, seeds=2)
    request = SweepRequest.from_arguments(arguments(runs, seeds=3))
    scores = read_scores(make_reproduction(request)[0], request.planned, runs)
    ours = scores.points["tdmpc2", "default", "walker-walk"]
    assert ours[:2] == pytest.approx([75.05, 75.1])
    assert scores.of(("tdmpc2", "published"), "walker-walk", 2) == pytest.approx([74, 75, 76])
    assert scores.episodes == {"walker-walk": None, "walker-run": None}


@pytest.mark.parametrize("diverged", [(1,), (1, 2)])
def test_published_scores_are_those_at_the_end_also_if_our_runs_diverge(
    tmp_path: Path, diverged: tuple[int, ...]
) -> None:
    runs = tmp_path / "runs"
    request = SweepRequest.from_arguments(arguments(runs, looks=2))
    for run in request.planned:
        early = run.spec.seed in diverged
        points = {0: 1.0, STEPS // 2: 20.0} if early else {0: 1.0, STEPS // 2: 700.0, STEPS: 800.0}
        write_run(runs, points, task=run.spec.task, seed=run.spec.seed, budget=STEPS,
                  tag=run.directory.name.partition("-")[2],
                  state="DIVERGED" if early else "COMPLETED")  # fmt: skip
    scores = read_scores(make_reproduction(request)[0], request.planned, runs)
    ours = scores.points["tdmpc2", "default", "walker-walk"]
    assert ours[:2] == pytest.approx([2, 2 if 2 in diverged else 75])
    assert scores.of(("tdmpc2", "published"), "walker-walk", 2) == pytest.approx([74, 75, 76])


def test_the_margin_is_that_of_the_verdicts(tmp_path: Path) -> None:
    """Scores are means of five evaluations, which spread less than a single one."""
    folder, budget = tmp_path / "paper", TASKS["walker-walk"].env_steps
    for task, shift in (("walker-walk", 150), ("walker-run", 120), ("cheetah-run", 2)):
        rows = [
            f"{step},{(500 + 10 * seed + shift * (-1) ** (place + seed)) * (place > 0)},{seed}"
            for place, step in enumerate(np.linspace(0, budget, 21, dtype=int))
            for seed in (1, 2, 3)
        ]
        write_table(folder / "tdmpc2" / f"{task}.csv", "step,reward,seed", rows)
    more = {"env_steps": budget, "seeds": 3}
    request = SweepRequest.from_arguments(arguments(tmp_path / "runs", **more))
    (claim,) = make_reproduction(request)[0].claims
    curves = ScoreCurves(load_curves(folder, PUBLISHED))
    (row,) = reproduction_power(curves, 3, None, claim.tasks).to_dict("records")
    assert 3 < claim.margin == row["margin"]


def test_scores_are_those_of_common_evaluations(tmp_path: Path) -> None:
    """Our further evaluations between the released ones do not count."""
    runs = tmp_path / "runs"
    request = SweepRequest.from_arguments(arguments(runs, seeds=3))
    for run in request.planned:
        points = {step: 900.0 for step in range(0, STEPS + 1, 10_000)}
        points |= {STEPS // 2: 600.0, STEPS: 700.0}
        write_run(runs, points, task=run.spec.task, seed=run.spec.seed, budget=STEPS,
                  tag=run.directory.name.partition("-")[2])  # fmt: skip
    scores = read_scores(make_reproduction(request)[0], request.planned, runs)
    assert scores.points["tdmpc2", "default", "walker-walk"] == pytest.approx([65] * 3)
    assert scores.of(("tdmpc2", "published"), "walker-walk", 2) == pytest.approx([74, 75, 76])


def test_domains_that_cannot_be_settled_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"tasks": "walker-walk,mw-door-open,cup-catch", "dry_run": "true"}
    assert launch.main(arguments(tmp_path / "runs", **more)) == 0
    printed = capsys.readouterr().out
    assert "tdmpc2, metaworld: left out: the released seeds settle no margin below" in printed
    assert "tdmpc2: no released curves near the step: cup-catch" in printed
    assert "mw-door-open seed" not in printed
    assert "walker-walk seed 3" in printed


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"num_q": 2}, "of the paper's settings"),
        ({"obs": "rgb"}, "of the paper's settings"),
        ({"until": "none"}, "only valid with until=decided"),
        ({"tasks": "mw-door-open"}, "nothing to compare"),
        ({"env_steps": 5_000_000}, "nothing to compare"),
    ],
)
def test_what_is_refused(tmp_path: Path, more: dict[str, object], message: str) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(UserError, match=message):
        launch.main(arguments(runs, **more))
    assert not runs.exists()


def test_without_released_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TDMPC2_PUBLISHED", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"no released curves in .*fetch_published\.py"):
        launch.main(arguments(tmp_path / "runs"))
