"""Count the kernel launches of a plan and an update on a GPU, without a GPU.

`python benchmarks/launches.py [key=value …]` lowers the compiled functions of an agent to GPU code
(`cuda_lowering`) and counts the kernels that this code launches, and the operations between the
compiled functions. It prints a model of the time on a GPU:

    launches · cost of a launch + bytes read and written / memory bandwidth

Counted are the kernels that inductor generates, the calls of matrix multiplications and other
library functions (one each), and eager operations (`KERNELS_OF`). Not visible without a GPU: a
library that splits one multiplication over several kernels, or copies an operand first.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import Settings, setting

if TYPE_CHECKING:
    from cuda_lowering import LaunchCounter

# Kernels of operations that take more than one on a GPU, as the profiler showed on an H200.
KERNELS_OF = {
    "aten.randperm.generator": 5,  # fill, range, random keys, sort, duplicate keys
    "aten.cumsum.default": 2,
    "aten._foreach_norm.Scalar": 3,  # fill, partial norms, norms
}
FREE = ("aten.empty", "aten.new_empty", "aten.detach", "aten.lift_fresh", "profiler")
# Not seen on a CPU: transfers of observation and action, or of the batch's places; two fills with
# which a CUDA graph sets the state of its generator.
UNSEEN = {"plan": {"transfers": 2, "generator": 2}, "update": {"transfers": 1, "generator": 2}}


@dataclass(frozen=True)
class Options(Settings):
    """Options of the command."""

    model_size: str = setting("5", "size of TD-MPC2: 1, 5, 19 …")
    forms: Literal["gpu", "cpu"] = setting("gpu", "formulation: of GPUs, or as before of CPUs")
    launch_us: float = setting(1.5, "cost of a launch in a CUDA graph, µs", low=0, high=1e6)
    bandwidth: float = setting(4000.0, "memory bandwidth in GB/s", low=1, high=1e6)
    kernels: bool = setting(False, "also list the kernels by name")


@dataclass
class Launches:
    """Launches of one step.

    Attributes:
        compiled: kernels of compiled functions, by name.
        eager: kernels between them, by operation.
        num_bytes: bytes that the compiled functions read and write.
    """

    compiled: Counter[str]
    eager: Counter[str]
    num_bytes: int

    @property
    def total(self) -> int:
        """Number of launches."""
        return self.compiled.total() + self.eager.total()

    def model_ms(self, launch_us: float, bandwidth: float) -> float:
        """Return launches · cost + bytes / bandwidth, in ms.

        Args:
            launch_us: cost of a launch in µs.
            bandwidth: in GB/s.
        """
        return self.total * launch_us / 1e3 + self.num_bytes / (bandwidth * 1e6)


def eager_counter(counter: LaunchCounter) -> Any:
    """Return a dispatch mode with an attribute `kernels`, which counts kernels by operation.

    Args:
        counter: counter of the compiled functions, whose operations are not counted again.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    class Eager(TorchDispatchMode):
        """Counts the kernels of operations outside of compiled functions."""

        def __init__(self) -> None:
            super().__init__()
            self.kernels: Counter[str] = Counter()

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            """Count the kernels of an operation and execute it."""
            name, schema = str(func), func._schema
            view = any(r.alias_info and not r.alias_info.is_write for r in schema.returns)
            if not (counter.lowering or view or name.startswith(FREE)):
                self.kernels[name] += KERNELS_OF.get(name, 1)
            return func(*args, **(kwargs or {}))

    return Eager()


class Step:
    """Stands for the CUDA graph of a step, so that what surrounds it is counted as well."""

    def record(self, step: Callable[[], Any], generators: Any) -> Any:
        """Execute a step, and keep it.

        Args:
            step: function without arguments.
            generators: not used.
        """
        self._step = step
        return step()

    def replay(self) -> None:
        """Execute the step again."""
        self._step()


def count_with(options: Options) -> tuple[dict[str, Launches], LaunchCounter]:
    """Return the launches of a plan and an update, and the counter of compiled functions.

    TD-MPC2 with the shapes of walker-walk, in one environment.

    Args:
        options: options of the command.
    """
    from unittest import mock

    import numpy as np
    import torch
    from cuda_lowering import LaunchCounter, use
    from gpu_sections.bench import make_filled_agent
    from gpu_sections.report import Settings as Sections
    from meters import WARM_UP

    from tdmpc2.common.numerics import gpu_forms

    counter = LaunchCounter()
    on_gpu = options.forms == "gpu"

    def wanted(device: torch.device) -> bool:
        return on_gpu

    with mock.patch.object(gpu_forms, "wanted", wanted):
        device, nothing = torch.device("cpu"), Path()
        sections = Sections(
            device=device, small=options.model_size == "smoke", out=nothing, seconds=0.0
        )
        agent, replay = make_filled_agent(sections, rows=2_000, model_size=options.model_size)
        use(counter, agent, Step)
        replay.draw = counter.without_modes(replay.draw)  # on the host
        obs, first = np.zeros((1, 24), np.float32), np.array([False])
        found = {}
        for name, call in (
            ("plan", lambda: agent.act(obs, first=first, explore=True)),
            ("update", lambda: agent.update(replay)),
        ):
            for _ in range(WARM_UP):  # the last one records the step
                call()
            counter.reset()
            with eager_counter(counter) as eager:
                call()
            eager.kernels.update(UNSEEN[name])
            found[name] = Launches(
                Counter(counter.kernels), eager.kernels + counter.eager, counter.num_bytes
            )
    return found, counter


def parse(arguments: Sequence[str]) -> Options:
    """Return the options.

    Raises:
        UserError: an invalid option.
    """
    return cli.parse_options(arguments, Options)


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: an invalid option.
    """
    options = parse(arguments)
    found, _ = count_with(options)
    print("| step | launches | compiled | eager | MB | model, ms |\n|---|---|---|---|---|---|")
    for name, launches in found.items():
        model = launches.model_ms(options.launch_us, options.bandwidth)
        print(
            f"| {name} | {launches.total} | {launches.compiled.total()} | "
            f"{launches.eager.total()} | {launches.num_bytes / 1e6:.0f} | {model:.2f} |"
        )
    print(f"plan and update: {sum(x.total for x in found.values())} launches")
    if options.kernels:
        for name, launches in found.items():
            for kind in ("compiled", "eager"):
                for kernel, number in sorted(getattr(launches, kind).items()):
                    print(f"{name:6} {kind:8} {number:4} {kernel}")
    return 0


def usage() -> str:
    """Return the text of `--help`."""
    return f"{__doc__}\n{cli.describe_fields(Options)}"


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
