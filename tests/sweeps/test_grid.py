"""Which runs a sweep consists of."""

from __future__ import annotations

import pytest

from sweeps.grid import SMOKE, grid, parse_seeds
from tdmpc2.common.errors import UserError


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
