"""Environments in worker processes: equal results, and processes that end with their owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from tdmpc2.common.run.spec import RunOptions
from tdmpc2.common.system.errors import StoppedError, UserError
from tdmpc2.common.training.evaluation import UniformPolicy, evaluate
from tdmpc2.common.training.vector_env import SerialEnvs
from tdmpc2.envs import workers
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.tasks import get_task
from tdmpc2.envs.workers import RemoteEnv, WorkerEnvs, WorkerError, WorkerGoneError
from tdmpc2.runners import life_cycle, online
from tdmpc2.runners.setup import make_env_group, training_envs
from tdmpc2.runners.specs import make_spec

ARGUMENTS = [{"task": get_task("toy-pointmass-episodic"), "seed": i} for i in range(5)]
SEEDS = [3, 1, 4, 1, 5]


@pytest.fixture
def group():
    """Five environments in two processes."""
    group = WorkerEnvs(ARGUMENTS, num_workers=2)
    yield group
    group.close()


def test_the_results_are_those_of_one_process(group):
    """Episodes end at different times, so that requests contain fewer and fewer environments."""
    serial = SerialEnvs([make_env(**arguments) for arguments in ARGUMENTS])
    results = [evaluate(UniformPolicy(2, 0), envs, SEEDS) for envs in (serial, group, group)]
    assert len(set(results[0].lengths.tolist())) > 1
    for result in results[1:]:
        for name, expected in vars(results[0]).items():
            np.testing.assert_array_equal(getattr(result, name), expected)


@pytest.mark.parametrize("task", ["cartpole-swingup", "mw-push", "myo-hand-pose-hard", "lift-cube"])
def test_simulators_answer_bit_for_bit_as_in_one_process(task):
    arguments = [{"task": get_task(task), "seed": i} for i in range(2)]
    serial = SerialEnvs([make_env(**each) for each in arguments])
    group = WorkerEnvs(arguments, num_workers=2)
    np.testing.assert_array_equal(group.reset([8, 9]), serial.reset([8, 9]))
    action = np.full(get_task(task).action_dim, 0.3, dtype=np.float32)
    for _ in range(5):
        answers = [envs.begin_step({0: action, 1: -action})() for envs in (group, serial)]
        for i in range(2):
            np.testing.assert_array_equal(answers[0][i].obs, answers[1][i].obs)
            assert answers[0][i][1:] == answers[1][i][1:]
    group.close()


@pytest.mark.parametrize("task", ["cartpole-swingup", "toy-pointmass-episodic"])
def test_a_training_environment_in_a_process_of_its_own(task):
    """The episodes are equal, and equal again after restoring the generator's state."""
    arguments = {"task": get_task(task), "seed": 5}
    here = make_env(**arguments)
    there = RemoteEnv(arguments, make_env(**{**arguments, "seed": 0}))
    action = np.full(get_task(task).action_dim, 0.3, dtype=np.float32)
    for _ in range(2):
        states = [env.generator_state() for env in (here, there)]
        for _ in range(2):
            np.testing.assert_array_equal(here.reset()[0], there.reset()[0])
            for _ in range(4):
                ours, theirs = (env.begin_step(action)() for env in (there, here))
                np.testing.assert_array_equal(ours[0], theirs[0])
                assert ours[1:4] == theirs[1:4]
                assert all(ours[4][name] == theirs[4][name] for name in ours[4])
            for env, state in zip((here, there), states, strict=True):
                env.set_generator_state(state)
    np.testing.assert_array_equal(here.reset(seed=9)[0], there.reset(seed=9)[0])
    assert there.observation_space == here.observation_space
    assert there.action_repeat == here.action_repeat
    there.close()


def test_training_environments_get_processes_where_cores_allow():
    wanted = ARGUMENTS[:2]
    for threads, remote in ((2, False), (3, True)):
        envs = training_envs([make_env(**each) for each in wanted], wanted, threads)
        assert [isinstance(env, RemoteEnv) for env in envs] == [remote, remote]
        for env in envs:
            env.close()
    (alone,) = training_envs([make_env(**wanted[0])], wanted[:1], 8)
    assert not isinstance(alone, RemoteEnv)


def test_no_more_workers_than_environments():
    group = WorkerEnvs(ARGUMENTS[:2], num_workers=8)
    assert len(group) == 2
    assert len(group._workers) == 2
    group.close()


