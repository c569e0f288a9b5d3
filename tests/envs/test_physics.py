"""The repairs of physics, row by row, against arrays and rollouts of MuJoCo 2.3.1.

`tests/data/*_mujoco_2_3_1.json` explain the arrays. Those of Meta-World are what MuJoCo 2.3.1
compiles from the model files of Meta-World 3.0.0.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
import torch

from tdmpc2.common.run.run_files import RunFiles
from tdmpc2.common.run.spec import RunOptions
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.physics import (
    REPAIRS,
    Repair,
    disable_native_collision,
    recorded_physics,
    repairs_of,
    restore_dog,
)
from tdmpc2.envs.task_variants import with_switches
from tdmpc2.envs.tasks import TASKS, get_suite, get_task
from tdmpc2.runners.life_cycle import LocalRun
from tdmpc2.runners.specs import make_offline_spec, make_spec

DATA = Path(__file__).parents[1] / "data"
DOG = np.load(DATA / "dog_mujoco_2_3_1.npz")
DMCONTROL = np.load(DATA / "dmcontrol_mujoco_2_3_1.npz")
METAWORLD = np.load(DATA / "metaworld_mujoco_2_3_1.npz")
OBS_STEPS = (0, 1, 2, 5, 10, 20, 50, 100, 200)
# Rounding errors grow after that step; the other tasks are compared to the end.
CHAOTIC = {"humanoid": 50, "walker": 50}
# Domains that no task of the table belongs to, a task whose resets differ, and the dog, whose
# single steps are compared below.
LEFT_OUT = ("dog", "swimmer", "point_mass", "humanoid_CMU", "quadruped-fetch")


def raw_env(task: str, physics: str = "paper"):
    """A bare dm_control environment."""
    from tdmpc2.envs.dmcontrol.adapter import load_raw

    return load_raw(with_switches(get_task(task), {"physics": physics}), 0)


def model_of(task: str, physics: str = "paper") -> mujoco.MjModel:
    """The compiled model that a task steps."""
    env = make_env(with_switches(get_task(task), {"physics": physics}), seed=0)
    inner = env._env
    if get_task(task).domain == "dmcontrol":
        return inner.physics.model.ptr
    return inner.model if get_task(task).domain == "metaworld" else inner.mj_model


def flat(observation) -> np.ndarray:
    return np.concatenate([np.ravel(part) for part in observation.values()])


def error(ours, theirs) -> float:
    """Largest difference, relative to the largest value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def example(repair: Repair) -> str:
    """The first task of a row."""
    return next(name for name in TASKS if repair.applies_to(name))


@pytest.mark.parametrize("repair", REPAIRS, ids=lambda r: f"{r.tasks[0]} {r.changed[:20]}")
def test_every_pattern_names_a_task_and_every_repair_changes_its_model(repair):
    for pattern in repair.tasks:
        row = dataclasses.replace(repair, tasks=(pattern,))
        assert any(row.applies_to(task) for task in TASKS), pattern
    if repair.restore is None:
        return
    model = model_of(example(repair), "simulator")
    before = fingerprint(model)
    repair.restore(model)
    assert fingerprint(model) != before


def fingerprint(model: mujoco.MjModel) -> bytes:
    """The bytes of a model."""
    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer.tobytes()


@pytest.mark.parametrize("key", [k for k in DOG.files if k.startswith(("write/", "derived/"))])
def test_arrays_of_the_dog(key, dog):
    name = key.partition("/")[2]
    owner = dog.stat if name.startswith("stat.") else dog
    assert error(getattr(owner, name.removeprefix("stat.")), DOG[key]) <= 1e-12


@pytest.fixture(scope="module")
def dog() -> mujoco.MjModel:
    return raw_env("dog-stand").physics.model.ptr


def test_the_dogs_scales_of_rendering_are_kept(dog):
    plain = raw_env("dog-stand", "simulator").physics.model.ptr
    for name in ("extent", "meansize"):
        assert getattr(dog.stat, name) == getattr(plain.stat, name)
    assert dog.stat.center.tolist() == plain.stat.center.tolist()


@pytest.mark.parametrize(
    "task", [task.name for task in get_suite("dmcontrol") if "dog" in task.name]
)
def test_reset_and_first_step_of_the_dog(task):
    env = raw_env(task)
    for seed, (begin, first) in enumerate(DOG["rollout/obs"]):
        env.task.random.seed(seed)
        assert np.abs(flat(env.reset().observation) - begin).max() <= 1e-10
        action = DOG["rollout/action"][seed, 0]
        low, high = env.action_spec().minimum, env.action_spec().maximum
        step = env.step(low + (action + 1) / 2 * (high - low))
        assert np.abs(flat(step.observation) - first).max() <= 1e-10


