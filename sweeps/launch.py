"""Launch a sweep of training runs: `python sweeps/launch.py suite=smoke seeds=2`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sweeps.execution.exit_codes import ASKS_FIRST, LEFT_OUT
from sweeps.planning.options import LaunchOptions, SweepOptions
from sweeps.planning.request import Schema, SweepRequest, deciding, schemas
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code (see `launching.launch`).

    Raises:
        UserError: an unknown option, an invalid value, or options that exclude each other.
    """
    request = SweepRequest.from_arguments(arguments)
    if request.sweep.until is not None:
        return _study(request, seeds_given=cli.peek(arguments, "seeds") is not None)
    if cli.peek(arguments, "looks") is not None:
        raise UserError(f"looks={request.sweep.looks}: only valid with until=decided")
    from sweeps.execution.launching import launch  # imports torch and pandas
    from sweeps.studies.power_lines import print_power

    print_power(request)
    return launch(request)


def _study(request: SweepRequest, *, seeds_given: bool) -> int:
    """Run the study that compares every method or variant with the first, or as published."""
    from analysis.stats.margins import OTHER_MARGIN
    from sweeps.studies.reproduction import start_reproduction
    from sweeps.studies.running import start_study
    from sweeps.studies.study import Claim

    if request.sweep.multitask:
        raise UserError("until=decided: studies are of single-task runs; omit data=")
    if request.sweep.against is not None:
        return start_reproduction(request, seeds_given=seeds_given)

    def claims(series: Sequence[tuple[str, str]]) -> list[Claim]:
        base, *others = series
        return [Claim(" ".join(one), *one, *base) for one in others]

    return start_study(request, request.sweep.label, OTHER_MARGIN, claims, seeds_given=seeds_given)


def schema(arguments: Sequence[str]) -> Schema:
    """Return the kind of each option and setting of launches of the given suite and methods."""
    own, shared = schemas(deciding(arguments, SweepOptions()))
    return {**shared, **own, **cli.schema_of(LaunchOptions)}


def usage() -> str:
    """Return the text of `--help`."""
    return "\n".join(
        [
            "usage: python sweeps/launch.py suite=SUITE [key=value …]",
            "       python sweeps/launch.py tasks=TASK,TASK [key=value …]",
            "",
            "Trains every combination of method, task, variant and seed, on SLURM or on this",
            "machine. Prints the plan first: the runs, their estimated time and disk space, and",
            "for several variants or methods the smallest difference that the seeds would find.",
            "Launching again resumes unfinished runs and skips those that are finished, queued or",
            "running. All options and settings of `python tdmpc2/train.py --help` are also valid.",
            "",
            "Multi-task training: with data=, one agent learns all tasks of a suite from a dataset",
            "(`python -m tdmpc2.data --help`). Options and settings are then those of",
            "`python tdmpc2/train.py data= --help`:",
            "  suite=mt30 data=DIR                        one run per seed, on all 30 tasks",
            "  suite=scaling data=mt30=DIR,mt80=DIR       one run per method, task set, model size",
            "                                             and seed",
            "Without data=, suite=mt30 is 30 runs of one task each, per method and seed.",
            "A multi-task run started here has one process and at most one GPU. To train one on",
            "several GPUs, start it with torchrun (`python tdmpc2/train.py data= --help`).",
            "",
            "Options:",
            cli.describe_fields(LaunchOptions),
            "",
            "A run is blocked if the simulator or the object models of its task are missing on",
            "this machine. The plan lists blocked runs with the command that gets what is missing.",
            "The other runs start: on SLURM at once, on this machine only with yes=true.",
            "",
            "Exit codes:",
            "  0  all runs were submitted or have ended without failure",
            "  1  a run failed, is trained by another process, or did not learn although its suite",
            "     requires it (suite=smoke)",
            "  2  bad input; nothing was started",
            f"  {ASKS_FIRST}  nothing was started; yes=true is required (a long plan, or blocked "
            "runs)",
            f"  {LEFT_OUT}  nothing failed, but something was left out: blocked runs, runs that",
            "     another seed of their process or an ending SLURM job holds back, runs at work",
            "     that will end at a smaller budget, all runs as your submit limit is reached,",
            "     jobs that SLURM has not accepted after others, or the job after the runs",
            "",
            "See also: sweeps/status.py shows the state of runs, sweeps/retry.py launches failed",
            "runs again, sweeps/cancel.py stops a sweep.",
        ]
    )


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
