"""Settings of torch that hold for the whole process, which code of users may change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from tdmpc2.common.system.errors import UserError


def torch_settings() -> dict[str, Any]:
    """Return the settings of torch that decide results, by their names in messages."""
    return {
        "number of threads": torch.get_num_threads(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "default dtype": torch.get_default_dtype(),
        "gradient mode": torch.is_grad_enabled(),
    }


def require_unchanged(before: Mapping[str, Any], who: str) -> None:
    """Check that the settings are still those of an earlier call of `torch_settings`.

    Args:
        before: what that call returned.
        who: whose code has run since then, for the message.

    Raises:
        UserError: a setting has changed.
    """
    for name, value in torch_settings().items():
        if value != before[name]:
            raise UserError(
                f"{who} has changed torch's {name} from {before[name]} to {value} for the whole "
                "process, so results would differ; let it restore the setting after use"
            )


@contextlib.contextmanager
def settings_kept(who: str) -> Iterator[None]:
    """Check at the end of a block that the settings are those of its beginning.

    Args:
        who: whose code runs in the block, for the message.

    Raises:
        UserError: a setting has changed.
    """
    before = torch_settings()
    yield
    require_unchanged(before, who)
