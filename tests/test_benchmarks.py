"""The benchmarks run, and their matmul lower bound equals the FLOPs of a gradient step."""

from __future__ import annotations

import importlib
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from baselines.dreamerv3.behavior import Noise
from tdmpc2.agent import TDMPC2
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.adapters import ADAPTERS
from tdmpc2.flops import plan_gflop, update_gflop
from tdmpc2.runners.registry import METHODS, agent_class
from tdmpc2.runners.work import count_gflop, gflop_of
from tests.baselines.shapes import random_batch as sub_batch
from tests.baselines.shapes import random_sequences
from tests.helpers import env_spec, random_batch
from tests.kill_driver import Command

FOLDER = Path(__file__).parents[1] / "benchmarks"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("size", "obs", "action", "plan", "update"),
    [("5", 24, 6, 31.6, 30.1), ("5", 223, 38, 43.4, 31.2), ("1", 24, 6, 12.2, 8.7)],
)
def test_operations_of_the_papers_sizes(
    size: str, obs: int, action: int, plan: float, update: float
) -> None:
    config = TDMPC2Config.make(model_size=size)
    assert plan_gflop(config, action) == pytest.approx(plan, abs=0.06)
    assert update_gflop(config, obs, action) == pytest.approx(update, abs=0.06)


def test_the_lower_bound_is_the_flops_of_an_update() -> None:
    """Counted by PyTorch. The bound is slightly above the actual FLOPs, which omit dQ/dz."""
    config = TDMPC2Config.make(model_size="5", batch_size=16)
    agent = TDMPC2(config, env_spec((24,), (6,)), seed=0)
    batch = random_batch(config, agent.env)
    with FlopCounterMode(display=False) as counter:
        agent.update_on(batch, agent.train_noise.update(16))
    bound = update_gflop(config, 24, 6)
    assert 0.94 * bound < counter.get_total_flops() / 1e9 <= bound


@pytest.mark.parametrize(
    ("method", "plan", "update"),
    [("sac", None, 17.6), ("tdmpc", 25.4, 35.4), ("dreamerv3", None, 615.4)],
)
def test_operations_of_the_baselines(method: str, plan: float | None, update: float) -> None:
    config = agent_class(method).config_class.make()
    if method == "tdmpc":
        config = config.for_task("walker-walk")
    found = gflop_of(method, config, 24, 6)
    assert found.get("plan") == (None if plan is None else pytest.approx(plan, abs=0.06))
    assert found["update"] == pytest.approx(update, abs=0.06)


@pytest.mark.parametrize("method", ["sac", "tdmpc", "dreamerv3"])
def test_the_lower_bound_is_the_flops_of_a_baselines_update(method: str) -> None:
    """The bound omits unused gradients of first layers, which autograd computes."""
    settings = {"model_size": "small"} if method == "dreamerv3" else {"batch_size": 32}
    cls = agent_class(method)
    env = env_spec((24,), (6,))
    agent = cls(cls.config_class.make(**settings), env, seed=0)
    kind = {"sac": 1, "tdmpc": 5}.get(method)
    with FlopCounterMode(display=False) as counter:
        if kind is None:
            noise = Noise(torch.randn(15, 1024, 6), torch.rand(15, 1024, 16))
            batch = random_sequences(env, 64, 16)
            agent.update_on(batch, torch.rand(64, 16, 16), noise)
        elif method == "sac":
            agent.update_on(sub_batch(env, 1, 32), torch.randn(32, 6), torch.randn(32, 6))
        else:
            agent.update_on(sub_batch(env, 5, 32), torch.randn(11, 32, 6))
    bound = gflop_of(method, agent.config, 24, 6)["update"]
    assert 0.97 * bound < counter.get_total_flops() / 1e9 < 1.07 * bound


@pytest.mark.parametrize("method", METHODS)
def test_declared_operations_are_those_of_a_call(method: str) -> None:
    """What a method declares is what its calls execute, to 10 %; undeclared ones are counted."""
    settings: dict[str, Any] = (
        {"batch_size": 16} if method != "dreamerv3" else {"model_size": "small"}
    )
    config = agent_class(method).config_class.make(**settings)
    config = config.for_task("walker-walk") if method == "tdmpc" else config
    counted, declared = count_gflop(method, config, 24, 6), gflop_of(method, config, 24, 6)
    assert counted["update"] == pytest.approx(declared["update"], rel=0.1)
    if method == "tdmpc2":
        assert counted["plan"] > declared["plan"]  # the code executes more than is necessary


