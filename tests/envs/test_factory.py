"""From names to environments, and what happens without a simulator."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tdmpc2.common.errors import UserError
from tdmpc2.envs.factory import ADAPTERS, make_env
from tdmpc2.envs.tasks import TASKS, get_task


def test_every_domain_has_an_adapter():
    assert set(ADAPTERS) == {task.domain for task in TASKS.values()}


def test_makes_from_name_alias_and_row():
    for task in ("cup-catch", "ball-in-cup-catch", get_task("cup-catch")):
        assert make_env(task, seed=0).task is get_task("cup-catch")


def test_unknown_task():
    with pytest.raises(UserError, match="did you mean 'toy-pointmass'"):
        make_env("toy-pointmas", seed=0)


def test_simulators_are_imported_on_first_use():
    code = (
        "import sys\n"
        "from tdmpc2.envs.factory import make_env\n"
        "make_env('toy-pointmass', seed=0)\n"
        "print({'dm_control', 'mujoco'} & set(sys.modules))\n"
        "make_env('pendulum-swingup', seed=0)\n"
        "print(sorted({'dm_control', 'mujoco'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "set()\n['dm_control', 'mujoco']\n", result.stderr


@pytest.fixture
def forget_dmcontrol(monkeypatch):
    for module in [name for name in sys.modules if name.startswith("tdmpc2.envs.dmcontrol")]:
        monkeypatch.delitem(sys.modules, module)


@pytest.mark.usefixtures("forget_dmcontrol")
@pytest.mark.parametrize("package", ["dm_control", "mujoco"])
def test_a_missing_simulator_names_the_command(monkeypatch, package):
    for module in [name for name in sys.modules if name.partition(".")[0] == "dm_control"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)  # the import system's mark for "not there"
    with pytest.raises(UserError) as error:
        make_env("walker-walk", seed=0)
    assert str(error.value) == (
        f"task 'walker-walk' needs {package}, which is not installed: pip install -e '.[dmcontrol]'"
    )


@pytest.mark.usefixtures("forget_dmcontrol")
def test_other_import_errors_are_not_dressed_up(monkeypatch):
    monkeypatch.setitem(sys.modules, "tdmpc2.envs.legacy_contacts", None)
    with pytest.raises(ModuleNotFoundError, match="legacy_contacts"):
        make_env("walker-walk", seed=0)
