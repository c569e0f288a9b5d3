"""Measure TD-MPC2 in bfloat16 on this CPU against the targets of `docs/performance.md`.

`python benchmarks/bf16_acceptance.py` measures planning and updates of the 5M model on walker-walk
in float32 and bfloat16, and the errors of values and gradients in bfloat16. It prints the rows of
the tables in `docs/performance.md` for this CPU, then each target with what was measured. Targets
of speed are multiples of the matmul lower bound at PyTorch's rate for 512 x 512 x 512, on one
thread. Targets hold for compiled agents with the default task and size, those of errors after the
default number of updates; other cases are measured but not judged.

Exit code: 0 if all targets that were judged are met, 1 if one is not, 3 if none is missed, but none
was judged or something could not be measured. `out` is written after each measurement.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bf16_targets import SPEED, Target, error_targets, kind_of_cpu, speed_targets
from checks import check_file, check_sizes, numbers

from tdmpc2.common.numerics.cpu import cpu_model
from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.common.system.config_checks import REPETITIONS, THREADS, Settings, setting
from tdmpc2.common.system.texts import counted
from tdmpc2.envs.tasks import get_task


@dataclass(frozen=True)
class Options(Settings):
    """Options of the command."""

    task: str = setting("walker-walk", "task that determines the shapes")
    model_size: str = setting("5", "size of TD-MPC2: 1, 5, 19 …")
    threads: str = setting("1,2", "threads of torch, comma-separated list; targets hold for 1")
    repetitions: int = setting(21, "timed calls of each function", REPETITIONS)
    updates: int = setting(300, "updates before errors are measured", low=0, high=1_000_000)
    forced: bool = setting(
        False, "use the native kernels on any CPU with AVX512-BF16, where they can be slower"
    )
    compile: bool | None = setting(None, "torch.compile; default: if it works")
    out: Path | None = setting(None, "also write everything as JSON")


NOT_DECIDED = 3  # exit code
CONDITIONS = (
    f"Targets hold for {Options.task}, model_size={Options.model_size}, compiled; those of speed "
    f"for one thread, those of errors after updates={Options.updates}."
)
HEADER = (
    "| CPU | precision | threads | GFLOP/s: torch / kernels | plan | multiple | update | multiple |"
    "\n|---|---|---|---|---|---|---|---|"
)


def row_of(cpu: str, row: Mapping[str, Any]) -> str:
    """Return a row of the table of speed."""
    rates = " / ".join(f"{rate:.0f}" for rate in row["gflops_of"].values())
    cells = [cpu, row["precision"], str(row["threads"]), rates]
    for name in ("plan", "update"):
        cells.append(f"{row[f'{name}_ms']:.0f} ms")
        multiples = [f"{row[f'{name}_ratio_torch']:.2f}"]
        if len(row["gflops_of"]) > 1:
            multiples.append(f"{row[f'{name}_ratio']:.2f}")
        cells.append(" / ".join(multiples))
    return f"| {' | '.join(cells)} |"


def has_targets(options: Options, task: str) -> bool:
    """Return whether targets hold for a case: the default task and size, compiled.

    Args:
        options: options of the command.
        task: name of the task.
    """
    same = (task, options.model_size) == (Options.task, Options.model_size)
    return same and options.compile is not False


def run_case(case: Mapping[str, Any]) -> Any:
    """Measure a case in a process of its own; None if that fails."""
    command = [sys.executable, __file__, "case", json.dumps(case)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def parse(arguments: Sequence[str]) -> tuple[Options, list[int], str]:
    """Return options, numbers of threads, and the name of the task.

    Raises:
        UserError: an invalid option.
    """
    options = cli.parse_options(arguments, Options)
    check_file("out", options.out)
    check_sizes([options.model_size])
    return options, numbers("threads", options.threads, THREADS), get_task(options.task).name


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: an invalid option.
    """
    if arguments[:1] == ["case"] and len(arguments) == 2:
        case = json.loads(arguments[1])
        from bf16_errors import measure as errors_of
        from measuring import measure

        print(json.dumps(errors_of(case) if "updates" in case else measure(case)))
        return 0
    options, threads, task = parse(arguments)
    cpu, judged = kind_of_cpu(), has_targets(options, task)
    found: dict[str, Any] = {"cpu": cpu_model(), "rows": [], "errors": None}
    targets: list[Target] = []
    failed = 0
    print(f"{cpu_model()}\n\n{HEADER}", flush=True)
    for case in cases_of(options, threads, task):
        measured = run_case(case)
        if measured is None:
            failed += 1
            print(f"{_name(case)}: could not be measured", flush=True)
        elif "updates" in case:
            found["errors"] = measured
            _print_errors(measured)
            compiled = found["rows"] and all(row["compiled"] for row in found["rows"])
            if judged and compiled and options.updates == Options.updates:
                targets += error_targets(measured)
        else:
            found["rows"].append(measured)
            print(row_of(cpu, measured), flush=True)
            if judged:
                targets += speed_targets(cpu, measured)
        if options.out is not None:
            write_json(options.out, found)
    _print_targets(cpu, targets)
    return exit_code(targets, failed)


