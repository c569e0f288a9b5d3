"""Agents that the benchmarks measure, and the rows of their tables."""

from __future__ import annotations

import collections
import contextlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from meters import WARM_UP, Stopwatch, peak_gb
from torch import Tensor

from tdmpc2 import acceleration
from tdmpc2.agent import TDMPC2
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.numerics import fused_bf16
from tdmpc2.common.numerics.numeric_path import numeric_path
from tdmpc2.common.numerics.precision import lacks_bf16
from tdmpc2.common.numerics.torch_setup import choose_device, set_up_torch
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.tasks import get_task
from tdmpc2.kernels import bf16
from tdmpc2.runners.registry import make_agent
from tdmpc2.runners.setup import env_spec, make_replay
from tdmpc2.runners.specs import make_spec
from tdmpc2.runners.work import gflop_of, random_episode

# Sides of the matrices whose multiplication gives the lower bound. On a GPU a multiplication of
# 512 x 512 takes less time than its launch.
SIDES = {"cpu": 512, "cuda": 8192}


class Bench:
    """An agent with a full replay buffer, and the matrix multiplications of its lower bound.

    Args:
        case: see `speed.cases`; with `forced`, native bfloat16 kernels are used whatever the CPU.
        env: an environment of the case's task.

    Attributes:
        path: numeric path that was chosen; compilation may fail later, see `compiled`.
    """

    def __init__(self, case: dict[str, Any], env: Any) -> None:
        self.case, self.env = case, env
        if case.get("forced"):
            fused_bf16.choice = lambda: fused_bf16.Choice(True, "forced by the benchmark")
        self.device = choose_device(case["device"])
        self.path = numeric_path(
            self.device, case["threads"], compiled=case["compile"], precision=case["precision"]
        )
        set_up_torch(self.path)
        self.watch = Stopwatch(self.device)
        self.spec = env_spec(get_task(case["task"]), self.env)
        settings = {"buffer_size": case["replay_rows"], **case["settings"]}
        run_spec = make_spec(case["method"], case["task"], 0, overrides=settings)
        self.agent = cast(Any, make_agent(run_spec, self.spec, self.device))
        self.config = self.agent.config  # includes the task's settings
        self.compiler = acceleration.install(self.agent) if self.path["compile"] else None
        if isinstance(self.agent, TDMPC2):
            for parameter in self.agent.model.q_functions.parameters():
                torch.nn.init.normal_(parameter, std=0.02)
        self.replay = make_replay(self.agent, self.spec, 0, self.device)
        self.side, self.products = SIDES[self.device.type], products(self.device, case["precision"])
        # The schedules of TD-MPC are at their final values.
        self.agent.decisions = 1_000_000
        self.obs, _ = self.env.reset()

    @property
    def compiled(self) -> bool:
        """Whether functions of the agent are compiled; not if compilation has failed."""
        return self.compiler is not None and self.compiler.enabled

    @property
    def native_kernels(self) -> bool:
        """Whether layers of the agent use native kernels."""
        return self.compiler is not None and self.compiler.native_kernels

    def rates(self) -> dict[str, float]:
        """Return the GFLOP/s of the fastest matrix multiplication of each kind.

        Of 20, or of as many as fit into half a second: without such instructions one takes long.
        """
        found = {}
        for name, product in self.products.items():
            times = [self.watch(product)]
            while len(times) < 20 and sum(times) < 0.5:
                times.append(self.watch(product))
            found[name] = 2e-9 * self.side**3 / min(times)
        return found

    def plan(self) -> np.ndarray:
        """Take one decision of the agent, for all environments that it acts in."""
        num = self.agent.num_envs
        obs = np.repeat(self.obs[None], num, axis=0)
        return self.agent.act(obs, first=np.zeros(num, dtype=bool), explore=True)[0]

    def update(self) -> dict[str, Tensor]:
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


@contextlib.contextmanager
def prepared(case: dict[str, Any]) -> Iterator[Bench]:
    """Yield the bench of a case; its environment is closed at the end, also after an error."""
    with contextlib.closing(make_env(case["task"], seed=0)) as env:
        yield Bench(case, env)


