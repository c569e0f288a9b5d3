"""Run ablations and the default agent: `python ablations/run.py --no-simnorm`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablations.command_line import MULTITASK_SIZE, CommandLine, flag_values, parse, usage
from ablations.command_line import schema as schema  # for shell completion
from ablations.own_specs import read_specs
from ablations.specs import (
    ABLATIONS,
    FIG9,
    Ablation,
    check_distinct,
    combined,
    table_of_ablations,
)
from analysis.stats.ablation_claims import MARGIN
from sweeps.execution.exit_codes import LEFT_OUT
from sweeps.planning.grid import SMOKE
from sweeps.planning.options import SweepOptions
from sweeps.planning.request import SweepRequest
from tdmpc2.common.run.spec import variant_name
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.task_variants import DOMAINS, TaskSwitches
from tdmpc2.envs.tasks import get_suite, list_tasks
from tdmpc2.runners.registry import make_config

QUICK_NOTE = (
    "--quick: a 0.1M model on two easy tasks, a few minutes per run. This is a first impression, "
    "not the paper's setting: a design choice can have another effect there."
)


@dataclass(frozen=True)
class Base:
    """The variant that the ablations are compared with: the default, or shared settings.

    Attributes:
        variant: variant name of its runs; `default` without shared settings.
        settings: settings and switches that it shares with every ablation.
        config: config of its agents.
    """

    variant: str
    settings: Mapping[str, Any]
    config: TDMPC2Config

    def variant_of(self, one: Ablation) -> str:
        """Return the variant name of an ablation's runs, prefixed by that of a non-default base."""
        return one.variant if self.variant == "default" else f"{self.variant}+{one.variant}"


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit code of the launch (see `sweeps/launch.py`).

    Raises:
        UserError: an unknown flag or an invalid value.
    """
    line = parse(arguments)
    if line.options.list:
        print(table_of_ablations())
        return 0
    if "looks" in line.sweep and not line.options.until_decided:
        raise UserError(f"--looks {line.sweep['looks']}: only valid with --until-decided")
    base = make_base(line)
    chosen = choose(line, base)
    request = make_request(line, chosen, base)
    request.check()
    if line.options.quick:
        print(QUICK_NOTE)
    from sweeps.execution import launching, slurm_queries  # imports torch and pandas
    from sweeps.studies.power_lines import print_power

    if line.options.until_decided:
        code = _study(line, request, chosen, base)
    else:
        print_power(request, {base.variant_of(one): one.expected for one in chosen}, MARGIN)
        code = launching.launch(request, _advice(line))
    if request.sweep.dry_run or code not in (0, 1, LEFT_OUT):
        return code
    where = f" runs={request.runs}" if "runs" in line.given else ""
    figures = f"python analysis/make_figures.py{where}"
    if slurm_queries.choose(request.sweep.cluster) == "slurm":
        base_given = "" if base.variant == "default" else f" base={base.variant}"
        spec_given = "" if line.options.spec is None else f" spec={line.options.spec}"
        report_again = f"python ablations/report.py{base_given}{spec_given}{where}"
        results = figures if request.sweep.multitask else report_again
        print(f"Progress: `python sweeps/status.py{where}`. Results: `{results}`.")
        return code
    if request.sweep.multitask:
        print(f"\nPlot the scores of the variants with `{figures}`.")
        return code
    from ablations import report

    print()
    wanted = report.ReportRequest(
        runs=str(line.given.get("runs", "")), base=base.variant, spec=line.options.spec
    )
    try:
        return report.write(wanted) or code
    except UserError as error:
        if code == 0:
            raise
        print(f"No report yet: {error}")
        return code


def _study(line: CommandLine, request: SweepRequest, chosen: Sequence[Ablation], base: Base) -> int:
    """Run the study of the chosen ablations.

    Args:
        line: parsed arguments of the command.
        request: request of the launch.
        chosen: the ablations.
        base: variant that they are compared with.
    """
    from sweeps.studies.running import start_study
    from sweeps.studies.study import Claim

    by_variant = {base.variant_of(one): one for one in chosen}

    def claims(series: Sequence[tuple[str, str]]) -> list[Claim]:
        default, *others = series
        ablations = [by_variant[variant] for _, variant in others]
        return [
            Claim(ablation.variant, *one, *default, ablation.expected, ablation.claim)
            for one, ablation in zip(others, ablations, strict=True)
        ]

    return start_study(
        request,
        "quick" if line.options.quick else "ablations",
        MARGIN,
        claims,
        seeds_given="seeds" in line.sweep,
        advice=_advice(line),
    )


def choose(line: CommandLine, base: Base) -> list[Ablation]:
    """Return the ablations that the flags select, combined into one unless `--each` is given.

    Raises:
        UserError: no ablation, an unknown value, a repeated flag, flags that contradict each
            other, a flag that changes nothing, or two ablations that change the same.
    """
    by_name = {one.name: one for one in ABLATIONS}
    values = flag_values()
    for name in line.names:
        if line.names.count(name) > 1:
            raise UserError(f"--{name} is given twice")
    for name in line.names:
        flag, _, value = name.partition(" ")
        given = [other.partition(" ")[2] for other in line.names if other.split()[0] == flag]
        if len(given) > 1 and not line.options.each:
            raise UserError(
                f"--{flag} is given as {' and as '.join(given)}; add --each for one variant per "
                "value"
            )
        if name not in by_name:
            raise UserError(_no_such_value(flag, value, values[flag], base))
    flagged = [by_name[name] for name in line.names]
    chosen = flagged if line.options.each or not flagged else [combined(flagged)]
    others: list[Ablation] = []
    if line.options.all:
        others += [one for one in ABLATIONS if one.figure == FIG9 and one not in chosen]
    if line.options.spec is not None:
        others += read_specs(line.options.spec)
    for one in (*flagged, *others):
        check_changes(one, base, multitask=line.options.multitask is not None)
    chosen += others
    if not chosen:
        raise UserError("no ablation given; add one, such as --no-simnorm (--list shows all)")
    check_distinct(chosen)
    return chosen


def _no_such_value(flag: str, value: str, values: Sequence[str], base: Base) -> str:
    """Explain why a flag does not accept a value."""
    setting = flag.replace("-", "_")
    if str(getattr(base.config, setting)) == value:
        return f"--{flag} {value}: changes nothing; '{base.variant}' already has {setting}={value}"
    return (
        f"--{flag} {value}: no such ablation (valid: {', '.join(values)}); define it in a file for "
        "--spec"
    )


def make_base(line: CommandLine) -> Base:
    """Build the base of the comparison from the options and the shared settings."""
    own, multitask = dict(line.settings), line.options.multitask
    common = dict(SMOKE.overrides["tdmpc2"]) if line.options.quick else {}
    if multitask is not None:
        common["model_size"] = MULTITASK_SIZE
    size = {key: value for key, value in own.items() if key == "model_size"}
    default = dict(vars(make_config("tdmpc2", {**common, **size}, multitask)))
    default["model_size"] = make_config("tdmpc2", common, multitask).model_size
    own = {key: value for key, value in own.items() if value != default[key]}
    shown = tuple((key, line.texts[key]) for key in own)
    names = ["quick"] * line.options.quick + [variant_name(shown)] * bool(own)
    settings = {**common, **own}
    config = make_config("tdmpc2", settings, multitask)
    return Base("+".join(names) or "default", {**settings, **line.switches}, config)


def check_changes(one: Ablation, base: Base, *, multitask: bool = False) -> None:
    """Check that an ablation changes something in the agents that will be trained.

    Args:
        one: the ablation.
        base: variant that it is compared with.
        multitask: whether the agents are multi-task agents.

    Raises:
        UserError: the base already has a part of its settings, or they have no effect in
            single-task agents or in training from a dataset.
    """
    embedding = multitask or one.settings.get("task_dim", base.config.task_dim) != 0
    if one.multitask and not embedding:
        raise UserError(
            f"{one.name}: changes nothing in single-task agents; add --multitask mt80 data=DIR"
        )
    online = [key for key in one.settings if key in DOMAINS or key == "prioritized_replay"]
    if multitask and online:
        raise UserError(f"{one.name}: {online[0]} does not apply to training from a dataset")
    current = {**vars(base.config), **vars(TaskSwitches()), **base.settings}
    same = {key: value for key, value in one.settings.items() if current[key] == value}
    shown = ", ".join(f"{key}={value}" for key, value in same.items())
    if len(same) == len(one.settings):
        raise UserError(f"{one.name}: changes nothing; '{base.variant}' already has {shown}")
    if same:  # it would be reported as another ablation
        raise UserError(
            f"{one.name}: changes only a part of its settings; '{base.variant}' already has "
            f"{shown}. Define an ablation of the others in a file for --spec"
        )


def make_request(line: CommandLine, chosen: Sequence[Ablation], base: Base) -> SweepRequest:
    """Build the request of the launch.

    Args:
        line: parsed arguments of the command.
        chosen: ablations to run.
        base: variant that they are compared with; it is run too.
    """
    quick, multitask = line.options.quick, line.options.multitask
    options = {**({"env_steps": SMOKE.env_steps} if quick else {}), **line.sweep}
    if multitask is None:
        options["tasks"] = ",".join(tasks_of(line, chosen))
    variants = [(base.variant_of(one), one.settings) for one in chosen]
    return SweepRequest(
        SweepOptions(methods="tdmpc2", suite=multitask, **options),
        {**(SMOKE.options if quick else {}), **line.given},
        base.settings,
        ((base.variant, {}), *variants),
    )


def tasks_of(line: CommandLine, chosen: Sequence[Ablation]) -> list[str]:
    """Return the tasks on which all variants are trained.

    Raises:
        UserError: an unknown task, or ablations with different default tasks.
    """
    if line.sweep.get("tasks") is not None:
        return [task.name for task in list_tasks(line.sweep["tasks"], "--tasks")]
    if line.options.quick:
        own = [one for one in chosen if one.default_tasks != _names("ablation")]
        if own:
            raise UserError(f"--{own[0].name}: has tasks of its own; set --tasks or omit --quick")
        return list(_names("smoke"))
    for one in chosen[1:]:
        if one.default_tasks != chosen[0].default_tasks:
            raise UserError(
                f"--{chosen[0].name} and --{one.name} have different default tasks; set --tasks, "
                "or run them separately"
            )
    return list(chosen[0].default_tasks)


def _names(suite: str) -> tuple[str, ...]:
    """Return the task names of a suite."""
    return tuple(task.name for task in get_suite(suite))


def _advice(line: CommandLine) -> str:
    """Return the advice that follows the message on a long plan."""
    quick = "" if line.options.quick else ", try --quick for a first impression in minutes"
    return (
        f"Add --yes to start them on this machine anyway{quick}, run them on a cluster with SLURM, "
        "or reduce --tasks, --seeds or --env-steps."
    )


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
