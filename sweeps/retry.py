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
from tdmpc2.common.system.texts import counted

# A retry does this only if it is given again: checkpoint=previous removes the newest checkpoint,
# and the others allow what the user should decide each time.
ONCE = ("checkpoint", "allow_commit_change", "allow_numeric_change")


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
    """Run the command and return its exit code: the largest of its launches.

    Of several sweeps, one with an error does not keep the others from being launched.

    Raises:
        UserError: an argument is unknown or invalid, no sweep matches, or the only one that does
            cannot be launched.
    """
    known = every_option()
    pairs = cli.split_arguments(arguments, cli.flags_of(known))
    own = [f"{key}={pairs.pop(key)}" for key in cli.schema_of(RetryOptions) if key in pairs]
    options = cli.parse_options(own, RetryOptions)
    for key in pairs:  # their values are checked against the sweep that they change
        if key not in known:
            raise UserError(f"unknown key '{key}'{did_you_mean(key, known)}")
    sweeps = status.find_sweeps(options.runs, options.suite, options.sweep)
    codes = []
    for sweep in sweeps:
        try:
            codes.append(_retry(sweep, pairs))
        except UserError as error:
            if len(sweeps) == 1:
                raise
            print(f"error: {sweep.name}: {error}", file=sys.stderr, flush=True)
            codes.append(2)
    return max(codes)


def _retry(sweep: SweepFolder, changes: Mapping[str, str]) -> int:
    """Launch the failed runs of a sweep again and return the exit code.

    Args:
        sweep: the sweep.
        changes: arguments of `sweeps/launch.py` that override those of the last launch.
    """
    looked_at = status.look(sweep.runs, [sweep])
    failed = [row["directory"] for row, view in looked_at if view.state == "failed"]
    print(f"{sweep.name}: {len(failed):,} failed", flush=True)
    damages = sweep.damages()
    for damage in damages:
        print(f"damaged: {damage}")
    code = int(bool(damages))
    if not failed:
        return code
    request = again(sweep, changes)
    planned = {str(run.directory.relative_to(request.runs)) for run in request.planned}
    others = [directory for directory in failed if directory not in planned]
    if others:
        code = 1
        print(
            f"not started: {counted(len(others), 'failed run')}, since these arguments now name "
            "other runs (another version has started them, or an argument changes them; "
            f"docs/fidelity.md), e.g. {sweep.runs / others[0]}",
            flush=True,
        )
    if len(others) < len(failed):
        from sweeps.execution import launching  # imports torch and pandas

        code = max(code, launching.launch(request))
    return code


def again(sweep: SweepFolder, changes: Mapping[str, str]) -> SweepRequest:
    """Build the request that launches the failed runs of a sweep again.

    Args:
        sweep: the sweep; its last launch provides the request.
        changes: arguments of `sweeps/launch.py` that override those of the last launch.
    """
    facts = sweep.read()
    changed = {"runs": str(sweep.runs), **changes, "only": "failed"}
    omitted = [key for key in _omitted(sweep, changes) if key not in changes]
    if "request" not in facts:  # launched by version 0.4.0
        former = cli.split_arguments(facts["words"])
        _say_omitted({key: former[key] for key in omitted if key in former}, changes)
        left_out = ("dry_run", "yes", *ONCE, *omitted)
        kept = {k: v for k, v in former.items() if k not in left_out}
        return SweepRequest.from_arguments(_arguments({**kept, **changed}))
    last = SweepRequest.from_json(facts["request"])
    defaults = {key: getattr(SweepOptions, key) for key in (*omitted, "yes")}
    former = {key: getattr(last.sweep, key) for key in omitted}
    _say_omitted({k: v for k, v in former.items() if v != defaults[k]}, changes)
    given = {key: value for key, value in last.given.items() if key not in ONCE}
    last = replace(last, sweep=replace(last.sweep, **defaults), given=given)
    return SweepRequest.from_arguments(_arguments(changed), last)


def _omitted(sweep: SweepFolder, changes: Mapping[str, str]) -> tuple[str, ...]:
    """Return the options of the last launch that a retry on this machine does not take over."""
    if changes.get("cluster") not in ("local", "inline"):
        return ()
    clusters = [sweep.read().get("cluster")]
    if clusters == [None]:  # earlier versions have not recorded where the request was launched
        clusters = [launch.facts["cluster"] for launch in sweep.submissions()]
    # On SLURM, max_parallel= counts jobs of the whole cluster.
    return (*SLURM_ONLY, "max_parallel") if "slurm" in clusters else SLURM_ONLY


def _say_omitted(options: Mapping[str, object], changes: Mapping[str, str]) -> None:
    """Print which options of the last launch a launch without SLURM does not use."""
    if options:
        listed = " ".join(f"{key}={value}" for key, value in options.items())
        print(f"cluster={changes['cluster']}: without {listed}, which were for SLURM jobs")


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
            "Other arguments override those of the last launch, for this retry: mem_gb=32,",
            "partition=long (see `python sweeps/launch.py --help`). cluster=local trains on this",
            "machine what was launched on SLURM, without the options of the SLURM jobs and their",
            "max_parallel=. Never taken over from the last launch: checkpoint=previous, yes=true,",
            "allow_commit_change=true, allow_numeric_change=true.",
            "",
            "Without suite= and sweep=, retries the failed runs of all sweeps. Diverged runs count",
            "as results and are not retried. To resume stale or unfinished runs, launch the sweep",
            "again with sweeps/launch.py.",
            "",
            "Exit code: the largest exit code of the launches; 0 if no run has failed. A damaged",
            "record counts as 1, and so does a failed run that is not started, since the arguments",
            "now name other runs. An error of one of several sweeps counts as 2; the others go on.",
        ]
    )


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
