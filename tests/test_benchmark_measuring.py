"""What the benchmarks time, when, and on which device."""

from __future__ import annotations

import importlib
import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.profiler import DeviceType

from tdmpc2.common.numerics.compile import Compiler
from tdmpc2.common.numerics.numeric_path import numeric_path
from tdmpc2.common.numerics.recorded_steps import WARM_CALLS

FOLDER = Path(__file__).parents[1] / "benchmarks"
CPU = torch.device("cpu")
CASE: dict[str, Any] = {
    **{"method": "tdmpc2", "task": "toy-pointmass", "settings": {"model_size": "smoke"}},
    **{"device": "cpu", "threads": 1, "compile": False, "precision": "fp32"},
    **{"replay_rows": 2_000, "repetitions": 1, "loop": 1},
}


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))  # as if they were started as scripts


def test_the_stopwatch_waits_for_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    device = torch.device("cuda:1")
    watch = importlib.import_module("meters").Stopwatch(device)
    assert watch(lambda: None) >= 0
    assert waited == [device, device]


def test_memory_is_in_decimal_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel counts kibibytes."""
    usage = SimpleNamespace(ru_maxrss=1_000_000)
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    assert importlib.import_module("meters").peak_gb() == pytest.approx(1.024)


@pytest.mark.parametrize(("kind", "side"), [("cpu", 512), ("cuda", 8192)])
def test_the_bound_is_a_product_that_a_gpu_needs_long_for(
    kind: str, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring = importlib.import_module("measuring")

    def randn(*shape: int, dtype: torch.dtype, **_: object) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    monkeypatch.setattr(torch, "randn", randn)
    product = measuring.products(torch.device(kind), "fp32")["torch"]
    assert product().shape == (side, side)
    bench = SimpleNamespace(
        products={"torch": product}, side=measuring.SIDES[kind], watch=lambda _: 0.5
    )
    assert measuring.Bench.rates(bench) == {"torch": pytest.approx(4e-9 * side**3)}


def test_steps_are_recorded_before_they_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU records a step at its call number `WARM_CALLS` + 1; the rates are the first timing."""
    measuring = importlib.import_module("measuring")
    calls: Counter[str] = Counter()
    before: list[dict[str, int]] = []

    def counted(name: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(bench: Any) -> Any:
            calls[name] += 1
            return function(bench)

        return call

    def rates(bench: Any) -> dict[str, float]:
        before.append(dict(calls))
        return {"torch": 1.0}

    for name in ("plan", "update"):
        monkeypatch.setattr(measuring.Bench, name, counted(name, getattr(measuring.Bench, name)))
    monkeypatch.setattr(measuring.Bench, "rates", rates)
    row = measuring.measure(CASE)
    assert before[0] == {"plan": WARM_CALLS + 1, "update": WARM_CALLS + 1}
    assert (row["compiled"], row["native_kernels"]) == (False, False)
    assert row["matmul_precision"] == torch.get_float32_matmul_precision()


@pytest.mark.parametrize("fails", [False, True])
def test_compiled_is_what_was_compiled_in_the_end(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring = importlib.import_module("measuring")
    compiler = Compiler(CPU)
    compiler.enabled = compiler.native_kernels = True
    path = {**numeric_path(CPU, 1), "compile": "g++"}
    update = measuring.Bench.update

    def updated(bench: Any) -> Any:
        compiler.enabled = compiler.enabled and not fails
        return update(bench)

    monkeypatch.setattr(measuring, "numeric_path", lambda *_, **__: path)
    monkeypatch.setattr(measuring.acceleration, "install", lambda agent: compiler)
    monkeypatch.setattr(measuring.Bench, "update", updated)
    row = measuring.measure(CASE)
    assert row["compiled"] is not fails
    assert row["native_kernels"] is True


@pytest.mark.parametrize("place", ["make_replay", "fill"])
def test_the_environment_is_closed_after_an_error(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the preparation, and of the measurement."""
    measuring = importlib.import_module("measuring")
    made, closed = measuring.make_env, []

    def watched(task: str, seed: int) -> Any:
        env = made(task, seed=seed)
        monkeypatch.setattr(env, "close", lambda: closed.append(task))
        return env

    def fail(*_: object) -> None:
        raise ArithmeticError

    monkeypatch.setattr(measuring, "make_env", watched)
    monkeypatch.setattr(measuring, place, fail)
    with pytest.raises(ArithmeticError):
        measuring.measure(CASE)
    assert closed == ["toy-pointmass"]


def test_memory_closes_the_environment_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = importlib.import_module("memory")
    closed = []

    def fail() -> None:
        raise ArithmeticError

    space = SimpleNamespace(seed=lambda seed: None)
    env = SimpleNamespace(action_space=space, reset=fail, close=lambda: closed.append(1))
    monkeypatch.setattr(memory, "make_env", lambda *_, **__: env)
    with pytest.raises(ArithmeticError):
        memory.measure("toy-pointmass", memory.Options())
    assert closed == [1]


def test_on_a_gpu_kernels_are_counted_once() -> None:
    """Operations have the time of the kernels that they launch, and regions that of all inside."""
    hot_spots = importlib.import_module("hot_spots")
    costs = {"self_device_time_total": 5.0, "self_cpu_time_total": 2.0, "count": 3}
    events = [
        SimpleNamespace(key=key, device_type=kind, is_user_annotation=region, **costs)
        for key, kind, region in (
            ("aten::addmm", DeviceType.CPU, False),
            ("gemm", DeviceType.CUDA, False),
            ("Optimizer.step", DeviceType.CUDA, True),
        )
    ]
    assert hot_spots.costs_of(events, on_gpu=True) == [(5.0, 3, "gemm")]
    assert hot_spots.costs_of(events[:1], on_gpu=False) == [(2.0, 3, "aten::addmm")]


class Rounds:
    """Stands for the stopwatch of `seed_batches`: seconds are the number of the round of calls."""

    def __init__(self, device: torch.device) -> None:
        self.calls = 0

    def __call__(self, function: Callable[[], object]) -> float:
        function()
        self.calls += 1
        return float((self.calls - 1) // 4)


def test_agents_alone_are_warm_before_they_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    seed_batches = importlib.import_module("seed_batches")
    monkeypatch.setattr(importlib.import_module("meters"), "Stopwatch", Rounds)
    options = seed_batches.Options(task="toy-pointmass", device="cpu", compile=False, repetitions=1)
    row = seed_batches.measure(options, "smoke", 2)
    assert row["update_alone_ms"] == row["plan_alone_ms"] == 1e3 * (WARM_CALLS + 1)
    assert row["compiled"] is False


def test_the_memory_of_training_has_no_copy_of_the_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    multitask = importlib.import_module("multitask")
    order: list[str] = []

    def peak_gb() -> float:
        order.append("peak")
        return 1.5

    def in_arrays(replay: object) -> None:
        order.append("copy")

    monkeypatch.setattr(importlib.import_module("meters"), "peak_gb", peak_gb)
    monkeypatch.setattr(multitask, "in_arrays", in_arrays)
    options = multitask.Options(
        task="mw-reach,mw-push",
        **{"batch_size": 8, "repetitions": 1, "threads": 1, "device": "cpu", "compile": False},
    )
    multitask.make_dataset(tmp_path / "data", options.task, episodes=1)
    row = multitask.measure(options, "smoke", tmp_path / "data")
    assert order == ["peak", "copy"]
    assert row["memory_gb"] == 1.5
    assert row["mapped_over_arrays"] > 0
