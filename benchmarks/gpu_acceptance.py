"""Run the GPU acceptance test: correctness, speed and real training runs, within minutes.

`python benchmarks/gpu_acceptance.py [key=value …]` runs sections one after the other, each in its
own process with a time limit, and writes the results to one JSON file and one table. The same
command again repeats only the sections that have not passed. Sections:

  parity    golden arrays of the official code in fp32, TF32 and bf16; compiled equals eager
  sync      no step synchronizes the host with the device
  memory    memory of an agent and its replay buffer, and the buffer's device
  resume    a run that is killed and resumed equals an uninterrupted one, byte for byte
  latency   time of plan, update and decision, against bounds measured on this device
  seeds     throughput of 1, 3, 8 and 16 seeds as one batch
  train     the suite evidence: TD-MPC2 5M, three seeds of each task, for 100,000 env steps
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Allows imports if the project is not installed; this file's folder stays first.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from tdmpc2.common.run.source_version import git_commit
from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import read_json, write_atomic, write_json
from tdmpc2.common.system.config_checks import Settings as Declared
from tdmpc2.common.system.config_checks import setting
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.system.paths import project_root
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
    """

    module: str
    seconds: float
    timed: bool = False


SECTIONS = {
    "parity": Section("gpu_sections.parity", 150),
    "sync": Section("gpu_sections.sync", 150),
    "memory": Section("gpu_sections.memory", 60),
    "resume": Section("gpu_sections.resume", 300),
    "latency": Section("gpu_sections.latency", 240, timed=True),
    "seeds": Section("gpu_sections.seeds", 400, timed=True),
    "train": Section("gpu_sections.training", 300, timed=True),
}
POLL_SECONDS = 0.2


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
    again: bool = setting(False, "also repeat sections that have passed")
    out: Path = setting(
        lambda: project_root() / "gpu_acceptance", "folder of results, runs and records"
    )


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
        list_tasks(options.tasks, suite="evidence")
    from tdmpc2.common.numerics.torch_setup import choose_device

    return options, names, limits, choose_device(options.device)


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code, 0 unless a section has not passed.

    Raises:
        UserError: an invalid option.
    """
    if arguments[:1] == ["section"] and len(arguments) == 3:
        return run_section(arguments[1], json.loads(arguments[2]))
    options, names, limits, device = parse(arguments)
    key = facts_of(device, options.small)
    print(", ".join(f"{name} {value}" for name, value in key.items()), flush=True)
    if device.type != "cuda":
        print("No GPU is used: checks that need one are skipped.", flush=True)
    todo = [name for name in names if options.again or not has_passed(options.out, name, key)]
    for name in names:
        if name not in todo:
            print(f"{name}: passed before; use again=true to repeat it", flush=True)
    untimed = [name for name in todo if not SECTIONS[name].timed]
    timed = [name for name in todo if SECTIONS[name].timed]
    for group, at_once in ((untimed, options.parallel), (timed, 1)):
        run_all(group, at_once, limits, options, device, key)
    results = [read_json(result_path(options.out, name)) or {"section": name} for name in names]
    write_summary(options.out, key, results)
    not_passed = [
        result["section"] for result in results if result.get("status") not in ("passed", "skipped")
    ]
    outcome = f"not passed: {', '.join(not_passed)}" if not_passed else "all passed"
    print(f"results in {options.out}; {outcome}")
    return 1 if not_passed else 0


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
        UserError: a section is unknown, or a limit is not positive.
    """
    limits = {name: section.seconds for name, section in SECTIONS.items()}
    for argument in filter(None, text.split(",")):
        name, _, seconds = argument.partition("=")
        if name not in SECTIONS:
            raise UserError(f"limits={text}: no section '{name}'{did_you_mean(name, SECTIONS)}")
        limits[name] = cli.parse_value(f"limits={name}", seconds, float)
        if limits[name] <= 0:
            raise UserError(f"limits={text}: {name} must be more than 0 seconds")
    return limits


def facts_of(device: torch.device, small: bool) -> dict[str, Any]:
    """Return the facts on which the validity of an earlier result depends."""
    import torch

    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "commit": git_commit(),
        "small": small,
    }


def result_path(out: Path, name: str) -> Path:
    """Return the path of a section's result file."""
    return out / "sections" / f"{name}.json"


def has_passed(out: Path, name: str, key: Mapping[str, Any]) -> bool:
    """Return whether a section has passed before with the same facts and is complete.

    Args:
        out: folder of the results.
        name: name of the section.
        key: see `facts_of`.
    """
    result = read_json(result_path(out, name)) or {}
    complete = name != "train" or not any("resumes" in c["note"] for c in result.get("checks", ()))
    return result.get("status") == "passed" and result.get("key") == key and complete


