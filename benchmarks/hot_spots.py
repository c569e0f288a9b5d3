"""Profile planning and updates: `python benchmarks/hot_spots.py [key=value …]`.

Runs each a few times under PyTorch's profiler and prints the operations with the largest self
time, that is, without the operations that they call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from speed import settings_of

from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import REPETITIONS, THREADS, Settings, setting
from tdmpc2.envs.tasks import get_task

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Options(Settings):
    """Options of the command."""

    method: str = setting("tdmpc2", "tdmpc2, sac, tdmpc or dreamerv3")
    task: str = setting("walker-walk", "task that determines the shapes")
    model_size: str = setting("5", "size of TD-MPC2: 1, 5, 19 …")
    threads: int = setting(1, "threads of torch", THREADS)
    precision: Literal["fp32", "bf16"] = setting("fp32", "precision of matrix multiplications")
    device: str = setting("auto", "auto, cpu, cuda …")
    compile: bool | None = setting(None, "torch.compile; default: if it works")
    repetitions: int = setting(5, "profiled calls of each function", REPETITIONS)
    rows: int = setting(15, "rows of each table", low=1, high=10_000)


def table(function: Callable[[], object], device: torch.device, options: Options) -> str:
    """Return a table of the most expensive operations: ms per call, share and number of calls.

    Args:
        function: function to profile.
        device: device it runs on.
        options: options of the command.
    """
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        for _ in range(options.repetitions):
            function()
    on_gpu = device.type == "cuda"
    costs = []
    for event in profiler.key_averages():
        time = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        costs.append((time / 1e3 / options.repetitions, event.count, event.key))
    total = sum(cost for cost, _, _ in costs)
    lines = ["|    ms | share | calls | operation |", "|---|---|---|---|"]
    for cost, count, name in sorted(costs, reverse=True)[: options.rows]:
        calls = count / options.repetitions
        lines.append(f"| {cost:5.1f} | {cost / total:5.1%} | {calls:5.0f} | {name[:60]} |")
    return "\n".join([*lines, f"| {total:5.1f} | | | all |"])


def parse(arguments: Sequence[str]) -> tuple[Options, dict[str, Any]]:
    """Return the options, and the case to measure.

    Raises:
        UserError: an invalid option.
    """
    options = cli.parse_options(arguments, Options)
    settings = settings_of(options.method, [options.model_size], options.precision)[0]
    get_task(options.task)
    from tdmpc2.common.numerics.torch_setup import choose_device

    choose_device(options.device)
    return options, {
        **{k: getattr(options, k) for k in ("method", "task", "threads", "precision")},
        "settings": settings,
        **{k: getattr(options, k) for k in ("device", "compile")},
        "replay_rows": 20_000,
    }


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: an invalid option.
    """
    options, case = parse(arguments)
    import torch
    from measuring import Bench, fill

    # Shows the kernels of compiled functions by name, at the cost of compiling them again.
    torch._inductor.config.cpp.enable_kernel_profile = True
    bench = Bench(case)
    fill(bench.replay, bench.spec, case["replay_rows"])
    for name, function in (("plan", bench.plan), ("update", bench.update)):
        function()
        function()
        print(f"\n## {name}\n{table(function, bench.device, options)}", flush=True)
    return 0


def usage() -> str:
    """Return the text of `--help`."""
    return f"{__doc__}\n{cli.describe_fields(Options)}"


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
