"""Targets of TD-MPC2 in bfloat16 on CPUs, which `docs/performance.md` states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tdmpc2.common.numerics.cpu import cpu_field, cpu_flags, cpu_model

AMX, AMD = "Intel with AMX", "AMD with AVX512-BF16"
# Multiples of the matmul lower bound, by precision: plan and update.
SPEED = {
    AMX: {"bf16": (2.1, 3.4), "fp32": (1.30, 1.45)},
    AMD: {"bf16": (1.45, 1.9), "fp32": (1.38, 1.5)},
}
LOOP = 1.03


class Target(NamedTuple):
    """A target, and what was measured.

    Attributes:
        name: what is measured.
        value: measured value.
        bound: the largest value allowed, or the smallest.
        at_least: whether the bound is the smallest value.
    """

    name: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the value keeps the bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def kind_of_cpu() -> str:
    """Return what decides about bfloat16 on this CPU, as the tables name it."""
    flags = cpu_flags()
    if "amx_bf16" in flags:
        return AMX
    if "avx512_bf16" not in flags:
        return cpu_model()
    return AMD if cpu_field("vendor_id") == "AuthenticAMD" else "Intel with AVX512-BF16, no AMX"


def speed_targets(cpu: str, row: Mapping[str, Any]) -> Iterator[Target]:
    """Yield the targets of one row; none for CPUs and numbers of threads without targets.

    Nor for rows in which compilation does not work.

    Args:
        cpu: see `kind_of_cpu`.
        row: result of `measuring.measure` for a case for which targets hold.
    """
    if row["threads"] != 1 or cpu not in SPEED or not row["compiled"]:
        return
    precision = row["precision"]
    for name, bound in zip(("plan", "update"), SPEED[cpu][precision], strict=True):
        value = row[f"{name}_ratio_torch"]
        yield Target(f"{name}, {precision}: multiple of the lower bound", value, bound)
    yield Target(f"decision, {precision}: multiple of its parts", row["loop_ratio"], LOOP)


def error_targets(errors: Mapping[str, Mapping[str, float]]) -> list[Target]:
    """Return the targets of the errors; see `bf16_errors.measure`."""
    ours = errors["bf16"]
    return [
        Target("error of values: standard deviation", ours["value_std"], 0.0003),
        Target("best 64 of 512 sequences: share shared", ours["overlap"], 0.99, at_least=True),
        Target("gradient of the model: relative error", ours["model_gradient"], 0.003),
        Target("gradient of the policy: relative error", ours["policy_gradient"], 0.006),
    ]
