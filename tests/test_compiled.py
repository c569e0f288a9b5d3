"""Compiled planning and learning: the same numbers, and no crash where compiling fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tdmpc2 import acceleration, kernels
from tdmpc2.agent import TDMPC2
from tdmpc2.common.numerics.compile import Compiler
from tdmpc2.common.training.loop_requests import Act
from tdmpc2.seed_batch import SeedBatch
from tests.golden import Golden
from tests.helpers import env_spec, filled_replay, make_agent, random_batch, tiny_config
from tests.kill_driver import Blow
from tests.runs import arguments, outcome, run_directory, tiny
from tests.test_parity import assert_close

CPU = torch.device("cpu")
# Wide enough for the kernels, which take 16 units and some 64 to 256 rows at a time.
WIDE = {"mlp_dim": 32, "latent_dim": 32, "num_samples": 256, "num_pi_samples": 24}


@pytest.fixture(autouse=True)
def _quiet_compiler() -> Iterator[None]:
    """A warning means that compiling was given up, which these tests must see."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


@pytest.fixture(params=["paper_single_task", "head2026_multi_task"])
def golden(request: pytest.FixtureRequest) -> Golden:
    """A recorded agent of one task, and one of several."""
    return Golden(request.param)


def compiled(agent: TDMPC2) -> tuple[TDMPC2, Compiler]:
    return agent, acceleration.install(agent)


def test_golden_parity_with_everything_on(golden: Golden) -> None:
    """A planning call and a gradient step of the recorded agent, as in `test_parity`."""
    agent, compiler = compiled(golden.agent())
    case = "plan/t0=1,eval=0"
    task = golden("plan/task").long() if golden.multitask else None
    result = agent.functions.plan(
        agent.config,
        agent.model,
        golden("plan/obs"),
        agent.model.context(task),
        agent.discount(task, 1),
        agent.warm_start(np.array([True]), explore=True),
        golden.plan_noise(case),
        min_std=agent.min_std(),
        preparation=agent.functions.prepare,
        iteration=agent.functions.iterate,
    )
    assert_close(result.action, golden(f"{case}/action"), rtol=1e-4, atol=1e-5)
    assert_close(result.mean, golden(f"{case}/mean"), rtol=1e-4, atol=1e-5)
    metrics, _ = agent.update_on(golden.batch(), golden.update_noise("update1"))
    for key in ("consistency_loss", "reward_loss", "value_loss", "pi_loss", "grad_norm"):
        recorded = golden(f"update1/info/{key}").float()
        assert_close(metrics[key], recorded, rtol=1e-4, atol=1e-6)
    weights = agent.model.state_dict()
    for key, recorded in golden.weights("update1/state_dict/").items():
        torch.testing.assert_close(weights[key], recorded, rtol=0, atol=1e-5, msg=key)
    assert compiler.enabled


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(WIDE, id="kernels"),
        pytest.param({"num_q": 2}, id="num_q=2"),
        pytest.param({"num_q": 1, "simnorm_dim": 4}, id="other groups", marks=pytest.mark.slow),
        pytest.param({"hidden_norm": "none"}, id="no norms", marks=pytest.mark.slow),
        # All samples are elites: which are best may hang on the last of 8 bits.
        pytest.param({"precision": "bf16", "num_elites": 12}, id="bf16", marks=pytest.mark.slow),
    ],
)
def test_compiled_equals_plain(overrides: dict[str, object]) -> None:
    """Updates leave the same weights, and plans between them the same actions.

    The last plan comes after a large step, and would show weights blocked before it.
    """
    config = tiny_config(**overrides)
    rtol, weight_atol = 1e-3, 1e-5
    if config.precision == "bf16":
        # Plain functions round what lies between two products to 8 bits; compiled ones leave out
        # some of that. Adam's first steps are as long for gradients near zero, whatever their sign.
        rtol, weight_atol = 2**-6, 4 * config.lr
    plain, (fast, compiler) = make_agent(config), compiled(make_agent(config))
    obs = np.random.default_rng(0).normal(size=(1, 5)).astype(np.float32)

    def compare_actions(*, first: bool) -> None:
        actions = [a.act(obs, first=np.array([first]), explore=True) for a in (plain, fast)]
        atol = 0.1 * rtol
        if config.precision == "bf16":  # the action is one of them, in the order of their values
            actions, atol = [a.previous_mean[True] for a in (plain, fast)], rtol
        np.testing.assert_allclose(*actions, rtol=rtol, atol=atol)

    compare_actions(first=True)
    for seed in range(2):
        batch = random_batch(config, env_spec(), seed)
        metrics = [a.update_on(batch, a.train_noise.update(6))[0] for a in (plain, fast)]
        for name, value in metrics[0].items():
            torch.testing.assert_close(metrics[1][name], value, rtol=rtol, atol=1e-4, msg=name)
    weights = fast.model.state_dict()
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=weight_atol, msg=name)
    for group in fast.optimizer.param_groups:
        group["lr"] = 0.1
    fast.update_on(batch, fast.train_noise.update(config.batch_size))
    plain.load_state_dict(fast.state_dict())
    if config.precision == "fp32":  # weights so large leave other elites after other rounding
        compare_actions(first=False)
    assert compiler.enabled


