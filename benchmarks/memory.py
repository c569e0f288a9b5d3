"""Measure how the memory of environments grows: `python benchmarks/memory.py [key=value …]`.

Each task runs in its own process, one after the other, with random actions. After `warm_up`
episodes the resident memory is read after every tenth episode; the slope of a line through these
values is the growth. Exit code 1 if that of a task exceeds `most`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Literal

from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import Settings, setting
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.adapters import ADAPTERS
from tdmpc2.envs.assets.find import check_sources
from tdmpc2.envs.factory import check_obs, check_render, make_env
from tdmpc2.envs.tasks import Task, get_task

EVERY = 10  # episodes between two values


@dataclass(frozen=True)
class Options(Settings):
    """Options of the command."""

    tasks: str | None = setting(None, "comma-separated list; default: one task of each simulator")
    episodes: int = setting(300, "episodes after the warm-up", low=20, high=100_000)
    warm_up: int = setting(50, "episodes before the first value", low=0, high=100_000)
    decisions: int | None = setting(
        None, "decisions after which an episode is cut off; default: none", low=1, high=10_000
    )
    obs: Literal["state", "rgb"] = setting("state", "observations; rgb: DMControl only")
    render: bool = setting(False, "also render the last frame of each episode")
    assets: str = setting("standin", "source of the models of tasks that need some")
    most: float = setting(5.0, "largest growth in MB per 100 episodes", low=0, high=1_000_000)


def measure(task: str, options: Options) -> list[float]:
    """Return the resident memory in MB after every tenth episode that follows the warm-up.

    Args:
        task: name of the task.
        options: options of the command.
    """
    import psutil

    process, values = psutil.Process(), []
    made = make_env(task, seed=0, obs=options.obs, render=options.render, assets=options.assets)
    with contextlib.closing(made) as env:
        env.action_space.seed(0)
        for episode in range(options.warm_up + options.episodes + 1):
            if episode >= options.warm_up and (episode - options.warm_up) % EVERY == 0:
                values.append(process.memory_info().rss / 1e6)
            env.reset()
            decisions, done = 0, False
            while not done:
                _, _, terminated, truncated, _ = env.step(env.action_space.sample())
                decisions += 1
                done = terminated or truncated or decisions == options.decisions
            if options.render:
                env.render()
    return values


def measure_alone(task: str, options: Options) -> list[float]:
    """Return the result of `measure`, which runs in a process of its own.

    Args:
        task: name of the task.
        options: options of the command.

    Raises:
        UserError: the task cannot be measured, or the process ended without a result.
    """
    # Spawned, so that a task does not start with what the one before it has left.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        try:
            return process.submit(measure, task, options).result()
        except BrokenProcessPool:
            raise UserError("its process crashed or was killed, e.g. for lack of memory") from None


def growth(values: Sequence[float]) -> float:
    """Return the slope of a least-squares line through `measure`'s values, in MB per 100 episodes.

    Args:
        values: at least two values.
    """
    center = (len(values) - 1) / 2
    squares = sum((i - center) ** 2 for i in range(len(values)))
    slope = sum((i - center) * value for i, value in enumerate(values)) / squares
    return slope * 100 / EVERY


def parse(arguments: Sequence[str]) -> tuple[Options, list[Task]]:
    """Return the options, and the tasks to measure.

    Raises:
        UserError: an invalid option.
    """
    options = cli.parse_options(arguments, Options)
    probes = [row.probe for row in ADAPTERS.values() if row.probe]
    names = probes if options.tasks is None else options.tasks.split(",")
    tasks = [get_task(name) for name in names]
    for task in tasks:
        check_obs(task, options.obs)
        if options.render:
            check_render(task)
    check_sources(options.assets)
    return options, tasks


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code, 1 if a task grows too much or cannot be measured.

    Raises:
        UserError: an invalid option.
    """
    options, tasks = parse(arguments)
    print("| task | domain | MB | MB per 100 episodes |\n|---|---|---|---|", flush=True)
    code = 0
    for task in tasks:
        try:
            values = measure_alone(task.name, options)
        except UserError as error:
            print(f"{task.name}: {error}", flush=True)
            code = 1
            continue
        slope = growth(values)
        code |= slope > options.most
        print(f"| {task.name} | {task.domain} | {values[-1]:.0f} | {slope:.2f} |", flush=True)
    return int(code)


def usage() -> str:
    """Return the text of `--help`."""
    return f"{__doc__}\n{cli.describe_fields(Options)}"


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
