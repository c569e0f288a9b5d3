"""Pixel observations and rendering, with the renderer of this machine."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tdmpc2.common.system.errors import UserError
from tdmpc2.envs import rendering
from tdmpc2.envs.base import FRAME_SIZE
from tdmpc2.envs.factory import check_render, make_env
from tdmpc2.envs.pixels import PixelEnv
from tdmpc2.envs.tasks import get_suite, get_task


@pytest.fixture(autouse=True, scope="module")
def opengl():
    """Select a renderer before the first test imports MuJoCo."""
    if not rendering.can_render(os.environ.get(rendering.VARIABLE, "egl")):
        pytest.skip("missing: an OpenGL to render with (apt-get install libegl1)")


@pytest.fixture(scope="module")
def env():
    return make_env("reacher-easy", seed=0, obs="rgb")


def test_pixel_spaces(env):
    assert isinstance(env, PixelEnv)
    assert env.observation_space.shape == (9, 64, 64)
    assert env.observation_space.dtype == np.uint8
    assert env.frame_stack == 3
    obs, info = env.reset()
    assert env.observation_space.contains(obs)
    assert info == {"success": 0.0, "success_ever": 0.0}
    assert obs.std() > 10  # the image is not uniform


def test_the_newest_frame_comes_last_and_the_first_is_repeated(env):
    obs, _ = env.reset(seed=1)
    np.testing.assert_array_equal(obs[:3], obs[3:6])
    np.testing.assert_array_equal(obs[:3], obs[6:])
    before = obs
    for _ in range(4):
        obs, *_ = env.step(np.ones(2))
        np.testing.assert_array_equal(obs[:6], before[3:])
        assert (obs[6:] != before[6:]).any()
        before = obs


def test_pixels_change_nothing_but_the_observation(env):
    state = make_env("reacher-easy", seed=0)
    env.reset(seed=3)
    state.reset(seed=3)
    for _ in range(5):
        assert env.step(np.full(2, 0.3))[1:] == state.step(np.full(2, 0.3))[1:]
    env.set_generator_state(state.generator_state())
    env.reset()
    state.reset()
    assert env.step(np.ones(2))[1:] == state.step(np.ones(2))[1:]


def test_the_same_seed_shows_the_same_pictures(env):
    first, _ = env.reset(seed=4)
    np.testing.assert_array_equal(first, make_env("reacher-easy", seed=4, obs="rgb").reset()[0])


@pytest.mark.parametrize(("name", "camera"), [("walker-walk", 0), ("quadruped-run", 2)])
def test_the_camera_of_the_papers_pixel_tasks(name, camera):
    env = make_env(name, seed=0, obs="rgb")
    obs, _ = env.reset()
    expected = env.env._env.physics.render(64, 64, camera_id=camera)
    np.testing.assert_array_equal(obs[-3:].transpose(1, 2, 0), expected)


@pytest.mark.slow
def test_all_of_the_visual_suite_is_seen():
    assert all(task.domain == "dmcontrol" for task in get_suite("visual"))
    for task in get_suite("visual"):
        obs, _ = make_env(task, seed=0, obs="rgb").reset()
        assert obs.std() > 10


@pytest.mark.parametrize("name", ["mw-push", "myo-hand-reach", "lift-cube", "toy-pointmass"])
def test_other_domains_refuse_pixels(name):
    with pytest.raises(UserError) as error:
        make_env(name, seed=0, obs="rgb")
    assert f"task '{name}' has no pixel observations; only dmcontrol tasks do" in str(error.value)


def test_unknown_observations_are_refused():
    with pytest.raises(UserError, match=r"obs=rbg: unknown value \(did you mean 'rgb'\?\)"):
        make_env("walker-walk", seed=0, obs="rbg")


@pytest.mark.parametrize("name", ["cup-catch", "mw-push", "myo-hand-reach"])
def test_pictures_for_people_leave_the_episode_as_it_is(name):
    env, unseen = (make_env(name, seed=0, render=render) for render in (True, False))
    env.reset(seed=1)
    unseen.reset(seed=1)
    action = np.full(env.action_space.shape, 0.4)
    frames = []
    for _ in range(3):
        frame = env.render()
        assert frame.shape == (FRAME_SIZE, FRAME_SIZE, 3)
        assert frame.dtype == np.uint8
        frames.append(frame.copy())
        np.testing.assert_array_equal(env.step(action)[0], unseen.step(action)[0])
    assert frames[0].std() > 10
    assert (frames[0] != frames[2]).any()


def test_meta_world_stands_upright():
    """The camera is mounted upside down: above the table there is a plain gray wall."""
    env = make_env("mw-reach", seed=0, render=True)
    env.reset(seed=0)
    frame = env.render()[:, -60:].astype(float)
    assert frame[:40].std(axis=(0, 1)).max() < 3
    assert frame[-200:].std(axis=(0, 1)).max() > 15


def test_what_has_nothing_to_show_says_so():
    with pytest.raises(UserError, match="'toy-pointmass' has nothing to render"):
        make_env("toy-pointmass", seed=0, render=True)


def test_maniskill2_is_refused_where_there_is_no_vulkan(monkeypatch):
    monkeypatch.setattr("tdmpc2.envs.factory.can_render_vulkan", lambda domain: False)
    with pytest.raises(UserError, match="only on a GPU with a Vulkan driver"):
        check_render(get_task("lift-cube"))


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, without MuJoCo imported and with the given MUJOCO_GL."""
    env = {k: v for k, v in os.environ.items() if k != rendering.VARIABLE} | variables
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)


