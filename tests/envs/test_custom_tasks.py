"""The paper's custom DMControl tasks: recorded trajectories, and rewards computed by hand."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from tdmpc2.envs.dmcontrol.adapter import load_raw
from tdmpc2.envs.task_variants import with_switches
from tdmpc2.envs.tasks import get_suite, get_task

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "data" / "custom_dmcontrol_tasks.json").read_text()
)
NAMES = [name for name in GOLDEN if name != "_meta"]
STOCK = {
    "walker": "walker-walk",
    "cheetah": "cheetah-run",
    "hopper": "hopper-hop",
    "reacher": "reacher-easy",
    "ball_in_cup": "cup-catch",
    "pendulum": "pendulum-swingup",
}


def flat(observation):
    return np.concatenate([np.ravel(part) for part in observation.values()])


def test_the_golden_file_holds_those_of_the_paper():
    assert len(NAMES) == 11
    assert set(NAMES) <= {task.name for task in get_suite("custom")}


@pytest.mark.parametrize("name", NAMES)
def test_recorded_trajectory(name):
    """The arrays were recorded with the physics of MuJoCo 3.6.0."""
    golden = GOLDEN[name]
    env = load_raw(with_switches(get_task(name), {"physics": "simulator"}), 1)
    step = env.reset()
    np.testing.assert_allclose(flat(step.observation), golden["obs0"], rtol=0, atol=1e-6)
    phase = np.arange(env.action_spec().shape[0]) + 1
    rewards = []
    for time in range(100):
        step = env.step(np.sin(0.1 * time * phase))
        rewards.append(step.reward)
    np.testing.assert_allclose(rewards[:10], golden["reward_first10"], rtol=0, atol=1e-6)
    # Measured with MuJoCo 3.6.0, with which all recorded digits agree. Other versions may differ.
    assert sum(rewards) == pytest.approx(golden["reward_sum100"], rel=0.01, abs=1e-4)
    np.testing.assert_allclose(flat(step.observation), golden["obs100"], rtol=0, atol=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_time_runs_as_in_the_suites_task_of_the_domain(name):
    env, stock = shared(name), shared(STOCK[get_task(name).env_id.partition("/")[0]])
    assert env.control_timestep() == stock.control_timestep()
    assert env.physics.timestep() == stock.physics.timestep()


@functools.cache
def shared(name):
    """Return one environment per task, for tests that set the complete state."""
    return load_raw(get_task(name), 0)


def reward(name, qpos=None, qvel=None):
    """Return the reward in a state given by joint names; other joints are in the rest pose."""
    env = shared(name)
    with env.physics.reset_context():
        for joint, value in (qpos or {}).items():
            env.physics.named.data.qpos[joint] = value
        for joint, value in (qvel or {}).items():
            env.physics.named.data.qvel[joint] = value
    return float(env.task.get_reward(env.physics))


@pytest.mark.parametrize(
    ("name", "speed", "expected"),
    [
        # In the rest pose the walker stands upright: stand = 1.
        ("walker-walk-backwards", -1.0, 1.0),
        ("walker-walk-backwards", -3.0, 1.0),
        ("walker-walk-backwards", -0.5, (5 * 0.5 + 1) / 6),
        ("walker-walk-backwards", -0.75, (5 * 0.75 + 1) / 6),
        ("walker-walk-backwards", 0.0, 1 / 6),
        ("walker-walk-backwards", 1.0, 1 / 6),
        ("walker-run-backwards", -8.0, 1.0),
        ("walker-run-backwards", -4.0, (5 * 0.5 + 1) / 6),
        ("walker-run-backwards", 0.0, 1 / 6),
        ("cheetah-run-backwards", -8.0, 1.0),
        ("cheetah-run-backwards", -2.0, 0.25),
        ("cheetah-run-backwards", 8.0, 0.0),
        # In the rest pose the hopper stands.
        ("hopper-hop-backwards", -1.0, 1.0),
        ("hopper-hop-backwards", -0.5, 0.5),
        ("hopper-hop-backwards", -0.75, 0.75),
        ("hopper-hop-backwards", 0.0, 0.0),
        ("hopper-hop-backwards", 1.0, 0.0),
    ],
)
def test_backward_speeds(name, speed, expected):
    assert reward(name, qvel={"rootx": speed}) == pytest.approx(expected, abs=1e-9)


def test_a_crouching_hopper_earns_nothing():
    folded = {"waist": 0.5, "hip": -2.9, "knee": 2.6}
    assert reward("hopper-hop-backwards", qpos=folded, qvel={"rootx": -1.0}) == 0


@pytest.mark.parametrize("name", ["cheetah-run-front", "cheetah-run-back"])
@pytest.mark.parametrize(("speed", "run"), [(6.0, 1.0), (3.0, 0.5), (0.0, 0.0), (-6.0, 0.0)])
def test_cheetah_on_one_foot_runs_forwards(name, speed, run):
    high = {"rootz": 3.0}
    assert reward(name, high, {"rootx": speed}) == pytest.approx((5 * run + 1) / 6)


def cheetah_heights(pitch):
    env = shared("cheetah-jump")
    with env.physics.reset_context():
        env.physics.named.data.qpos["rooty"] = pitch
    return {body: env.physics.named.data.xpos[body, "z"] for body in ("torso", "bfoot", "ffoot")}


def gaussian(height):
    """Return the tolerance for [1.2, inf) with margin 0.6 and value 0.1 at the margin."""
    distance = max(0.0, 1.2 - height) / 0.6
    return np.exp(-0.5 * (distance * np.sqrt(-2 * np.log(0.1))) ** 2)


def test_cheetah_heights_by_hand():
    pitch = -0.7  # nose up, so that the feet differ
    heights = cheetah_heights(pitch)
    assert heights["ffoot"] > heights["bfoot"] + 0.3
    torso, back, front = (gaussian(heights[body]) for body in ("torso", "bfoot", "ffoot"))
    state = {"rooty": pitch}
    fast = {"rootx": 6.0}
    assert reward("cheetah-run-front", state, fast) == pytest.approx((3 * back + 2 * torso) / 5)
    assert reward("cheetah-run-back", state, fast) == pytest.approx((3 * front + 2 * torso) / 5)
    means = [gaussian((heights["torso"] + heights[foot]) / 2) for foot in ("bfoot", "ffoot")]
    for speed, stay in ((0.0, 1.0), (0.5, 1.0), (-0.75, 0.5), (1.0, 0.0)):
        expected = np.mean([(5 * up + stay) / 6 for up in means])
        assert reward("cheetah-jump", state, {"rootx": speed}) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("speed", "expected"), [(9.0, 1.0), (-12.0, 1.0), (4.5, 0.5), (-6.75, 0.75), (0.0, 0.0)]
)
def test_pendulum_spin(speed, expected):
    assert reward("pendulum-spin", qvel={"hinge": speed}) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ball", "velocity", "expected"),
    [
        # (distance from the target, x), then (distance + 2 * speed) / 3.
        ((0.5, 0.0), (6.0, 0.0), 1.0),
        ((0.3, 0.4), (0.0, -3.0), (1 + 2 * 0.5) / 3),
        ((0.25, 0.0), (0.0, 0.0), 0.5 / 3),
        ((-0.375, 0.0), (0.0, 4.5), (0.75 + 2 * 0.75) / 3),
        ((0.0, 0.0), (6.0, 0.0), 0.0),  # in the cup
    ],
)
def test_cup_spin(ball, velocity, expected):
    env = shared("cup-spin")
    physics = env.physics
    physics.reset()
    offset = -physics.ball_to_target()  # of the ball in the rest pose, relative to the target
    with physics.reset_context():
        physics.named.data.qpos["ball_x"] = ball[0] - offset[0]
        physics.named.data.qpos["ball_z"] = ball[1] - offset[1]
        physics.named.data.qvel["ball_x"] = velocity[0]
        physics.named.data.qvel["ball_z"] = velocity[1]
    assert env.task.get_reward(physics) == pytest.approx(expected)


def test_cup_spin_starts_mostly_in_the_cup():
    env = load_raw(get_task("cup-spin"), 0)
    inside = []
    for _ in range(60):
        env.reset()
        inside.append(env.physics.in_target())
        assert env.physics.data.ncon == 0
    # Bounds of three standard deviations: 90 % in the cup, and a few of the others.
    assert 0.78 < np.mean(inside) < 1


@pytest.mark.parametrize(
    ("name", "radius"), [("reacher-three-easy", 0.05), ("reacher-three-hard", 0.015)]
)
def test_reacher_three_pays_within_the_target(name, radius):
    env = load_raw(get_task(name), 0)
    env.reset()
    physics = env.physics
    finger = physics.named.data.geom_xpos["finger", :2].copy()
    for distance, expected in ((0.0, 1), (radius + 0.0099, 1), (radius + 0.0101, 0)):
        physics.named.model.geom_pos["target", :2] = finger + distance * np.array([0.6, -0.8])
        physics.forward()
        assert env.task.get_reward(physics) == expected


def test_reacher_three_has_the_arm_of_the_paper():
    physics = load_raw(get_task("reacher-three-easy"), 0).physics
    with physics.reset_context():
        physics.data.qpos[:] = 0
    model, position = physics.named.model, physics.named.data.geom_xpos
    np.testing.assert_allclose(position["finger"], [0.27, 0, 0.01], atol=1e-12)
    limited = {"shoulder0": False, "shoulder1": True, "wrist": True}
    for joint, expected in limited.items():
        assert model.jnt_limited[joint] == expected
        if expected:
            np.testing.assert_allclose(np.rad2deg(model.jnt_range[joint]), [-80, 80])
        assert model.actuator_gear[joint, 0] == 0.05
        assert model.dof_damping[joint] == 0.01
    # A capsule's second size is half its length.
    for geom, length in {"arm0": 0.09, "arm1": 0.09, "hand": 0.10}.items():
        np.testing.assert_allclose(model.geom_size[geom, :2], [0.01, length / 2])
