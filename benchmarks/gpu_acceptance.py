"""Run the GPU acceptance test: correctness, speed and real training runs, within minutes.

`python benchmarks/gpu_acceptance.py [key=value …]` runs sections one after the other, each in its
own process with a time limit, and writes the results to one JSON file and one table. The same
command again repeats only the sections that have not passed. Sections:

  parity    golden arrays of the official code in fp32, TF32 and bf16; compiled functions and
            recorded steps equal eager ones
  sync      no step synchronizes the host with the device
  memory    memory of an agent and its replay buffer, and the buffer's device
  resume    a run that is killed and resumed equals an uninterrupted one, byte for byte
  latency   time of plan, update and decision, against bounds measured on this device
  seeds     throughput of 1, 3, 8 and 16 seeds as one batch
  train     the suite evidence: TD-MPC2 5M, three seeds of each task, to the first released step
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Allows imports if the project is not installed; this file's folder stays first.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from gpu_sections.facts import TRAIN, facts_of, is_passed, key_of, set_aside
from gpu_sections.processes import (
    POLL_SECONDS,
    TRAIN_STOP_SECONDS,
    start_group,
    stop_groups,
)
from gpu_sections.summary import GOOD, described, outcome_of, table_of, write_summary

from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.common.system.config_checks import Settings as Declared
from tdmpc2.common.system.config_checks import setting
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.system.paths import project_root
from tdmpc2.common.system.processes import interrupt_on_signals
from tdmpc2.envs.tasks import list_tasks

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Section:
    """One section of the acceptance test.

    Attributes:
        module: module with a function `run(report, settings)`.
        seconds: time limit.
        timed: whether it measures times, so that no other section may run at the same time.
        needed: seconds that any time limit must exceed.
    """

    module: str
    seconds: float
    timed: bool = False
    needed: float = 0.0


SECTIONS = {
    "parity": Section("gpu_sections.parity", 240),
    "sync": Section("gpu_sections.sync", 150),
    "memory": Section("gpu_sections.memory", 60),
    "resume": Section("gpu_sections.resume", 300),
    "latency": Section("gpu_sections.latency", 240, timed=True),
    "seeds": Section("gpu_sections.seeds", 400, timed=True),
    TRAIN: Section("gpu_sections.training", 300, timed=True, needed=TRAIN_STOP_SECONDS),
}


@dataclass(frozen=True)
class Options(Declared):
    """Options of the command."""

    sections: str = setting(",".join(SECTIONS), "comma-separated list; default: all")
    device: str = setting("auto", "auto, cpu, cuda …")
    small: bool = setting(False, "tiny models and few repetitions, to test the script")
    limits: str = setting("", "time limits in seconds: parity=60,train=1800")
    parallel: int = setting(
        1, "sections at a time, of those that do not measure times", low=1, high=1024
    )
    tasks: str = setting("", "section train: only these tasks of the suite evidence")
    again: bool = setting(False, "also repeat sections that have passed; train then starts anew")
    out: Path = setting(
        lambda: project_root() / "gpu_acceptance", "folder of results, runs and records"
    )


def result_path(out: Path, name: str) -> Path:
    """Return the path of a section's result file in the folder of the results."""
    return out / "sections" / f"{name}.json"


@dataclass(frozen=True)
class Plan:
    """What all sections of a command depend on.

    Attributes:
        options: options of the command.
        limits: time limit of each section, in seconds.
        device: device to use.
        facts: see `facts_of`.
    """

    options: Options
    limits: Mapping[str, float]
    device: torch.device
    facts: Mapping[str, Any]

    def key(self, name: str) -> dict[str, Any]:
        """Return the facts on which the result of a section depends."""
        return key_of(name, self.facts, self.options.tasks)

    def path(self, name: str) -> Path:
        """Return the path of a section's result file."""
        return result_path(self.options.out, name)

    def result(self, name: str) -> dict[str, Any]:
        """Return the newest result of a section; empty if there is none."""
        return read_json(self.path(name)) or {}

    def summarize(self) -> None:
        """Write the summary of all results, also of those of earlier commands."""
        results = [result for result in map(self.result, SECTIONS) if result]
        keys = {name: self.key(name) for name in SECTIONS}
        write_summary(self.options.out, self.facts, results, keys)


