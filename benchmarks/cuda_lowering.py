"""Lowers the compiled functions of an agent to GPU kernels on a machine without a GPU.

`torch.compile` captures a function on the CPU. Its graph is then moved to `cuda` with tensors that
have no data, and inductor generates the code that would launch its kernels. The code is counted,
not executed; the function itself runs on the CPU.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from functorch.compile import make_boxed_func
from torch._dynamo import device_interface
from torch._guards import detect_fake_mode
from torch._inductor import compile_fx
from torch._inductor.debug import DebugContext
from torch._inductor.fx_passes.post_grad import view_to_reshape
from torch._inductor.graph import GraphLowering
from torch._inductor.runtime import hints
from torch._inductor.virtualized import V
from torch._subclasses import FakeTensorMode
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from torch.utils._python_dispatch import _disable_current_modes

from tdmpc2.common.numerics import gpu_forms
from tdmpc2.common.numerics.compile import gpu_options
from tdmpc2.common.numerics.recorded_steps import StepRecorder

# What inductor asks for; it decides on tile sizes, not on what is fused.
H200 = {
    "multi_processor_count": 132,
    "major": 9,
    "minor": 0,
    "warp_size": 32,
    "regs_per_multiprocessor": 65536,
    "max_threads_per_multi_processor": 2048,
}
_LAUNCH = re.compile(r"^\s+(triton_\w+?)(?:_\d+)?\.run\(", re.MULTILINE)
_EXTERN = re.compile(
    r"^\s+(?:\w+ = )?((?:extern_kernels|torch\.ops)\.[\w.]+?)(?:\.default)?\(", re.M
)


@contextlib.contextmanager
def pretend_cuda() -> Iterator[None]:
    """Answer inductor's questions about the GPU with the properties of an H200."""
    properties = SimpleNamespace(**H200, gcnArchName="", name="H200")
    hint = hints.DeviceProperties(
        type="cuda",
        index=0,
        cc=90,
        **{name: value for name, value in H200.items() if name != "minor"},
    )
    interface = device_interface.CudaInterface
    with contextlib.ExitStack() as stack:
        for target, value in (
            ("torch.cuda.get_device_properties", lambda *_: properties),
            ("torch.cuda.get_device_capability", lambda *_: (9, 0)),
            ("torch.cuda.current_device", lambda: 0),
            ("torch.cuda._lazy_init", lambda: None),
            ("torch.utils._triton.triton_hash_with_backend", lambda: "none"),
            ("torch._inductor.scheduler.has_triton", lambda *_: True),
            ("torch._inductor.fx_passes.reinplace._inplace_generalized_scatter", lambda x, *_: x),
        ):
            stack.enter_context(mock.patch(target, value))
        stack.enter_context(
            mock.patch.object(interface, "is_available", staticmethod(lambda: True))
        )
        create = classmethod(lambda *_: hint)
        stack.enter_context(mock.patch.object(hints.DeviceProperties, "create", create))
        cached = {"cuda": [properties]}
        stack.enter_context(
            mock.patch.dict(device_interface.caching_worker_device_properties, cached)
        )
        yield


class LaunchCounter:
    """Counts the kernels of compiled functions.

    Attributes:
        kernels: launches by name: kernels that inductor generates, and calls of libraries.
        eager: operations next to compiled functions, by name.
        num_bytes: bytes that the kernels read and write.
        operations: names of all operations in the graphs.
        lowering: True while a graph is executed, whose operations are counted here.
    """

    def __init__(self) -> None:
        self.operations: set[str] = set()
        self.lowering = False
        self.reset()

    def reset(self) -> None:
        """Start to count from zero."""
        self.kernels: Counter[str] = Counter()
        self.eager: Counter[str] = Counter()
        self.num_bytes = 0

    def compile(self, function: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
        """Return a version of a function that counts the kernels of each call.

        Args:
            function: function to compile, as a whole and for fixed shapes.
            options: settings of inductor.
        """

        def backend(gm: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
            with torch._inductor.config.patch(options):
                compiled: Any = compile_fx.compile_fx(gm, inputs, inner_compile=self._lower)
            return compiled

        compiled = torch.compile(function, backend=backend, fullgraph=True, dynamic=False)
        return self.without_modes(compiled)

    def without_modes(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a version of a function whose own operations are not counted."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with _disable_current_modes():
                return function(*args, **kwargs)

        return call

    def _lower(self, gm: torch.fx.GraphModule, inputs: list[Any], **kwargs: Any) -> Any:
        """Count the kernels of a graph, and return a function that executes it on the CPU.

        Args:
            gm: graph of operations.
            inputs: its inputs.
            **kwargs: what inductor knows about the graph.
        """
        kind = {name: bool(kwargs.get(name)) for name in ("is_inference", "is_backward")}
        self.operations |= {str(n.target) for n in gm.graph.nodes if n.op == "call_function"}
        with pretend_cuda():
            code, num_bytes = generated_code(copy.deepcopy(gm), inputs, **kind)
        launches = Counter(_LAUNCH.findall(code)) + Counter(_EXTERN.findall(code))

        def call(args: list[Any]) -> Any:
            self.kernels += launches
            self.num_bytes += num_bytes
            return gm(*args)

        return make_boxed_func(lambda *args: call(list(args)))


def use(counter: LaunchCounter, agent: Any, make_graph: Callable[[], Any]) -> None:
    """Have a counter stand for the compiler and for CUDA graphs of an agent on the CPU.

    Args:
        counter: the counter.
        agent: an agent that has not been accelerated.
        make_graph: makes what stands for a CUDA graph.
    """
    accelerable = agent.accelerable()
    if gpu_forms.wanted(agent.device):
        module, _, table = accelerable.gpu_layers.partition(":")
        layers = getattr(importlib.import_module(module), table)
        layers._replace(load=lambda _device: True).install(accelerable.networks, accelerable.device)
    options = gpu_options()
    for slot in accelerable.compiled:
        setattr(slot.owner, slot.name, counter.compile(getattr(slot.owner, slot.name), options))
    functions = agent.functions
    functions.differentiate = counter.without_modes(functions.differentiate)
    steps = accelerable.whole_steps
    recorder = StepRecorder(steps.generators, steps.optimizers, make_graph)
    for slot in steps.functions:
        setattr(slot.owner, slot.name, recorder.recorded(getattr(slot.owner, slot.name)))


def generated_code(
    gm: torch.fx.GraphModule, inputs: list[Any], *, is_inference: bool, is_backward: bool
) -> tuple[str, int]:
    """Return the code with which inductor launches the kernels of a graph, and their bytes.

    Args:
        gm: graph of operations, changed in place.
        inputs: its inputs, on the CPU.
        is_inference: whether no gradients are needed.
        is_backward: whether the graph computes gradients.
    """
    fake, device = detect_fake_mode() or FakeTensorMode(), torch.device("cuda", 0)
    for node in gm.graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": device}

    def moved(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        with fake:
            return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=device)

    inputs = [moved(x) for x in inputs]
    FakeTensorProp(gm, mode=fake).propagate_dont_convert_inputs(*inputs)
    compile_fx.record_original_output_strides(gm)
    view_to_reshape(gm)
    with V.set_fake_mode(fake):
        compile_fx._recursive_post_grad_passes(gm, is_inference=is_inference)
        graph = GraphLowering(
            gm, example_inputs=inputs, is_inference=is_inference, is_backward=is_backward
        )
        with V.set_graph_handler(graph), V.set_debug_handler(DebugContext()):
            graph.run(*inputs)
            code = str(graph.codegen()[0].value)
            return code, graph.count_bytes()[0]