def cases_of(options: Options, threads: Sequence[int], task: str) -> list[dict[str, Any]]:
    """Return the cases to measure: those of speed, then that of errors, which has `updates`.

    Args:
        options: options of the command.
        threads: numbers of threads.
        task: name of the task.
    """
    common = {
        **{key: getattr(options, key) for key in ("repetitions", "forced", "compile")},
        **{"method": "tdmpc2", "task": task, "device": "cpu"},
        **{"loop": options.repetitions, "replay_rows": 20_000},
    }
    size = {"model_size": options.model_size}
    float32 = {**common, "precision": "fp32", "settings": size}
    rounded = {**common, "precision": "bf16", "settings": {**size, "precision": "bf16"}}
    speed = [{**case, "threads": number} for number in threads for case in (float32, rounded)]
    return [*speed, {**float32, "threads": 1, "updates": options.updates}]


def exit_code(targets: Sequence[Target], failed: int) -> int:
    """Return the exit code of the command.

    Args:
        targets: the targets that were judged.
        failed: number of cases that could not be measured.
    """
    if not all(target.met for target in targets):
        return 1
    return 0 if targets and not failed else NOT_DECIDED


def _name(case: Mapping[str, Any]) -> str:
    return "errors" if "updates" in case else f"{case['precision']}, threads={case['threads']}"


def _print_errors(errors: Mapping[str, Mapping[str, float]]) -> None:
    names = ("value_std", "value_bias", "overlap", "model_gradient", "policy_gradient")
    print("\n| errors against float32 | values: sd | bias | best 64 | model gradient | policy |")
    print("|---|---|---|---|---|---|")
    for kind, found in errors.items():
        cells = (
            f"{found[name]:.2g}" if name != "overlap" else f"{found[name]:.3f}"
            for name in names
            if name in found
        )
        print(f"| {kind} | {' | '.join(cells)} |")


def _print_targets(cpu: str, targets: Sequence[Target]) -> None:
    if cpu not in SPEED:
        print(f"\nNo targets of speed for this CPU: {cpu}")
    if targets:
        print("\n| target | measured | bound | |\n|---|---|---|---|")
    for target in targets:
        bound = f"{'≥' if target.at_least else '≤'} {target.bound:g}"
        verdict = "met" if target.met else "**not met**"
        print(f"| {target.name} | {target.value:.3g} | {bound} | {verdict} |")
    print(f"\n{counted(len(targets), 'target')} judged. {CONDITIONS}")


def usage() -> str:
    """Return the text of `--help`."""
    return f"{__doc__}\n{cli.describe_fields(Options)}"


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
