"""Task switches: their effects, the tasks that they apply to, and their names."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sweeps.planning.grid import group_seeds
from sweeps.planning.planned_run import PlannedRun
from tdmpc2 import train
from tdmpc2.common.numerics.seeding import seed_globals
from tdmpc2.common.run.spec import RunOptions, RunSpec
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.task_variants import task_of, with_switches
from tdmpc2.envs.tasks import get_task
from tdmpc2.envs.workers import WorkerEnvs
from tdmpc2.runners.setup import env_arguments, make_env_group, training_envs
from tdmpc2.runners.specs import make_spec

UNSEEDED = {"seeded_resets": False}
STOPPING = {"stop_at_success": True}


@pytest.mark.parametrize("stops", [True, False])
def test_an_episode_ends_at_success_or_goes_on(stops, monkeypatch):
    spec = make_spec("tdmpc2", "lift-cube", 1, task_switches={"stop_at_success": stops})
    env = make_env(**env_arguments(spec), seed=1)
    env.reset()
    assert env.step(np.zeros(4))[2:4] == (False, False)
    monkeypatch.setattr(env._env, "evaluate", lambda **_: {"success": np.bool_(True)})
    *_, terminated, truncated, info = env.step(np.zeros(4))
    assert (terminated, truncated, info["success"]) == (stops, False, 1.0)
    if stops:
        with pytest.raises(RuntimeError, match="outside an episode"):
            env.step(np.zeros(4))
    assert task_of(spec).episodic == stops  # so that the agent learns to predict termination
    env.close()


def goals(env, resets: int = 3) -> list[list[float]]:
    return [env.reset()[0][-3:].tolist() for _ in range(resets)]


def test_unseeded_resets_are_drawn_from_the_global_generator():
    task = dataclasses.replace(get_task("mw-reach"), seeded_resets=False)
    env, other = (make_env(task, seed=seed) for seed in (1, 2))
    seed_globals(7)
    first = goals(env)
    seed_globals(7)
    assert goals(other) == first  # for any seeds of the environments
    assert goals(env) != first
    # A sample of one environment changes the next of the other, as an evaluation would.
    seed_globals(7)
    assert [goals(env, 1)[0], goals(other, 1)[0], goals(env, 1)[0]] == first
    state = env.generator_state()
    again = goals(env)
    env.set_generator_state(state)
    assert goals(env) == again
    seeded = make_env("mw-reach", seed=1)
    before = np.random.get_state()[1].tolist()
    goals(seeded)
    assert np.random.get_state()[1].tolist() == before


def test_environments_that_share_the_global_generator_share_a_process():
    spec = make_spec("tdmpc2", "mw-reach", 1, task_switches=UNSEEDED)
    group = make_env_group(env_arguments(spec), 2, workers=2)
    assert not isinstance(group, WorkerEnvs)
    group.close()
    wanted = [{**env_arguments(spec), "seed": seed} for seed in (0, 1)]
    envs = [make_env(**arguments) for arguments in wanted]
    assert training_envs(envs, wanted, cores=3) == envs


def test_part_of_identity_and_name():
    plain = make_spec("tdmpc2", "mw-reach", 1, task_switches={"seeded_resets": True})
    assert plain == make_spec("tdmpc2", "mw-reach", 1)
    spec = make_spec("tdmpc2", "mw-reach", 1, overrides={"num_q": 2}, task_switches=UNSEEDED)
    assert spec.identity != make_spec("tdmpc2", "mw-reach", 1, overrides={"num_q": 2}).identity
    assert spec.variant == "num_q-2+seeded_resets-False"
    arguments = ["task=mw-reach", "num_q=2", "seeded_resets=false"]
    assert train.parse(arguments)[0] == [spec]
    assert RunSpec.from_json(spec.to_json()) == spec


def test_unchanged_protocols_keep_the_identity_of_older_runs():
    """Runs that were started before the switches existed can be resumed."""
    assert make_spec("tdmpc2", "walker-walk", 1).identity == "e6de1a9d94"


@pytest.mark.parametrize(
    ("task", "task_switches", "domain"),
    [("dog-run", STOPPING, "maniskill2"), ("lift-cube", UNSEEDED, "metaworld")],
)
def test_a_switch_that_changes_nothing_is_refused(task, task_switches, domain):
    with pytest.raises(UserError, match=f"no effect in {task}; it applies only to {domain} tasks"):
        make_spec("tdmpc2", task, 1, task_switches=task_switches)


def test_a_switch_of_a_newer_version_is_refused():
    with pytest.raises(UserError, match="later=True: unknown task switch"):
        with_switches(get_task("mw-reach"), {"later": True})


@pytest.mark.parametrize(
    ("task", "task_switches"), [("lift-cube", STOPPING), ("mw-reach", UNSEEDED)]
)
def test_seeds_of_such_runs_get_processes_of_their_own(task, task_switches):
    specs = [make_spec("tdmpc2", task, seed, task_switches=task_switches) for seed in (1, 2, 3)]
    runs = [PlannedRun(spec, spec.run_dir(Path("runs"))) for spec in specs]
    assert [len(group) for group in group_seeds(runs, 3)] == [1, 1, 1]
    with pytest.raises(UserError, match="train its seeds one by one"):
        train.train(specs, RunOptions(runs=Path("/nonexistent")))
