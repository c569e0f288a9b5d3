"""Which runs a sweep consists of."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.planning.grid import SMOKE, companion_spec, grid, group_seeds
from sweeps.planning.planned_run import PlannedRun, train_arguments
from tdmpc2.common.run.spec import parse_seeds
from tdmpc2.common.system.errors import UserError
from tdmpc2.runners.registry import make_spec
from tdmpc2.train import parse


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", (1, 2, 3)), ("1,2,5", (1, 2, 5)), ("7,", (7,)), ("1", (1,))]
)
def test_seeds_are_a_count_or_a_list(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "0", "two", "1,1", "-2", "1,-2"])
def test_bad_seeds(text: str) -> None:
    with pytest.raises(UserError, match="seeds="):
        parse_seeds(text)


def test_every_task_and_seed_once() -> None:
    runs = grid(["walker-walk", "cup-catch"], ["tdmpc2"], (1, 2))
    assert [(r.task, r.seed) for r in runs] == [
        ("walker-walk", 1),
        ("walker-walk", 2),
        ("cup-catch", 1),
        ("cup-catch", 2),
    ]
    assert {r.variant for r in runs} == {"default"}
    assert {r.budget for r in runs} == {4_000_000}
    assert len({r.identity for r in runs}) == 4


def test_command_line_wins_over_the_preset_and_loses_its_name() -> None:
    (run,) = grid(["walker-walk"], ["tdmpc2"], (1,), preset=SMOKE)
    assert run.variant == "smoke"
    assert run.budget == SMOKE.env_steps
    (changed,) = grid(
        ["walker-walk"], ["tdmpc2"], (1,), preset=SMOKE, env_steps=500, overrides={"horizon": 2}
    )
    assert changed.variant != "smoke"
    assert changed.budget == 500
    assert dict(changed.overrides) == {**dict(run.overrides), "horizon": 2}
    assert changed.identity != run.identity


def test_models_are_the_first_wanted_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the arguments for each run name what was found, so that it can use nothing else."""
    monkeypatch.setenv("MS2_ASSET_DIR", str(tmp_path))
    tasks = ["lift-cube", "pick-ycb", "turn-faucet"]
    with pytest.raises(UserError, match="official ycb models are required"):
        make_spec("tdmpc2", "pick-ycb", 1)
    # A plan has the runs that wait for models, under the first source that is wanted.
    assert [run.assets for run in grid(tasks, ["tdmpc2"], (1,))] == [None, "official", "official"]
    runs = grid(tasks, ["tdmpc2"], (1,), assets="official,standin")
    assert [run.assets for run in runs] == [None, "standin", "standin"]
    assert "assets=standin" in train_arguments([PlannedRun(runs[1], Path())], {})
    assert parse(train_arguments([PlannedRun(runs[1], Path())], {}))[0] == [runs[1]]


def test_pixels_have_a_budget_and_an_identity_of_their_own() -> None:
    (state,) = grid(["walker-run"], ["tdmpc2"], (1,))
    (pixels,) = grid(["walker-run"], ["tdmpc2"], (1,), obs="rgb")
    assert (state.budget, pixels.budget) == (4_000_000, 2_000_000)
    assert state.identity != pixels.identity
    assert parse(train_arguments([PlannedRun(pixels, Path())], {}))[0] == [pixels]


def test_seeds_of_one_task_share_processes() -> None:
    runs = grid(["walker-run", "cup-catch"], ["tdmpc2"], (7, 1, 2))
    jobs = [PlannedRun(spec, Path(str(i))) for i, spec in enumerate(runs)]
    groups = group_seeds(jobs, 2)
    named = [[(job.spec.task, job.spec.seed) for job in group] for group in groups]
    assert named == [
        [("walker-run", 7), ("walker-run", 1)],
        [("walker-run", 2)],
        [("cup-catch", 7), ("cup-catch", 1)],
        [("cup-catch", 2)],
    ]
    for group in groups:
        assert parse(train_arguments(group, {}))[0] == [job.spec for job in group]
    assert [len(group) for group in group_seeds(jobs, 1)] == [1] * 6


def test_the_smoke_suite_brings_a_tiny_run_of_each_baseline() -> None:
    specs = [companion_spec(SMOKE, companion, "smoke") for companion in SMOKE.companions]
    assert [spec.method for spec in specs] == ["sac", "tdmpc", "dreamerv3"]
    assert {spec.variant for spec in specs} == {"smoke"}
    assert {spec.seed for spec in specs} == {1}
    assert max(spec.budget for spec in specs) < SMOKE.env_steps
    for companion, spec in zip(SMOKE.companions, specs, strict=True):
        # The process that runs it finds the same run directory.
        ((started,), _) = parse(
            train_arguments([PlannedRun(spec, Path(), options=companion.options)], {})
        )
        assert started == spec


@pytest.mark.parametrize(
    ("method", "task"), [("sac", "walker-run"), ("tdmpc2", "toy-pointmass-episodic")]
)
def test_what_cannot_share_a_process_gets_its_own(method: str, task: str) -> None:
    runs = [PlannedRun(spec, Path()) for spec in grid([task], [method], (1, 2, 3))]
    assert [len(group) for group in group_seeds(runs, 3)] == [1, 1, 1]
