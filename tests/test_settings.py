"""Every setting of every method and command declares its range and meaning, and is checked."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import REQUIRED, Kind, Range, Settings, kinds_of, setting
from tdmpc2.common.system.errors import UserError
from tdmpc2.runners.registry import METHODS, agent_class, make_config
from tdmpc2.runners.specs import make_spec
from tests.test_architecture import FILES, ROOT

BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
sys.path.append(str(ROOT / "benchmarks"))  # as for a script that is run from there


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@functools.cache
def declared() -> list[type]:
    """All dataclasses whose fields are declared with `setting`: configs and options."""
    found = []
    for path in (*FILES, *BENCHMARKS):
        if "= setting(" in path.read_text():
            module = importlib.import_module(module_name(path))
            found += [
                value
                for value in vars(module).values()
                if dataclasses.is_dataclass(value)
                and isinstance(value, type)
                and value.__module__ == module.__name__
                and any("limits" in f.metadata for f in dataclasses.fields(value))
            ]
    return found


def title(cls: type) -> str:
    return f"{cls.__module__}.{cls.__name__}"


def values_of(cls: type) -> dict[str, Any]:
    """Valid values of the required fields of a dataclass, and of fields that others need."""
    samples = {str: "x", Path: Path("/x")}
    values = {
        f.name: kinds_of(cls)[f.name].choices[0]
        if kinds_of(cls)[f.name].choices
        else samples[kinds_of(cls)[f.name].type]
        for f in dataclasses.fields(cls)
        if f.default is f.default_factory is REQUIRED
    }
    return values | {
        "BuildOptions": {"suite": "mt30", "out": Path("/x")},
        "ConvertOptions": {"trust": True},
    }.get(cls.__name__, {})


def candidates(kind: Kind) -> Iterator[tuple[Any, bool]]:
    """Values of a setting, and whether each lies in the declared range."""
    if kind.limits is None:
        for wrong in (math.nan, math.inf, -math.inf, 1e12, 10**12, object()):
            yield wrong, False
        for text in ("", "nonsense"):
            yield text, kind.type is str and (not kind.choices or text in kind.choices)
        yield from ((choice, True) for choice in kind.choices)
        return
    limits = kind.limits
    step = 1 if kind.type is int else 1e-9
    for bound, included, outward in (
        (limits.low if limits.low is not None else limits.above, limits.low is not None, -1),
        (limits.high if limits.high is not None else limits.below, limits.high is not None, 1),
    ):
        assert bound is not None
        reach = step if kind.type is int else step * max(1.0, abs(bound))
        yield kind.type(bound), included
        yield bound + outward * reach, False
        yield kind.type(bound - outward * reach), True
    for wrong in (math.nan, math.inf, -math.inf, "", "nonsense", True, object(), 10**400):
        yield wrong, False
    yield 10**12, 10**12 in limits


@pytest.mark.parametrize("cls", declared(), ids=title)
def test_every_field_has_a_meaning_and_every_number_a_range(cls: type) -> None:
    for f in dataclasses.fields(cls):
        kind = kinds_of(cls)[f.name]
        assert f.metadata.get("meaning"), f.name
        assert (kind.limits is not None) == (kind.type in (int, float)), f.name
        assert kind.type in (int, float, bool, str, Path), f.name
        if kind.limits is not None:
            assert kind.type(1e12) not in kind.limits, f.name


@pytest.mark.parametrize("cls", declared(), ids=title)
def test_every_field_is_checked_at_its_bounds(cls: type) -> None:
    """A value inside may still be refused by a condition between settings, with a `UserError`."""
    needed = values_of(cls)
    for name, kind in kinds_of(cls).items():
        for value, valid in candidates(kind):
            try:
                cls(**{**needed, name: value})
            except UserError as error:
                refusal = str(error)
            else:
                refusal = ""
            assert valid or refusal.startswith(f"{name}={value}: must "), (name, value)
            assert "\n" not in refusal
            if not valid and kind.limits is not None:
                assert str(kind.limits) in refusal, (name, value)


@pytest.mark.parametrize("cls", declared(), ids=title)
def test_every_field_is_checked_on_the_command_line(cls: type) -> None:
    needed = values_of(cls)
    for name, kind in kinds_of(cls).items():
        texts = [str(value) for value, _ in candidates(kind)]
        for text in (*texts, "1e12", "-1e12", "1e999", "--", "a\tb"):
            with contextlib.suppress(UserError):  # any other exception is a fault
                parsed = cli.parse_arguments([f"{name}={text}"], cli.schema_of(cls))
                cls(**{**needed, **parsed})


@pytest.mark.parametrize("cls", declared(), ids=title)
def test_help_shows_default_valid_values_and_meaning(cls: type) -> None:
    text = " ".join(cli.describe_fields(cls).split())
    for f in dataclasses.fields(cls):
        kind, meaning = str(kinds_of(cls)[f.name]), f.metadata["meaning"]
        meaning = meaning() if callable(meaning) else meaning
        assert f" {f.name}=" in f" {text}"
        assert " ".join(f"{kind} {meaning}".split()) in text


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_walked(method: str) -> None:
    assert agent_class(method).config_class in declared()
    make_config(method, {})


def test_every_command_declares_its_options() -> None:
    """No command has a table of options of its own: it parses into declared dataclasses."""
    commands = [p for p in (*FILES, *BENCHMARKS) if "command(main" in p.read_text()]
    assert len(commands) > 20
    for path in commands:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("parse_arguments"):
                assert (
                    not isinstance(node.args[1], ast.Dict)
                    or not node.args[1].values
                    or all(key is None for key in node.args[1].keys)
                ), path


def test_options_and_settings_of_a_command_have_different_names() -> None:
    """Otherwise an argument would set both."""
    from tdmpc2 import train
    from tdmpc2.common.run.spec import OfflineOptions, RunOptions
    from tdmpc2.envs.task_variants import TaskSwitches
    from tdmpc2.runners import offline_arguments

    for method in METHODS:
        config = agent_class(method).config_class
        for group in (
            (train.SpecOptions, TaskSwitches, RunOptions, config),
            (offline_arguments.SpecOptions, OfflineOptions, config),
        ):
            names = [f.name for cls in group for f in dataclasses.fields(cls)]
            assert len(set(names)) == len(names)


# --- conditions between settings ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        ("tdmpc2", {"num_elites": 513}, "num_elites=513: must be at most num_samples=512"),
        ("tdmpc2", {"num_pi_samples": 513}, "num_pi_samples=513: must be at most num_samples=512"),
        ("tdmpc2", {"latent_dim": 20}, "latent_dim=20: must be a multiple of simnorm_dim=8"),
        ("tdmpc2", {"min_std": 3.0}, "min_std=3.0: must be at most max_std=2.0"),
        ("tdmpc2", {"vmin": 10.0}, "vmin=10.0: must be less than vmax=10.0"),
        (
            "tdmpc2",
            {"discount_min": 0.999},
            "discount_min=0.999: must be at most discount_max=0.995",
        ),
        ("tdmpc2", {"log_std_min": 2.0}, "log_std_min=2.0: must be less than log_std_max=2.0"),
        (
            "tdmpc2",
            {"policy_prior": "gaussian_noise", "initial_min_std": 3.0},
            "initial_min_std=3.0: must be at most max_std=2.0",
        ),
        ("sac", {"log_std_max": -5.0}, "log_std_min=-5.0: must be less than log_std_max=-5.0"),
        (
            "tdmpc",
            {"num_elites": 538},
            "num_elites=538: must be at most num_samples + num_pi_samples = 537",
        ),
        ("tdmpc", {"min_std": 3.0}, "min_std=3.0: must be at most max_std=2.0"),
        (
            "dreamerv3",
            {"actor_min_std": 2.0},
            "actor_min_std=2.0: must be at most actor_max_std=1.0",
        ),
        ("dreamerv3", {"vmax": -20.0}, "vmin=-20.0: must be less than vmax=-20.0"),
        (
            "dreamerv3",
            {"stoch": 1024, "classes": 1024},
            "stoch * classes = 1048576: must lie in [1, 16_384]",
        ),
    ],
)
def test_conditions_between_settings(method: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_config(method, values)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["dataset", "multitask"])
def test_arguments_of_make_are_no_settings(name: str) -> None:
    with pytest.raises(UserError, match=f"^unknown setting '{name}'"):
        make_spec("tdmpc2", "toy-pointmass", 1, overrides={name: "mt30"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"env_steps": 0}, "env_steps=0: must lie in [1, 10_000_000_000]"),
        ({"seed": 2**32}, "seed=4294967296: must lie in [0, 4_294_967_295]"),
        ({"assets": "nonsense"}, "assets=nonsense: unknown value"),
    ],
)
def test_a_run_specification_is_checked_for_every_command(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        make_spec("tdmpc2", "walker-walk", **{"seed": 1, **values})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        *(
            (method, {}, f"method={method}: supports obs=state only; use tdmpc2 for pixels")
            for method, row in METHODS.items()
            if not row.pixels
        ),
        (
            "tdmpc2",
            {"model_size": "19"},
            "latent_dim=768: must be 16 * num_channels = 512 with pixel observations; use "
            "latent_dim=512 or num_channels=48",
        ),
    ],
)
def test_what_cannot_learn_from_pixels_is_refused_before_a_run(
    method: str, values: dict[str, Any], message: str
) -> None:
    make_spec(method, "walker-walk", 1, overrides=values)
    with pytest.raises(UserError) as caught:
        make_spec(method, "walker-walk", 1, overrides=values, obs="rgb")
    assert str(caught.value) == message
    make_spec("tdmpc2", "walker-walk", 1, overrides={"model_size": "5"}, obs="rgb")


# --- declaring settings ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Few(Settings):
    """One field of each kind."""

    rate: float = setting(0.5, "share", above=0, below=1)
    count: int | None = setting(None, "number", low=1, high=20_000)
    on: bool = setting(True, "whether")
    folder: Path = setting(lambda: Path("/somewhere"), "place")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 0}, "rate=0: must lie in (0, 1)"),
        ({"rate": 1.0}, "rate=1.0: must lie in (0, 1)"),
        ({"rate": math.nan}, "rate=nan: must lie in (0, 1)"),
        ({"rate": True}, "rate=True: must be a number in (0, 1)"),
        ({"rate": None}, "rate=None: must be a number in (0, 1)"),
        ({"count": 20_001}, "count=20001: must lie in [1, 20_000]"),
        ({"count": 2.0}, "count=2.0: must be an integer in [1, 20_000]"),
        ({"count": True}, "count=True: must be an integer in [1, 20_000]"),
        ({"on": 1}, "on=1: must be true or false"),
        ({"folder": "here"}, "folder=here: must be a path"),
    ],
)
def test_values_of_other_types_and_ranges(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Few(**values)
    assert str(caught.value) == message


def test_valid_values() -> None:
    few = Few(rate=1e-9, count=20_000, on=False, folder=Path("/x"))
    assert (few.rate, few.count, Few().count) == (1e-9, 20_000, None)


def test_a_range_needs_a_bound_on_each_side() -> None:
    for bounds in ({"low": 1}, {"high": 1}, {"low": 1, "above": 1, "high": 2}):
        with pytest.raises(AssertionError):
            Range(**bounds)
