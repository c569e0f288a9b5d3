"""The commands of the report's page on the reproduction."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdmpc2.common.run.spec import parse_seeds
from tests.analysis.report_files import LATE, content, headlines, publish
from tests.analysis.run_files import write_run, write_table

LAUNCH = "python sweeps/launch.py tasks="


def test_commands_continue_exactly_the_unfinished_runs(tmp_path: Path) -> None:
    """Tasks with the same seeds and budget share a command."""
    unfinished = (
        *(("walker-walk", 7, 20_000), ("cup-catch", 7, 20_000)),
        *(("walker-run", 1, 2_000_000), ("walker-run", 3, 2_000_000)),
        *(("acrobot-swingup", 2, 4_000_000), ("walker-stand", 2, None)),
    )
    runs = tmp_path / "runs"
    for task, seed, budget in unfinished:
        points = {0: 5.0, 10_000: 100.0}
        write_run(runs, points, task=task, seed=seed, budget=budget, state="INTERRUPTED")
    headlines(tmp_path, f"runs={runs}", publish(tmp_path, "tdmpc2", LATE))
    why, commands = content(tmp_path)["verdicts"]["next"][0]
    assert why == "6 unfinished runs of TD-MPC2:"
    assert sorted(commands.splitlines()) == [
        f"{LAUNCH}acrobot-swingup,walker-stand methods=tdmpc2 seeds=2,",
        f"{LAUNCH}cup-catch,walker-walk methods=tdmpc2 seeds=7, env_steps=20000",
        f"{LAUNCH}walker-run methods=tdmpc2 seeds=1,3 env_steps=2000000",
    ]
    assert parse_seeds("7,") == (7,)


@pytest.mark.parametrize(
    ("budgets", "text"),
    [
        ((4_000_000,) * 2, ", with the paper's budgets."),
        ((4_000_000, None), "."),
        ((None, None), "."),
        ((100_000, None), ", 1 run with less than the paper's budget."),
    ],
)
def test_the_papers_budget_is_only_stated_if_it_was_recorded(
    tmp_path: Path, budgets: tuple[int | None, ...], text: str
) -> None:
    for seed, budget in enumerate(budgets, start=1):
        write_run(tmp_path / "runs", {0: 5.0, 100_000: 100.0}, seed=seed, budget=budget)
    headlines(tmp_path, f"runs={tmp_path / 'runs'}", "published=none")
    assert f"(DMControl), 2 seeds per task{text}" in content(tmp_path)["summary"]


def test_commands_have_the_settings_of_the_runs(tmp_path: Path) -> None:
    """Of runs from pixels, and in two precisions; none for the physics of an old version."""
    runs = tmp_path / "runs"
    for name in ("tdmpc2", "tdmpc2-pixels"):
        publish(tmp_path, name, LATE)
    lines = [f"{step},{score},{seed}" for step, score in LATE.items() for seed in (1, 2, 3)]
    write_table(tmp_path / "paper" / "tdmpc2" / "cup-catch.csv", "step,reward,seed", lines)
    for seed, state, budget in ((1, "COMPLETED", 100_000), (2, "INTERRUPTED", 2_000_000)):
        facts = {"obs": "rgb", "seed": seed, "state": state, "budget": budget}
        write_run(runs, {0: 5.0, 100_000: 300.0 * seed}, **facts)
    for seed, tag in ((1, "fp32"), (1, "tf32"), (2, "tf32")):
        tf32 = {"variant": "precision-tf32", "overrides": {"precision": "tf32"}}
        facts = tf32 if tag == "tf32" else {}
        write_run(runs, {0: 5.0, 100_000: 300.0 * seed}, seed=seed, tag=tag, **facts)
    for seed, state in ((1, "COMPLETED"), (2, "INTERRUPTED")):
        old = {"task": "cup-catch", "seed": seed, "state": state, "protocol": {}}
        write_run(runs, {0: 5.0, 100_000: 300.0 * seed}, **old)
    headlines(tmp_path, f"runs={runs}", f"published={tmp_path / 'paper'}")
    found = content(tmp_path)["verdicts"]
    named = {row[0] for row in found["tasks"]["rows"]}
    assert len(named) == 4, named
    commands = [command.partition(" methods=tdmpc2 seeds=") for _, command in found["next"]]
    assert {first for first, *_ in commands} == {f"{LAUNCH}walker-walk"}
    seeds = [rest.partition(" ") for *_, rest in commands]
    assert (seeds[0][0], seeds[0][2]) == ("2,", "obs=rgb")
    assert {rest for _, _, rest in seeds[1:]} == {"", "obs=rgb", "precision=tf32"}
    assert "1 unfinished run of TD-MPC2 (obs=rgb):" in found["next"][0][0]


def test_commands_have_the_precision_that_all_runs_have(tmp_path: Path) -> None:
    """It is no part of the name of their variant then."""
    publish(tmp_path, "tdmpc2", LATE)
    for seed, state in ((1, "COMPLETED"), (2, "COMPLETED"), (3, "INTERRUPTED")):
        facts = {"variant": "precision-bf16", "overrides": {"precision": "bf16"}, "state": state}
        write_run(tmp_path / "runs", {0: 5.0, 100_000: 300.0 * seed}, seed=seed, **facts)
    headlines(tmp_path, f"runs={tmp_path / 'runs'}", f"published={tmp_path / 'paper'}")
    unfinished, *undecided = [command for _, command in content(tmp_path)["verdicts"]["next"]]
    assert unfinished.startswith(f"{LAUNCH}walker-walk methods=tdmpc2 seeds=3, precision=bf16")
    assert len(undecided) == 1
    assert "precision=bf16" in undecided[0]
