"""Runs with other observations or assets, in the report on ablations."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ablations.test_report import compare, write


def test_observations_and_assets_are_never_mixed(tmp_path: Path) -> None:
    """Runs from pixels or with other assets are compared with their own base, and named."""
    runs = tmp_path / "runs"
    none = {"overrides": {"latent_norm": "none"}}
    for facts, base in (({}, 800.0), ({"obs": "rgb"}, 400.0)):
        write(runs, "default", base, **facts)
        write(runs, "no-simnorm", base - 100, **facts, **none)
    cube = {"domain": "maniskill2", "assets": "rebuilt", "tasks": ("pick-ycb",)}
    write(runs, "default", 100.0, **cube)
    write(runs, "no-simnorm", 50.0, **cube, **none)
    code, table = compare(tmp_path)
    assert code == 0
    assert table["difference"].to_dict() == pytest.approx(
        {"no-simnorm": -10.0, "no-simnorm [obs=rgb]": -10.0, "no-simnorm [assets=rebuilt]": -5.0}
    )
