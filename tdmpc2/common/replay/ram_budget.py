"""How much memory a run needs and may have, compared before it starts."""

from __future__ import annotations

import math
from pathlib import Path

import psutil
import torch

from tdmpc2.common.system.errors import UserError

_ROOM = 0.9  # share of what is free that a replay may plan with; networks and others need some
_GPU_ROOM = 0.5  # the same on a GPU, where others may come to need theirs
_UNLIMITED = 1 << 60  # cgroup v1 writes a number near 2^63 where there is no limit


def replay_bytes(
    rows: int, obs_shape: tuple[int, ...], action_dim: int, *, frame_stack: int = 1
) -> int:
    """Bytes of a `Replay` that fills `rows` rows.

    Args:
        rows: that will be filled.
        obs_shape: `(O,)` of float32, or `(C, H, W)` of bytes.
        action_dim: A, float32.
        frame_stack: frames in an observation, of which a row keeps one.
    """
    obs = math.prod(obs_shape) * 4 if len(obs_shape) == 1 else math.prod(obs_shape) // frame_stack
    others = 4 * action_dim + 4 + 4 + 8 + 8  # reward, terminated, task, list of starts
    return rows * (obs + others)


def replay_device(bytes_per_row: int, capacity: int, device: torch.device) -> torch.device:
    """Where a replay lies: beside the networks on a GPU if it fits there, else on the CPU.

    The place has no influence on what is sampled.

    Args:
        bytes_per_row: of the replay.
        capacity: rows, all of which a GPU sets aside at once.
        device: of the networks.
    """
    if device.type != "cuda":
        return device
    free = torch.cuda.mem_get_info(device)[0]
    return device if bytes_per_row * capacity <= _GPU_ROOM * free else torch.device("cpu")


def check_memory(bytes_per_row: int, rows: int) -> None:
    """Refuses a replay that would not fit into what is free beside the CPU.

    Args:
        bytes_per_row: of the replay.
        rows: that the run can ever fill.

    Raises:
        UserError: saying how large a replay would fit.
    """
    free = available_memory()
    need = bytes_per_row * rows
    if need <= _ROOM * free:
        return
    fits = int(_ROOM * free) // bytes_per_row
    fits = max(fits - fits % 1000, 0)
    raise UserError(
        f"the replay needs {need / 1e9:.1f} GB for {rows:,} rows, and {free / 1e9:.1f} GB are free "
        f"in this machine's or this job's memory; use buffer_size={fits} (not the paper's "
        "setting), or another machine"
    )


def available_memory(cgroups: Path = Path("/sys/fs/cgroup"), process: str = "self") -> int:
    """Bytes that this process may still take: the machine's, or its job's if that is less.

    Args:
        cgroups: where control groups are mounted; SLURM and containers set limits there.
        process: whose groups, as a name below `/proc`.
    """
    try:
        lines = Path(f"/proc/{process}/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    return min([psutil.virtual_memory().available, *cgroup_memory(cgroups, lines)])


def cgroup_memory(mount: Path, lines: list[str]) -> list[int]:
    """Bytes left in each control group with a memory limit that a process lies in.

    Args:
        mount: where control groups are mounted.
        lines: of `/proc/<pid>/cgroup`: `number:controllers:path`, no controllers in version 2.
    """
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, used, cache = mount, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit = mount / "memory", "memory.limit_in_bytes"
            used, cache = "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        # A limit holds for all groups below; inside a container the path may not be visible.
        inner = root / path.lstrip("/")
        groups = [inner, *inner.parents]
        for group in groups[: groups.index(root) + 1]:
            most, now = _number(group / limit), _number(group / used)
            if most is not None and now is not None and most < _UNLIMITED:
                left.append(max(most - now + _statistic(group / "memory.stat", cache), 0))
    return left


def _statistic(file: Path, name: str) -> int:
    """A line of `memory.stat`; files that were read count as used, but give way."""
    try:
        fields = file.read_text().split()
    except OSError:
        return 0
    return dict(zip(fields[::2], map(int, fields[1::2]), strict=True)).get(name, 0)


def _number(file: Path) -> int | None:
    """The number in a file; None where there is no file, or the word `max`."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
