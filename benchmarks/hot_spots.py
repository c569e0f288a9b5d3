"""Profile planning and updates: `python benchmarks/hot_spots.py [key=value …]`.

Runs each a few times under PyTorch's profiler and prints the operations with the largest self
time, that is, without the operations that they call; on a GPU, the kernels and copies.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
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
    from meters import Stopwatch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        for _ in range(options.repetitions):
            function()
        Stopwatch(device).wait()
    costs = costs_of(profiler.key_averages(), on_gpu=device.type == "cuda")
    total = sum(cost for cost, _, _ in costs)
    lines = ["|    ms | share | calls | operation |", "|---|---|---|---|"]
    for cost, count, name in sorted(costs, reverse=True)[: options.rows]:
        ms, calls = cost / 1e3 / options.repetitions, count / options.repetitions
        lines.append(f"| {ms:5.1f} | {cost / total:5.1%} | {calls:5.0f} | {name[:60]} |")
    return "\n".join([*lines, f"| {total / 1e3 / options.repetitions:5.1f} | | | all |"])


def costs_of(events: Iterable[Any], *, on_gpu: bool) -> list[tuple[float, int, str]]:
    """Return self time in µs, number of calls and name of each operation; on a GPU, of each kernel.

    There, the profiler also lists the operations that launch kernels, with the time of these, and
    regions that PyTorch has named, with the time of all kernels inside. These would count the same
    time again.

    Args:
        events: averages of the profiler.
        on_gpu: whether the profiled functions ran on a GPU.
    """
    if not on_gpu:
        return [(event.self_cpu_time_total, event.count, event.key) for event in events]
    from torch.profiler import DeviceType

    return [
        (event.self_device_time_total, event.count, event.key)
        for event in events
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    ]


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
    from measuring import fill, prepared
    from meters import WARM_UP

    # Shows the kernels of compiled functions by name, at the cost of compiling them again.
    torch._inductor.config.cpp.enable_kernel_profile = True
    with prepared(case) as bench:
        fill(bench.replay, bench.spec, case["replay_rows"])
        for name, function in (("plan", bench.plan), ("update", bench.update)):
            for _ in range(WARM_UP):
                function()
            print(f"\n## {name}\n{table(function, bench.device, options)}", flush=True)
    return 0


def usage() -> str:
    """Return the text of `--help`."""
    return f"{__doc__}\n{cli.describe_fields(Options)}"


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
