"""Agents and timers that the benchmarks measure with."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tdmpc2 import acceleration
from tdmpc2.agent import TDMPC2
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.numerics.numeric_path import choose_device, numeric_path, set_up_torch
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.tasks import get_task
from tdmpc2.runners.registry import make_agent, make_spec
from tdmpc2.runners.setup import env_spec, make_replay
from tdmpc2.runners.work import gflop_of, random_episode


class Stopwatch:
    """Timer of calls, including the work that they start on the device.

    Args:
        device: the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.wait: Callable[[], object] = (
            torch.cuda.synchronize if device.type == "cuda" else lambda: None
        )

    def __call__(self, function: Callable[[], object]) -> float:
        """Return the seconds that a call takes."""
        self.wait()
        start = time.perf_counter()
        function()
        self.wait()
        return time.perf_counter() - start


class Bench:
    """An agent with a full replay buffer, and the matrix multiplication of its lower bound.

    Args:
        case: see `cases`.
    """

    def __init__(self, case: dict[str, Any]) -> None:
        self.case = case
        self.device = choose_device(case["device"])
        path = numeric_path(
            self.device, case["threads"], compiled=case["compile"], precision=case["precision"]
        )
        set_up_torch(path)
        self.watch = Stopwatch(self.device)
        self.env = make_env(case["task"], seed=0)
        self.spec = env_spec(get_task(case["task"]), self.env)
        settings = {"buffer_size": case["replay_rows"], **case["settings"]}
        run_spec = make_spec(case["method"], case["task"], 0, overrides=settings)
        self.agent: Any = make_agent(run_spec, self.spec, self.device)
        self.config = self.agent.config  # includes the task's settings
        if path["compile"]:
            acceleration.install(self.agent)
        self.compiled = bool(path["compile"])
        if isinstance(self.agent, TDMPC2):
            for parameter in self.agent.model.q_functions.parameters():
                torch.nn.init.normal_(parameter, std=0.02)
        self.replay = make_replay(self.agent, self.spec, 0, self.device)
        dtype = torch.float32 if case["precision"] == "fp32" else torch.bfloat16
        self.factors = [torch.randn(512, 512, device=self.device, dtype=dtype) for _ in range(2)]
        # The schedules of TD-MPC are at their final values.
        self.agent.decisions = 1_000_000
        self.obs, _ = self.env.reset()

    def rate(self) -> float:
        """Return the GFLOP/s of the fastest of 20 matrix multiplications."""
        a, b = self.factors
        best = min(self.watch(lambda: a @ b) for _ in range(20))
        return 2e-9 * 512**3 / best

    def plan(self) -> np.ndarray:
        """Take one decision of the agent, for all environments that it acts in."""
        num = self.agent.num_envs
        obs = np.repeat(self.obs[None], num, axis=0)
        return self.agent.act(obs, first=np.zeros(num, dtype=bool), explore=True)[0]

    def update(self) -> dict[str, torch.Tensor]:
        """Take one gradient step."""
        return self.agent.update(self.replay)

    def step(self, action: np.ndarray) -> None:
        """Take one decision in the environment; start a new episode if the last has ended."""
        self.obs, _, terminated, truncated, _ = self.env.step(action)
        if terminated or truncated:
            self.obs, _ = self.env.reset()

    def decision(self) -> None:
        """Execute one iteration of the training loop."""
        self.step(self.plan())
        self.update()


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Measure one row of the table."""
    bench = Bench(case)
    replay, watch = bench.replay, bench.watch
    samples = {}
    for share in (0.01, 1.0):
        fill(replay, bench.spec, int(share * case["replay_rows"]))
        size = (bench.config.batch_size, bench.agent.replay_length)
        times = [watch(lambda size=size: replay.sample(*size)) for _ in range(200)]
        samples[f"{share:.0%}"] = 1e3 * statistics.median(times)
    first_plan, first_update = watch(bench.plan), watch(bench.update)
    watch(bench.plan), watch(bench.update)
    shapes = (bench.spec.obs_shape[0], bench.spec.action_dim)
    gflop = gflop_of(case["method"], bench.config, *shapes)
    seconds: dict[str, list[float]] = {name: [] for name in ("plan", "update", "env", "loop")}
    ratios: dict[str, list[float]] = {name: [] for name in gflop}
    loop_ratios, rates = [], [bench.rate()]
    for _ in range(case["repetitions"]):
        for name, function in (("plan", bench.plan), ("update", bench.update)):
            seconds[name].append(watch(function))
            rates.append(bench.rate())
            best = max(rates[-2:])  # before and after: other work on the machine slows down both
            if name in gflop:
                ratios[name].append(seconds[name][-1] * best / gflop[name])
        action = bench.env.action_space.sample()
        seconds["env"].append(watch(lambda action=action: bench.step(action)))
        if len(loop_ratios) < case["loop"] and bench.agent.num_envs == 1:
            seconds["loop"].append(watch(bench.decision))
            total = sum(seconds[name][-1] for name in ("plan", "update", "env"))
            loop_ratios.append(seconds["loop"][-1] / total)
    medians = {name: statistics.median(times) for name, times in seconds.items() if times}
    return case | {
        "compiled": bench.compiled,
        "gflops": statistics.median(rates),
        "plan_gflop": gflop.get("plan"),
        "update_gflop": gflop["update"],
        "plan_ms": 1e3 * medians["plan"],
        "update_ms": 1e3 * medians["update"],
        "env_step_ms": 1e3 * medians["env"],
        "plan_ratio": statistics.median(ratios["plan"]) if "plan" in gflop else None,
        "update_ratio": statistics.median(ratios["update"]),
        "loop_ms": 1e3 * medians["loop"] if "loop" in medians else None,
        "loop_ratio": statistics.median(loop_ratios) if loop_ratios else None,
        "sample_ms": samples["100%"],
        "sample_ms_at_1_percent": samples["1%"],
        "first_plan_s": first_plan,
        "first_update_s": first_update,
        "resident_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def fill(replay: Any, spec: EnvSpec, rows: int) -> None:
    """Add random episodes, at least one, until the replay buffer holds `rows` rows.

    Args:
        replay: the replay buffer.
        spec: shapes and episode length.
        rows: number of rows.
    """
    rng = np.random.default_rng(0)
    length = spec.episode_lengths[0]
    for _ in range(
        max(rows // (length + 1) - replay.num_episodes, 0 if replay.num_episodes else 1)
    ):
        replay.add(random_episode(spec, length, rng))