def parse(
    arguments: Sequence[str],
) -> tuple[Options, list[str], dict[str, float], torch.device]:
    """Return the options, the sections, their time limits in seconds, and the device.

    Raises:
        UserError: an invalid option.
    """
    options = cli.parse_options(arguments, Options)
    names, limits = chosen_sections(options.sections), time_limits(options.limits)
    if options.tasks:
        tasks = sorted(task.name for task in list_tasks(options.tasks, suite="evidence"))
        options = replace(options, tasks=",".join(tasks))
    from tdmpc2.common.numerics.torch_setup import choose_device

    return options, names, limits, choose_device(options.device)


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code, 0 if all sections have passed or were skipped.

    Raises:
        UserError: an invalid option.
    """
    if arguments[:1] == ["section"] and len(arguments) == 3:
        return run_section(arguments[1], json.loads(arguments[2]))
    options, names, limits, device = parse(arguments)
    plan = Plan(options, limits, device, facts_of(device, options.small))
    print(described(plan.facts), flush=True)
    if plan.facts["commit"] is None:
        print("The version of the code is unknown: all sections are repeated.", flush=True)
    if device.type != "cuda":
        print("No GPU is used: checks that need one are skipped.", flush=True)
    passed = [name for name in names if is_passed(plan.result(name), plan.key(name))]
    if options.again and TRAIN in passed:
        set_aside(options.out, plan.key(TRAIN))
    todo = [name for name in names if options.again or name not in passed]
    for name in names:
        if name not in todo:
            print(f"{name}: passed before; use again=true to repeat it", flush=True)
    interrupt_on_signals()
    run_all([name for name in todo if not SECTIONS[name].timed], options.parallel, plan)
    run_all([name for name in todo if SECTIONS[name].timed], 1, plan)
    plan.summarize()
    statuses = {name: plan.result(name)["status"] for name in names}
    print(f"results in {options.out}; {outcome_of(statuses)}")
    return 0 if all(status in GOOD for status in statuses.values()) else 1


def chosen_sections(text: str) -> list[str]:
    """Return the sections that are named, in the order in which they run.

    Raises:
        UserError: a section is unknown.
    """
    names = text.split(",")
    for name in names:
        if name not in SECTIONS:
            raise UserError(f"sections={text}: no section '{name}'{did_you_mean(name, SECTIONS)}")
    return [name for name in SECTIONS if name in names]


def time_limits(text: str) -> dict[str, float]:
    """Return the time limit of every section in seconds, with those of `limits=`.

    Raises:
        UserError: a section is unknown, or a limit is too short.
    """
    limits = {name: section.seconds for name, section in SECTIONS.items()}
    for argument in filter(None, text.split(",")):
        name, _, seconds = argument.partition("=")
        if name not in SECTIONS:
            raise UserError(f"limits={text}: no section '{name}'{did_you_mean(name, SECTIONS)}")
        limits[name] = cli.parse_value(f"limits={name}", seconds, float)
        if limits[name] <= SECTIONS[name].needed:
            needed = f"{SECTIONS[name].needed:.0f} seconds"
            raise UserError(f"limits={text}: {name} must be more than {needed}")
    return limits


def run_all(names: Sequence[str], at_once: int, plan: Plan) -> None:
    """Run sections in separate processes, and print the result of each as it ends.

    Processes that a section leaves running are stopped, and so is all if this command is stopped.

    Args:
        names: names of the sections.
        at_once: number of sections at a time.
        plan: what all sections depend on.
    """
    waiting = list(names)
    running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                name = waiting.pop(0)
                running[name] = start(name, plan), time.monotonic()
            time.sleep(POLL_SECONDS)
            for name, (process, started) in list(running.items()):
                late = process.poll() is None and time.monotonic() - started > plan.limits[name]
                if process.poll() is None and not late:
                    continue
                stop_groups([process.pid])
                code = process.wait()
                del running[name]
                if late:
                    close(name, "timed out", f"after {plan.limits[name]:.0f} s", plan)
                else:
                    log = plan.path(name).with_suffix(".log")
                    close(name, "crashed", f"exit code {code}, see {log}", plan)
                plan.summarize()
                print(table_of(plan.result(name), plan.key(name)), flush=True)
    finally:
        stop_groups([process.pid for process, _ in running.values()])
        for name, (process, _) in running.items():
            process.wait()
            close(name, "stopped", "with the command", plan)
            plan.summarize()


def start(name: str, plan: Plan) -> subprocess.Popen[bytes]:
    """Start the process of a section."""
    path, options, seconds = plan.path(name), plan.options, plan.limits[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"section": name, "status": "running", "message": "", "key": plan.key(name)}
    write_json(path, {**result, "seconds": 0, "checks": []})
    case = {"device": str(plan.device), "small": options.small, "out": str(options.out)}
    case |= {"seconds": seconds, "key": plan.key(name), "tasks": options.tasks}
    print(f"{name}: at most {seconds:.0f} s …", flush=True)
    command = [sys.executable, __file__, "section", name, json.dumps(case)]
    return start_group(command, path.with_suffix(".log"))


def close(name: str, status: str, message: str, plan: Plan) -> None:
    """Record why a section ended, if it ended without a final status.

    Args:
        name: name of the section.
        status: status to record.
        message: reason of the status.
        plan: what all sections depend on.
    """
    result = plan.result(name)
    if result["status"] == "running":
        write_json(plan.path(name), {**result, "status": status, "message": message})


def run_section(name: str, case: Mapping[str, Any]) -> int:
    """Run one section in this process and return the exit code."""
    import torch
    from gpu_sections.report import GIVEN_UP, Report, Settings, SkippedError

    out, device = Path(case["out"]), torch.device(case["device"])
    report = Report(result_path(out, name), name, case["key"])
    report.write("running")
    tasks = tuple(filter(None, case["tasks"].split(",")))
    settings = Settings(device, case["small"], out, case["seconds"], tasks)
    try:
        if device.index is not None and device.type == "cuda":
            torch.cuda.set_device(device)  # for streams and graphs that name no device
        with warnings.catch_warnings():
            # A section must not measure or compare plain functions instead of compiled ones.
            message = f"(?s).*{GIVEN_UP}"
            warnings.filterwarnings("error", message=message, category=RuntimeWarning)
            importlib.import_module(SECTIONS[name].module).run(report, settings)
        report.close()
    except SkippedError as error:
        report.write("skipped", str(error))
    except Exception as error:
        traceback.print_exc()
        text = str(error).strip().splitlines() or [""]
        report.write("crashed", f"{type(error).__name__}: {text[0]}")
        return 1
    return 0


def usage() -> str:
    """Return the text of `--help`."""
    return f"{__doc__}\n{cli.describe_fields(Options)}"


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