def products(device: torch.device, precision: str) -> dict[str, Callable[[], Tensor]]:
    """Return the multiplications of two square matrices that layers can use; see `SIDES`.

    `torch` is that of PyTorch, `kernels` that of the native bfloat16 kernels where these are used.
    A CPU without bfloat16 instructions multiplies rounded values in float32 (`precision`).

    Args:
        device: device of the matrices.
        precision: `fp32`, `tf32` or `bf16`.
    """
    rounded = device.type == "cpu" and lacks_bf16()
    dtype = torch.bfloat16 if precision == "bf16" and not rounded else torch.float32
    side = SIDES[device.type]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    found: dict[str, Callable[[], Tensor]] = {"torch": lambda: a @ b}
    if precision == "bf16" and device.type == "cpu" and fused_bf16.choice().used and bf16.load():
        tiled = torch.ops.tdmpc2.bf16_tiled(b.float()[None], None)
        found["kernels"] = lambda: torch.ops.tdmpc2.bf16_product(a, tiled, side)
    return found


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Measure one row of the table."""
    with prepared(case) as bench:
        return _measure(bench)


def _measure(bench: Bench) -> dict[str, Any]:
    case, replay, watch = bench.case, bench.replay, bench.watch
    samples = {}
    for share in (0.01, 1.0):
        fill(replay, bench.spec, int(share * case["replay_rows"]))
        size = (bench.config.batch_size, bench.agent.replay_length)
        times = [watch(partial(replay.sample, *size)) for _ in range(200)]
        samples[f"{share:.0%}"] = 1e3 * statistics.median(times)
    first_plan, first_update = watch(bench.plan), watch(bench.update)
    for _ in range(WARM_UP - 1):
        bench.plan(), bench.update()
    shapes = (bench.spec.obs_shape[0], bench.spec.action_dim)
    gflop = gflop_of(case["method"], bench.config, *shapes)
    seconds: dict[str, list[float]] = {name: [] for name in ("plan", "update", "env", "loop")}
    ratios: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    loop_ratios: list[float] = []
    rates = [bench.rates()]
    for _ in range(case["repetitions"]):
        for name, function in (("plan", bench.plan), ("update", bench.update)):
            seconds[name].append(watch(function))
            rates.append(bench.rates())
            # Before and after: other work on the machine slows down both.
            best = {kind: max(rates[-1][kind], rates[-2][kind]) for kind in bench.products}
            best["best"] = max(best.values())
            for kind, rate in best.items() if name in gflop else ():
                ratios[name, kind].append(seconds[name][-1] * rate / gflop[name])
        action = bench.env.action_space.sample()
        seconds["env"].append(watch(partial(bench.step, action)))
        if len(loop_ratios) < case["loop"] and bench.agent.num_envs == 1:
            seconds["loop"].append(watch(bench.decision))
            total = sum(seconds[name][-1] for name in ("plan", "update", "env"))
            loop_ratios.append(seconds["loop"][-1] / total)
    medians = {name: statistics.median(times) for name, times in seconds.items() if times}
    return case | {
        "compiled": bench.compiled,
        "native_kernels": bench.native_kernels,
        "matmul_precision": bench.path["matmul_precision"],
        "gflops": statistics.median(max(each.values()) for each in rates),
        "gflops_of": {
            kind: statistics.median(each[kind] for each in rates) for kind in bench.products
        },
        "plan_gflop": gflop.get("plan"),
        "update_gflop": gflop["update"],
        "plan_ms": 1e3 * medians["plan"],
        "update_ms": 1e3 * medians["update"],
        "env_step_ms": 1e3 * medians["env"],
        "plan_ratio": _median(ratios["plan", "best"]),
        "update_ratio": _median(ratios["update", "best"]),
        "plan_ratio_torch": _median(ratios["plan", "torch"]),
        "update_ratio_torch": _median(ratios["update", "torch"]),
        "loop_ms": 1e3 * medians["loop"] if "loop" in medians else None,
        "loop_ratio": _median(loop_ratios),
        "sample_ms": samples["100%"],
        "sample_ms_at_1_percent": samples["1%"],
        "first_plan_s": first_plan,
        "first_update_s": first_update,
        "resident_gb": peak_gb(),
    }


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


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