def test_single_steps_of_the_dog(dog):
    """At least 80 % below 1e-8, the median below 1e-12; the rest has boxes in contact."""
    errors, data = [], mujoco.MjData(dog)
    low, high = dog.actuator_ctrlrange.T
    for seed in range(4):
        for place in range(DOG["step/qpos"].shape[1]):
            for name in ("qpos", "qvel", "act"):
                getattr(data, name)[:] = DOG[f"step/{name}"][seed, place]
            mujoco.mj_forward(dog, data)
            data.qacc_warmstart[:] = DOG["step/warmstart"][seed, place]
            action = DOG["rollout/action"][seed, 5 * place]
            data.ctrl[:] = low + (action + 1) / 2 * (high - low)
            for _ in range(3):
                mujoco.mj_step(dog, data)
            away = [np.abs(data.qpos - DOG["step/after_qpos"][seed, place]).max()]
            speed = np.abs(data.qvel - DOG["step/after_qvel"][seed, place]).max()
            errors.append(max(*away, 0.005 * speed))
    assert np.mean(np.array(errors) < 1e-8) >= 0.8
    assert np.median(errors) < 1e-12


def test_only_the_dog_is_taken_for_the_dog():
    with pytest.raises(ValueError, match="not dm_control's dog"):
        restore_dog(raw_env("walker-walk").physics.model.ptr)


def stock() -> list[str]:
    """Tasks of the table that the arrays have, by their names there."""
    keys = {key.partition("/")[0] for key in DMCONTROL.files if key.endswith("/obs")}
    ours = {task.env_id.replace("/", "-"): task.name for task in get_suite("dmcontrol")}
    return [key for key in sorted(keys & set(ours)) if not key.startswith(LEFT_OUT)]


@pytest.mark.parametrize("key", stock())
def test_rollouts_of_dmcontrol(key):
    """Observations of 200 steps with random actions, and their rewards."""
    (name,) = [t.name for t in get_suite("dmcontrol") if t.env_id.replace("/", "-") == key]
    env = raw_env(name)
    last = CHAOTIC.get(key.partition("-")[0], 200)
    for seed in range(4):
        env.task.random.seed(seed)
        rng = np.random.RandomState(seed + 100)
        seen = [flat(env.reset().observation)]
        spec, rewards = env.action_spec(), []
        for _ in range(last):
            action = rng.uniform(-1, 1, spec.shape)
            step = env.step(spec.minimum + (action + 1) / 2 * (spec.maximum - spec.minimum))
            seen.append(flat(step.observation))
            rewards.append(step.reward)
        wanted = [step for step in OBS_STEPS if step <= last]
        theirs = DMCONTROL[f"{key}/obs"][seed, : len(wanted)]
        assert np.abs(np.array(seen)[wanted] - theirs).max() <= 1e-6
        np.testing.assert_allclose(rewards, DMCONTROL[f"{key}/reward"][seed, :last], atol=1e-6)


