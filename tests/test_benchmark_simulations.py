"""Simulated error rates: the bounds of rates, and the curves that the simulations need."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from scipy import stats

from tdmpc2.common.system.errors import UserError

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))  # as if they were started as scripts


def test_upper_bounds_are_those_of_clopper_and_pearson() -> None:
    upper_bound = importlib.import_module("sequential").upper_bound
    for studies in (20, 1000):
        assert upper_bound(0, studies, studies) == pytest.approx(1 - 0.05 ** (1 / studies))
        assert upper_bound(studies, studies, studies) == 1.0
    assert stats.binom.cdf(3, 50, upper_bound(3, 50, 50)) == pytest.approx(0.05)
    # Eight claims in each study.
    assert upper_bound(24, 50, 400) == pytest.approx(upper_bound(3, 50, 50))


def write_curves(folder: Path, task: str, seeds: Sequence[int]) -> None:
    """Write curves of TD-MPC2 in the layout of the released ones."""
    file = folder / "tdmpc2" / f"{task}.csv"
    file.parent.mkdir(exist_ok=True)
    rows = [f"{step},{seed},{seed}\n" for seed in seeds for step in range(0, 700_000, 100_000)]
    file.write_text("".join(["step,reward,seed\n", *rows]))


@pytest.mark.parametrize("name", ["verdicts", "sequential"])
def test_simulations_refuse_folders_without_the_curves(name: str, tmp_path: Path) -> None:
    script = importlib.import_module(name)
    with pytest.raises(UserError, match=f"published={tmp_path}/missing: is no folder"):
        script.parse([f"published={tmp_path}/missing"])
    with pytest.raises(UserError, match=f"published={tmp_path}: has no curves"):
        script.main([f"published={tmp_path}"])


def test_simulations_name_the_tasks_that_they_lack(tmp_path: Path) -> None:
    write_curves(tmp_path, "dog-run", (1, 2, 3))
    script = importlib.import_module("sequential")
    with pytest.raises(UserError, match="no curves of tdmpc2 on humanoid-walk, pick-ycb"):
        script.main([f"published={tmp_path}"])


def test_simulations_need_equally_many_seeds_of_all_tasks(tmp_path: Path) -> None:
    write_curves(tmp_path, "walker-run", (1, 2, 3))
    write_curves(tmp_path, "walker-walk", (1, 2, 3))
    pools = importlib.import_module("gate_errors").pools
    ((success, scores),) = pools(tmp_path).values()
    assert (success, scores.shape) == (False, (2, 3, 5))
    write_curves(tmp_path, "walker-walk", (1, 2))
    with pytest.raises(UserError, match="of tdmpc2 on walker-walk as on walker-run"):
        pools(tmp_path)
