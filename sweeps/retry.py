"""Launch failed runs again: `python sweeps/retry.py suite=all104`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sweeps import status
from sweeps.planning.options import SLURM_ONLY, SweepOptions
from sweeps.planning.request import SweepRequest, every_option
from sweeps.tracking.sweep_folder import SweepFolder
from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import Settings, setting
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.system.paths import default_runs_dir

# checkpoint=previous removes the newest checkpoint: a retry does so only if it is given again.
ONCE = ("checkpoint",)


@dataclass(frozen=True)
class RetryOptions(Settings):
    """Options of `sweeps/retry.py`."""

    runs: Path = setting(default_runs_dir, "folder that holds all runs")
    suite: str | None = setting(
        None, "only sweeps of this suite (tasks: launched with tasks=); default: all"
    )
    sweep: str | None = setting(
        None, "only this sweep: the name of its folder in <runs>/sweeps; default: all"
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code: the largest exit code of its launches.

    Raises:
        UserError: an argument is unknown or invalid, or no sweep matches.
    """
    known = every_option()
    pairs = cli.split_arguments(arguments, cli.flags_of(known))
    own = [f"{key}={pairs.pop(key)}" for key in cli.schema_of(RetryOptions) if key in pairs]
    options = cli.parse_options(own, RetryOptions)
    for key in pairs:  # their values are checked against the sweep that they change
        if key not in known:
            raise UserError(f"unknown key '{key}'{did_you_mean(key, known)}")
    codes = [0]
    for folder in status.find_sweeps(options.runs, options.suite, options.sweep):
        failed = [view for _, view in status.look(options.runs, [folder]) if view.state == "failed"]
        print(f"{folder.name}: {len(failed):,} failed")
        for damage in folder.damages():
            print(f"damaged: {damage}")
            codes.append(1)
        if failed:
            request = again(folder, pairs)
            from sweeps.execution import launching  # imports torch and pandas

            codes.append(launching.launch(request))
    return max(codes)


def again(sweep: SweepFolder, changes: Mapping[str, str]) -> SweepRequest:
    """Build the request that launches the failed runs of a sweep again.

    Args:
        sweep: the sweep; its last launch provides the request.
        changes: arguments of `sweeps/launch.py` that override those of the last launch.
    """
    facts = sweep.read()
    changed = {"runs": str(sweep.runs), **changes, "only": "failed"}
    omitted = SLURM_ONLY if changes.get("cluster") in ("local", "inline") else ()
    if "request" not in facts:  # launched by version 0.4.0
        former = cli.split_arguments(facts["words"])
        _say_omitted({key: former[key] for key in omitted if key in former}, changes)
        left_out = ("dry_run", *ONCE, *omitted)
        kept = {k: v for k, v in former.items() if k not in left_out}
        return SweepRequest.from_arguments(_arguments({**kept, **changed}))
    last = SweepRequest.from_json(facts["request"])
    defaults = {key: getattr(SweepOptions, key) for key in omitted}
    former = {key: getattr(last.sweep, key) for key in omitted}
    _say_omitted({k: v for k, v in former.items() if v != defaults[k]}, changes)
    given = {key: value for key, value in last.given.items() if key not in ONCE}
    last = replace(last, sweep=replace(last.sweep, **defaults), given=given)
    return SweepRequest.from_arguments(_arguments(changed), last)


def _say_omitted(options: Mapping[str, object], changes: Mapping[str, str]) -> None:
    """Print which options of the last launch a launch without SLURM does not use."""
    if options:
        listed = " ".join(f"{key}={value}" for key, value in options.items())
        print(f"cluster={changes['cluster']}: without {listed}, which SLURM jobs only have")


def _arguments(pairs: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in pairs.items()]


def usage() -> str:
    """Return the text of `--help`."""
    return "\n".join(
        [
            "usage: python sweeps/retry.py [runs=DIR] [suite=SUITE] [sweep=NAME] [key=value …]",
            "",
            "Launches the failed runs of sweeps again, with the arguments of their last launch.",
            "",
            cli.describe_fields(RetryOptions),
            "",
            "Other arguments override those of the last launch: mem_gb=32, partition=long (see",
            "`python sweeps/launch.py --help`). cluster=local trains on this machine what was",
            "launched on SLURM; the options of the SLURM jobs are then omitted.",
            "checkpoint=previous is not taken over from the last launch.",
            "",
            "Without suite= and sweep=, retries the failed runs of all sweeps. Diverged runs count",
            "as results and are not retried. To resume stale or unfinished runs, launch the sweep",
            "again with sweeps/launch.py.",
            "",
            "Exit code: the largest exit code of the launches; 0 if no run has failed.",
        ]
    )


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
