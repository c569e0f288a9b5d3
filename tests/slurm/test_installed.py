"""Launches of a package that is installed without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tdmpc2.common.system.paths import PACKAGES, packages_root
from tests.slurm import sweeping
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.xdist_group("slurm")


def test_jobs_run_a_copy_of_the_installed_packages(cluster: Cluster, tmp_path: Path) -> None:
    site, folder = tmp_path / "site-packages", tmp_path / "work"
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(packages_root() / package, site / package, ignore=ignored)
    (site / "pyproject.toml").write_text("# of another package\n")
    folder.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    arguments = sweeping.arguments(folder / "runs", seeds=1, env_steps=150, eval_every=150)
    done = subprocess.run(
        [sys.executable, "-m", "sweeps.launch", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    sweeping.until_empty(cluster)
    assert [view.state for view in sweeping.views(folder / "runs").values()] == ["done"]
    (attempt,) = sweeping.attempts(folder / "runs", 1)
    assert (attempt["commit"], attempt["dirty"]) == (None, None)
