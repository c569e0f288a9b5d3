"""The table of ablations, combinations of ablations, and user-defined ablations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ablations.own_specs import read_specs
from ablations.specs import ABLATIONS, FACTORS, FIG9, Ablation, combined, find
from analysis.figures.registry import shipped_catalog
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.tasks import get_suite

BY_NAME = {one.name: one for one in ABLATIONS}


def test_the_table() -> None:
    assert len({one.variant for one in ABLATIONS}) == len(ABLATIONS)
    assert len({tuple(sorted(one.settings.items())) for one in ABLATIONS}) == len(ABLATIONS)
    for one in ABLATIONS:
        assert re.fullmatch(r"[a-z0-9-]+( [a-z0-9_]+)?", one.name)
        assert one.factor in FACTORS
        assert bool(one.expected) == bool(one.claim), one.name
    # Typed as the configuration has it, not as text.
    assert BY_NAME["no-norms"].settings == {"latent_norm": "none", "hidden_norm": "none"}
    assert BY_NAME["no-dropout"].settings == {"dropout": 0.0}


def test_figure_9_shows_the_variants_of_each_factor() -> None:
    figures = shipped_catalog().figures
    panels = {f.name: f.variants for f in figures.values() if f.name.startswith("fig9_")}
    del panels["fig9_bars"]
    by_factor: dict[str, list[str]] = {}
    for one in ABLATIONS:
        if one.figure == FIG9:
            by_factor.setdefault(one.factor, ["default"]).append(one.variant)
    assert [list(variants) for variants in panels.values()] == list(by_factor.values())


def test_tasks_are_the_papers_three_or_those_of_the_domain() -> None:
    assert BY_NAME["no-simnorm"].default_tasks == ("dog-run", "humanoid-walk", "pick-ycb")
    domain = tuple(task.name for task in get_suite("maniskill2"))
    assert BY_NAME["stop-at-success"].default_tasks == domain
    domain = tuple(task.name for task in get_suite("metaworld"))
    assert BY_NAME["unseeded-resets"].default_tasks == domain


def test_combined() -> None:
    both = combined([BY_NAME["no-simnorm"], BY_NAME["num-q 2"]])
    assert both.variant == "no-simnorm+num-q-2"
    assert both.settings == {"latent_norm": "none", "num_q": 2}
    assert both.expected == "lower"
    assert combined([BY_NAME["no-simnorm"], BY_NAME["momentum"]]).expected is None
    assert (
        combined([BY_NAME["num-q 2"], BY_NAME["stop-at-success"]]).default_tasks[0] == "lift-cube"
    )
    with pytest.raises(UserError, match="latent_norm is none or layernorm; add --each"):
        combined([BY_NAME["no-simnorm"], BY_NAME["latent-layernorm"]])
    with pytest.raises(UserError, match="no task in common"):
        combined([BY_NAME["unseeded-resets"], BY_NAME["stop-at-success"]])


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"latent_norm": "none"}, "no-simnorm"),
        ({"latent_norm": "none", "hidden_norm": "none"}, "no-norms"),
        ({"entropy_tuning": "target", "entropy_form": "exact"}, "entropy-target"),
        ({"num_q": 2, "latent_norm": "none"}, "no-simnorm+num-q 2"),
        ({"num_q": 2, "planning": False, "dropout": 0.0}, "no-planning+num-q 2+no-dropout"),
        (
            {"latent_norm": "none", "num_q": 2, "dropout": 0.0, "momentum": 0.1},
            "no-simnorm+num-q 2+momentum+no-dropout",
        ),
        ({"num_q": 3}, None),
        ({"num_q": 2, "batch_size": 7}, None),
        ({"seeded_resets": False}, "unseeded-resets"),
    ],
)
def test_found_by_what_changed(changed: dict[str, object], name: str | None) -> None:
    found = find(changed, ABLATIONS)
    assert (found and found.name) == name


OWN = """
[small-latent]
settings = { latent_dim = 128, planning = false }
claim = "A small latent scores lower."
expected = "lower"
factor = "latent size"
tasks = ["walker-run", "ball-in-cup-catch"]
[wide]
settings = { mlp_dim = 1024 }
"""


def test_ablations_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(OWN)
    small, wide = read_specs(path)
    assert small == Ablation(
        *("small-latent", "latent_dim=128 planning=false", "latent size", ""),
        *("A small latent scores lower.", "lower"),
        tasks=("walker-run", "cup-catch"),
    )
    assert small.settings == {"latent_dim": 128, "planning": False}
    assert wide.expected is None
    assert wide.default_tasks == ("dog-run", "humanoid-walk", "pick-ycb")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = [", "is not TOML"),
        ("", "defines no ablation"),
        ("x = 1", "x: must be a table"),
        ("[x]", "x: changes nothing; add settings"),
        ("[x]\nsetings = {}", "x: unknown field 'setings' (did you mean 'settings'?)"),
        (
            "[x]\nsettings = { num_q = 2 }\n[y]\nsettings = { num_q = 2 }",
            "x and y have the same settings; remove one",
        ),
        (
            '[x]\nsettings = { latent_norm = "none hidden_norm=none" }',
            "latent_norm='none hidden_norm=none' must be one number, one word, true or false",
        ),
        ("[x]\nsettings = { num_q = [2, 3] }", "num_q=[2, 3] must be one number, one word"),
        ("[x]\nsettings = { model_size = 1 }", "x: model_size is no design choice: reports"),
        ('[x]\nsettings = { precision = "bf16" }', "x: precision is no design choice: it is how"),
        ("[x]\nsettings = { model-size = 1 }", "x: model_size is no design choice: reports"),
        ("[x]\nsettings = { --precision = 'bf16' }", "x: precision is no design choice: it is"),
        ("[x]\nsettings = { physics = 'simulator' }", "x: physics is no design choice: it is"),
        ("[x]\nsettings = { num_q = 2 }\ntasks = [3]", "x: tasks=[3] must be a list of names"),
        ("[x]\nsettings = { num_q = 2 }\ntasks = []", "x: tasks=[] names no task; leave it out"),
        ("[x]\nsettings = { num_p = 2 }", "x: unknown key 'num_p' (did you mean 'num_q'?)"),
        ("[x]\nsettings = { num_q = 'two' }", "x: num_q=two"),
        ("[x]\nsettings = { num_q = 2 }\nexpected = 'worse'", "must be 'lower' or 'same'"),
        ("[x]\nsettings = { num_q = 2 }\ntasks = ['walk']", "x: unknown task 'walk'"),
        ("[x]\nsettings = { num_q = 2 }\ntasks = 'dog-run'", "must be a list"),
        ("['x y']\nsettings = { num_q = 2 }", "names may contain only letters, digits, - and _"),
        ("[no-simnorm]\nsettings = { num_q = 2 }", "this name is already in use"),
        ("[default]\nsettings = { num_q = 2 }", "this name is already in use"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        read_specs(path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_specs(tmp_path / "none.toml")
