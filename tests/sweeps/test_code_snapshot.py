"""The copy of the code that queued jobs run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.execution import code_snapshot
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.common.system.paths import project_root


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return code_snapshot.take(project_root(), tmp_path_factory.mktemp("code"))


def test_python_takes_the_copy_and_not_the_checkout(copy: Path) -> None:
    """Python is started as in the jobs; the copy records the commit of the checkout."""
    code = (
        "import tdmpc2.runners.online, baselines.sac, sweeps.execution.job, analysis.make_figures\n"
        "from tdmpc2.common.run.source_version import git_commit\n"
        "modules = (tdmpc2.runners.online, baselines.sac, sweeps.execution.job)\n"
        "modules += (analysis.make_figures,)\n"
        "print(*(module.__file__ for module in modules), sep='\\n')\n"
        "print(git_commit())"
    )
    env = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, cwd=copy, env=env, check=True)
    *files, commit = done.stdout.splitlines()
    assert all(Path(file).is_relative_to(copy) for file in files)
    assert commit == str(read_json(copy / "source.json")["commit"])


def test_the_copy_is_whole_and_made_once(copy: Path) -> None:
    for name in ("tdmpc2/kernels", "baselines/kernels"):
        assert list((copy / name).glob("*.cpp"))
    assert (copy / "analysis/html_report/page.js").exists()
    assert (copy / "paper_figures/figures.toml").exists()
    assert list((copy / "paper_figures").glob("*.mplstyle"))
    assert not list(copy.rglob("__pycache__"))
    assert code_snapshot.take(project_root(), copy.parent) == copy
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


VERIFY = """
from pathlib import Path
from sweeps.execution import code_snapshot
from tdmpc2.common.system.errors import UserError
try:
    code_snapshot.verify(Path({!r}))
    print("verified")
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("change", ["nothing", "edited", "new file", "deleted"])
def test_a_job_verifies_its_copy(change: str, tmp_path: Path) -> None:
    copy = code_snapshot.take(project_root(), tmp_path)
    where = copy
    if change == "edited":
        path = copy / "tdmpc2" / "planner.py"
        path.write_text(path.read_text() + "# edited\n")
    elif change == "new file":
        (copy / "sweeps" / "new.py").touch()
    elif change == "deleted":
        where = project_root()
        copy = tmp_path / "000000000000"
    env = os.environ | {"PYTHONPATH": str(where)}
    line = [sys.executable, "-c", VERIFY.format(str(copy))]
    done = subprocess.run(line, capture_output=True, text=True, cwd=where, env=env, check=True)
    expected = {"nothing": "verified\n", "deleted": "was deleted or moved since the launch"}
    assert expected.get(change, "the code has changed since the launch") in done.stdout
    if change in ("edited", "new file"):  # the next launch replaces it
        assert code_snapshot.take(project_root(), tmp_path) == copy
        assert not (copy / "sweeps" / "new.py").exists()


def test_a_copy_that_another_user_can_write_is_not_used(tmp_path: Path) -> None:
    """Nor removed: that user's jobs may run it."""
    theirs = code_snapshot.take(project_root(), tmp_path)
    (theirs / "tdmpc2" / "planner.py").chmod(0o666)
    ours = code_snapshot.take(project_root(), tmp_path)
    assert ours.name == f"{theirs.name}.{os.getuid()}"
    assert theirs.is_dir()
    env = os.environ | {"PYTHONPATH": str(ours)}
    line = [sys.executable, "-c", VERIFY.format(str(ours))]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ours, env=env, check=True)
    assert done.stdout == "verified\n"
    assert code_snapshot.take(project_root(), tmp_path) == ours


def test_an_edit_makes_another_copy(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    for name in ("tdmpc2", "sweeps"):
        (root / name).mkdir(parents=True)
        (root / name / "code.py").write_text("1")
    first = code_snapshot.take(root, tmp_path / "copies")
    (root / "tdmpc2" / "code.py").write_text("2")
    second = code_snapshot.take(root, tmp_path / "copies")
    assert first != second
    assert [(c / "tdmpc2" / "code.py").read_text() for c in (first, second)] == ["1", "2"]
