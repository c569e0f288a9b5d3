"""The library: lazy, typed, and equal to the commands."""

from __future__ import annotations

import functools
import inspect
import pickle
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tdmpc2
from tdmpc2.api import _path
from tdmpc2.common.run.resume_checks import RunResult
from tdmpc2.common.system.errors import UserError
from tests.runs import TINY, outcome, tiny

OPTIONS = ("eval_every", "eval_episodes", "checkpoint_minutes", "threads", "device")
SETTINGS = {k: v for k, v in TINY.items() if k not in (*OPTIONS, "task", "env_steps", "compile")}
QUICK = {**{k: TINY[k] for k in OPTIONS}, "compile": False, "progress": False}
FUNCTIONS = [name for name in tdmpc2.__all__ if name != "LoadedRun"]


def test_importing_it_loads_no_library() -> None:
    code = "import sys, tdmpc2; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded & {"torch", "numpy", "gymnasium", "mujoco", "pandas", "msgspec"} == set()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_typed_and_documented(name: str) -> None:
    import tdmpc2.api

    function = getattr(tdmpc2.api, name)
    assert inspect.getdoc(function)
    hints = inspect.signature(function)
    assert hints.return_annotation is not inspect.Signature.empty
    assert all(p.annotation is not inspect.Parameter.empty for p in hints.parameters.values())
    assert callable(getattr(tdmpc2, name))
    assert typing.TYPE_CHECKING is False


def test_names_of_commands_are_functions_and_modules() -> None:
    code = (
        "import tdmpc2.train, tdmpc2.evaluate\n"
        "from tdmpc2 import train as command\n"
        "assert command.main and tdmpc2.evaluate.usage\n"
        "try:\n    tdmpc2.train('walker-wlk')\n"
        "except Exception as error:\n    print(error)\n"
        "try:\n    tdmpc2.evalute\n"
        "except AttributeError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "unknown task 'walker-wlk' (did you mean 'walker-walk'?)",
        "module 'tdmpc2' has no attribute 'evalute'",
    ], done.stderr


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_can_be_sent_to_another_process(name: str) -> None:
    function = getattr(tdmpc2, name)
    assert pickle.loads(pickle.dumps(function)) is function


def test_training_equals_the_command_and_is_loaded_and_evaluated(tmp_path: Path) -> None:
    assert tiny(tmp_path / "command").code == 0
    runs = tmp_path / "library"
    result = tdmpc2.train("toy-pointmass", env_steps=200, runs=runs, options=QUICK, **SETTINGS)
    assert (result.state, result.step) == ("COMPLETED", 200)
    assert outcome(runs) == outcome(tmp_path / "command")
    run = tdmpc2.load_run(result.directory)
    assert (run.state, run.spec["task"]) == ("COMPLETED", "toy-pointmass")
    assert list(run.eval["env_step"]) == [0, 100, 200]
    assert list(run.train["env_step"]) == [150, 200]
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(threads + 1)
    try:
        evaluation = tdmpc2.evaluate(result.directory, episodes=3)
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert torch.get_float32_matmul_precision() == precision
    assert evaluation.returns.shape == (3,)
    numbers = {"eval_every": np.int64(100), "checkpoint_minutes": np.float32(0)}
    same = {"seed": np.int64(1), "env_steps": 2e2, "runs": runs, "options": {**QUICK, **numbers}}
    assert tdmpc2.train("toy-pointmass", **same, **SETTINGS).directory == result.directory
    file = result.directory / "eval.csv"
    whole = file.read_text()
    for content, message in (
        (f"{whole}1,2\n", "its lines have different numbers of columns"),
        (whole.replace("\n100,", "\nx,"), "could not convert"),
        (b"\xff\n1\n", "can't decode"),
    ):
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(UserError, match=rf"eval.csv: damaged \(.*{message}.*\); restore it"):
            tdmpc2.load_run(result.directory)
    header = whole.partition("\n")[0] + "\n"
    for content, rows in ((f"{whole}300,1", 3), (f"{header}0,1", 0)):  # a line is being written
        file.write_text(content)
        assert tdmpc2.load_run(result.directory).eval["env_step"].shape == (rows,)
    file.write_text("")
    assert tdmpc2.load_run(result.directory).eval == {}