@pytest.mark.parametrize("domain", ["ball_in_cup", "finger"])
def test_inverse_weights_of_dmcontrol(domain):
    name = {"ball_in_cup": "cup-catch", "finger": "finger-spin"}[domain]
    ours = model_of(name).body_invweight0
    np.testing.assert_allclose(ours, DMCONTROL[f"{domain}/body_invweight0"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("task", [task.name for task in get_suite("metaworld")])
def test_inverse_weights_of_metaworld(task):
    model = model_of(task)
    for name in ("body_invweight0", "dof_invweight0"):
        theirs = METAWORLD[f"{task}/{name}"]
        np.testing.assert_allclose(getattr(model, name), theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("task", ["mw-stick-push", "mw-stick-pull"])
def test_inertia_of_the_thermos(task):
    model, plain = model_of(task), model_of(task, "simulator")
    for name in ("body_mass", "body_inertia"):
        theirs = METAWORLD[f"mw-stick-push/{name}"]
        np.testing.assert_allclose(getattr(model, name), theirs, rtol=1e-12)
        thermos = getattr(plain, name)[-1] / theirs[-1]
        assert np.abs(thermos - 1).max() > 0.01


def test_collision_of_convex_shapes():
    """The flag is set where a row says so, and changes a step there."""
    bit = int(mujoco.mjtDisableBit.mjDSBL_NATIVECCD)
    for task in ("dog-run", "mw-push", "myo-hand-pose", "walker-walk", "mw-door-open"):
        listed = any(repair.restore is disable_native_collision for repair in repairs_of(task))
        assert bool(model_of(task).opt.disableflags & bit) == listed
        assert not model_of(task, "simulator").opt.disableflags & bit


@pytest.mark.parametrize(("physics", "within"), [("paper", 0.02), ("simulator", 0.024)])
@pytest.mark.parametrize("task", ["mw-button-press-topdown", "mw-button-press-topdown-wall"])
def test_success_of_the_buttons(task, physics, within, monkeypatch):
    env = make_env(with_switches(get_task(task), {"physics": physics}), seed=0)
    env.reset()
    step = env._env.step
    for distance in (within - 1e-4, within + 1e-4):

        def near(action, distance=distance):
            obs, reward, terminated, truncated, info = step(action)
            success = float(distance <= 0.024)  # as Meta-World 3.0 has it
            info = {**info, "obj_to_target": distance, "success": success}
            return obs, reward, terminated, truncated, info

        monkeypatch.setattr(env._env, "step", near)
        assert env.step(np.zeros(4))[4]["success"] == float(distance <= within)


@pytest.mark.parametrize("task", ["walker-walk", "cheetah-run", "cartpole-swingup", "mw-door-open"])
def test_tasks_without_a_repair_are_unchanged(task):
    assert not repairs_of(task)
    assert fingerprint(model_of(task)) == fingerprint(model_of(task, "simulator"))


@pytest.mark.parametrize("task", ["finger-spin", "cup-catch", "mw-dial-turn", "dog-run"])
def test_the_simulators_own_physics(task):
    """`physics=simulator` leaves the model as it was compiled."""
    if get_task(task).domain == "dmcontrol":
        from dm_control import suite

        env = suite.load(*get_task(task).env_id.split("/"), task_kwargs={"random": 0})
        plain = env.physics.model.ptr
    else:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        plain = ALL_V3_ENVIRONMENTS["dial-turn-v3"](reward_function_version="v2").model
    ours = model_of(task, "simulator")
    for name in ("body_mass", "body_inertia", "body_invweight0", "dof_invweight0", "dof_damping"):
        assert getattr(ours, name).tolist() == getattr(plain, name).tolist()
    assert ours.opt.disableflags == plain.opt.disableflags


def test_physics_is_part_of_the_identity_of_affected_tasks_only():
    one, other = (
        make_spec("tdmpc2", "cup-catch", 1, task_switches={"physics": physics})
        for physics in ("paper", "simulator")
    )
    assert one == make_spec("tdmpc2", "cup-catch", 1)
    assert (one.variant, other.variant) == ("default", "physics-simulator")
    assert one.identity != other.identity
    of_0_4_0 = dataclasses.replace(one, task_switches=())
    assert of_0_4_0.identity not in (one.identity, other.identity)
    plain = make_spec("tdmpc2", "walker-walk", 1)
    chosen = make_spec("tdmpc2", "walker-walk", 1, task_switches={"physics": "simulator"})
    assert plain == chosen
    assert plain.task_switches == ()


@pytest.mark.parametrize("task", ["cup-catch", "walker-walk"])
def test_a_run_of_0_4_0_stays_as_it_is(task, tmp_path, capsys):
    """A start under the present physics names it, and begins in a directory of its own."""
    options = RunOptions(runs=tmp_path)
    spec = make_spec("tdmpc2", task, 1)
    earlier = dataclasses.replace(spec, task_switches=())
    old = earlier.run_dir(tmp_path)
    agent = SimpleNamespace(config=SimpleNamespace(precision="fp32"))
    run = LocalRun(spec, options, torch.device("cpu"))
    run.agent = agent
    with contextlib.ExitStack() as stack:
        run.acquire(stack)
    assert capsys.readouterr().err == ""  # there is no such run
    run.directory.rename(tmp_path / "moved away")
    old.mkdir(parents=True)
    RunFiles(old, earlier, {}).write_spec({})
    with contextlib.ExitStack() as stack:
        again = LocalRun(spec, options, torch.device("cpu"))
        again.agent = agent
        again.acquire(stack)
    told = capsys.readouterr().err
    if task == "cup-catch":
        assert run.directory != old
        assert str(old) in told
        assert "version 0.4.0" in told
    else:
        assert run.directory == old  # the repairs leave this task as it was
        assert told == ""


def test_physics_of_multi_task_agents():
    plain = make_offline_spec("tdmpc2", "walker-walk,walker-run", 1, "data")
    assert plain.task_switches == ()
    paper = make_offline_spec("tdmpc2", "walker-walk,cup-catch", 1, "data")
    assert paper.task_switches == (("physics", "paper"),)
    other = make_offline_spec("tdmpc2", "walker-walk,cup-catch", 1, "data", physics="simulator")
    assert other.identity != paper.identity


def test_an_unknown_physics_is_refused():
    from tdmpc2 import train

    with pytest.raises(UserError, match="physics"):
        train.parse(["task=cup-catch", "physics=real"])


@pytest.mark.parametrize(
    ("spec", "physics"),
    [
        ({"task": "cup-catch"}, "0.4.0"),
        ({"task": "cup-catch", "protocol": {"physics": "simulator"}}, "simulator"),
        ({"task": "walker-walk"}, "paper"),
        # Another switch, in a task without repairs.
        ({"task": "mw-assembly", "protocol": {"seeded_resets": False}}, "paper"),
        ({"task": "mt30", "tasks": ["walker-walk", "cup-catch"]}, "0.4.0"),
    ],
)
def test_physics_of_records(spec, physics):
    assert recorded_physics(spec) == physics
