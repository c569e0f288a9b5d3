"""Agents whose layers are the bfloat16 kernels: planning, updates, resuming."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tdmpc2 import acceleration
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.numerics import fused_bf16
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.kernels import bf16
from tdmpc2.kernels.bf16_layers import Bf16EnsembleLinear, Bf16Linear, Bf16NormedLinear
from tests.helpers import env_spec, make_agent, random_batch, tiny_config
from tests.kill_driver import Blow, Command
from tests.runs import arguments, outcome, run_directory

pytestmark = pytest.mark.skipif(
    bf16.built() and not bf16.load(), reason="oneDNN does not multiply tiled bfloat16 on this CPU"
)

WIDE = {"mlp_dim": 64, "latent_dim": 32, "num_samples": 256, "num_pi_samples": 24}
TOLERANCE = 2.0**-5  # for results of several networks


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the kernels, whatever the CPU."""
    monkeypatch.setattr(fused_bf16, "choice", lambda: fused_bf16.Choice(True, "forced"))


@pytest.mark.usefixtures("forced")
def test_planning_uses_tiled_weights() -> None:
    """All layers of the planner's networks have them during a plan, and only then."""
    agent = make_agent(tiny_config(**WIDE, precision="bf16"))
    model, plan, seen = agent.model, agent.functions.plan, []

    def layers() -> list[Any]:
        networks = (model.dynamics, model.reward_head, model.policy, model.q_functions)
        modules = [module for network in networks for module in network.modules()]
        normed = [m.linear for m in modules if isinstance(m, Bf16NormedLinear)]
        return normed + [m for m in modules if isinstance(m, Bf16Linear | Bf16EnsembleLinear)]

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.extend(layer.tiled is not None for layer in layers())
        return plan(*args, **kwargs)

    agent.functions.plan = watched
    acceleration.install(agent)
    agent.act(np.zeros((1, 5), np.float32), first=np.array([True]), explore=False)
    assert len(seen) > 10
    assert all(seen)
    assert all(layer.tiled is None for layer in layers())


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize(
    ("env", "overrides"),
    [
        (env_spec(), {}),
        pytest.param(
            env_spec((5,), (3, 1, 2), (500, 100, 1000), episodic=True),
            {"task_dim": 6, "num_enc_layers": 3},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["one task", "several tasks"],
)
def test_an_agent_with_kernels_equals_one_in_float32(
    env: EnvSpec, overrides: dict[str, Any]
) -> None:
    """Planning, losses and weights after an update, up to rounding."""
    config = tiny_config(**WIDE, num_elites=256, **overrides)
    plain = make_agent(config, env)
    fast = make_agent(dataclasses.replace(config, precision="bf16"), env)
    compiler = acceleration.install(fast)
    obs = np.random.default_rng(0).normal(size=(env.num_tasks, 5)).astype(np.float32)
    request: dict[str, Any] = {"first": np.full(env.num_tasks, True), "explore": True}
    if env.num_tasks > 1:
        request["task"] = np.arange(env.num_tasks)
    for agent in (plain, fast):
        agent.act(obs, **request)
    means = [agent.previous_mean[True] for agent in (plain, fast)]
    torch.testing.assert_close(*means, rtol=TOLERANCE, atol=TOLERANCE)
    batch = random_batch(config, env)
    metrics = [a.update_on(batch, a.train_noise.update(6))[0] for a in (plain, fast)]
    for name, value in metrics[0].items():
        torch.testing.assert_close(metrics[1][name], value, rtol=TOLERANCE, atol=1e-3, msg=name)
    weights = fast.model.state_dict()
    for name, value in plain.model.state_dict().items():
        # Adam's first steps are as long for gradients near zero, whatever their sign.
        torch.testing.assert_close(weights[name], value, rtol=0, atol=2 * config.lr, msg=name)
    assert compiler.enabled


@pytest.mark.usefixtures("forced")
def test_a_step_of_the_optimizer_renews_tiled_weights() -> None:
    """Plans after large updates equal those of an agent that loads the same weights."""
    config = tiny_config(**WIDE, precision="bf16")
    agents = [make_agent(config) for _ in range(2)]
    compiler = acceleration.install(agents[0])
    obs, first = np.ones((1, 5), np.float32), np.array([True])
    agents[0].act(obs, first=first, explore=False)
    for group in agents[0].optimizer.param_groups:
        group["lr"] = 0.01
    batch = random_batch(config, env_spec(), 0)
    agents[0].update_on(batch, agents[0].train_noise.update(config.batch_size))
    agents[1].load_state_dict(agents[0].state_dict())
    acceleration.install(agents[1])
    for agent in agents:
        agent.seed_evaluation(0)
    actions = [agent.act(obs, first=first, explore=False) for agent in agents]
    np.testing.assert_array_equal(*actions)
    assert compiler.enabled


@pytest.mark.slow  # compiles five times; test_compiled.py kills and resumes in float32
def test_a_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Killed among the updates and resumed in another process; not without the kernels."""
    sizes = {"mlp_dim": 32, "latent_dim": 32, "num_samples": 64, "precision": "bf16"}
    compiled, module = {**sizes, "compile": "true"}, "tests.forced_bf16"

    def train(name: str, blow: Blow | None = None, module: str = module) -> int:
        line = arguments(tmp_path / name, **compiled)
        return Command(line, blow, module=module).run().code

    assert train("whole") == 0
    assert train("killed", Blow("tdmpc2.world_model:WorldModel.update_target", 40)) == -9
    assert read_json(run_directory(tmp_path / "killed") / "numeric.json")["bf16_kernels"] is True
    if not fused_bf16.choice().used:
        assert train("killed", module="tdmpc2.train") == 2
    assert train("killed") == 0
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
