"""Making environments by name, and the errors if a simulator is missing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tdmpc2.common.system.errors import UserError
from tdmpc2.envs import adapters
from tdmpc2.envs.adapters import ADAPTERS
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.gymnasium_tasks import DOMAIN
from tdmpc2.envs.tasks import TASKS, get_task
from tests.kill_driver import Command


def test_every_domain_has_an_adapter():
    assert set(ADAPTERS) == {task.domain for task in TASKS.values()} | {DOMAIN}


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


def test_the_package_imports_no_simulator():
    """Commands import no simulator before they make an environment."""
    code = (
        "import sys\n"
        "import tdmpc2, tdmpc2.train, tdmpc2.evaluate, tdmpc2.doctor, tdmpc2.envs.factory\n"
        "import tdmpc2.envs.multitask, tdmpc2.envs.workers, tdmpc2.envs.pixels\n"
        "simulators = {'dm_control', 'mujoco', 'metaworld', 'myosuite', 'mani_skill2', 'sapien'}\n"
        "print(simulators & set(sys.modules))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "set()\n", result.stderr


@pytest.mark.parametrize(
    ("task", "package", "failure", "message"),
    [
        (
            "mw-reach",
            "metaworld",
            "raise ModuleNotFoundError(\"No module named 'metaworld'\", name='metaworld')",
            "error: task 'mw-reach' needs metaworld, which is not installed: "
            "pip install -e '.[metaworld]'\n",
        ),
        (
            "myo-reach",
            "myosuite",
            "raise ModuleNotFoundError(\"No module named 'myosuite'\", name='myosuite')",
            "error: task 'myo-hand-reach' needs myosuite, which is not installed: "
            "pip install -e '.[myosuite]'\n",
        ),
        (
            "lift-cube",
            "sapien",
            "raise ImportError('libvulkan.so.1: cannot open shared object file: No such file')",
            "error: task 'lift-cube' needs libvulkan.so.1, which the system lacks: "
            "apt-get install libvulkan1\n",
        ),
        (
            "lift-cube",
            "cv2",
            "raise ImportError('libgthread-2.0.so.0: cannot open shared object file')",
            "error: task 'lift-cube' needs libgthread-2.0.so.0, which the system lacks: "
            "apt-get install libglib2.0-0\n",
        ),
    ],
)
def test_what_is_missing_is_said_before_anything_starts(tmp_path, task, package, failure, message):
    """Importing a package fails as it would if something were missing."""
    (tmp_path / f"{package}.py").write_text(failure)
    arguments = [f"task={task}", f"runs={tmp_path / 'runs'}", "env_steps=100"]
    assert Command(arguments, env={"PYTHONPATH": str(tmp_path)}).run() == (2, "", message)
    assert not (tmp_path / "runs").exists()


def test_maniskill2_names_the_python_it_needs(monkeypatch):
    for module in [name for name in sys.modules if name.startswith("tdmpc2.envs.maniskill2")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "mani_skill2", None)
    monkeypatch.setitem(sys.modules, "mani_skill2.envs", None)
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    with pytest.raises(UserError, match=r"no release for this Python: .*Python 3\.11"):
        make_env("lift-cube", seed=0)


def test_maniskill2_names_the_platform_it_needs(monkeypatch):
    monkeypatch.setattr(adapters, "this_platform", lambda: "darwin-arm64")
    adapter = ADAPTERS["maniskill2"]
    message = (
        "needs sapien, which has no release for darwin-arm64: use another machine (linux-x86_64)"
    )
    assert adapter.how_to_install("sapien") == message
    assert all(not row.unsupported() for row in ADAPTERS.values() if row is not adapter)


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("pick-ycb", [], "official ycb models are required"),
        ("turn-faucet", ["assets=rebuilt"], "rebuilt faucet models are required"),
        ("pick-ycb", ["assets=standins"], "did you mean 'standin'?"),
        ("mw-reach", ["obs=rgb"], "obs=rgb: task 'mw-reach' has no pixel observations"),
        ("toy-pointmass", ["save_video=true"], "task 'toy-pointmass' has nothing to render"),
        ("toy-pointmass", ["eval_workers=-1"], "eval_workers=-1: must lie in [0, 4096]"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(tmp_path, task, arguments, message):
    (tmp_path / "models").mkdir()
    arguments = [f"task={task}", "env_steps=100", f"runs={tmp_path / 'runs'}", *arguments]
    done = Command(arguments, env={"MS2_ASSET_DIR": str(tmp_path / "models")}).run()
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def forget_dmcontrol(monkeypatch):
    for module in [name for name in sys.modules if name.startswith("tdmpc2.envs.dmcontrol")]:
        monkeypatch.delitem(sys.modules, module)


@pytest.mark.usefixtures("forget_dmcontrol")
@pytest.mark.parametrize("package", ["dm_control", "mujoco"])
def test_a_missing_simulator_names_the_command(monkeypatch, package):
    for module in [name for name in sys.modules if name.partition(".")[0] == "dm_control"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)  # marks the module as missing
    with pytest.raises(UserError) as error:
        make_env("walker-walk", seed=0)
    assert str(error.value) == (
        f"task 'walker-walk' needs {package}, which is not installed: pip install -e '.[dmcontrol]'"
    )


@pytest.mark.usefixtures("forget_dmcontrol")
def test_other_import_errors_are_not_dressed_up(monkeypatch):
    monkeypatch.setitem(sys.modules, "tdmpc2.envs.physics", None)
    with pytest.raises(ModuleNotFoundError, match="physics"):
        make_env("walker-walk", seed=0)


@pytest.mark.parametrize(
    ("reason", "printed"),
    [
        ("failed to map segment from shared object", "memory\n"),
        ("invalid ELF header", "left to torch\n"),
    ],
)
def test_a_library_of_triton_that_cannot_be_loaded(tmp_path, reason, printed):
    """The namespace package `_C` stays imported without its parent after the first failure."""
    package = tmp_path / "triton"
    (package / "_C").mkdir(parents=True)
    (package / "__init__.py").write_text("import triton._C.libtriton\n")
    (package / "_C" / "libtriton.py").write_text(f"raise ImportError('libtriton.so: {reason}')\n")
    code = (
        "from tdmpc2.envs.rendering import load_triton_first\n"
        "try:\n"
        "    load_triton_first(), load_triton_first()\n"
        "    print('left to torch')\n"
        "except ImportError as error:\n"
        "    print('memory')\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.stdout == printed, done.stderr


@pytest.mark.usefixtures("forget_dmcontrol")
def test_a_library_that_does_not_fit_into_memory_is_not_named_as_missing(monkeypatch):
    class Full:
        def find_spec(self, name, path=None, target=None):
            if name == "tdmpc2.envs.dmcontrol":
                raise ImportError("libEGL.so.1: failed to map segment from shared object")

    monkeypatch.setattr(sys, "meta_path", [Full(), *sys.meta_path])
    with pytest.raises(ImportError, match="failed to map segment"):
        make_env("walker-walk", seed=0)
