"""Whole steps as CUDA graphs: one launch for all kernels of a plan or an update.

A GPU executes the kernels of a small model faster than Python can launch them. A CUDA graph holds
the kernels of a step together with their arguments, and launches them at once.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Protocol, TypeVar

import torch
from torch import Generator, Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

Args = ParamSpec("Args")
Result = TypeVar("Result")

# Calls before a step is recorded: they compile functions, create states of optimizers and choose
# algorithms. The last of them uses the stream that is recorded.
WARM_CALLS = 2


class Graph(Protocol):
    """The recorded kernels of a step."""

    def record(self, step: Callable[[], Any], generators: Sequence[Generator]) -> Any:
        """Record a step without executing its kernels, and return its result.

        Args:
            step: function without arguments.
            generators: generators that it samples from.
        """

    def replay(self) -> None:
        """Execute the kernels, which write their results to the same memory each time."""


class CudaGraph:
    """A CUDA graph.

    Args:
        pool: memory that all graphs of an agent share. Their kernels never run at the same time,
            and results are copied out of it.
    """

    def __init__(self, pool: Any) -> None:
        self._graph, self._pool = torch.cuda.CUDAGraph(), pool

    def record(self, step: Callable[[], Any], generators: Sequence[Generator]) -> Any:
        """Record a step; see `Graph.record`."""
        for generator in generators:
            self._graph.register_generator_state(generator)
        with torch.cuda.graph(self._graph, pool=self._pool):
            return step()

    def replay(self) -> None:
        """Launch the kernels."""
        self._graph.replay()


@dataclass
class _Recording:
    """The graph of a step for one form of its arguments, and its tensors, which keep their places.

    Attributes:
        graph: the recorded kernels.
        inputs: leaves of the arguments.
        outputs: leaves of the result.
        stacked: the scalars in float32 among `outputs` as one tensor, so that one copy takes them
            all; None if there are none.
        structure: structure of the result.
        copied: last argument that each scalar of `inputs` was copied from, and its version.
    """

    graph: Graph
    inputs: list[Any]
    outputs: list[Any]
    stacked: Tensor | None
    structure: TreeSpec
    copied: dict[int, tuple[Tensor, int]] = field(default_factory=dict)

    def __call__(self, leaves: Sequence[Any]) -> Any:
        """Execute the step with other tensors; return copies of its results.

        Args:
            leaves: leaves of the arguments.
        """
        for i, (place, value) in enumerate(zip(self.inputs, leaves, strict=True)):
            if isinstance(place, Tensor) and self._changed(i, value):
                place.copy_(value, non_blocking=True)
        self.graph.replay()
        scalars = iter(() if self.stacked is None else self.stacked.clone().unbind())
        outputs = [next(scalars) if _is_scalar(x) else _copied(x) for x in self.outputs]
        return tree_unflatten(outputs, self.structure)

    def _changed(self, i: int, value: Tensor) -> bool:
        """Return whether input i must be copied: not if it is the scalar of the last call."""
        if value.dim():
            return True
        last = self.copied.get(i)
        self.copied[i] = value, value._version
        return last is None or last[0] is not value or last[1] != value._version


class StepRecorder:
    """Records steps of an agent, and executes the recordings.

    Args:
        generators: generators that the steps sample from.
        optimizers: optimizers that the steps use. Recordings end when their states are loaded.
        make_graph: makes an empty graph; None for CUDA graphs.
    """

    def __init__(
        self,
        generators: Sequence[Generator],
        optimizers: Sequence[torch.optim.Optimizer],
        make_graph: Callable[[], Graph] | None = None,
    ) -> None:
        self.enabled = True
        self._generators, self._optimizers = generators, optimizers
        self._on_gpu = make_graph is None
        if make_graph is None:
            make_graph = functools.partial(CudaGraph, torch.cuda.graph_pool_handle())
        self._make_graph = make_graph
        self._calls: dict[Hashable, int] = {}
        self._used: dict[Hashable, list[Generator]] = {}
        self._recordings: dict[Hashable, _Recording] = {}
        for optimizer in optimizers:
            optimizer.register_load_state_dict_post_hook(lambda _: self.forget())

    def forget(self) -> None:
        """Discard all recordings, because tensors that they use have been replaced."""
        self._calls, self._used, self._recordings = {}, {}, {}

    def recorded(self, step: Callable[Args, Result]) -> Callable[Args, Result]:
        """Return a version of a step that is recorded once it is warm, for each form of arguments.

        If recording fails, a warning is issued and steps are executed as before.

        Args:
            step: function of tensors, containers of tensors and plain values. Its result depends
                on them, on the generators, and on tensors that it changes in place only.
        """

        @functools.wraps(step)
        def call(*args: Args.args, **kwargs: Args.kwargs) -> Result:
            if not self.enabled:
                return step(*args, **kwargs)
            with self._own_device():
                return self._call(step, args, kwargs)

        return call

    def _own_device(self) -> AbstractContextManager[Any]:
        """Return a context in which streams and graphs are made on the agent's GPU."""
        on_gpu = self._on_gpu and self._generators
        return torch.cuda.device(self._generators[0].device) if on_gpu else nullcontext()

    def _call(self, step: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Execute a step, or its recording, which is made once the step is warm.

        Args:
            step: the step.
            args: its arguments.
            kwargs: its keyword arguments.
        """
        leaves, structure = tree_flatten((args, kwargs))
        key = (step, *map(_form, leaves))
        if key not in self._recordings:
            warm = self._calls.get(key, 0)
            self._calls[key] = warm + 1
            if warm < WARM_CALLS:
                states = [generator.get_state() for generator in self._generators]
                result = self._warm_up(step, args, kwargs, last=warm + 1 == WARM_CALLS)
                self._used[key] = [
                    generator
                    for generator, state in zip(self._generators, states, strict=True)
                    if not torch.equal(generator.get_state(), state)
                ]
                return result
            try:
                self._recordings[key] = self._record(step, leaves, structure, self._used[key])
            except Exception as error:  # many types, few of them documented
                self._give_up(error)
                return step(*args, **kwargs)
        return self._recordings[key](leaves)

    def _warm_up(self, step: Callable[..., Any], args: Any, kwargs: Any, *, last: bool) -> Any:
        """Execute a step; the last time on another stream, as recording does."""
        if not (last and self._on_gpu):
            return step(*args, **kwargs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = step(*args, **kwargs)
        torch.cuda.synchronize()  # the result may now be used and freed on any stream
        return result

    def _record(
        self,
        step: Callable[..., Any],
        leaves: Sequence[Any],
        structure: TreeSpec,
        generators: Sequence[Generator],
    ) -> _Recording:
        """Record a step.

        Args:
            step: function to record.
            leaves: leaves of its arguments.
            structure: their structure.
            generators: generators that it samples from.
        """
        inputs = [_copied(leaf) for leaf in leaves]
        args, kwargs = tree_unflatten(inputs, structure)
        found: dict[str, Any] = {}

        def whole_step() -> None:
            outputs, result = tree_flatten(step(*args, **kwargs))
            scalars = [x.detach() for x in outputs if _is_scalar(x)]
            stacked = torch.stack(scalars) if scalars else None
            found.update(outputs=outputs, stacked=stacked, structure=result)

        graph = self._make_graph()
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        capturable = [group.get("capturable", False) for group in groups]
        for group in groups:  # the fused step itself does not depend on it
            group["capturable"] = True
        try:
            graph.record(whole_step, generators)
        finally:
            for group, before in zip(groups, capturable, strict=True):
                group["capturable"] = before
        return _Recording(graph, inputs, **found)

    def _give_up(self, error: Exception) -> None:
        self.enabled = False
        self.forget()
        reason = (str(error).strip().splitlines() or [""])[0]
        warnings.warn(
            f"a step could not be recorded as a CUDA graph ({type(error).__name__}: {reason}); "
            "continuing without, more slowly",
            RuntimeWarning,
            stacklevel=3,
        )


def _form(leaf: Any) -> Hashable:
    """Return what recordings depend on: shape and type of a tensor, or a plain value."""
    return (leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf


def _is_scalar(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() == 0 and leaf.dtype == torch.float32


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf
