"""Estimated costs of single-task runs, and their correction by finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeps.planning.costs import corrections, cost_of, seconds_left
from sweeps.planning.plan import make_plan
from sweeps.planning.planned_run import PlannedRun
from sweeps.planning.request import SweepRequest
from sweeps.tracking.run_states import Observer
from tdmpc2.common.numerics import fused_bf16
from tdmpc2.runners.registry import METHODS, agent_class
from tdmpc2.runners.specs import make_spec


def spec(method: str = "tdmpc2", task: str = "walker-walk", **overrides: Any) -> Any:
    return make_spec(method, task, 1, env_steps=100_000, overrides=overrides)


def test_a_default_run_on_one_core() -> None:
    """50,000 decisions at the measured 336 + 358 ms, plus 10 % for evaluations."""
    seconds = cost_of(spec(), {}, gpu=False).seconds
    assert seconds == pytest.approx(50_000 * 0.694 * 1.1, rel=0.5)


@pytest.mark.parametrize(("method", "per_decision"), [("tdmpc2", 0.192), ("sac", 0.056)])
def test_bf16_is_faster_where_its_kernels_are(
    method: str, per_decision: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """50,000 decisions at the time measured on an AMD CPU with AVX512-BF16."""
    whole = []
    for used in (False, True):
        choice = fused_bf16.Choice(used, "test")
        monkeypatch.setattr(fused_bf16, "choice", lambda choice=choice: choice)
        fp32, bf16 = (
            cost_of(spec(method, precision=p), {}, gpu=False).seconds for p in ("fp32", "bf16")
        )
        whole.append(bf16)
        assert (bf16 < 0.5 * fp32) is used
    assert whole[1] == pytest.approx(50_000 * per_decision * 1.1, rel=0.5)


def test_costs_follow_the_settings() -> None:
    cpu = {name: cost_of(spec(**o), {}, gpu=False).seconds for name, o in SETTINGS.items()}
    assert cpu["small"] < 0.5 * cpu["default"] < cpu["default"] < cpu["large"]
    assert cpu["no plan"] < 0.7 * cpu["default"]
    assert cpu["few samples"] < cpu["default"]


SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "small": {"model_size": "1"},
    "large": {"model_size": "48"},
    "no plan": {"planning": False},
    "few samples": {"num_samples": 128},
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_its_costs(method: str) -> None:
    core, gpu = (cost_of(spec(method), {}, gpu=gpu) for gpu in (False, True))
    assert core.seconds > 3 * gpu.seconds > 0
    assert 1e9 < core.memory < 10e9
    assert 1e6 < core.disk < core.disk_running < 3e9


def test_half_the_updates_cost_half() -> None:
    """DreamerV3's train ratio decides how often it learns."""
    full, half = (
        cost_of(spec("dreamerv3", train_ratio=ratio), {}, gpu=False).seconds for ratio in (512, 256)
    )
    assert half == pytest.approx(full / 2, rel=0.1)


def test_sequences_of_images_are_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row has nine channels of 4 bytes per number, not the newest frame of bytes."""
    pixels = make_spec("tdmpc2", "walker-walk", 1, env_steps=100_000, obs="rgb")
    frames = cost_of(pixels, {}, gpu=True)
    monkeypatch.setattr(agent_class("tdmpc2"), "replay_across_episodes", True)
    more = cost_of(pixels, {}, gpu=True).memory - frames.memory
    assert more == pytest.approx(50_000 * 1.01 * (9 * 4 - 3) * 64 * 64, rel=0.01)


def test_kept_episodes_stay_on_disk() -> None:
    gone, kept = (cost_of(spec(), {"keep_replay": k}, gpu=False) for k in (False, True))
    assert kept.disk == pytest.approx(kept.disk_running)
    # 24 + 6 numbers, reward, flag, task and two indices, of 50,000 decisions
    assert kept.disk - gone.disk == pytest.approx(50_000 * 1.01 * (30 * 4 + 24), rel=0.01)


def test_kept_episodes_outlast_the_buffer() -> None:
    small = spec(buffer_size=10_000)
    gone, kept = (cost_of(small, {"keep_replay": k}, gpu=False) for k in (False, True))
    assert kept.memory == gone.memory
    for had, has in ((gone.disk, kept.disk), (gone.disk_running - 10_000 * 144, kept.disk_running)):
        assert has - had == pytest.approx(50_000 * 1.01 * 144, rel=0.01)


def test_finished_runs_correct_their_kind(tmp_path: Path) -> None:
    run, other = (PlannedRun(spec(task=task), tmp_path) for task in ("walker-walk", "mw-push"))
    estimate = cost_of(run.spec, {}, gpu=False).seconds
    run.status = {"env_step": 100_000, "env_steps_per_second": 100_000 / (3 * estimate)}
    factors = corrections([(run, False, 1)], {})
    assert factors == {("tdmpc2", "dmcontrol", False): pytest.approx(3.0)}
    run.status = {"env_step": 25_000}
    each = [cost_of(one.spec, {}, gpu=False) for one in (run, other)]
    left = seconds_left([run, other], each, factors, gpu=False)
    assert left[0] == pytest.approx(0.75 * 3 * estimate)
    assert left[1] == pytest.approx(cost_of(other.spec, {}, gpu=False).seconds)
    on_gpu = [cost_of(run.spec, {}, gpu=True)]
    assert seconds_left([run], on_gpu, factors, gpu=True)[0] < left[0]


def test_seeds_in_one_process_share_its_time(tmp_path: Path) -> None:
    """On a GPU, kernels of three seeds are launched once; a core has nothing to share."""
    alone, share = (cost_of(spec(), {}, gpu=True, seeds=n).seconds for n in (1, 3))
    assert alone / 3 < share < 0.6 * alone
    assert cost_of(spec(), {}, gpu=False, seeds=3) == cost_of(spec(), {}, gpu=False)
    run = PlannedRun(spec(), tmp_path)
    run.status = {"env_step": 100_000, "env_steps_per_second": 100_000 / (2 * 3 * share)}
    factors = corrections([(run, True, 3)], {})
    assert factors == {("tdmpc2", "dmcontrol", True): pytest.approx(2.0)}


@pytest.mark.parametrize(("method", "seeds"), [("tdmpc2", 1), ("sac", 3)])
def test_a_run_alone_in_its_process_costs_what_it_costs_without_batches(
    tmp_path: Path, method: str, seeds: int
) -> None:
    """The new seed of a look, and runs of a method without batches."""
    arguments = ["tasks=walker-walk", f"methods={method}", f"seeds={seeds}", f"runs={tmp_path}"]
    plans = [
        make_plan(SweepRequest.from_arguments([*arguments, *more]), Observer(tmp_path), gpu=True)
        for more in ([], ["seeds_per_process=3"])
    ]
    assert plans[0].hours == plans[1].hours
    assert plans[0].memory_gb() == plans[1].memory_gb()


def test_a_gpu_is_taken_to_be_as_fast_as_published() -> None:
    """1.5 hours per million env steps of the default model on DMControl."""
    run = make_spec("tdmpc2", "walker-walk", 1, env_steps=1_000_000)
    assert cost_of(run, {}, gpu=True).seconds / 3600 == pytest.approx(1.5, rel=0.15)
