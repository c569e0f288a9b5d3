"""Compilation of an agent's pure functions, which never stops a run when it fails."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

Args = ParamSpec("Args")
Result = TypeVar("Result")

# Forms of one function in a process: batch sizes, with and without noise, several agents.
MAX_FORMS = 64


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
        error is the caller's; if not, compilation is off from then on, and a warning says so.
        """

        @functools.wraps(function)
        def call(*args: Args.args, **kwargs: Args.kwargs) -> Result:
            if not self.enabled:
                return function(*args, **kwargs)
            self.begin_step()
            try:
                return function(*args, **kwargs)
            except Exception as error:  # of many kinds, few of them documented
                self.enabled = False
                result = function(*args, **kwargs)
                self._give_up(error)
                return result

        return call

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
