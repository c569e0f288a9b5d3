"""Launches are counted without a GPU, and compiled graphs contain nothing that waits for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(FOLDER))  # as for a script that is run from there

import cuda_lowering  # noqa: E402
import launches  # noqa: E402

from tests.tape import READS  # noqa: E402

TRANSFERS = ("_to_copy", "_local_scalar_dense", "nonzero", "pin_memory")


def counted(function: object, *args: Tensor) -> cuda_lowering.LaunchCounter:
    counter = cuda_lowering.LaunchCounter()
    result = counter.compile(function, {})(*args)  # type: ignore[arg-type]
    if result.requires_grad:
        torch.autograd.grad(result, [x for x in args if x.requires_grad])
    return counter


def test_a_product_and_its_epilogue_are_two_launches() -> None:
    def layer(x: Tensor, weight: Tensor) -> Tensor:
        return torch.relu(F.layer_norm(x @ weight, (64,)))

    counter = counted(layer, torch.randn(8, 32), torch.randn(32, 64))
    assert counter.kernels.total() == 2
    assert counter.kernels["extern_kernels.mm"] == 1
    least = 4 * (8 * 32 + 32 * 64 + 8 * 64 + 2 * 8 * 64)  # the product, and its epilogue
    assert counter.num_bytes == least


def test_gradients_are_counted() -> None:
    def loss(x: Tensor, weight: Tensor) -> Tensor:
        return (x @ weight).sum()

    weight = torch.randn(32, 64, requires_grad=True)
    counter = counted(loss, torch.randn(8, 32), weight)
    assert counter.kernels["extern_kernels.mm"] == 2  # the product and its gradient


def test_the_model_of_time_by_hand() -> None:
    step = launches.Launches(
        launches.Counter({"a": 3}), launches.Counter({"b": 1}), num_bytes=8_000_000
    )
    assert step.total == 4
    assert step.model_ms(launch_us=2.0, bandwidth=4000.0) == pytest.approx(0.008 + 0.002)


@pytest.mark.slow
def test_whole_steps_are_compiled_and_wait_for_nothing() -> None:
    """Fixed shapes, no graph breaks (`fullgraph=True`), no values or tensors of the host."""
    found, counter = launches.count_with(launches.Options(model_size="smoke"))
    assert counter.operations
    assert not [name for name in counter.operations if name in READS or name.startswith(TRANSFERS)]
    plain, _ = launches.count_with(launches.Options(model_size="smoke", forms="cpu"))
    for step in ("plan", "update"):
        assert found[step].total < 0.85 * plain[step].total


@pytest.mark.slow
def test_a_decision_of_the_paper_has_few_launches() -> None:
    """The first release of the GPU path, measured on an H200: 985 (docs/gpu.md)."""
    found, _ = launches.count_with(launches.Options())
    assert sum(step.total for step in found.values()) < 450