def test_speed_measures_everything_it_names(tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    arguments = ["tasks=cartpole-swingup", "model_sizes=smoke", "threads=1", "compile=false"]
    done = run("speed.py", *arguments, "repetitions=2", "loop=1", "replay_rows=2000", f"out={out}")
    assert done.returncode == 0, done.stderr
    assert "| tdmpc2 | cartpole-swingup | smoke | 1 | fp32 |" in done.stdout
    found = json.loads(out.read_text())
    (row,) = found["rows"]
    assert min(v for k, v in row.items() if k.endswith(("_ms", "_ratio", "_gb"))) > 0
    assert found["machine"]["torch"] == torch.__version__


def test_all_methods_are_measured_in_each_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    speed = importlib.import_module("speed")
    options = speed.Options(methods=",".join(METHODS), precision="fp32,bf16", tasks="walker-walk")
    found = {(case["method"], case["precision"]) for case in speed.cases(options)}
    assert found == set(itertools.product(METHODS, ["fp32", "bf16"]))
    with pytest.raises(UserError, match="precision"):
        speed.cases(speed.Options(methods="sac", precision="bf17"))


@pytest.mark.parametrize(("lacks", "dtype"), [(True, torch.float32), (False, torch.bfloat16)])
def test_the_bound_of_bf16_is_a_product_that_the_layers_use(
    lacks: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU without bfloat16 instructions multiplies rounded values in float32."""
    monkeypatch.syspath_prepend(str(FOLDER))
    measuring = importlib.import_module("measuring")
    monkeypatch.setattr(measuring, "lacks_bf16", lambda: lacks)
    assert measuring.products(torch.device("cpu"), "bf16")["torch"]().dtype is dtype


def test_bf16_acceptance_measures_speed_and_errors(tmp_path: Path) -> None:
    """Without compilation, layers multiply by autocast, on any CPU; no target holds for that."""
    out = tmp_path / "bf16.json"
    arguments = ["task=cartpole-swingup", "model_size=smoke", "threads=1", "compile=false"]
    done = run("bf16_acceptance.py", *arguments, "repetitions=2", "updates=2", f"out={out}")
    assert done.returncode == 3, done.stderr
    found = json.loads(out.read_text())
    assert [row["precision"] for row in found["rows"]] == ["fp32", "bf16"]
    assert set(found["errors"]) == {"bf16", "autocast", "float32, other noise"}
    assert found["errors"]["bf16"] == found["errors"]["autocast"]
    assert 0 < found["errors"]["bf16"]["model_gradient"] < 0.05
    assert "\n0 targets judged. Targets hold for walker-walk, " in done.stdout
    assert "| target |" not in done.stdout


def test_targets_are_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three in each precision, for one thread; the accuracy is the same everywhere."""
    monkeypatch.syspath_prepend(str(FOLDER))
    targets = importlib.import_module("bf16_targets")
    row = {"threads": 1, "precision": "bf16", "compiled": True, "loop_ratio": 1.02}
    row |= {"plan_ratio_torch": 2.0, "update_ratio_torch": 3.5}
    met = [target.met for target in targets.speed_targets(targets.AMX, row)]
    assert met == [True, False, True]
    assert [t.met for t in targets.speed_targets(targets.AMD, row)] == [False, False, True]
    assert not list(targets.speed_targets("another CPU", row))
    assert not list(targets.speed_targets(targets.AMX, row | {"threads": 2}))
    assert not list(targets.speed_targets(targets.AMX, row | {"compiled": False}))
    errors = {"value_std": 1e-4, "overlap": 0.98, "model_gradient": 0.004, "policy_gradient": 0.0}
    assert [t.met for t in targets.error_targets({"bf16": errors})] == [True, False, False, True]


def test_hot_spots_list_the_matrix_multiplications() -> None:
    arguments = ["task=cartpole-swingup", "model_size=smoke", "compile=false", "repetitions=1"]
    done = run("hot_spots.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("aten::addmm") == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("tasks=toy-pointmass,toy-pointmass-episodic", "episodes=20", "warm_up=0"),
        pytest.param(("decisions=5", "episodes=200"), marks=pytest.mark.slow),
    ],
)
def test_environments_do_not_grow(arguments: tuple[str, ...]) -> None:
    """One task of each simulator, if none is named."""
    done = run("memory.py", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    named = arguments[0].count("toy") or sum(row.probe is not None for row in ADAPTERS.values())
    assert len(done.stdout.splitlines()) == 2 + named


def test_growth_is_the_slope_of_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of every tenth episode; 0.3 MB more in ten are 3 MB in a hundred."""
    monkeypatch.syspath_prepend(str(FOLDER))
    growth = importlib.import_module("memory").growth
    assert growth([7.0, 7.3, 7.6, 7.9]) == pytest.approx(3.0)
    assert growth([5.0, 6.0, 5.0]) == pytest.approx(0.0)


@pytest.mark.parametrize(
    "script", ["speed", "hot_spots", "environments", "memory", "bf16_acceptance"]
)
def test_bad_arguments_are_one_line(script: str) -> None:
    done = Command(["repetitons=2"], env={"PYTHONPATH": str(FOLDER)}, module=script).run()
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1


def test_seed_batches_are_measured_against_each_agent_alone(tmp_path: Path) -> None:
    out = tmp_path / "seed_batches.json"
    arguments = [
        "task=toy-pointmass",
        "model_sizes=smoke",
        "seeds=2",
        "compile=false",
    ]
    done = run("seed_batches.py", *arguments, f"out={out}")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(out.read_text())["rows"]
    assert row["update_ratio"] == pytest.approx(row["update_alone_ms"] / row["update_ms"])
    assert row["plan_ms"] > 0
    assert len(done.stdout.splitlines()) == 3


def test_benchmarks_import_each_other_as_scripts() -> None:
    """Started as a script, a benchmark finds the others in its own folder, not in a package."""
    for path in sorted(FOLDER.rglob("*.py")):
        assert "from benchmarks" not in path.read_text(), path.name
