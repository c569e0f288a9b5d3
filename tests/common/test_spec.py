"""Run specifications (identity, folder, variant) and valid options."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest

from tdmpc2.common.run.spec import (
    MAX_SEEDS,
    RunOptions,
    RunSpec,
    overrides_of,
    parse_seeds,
    variant_name,
)
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import default_runs_dir, project_root

SPEC = RunSpec("tdmpc2", "walker-walk", 3, 100, overrides=(("num_q", 2),), variant="two")


def test_identity_is_a_fixed_hash() -> None:
    """Old run directories must keep their names."""
    text = '["tdmpc2", "walker-walk", 3, [["num_q", 2]]]'
    assert SPEC.identity == hashlib.sha256(text.encode()).hexdigest()[:10]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"budget": 200}, True),
        ({"variant": "another"}, True),
        ({"method": "sac"}, False),
        ({"task": "walker-run"}, False),
        ({"seed": 4}, False),
        ({"overrides": ()}, False),
        ({"overrides": (("num_q", 3),)}, False),
        ({"obs": "rgb"}, False),
        ({"assets": "official"}, True),
        ({"assets": "standin"}, False),
    ],
)
def test_identity_follows_what_changes_learning(change: dict[str, Any], same: bool) -> None:
    assert (dataclasses.replace(SPEC, **change).identity == SPEC.identity) is same


def test_identity_ignores_the_order_of_overrides() -> None:
    pairs = (("horizon", 2), ("num_q", 2))
    forward, backward = (dataclasses.replace(SPEC, overrides=o) for o in (pairs, pairs[::-1]))
    assert forward.identity == backward.identity


def test_run_directory() -> None:
    folder = f"seed3-{SPEC.identity}"
    assert SPEC.run_dir(Path("/runs")) == Path("/runs/tdmpc2/two/walker-walk") / folder


def test_variant_names() -> None:
    assert variant_name(()) == "default"
    assert variant_name((("regression", "mse"), ("num_q", 2))) == "num_q-2+regression-mse"
    many = tuple((f"a_rather_long_name_{i}", i) for i in range(6))
    assert variant_name(many).startswith("6-overrides-")
    assert len(variant_name(many)) < 30
    assert variant_name(many) != variant_name((*many[:5], ("a_rather_long_name_5", 7)))
    for value in ("/tmp/a", "../b", "a\nb"):  # no name of a folder
        assert variant_name((("kind", value),)).startswith("1-overrides-")


def test_overrides_are_the_fields_that_differ() -> None:
    @dataclasses.dataclass
    class Config:
        b: int = 1
        a: str = "x"
        c: float = 0.5

    assert overrides_of(Config(), Config()) == ()
    assert overrides_of(Config(b=2, a="y"), Config()) == (("a", "y"), ("b", 2))


def test_runs_lie_in_the_checkout_by_default() -> None:
    assert RunOptions().runs == default_runs_dir() == project_root() / "runs"
    assert (project_root() / "pyproject.toml").is_file()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("threads", 0, "threads=0: must lie in [1, 4096]"),
        ("eval_every", -5, "eval_every=-5: must lie in [1, 10_000_000_000]"),
        ("eval_episodes", 0, "eval_episodes=0: must lie in [1, 10_000]"),
        ("checkpoint_minutes", -0.5, "checkpoint_minutes=-0.5: must lie in [0, 1_000_000]"),
    ],
)
def test_options_out_of_range(option: str, value: float, message: str) -> None:
    with pytest.raises(UserError) as caught:
        RunOptions(**{option: value})
    assert str(caught.value) == message


def test_seeds() -> None:
    assert parse_seeds("3") == (1, 2, 3)
    assert parse_seeds("3,") == (3,)
    assert parse_seeds("5,1") == (5, 1)
    assert len(parse_seeds(str(MAX_SEEDS))) == MAX_SEEDS


@pytest.mark.parametrize("text", ["0", "-1", "1,1", "1,-2", "x", "", ",", "5000000", "9" * 400])
def test_other_seeds_are_refused_at_once(text: str) -> None:
    with pytest.raises(UserError, match=f"seeds={text}: a(t most| count)"):
        parse_seeds(text)
