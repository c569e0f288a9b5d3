"""Measure offline multi-task training: `python benchmarks/multitask.py model_sizes=1,5,19,48,317`.

For each model size, with random data: number of parameters, time of an update and of a plan, and
memory; and the cost of sampling batches from memory-mapped shards compared with arrays. Every size
is measured in its own process.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from checks import check_file, check_sizes

from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.common.system.config_checks import (
    BATCH,
    EPISODES,
    REPETITIONS,
    THREADS,
    Settings,
    require,
    setting,
)
from tdmpc2.envs.task_sets import get_task_set

if TYPE_CHECKING:
    from tdmpc2.data.offline_replay import OfflineReplay

COLUMNS = (
    "| size | parameters | update s | updates/s | plan ms | memory GB | sample ms | mapped/arrays |"
)


@dataclass(frozen=True)
class Options(Settings):
    """Options of the command."""

    task: str = setting("mt80", "task set")
    model_sizes: str = setting("1,5,19,48,317", "comma-separated list")
    batch_size: int = setting(1024, "batch size of an update", BATCH)
    accumulate: int = setting(1, "micro-batches of an update", BATCH)
    episodes: int = setting(40, "episodes of each task in the dataset", EPISODES)
    precision: Literal["fp32", "bf16"] = setting("fp32", "precision of matrix multiplications")
    threads: int | None = setting(None, "threads of torch; default: all cores", THREADS)
    device: str = setting("auto", "auto, cpu, cuda …")
    compile: bool | None = setting(None, "torch.compile; default: if it works")
    repetitions: int = setting(3, "timed calls of each function", REPETITIONS)
    out: Path | None = setting(None, "also write everything as JSON")


def make_dataset(folder: Path, tasks: str, episodes: int) -> None:
    """Write a dataset of random episodes.

    Args:
        folder: folder of the dataset.
        tasks: the task set.
        episodes: episodes of each task.
    """
    import numpy as np

    from tdmpc2.data.writer import DatasetWriter

    _, members = get_task_set(tasks)
    rng = np.random.default_rng(0)
    with DatasetWriter(folder, None, members, plan={}, shard_mb=256) as writer:
        for task in members:
            shards = writer.open_task(task, "float32")
            length = task.episode_length
            num_rows = episodes * (length + 1)
            rows = rng.normal(size=(num_rows, task.obs_dim + task.action_dim + 1))
            rows[:, task.obs_dim : -1] = np.tanh(rows[:, task.obs_dim : -1])
            rows[length :: length + 1, task.obs_dim :] = np.nan  # rows after the last transition
            lengths, ended = np.full(episodes, length), np.zeros(episodes, int)
            shards.add(rows.astype(np.float32), lengths, ended, str)
            writer.finish_task(shards)
        writer.finish({})


def in_arrays(replay: OfflineReplay) -> None:
    """Load all shards of a replay buffer into arrays."""
    import numpy as np

    replay._sources = [s._replace(rows=np.array(s.rows)) for s in replay._sources]


def measure(options: Options, size: str, folder: Path) -> dict[str, Any]:
    """Measure one row of the table.

    Args:
        options: options of the command.
        size: model size.
        folder: folder of the dataset.
    """
    import numpy as np
    import torch
    from meters import WARM_UP, Stopwatch, peak_gb

    from tdmpc2 import acceleration
    from tdmpc2.agent import TDMPC2
    from tdmpc2.common.numerics.distributed import World
    from tdmpc2.common.numerics.numeric_path import numeric_path
    from tdmpc2.common.numerics.torch_setup import choose_device, set_up_torch
    from tdmpc2.data.dataset import Dataset
    from tdmpc2.data.offline_replay import OfflineReplay
    from tdmpc2.envs.multitask import multitask_spec
    from tdmpc2.runners.registry import make_config
    from tdmpc2.sharded_update import SplitUpdate

    device = choose_device(options.device)
    path = numeric_path(
        device, options.threads, compiled=options.compile, precision=options.precision
    )
    set_up_torch(path)
    name, members = get_task_set(options.task)
    env = multitask_spec(members)
    settings = {"batch_size": options.batch_size, "precision": options.precision}
    config = make_config("tdmpc2", {"model_size": size, **settings}, name)
    agent = TDMPC2(config, env, seed=1, device=device)
    compiler = acceleration.install(agent) if path["compile"] else None
    learner = agent if options.accumulate == 1 else SplitUpdate(agent, World(), options.accumulate)
    replays: list[Any] = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(0)
        shapes = (agent.replay_length, env.obs_shape[0], env.action_dim)
        dataset = Dataset.open(folder)
        replays.append(OfflineReplay(dataset, env.task_names, *shapes, generator=generator))
    mapped, arrays = replays
    watch = Stopwatch(device)
    obs = np.zeros((1, *env.obs_shape), np.float32)
    first, task = np.ones(1, dtype=bool), np.zeros(1, dtype=int)
    calls: dict[str, Callable[[], object]] = {
        "plan": lambda: agent.act(obs, first=first, explore=False, task=task),
        "sample": lambda: mapped.sample(options.batch_size),
        "mapped": lambda: learner.update(mapped),
    }
    for _ in range(WARM_UP):  # the first call compiles and reads the files
        for call in calls.values():
            call()
    on_gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if on_gpu else peak_gb()
    in_arrays(arrays)  # after the peak was read, since training has no such copy
    calls["arrays"] = lambda: learner.update(arrays)
    calls["arrays"]()
    seconds: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(options.repetitions):
        for key, call in calls.items():
            seconds[key].append(watch(call))
    median = {key: statistics.median(times) for key, times in seconds.items()}
    return {
        "model_size": size,
        "num_parameters": agent.model.num_parameters(),
        "update_s": median["mapped"],
        "plan_s": median["plan"],
        "sample_s": median["sample"],
        "memory_gb": peak,
        "mapped_over_arrays": median["arrays"] / median["mapped"],
        "compiled": compiler is not None and compiler.enabled,
        "machine": path,
    }


def parse(arguments: Sequence[str]) -> tuple[Options, list[str]]:
    """Return the options, and the model sizes.

    Raises:
        UserError: an invalid option.
    """
    options = cli.parse_options(arguments, Options)
    get_task_set(options.task)
    sizes = options.model_sizes.split(",")
    check_sizes(sizes)
    batch, parts = options.batch_size, options.accumulate
    require(batch % parts == 0, f"batch_size={batch}: must be a multiple of accumulate={parts}")
    check_file("out", options.out)
    from tdmpc2.common.numerics.torch_setup import choose_device

    choose_device(options.device)
    return options, sizes


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: an invalid option.
    """
    options, sizes = parse(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "data"
        make_dataset(folder, options.task, options.episodes)
        print(COLUMNS + "\n|" + "---|" * (COLUMNS.count("|") - 1), flush=True)
        for size in sizes:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context) as process:
                row = process.submit(measure, options, size, folder).result()
            cells = (
                *(row["model_size"], f"{row['num_parameters']:,}", f"{row['update_s']:.3f}"),
                *(f"{1 / row['update_s']:.3g}", f"{1e3 * row['plan_s']:.0f}"),
                *(f"{row['memory_gb']:.1f}", f"{1e3 * row['sample_s']:.1f}"),
                f"{row['mapped_over_arrays']:.3f}",
            )
            print("| " + " | ".join(cells) + " |", flush=True)
            rows.append(row)
            if options.out is not None:
                write_json(options.out, {"options": asdict(options), "rows": rows})
    return 0


def usage() -> str:
    """Return the text of `--help`."""
    return f"{__doc__}\n{cli.describe_fields(Options)}"


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
