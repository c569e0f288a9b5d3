"""Compare seed batches with separate agents: `python benchmarks/seed_batches.py [key=value …]`.

Measures plan and update of K agents as one batch, and of the same agents one by one, in turns. The
ratio is the speedup of the batch.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checks import check_file, check_sizes, numbers

from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.common.system.config_checks import REPETITIONS, THREADS, Range, Settings, setting
from tdmpc2.envs.tasks import get_task

SEEDS = Range(low=1, high=1024)

COLUMNS = "| task | size | seeds | plan ms | alone | ratio | update ms | alone | ratio | first s |"


@dataclass(frozen=True)
class Options(Settings):
    """Options of the command."""

    task: str = setting("walker-walk", "any task")
    model_sizes: str = setting("smoke,5", "comma-separated list")
    seeds: str = setting("3", "seeds per batch, comma-separated list")
    threads: int = setting(1, "threads of torch", THREADS)
    device: str = setting("auto", "auto, cpu, cuda …")
    compile: bool | None = setting(None, "torch.compile; default: if it works")
    repetitions: int = setting(15, "timed calls of each function", REPETITIONS)
    out: Path | None = setting(None, "also write everything as JSON")


def measure(options: Options, size: str, seeds: int) -> dict[str, Any]:
    """Measure one row of the table.

    Args:
        options: options of the command.
        size: model size.
        seeds: number of seeds in the batch.
    """
    import numpy as np
    from measuring import fill
    from meters import WARM_UP, Stopwatch

    from sweeps.planning.grid import SMOKE
    from tdmpc2 import acceleration
    from tdmpc2.agent import TDMPC2
    from tdmpc2.common.numerics.numeric_path import numeric_path
    from tdmpc2.common.numerics.torch_setup import choose_device, set_up_torch
    from tdmpc2.common.training.loop_requests import Act
    from tdmpc2.config import TDMPC2Config
    from tdmpc2.envs.factory import make_env
    from tdmpc2.runners.setup import env_spec, make_replay
    from tdmpc2.seed_batch import SeedBatch

    device = choose_device(options.device)
    path = numeric_path(device, options.threads, compiled=options.compile)
    set_up_torch(path)
    task = get_task(options.task)
    with contextlib.closing(make_env(task, seed=0)) as made:
        env = env_spec(task, made)
    overrides = SMOKE.overrides["tdmpc2"] if size == "smoke" else {"model_size": size}
    config = TDMPC2Config.make(**{**overrides, "buffer_size": 50_000})
    batched, alone = (
        [TDMPC2(config, env, seed=s, device=device) for s in range(seeds)] for _ in range(2)
    )
    replays = [make_replay(agent, env, s, device) for s, agent in enumerate(batched)]
    for replay in replays:
        fill(replay, env, 10_000)
    batch = SeedBatch(batched, [True] * seeds)
    start = time.perf_counter()
    compilers = [acceleration.install(batch)] if path["compile"] else []
    obs = np.random.default_rng(0).normal(size=(seeds, 1, *env.obs_shape)).astype(np.float32)
    first = np.array([True])
    calls: dict[str, Callable[[], object]] = {
        "plan": lambda: batch.act([Act(o, first, explore=True) for o in obs]),
        "update": lambda: batch.update(replays),
        "plan_alone": lambda: [
            a.act(o, first=first, explore=True) for a, o in zip(alone, obs, strict=True)
        ],
        "update_alone": lambda: [a.update(m) for a, m in zip(alone, replays, strict=True)],
    }
    calls["update"](), calls["plan"]()
    first_seconds = time.perf_counter() - start
    if path["compile"]:
        compilers += [acceleration.install(agent) for agent in alone]
    watch = Stopwatch(device)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(WARM_UP + options.repetitions):
        for name, call in calls.items():
            seconds[name].append(watch(call))
    ms = {name: 1e3 * statistics.median(times[WARM_UP:]) for name, times in seconds.items()}
    return {
        "task": task.name,
        "model_size": size,
        "seeds": seeds,
        **{f"{name}_ms": value for name, value in ms.items()},
        "plan_ratio": ms["plan_alone"] / ms["plan"],
        "update_ratio": ms["update_alone"] / ms["update"],
        "first_s": first_seconds,
        "compiled": bool(compilers) and all(compiler.enabled for compiler in compilers),
        "machine": path,
    }


def parse(arguments: Sequence[str]) -> tuple[Options, list[str], list[int]]:
    """Return the options, the model sizes, and the numbers of seeds.

    Raises:
        UserError: an invalid option.
    """
    options = cli.parse_options(arguments, Options)
    get_task(options.task)
    sizes, seeds = options.model_sizes.split(","), numbers("seeds", options.seeds, SEEDS)
    check_sizes(sizes)
    check_file("out", options.out)
    from tdmpc2.common.numerics.torch_setup import choose_device

    choose_device(options.device)
    return options, sizes, seeds


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: an invalid option.
    """
    options, sizes, all_seeds = parse(arguments)
    import torch

    print(COLUMNS + "\n|" + "---|" * (COLUMNS.count("|") - 1), flush=True)
    rows = []
    for size in sizes:
        for seeds in all_seeds:
            row = measure(options, size, seeds)
            cells = [row["task"], size, seeds]
            for name in ("plan", "update"):
                cells += [f"{row[f'{name}_ms']:.1f}", f"{row[f'{name}_alone_ms']:.1f}"]
                cells.append(f"{row[f'{name}_ratio']:.2f}")
            print("| " + " | ".join(map(str, [*cells, f"{row['first_s']:.0f}"])) + " |", flush=True)
            rows.append(row)
            if options.out is not None:
                write_json(options.out, {"rows": rows})
            torch._dynamo.reset()
    return 0


def usage() -> str:
    """Return the text of `--help`."""
    return f"{__doc__}\n{cli.describe_fields(Options)}"


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
