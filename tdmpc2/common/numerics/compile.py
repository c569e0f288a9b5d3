"""`torch.compile` for an agent's pure functions, with a fallback if compilation fails."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from tdmpc2.common.numerics.cpu import cpu_flags_hash
from tdmpc2.common.numerics.precision import lacks_bf16
from tdmpc2.common.system.paths import cache_dir, code_folder

Args = ParamSpec("Args")
Result = TypeVar("Result")

# Compiled versions of one function per process: batch sizes, with and without noise, agents.
MAX_FORMS = 64
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def use_own_cache() -> None:
    """Use a cache of compiled code per Python version, torch version and CPU.

    A `TORCHINDUCTOR_CACHE_DIR` set by the user is kept. By default, torch 2.13 caches compiled CPU
    code in one folder per user and ignores the Python version: code compiled under Python 3.12
    corrupts the memory of a process under 3.11. Importing `torch._dynamo` sets the variable to
    that default folder, which therefore does not count as a setting of the user.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named is not None and not named.startswith(f"{tempfile.gettempdir()}/torchinductor_"):
        return
    python = "".join(map(str, sys.version_info[:2]))
    cpu = f"{torch.backends.cpu.get_cpu_capability()}-{cpu_flags_hash()}"
    user = os.getuid()
    folder = code_folder(
        Path(tempfile.gettempdir()) / f"tdmpc2-inductor-{user}", cache_dir() / f"inductor-{user}"
    )
    os.environ[CACHE_VARIABLE] = str(folder / f"py{python}-torch{torch.__version__}-{cpu}")


def gpu_options() -> dict[str, Any]:
    """Return the settings of inductor for GPUs."""
    return {
        # Sums over a batch are small here: one kernel each instead of two.
        "split_reductions": False,
        # Longer formulas than by default stay in one kernel: actions of the prior and the inputs
        # that they are part of.
        "realize_opcount_threshold": 100,
    }


class Compiler:
    """Compiles functions with `torch.compile` once `switch_on` has been called.

    Args:
        device: device on which the functions compute. On a GPU the kernels of each function are
            recorded into a CUDA graph, which is launched as a whole.
        whole_steps: whether whole steps are recorded instead (`recorded_steps`), so that the
            functions need no CUDA graphs of their own.

    Attributes:
        enabled: whether functions are compiled.
        native_kernels: whether the layers use native kernels; set by `acceleration.install`.
    """

    def __init__(self, device: torch.device, *, whole_steps: bool = False) -> None:
        self.enabled = self.native_kernels = False
        self._on_gpu = device.type == "cuda"
        self._graphs = self._on_gpu and not whole_steps
        self._on_failure: Callable[[], None] | None = None

    def switch_on(self, on_failure: Callable[[], None] | None = None) -> None:
        """Enable compilation from now on.

        Args:
            on_failure: called if compilation fails and is disabled, before the warning. An error
                that it raises is raised by the call that failed, without a warning.
        """
        use_own_cache()
        self.enabled, self._on_failure = True, on_failure
        torch._dynamo.config.recompile_limit = MAX_FORMS
        # Not as a decorator: it imports `torch._dynamo`, which takes as long as importing torch.
        torch.compiler.assume_constant_result(lacks_bf16)

    def compile(
        self, function: Callable[Args, Result], *, piece: bool = False
    ) -> Callable[Args, Result]:
        """Return a version of a function that is compiled at its first call for each set of shapes.

        Args:
            function: function to compile.
            piece: whether the function is a small piece of a step that is called repeatedly and
                is too short for a CUDA graph of its own.
        """
        options: dict[str, Any] = {
            "triton.cudagraphs": self._graphs and not piece,
            # Small models spend up to a third of their time in Python, between kernels.
            "cpp_wrapper": not self._on_gpu,
            # Headers are compiled in advance only where torch can take their checksum.
            "cpp_cache_precompile_headers": shutil.which("openssl") is not None,
            **(gpu_options() if self._on_gpu else {}),
            "size_asserts": False,  # would check the compiler's own output at each call
        }

        @functools.cache
        def compiled() -> Callable[Args, Result]:
            return torch.compile(function, dynamic=False, fullgraph=True, options=options)

        @functools.wraps(function)
        def call(*args: Args.args, **kwargs: Args.kwargs) -> Result:
            return (compiled() if self.enabled else function)(*args, **kwargs)

        return call

    def protect(self, function: Callable[Args, Result]) -> Callable[Args, Result]:
        """Return a version of a function that is called again without compilation if it fails.

        The function must be pure; it may call functions that `compile` returned. If the second
        call fails too, its error is raised. If it succeeds, compilation stays disabled and a
        warning is issued. Tensors in the memory of CUDA graphs, which the next step overwrites,
        are returned as copies.
        """

        @functools.wraps(function)
        def call(*args: Args.args, **kwargs: Args.kwargs) -> Result:
            if not self.enabled:
                return function(*args, **kwargs)
            self.begin_step()
            try:
                return self._kept(function(*args, **kwargs))
            except Exception as error:  # many types, few of them documented
                self.enabled = False
                result = function(*args, **kwargs)
                self._give_up(error)
                return result

        return call

    def _kept(self, result: Result) -> Result:
        """Return a copy of a result that the next step does not overwrite."""
        if not self._graphs:
            return result
        return tree_map(lambda x: x.detach().clone() if isinstance(x, Tensor) else x, result)

    def begin_step(self) -> None:
        """Start a step: CUDA graphs may overwrite the results of the previous one."""
        if self.enabled and self._graphs:
            torch.compiler.cudagraph_mark_step_begin()

    def _give_up(self, error: Exception) -> None:
        if self._on_failure is not None:
            self._on_failure()
        warnings.warn(
            f"torch.compile failed ({type(error).__name__}: {reason(error)}); continuing without "
            "it, more slowly; compile=false avoids the attempt",
            RuntimeWarning,
            stacklevel=3,
        )


def reason(error: Exception) -> str:
    """Return the line of a compiler's error that says most."""
    lines = str(error).strip().splitlines() or [""]
    # The first line often names only the backend; the C++ compiler's error follows later.
    return next((line for line in lines if " error: " in line), lines[0]).strip()
