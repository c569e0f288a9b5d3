"""Launches a sweep: `python sweeps/launch.py suite=smoke seeds=2`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from sweeps.floors import measure_floors, threshold
from sweeps.grid import NO_PRESET, PRESETS, companion_spec, grid
from sweeps.local_pool import Job, in_packs, run_all
from sweeps.report import ProgressDisplay, print_summary
from tdmpc2.common import cli
from tdmpc2.common.cores import usable_cores
from tdmpc2.common.errors import UserError
from tdmpc2.common.records import SETTLED, read_status
from tdmpc2.common.spec import RunOptions, parse_seeds
from tdmpc2.envs.tasks import SUITES, get_suite, get_task
from tdmpc2.methods import agent_class


@dataclass(frozen=True)
class SweepOptions:
    """What to launch."""

    suite: str | None = field(default=None, metadata={"help": " | ".join(sorted(SUITES))})
    tasks: str | None = field(
        default=None, metadata={"help": "instead of a suite: comma-separated task names"}
    )
    methods: str | None = field(
        default=None,
        metadata={"help": "comma-separated; default: tdmpc2, and what a suite brings along"},
    )
    seeds: str = field(default="3", metadata={"help": "a count (3) or a list (1,2,5)"})
    env_steps: int | None = field(
        default=None, metadata={"help": "budget of each run; default: the suite's or the task's"}
    )
    variant: str | None = field(default=None, metadata={"help": "name of these settings"})
    obs: str = field(default="state", metadata={"help": "state | rgb (DMControl only)"})
    assets: str = field(
        default="official",
        metadata={
            "help": "of pick-ycb and turn-faucet: official | rebuilt | standin | unknown, or "
            "several, by preference (official,unknown)"
        },
    )
    max_parallel: int | None = field(
        default=None, metadata={"help": "processes at a time; default: cores / threads"}
    )
    seeds_per_process: int = field(
        default=1, metadata={"help": "seeds of a task that one process trains as one batch"}
    )
    dry_run: bool = field(default=False, metadata={"help": "list the runs and stop"})


def parse(words: Sequence[str]) -> tuple[SweepOptions, RunOptions, dict[str, Any], dict[str, Any]]:
    """Splits the words into sweep options, run options (checked, and as given) and overrides.

    Raises:
        UserError: unknown key, or a value of another type.
    """
    sweep_schema, run_schema = cli.schema_of(SweepOptions), cli.schema_of(RunOptions)
    methods = cli.split_words(words).get("methods", "tdmpc2").split(",")
    config_schema: dict[str, Any] = {}
    for method in methods:
        config_schema |= cli.schema_of(agent_class(method).config_class)
    values = cli.parse_words(words, config_schema | run_schema | sweep_schema)
    sweep = SweepOptions(**{k: v for k, v in values.items() if k in sweep_schema})
    preset = PRESETS.get(sweep.suite or "", NO_PRESET)
    given = {k: v for k, v in values.items() if k in run_schema and k != "progress"}
    options = {**preset.options, **given}
    overrides = {k: v for k, v in values.items() if k not in sweep_schema and k not in run_schema}
    return sweep, RunOptions(**options), options, overrides


def main(words: Sequence[str]) -> int:
    """The command; returns its exit code.

    Returns:
        0 if all runs ended (and learnt, where the suite demands it), else 1.
    """
    sweep, run_options, options, overrides = parse(words)
    preset = PRESETS.get(sweep.suite or "", NO_PRESET)
    specs = grid(
        _task_names(sweep),
        (sweep.methods or "tdmpc2").split(","),
        parse_seeds(sweep.seeds),
        preset=preset,
        env_steps=sweep.env_steps,
        variant=sweep.variant,
        overrides=overrides,
        obs=sweep.obs,
        assets=sweep.assets,
    )
    if sweep.seeds_per_process < 1:
        raise UserError(f"seeds_per_process={sweep.seeds_per_process}: must be at least 1")
    jobs = [
        Job(
            spec,
            spec.run_dir(run_options.runs),
            asked=preset.must_learn and spec.method == "tdmpc2",
        )
        for spec in specs
    ]
    for companion in preset.companions if sweep.methods is None else ():
        spec = companion_spec(preset, companion, sweep.variant or preset.variant)
        directory = spec.run_dir(run_options.runs)
        jobs.append(Job(spec, directory, options=companion.options, asked=None))
    threads = run_options.threads or 1
    parallel = sweep.max_parallel or max(usable_cores() // threads, 1)
    for job in jobs:
        job.status = read_status(job.directory)
    todo = [job for job in jobs if not _is_settled(job)]
    # A pack is started with all of its seeds, so that those left over keep their places in it.
    packs = in_packs(jobs, sweep.seeds_per_process)
    packs = [pack for pack in packs if not all(map(_is_settled, pack))]
    processes = f" in {len(packs)} processes" if sweep.seeds_per_process > 1 else ""
    print(
        f"{sweep.suite or sweep.tasks}: {len(jobs)} runs, {len(jobs) - len(todo)} finished "
        f"already, {len(todo)} to do{processes}, {parallel} at a time; records in "
        f"{run_options.runs}",
        flush=True,
    )
    if sweep.dry_run:
        for job in jobs:
            print(f"  {job.name}: {(job.status or {}).get('state', 'new')}  {job.directory}")
        return 0

    # A launcher that is asked to end stops its runs first, as ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tasks = [job.spec.task for job in jobs]
    floors = measure_floors(tasks, run_options.runs, assets=sweep.assets)
    words_for_runs = {k: v for k, v in options.items() if k != "threads"}
    with ProgressDisplay(jobs) as display:
        run_all(
            packs,
            {"runs": run_options.runs, **words_for_runs},
            max_parallel=parallel,
            threads=threads,
            on_change=display.update,
        )
    thresholds = {id(job): _threshold(job, floors) for job in jobs}
    return print_summary(jobs, [thresholds[id(job)] for job in jobs])


def _task_names(sweep: SweepOptions) -> list[str]:
    """Tasks of the suite, or those named one by one."""
    if (sweep.suite is None) == (sweep.tasks is None):
        raise UserError(f"one of suite= and tasks= is needed (suites: {', '.join(sorted(SUITES))})")
    if sweep.suite is not None:
        return [task.name for task in get_suite(sweep.suite)]
    return [get_task(name.strip()).name for name in (sweep.tasks or "").split(",")]


def _is_settled(job: Job) -> bool:
    status = job.status
    if status is None or status["state"] not in SETTLED:
        return False
    return status["state"] == "DIVERGED" or status["env_step"] >= job.spec.budget


def _threshold(job: Job, floors: dict[str, dict[str, Any]]) -> float | None:
    """Return above which a run has learnt; None if it never was evaluated."""
    path = job.directory / "eval.csv"
    if not path.exists():
        return None
    evaluations = pd.read_csv(path)
    if not (evaluations.env_step == 0).any():
        return None
    return threshold(floors[job.spec.task], evaluations)


def usage() -> str:
    """Text of `--help`."""
    return "\n".join(
        [
            "usage: python sweeps/launch.py suite=SUITE [key=value …]",
            "",
            "Runs a suite of tasks with several seeds on this machine. Launching again resumes",
            "what is unfinished and skips what is finished. Besides the keys below, every option",
            "and setting of `python tdmpc2/train.py --help` may be given.",
            "",
            cli.describe_fields(SweepOptions),
        ]
    )


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
