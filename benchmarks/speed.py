"""Measure the speed of planning and learning against a lower bound of the machine.

`python benchmarks/speed.py [key=value …]` measures, for each method, task, model size and number
of threads, in a separate process: one planning call, one gradient step, one environment step, one
iteration of the training loop, and sampling from the replay buffer. Planning and learning are also
given as multiples of the matmul lower bound: the FLOPs of the required matrix multiplications
(`tdmpc2/flops.py`, `baselines/flops.py`) at the best rate of a multiplication of two matrices
512 x 512 (8192 x 8192 on a GPU), measured beside every repetition: that of PyTorch and, in
bfloat16, that of the native kernels where they are used. Times are medians. `compiled` is whether
functions were compiled until the end. `out` is written after each case.
"""

from __future__ import annotations

import itertools
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from checks import check_file, numbers

from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.common.system.config_checks import (
    REPETITIONS,
    ROWS,
    THREADS,
    Settings,
    require,
    setting,
)
from tdmpc2.envs.tasks import get_task
from tdmpc2.runners.registry import config_class

COLUMNS = {
    "method": "method",
    "task": "task",
    "model_size": "size",
    "threads": "threads",
    "precision": "precision",
    "compiled": "compiled",
    "matmul_precision": "float32 matmul",
    "gflops": "GFLOP/s",
    "plan_ms": "plan ms",
    "plan_ratio": "x bound",
    "update_ms": "update ms",
    "update_ratio": "x bound",
    "env_step_ms": "env ms",
    "loop_ms": "loop ms",
    "loop_ratio": "x sum",
    "sample_ms": "sample ms",
    "first_plan_s": "first plan s",
    "first_update_s": "first update s",
    "resident_gb": "GB",
}

# Parts of a numeric path that differ between the cases; each row has its own.
OF_CASES = ("threads", "precision", "matmul_precision", "compile")


@dataclass(frozen=True)
class Options(Settings):
    """Options of the command."""

    methods: str = setting("tdmpc2", "comma-separated list")
    tasks: str = setting("walker-walk,dog-run", "comma-separated list")
    model_sizes: str = setting("1,5", "sizes of TD-MPC2, comma-separated list")
    threads: str = setting("1,2", "threads of torch, comma-separated list")
    precision: str = setting("fp32", "comma-separated list of fp32, tf32 (GPUs) and bf16")
    device: str = setting("auto", "auto, cpu, cuda …")
    compile: bool | None = setting(None, "torch.compile; default: if it works")
    repetitions: int = setting(15, "timed calls of each function", REPETITIONS)
    loop: int = setting(12, "timed training-loop iterations; 0: none", low=0, high=100_000)
    replay_rows: int = setting(1_000_000, "rows of the replay buffer", ROWS)
    out: Path | None = setting(None, "also write everything as JSON")


def parse(arguments: Sequence[str]) -> tuple[Options, list[dict[str, Any]]]:
    """Return the options, and the cases to measure.

    Raises:
        UserError: an invalid option.
    """
    options = cli.parse_options(arguments, Options)
    check_file("out", options.out)
    all_cases = cases(options)
    for case in all_cases:
        check_rows(case)
    from tdmpc2.common.numerics.numeric_path import require_precision
    from tdmpc2.common.numerics.torch_setup import choose_device

    device = choose_device(options.device)
    for case in all_cases:
        require_precision(device, case["precision"])
    return options, all_cases


def cases(options: Options) -> list[dict[str, Any]]:
    """Return all combinations that the options name.

    Raises:
        UserError: a name is unknown, or a value is out of range.
    """
    split = {name: getattr(options, name).split(",") for name in ("tasks", "precision")}
    sizes = options.model_sizes.split(",")
    methods = options.methods.split(",")
    fixed = asdict(options)
    return [
        {
            **{k: fixed[k] for k in ("device", "compile", "repetitions", "loop", "replay_rows")},
            "method": method,
            "task": get_task(task).name,
            "model_size": settings.get("model_size"),
            "threads": threads,
            "precision": settings.get("precision", "fp32"),
            "settings": settings,
        }
        for method, threads, precision in itertools.product(
            methods, numbers("threads", options.threads, THREADS), split["precision"]
        )
        for settings in settings_of(method, sizes, precision)
        for task in split["tasks"]
    ]


def settings_of(method: str, sizes: Sequence[str], precision: str) -> list[dict[str, Any]]:
    """Return the settings to measure a method with; baselines have one model size.

    Args:
        method: name of the method.
        sizes: model sizes of TD-MPC2.
        precision: `fp32`, `tf32` or `bf16`.
    """
    make = config_class(method).make
    common: dict[str, Any] = {} if precision == "fp32" else {"precision": precision}
    if method == "tdmpc2":
        all_settings = [{"model_size": size, **common} for size in sizes]
    else:
        all_settings = [common]
    for settings in all_settings:
        make(**settings)
    return all_settings


def check_rows(case: Mapping[str, Any]) -> None:
    """Check that the replay buffer of a case has rows for an episode of each environment.

    Raises:
        UserError: it has fewer.
    """
    config = config_class(case["method"]).make(**case["settings"])
    rows = get_task(case["task"]).episode_length + 1
    num_envs = getattr(config, "num_envs", 1)
    each = "" if num_envs == 1 else f" in each of {num_envs} environments"
    require(
        case["replay_rows"] >= num_envs * rows,
        f"replay_rows={case['replay_rows']}: an episode of {case['task']} takes {rows} rows{each}; "
        f"use at least {num_envs * rows}",
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code, 1 if a case could not be measured.

    Raises:
        UserError: an invalid option.
    """
    if arguments[:1] == ["case"] and len(arguments) == 2:
        from measuring import measure

        print(json.dumps(measure(json.loads(arguments[1]))))
        return 0
    options, all_cases = parse(arguments)
    from tdmpc2.common.numerics.numeric_path import numeric_path
    from tdmpc2.common.numerics.torch_setup import choose_device
    from tdmpc2.common.run.source_version import git_commit

    path = numeric_path(choose_device(options.device), None)
    machine = {key: value for key, value in path.items() if key not in OF_CASES}
    machine |= {"commit": git_commit(), "python": platform.python_version()}
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    print("| " + " | ".join(COLUMNS.values()) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    rows = []
    for case in all_cases:
        command = [sys.executable, __file__, "case", json.dumps(case)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"{case}: failed", flush=True)
        else:
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print("| " + " | ".join(_cell(rows[-1][name]) for name in COLUMNS) + " |", flush=True)
        if options.out is not None:
            write_json(options.out, {"machine": machine, "rows": rows})
    return 0 if len(rows) == len(all_cases) else 1


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"
    return "" if value is None else str(value)


def usage() -> str:
    """Return the text of `--help`."""
    return f"{__doc__}\n{cli.describe_fields(Options)}"


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