def test_paths_are_those_of_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are absolute, so that results can be used from another current folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert _path("runs", "~/a") == _path("runs", Path("a")) == tmp_path / "a"
    with pytest.raises(UserError, match="runs=: a path is needed"):
        tdmpc2.train("toy-pointmass", runs="")


def test_an_agent_acts_in_an_environment() -> None:
    env = tdmpc2.make_env("walker-walk", seed=3)
    agent = tdmpc2.make_agent("sac", env, batch_size=4)
    obs, _ = env.reset()
    action = agent.act(obs[None], first=np.array([True]), explore=False)
    assert action.shape == (1, 6)
    assert agent.config.batch_size == 4
    env.step(action[0])


def test_invalid_input_is_refused(tmp_path: Path) -> None:
    env = tdmpc2.make_env("toy-pointmass")
    with pytest.raises(UserError, match="did you mean 'horizon'"):
        tdmpc2.make_agent("tdmpc2", env, horizn=2)
    with pytest.raises(UserError, match=r"unknown setting 'eval_evry' .did you mean"):
        tdmpc2.train("toy-pointmass", runs=tmp_path, options={"eval_evry": 1})
    with pytest.raises(UserError, match="contains no run"):
        tdmpc2.load_run(tmp_path)


def calls(env: Any, runs: Path) -> dict[str, tuple[Any, str]]:
    """Return calls with arguments of the wrong type, and the message of each."""
    train = functools.partial(tdmpc2.train, "toy-pointmass", runs=runs)
    result = RunResult(runs, "COMPLETED", 1, "")
    return {
        "an environment as task": (lambda: tdmpc2.make_env(env), "task=.*must be the name of a"),
        "text as seed": (lambda: tdmpc2.make_env("toy-pointmass", seed="1"), "seed='1': must be"),
        "half a seed": (lambda: tdmpc2.make_env("toy-pointmass", seed=1.5), "must be an integer"),
        "a negative seed": (lambda: tdmpc2.make_env("toy-pointmass", seed=-1), "must lie in"),
        "another environment": (
            lambda: tdmpc2.make_agent("sac", object()),
            "env: object was not made by tdmpc2.make_env",
        ),
        "a class as method": (lambda: tdmpc2.make_agent(object, env), "must be the name of a met"),
        "no such device": (lambda: tdmpc2.make_agent("sac", env, device="gpu"), "unknown device"),
        "seeds": (lambda: train(seed=[1, 2]), r"seed=\[1, 2\]: must be an integer"),
        "infinite steps": (lambda: train(env_steps=np.inf), "env_steps=inf: must be an integer"),
        "a number as variant": (lambda: train(variant=3), "variant=3: must be a text"),
        "a list as options": (lambda: train(options=["a"]), "options=.*must be a dict of options"),
        "runs in options": (lambda: train(options={"runs": "x"}), "runs is an argument of its"),
        "an option as setting": (
            lambda: train(eval_every=100),
            "eval_every is an option of the run; use options={'eval_every': …}",
        ),
        "a number as folder": (lambda: tdmpc2.train("toy-pointmass", runs=5), "must be a path"),
        "a result as run": (lambda: tdmpc2.load_run(result), "directory=.*such as train"),
        "nothing as run": (lambda: tdmpc2.evaluate(None), "run=None: must be a path"),
        "text as episodes": (lambda: tdmpc2.evaluate(runs, episodes="3"), "episodes='3': must be"),
    }


def test_arguments_of_other_types_are_refused(tmp_path: Path) -> None:
    env, runs = tdmpc2.make_env("toy-pointmass"), tmp_path / "runs"
    for name, (call, message) in calls(env, runs).items():
        with pytest.raises(UserError, match=message) as refused:
            call()
        assert "\n" not in str(refused.value), name
    assert not runs.exists()
