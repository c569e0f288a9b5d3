"""Doctor command: check what works on this machine, `python -m tdmpc2.doctor`."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import default_runs_dir
from tdmpc2.envs.adapters import ADAPTERS, Adapter
from tdmpc2.envs.assets import SOURCES, find_assets
from tdmpc2.envs.other_python import other_python
from tdmpc2.envs.rendering import BACKENDS, INSTALL, VARIABLE, can_render, can_render_vulkan
from tdmpc2.envs.tasks import TASKS

State = Literal["ok", "off", "FAIL"]
STYLES = {"ok": "green", "off": "yellow", "FAIL": "bold red"}
# About the size of a sweep's first checkpoints and of the packages' caches.
LEAST_FREE_GB = 5
# Timeout for one simulator; the slowest first import on a shared file system is shorter.
SECONDS = 300

# Run in a subprocess, so that a simulator that crashes does not end the doctor.
_TEN_STEPS = """
import sys, time
import numpy as np
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.factory import make_env
try:
    env = make_env(sys.argv[1], seed=0)
except UserError as error:
    sys.exit(f"error: {error}")
env.reset(seed=0)
action = np.full(env.action_space.shape, 0.5)
start = time.perf_counter()
for _ in range(10):
    obs, *_ = env.step(action)
seconds = time.perf_counter() - start
env.close()
assert np.isfinite(obs).all()
print(f"{10 / seconds:,.0f}")
"""


@dataclass(frozen=True)
class Check:
    """Result of one check: a row of the table.

    Attributes:
        what: name of the feature that was checked.
        state: `ok`; `off` if something optional is missing; `FAIL` if something that every
            installation should have is broken.
        found: what the check found, e.g. a version or the reason for a failure.
        fix: command or advice that solves the problem; empty if the state is `ok`.
    """

    what: str
    state: State
    found: str
    fix: str = ""


def check_python() -> Check:
    """Check the Python version: all tasks run on 3.11, all but those of ManiSkill2 on 3.12."""
    version = platform.python_version()
    if sys.version_info[:2] not in ((3, 11), (3, 12)):
        return Check("Python", "FAIL", version, "use Python 3.11: PYTHON=python3.11 make install")
    return Check("Python", "ok", f"{version} at {sys.executable}")


def check_torch() -> Check:
    """Check torch with one matrix multiplication on the device that runs would use."""
    import torch

    from tdmpc2.common.numerics.numeric_path import numeric_path
    from tdmpc2.common.numerics.torch_setup import choose_device

    fix = "reinstall: pip install --force-reinstall torch"
    try:
        device = choose_device("auto")
        product = torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)
        correct = float(product.sum()) == 64.0**3
    except (RuntimeError, UserError) as error:
        line = str(error).splitlines()[0]
        return Check("torch", "FAIL", line, fix)
    if not correct:
        return Check("torch", "FAIL", "the product of two matrices of ones is wrong", fix)
    path = numeric_path(device, None)
    found = f"{torch.__version__} on {device}, {path['threads']} threads"
    return Check("torch", "ok", found)


def check_compiler() -> Check:
    """Check `torch.compile`, which makes planning and training about twice as fast."""
    import torch

    from tdmpc2 import kernels
    from tdmpc2.common.numerics.numeric_path import compiler_version

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        version = compiler_version(torch.device("cpu"))
        kernel = version is not False and kernels.load()
    if version is not False and kernel:
        return Check("compiler", "ok", version)
    reason = str(caught[-1].message).partition(";")[0] if caught else "unknown reason"
    return Check(
        "compiler",
        "off",
        reason,
        "apt-get install g++ (optional: runs work without it, more slowly)",
    )


def check_bf16() -> Check:
    """Check whether the CPU multiplies bfloat16 fast enough for `precision=bf16`."""
    from tdmpc2.common.numerics import fused_bf16

    choice = fused_bf16.choice()
    if choice.used:
        found = f"{choice.reason}: precision=bf16 is recommended on the CPU (docs/performance.md)"
        return Check("bf16", "ok", found)
    return Check("bf16", "off", choice.reason, "use precision=fp32 on the CPU (the default)")


def check_gpu() -> Check:
    """Check for a CUDA device, which the paper's budgets require."""
    import torch

    if torch.cuda.is_available():
        return Check("GPU", "ok", torch.cuda.get_device_name())
    fix = "small models train on the CPU; the paper's budgets need a GPU and torch with CUDA"
    return Check("GPU", "off", "none", fix)


def check_simulator(adapter: Adapter) -> Check:
    """Check a simulator with ten decisions in its probe task."""
    assert adapter.probe is not None
    task = adapter.probe
    count = sum(row.domain == adapter.domain for row in TASKS.values())
    what = f"{adapter.domain} ({count} task{'s' if count > 1 else ''})"
    try:
        elsewhere = other_python(adapter.domain)
    except UserError as error:
        message, _, fix = str(error).partition("; ")
        return Check(what, "FAIL", message, fix)
    reason, _, fix = adapter.unsupported().partition(": ")
    if reason and elsewhere is None:
        return Check(what, "off", f"no release for {reason}", fix)
    command = [sys.executable, "-c", _TEN_STEPS, task]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return Check(what, "FAIL", f"{task} took longer than {SECONDS} s", "try again")
    if done.returncode == 0:
        where = "" if elsewhere is None else f", in {elsewhere}"
        return Check(what, "ok", f"{task}: ten decisions at {done.stdout.strip()} a second{where}")
    last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
    message, _, command_line = last.removeprefix("error: ").rpartition(": ")
    if last.startswith("error: "):
        return Check(what, "FAIL", message, command_line)
    return Check(what, "FAIL", last, f"{adapter.install} --force-reinstall")


