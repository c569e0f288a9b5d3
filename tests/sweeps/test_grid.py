"""Expansion of a sweep into runs, and grouping of seeds into processes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from sweeps.execution.process_file import write_file
from sweeps.planning.grid import SMOKE, companion_spec, grid, group_seeds
from sweeps.planning.planned_run import PlannedRun
from sweeps.planning.request import SweepRequest
from tdmpc2.common.run import spec_file
from tdmpc2.common.run.spec import RunOptions, RunSpec, parse_seeds
from tdmpc2.common.system.errors import UserError
from tdmpc2.runners.online import run_seeds
from tdmpc2.runners.specs import make_spec
from tdmpc2.train import parse
from tests.test_architecture import ROOT


def read_back(folder: Path, group: Sequence[PlannedRun]) -> list[RunSpec]:
    """The runs that a process finds in its file."""
    return parse([f"spec={write_file(folder, 1, group, {})}"])[0]


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
    """The file of each run names the source that was found, so that it uses no other one."""
    monkeypatch.setenv("MS2_ASSET_DIR", str(tmp_path))
    tasks = ["lift-cube", "pick-ycb", "turn-faucet"]
    with pytest.raises(UserError, match="official ycb models are required"):
        make_spec("tdmpc2", "pick-ycb", 1)
    # A plan includes blocked runs; their models are attributed to the first wanted source.
    assert [run.assets for run in grid(tasks, ["tdmpc2"], (1,))] == [None, "official", "official"]
    runs = grid(tasks, ["tdmpc2"], (1,), assets="official,standin")
    assert [run.assets for run in runs] == [None, "standin", "standin"]
    assert read_back(tmp_path, [PlannedRun(runs[1], Path())]) == [runs[1]]


def test_pixels_have_a_budget_and_an_identity_of_their_own(tmp_path: Path) -> None:
    (state,) = grid(["walker-run"], ["tdmpc2"], (1,))
    (pixels,) = grid(["walker-run"], ["tdmpc2"], (1,), obs="rgb")
    assert (state.budget, pixels.budget) == (4_000_000, 2_000_000)
    assert state.identity != pixels.identity
    assert read_back(tmp_path, [PlannedRun(pixels, Path())]) == [pixels]


def test_the_documented_command_plans_the_experiments_from_pixels() -> None:
    shown = re.search(r"`(suite=visual [^`]+)`", (ROOT / "docs" / "tasks.md").read_text())
    assert shown is not None
    specs = [run.spec for run in SweepRequest.from_arguments(shown[1].split()).planned]
    assert len(specs) == 12 * 3
    assert {(one.method, one.obs, one.budget) for one in specs} == {("tdmpc2", "rgb", 2_000_000)}


def test_seeds_of_one_task_share_processes(tmp_path: Path) -> None:
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
        assert read_back(tmp_path, group) == [job.spec for job in group]
    assert [len(group) for group in group_seeds(jobs, 1)] == [1] * 6


def test_the_smoke_suite_brings_a_tiny_run_of_each_baseline(tmp_path: Path) -> None:
    specs = [companion_spec(SMOKE, companion, "smoke") for companion in SMOKE.companions]
    assert [spec.method for spec in specs] == ["sac", "tdmpc", "dreamerv3"]
    assert {spec.variant for spec in specs} == {"smoke"}
    assert {spec.seed for spec in specs} == {1}
    assert max(spec.budget for spec in specs) < SMOKE.env_steps
    for companion, spec in zip(SMOKE.companions, specs, strict=True):
        planned = PlannedRun(spec, Path(), options=companion.options)
        (started,), options = spec_file.read(write_file(tmp_path, 1, [planned], {}))
        assert started == spec
        assert companion.options.items() <= vars(options).items()


def test_seeds_with_a_task_embedding_are_trained_one_by_one() -> None:
    specs = grid(["walker-run"], ["tdmpc2"], (1, 2), overrides={"task_dim": 4})
    runs = [PlannedRun(spec, Path()) for spec in specs]
    assert [len(group) for group in group_seeds(runs, 2)] == [1, 1]
    with pytest.raises(UserError, match=r"^task_dim=4: .*use seed=$"):
        run_seeds(specs, RunOptions(runs=Path("/nonexistent")))


@pytest.mark.parametrize(
    ("method", "task"), [("sac", "walker-run"), ("tdmpc2", "toy-pointmass-episodic")]
)
def test_what_cannot_share_a_process_gets_its_own(method: str, task: str) -> None:
    runs = [PlannedRun(spec, Path()) for spec in grid([task], [method], (1, 2, 3))]
    assert [len(group) for group in group_seeds(runs, 3)] == [1, 1, 1]
