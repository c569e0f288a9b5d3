"""Estimated costs of multi-task runs, and the sources of the estimates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeps.planning.offline_costs import (
    GPU_DAYS,
    Speeds,
    cost_of,
    describe,
    earlier_speeds,
    settings_of,
)
from tdmpc2.common.run.spec import RunSpec
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.runners.specs import make_offline_spec, make_spec
from tests.damages import DAMAGES, damage

NOTHING = Speeds({})


def spec(size: str, method: str = "tdmpc2", tasks: str = "mt80", **settings: Any) -> RunSpec:
    settings = {"model_size": size, **settings}
    return make_offline_spec(method, tasks, 1, "none", overrides=settings)


@pytest.mark.parametrize("size", GPU_DAYS)
def test_a_gpu_is_taken_to_be_the_papers(size: str) -> None:
    cost, source = cost_of(spec(size), {}, NOTHING, gpu=True)
    assert source == "paper"
    assert cost.seconds == pytest.approx(86_400 * GPU_DAYS[size])
    assert cost.memory > cost.disk > 16e6 * float(size)


def test_a_core_is_counted() -> None:
    """Operations are counted: larger models, more evaluations and more tasks take longer."""

    def seconds(one: RunSpec, **options: Any) -> float:
        cost, source = cost_of(one, options, NOTHING, gpu=False)
        assert source == "counted"
        return cost.seconds

    assert 2 * seconds(spec("1")) < seconds(spec("5")) < seconds(spec("19"))
    assert seconds(spec("1"), eval_every=500_000) < 0.9 * seconds(spec("1"))
    assert seconds(spec("1", tasks="mt30")) < seconds(spec("1"))
    # Longer sub-trajectories, but fewer Q-functions.
    assert 0.5 < seconds(spec("5", "tdmpc")) / seconds(spec("5")) < 2


def test_a_size_that_the_paper_has_not_is_counted_on_a_gpu_too() -> None:
    cost, source = cost_of(spec("smoke"), {}, NOTHING, gpu=True)
    assert source == "counted"
    assert cost.seconds < cost_of(spec("1"), {}, NOTHING, gpu=True)[0].seconds


def write_run(runs: Path, one: RunSpec, speeds: list[float], **numeric: Any) -> Path:
    directory = one.run_dir(runs)
    directory.mkdir(parents=True)
    facts = {"method": one.method, "overrides": dict(one.overrides), "budget_unit": one.budget_unit}
    write_json(directory / "spec.json", facts)
    write_json(directory / "numeric.json", {"device": "cuda", "cpu": "EPYC", **numeric})
    lines = [f"{1000 * i},{i},{speed}" for i, speed in enumerate(speeds, 1)]
    heading = "num_updates,seconds,updates_per_second"
    (directory / "timing.csv").write_text("\n".join([heading, *lines, ""]))
    return directory


def test_earlier_runs_of_the_same_settings_tell(tmp_path: Path) -> None:
    """The last speed of each run counts, of runs on the same kind of device in one process."""
    one, two = (make_offline_spec("tdmpc2", "mt30", seed, "none") for seed in (1, 2))
    write_run(tmp_path, one, [3.0, 10.0], gpu="H200")
    write_run(tmp_path, two, [20.0], gpu="H200")
    write_run(tmp_path, spec("19"), [1.0], device="cpu")
    write_run(tmp_path, spec("48"), [50.0], gpu="H200", split="4 processes x 1 parts")
    write_run(tmp_path, make_spec("tdmpc2", "walker-walk", 1), [99.0])
    assert write_run(tmp_path, spec("1"), []).is_dir()
    speeds = earlier_speeds(tmp_path, gpu=True)
    assert speeds.seconds == {settings_of(one): pytest.approx((1 / 10 + 1 / 20) / 2)}
    assert speeds.devices == ("H200",)
    assert list(earlier_speeds(tmp_path, gpu=False).seconds) == [settings_of(spec("19"))]
    # Another task set with the same settings.
    cost, source = cost_of(spec("5"), {}, speeds, gpu=True)
    assert (cost.seconds, source) == (pytest.approx(0.075 * 10_000_000), "earlier")
    assert cost_of(spec("5", batch_size=256), {}, speeds, gpu=True)[1] == "paper"


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["spec.json", "numeric.json", "timing.csv"])
def test_a_damaged_run_tells_nothing(name: str, how: str, tmp_path: Path) -> None:
    """And the other runs are read."""
    one, two = (make_offline_spec("tdmpc2", "mt30", seed, "none") for seed in (1, 2))
    write_run(tmp_path, one, [10.0], gpu="H200")
    damage(write_run(tmp_path, two, [20.0], gpu="H200") / name, how)
    speeds = earlier_speeds(tmp_path, gpu=True)
    assert speeds.seconds == {settings_of(one): pytest.approx(0.1)}


def test_it_is_said_which_it_was() -> None:
    speeds = Speeds({}, ("H200",))
    assert describe(["paper"] * 3, NOTHING).startswith("by the paper's Table 1")
    text = describe(["paper", "earlier", "paper"], speeds)
    assert text.startswith("1 runs by the speed of earlier runs here (H200); 2 runs by the paper's")