def check_opengl() -> Check:
    """Check MuJoCo's rendering, which pixel observations and videos of three domains need."""
    what = "pixels and videos (MuJoCo)"
    chosen = os.environ.get(VARIABLE)
    for backend in [chosen] if chosen else BACKENDS:
        if can_render(backend):
            return Check(what, "ok", f"{VARIABLE}={backend}")
    tried = f"{VARIABLE}={chosen}" if chosen else " and ".join(BACKENDS)
    fix = f"unset {VARIABLE}" if chosen else INSTALL
    return Check(what, "off", f"{tried} cannot render", fix)


def check_vulkan() -> Check:
    """Check SAPIEN's rendering, which videos of ManiSkill2 need."""
    what = "videos (ManiSkill2)"
    try:
        if can_render_vulkan("maniskill2"):
            return Check(what, "ok", "Vulkan")
    except UserError:  # its Python does not exist, as the check of the simulator says
        return Check(what, "off", "not checked", "first solve the problem of maniskill2")
    fix = "videos need a GPU with a Vulkan driver; training does not"
    return Check(what, "off", "no Vulkan device", fix)


def check_assets(kind: Literal["ycb", "faucet"], task: str) -> Check:
    """Check which 3D models (assets) of a ManiSkill2 task are installed."""
    what = f"3D models of {task}"
    for source in (source for source in SOURCES if source != "standin"):
        try:
            found = find_assets(kind, source)
        except UserError:
            continue
        use = "" if source == "official" else f"; use with assets={source}"
        return Check(what, "ok", f"{found.label}, {len(found.models)} models{use}")
    fix = f"python -m tdmpc2.envs.assets fetch {kind}, or run with assets=standin"
    return Check(what, "off", "only stand-in models", fix)


def check_slurm() -> Check:
    """Check SLURM, which sweeps on a cluster need."""
    if shutil.which("sbatch") is None:
        fix = "sweeps run on this machine; on a cluster, start them on a node that has sbatch"
        return Check("SLURM", "off", "no sbatch command", fix)
    try:
        done = subprocess.run(["sinfo", "--version"], capture_output=True, text=True)
    except OSError:
        done = None
    if done is None or done.returncode:
        return Check("SLURM", "off", "sinfo fails", "ask the administrators of the cluster")
    return Check("SLURM", "ok", done.stdout.strip())


def check_disk() -> Check:
    """Check that the runs folder is writable and has free space."""
    folder = default_runs_dir()
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(existing).free / 1e9
    found = f"{free:,.0f} GB free for {folder}"
    if not os.access(existing, os.W_OK):
        return Check("disk", "FAIL", f"{existing} is not writable", "use another folder with runs=")
    if free < LEAST_FREE_GB:
        return Check("disk", "FAIL", found, "free some space, or use another disk with runs=")
    return Check("disk", "ok", found)


def checks() -> list[Callable[[], Check]]:
    """Return all checks, in the order of the table."""
    probed = [adapter for adapter in ADAPTERS.values() if adapter.probe is not None]
    return [
        check_python,
        check_torch,
        check_compiler,
        check_bf16,
        check_gpu,
        *(functools.partial(check_simulator, adapter) for adapter in probed),
        lambda: check_assets("ycb", "pick-ycb"),
        lambda: check_assets("faucet", "turn-faucet"),
        check_opengl,
        check_vulkan,
        check_slurm,
        check_disk,
    ]


def report(findings: Sequence[Check], console: Console) -> int:
    """Print the table of findings.

    Returns:
        1 if anything failed, else 0.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("check", "state", "found"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        found = Text(finding.found)
        if finding.fix:
            found.append(f"\n→ {finding.fix}", style=STYLES[finding.state])
        table.add_row(finding.what, Text(finding.state, STYLES[finding.state]), found)
    console.print(table)
    failed = [finding.what for finding in findings if finding.state == "FAIL"]
    console.print(f"Broken: {', '.join(failed)}" if failed else "All required features work.")
    return 1 if failed else 0


def usage() -> str:
    """Return the text of `--help`."""
    return "\n".join(
        [
            "usage: python -m tdmpc2.doctor",
            "",
            "Checks Python, torch, compiler, bf16 kernels, GPU, each simulator (ten decisions of",
            "a task), 3D models, rendering, SLURM and disk space, and prints how to fix each",
            "problem. Takes no arguments. States: ok; off, an optional feature is missing; FAIL,",
            "something that every installation should have is broken. Exit code: 1 if any check",
            "fails, else 0.",
        ]
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code: 1 if any check fails, else 0.

    Raises:
        UserError: there are arguments.
    """
    if arguments:
        raise UserError(f"'{arguments[0]}': the doctor takes no arguments (see --help)")
    console = Console(highlight=False)
    with console.status("checking, about half a minute …"):
        findings = [check() for check in checks()]
    return report(findings, console)


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
