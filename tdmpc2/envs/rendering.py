"""Detect and select the renderers of this machine, before a simulator is imported."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys

from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.memory_errors import out_of_memory
from tdmpc2.envs.other_python import python_and_environment

VARIABLE = "MUJOCO_GL"
BACKENDS = ("egl", "osmesa")
INSTALL = "apt-get install libegl1 (or libosmesa6)"

# Runs in a separate process, because an incomplete driver fails at import or crashes.
_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><light/></worldbody></mujoco>")
renderer = mujoco.Renderer(model, 16, 16)
renderer.update_scene(mujoco.MjData(model))
assert renderer.render().shape == (16, 16, 3)
"""

# What the simulators import, whether or not anything is rendered.
_IMPORT_PROBE = """
import importlib.util
import mujoco
if importlib.util.find_spec("dm_control"):
    import dm_control.mujoco
"""
_IMPORTS = "_TDMPC2_MUJOCO_GL_IMPORTS"  # value of `VARIABLE` that has passed this probe

# Runs in a separate process, because SAPIEN crashes if the Vulkan loader finds no driver.
_VULKAN_PROBE = """
import sapien.core
engine = sapien.core.Engine()
engine.set_renderer(sapien.core.SapienRenderer(offscreen_only=True))
scene = engine.create_scene()
camera = scene.add_camera("camera", 16, 16, 1.0, 0.1, 10.0)
scene.update_render()
camera.take_picture()
"""


def prepare_rendering() -> str:
    """Select MuJoCo's rendering backend for this process and its subprocesses.

    If `MUJOCO_GL` is set, its value is used. Otherwise `MUJOCO_GL` is set to the first of EGL and
    OSMesa that can render. MuJoCo reads the variable when it is imported.

    Returns:
        The value of `MUJOCO_GL`.

    Raises:
        UserError: no backend works, or MuJoCo was already imported without one.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        if "mujoco" not in sys.modules and not can_render(chosen):
            raise UserError(f"{VARIABLE}={chosen}: MuJoCo cannot render with it here; unset it")
        return chosen
    if "mujoco" in sys.modules:
        raise UserError(
            f"rendering must be requested before the first environment is made; or set {VARIABLE}"
        )
    for backend in BACKENDS:
        if can_render(backend):
            os.environ[VARIABLE] = backend
            return backend
    raise UserError(f"no OpenGL library for rendering was found; install one: {INSTALL}")


def prepare_without_rendering() -> None:
    """Unset `MUJOCO_GL` in this process and its subprocesses if MuJoCo cannot be imported with it.

    MuJoCo loads the backend when it is imported, even if nothing is rendered.
    """
    chosen = os.environ.get(VARIABLE)
    if not chosen or "mujoco" in sys.modules or os.environ.get(_IMPORTS) == chosen:
        return
    if _succeeds(_IMPORT_PROBE, dict(os.environ)):
        os.environ[_IMPORTS] = chosen
    else:
        del os.environ[VARIABLE]


@functools.cache  # after a failure, a second import raises a KeyError
def load_triton_first() -> None:
    """Load Triton's library, if it is installed, before a simulator loads a graphics driver.

    Both Triton and the drivers of Mesa contain LLVM. Loaded after such a driver, as torch does
    when it compiles or creates its own optimizers, Triton's library crashes the process; in this
    order both work.

    Raises:
        ImportError: the library does not fit into memory.
    """
    if importlib.util.find_spec("triton") is not None:
        try:
            importlib.import_module("triton._C.libtriton")
        except ImportError as error:  # a damaged one is a matter of torch
            if out_of_memory(error) is not None:
                raise


def renderer_in_use() -> str | None:
    """Return the value of `MUJOCO_GL`."""
    return os.environ.get(VARIABLE)


@functools.cache
def can_render(backend: str) -> bool:
    """Return whether MuJoCo can render with this value of `MUJOCO_GL` (takes about one second)."""
    return _succeeds(_PROBE, {**os.environ, VARIABLE: backend})


@functools.cache
def can_render_vulkan(domain: str) -> bool:
    """Return whether SAPIEN can render in the Python of a domain (takes some seconds, once).

    Raises:
        UserError: the variable of the domain names no program.
    """
    python, env = python_and_environment(domain)
    return _succeeds(_VULKAN_PROBE, env, python)


def _succeeds(code: str, env: dict[str, str], python: str = sys.executable) -> bool:
    done = subprocess.run([python, "-c", code], env=env, capture_output=True)
    return done.returncode == 0
