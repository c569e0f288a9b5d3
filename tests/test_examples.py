"""The examples: a package with everything of its own, and the notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import TINY
from tests.test_architecture import ROOT

EXAMPLES = ROOT / "examples"
QUICK = {k: v for k, v in TINY.items() if k != "task"}
METHOD = "point_study.method:Pursuit"


def python(*arguments: str | Path) -> str:
    """Run Python with the examples on its path."""
    path = os.pathsep.join(map(str, (ROOT, EXAMPLES)))
    env = {"PYTHONPATH": path, "TDMPC2_TASKS": str(EXAMPLES / "point_study" / "tasks.toml")}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_method_environment_ablation_and_figure(tmp_path: Path) -> None:
    runs = f"runs={tmp_path / 'runs'}"
    common = [f"{k}={QUICK[k]}" for k in ("env_steps", "eval_every", "eval_episodes", "threads")]
    common += ["seed_decisions=110", "device=cpu", "compile=false", runs]
    python("tdmpc2/train.py", "task=line", f"method={METHOD}", *common)
    settings = [f"{k}={v}" for k, v in {**QUICK, "horizon": 2}.items()]
    spec = EXAMPLES / "point_study" / "ablations.toml"
    python("ablations/run.py", "--spec", spec, "--seeds", "1", *settings, runs)
    variants = {path.parents[2].name for path in tmp_path.rglob("eval.csv")}
    assert any(name.endswith("+short-horizon") for name in variants)
    assert len(list(tmp_path.rglob("eval.csv"))) == 3
    python("-m", "point_study.figure", tmp_path / "runs", tmp_path / "study.png")
    assert (tmp_path / "study.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    """Its cells are plain Python, so they run without Jupyter."""
    notebook = json.loads((EXAMPLES / "first_steps.ipynb").read_text())
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    script = tmp_path / "notebook.py"
    script.write_text("\n\n".join(cells))
    printed = python(script)
    assert "COMPLETED 400" in printed
    assert float(printed.rpartition("return ")[2].partition(",")[0]) > 25