PREPARE = "from tdmpc2.envs.rendering import prepare_rendering; print(prepare_rendering())"


def test_a_renderer_is_chosen_by_itself_and_leaves_quietly():
    code = (
        "from tdmpc2.envs.factory import make_env\n"
        "for name in ('cup-catch', 'mw-push', 'myo-hand-reach'):\n"
        "    env = make_env(name, seed=0, render=True)\n"
        "    env.reset()\n"
        "    print(env.render().shape)\n"
    )
    done = run(code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "(384, 384, 3)\n" * 3
    assert run(PREPARE).stdout in ("egl\n", "osmesa\n")


def test_the_users_choice_is_kept():
    working = run(PREPARE).stdout
    assert run(PREPARE, MUJOCO_GL=working.strip()).stdout == working


@pytest.mark.parametrize(
    "variables",
    [
        {"MUJOCO_GL": "nonsense"},
        {"MUJOCO_GL": "osmesa"},
        {"MUJOCO_GL": "egl", "MUJOCO_EGL_DEVICE_ID": "99"},
    ],
)
def test_a_backend_that_does_not_work_matters_only_for_rendering(variables, tmp_path):
    if variables["MUJOCO_GL"] == "osmesa":  # also on machines that have it
        (tmp_path / "OpenGL").mkdir()
        (tmp_path / "OpenGL" / "__init__.py").write_text("raise AttributeError('no library')")
        variables = {**variables, "PYTHONPATH": str(tmp_path)}
    make = "from tdmpc2.envs.factory import make_env\nenv = make_env('{}', seed=0, render={})\n"
    several = variables["MUJOCO_GL"] == "nonsense"
    for task in ("cup-catch", "mw-push", "myo-hand-reach")[: 3 if several else 1]:
        done = run(make.format(task, False) + "print(env.reset()[0].shape)", **variables)
        assert (done.returncode, done.stderr) == (0, "")
    done = run(make.format("cup-catch", True), **variables)
    assert f"UserError: MUJOCO_GL={variables['MUJOCO_GL']}: MuJoCo cannot render" in done.stderr


def test_an_optimizer_can_be_made_after_an_environment(opengl):
    """Triton's library, which the optimizer loads, crashed beside that of Mesa's EGL."""
    code = (
        "from tdmpc2.envs.factory import make_env\n"
        "env = make_env('walker-walk', seed=0)\n"
        "import sys, torch\n"
        "torch.optim.Adam([torch.zeros(1, requires_grad=True)])\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = run(code, MUJOCO_GL="egl")
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_without_any_opengl_the_command_is_named(tmp_path):
    """Loading MuJoCo's bindings of both backends fails."""
    (tmp_path / "OpenGL").mkdir()
    (tmp_path / "OpenGL" / "__init__.py").write_text("raise ImportError('no library')")
    done = run(PREPARE, PYTHONPATH=str(tmp_path))
    assert "install one: apt-get install libegl1 (or libosmesa6)" in done.stderr


def test_too_late_is_said():
    done = run("import mujoco\n" + PREPARE)
    assert "must be requested before the first environment is made" in done.stderr
