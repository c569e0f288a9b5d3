"""The doctor command, on this machine and with simulated missing features."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tdmpc2 import doctor
from tdmpc2.common.numerics import fused_bf16
from tdmpc2.doctor import Check
from tdmpc2.envs.adapters import ADAPTERS

COMMAND = [sys.executable, "-m", "tdmpc2.doctor"]


def test_every_default_feature_works_here() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    probed = [f"{domain} (" for domain, adapter in ADAPTERS.items() if adapter.probe]
    for check in ("Python", "torch", *probed, "disk"):
        line = next(line for line in done.stdout.splitlines() if line.startswith(check))
        assert " ok " in line
    assert done.stdout.endswith("All required features work.\n")


def hide(folder: Path, package: str, message: str) -> None:
    """Shadow a package with a module of the same name that fails with a given error."""
    (folder / f"{package}.py").write_text(message)


@pytest.mark.parametrize(
    ("domain", "package", "code", "found", "fix"),
    [
        (
            "metaworld",
            "metaworld",
            "raise ModuleNotFoundError(\"No module named 'metaworld'\", name='metaworld')",
            "task 'mw-reach' needs metaworld, which is not installed",
            "pip install -e '.[metaworld]'",
        ),
        (
            "maniskill2",
            "sapien",
            "raise ImportError('libvulkan.so.1: cannot open shared object file: No such file')",
            "task 'lift-cube' needs libvulkan.so.1, which the system lacks",
            "apt-get install libvulkan1",
        ),
        (
            "myosuite",
            "myosuite",
            "import os; os.abort()",
            "exit code -6",
            "pip install -e '.[myosuite]' --force-reinstall",
        ),
    ],
)
def test_a_broken_simulator_fails_with_its_remedy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    domain: str,
    package: str,
    code: str,
    found: str,
    fix: str,
) -> None:
    hide(tmp_path, package, code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = doctor.check_simulator(ADAPTERS[domain])
    assert (finding.state, finding.found, finding.fix) == ("FAIL", found, fix)


@pytest.mark.parametrize(
    ("used", "state", "advice"), [(True, "ok", "bf16"), (False, "off", "fp32")]
)
def test_the_precision_that_the_cpu_is_fast_in(
    used: bool, state: doctor.State, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_bf16, "choice", lambda: fused_bf16.Choice(used, "why"))
    check = doctor.check_bf16()
    assert (check.state, "why" in check.found) == (state, True)
    assert f"precision={advice}" in check.found + check.fix


def test_a_renderer_that_cannot_draw_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "off")
    finding = doctor.check_opengl()
    assert (finding.state, finding.fix) == ("off", "unset MUJOCO_GL")


@pytest.mark.parametrize("backend", ["nonsense", "osmesa"])
def test_a_renderer_that_does_not_work_breaks_no_simulator(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUJOCO_GL", backend)
    if backend == "osmesa":  # also on machines that have it
        hide(tmp_path, "OpenGL", "raise AttributeError('no library')")
        root = Path(__file__).parents[1]
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{root}")
    for adapter in ADAPTERS.values():
        if adapter.renders == "opengl" and adapter.probe is not None:
            finding = doctor.check_simulator(adapter)
            assert finding.state == "ok", finding


def test_models_are_named_with_their_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MS2_ASSET_DIR", str(tmp_path))
    finding = doctor.check_assets("ycb", "pick-ycb")
    assert finding.state == "off"
    assert "fetch ycb" in finding.fix


def test_a_folder_that_cannot_be_written_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "default_runs_dir", lambda: tmp_path / "runs")
    assert doctor.check_disk().state == "ok"
    monkeypatch.setattr(doctor, "LEAST_FREE_GB", 1e9)
    assert doctor.check_disk().state == "FAIL"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "not writable" in doctor.check_disk().found


def test_slurm_is_optional(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.check_slurm().state == "off"
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    assert doctor.check_slurm().found == "sinfo fails"


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("off", 0), ("FAIL", 1)])
def test_only_failures_make_the_exit_code(state: doctor.State, code: int) -> None:
    out = io.StringIO()
    findings = [Check("one", "ok", "fine"), Check("two", state, "[seen]", "do this")]
    assert doctor.report(findings, Console(file=out, width=80)) == code
    assert "[seen]" in out.getvalue()  # not taken for markup
    assert ("Broken: two" in out.getvalue()) == (code == 1)


def test_arguments_are_refused() -> None:
    done = subprocess.run([*COMMAND, "now"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: 'now': the doctor takes no arguments (see --help)\n"