def test_what_cannot_be_made_is_said_here():
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(UserError, match="has no pixel observations"):
        WorkerEnvs([{"task": get_task("mw-push"), "seed": 0, "obs": "rgb"}], num_workers=1)
    assert {child.pid for child in psutil.Process().children()} == before


def test_an_error_inside_shows_its_trace(group):
    group.reset(SEEDS)
    with pytest.raises(WorkerError, match=r"(?s)Traceback.*action has shape"):
        group.begin_step({0: np.zeros(7)})()


def test_a_worker_that_was_killed_is_noticed(group):
    group.reset(SEEDS)
    os.kill(group._workers[1]._process.pid, signal.SIGKILL)
    with pytest.raises(WorkerGoneError, match=r"exit code -9.*the same command resumes the run"):
        group.reset(SEEDS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_signals_to_a_whole_run_do_not_end_workers(group, number):
    """The run stops by itself after the current decision."""
    group.reset(SEEDS)
    for worker in group._workers:
        os.kill(worker._process.pid, number)
    assert group.reset(SEEDS).shape == (5, 4)


def test_workers_end_with_the_process_that_owns_them():
    code = (
        "import os, sys\n"
        "from tests.envs.test_workers import ARGUMENTS, WorkerEnvs\n"
        "group = WorkerEnvs(ARGUMENTS, 2)\n"
        "print(*(worker._process.pid for worker in group._workers), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert_they_end(code, 2)


def test_a_worker_that_hangs_ends_with_the_process_that_owns_it():
    """It does not read its pipe, which would tell it."""
    worker = (
        "import os, threading, time\n"
        "from tdmpc2.envs import worker_process as module\n"
        "module.CLOSE_SECONDS = module.POLL_SECONDS = 0.05\n"
        "arguments = (os.getppid(),)\n"
        "threading.Thread(target=module._end_with, args=arguments, daemon=True).start()\n"
        "print(os.getpid(), flush=True)\n"
        "time.sleep(1000)\n"
    )
    code = (
        "import os, subprocess, sys\n"
        f"worker = subprocess.Popen([sys.executable, '-c', {worker!r}], stdout=subprocess.PIPE)\n"
        "print(worker.stdout.readline().decode(), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert_they_end(code, 1)


def test_closing_does_not_wait_for_a_worker_that_hangs(group, monkeypatch):
    monkeypatch.setattr(workers, "CLOSE_SECONDS", 0.1)
    processes = [worker._process for worker in group._workers]
    os.kill(processes[0].pid, signal.SIGSTOP)
    group.close()
    assert processes[0].returncode == -signal.SIGKILL
    assert processes[1].returncode is not None


def assert_they_end(code, number):
    """Assert that the processes end whose ids a program prints before it is killed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = [int(argument) for argument in done.stdout.split()]
    assert len(pids) == number
    for _ in range(200):
        if not any(psutil.pid_exists(pid) and not is_dead(pid) for pid in pids):
            return
        time.sleep(0.05)  # workers end when their pipe is closed
    raise AssertionError("workers outlive their owner")


def is_dead(pid):
    """Return whether a process is a zombie."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_worker_loads_no_torch():
    code = "import sys, tdmpc2.envs.workers; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize(
    ("threads", "chosen", "expected"),
    [
        (16, None, 3),
        (4, 2, 2),
        (None, None, 0),  # torch has one thread here, as in sweeps on one machine
    ],
)
def test_evaluations_of_all_runs_of_a_process_share_its_threads(
    threads, chosen, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(life_cycle, "usable_cores", lambda: 8)
    found = []

    def made(wanted, num_envs, workers):
        found.append(workers)
        if len(found) == 2:
            raise StoppedError("both runs have been seen")
        return make_env_group(wanted, num_envs, 0)

    monkeypatch.setattr(online, "make_env_group", made)
    small = {"model_size": "smoke"}
    specs = [make_spec("tdmpc2", "toy-pointmass", seed, overrides=small) for seed in (1, 2)]
    how = {"runs": tmp_path, "device": "cpu", "compile": False}
    options = RunOptions(threads=threads, eval_workers=chosen, **how)
    with pytest.raises(StoppedError):
        online.run_seeds(specs, options)
    assert found == [expected, expected]
