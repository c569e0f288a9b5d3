"""Compilation of an agent's pure functions, which never stops a run when it fails."""

from __future__ import annotations

import functools
import os
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

Args = ParamSpec("Args")
Result = TypeVar("Result")

# Forms of one function in a process: batch sizes, with and without noise, several agents.
MAX_FORMS = 64
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def use_own_cache() -> None:
    """Keeps compiled code apart by Python, torch and CPU, unless `TORCHINDUCTOR_CACHE_DIR` is set.

    torch 2.13 keeps what it compiles for the CPU in one folder per user, and does not tell by
    which Python: code compiled under 3.12 corrupts the memory of a process under 3.11. It also
    sets the variable to that folder itself, when `torch._dynamo` is imported.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named is not None and not named.startswith(f"{tempfile.gettempdir()}/torchinductor_"):
        return
    python = "".join(map(str, sys.version_info[:2]))
    cpu = f"{torch.backends.cpu.get_cpu_capability()}-{cpu_flags_hash()}"
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"tdmpc2-inductor-{user}"
    folder /= f"py{python}-torch{torch.__version__}-{cpu}"
    os.environ[CACHE_VARIABLE] = str(folder)


class Compiler:
    """Compiles functions with `torch.compile` from the moment it is switched on.

    Args:
        device: where the functions compute. On a GPU their kernels are recorded into CUDA
            graphs, which start as one.

    Attributes:
        enabled: whether functions are compiled.
    """

    def __init__(self, device: torch.device) -> None:
        self.enabled = False
        self._on_gpu = device.type == "cuda"
        self._on_failure: Callable[[], None] | None = None

    def switch_on(self, on_failure: Callable[[], None] | None = None) -> None:
        """Compiles from now on.

        Args:
            on_failure: called when compilation had to be given up.
        """
        use_own_cache()
        self.enabled, self._on_failure = True, on_failure
        torch._dynamo.config.recompile_limit = MAX_FORMS

    def compile(
        self, function: Callable[Args, Result], *, piece: bool = False
    ) -> Callable[Args, Result]:
        """The function, compiled at its first call for each set of shapes.

        Args:
            function: to compile.
            piece: whether it is a small part of a step, called again and again, for which a
                CUDA graph of its own would not pay.
        """
        options: dict[str, Any] = {
            "triton.cudagraphs": self._on_gpu and not piece,
            # Small models spend up to a third of their time between kernels in Python.
            "cpp_wrapper": not self._on_gpu,
            "size_asserts": False,  # they check the compiler's own work, at each call anew
        }

        @functools.cache
        def compiled() -> Callable[Args, Result]:
            return torch.compile(function, dynamic=False, fullgraph=True, options=options)

        @functools.wraps(function)
        def call(*args: Args.args, **kwargs: Args.kwargs) -> Result:
            return (compiled() if self.enabled else function)(*args, **kwargs)

        return call

    def protect(self, function: Callable[Args, Result]) -> Callable[Args, Result]:
        """The function, called again without compilation where it fails.

        It must be pure, and may call what `compile` returned. If the second call fails too, its
        error is the caller's; if not, compilation is off from then on, and a warning says so. On
        a GPU the tensors that it returns are copies: the originals lie in the memory of CUDA
        graphs, which the next step overwrites.
        """

        @functools.wraps(function)
        def call(*args: Args.args, **kwargs: Args.kwargs) -> Result:
            if not self.enabled:
                return function(*args, **kwargs)
            self.begin_step()
            try:
                return self._kept(function(*args, **kwargs))
            except Exception as error:  # of many kinds, few of them documented
                self.enabled = False
                result = function(*args, **kwargs)
                self._give_up(error)
                return result

        return call

    def _kept(self, result: Result) -> Result:
        """A result that outlives the step."""
        if not self._on_gpu:
            return result
        return tree_map(lambda x: x.detach().clone() if isinstance(x, Tensor) else x, result)

    def begin_step(self) -> None:
        """Lets CUDA graphs write over what the step before returned."""
        if self.enabled and self._on_gpu:
            torch.compiler.cudagraph_mark_step_begin()

    def _give_up(self, error: Exception) -> None:
        lines = str(error).strip().splitlines() or [""]
        # The first line often names the backend only; what the C++ compiler says comes later.
        reason = next((line for line in lines if " error: " in line), lines[0]).strip()
        warnings.warn(
            f"torch.compile failed ({type(error).__name__}: {reason}); going on without it, more "
            "slowly; compile=false leaves it out from the start",
            RuntimeWarning,
            stacklevel=3,
        )
        if self._on_failure is not None:
            self._on_failure()
