"""Measure the speed of planning and learning against a lower bound of the machine.

`python benchmarks/speed.py [key=value …]` measures, for each method, task, model size and number
of threads, in a separate process: one planning call, one gradient step, one environment step, one
iteration of the training loop, and sampling from the replay buffer. Planning and learning are also
given as multiples of the matmul lower bound: the FLOPs of the required matrix multiplications
(`tdmpc2/flops.py`, `baselines/flops.py`) at the best rate of a 512 x 512 x 512 multiplication,
measured beside every repetition. Times are medians.
"""

from __future__ import annotations

import itertools
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tdmpc2 import acceleration
from tdmpc2.agent import TDMPC2
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.numerics.numeric_path import choose_device, numeric_path, set_up_torch
from tdmpc2.common.run.source_version import git_commit
from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.common.system.config_checks import REPETITIONS, ROWS, Settings, setting
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.tasks import get_task
from tdmpc2.runners.registry import agent_class, make_agent, make_spec
from tdmpc2.runners.setup import env_spec, make_replay
from tdmpc2.runners.work import gflop_of, random_episode

COLUMNS = {
    "method": "method",
    "task": "task",
    "model_size": "size",
    "threads": "threads",
    "precision": "precision",
    "gflops": "GFLOP/s",
    "plan_ms": "plan ms",
    "plan_ratio": "x bound",
    "update_ms": "update ms",
    "update_ratio": "x bound",
    "env_step_ms": "env ms",
    "loop_ms": "loop ms",
    "loop_ratio": "x sum",
    "sample_ms": "sample ms",
    "first_plan_s": "first plan s",
    "first_update_s": "first update s",
    "resident_gb": "GB",
}


@dataclass(frozen=True)
class Options(Settings):
    """Options of the command."""

    methods: str = setting("tdmpc2", "comma-separated list")
    tasks: str = setting("walker-walk,dog-run", "comma-separated list")
    model_sizes: str = setting("1,5", "sizes of TD-MPC2, comma-separated list")
    threads: str = setting("1,2", "threads of torch, comma-separated list")
    precision: str = setting("fp32", "fp32, bf16, or fp32,bf16")
    device: str = setting("auto", "auto, cpu, cuda …")
    compile: bool | None = setting(None, "torch.compile; default: if it works")
    repetitions: int = setting(15, "timed calls of each function", REPETITIONS)
    loop: int = setting(12, "timed training-loop iterations; 0: none", low=0, high=100_000)
    replay_rows: int = setting(1_000_000, "rows of the replay buffer", ROWS)
    out: Path | None = setting(None, "also write everything as JSON")


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


def cases(options: Options) -> list[dict[str, Any]]:
    """Return all combinations that the options name.

    Raises:
        UserError: `threads` is not a list of positive numbers.
    """
    split = {name: getattr(options, name).split(",") for name in ("tasks", "threads", "precision")}
    sizes = options.model_sizes.split(",")
    methods = options.methods.split(",")
    if not all(number.isdigit() and int(number) for number in split["threads"]):
        raise UserError(f"threads={options.threads}: must be positive numbers, for example 1,2")
    fixed = asdict(options)
    return [
        {
            **{k: fixed[k] for k in ("device", "compile", "repetitions", "loop", "replay_rows")},
            "method": method,
            "task": get_task(task).name,
            "model_size": settings.get("model_size"),
            "threads": int(threads),
            "precision": settings.get("precision", "fp32"),
            "settings": settings,
        }
        for method, threads, precision in itertools.product(
            methods, split["threads"], split["precision"]
        )
        for settings in settings_of(method, sizes, precision)
        for task in split["tasks"]
    ]


def settings_of(method: str, sizes: Sequence[str], precision: str) -> list[dict[str, Any]]:
    """Return the settings to measure a method with; baselines have one model size.

    Args:
        method: name of the method.
        sizes: model sizes of TD-MPC2.
        precision: `fp32` or `bf16`.
    """
    make = agent_class(method).config_class.make
    common: dict[str, Any] = {} if precision == "fp32" else {"precision": precision}
    if method == "tdmpc2":
        all_settings = [{"model_size": size, **common} for size in sizes]
    else:
        all_settings = [common]
    for settings in all_settings:
        make(**settings)
    return all_settings


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code, 1 if a case could not be measured."""
    if arguments[:1] == ["case"]:
        print(json.dumps(measure(json.loads(arguments[1]))))
        return 0
    options = cli.parse_options(arguments, Options)
    all_cases = cases(options)
    machine = numeric_path(choose_device(options.device), None) | {
        "commit": git_commit(),
        "python": platform.python_version(),
    }
    print(", ".join(f"{k} {v}" for k, v in machine.items() if k not in ("threads", "precision")))
    print("| " + " | ".join(COLUMNS.values()) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    rows = []
    for case in all_cases:
        command = [sys.executable, __file__, "case", json.dumps(case)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"{case}: failed")
            continue
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print("| " + " | ".join(_cell(rows[-1][name]) for name in COLUMNS) + " |", flush=True)
    if options.out is not None:
        write_json(options.out, {"machine": machine, "rows": rows})
    return 0 if len(rows) == len(all_cases) else 1


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"
    return "" if value is None else str(value)


def usage() -> str:
    """Return the text of `--help`."""
    return f"{__doc__}\n{cli.describe_fields(Options)}"


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