def test_failing_compilation_is_given_up_with_a_warning() -> None:
    """The result is that of the plain function, and whoever asked is told once."""
    compiler, told = Compiler(CPU), []

    def double(x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            raise ValueError("no such thing")
        return 2 * x

    call = compiler.protect(compiler.compile(double))
    compiler.switch_on(lambda: told.append(True))
    with pytest.warns(RuntimeWarning, match="torch.compile failed.*compile=false"):
        assert call(torch.tensor(3.0)) == 6.0
    assert (compiler.enabled, told) == (False, [True])
    assert call(torch.tensor(4.0)) == 8.0
    assert told == [True]


def test_errors_of_the_function_itself_are_the_callers() -> None:
    compiler = Compiler(CPU)

    def refuse(x: Tensor) -> Tensor:
        raise ValueError("negative")

    call = compiler.protect(compiler.compile(refuse))
    compiler.switch_on()
    with pytest.raises(ValueError, match="negative"):
        call(torch.ones(2))


def without_openssl(folder: Path) -> str:
    """Return a PATH with all programs but `openssl`, which torch needs to precompile headers."""
    programs = folder / "programs"
    programs.mkdir()
    found = {path.name: path for place in os.get_exec_path() for path in Path(place).glob("*")}
    for name in found.keys() - {"openssl"}:
        (programs / name).symlink_to(found[name])
    return str(programs)


def test_compiling_needs_no_openssl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", without_openssl(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "new"))
    assert shutil.which("openssl") is None
    compiler = Compiler(CPU)
    call = compiler.protect(compiler.compile(lambda x: 3 * x + torch.cos(x)))
    compiler.switch_on()
    assert call(torch.zeros(2)).tolist() == [1, 1]
    assert compiler.enabled


def test_nothing_is_compiled_until_it_is_asked_for() -> None:
    compiler = Compiler(CPU)
    seen = compiler.compile(lambda x: torch.compiler.is_compiling())
    assert seen(torch.ones(1)) is False
    compiler.switch_on()
    assert seen(torch.ones(1)) is True


def test_the_kernels_are_built_here() -> None:
    """Without them the tests above would compare less than they say."""
    assert kernels.load()


def test_a_compiled_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Killed among the updates and begun anew in another process, as in `test_resume`."""
    sizes = {"mlp_dim": 16, "latent_dim": 16, "num_samples": 256, "compile": "true"}
    whole = tiny(tmp_path / "whole", **sizes)
    assert (whole.code, whole.err) == (0, "")
    blow = Blow("tdmpc2.world_model:WorldModel.update_target", 40)
    assert tiny(tmp_path / "killed", blow, **sizes).code == -signal.SIGKILL
    assert tiny(tmp_path / "killed", **{**sizes, "compile": None}).code == 0
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    plain = tiny(tmp_path / "plain", **{**sizes, "compile": "false"})
    assert plain.code == 0
    assert outcome(tmp_path / "plain") != outcome(tmp_path / "whole")  # it was compiled indeed


def test_a_compiled_seed_batch_equals_plain_agents() -> None:
    """Two seeds as one batch, kernels and all, against each alone without compilation."""
    config = tiny_config(**WIDE)
    batched, alone = ([make_agent(config, seed=seed) for seed in range(2)] for _ in range(2))
    batch = SeedBatch(batched, [True, True])
    compiler = acceleration.install(batch)
    obs = np.random.default_rng(0).normal(size=(2, 1, 5)).astype(np.float32)
    for first in (True, False):
        request = {"first": np.array([first]), "explore": True}
        actions = batch.act([Act(o, **request) for o in obs])
        for k, agent in enumerate(alone):
            np.testing.assert_allclose(
                actions[k], agent.act(obs[k], **request), rtol=1e-3, atol=1e-4
            )
        replays = [[filled_replay(config, env_spec(), k) for k in range(2)] for _ in range(2)]
        metrics = batch.update(replays[0])
        for k, (agent, replay) in enumerate(zip(alone, replays[1], strict=True)):
            for name, value in agent.update(replay).items():
                torch.testing.assert_close(metrics[k][name], value, rtol=1e-4, atol=1e-5, msg=name)
            weights = batched[k].model.state_dict()
            for name, value in agent.model.state_dict().items():
                torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-5, msg=name)
    assert compiler.enabled


# A compiler that gets Ctrl-C, as all processes of a terminal do, once the session has begun.
INTERRUPTED_COMPILER = """#!/bin/sh
case "$*" in
  *.main.cpp*) if grep -qs RUNNING {runs}/*/*/*/*/status.json; then kill -INT 0; sleep 60; fi ;;
esac
exec g++ "$@"
"""


def test_ctrl_c_during_compilation_is_no_failure(tmp_path: Path) -> None:
    """The compiler dies of it too; the run must not go on without compilation when resumed."""
    runs, compiler = tmp_path / "runs", tmp_path / "g++"
    compiler.write_text(INTERRUPTED_COMPILER.format(runs=runs))
    compiler.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "tdmpc2.train", *arguments(runs, compile="true")],
        env={
            **os.environ,
            "CXX": str(compiler),
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "new"),
            "PATH": without_openssl(tmp_path),  # no headers are compiled, which takes half a minute
        },
        start_new_session=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.startswith("stopped while functions were being compiled; run the same")
    assert json.loads((run_directory(runs) / "numeric.json").read_text())["compile"]
