"""Replaces an agent's functions and layers by compiled and native versions."""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Callable
from typing import Any

from tdmpc2 import kernels
from tdmpc2.common.interfaces import Accelerable, Accelerated, FunctionSlot
from tdmpc2.common.numerics import fused_bf16
from tdmpc2.common.numerics.compile import Compiler
from tdmpc2.common.numerics.recorded_steps import StepRecorder
from tdmpc2.kernels.bf16 import TiledWeights
from tdmpc2.kernels.blocked import BlockedWeights


def install(agent: Accelerated, on_failure: Callable[[], None] | None = None) -> Compiler:
    """Replace what the agent declares as accelerable, from the next call on.

    On a CPU, layers use native kernels if these can be built, and planning uses blocked weights.
    On a GPU, layers of compiled functions use Triton kernels if these work (`triton_ops.load`).
    An agent that multiplies in bfloat16 uses its `bf16_layers` where `fused_bf16.choice` allows
    them; elsewhere it plans without blocked weights. Functions are compiled where the agent
    wants it. If compilation fails, a warning is issued and the agent continues with its plain
    functions. On a GPU, whole steps are recorded into CUDA graphs.

    Args:
        agent: an agent or a seed batch, not accelerated yet.
        on_failure: called if compilation fails.

    Returns:
        The compiler of the functions; `enabled` is False if they are not compiled.
    """
    accelerable = agent.accelerable()
    on_cpu = accelerable.device.type == "cpu"
    fused = on_cpu and accelerable.bf16_layers is not None and fused_bf16.choice().used
    native = _use_native_layers(accelerable, fused=fused)
    steps = accelerable.whole_steps if accelerable.device.type == "cuda" else None
    compiler = Compiler(accelerable.device, whole_steps=steps is not None)
    compiler.native_kernels = native
    if accelerable.device.type in accelerable.compiled_on:
        replace_functions(accelerable, compiler)
        compiler.switch_on(on_failure)
    if native and on_cpu and (fused or accelerable.bf16_layers is None):
        _use_blocked_weights(accelerable, TiledWeights if fused else BlockedWeights)
    if steps is not None:
        recorder = StepRecorder(steps.generators, steps.optimizers)
        for slot in steps.functions:
            _replace(slot, recorder.recorded)
    return compiler


def _use_native_layers(accelerable: Accelerable, *, fused: bool) -> bool:
    """Replace the layers of the networks; return whether their native kernels can be used.

    Args:
        accelerable: the networks and their layers.
        fused: whether to use the layers with matrix multiplications in bfloat16.
    """
    layers = accelerable.bf16_layers if fused else accelerable.native_layers
    if accelerable.device.type == "cuda":
        layers = accelerable.gpu_layers
    if layers is None:
        return False
    module, _, table = layers.partition(":")
    return getattr(importlib.import_module(module), table).install(
        accelerable.networks, accelerable.device
    )


def replace_functions(accelerable: Accelerable, compiler: Compiler) -> None:
    """Replace the agent's functions by versions that compile them and handle failures."""
    compile_piece = functools.cache(functools.partial(compiler.compile, piece=True))
    for slots, version in (
        (accelerable.compiled, compiler.compile),
        (accelerable.pieces, compile_piece),
        (accelerable.protected, compiler.protect),
    ):
        for slot in slots:
            _replace(slot, version)


def _use_blocked_weights(accelerable: Accelerable, kind: type[BlockedWeights]) -> None:
    """Plan with blocked weights if the agent plans and this machine supports them.

    Args:
        accelerable: the function that plans and its networks.
        kind: class of the blocked weights.
    """
    planning = accelerable.planning
    if planning is None or not (kernels.load() and kind.possible()):
        return
    modules = (module for network in planning.networks for module in network.modules())
    blockable = (m.blockable() for m in modules if isinstance(m, kernels.Blockable))
    layers = dict.fromkeys(itertools.chain.from_iterable(blockable))  # each only once
    weights = kind(layers, planning.rows)
    for optimizer in planning.optimizers:
        optimizer.register_step_post_hook(lambda *_: weights.forget())

    def with_blocked_weights(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with weights.in_use():
                return function(*args, **kwargs)

        return call

    _replace(planning.function, with_blocked_weights)


def _replace(slot: FunctionSlot, version: Callable[[Any], Any]) -> None:
    setattr(slot.owner, slot.name, version(getattr(slot.owner, slot.name)))