def run_all(
    names: Sequence[str],
    at_once: int,
    limits: Mapping[str, float],
    options: Options,
    device: torch.device,
    key: Mapping[str, Any],
) -> None:
    """Run sections in separate processes, and print the result of each as it ends.

    Args:
        names: names of the sections.
        at_once: number of processes at a time.
        limits: time limit of each section, in seconds.
        options: options of the command.
        device: device to use.
        key: see `facts_of`.
    """
    waiting = list(names)
    running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            name = waiting.pop(0)
            running[name] = (start(name, limits[name], options, device, key), time.monotonic())
        time.sleep(POLL_SECONDS)
        for name, (process, started) in list(running.items()):
            late = time.monotonic() - started > limits[name]
            if late and process.poll() is None:
                process.kill()
                process.wait()
            if process.poll() is not None:
                del running[name]
                close(name, late, process.returncode, limits[name], options.out)
                print(table_of(read_json(result_path(options.out, name)) or {}), flush=True)


def start(
    name: str,
    seconds: float,
    options: Options,
    device: torch.device,
    key: Mapping[str, Any],
) -> subprocess.Popen[bytes]:
    """Start the process of a section.

    Args:
        name: name of the section.
        seconds: time limit.
        options: options of the command.
        device: device to use.
        key: see `facts_of`.
    """
    path = result_path(options.out, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    case = {"device": str(device), "small": options.small, "out": str(options.out)}
    case |= {"seconds": seconds, "key": dict(key), "tasks": options.tasks}
    print(f"{name}: at most {seconds:.0f} s …", flush=True)
    with open(path.with_suffix(".log"), "wb") as log:
        return subprocess.Popen(
            [sys.executable, __file__, "section", name, json.dumps(case)],
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def close(name: str, late: bool, code: int, seconds: float, out: Path) -> None:
    """Record why a section ended, if it ended without a final status.

    Args:
        name: name of the section.
        late: whether it was stopped because its time limit had passed.
        code: exit code of its process.
        seconds: time limit.
        out: folder of the results.
    """
    path = result_path(out, name)
    result = read_json(path) or {"section": name, "status": "running", "checks": [], "key": {}}
    if result["status"] == "running":
        log = path.with_suffix(".log")
        status = "timed out" if late else "crashed"
        message = f"after {seconds:.0f} s" if late else f"exit code {code}, see {log}"
        write_json(path, {**result, "status": status, "message": message})


def run_section(name: str, case: Mapping[str, Any]) -> int:
    """Run one section in this process and return the exit code."""
    import torch
    from gpu_sections.report import Report, Settings, SkippedError

    out = Path(case["out"])
    report = Report(result_path(out, name), name, case["key"])
    report.write("running")
    tasks = tuple(filter(None, case["tasks"].split(",")))
    settings = Settings(torch.device(case["device"]), case["small"], out, case["seconds"], tasks)
    try:
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


def write_summary(out: Path, key: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
    """Write `acceptance.json` and `acceptance.md`.

    Args:
        out: folder of the results.
        key: see `facts_of`.
        results: results of the sections.
    """
    write_json(out / "acceptance.json", {"facts": dict(key), "sections": list(results)})
    facts = ", ".join(f"{name} {value}" for name, value in key.items())
    tables = "\n\n".join(table_of(result) for result in results if "checks" in result)
    text = f"# Acceptance test\n\n{facts}\n\n{tables}\n"
    write_atomic(out / "acceptance.md", lambda file: file.write(text.encode()))


def table_of(result: Mapping[str, Any]) -> str:
    """Format a section's result as a Markdown table."""
    message = f": {result['message']}" if result.get("message") else ""
    lines = [f"**{result['section']}**: {result['status']}{message} ({result.get('seconds', 0)} s)"]
    if result["checks"]:
        lines += ["", "| | value | bound | |", "|---|---|---|---|"]
    for check in result["checks"]:
        signs = {"at_most": "≤", "at_least": "≥"}
        bounds = [f"{sign} {check[name]:g}" for name, sign in signs.items() if name in check]
        verdict = {None: "", True: "", False: "**failed** "}[check["ok"]]
        value = check["value"] if isinstance(check["value"], str) else f"{check['value']:.4g}"
        cells = (check["name"], f"{value} {check['unit']}".strip(), " and ".join(bounds))
        lines.append(f"| {' | '.join(cells)} | {verdict}{check['note']} |")
    return "\n".join(lines)


def usage() -> str:
    """Return the text of `--help`."""
    return f"{__doc__}\n{cli.describe_fields(Options)}"


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
