"""Section `latency`: time of plan, update and decision, against two bounds measured here.

Two bounds limit a step on a GPU: the time to launch its kernels one after the other, and the
time of its matrix multiplications and memory traffic.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gpu_sections.bench import WALKER, make_filled_agent, observation, seconds_of, set_up
from gpu_sections.report import Report, Settings
from tdmpc2 import acceleration
from tdmpc2.runners.work import gflop_of

# Bytes that an update reads and writes per parameter: Adam, gradient clipping, target networks, and
# the weights themselves.
UPDATE_BYTES_PER_PARAMETER = 51


def run(report: Report, settings: Settings) -> None:
    """Measure in float32, eager and compiled, and in TF32 and bfloat16, compiled."""
    limits = ceilings(report, settings)
    for precision in ("fp32", "tf32", "bf16") if settings.on_gpu else ("fp32",):
        set_up(settings, precision)
        for compiled in (False, True) if precision == "fp32" else (True,):
            measure(report, settings, limits, precision, compiled)


def ceilings(report: Report, settings: Settings) -> dict[str, float]:
    """Measure launch cost, matrix multiplication rates and memory bandwidth of this device.

    Returns:
        FLOP/s by precision, `bandwidth` in bytes/s, and on a GPU `launch` in seconds.
    """
    size = 512 if settings.small or not settings.on_gpu else 8192
    found = {}
    kinds = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
    for precision, dtype in kinds.items():
        if precision == "tf32" and not settings.on_gpu:
            continue
        set_up(settings, precision)
        a, b = (torch.randn(size, size, device=settings.device, dtype=dtype) for _ in range(2))
        seconds = seconds_of(settings, partial(torch.matmul, a, b), 10)
        found[precision] = 2 * size**3 / seconds
        report.add(f"matmul {size}, {precision}", found[precision] / 1e12, "TFLOP/s")
    source = torch.zeros(2**22 if settings.small else 2**28, device=settings.device)
    target = torch.empty_like(source)
    seconds = seconds_of(settings, lambda: target.copy_(source), 10)
    found["bandwidth"] = 2 * source.nbytes / seconds
    report.add("copy on the device", found["bandwidth"] / 1e9, "GB/s", note="read and written")
    if settings.on_gpu:
        x, num = torch.zeros(256, device=settings.device), 1000
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            for _ in range(num):
                x.add_(1)
        found["launch"] = seconds_of(settings, graph.replay, 10) / num
        report.add("dependent kernel in a CUDA graph", 1e6 * found["launch"], "us")
        eager = seconds_of(settings, lambda: [x.add_(1) for _ in range(num)], 5) / num
        report.add("dependent kernel, eager", 1e6 * eager, "us")
    return found


def measure(
    report: Report, settings: Settings, limits: dict[str, float], precision: str, compiled: bool
) -> None:
    """Measure the times of one agent, and their ratios to the bounds.

    Args:
        report: report of the section.
        settings: settings of the section.
        limits: see `ceilings`.
        precision: `fp32`, `tf32` or `bf16`.
        compiled: whether to compile the agent.

    Raises:
        RuntimeError: the agent could not be compiled.
    """
    overrides: dict[str, Any] = {} if precision == "fp32" else {"precision": precision}
    agent, replay = make_filled_agent(settings, rows=50_000, **overrides)
    compiler = acceleration.install(agent) if compiled else None
    first, obs = np.array([False]), observation()

    def plan() -> Any:
        return agent.act(obs, first=first, explore=True)

    def update() -> Any:
        return agent.update(replay)

    def decision() -> None:
        plan()
        update()

    size = (agent.config.batch_size, agent.replay_length)
    kind = f"{precision}, {'compiled' if compiled else 'eager'}"
    repetitions = 3 if settings.small else 30
    gflop = gflop_of("tdmpc2", agent.config, WALKER.obs_shape[0], WALKER.action_dim)
    num_parameters = sum(p.numel() for p in agent.model.parameters())
    traffic = {"plan": 0.0, "update": UPDATE_BYTES_PER_PARAMETER * num_parameters}
    total = 0.0
    for name, call in (("plan", plan), ("update", update)):
        seconds = seconds_of(settings, call, repetitions)
        total += seconds
        report.add(f"{name} ({kind})", 1e3 * seconds, "ms")
        kernels = None if compiled and not settings.on_gpu else count_kernels(settings, call)
        if kernels is not None:
            report.add(f"{name} ({kind}): kernels", kernels, note=counted_as(settings))
        work = max(1e9 * gflop[name] / limits[precision], traffic[name] / limits["bandwidth"])
        report.add(f"{name} ({kind}): over FLOPs and bytes", seconds / work, "x")
        if settings.on_gpu and kernels is not None:
            launches = kernels * limits["launch"]
            report.add(f"{name} ({kind}): over kernels x launch cost", seconds / launches, "x")
    whole = seconds_of(settings, decision, repetitions)
    report.add(f"decision ({kind})", 1e3 * whole, "ms", note="plan and update")
    report.add(f"decision ({kind}): over plan + update", whole / total, "x")
    sample = seconds_of(settings, lambda: replay.sample(*size), repetitions)
    report.add(f"sample ({kind})", 1e3 * sample, "ms")
    if compiler is not None and not compiler.enabled:
        raise RuntimeError("compilation failed; see the warning above")


class Counter(TorchDispatchMode):
    """Dispatch mode that counts operations."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operation and execute it."""
        self.count += 1
        return func(*args, **(kwargs or {}))


def count_kernels(settings: Settings, call: Any) -> int:
    """Return the number of kernels that a call launches; on a CPU, of dispatched operations.

    Named ranges of the call, such as the steps of optimizers, are no kernels, although the profiler
    lists them among these.
    """
    if not settings.on_gpu:
        with Counter() as counter:
            call()
        return counter.count
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        call()
        torch.cuda.synchronize()
    on_device = torch.profiler.DeviceType.CUDA
    return sum(
        event.device_type == on_device and not event.is_user_annotation
        for event in profile.events()
    )


def counted_as(settings: Settings) -> str:
    """Return a description of what `count_kernels` counts."""
    return "kernels and copies" if settings.on_gpu else "operations dispatched by PyTorch"
