"""Measure TD-MPC2 in bfloat16 on this CPU against the targets of `docs/performance.md`.

`python benchmarks/bf16_acceptance.py` measures planning and updates of the 5M model on walker-walk
in float32 and bfloat16, and the errors of values and gradients in bfloat16. It prints the rows of
the tables in `docs/performance.md` for this CPU, then each target with what was measured. Targets
of speed are multiples of the matmul lower bound at PyTorch's rate for 512 x 512 x 512, on one
thread. Exit code: 0 if all targets are met, 1 if not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from checks import check_file, check_sizes, numbers

from tdmpc2.common.numerics.cpu import cpu_field, cpu_flags, cpu_model
from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.common.system.config_checks import REPETITIONS, THREADS, Settings, setting
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


class Target(NamedTuple):
    """A target, and what was measured.

    Attributes:
        name: what is measured.
        value: measured value.
        bound: the largest value allowed, or the smallest.
        at_least: whether the bound is the smallest value.
    """

    name: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the value keeps the bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


AMX, AMD = "Intel with AMX", "AMD with AVX512-BF16"
# Multiples of the matmul lower bound, by precision: plan and update.
SPEED = {
    AMX: {"bf16": (2.1, 3.4), "fp32": (1.30, 1.45)},
    AMD: {"bf16": (1.45, 1.9), "fp32": (1.38, 1.5)},
}
LOOP = 1.03
HEADER = (
    "| CPU | precision | threads | GFLOP/s: torch / kernels | plan | multiple | update | multiple |"
    "\n|---|---|---|---|---|---|---|---|"
)


def kind_of_cpu() -> str:
    """Return what decides about bfloat16 on this CPU, as the tables name it."""
    flags = cpu_flags()
    if "amx_bf16" in flags:
        return AMX
    if "avx512_bf16" not in flags:
        return cpu_model()
    return AMD if cpu_field("vendor_id") == "AuthenticAMD" else "Intel with AVX512-BF16, no AMX"


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


def speed_targets(cpu: str, row: Mapping[str, Any]) -> Iterator[Target]:
    """Yield the targets of one row; none for CPUs and numbers of threads without targets."""
    if row["threads"] != 1 or cpu not in SPEED:
        return
    precision = row["precision"]
    for name, bound in zip(("plan", "update"), SPEED[cpu][precision], strict=True):
        value = row[f"{name}_ratio_torch"]
        yield Target(f"{name}, {precision}: multiple of the lower bound", value, bound)
    yield Target(f"decision, {precision}: multiple of its parts", row["loop_ratio"], LOOP)


def error_targets(errors: Mapping[str, Mapping[str, float]]) -> list[Target]:
    """Return the targets of the errors; see `bf16_errors.measure`."""
    ours = errors["bf16"]
    return [
        Target("error of values: standard deviation", ours["value_std"], 0.0003),
        Target("best 64 of 512 sequences: share shared", ours["overlap"], 0.99, at_least=True),
        Target("gradient of the model: relative error", ours["model_gradient"], 0.003),
        Target("gradient of the policy: relative error", ours["policy_gradient"], 0.006),
    ]


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
    common = {
        **{key: getattr(options, key) for key in ("repetitions", "forced", "compile")},
        **{"method": "tdmpc2", "task": task, "device": "cpu"},
        **{"loop": options.repetitions, "replay_rows": 20_000},
    }
    size = {"model_size": options.model_size}
    cpu, rows = kind_of_cpu(), []
    targets: list[Target] = []
    print(f"{cpu_model()}\n\n{HEADER}", flush=True)
    for number in threads:
        for precision, settings in (("fp32", size), ("bf16", {**size, "precision": "bf16"})):
            case = {"threads": number, "precision": precision, "settings": settings}
            row = run_case({**common, **case})
            if row is None:
                return 1
            rows.append(row)
            targets += speed_targets(cpu, row)
            print(row_of(cpu, row), flush=True)
    case = {"threads": 1, "precision": "fp32", "settings": size, "updates": options.updates}
    errors = run_case({**common, **case})
    if errors is None:
        return 1
    _print_errors(errors)
    targets += error_targets(errors)
    _print_targets(cpu, targets)
    if options.out is not None:
        write_json(options.out, {"cpu": cpu_model(), "rows": rows, "errors": errors})
    return 0 if all(target.met for target in targets) else 1


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
    print("\n| target | measured | bound | |\n|---|---|---|---|")
    for target in targets:
        bound = f"{'≥' if target.at_least else '≤'} {target.bound:g}"
        verdict = "met" if target.met else "**not met**"
        print(f"| {target.name} | {target.value:.3g} | {bound} | {verdict} |")


def usage() -> str:
    """Return the text of `--help`."""
    return f"{__doc__}\n{cli.describe_fields(Options)}"


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
